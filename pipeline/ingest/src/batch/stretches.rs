//! Which rows of which part belong together.

use std::collections::BTreeMap;

use ameles_core::Month;

use super::part::{Group, Part, stable_order};

/// Neighbouring rows of one part.
#[derive(Clone, Copy)]
pub(super) struct Stretch {
    pub(super) part: u32,
    /// Its first row.
    pub(super) start: u32,
    /// Behind its last row.
    pub(super) end: u32,
}

impl Stretch {
    const fn len(&self) -> usize {
        (self.end - self.start) as usize
    }
}

/// A month's rows whose devices are in one range, in all parts.
pub(super) struct Share {
    pub(super) month: Month,
    pub(super) rows: usize,
    /// Behind its last stretch; it begins where the one before ends.
    end: usize,
}

#[cfg(test)]
impl Share {
    /// One without stretches.
    pub(super) const fn of(month: Month, rows: usize) -> Self {
        Self { month, rows, end: 0 }
    }
}

/// The stretches of all months and ranges that have rows. The table is made once: to look into each part for each range would wait
/// for memory at every step of every search.
pub(super) struct Stretches {
    stretches: Vec<Stretch>,
    shares: Vec<Share>,
}

impl Stretches {
    /// Of parts that are grouped by so many bits.
    pub(super) fn new(parts: &[Part], bits: u32) -> Self {
        let mut months: BTreeMap<i32, u32> = parts.iter().flat_map(by_month).map(|groups| (groups[0].month, 0)).collect();
        (0..).zip(months.values_mut()).for_each(|(number, month)| *month = number);
        let groups = parts.iter().map(|part| part.groups().len()).sum();
        let (mut found, mut buckets) = (Vec::with_capacity(groups), Vec::with_capacity(groups));
        for (number, part) in (0..).zip(parts) {
            for groups in by_month(part) {
                let month = months[&groups[0].month];
                found.extend(groups.iter().map(|group| Stretch { part: number, start: group.start, end: group.end }));
                buckets.extend(groups.iter().map(|group| month << bits | group.range));
            }
        }
        let order = stable_order(&buckets, months.len() << bits);
        let stretches: Vec<Stretch> = order.iter().map(|at| found[*at as usize]).collect();
        let months: Vec<Month> = months.into_keys().map(Month::from_epoch_months).collect();
        let mut shares = Vec::new();
        let mut end = 0;
        for same in order.chunk_by(|left, right| buckets[*left as usize] == buckets[*right as usize]) {
            let rows = stretches[end..end + same.len()].iter().map(Stretch::len).sum();
            end += same.len();
            shares.push(Share { month: months[(buckets[same[0] as usize] >> bits) as usize], rows, end });
        }
        Self { stretches, shares }
    }

    /// In ascending order of month and range.
    pub(super) fn shares(&self) -> &[Share] {
        &self.shares
    }

    /// The stretches of a share, by its number, in order of arrival.
    pub(super) fn of(&self, share: usize) -> &[Stretch] {
        let start = share.checked_sub(1).map_or(0, |before| self.shares[before].end);
        &self.stretches[start..self.shares[share].end]
    }
}

fn by_month(part: &Part) -> impl Iterator<Item = &[Group]> {
    part.groups().chunk_by(|left, right| left.month == right.month)
}
