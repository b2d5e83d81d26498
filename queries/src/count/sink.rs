//! What becomes of the rows that an operator goes through: they are counted, or those are kept of which somebody asks who they are.

use ameles_store::scan::LEFT_OUT;

use super::tally::{Tally, bits};
use crate::issued::SPREAD;

/// A device, or where its row lies.
#[derive(Clone, Copy, Debug)]
pub enum Whom {
    /// The pseudonym.
    Device(u128),
    /// Row of a piece, which is looked up later: columns of pseudonyms are not read for a few of them.
    At { piece: u32, row: u32 },
}

/// What a row counts for: bits of two parts of a cell (the second is the rest of a window, or those who did not come back), and what its users follow from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    pub first: u64,
    pub second: u64,
    pub payload: u64,
}

impl Mark {
    /// Bit 0.
    const UNIT: Self = Self { first: 1, second: 0, payload: 1 };

    pub fn cover(self) -> u128 {
        u128::from(self.first) | u128::from(self.second) << 64
    }
}

/// Rows of one month (cohort) with the bits that they count for.
pub struct Masks<'a> {
    pub series: usize,
    /// [`LEFT_OUT`] among them.
    pub groups: &'a [u32],
    pub first: &'a [u64],
    /// Empty where there is one part.
    pub second: &'a [u64],
    /// Of a row: who, and what its users follow from.
    pub who: &'a dyn Fn(usize) -> (Whom, u64),
}

impl Masks<'_> {
    fn mark(&self, row: usize, payload: u64) -> Mark {
        Mark { first: self.first.get(row).copied().unwrap_or(0), second: self.second.get(row).copied().unwrap_or(0), payload }
    }

    fn kept(&self, row: usize) -> Kept {
        let (whom, payload) = (self.who)(row);
        let group = self.groups.get(row).copied().unwrap_or(LEFT_OUT);
        Kept { series: self.series as u32, group, whom, mark: self.mark(row, payload) }
    }
}

/// Takes rows.
pub trait Sink {
    fn rows(&mut self, rows: &Masks<'_>);
    /// Rows that count one each, for bit 0.
    fn units(&mut self, series: usize, groups: &[u32], who: &dyn Fn(usize) -> Whom);
    /// A row's counts of a measure, aligned with its days.
    fn sums(&mut self, series: usize, group: u32, days: u32, counts: &[u32]);
}

/// A row that was kept.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    pub series: u32,
    pub group: u32,
    pub whom: Whom,
    pub mark: Mark,
}

/// How many devices have which value of a measure, by day: whoever changes, comes or goes changes a day's by two at most.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    pub by_day: [[u32; SPREAD]; 32],
    /// Devices with any on any day.
    pub any: u32,
}

impl Spread {
    pub fn add(&mut self, other: &Self) {
        self.by_day.as_flattened_mut().iter_mut().zip(other.by_day.as_flattened()).for_each(|(mine, its)| *mine += its);
        self.any += other.any;
    }
}

/// The place of a value: each small one has its own, larger ones share.
fn place_of(value: u32) -> usize {
    match value {
        0..=12 => value.saturating_sub(1) as usize,
        13..=20 => 12,
        21..=40 => 13,
        41..=100 => 14,
        _ => SPREAD - 1,
    }
}

/// Counts of one group in one series.
#[derive(Clone, Default)]
pub struct Counts {
    pub first: Tally,
    pub second: Option<Box<Tally>>,
    /// Rows that count one each.
    pub units: u64,
    pub sums: Option<Box<[i64; 32]>>,
    pub spread: Option<Box<Spread>>,
    /// Bits for which enough rows have been kept, and how many for the others.
    full: u128,
    kept: Vec<u32>,
}

/// More rows are kept of each cell than the smallest group needs, so that there are users among them, as long as they are not too many.
pub const KEPT_FACTOR: u32 = 12;
const KEPT_MAX: usize = 1 << 19;

/// Counts all rows, and keeps the first of each cell: at least `k`.
pub struct Counting {
    k: u32,
    pub series: Vec<Vec<Option<Box<Counts>>>>,
    pub kept: Vec<Kept>,
}

impl Counting {
    pub fn new(series: usize, k: Option<u32>) -> Self {
        Self { k: k.unwrap_or(0), series: vec![Vec::new(); series], kept: Vec::new() }
    }

    /// How many rows of a cell are kept; none without a guard.
    fn enough(&self) -> u32 {
        if self.kept.len() < KEPT_MAX { self.k.saturating_mul(KEPT_FACTOR) } else { self.k }
    }

    /// The counts of the series, at least up to the greatest of some groups.
    fn groups(&mut self, series: usize, groups: &[u32]) -> &mut [Option<Box<Counts>>] {
        let most = groups.iter().fold(0, |most, group| most.max(*group)) as usize;
        let Some(known) = self.series.get_mut(series) else { return &mut [] };
        if most >= known.len() {
            known.resize_with(most + 1, || None);
        }
        known
    }

    /// Keeps those of the rows whose cells have not enough yet.
    fn keep(&mut self, rows: &Masks<'_>) {
        let enough = self.enough();
        let Some(known) = self.series.get_mut(rows.series) else { return };
        for (row, group) in rows.groups.iter().enumerate().filter(|(_, group)| **group != LEFT_OUT) {
            let cover = rows.mark(row, 0).cover();
            if let Some(Some(counts)) = known.get_mut(*group as usize)
                && cover & !counts.full != 0
            {
                self.kept.push(rows.kept(row));
                counts.keep(cover, enough);
            }
        }
    }
}

