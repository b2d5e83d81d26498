//! Which rows of a date may be issued anew.
//!
//! A date's rows are compared label by label, by the devices behind them, with what was issued last. The smallest
//! step is `k` devices everywhere: for each label, for `(other)` together with the labels that came or went and with what
//! stays hidden, for each margin of what is issued anew, and for all that is held back together. What does not
//! satisfy this is answered as it was issued.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The dimensions' values in canonical order; none for `(other)`.
pub type Label = Option<Vec<Option<String>>>;

/// A label's rows of one date.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Numbers (bits of ratios) by kind or offset; one entry where there is neither.
    pub shown: BTreeMap<i64, Vec<i64>>,
    /// Devices behind them, as [`Proof`] says.
    pub behind: Vec<i64>,
}

/// All rows of one date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Date {
    pub cells: BTreeMap<Label, Cell>,
    /// Devices that no label shows.
    pub hidden: Vec<i64>,
    /// What was behind labels that were told once and are not any more: when they come back, they are compared with it.
    pub gone: BTreeMap<Label, Vec<i64>>,
}

impl Date {
    /// Remembers what `before` told and this does not.
    pub fn remember(&mut self, before: &Self) {
        let told = before.cells.iter().filter(|(_, cell)| !cell.shown.is_empty()).map(|(label, cell)| (label, &cell.behind));
        for (label, behind) in before.gone.iter().chain(told).filter(|(label, _)| label.is_some()) {
            if self.cells.get(label).is_none_or(|cell| cell.shown.is_empty()) {
                self.gone.insert(label.clone(), behind.clone());
            }
        }
    }
}

/// What the numbers in `behind` are, and so how many devices at least have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// One count of devices, which is the number shown.
    Count,
    /// Users, then devices.
    Users,
    /// Counts whose ratio is shown, of users and then of devices where users are counted; differences of neighbours follow.
    Ratio,
    /// New, retained, resurrected, churned.
    Growth,
    /// The cohort, then those active by offset.
    Retention,
    /// How many devices have which value on a day, summed over so many days: a device changes each day's by two at most.
    Spread { days: i64 },
    /// The same of the day, for a running total.
    RunningSpread,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Shows what was issued.
    Same,
    /// May be issued anew.
    Free,
    /// Stays as it was issued.
    Held,
}

/// A label, or the block of those that cannot be compared alone.
#[derive(Clone, Debug)]
pub struct Unit {
    /// None for the block.
    pub label: Option<Label>,
    /// What has changed, in devices.
    pub delta: Vec<i64>,
    pub verdict: Verdict,
}

/// None, or at least `k`.
pub fn is_safe(devices: i64, k: u32) -> bool {
    devices == 0 || devices.unsigned_abs() >= u64::from(k)
}

/// What has changed between two states of the devices behind a label. Empty where it cannot be told.
pub fn delta(proof: Proof, old: &[i64], new: &[i64]) -> Vec<i64> {
    let difference: Vec<i64> = new.iter().zip(old).map(|(new, old)| new - old).collect();
    let at = |index: usize| difference.get(index).copied().unwrap_or(0);
    match proof {
        _ if difference.is_empty() => difference,
        Proof::Count | Proof::Users => difference,
        Proof::Ratio => {
            difference.iter().copied().chain(difference.chunks(2).map(|pair| pair.iter().rev().fold(0, |rest, d| d - rest))).collect()
        }
        Proof::Growth => difference.iter().copied().chain([at(0) + at(1) + at(2), at(1) + at(3)]).collect(),
        Proof::Retention => difference.iter().copied().chain(difference.iter().skip(1).map(|active| at(0) - active)).collect(),
        Proof::Spread { .. } | Proof::RunningSpread => {
            let days = if let Proof::Spread { days } = proof { days.max(1) } else { 1 };
            // The last number of a month's spread counts each device once.
            let (spread, once) = difference.split_at(difference.len().min(SPREAD));
            let moved: i64 = spread.iter().map(|d| d.abs()).sum();
            let net: i64 = spread.iter().sum();
            let changed = (moved / (2 * days)).max(net.abs() / days).max(once.first().map_or(0, |d| d.abs()));
            vec![changed]
        }
    }
}

/// Values that a spread tells apart.
pub const SPREAD: usize = 16;

fn verdict(proof: Proof, delta: &[i64], k: u32) -> Verdict {
    let enough = |devices: &i64| devices.unsigned_abs() >= u64::from(k);
    let changed = match proof {
        // Of users only as many as there are devices.
        Proof::Users => delta.get(1).is_some_and(enough),
        _ => delta.iter().any(enough),
    };
    if changed && delta.iter().all(|devices| is_safe(*devices, k)) { Verdict::Free } else { Verdict::Held }
}

/// Whether the new rows show what the old ones do. A cohort gets new months.
fn shows_the_same(proof: Proof, old: &Cell, new: &Cell) -> bool {
    match proof {
        Proof::Retention => {
            old.behind.first() == new.behind.first() && old.shown.iter().all(|(offset, numbers)| new.shown.get(offset) == Some(numbers))
        }
        _ => old.shown == new.shown,
    }
}

