//! What becomes of the rows that an operator goes through: they are counted, or those are kept of which somebody asks who they are.

use ameles_store::scan::LEFT_OUT;

use super::tally::{Tally, bits};

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
    /// One part, from which users follow as well.
    pub const fn of(mask: u64) -> Self {
        Self { first: mask, second: 0, payload: mask }
    }

    fn cover(self) -> u128 {
        u128::from(self.first) | u128::from(self.second) << 64
    }
}

/// Takes rows; `series` is the place of the month or cohort, `group` the number of the grouping.
pub trait Sink {
    fn row(&mut self, series: usize, group: u32, mark: Mark, whom: Whom);
    /// Rows that count one each, for bit 0; the first is the row `at` of the piece.
    fn rows(&mut self, series: usize, groups: &[u32], devices: &[u128], piece: u32, at: usize) {
        for (row, group) in groups.iter().enumerate() {
            let whom = devices.get(row).map_or(Whom::At { piece, row: (at + row) as u32 }, |device| Whom::Device(*device));
            self.row(series, *group, Mark::of(1), whom);
        }
    }
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

/// Counts of one group in one series.
#[derive(Clone, Default)]
pub struct Counts {
    pub first: Tally,
    pub second: Option<Box<Tally>>,
    /// Rows that count one each.
    pub units: u64,
    pub sums: Option<Box<[i64; 32]>>,
    /// Bits for which enough rows have been kept, and how many for the others.
    full: u128,
    kept: Vec<u32>,
}

/// Counts all rows, and keeps the first `k` of each cell.
pub struct Counting {
    k: u32,
    pub series: Vec<Vec<Option<Box<Counts>>>>,
    pub kept: Vec<Kept>,
}

impl Counting {
    pub fn new(series: usize, k: Option<u32>) -> Self {
        Self { k: k.unwrap_or(0), series: vec![Vec::new(); series], kept: Vec::new() }
    }

    #[inline]
    fn counts(&mut self, series: usize, group: u32) -> Option<&mut Counts> {
        let groups = self.series.get_mut(series)?;
        let at = group as usize;
        if at >= groups.len() {
            groups.resize_with(at + 1, || None);
        }
        Some(groups.get_mut(at)?.get_or_insert_default())
    }
}

/// Notes a row where one of its cells has not enough yet.
#[cold]
fn keep(counts: &mut Counts, kept: &mut Vec<Kept>, k: u32, row: Kept) {
    kept.push(row);
    counts.kept.resize(128, 0);
    for (half, mask) in [row.mark.first, row.mark.second].into_iter().enumerate() {
        for bit in bits(mask) {
            let bit = bit + 64 * half;
            counts.kept[bit] += 1;
            if counts.kept[bit] >= k {
                counts.full |= 1 << bit;
            }
        }
    }
}

impl Sink for Counting {
    #[inline]
    fn row(&mut self, series: usize, group: u32, mark: Mark, whom: Whom) {
        if group == LEFT_OUT {
            return;
        }
        let k = self.k;
        let Some(counts) = self.counts(series, group) else { return };
        counts.first.add(mark.first);
        if mark.second != 0 {
            counts.second.get_or_insert_default().add(mark.second);
        }
        if k > 0 && mark.cover() & !counts.full != 0 {
            let row = Kept { series: series as u32, group, whom, mark };
            let Some(Some(counts)) = self.series.get_mut(series).and_then(|groups| groups.get_mut(group as usize)) else { return };
            keep(counts, &mut self.kept, k, row);
        }
    }

    fn rows(&mut self, series: usize, groups: &[u32], devices: &[u128], piece: u32, at: usize) {
        let most = groups.iter().fold(0, |most, group| most.max(*group)) as usize;
        let mut units = vec![0_u64; most + 1];
        let k = u64::from(self.k);
        if k == 0 {
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
            for (count, other) in units.iter_mut().zip(others) {
                *count += other;
            }
        } else {
            for (group, count) in units.iter_mut().enumerate().skip(1) {
                *count = self.series.get(series).and_then(|groups| groups.get(group)?.as_ref()).map_or(0, |counts| counts.units);
            }
            let before = units.clone();
            for (row, group) in groups.iter().enumerate() {
                let count = &mut units[*group as usize];
                if *count < k && *group != LEFT_OUT {
                    let whom = devices.get(row).map_or(Whom::At { piece, row: (at + row) as u32 }, |device| Whom::Device(*device));
                    self.kept.push(Kept { series: series as u32, group: *group, whom, mark: Mark::of(1) });
                }
                *count += 1;
            }
            for (count, before) in units.iter_mut().zip(before) {
                *count -= before;
            }
        }
        for (group, count) in units.iter().enumerate().skip(1).filter(|(_, count)| **count > 0) {
            if let Some(counts) = self.counts(series, group as u32) {
                counts.units += count;
            }
        }
    }

    fn sums(&mut self, series: usize, group: u32, days: u32, values: &[u32]) {
        if group == LEFT_OUT {
            return;
        }
        let Some(counts) = self.counts(series, group) else { return };
        let sums = counts.sums.get_or_insert_with(|| Box::new([0; 32]));
        for (bit, value) in bits(u64::from(days)).zip(values) {
            sums[bit & 31] += i64::from(*value as i32);
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
    #[inline]
    fn row(&mut self, series: usize, group: u32, mark: Mark, whom: Whom) {
        let open = self.open.get(series).and_then(|groups| groups.get(group as usize)).copied().unwrap_or(0);
        if mark.cover() & open != 0 {
            self.kept.push(Kept { series: series as u32, group, whom, mark });
        }
    }
    fn sums(&mut self, _: usize, _: u32, _: u32, _: &[u32]) {}
}