impl Counts {
    /// Notes a kept row.
    #[cold]
    fn keep(&mut self, cover: u128, enough: u32) {
        self.kept.resize(128, 0);
        for (half, mask) in [cover as u64, (cover >> 64) as u64].into_iter().enumerate() {
            for bit in bits(mask) {
                let bit = bit + 64 * half;
                self.kept[bit] += 1;
                if self.kept[bit] >= enough {
                    self.full |= 1 << bit;
                }
            }
        }
    }
}

impl Sink for Counting {
    fn rows(&mut self, rows: &Masks<'_>) {
        let groups = self.groups(rows.series, rows.groups);
        let same = rows.groups.first().filter(|first| rows.groups.iter().fold(0, |differs, group| differs | (group ^ **first)) == 0);
        let mut all_full = true;
        if let Some(group) = same {
            let Some(place) = groups.get_mut(*group as usize).filter(|_| *group != LEFT_OUT) else { return };
            let counts = place.get_or_insert_default();
            counts.first.add_all(rows.first);
            if !rows.second.is_empty() {
                counts.second.get_or_insert_default().add_all(rows.second);
            }
            let all = |masks: &[u64]| masks.iter().fold(0, |all, mask| all | mask);
            let cover = u128::from(all(rows.first)) | u128::from(all(rows.second)) << 64;
            all_full = cover & !counts.full == 0;
        } else {
            for (row, (group, mask)) in rows.groups.iter().zip(rows.first).enumerate() {
                let Some(place) = groups.get_mut(*group as usize).filter(|_| *group != LEFT_OUT) else { continue };
                let counts = place.get_or_insert_default();
                counts.first.add(*mask);
                let mut cover = u128::from(*mask);
                if let Some(second) = rows.second.get(row) {
                    counts.second.get_or_insert_default().add(*second);
                    cover |= u128::from(*second) << 64;
                }
                all_full &= cover & !counts.full == 0;
            }
        }
        if self.k > 0 && !all_full {
            self.keep(rows);
        }
    }

    fn units(&mut self, series: usize, groups: &[u32], who: &dyn Fn(usize) -> Whom) {
        let enough = u64::from(self.enough());
        let known = self.groups(series, groups);
        let before: Vec<u64> = known.iter().map(|counts| counts.as_ref().map_or(0, |counts| counts.units)).collect();
        let most = groups.iter().fold(0, |most, group| most.max(*group)) as usize;
        let mut units = vec![0_u64; most + 1];
        // Neighbours of one group would wait for each other's count.
        let mut others = units.clone();
        let (pairs, last) = groups.as_chunks::<2>();
        for [one, other] in pairs {
            units[*one as usize] += 1;
            others[*other as usize] += 1;
        }
        for group in last {
            units[*group as usize] += 1;
        }
        for (group, (count, other)) in units.iter().zip(others).enumerate().skip(1).filter(|(_, (count, other))| **count + other > 0) {
            if let Some(place) = known.get_mut(group) {
                place.get_or_insert_default().units += count + other;
            }
        }
        if enough == 0 || units.iter().enumerate().skip(1).all(|(group, _)| before.get(group).is_none_or(|before| *before >= enough)) {
            return;
        }
        let mut kept = before;
        for (row, group) in groups.iter().enumerate().filter(|(_, group)| **group != LEFT_OUT) {
            if let Some(count) = kept.get_mut(*group as usize).filter(|count| **count < enough) {
                *count += 1;
                self.kept.push(Kept { series: series as u32, group: *group, whom: who(row), mark: Mark::UNIT });
            }
        }
    }

    fn sums(&mut self, series: usize, group: u32, days: u32, values: &[u32]) {
        let is_guarded = self.k > 0;
        let groups = self.groups(series, &[group]);
        let Some(place) = groups.get_mut(group as usize).filter(|_| group != LEFT_OUT) else { return };
        let counts = place.get_or_insert_default();
        let sums = counts.sums.get_or_insert_with(|| Box::new([0; 32]));
        for (bit, value) in bits(u64::from(days)).zip(values) {
            sums[bit & 31] += i64::from(*value as i32);
        }
        if is_guarded {
            let spread = counts.spread.get_or_insert_default();
            let mut any = false;
            for (bit, value) in bits(u64::from(days)).zip(values).filter(|(_, value)| **value != 0) {
                spread.by_day[bit & 31][place_of(*value)] += 1;
                any = true;
            }
            spread.any += u32::from(any);
        }
    }
}

/// Keeps all rows that have a bit of a cell that is still open.
pub struct Keeping<'a> {
    /// Open bits by series and group.
    pub open: &'a [Vec<u128>],
    pub kept: Vec<Kept>,
}

impl Sink for Keeping<'_> {
    fn rows(&mut self, rows: &Masks<'_>) {
        let Some(open) = self.open.get(rows.series) else { return };
        for (row, group) in rows.groups.iter().enumerate() {
            let open = open.get(*group as usize).copied().unwrap_or(0);
            if open != 0 && rows.mark(row, 0).cover() & open != 0 {
                self.kept.push(rows.kept(row));
            }
        }
    }

    fn units(&mut self, series: usize, groups: &[u32], who: &dyn Fn(usize) -> Whom) {
        let Some(open) = self.open.get(series) else { return };
        for (row, group) in groups.iter().enumerate() {
            if open.get(*group as usize).is_some_and(|open| open & 1 != 0) {
                self.kept.push(Kept { series: series as u32, group: *group, whom: who(row), mark: Mark::UNIT });
            }
        }
    }

    fn sums(&mut self, _: usize, _: u32, _: u32, _: &[u32]) {}
}
