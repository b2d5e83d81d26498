//! Running totals: consecutive days can be subtracted, so a label changes over from what was issued to what is new once,
//! where that is a step like any other.

use std::collections::{BTreeMap, BTreeSet};

use ameles_core::Day;

use super::rule::{Cell, Date, Label, Proof, Unit, Verdict, block_labels, compare, hold_more, is_safe};

/// What is issued: for days issued before, each label's old rows up to a day and its new ones from then on; for days
/// after those, the new ones, moved by what is held back. With `held` nothing that was issued changes.
pub fn settle(proof: Proof, old: &BTreeMap<Day, Date>, new: &BTreeMap<Day, Date>, k: u32, held: bool) -> BTreeMap<Day, Date> {
    let nothing = Date::default();
    let of = |dates: &BTreeMap<Day, Date>, day: Day| dates.get(&day).cloned().unwrap_or_default();
    let verdicts = verdicts(proof, old, new, k);
    let days: Vec<Day> = old.keys().copied().collect();
    let labels: BTreeSet<&Label> = old.values().chain(new.values()).flat_map(|date| date.cells.keys()).collect();
    let mut issued: BTreeMap<Day, Date> = BTreeMap::new();
    for label in labels {
        let cell = |dates: &BTreeMap<Day, Date>, day: Day| dates.get(&day).and_then(|date| date.cells.get(label)).cloned();
        let verdict = |day: Day| {
            let units = verdicts.get(&day)?;
            units.get(&Some(label.clone())).or_else(|| units.get(&None)).copied()
        };
        let change_over = if held { days.len() } else { change_over(&days, old, new, label, k, &verdict) };
        for (at, day) in days.iter().enumerate() {
            let is_new = at >= change_over && verdict(*day) == Some(Verdict::Free);
            if let Some(mut cell) = cell(if is_new { new } else { old }, *day) {
                // Days changed over rest on those before them as they are now.
                if proof == Proof::RunningSpread
                    && change_over < days.len()
                    && let Some(now) = new.get(day).and_then(|date| date.cells.get(label))
                {
                    cell.behind.clone_from(&now.behind);
                }
                issued.entry(*day).or_default().cells.insert(label.clone(), cell);
            }
        }
        // The rest of the days goes on from where the label stands.
        let Some(last) = days.last() else { continue };
        let moved = match (cell(old, *last), cell(new, *last)) {
            _ if change_over < days.len() => Some(0),
            (Some(old), Some(new)) => Some(value(&old).unwrap_or(0) - value(&new).unwrap_or(0)),
            (None, None) => Some(0),
            _ => None,
        };
        let Some(moved) = moved else { continue };
        for (day, date) in new.iter().filter(|(day, _)| *day > last) {
            if let Some(cell) = date.cells.get(label) {
                issued.entry(*day).or_default().cells.insert(label.clone(), shifted(proof, cell, moved));
            }
        }
    }
    for day in new.keys().chain(old.keys()) {
        let (before, after) = (old.get(day), of(new, *day));
        let date = issued.entry(*day).or_default();
        let block = block_labels(before.unwrap_or(&nothing), &after);
        let anew = before.is_none() || block.iter().all(|label| date.cells.get(label) == after.cells.get(label));
        before.into_iter().for_each(|before| date.remember(before));
        date.hidden = if anew { after.hidden } else { before.map(|date| date.hidden.clone()).unwrap_or_default() };
    }
    if days.is_empty() { new.clone() } else { issued }
}

type Verdicts = BTreeMap<Option<Label>, Verdict>;

/// By day and label (none: the block).
fn verdicts(proof: Proof, old: &BTreeMap<Day, Date>, new: &BTreeMap<Day, Date>, k: u32) -> BTreeMap<Day, Verdicts> {
    let mut changed: BTreeMap<Option<Label>, i64> = BTreeMap::new();
    let mut verdicts = BTreeMap::new();
    for (day, before) in old {
        let after = new.get(day).cloned().unwrap_or_else(|| Date { hidden: vec![0; before.hidden.len()], ..Date::default() });
        let mut units: Vec<Unit> = compare(proof, before, &after, k);
        if proof == Proof::RunningSpread {
            // Whoever changed a day has changed all totals from then on.
            for unit in &mut units {
                let so_far = changed.entry(unit.label.clone()).or_default();
                *so_far = unit.delta.first().copied().unwrap_or(0).max(*so_far);
                if unit.verdict != Verdict::Same {
                    unit.verdict = if *so_far >= i64::from(k) { Verdict::Free } else { Verdict::Held };
                }
            }
        } else {
            // What is shown lags behind the devices, since it moves in steps: it too has to differ by none or by `k`.
            let block = block_labels(before, &after);
            let shown = |date: &Date, unit: &Unit| -> i64 {
                let is_of = |label: &Label| unit.label.as_ref().map_or_else(|| block.contains(label), |own| own == label);
                date.cells.iter().filter(|(label, _)| is_of(label)).filter_map(|(_, cell)| value(cell)).sum()
            };
            for unit in units.iter_mut().filter(|unit| unit.verdict == Verdict::Free) {
                if !is_safe(shown(&after, unit) - shown(before, unit), k) {
                    unit.verdict = Verdict::Held;
                }
            }
            hold_more(&mut units, k);
        }
        verdicts.insert(*day, units.into_iter().map(|unit| (unit.label, unit.verdict)).collect());
    }
    verdicts
}

/// The first of the days from which on nothing is held back, and at which the total moves by `k` or not at all.
fn change_over(
    days: &[Day],
    old: &BTreeMap<Day, Date>,
    new: &BTreeMap<Day, Date>,
    label: &Label,
    k: u32,
    verdict: &dyn Fn(Day) -> Option<Verdict>,
) -> usize {
    let held = days.iter().rposition(|day| verdict(*day).is_none_or(|verdict| verdict == Verdict::Held));
    let first = held.map_or(0, |at| at + 1);
    let total = |dates: &BTreeMap<Day, Date>, day: Day| dates.get(&day).and_then(|date| date.cells.get(label)).and_then(value);
    // Days before the first step have no row: the new rows may begin later than the old ones, or never, where the label has gone.
    let fits = |at: &usize| match ((0..*at).rev().find_map(|before| total(old, days[before])), total(new, days[*at])) {
        (Some(before), Some(after)) => is_safe(after - before, k),
        (Some(_), None) => new.range(days[*at]..).all(|(day, _)| total(new, *day).is_none()),
        (None, _) => true,
    };
    (first..days.len()).find(fits).unwrap_or(days.len())
}

fn value(cell: &Cell) -> Option<i64> {
    cell.shown.values().next()?.first().copied()
}

fn shifted(proof: Proof, cell: &Cell, by: i64) -> Cell {
    let mut cell = cell.clone();
    cell.shown.values_mut().filter_map(|numbers| numbers.first_mut()).for_each(|number| *number += by);
    if proof == Proof::Count {
        cell.behind.iter_mut().for_each(|devices| *devices += by);
    }
    cell
}