fn add(sum: &mut Vec<i64>, more: &[i64]) {
    sum.resize(sum.len().max(more.len()), 0);
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// The labels of the block, with which the rest of the date is compared as one.
pub fn block_labels(old: &Date, new: &Date) -> BTreeSet<Label> {
    let moved: BTreeSet<&Label> = old
        .cells
        .keys()
        .filter(|label| !new.cells.contains_key(*label))
        .chain(new.cells.keys().filter(|label| !old.cells.contains_key(*label)))
        .collect();
    moved.into_iter().cloned().chain([None]).collect()
}

/// The verdict on each label of a date, on its own.
pub fn compare(proof: Proof, old: &Date, new: &Date, k: u32) -> Vec<Unit> {
    let block = block_labels(old, new);
    let mut units = Vec::new();
    let whole = |date: &Date| {
        let mut sum = date.hidden.clone();
        date.cells.iter().filter(|(label, _)| block.contains(*label)).for_each(|(_, cell)| add(&mut sum, &cell.behind));
        sum
    };
    for (label, cell) in old.cells.iter().filter(|(label, _)| !block.contains(*label)) {
        let Some(next) = new.cells.get(label) else { continue };
        let delta = delta(proof, &cell.behind, &next.behind);
        let verdict = if shows_the_same(proof, cell, next) { Verdict::Same } else { verdict(proof, &delta, k) };
        units.push(Unit { label: Some(label.clone()), delta, verdict });
    }
    let delta = delta(proof, &whole(old), &whole(new));
    let shows = |date: &Date, other: &Date| {
        date.cells.iter().filter(|(label, _)| block.contains(*label)).all(|(label, cell)| match other.cells.get(label) {
            Some(other) => shows_the_same(proof, cell, other) || (cell.shown.is_empty() && other.shown.is_empty()),
            None => cell.shown.is_empty(),
        })
    };
    let comes_back_close = || {
        let back =
            new.cells.iter().filter_map(|(label, cell)| Some((old.gone.get(label)?, cell))).filter(|(_, cell)| !cell.shown.is_empty());
        back.into_iter().any(|(before, cell)| !self::delta(proof, before, &cell.behind).iter().all(|devices| is_safe(*devices, k)))
    };
    let verdict = match verdict(proof, &delta, k) {
        _ if shows(old, new) && (proof == Proof::Retention || shows(new, old)) => Verdict::Same,
        Verdict::Free if comes_back_close() => Verdict::Held,
        verdict => verdict,
    };
    units.push(Unit { label: None, delta, verdict });
    units
}

/// Holds back more, until each margin of what is issued anew, and all that is held back together, is none or at least `k`.
pub fn hold_more(units: &mut [Unit], k: u32) {
    loop {
        let held = units.iter().filter(|unit| unit.verdict == Verdict::Held).count();
        for (margin, members) in margins(units) {
            if !margin.iter().all(|devices| is_safe(*devices, k)) {
                members.into_iter().for_each(|at| units[at].verdict = Verdict::Held);
            }
        }
        let mut rest = Vec::new();
        units.iter().filter(|unit| unit.verdict != Verdict::Free).for_each(|unit| add(&mut rest, &unit.delta));
        if !rest.iter().all(|devices| is_safe(*devices, k)) {
            let size = |unit: &Unit| unit.delta.iter().map(|devices| devices.unsigned_abs()).max().unwrap_or(0);
            let smallest = units.iter_mut().filter(|unit| unit.verdict == Verdict::Free).min_by_key(|unit| size(unit));
            smallest.into_iter().for_each(|unit| unit.verdict = Verdict::Held);
        }
        if units.iter().filter(|unit| unit.verdict == Verdict::Held).count() == held {
            return;
        }
    }
}

/// Sums over the labels to be issued anew that agree in some dimensions, the total among them.
fn margins(units: &[Unit]) -> Vec<(Vec<i64>, Vec<usize>)> {
    type Key<'a> = Vec<Option<&'a Option<String>>>;
    let mut sums: BTreeMap<Key<'_>, (Vec<i64>, Vec<usize>)> = BTreeMap::new();
    let mut total = (Vec::new(), Vec::new());
    for (at, unit) in units.iter().enumerate().filter(|(_, unit)| unit.verdict == Verdict::Free) {
        add(&mut total.0, &unit.delta);
        total.1.push(at);
        let Some(Some(names)) = &unit.label else { continue };
        let subsets = 1_u32 << names.len().min(DIMENSIONS_MAX);
        // Neither the total, which is above, nor the label itself.
        for subset in 1..subsets.saturating_sub(1) {
            let key = names.iter().enumerate().map(|(at, name)| (subset >> at & 1 == 1).then_some(name)).collect();
            let (sum, members) = sums.entry(key).or_default();
            add(sum, &unit.delta);
            members.push(at);
        }
    }
    sums.into_values().chain([total]).collect()
}

/// Margins are looked at over so many dimensions: more are never asked at once.
const DIMENSIONS_MAX: usize = 8;

/// The date as it is issued.
pub fn merged(proof: Proof, old: &Date, new: &Date, units: &[Unit]) -> Date {
    let mut date = Date { hidden: old.hidden.clone(), ..Date::default() };
    let mut take = |label: &Label, from: &Date| {
        if let Some(cell) = from.cells.get(label) {
            date.cells.insert(label.clone(), cell.clone());
        }
    };
    let block = block_labels(old, new);
    let mut anew = false;
    for unit in units {
        // What shows the same keeps what it rested on, so that small changes add up. A cohort has new months.
        let is_new = unit.verdict == Verdict::Free || (unit.verdict == Verdict::Same && proof == Proof::Retention);
        let from = if is_new { new } else { old };
        match &unit.label {
            Some(label) => take(label, from),
            None => {
                block.iter().for_each(|label| take(label, from));
                anew = is_new;
            }
        }
    }
    if anew {
        date.hidden.clone_from(&new.hidden);
    }
    date.remember(old);
    date
}
