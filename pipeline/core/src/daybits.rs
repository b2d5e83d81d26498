//! The active days of one month as bits, and rolling windows over them.

use crate::{Day, Month};

/// Active days of a month: bit 0 is its first day.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct DayBits(pub u32);

impl DayBits {
    /// Marks a day of the month (days of other months are the caller's error).
    #[must_use]
    pub fn with(self, day: Day) -> Self {
        Self(self.0 | 1 << (day.of_month() - 1))
    }
    /// Days active in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// How many days are active.
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }
    /// No day is active.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// The active days of `month`, in order.
    pub fn days(self, month: Month) -> impl Iterator<Item = Day> {
        let first = month.first_day();
        (0..31).filter(move |bit| self.0 >> bit & 1 == 1).map(move |bit| first.plus(bit))
    }
    /// The place of a day among the set bits: where its measure stands in an aligned list.
    pub const fn rank(self, bit: u32) -> usize {
        (self.0 & ((1_u32 << bit) - 1)).count_ones() as usize
    }
}

/// The days on which a device counts with *this* month's attributes in a
/// rolling window of `window` days, as bits from the month's first day (bit 31
/// and up lie in the next month).
///
/// A device counts on day d when it was active in the `window` days that end on
/// d, with the attributes of the month of its last active day among them: so
/// `days` reach into the next month until `next` has its first active day.
/// `month_days` is the month's length, `window` 1 to 28.
pub const fn window_mask(days: u32, next: u32, month_days: u32, window: u32) -> u64 {
    debug_assert!(window >= 1 && window <= 28 && month_days >= 28 && month_days <= 31);
    let mut mask = 0_u64;
    let mut shift = 0;
    while shift < window {
        mask |= (days as u64) << shift;
        shift += 1;
    }
    let own = (1_u64 << month_days) - 1;
    // Days of the next month before its own first active one.
    let before_next = if next == 0 { u64::MAX } else { (1_u64 << next.trailing_zeros()) - 1 };
    (mask & own) | (mask & (before_next << month_days) & !own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The mask against the definition, day by day.
        #[test]
        fn window_mask_follows_its_definition(days in 0_u32..1 << 31, next in 0_u32..1 << 31, len in 28_u32..=31, window in 1_u32..=28) {
            let days = days & ((1 << len) - 1);
            let mask = window_mask(days, next, len, window);
            let active = |at: i64| at >= 0 && if at < i64::from(len) { days >> at & 1 == 1 } else { at - i64::from(len) < 31 && next >> (at - i64::from(len)) & 1 == 1 };
            for day in 0..i64::from(len) + 31 {
                let last = (day - i64::from(window) + 1..=day).rev().find(|at| active(*at));
                let expected = last.is_some_and(|at| at < i64::from(len));
                prop_assert_eq!(mask >> day & 1 == 1, expected, "day {}", day);
            }
        }

        #[test]
        fn rank_is_the_position_among_set_bits(bits in 0_u32..1 << 31) {
            let set: Vec<u32> = (0..31).filter(|bit| bits >> bit & 1 == 1).collect();
            for (position, bit) in set.iter().enumerate() {
                prop_assert_eq!(DayBits(bits).rank(*bit), position);
            }
        }
    }
}
