//! Which months have closed.
//!
//! A month closes 7 days after the watermark has passed its end. The watermark
//! is the slowest partition's latest event time; a partition that has been
//! idle counts as now. All pure functions of what they are given.

use std::collections::BTreeMap;

use ameles_core::{Month, Timestamp};

/// Days that a month stays open after the watermark has passed its end.
pub const GRACE_DAYS: i64 = 7;
/// Seconds without an event after which a partition counts as idle.
pub const IDLE_SECS: i64 = 15 * 60;

/// The first month that is still open at a watermark: every month before has closed.
pub fn closed_before(watermark: Timestamp) -> Month {
    // The month after M ends at its first instant's month; M is closed when
    // M.end() + 7 d < watermark, that is when the instant just before
    // `watermark - 7 d` lies in a later month than M.
    Timestamp::from_micros(watermark.plus_days(-GRACE_DAYS).micros().saturating_sub(1)).month()
}

/// Whether a month has closed at a watermark.
pub fn is_closed(month: Month, watermark: Timestamp) -> bool {
    month.end().plus_days(GRACE_DAYS) < watermark
}

/// The slowest partition's time.
#[derive(Debug, Clone, Default)]
pub struct Watermark {
    partitions: BTreeMap<u32, Progress>,
}

#[derive(Debug, Clone, Copy)]
struct Progress {
    latest: Timestamp,
    seen_at: Timestamp,
}

impl Watermark {
    /// Notes an event of a partition: its own time and when it arrived.
    pub fn observe(&mut self, partition: u32, event: Timestamp, arrival: Timestamp) {
        let entry = self.partitions.entry(partition).or_insert(Progress { latest: event, seen_at: arrival });
        entry.latest = entry.latest.max(event);
        entry.seen_at = entry.seen_at.max(arrival);
    }

    /// Forgets a partition that another process reads now.
    pub fn forget(&mut self, partition: u32) {
        self.partitions.remove(&partition);
    }

    /// The watermark at `now`: never ahead of it.
    pub fn at(&self, now: Timestamp) -> Timestamp {
        self.partitions
            .values()
            .map(|progress| if progress.seen_at.plus_secs(IDLE_SECS) <= now { now } else { progress.latest.min(now) })
            .min()
            .unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_month_closes_seven_days_after_its_end() {
        let july: Month = "2018-07".parse().unwrap();
        assert!(!is_closed(july, at("2018-08-08T00:00:00Z")));
        assert!(is_closed(july, at("2018-08-08T00:00:00.000001Z")));
        assert_eq!(closed_before(at("2018-08-08T00:00:00Z")), july);
        assert_eq!(closed_before(at("2018-08-08T00:00:00.000001Z")), july.plus(1));
    }

    #[test]
    fn the_slowest_partition_counts_and_an_idle_one_is_now() {
        let mut watermark = Watermark::default();
        let now = at("2018-08-10T12:00:00Z");
        assert_eq!(watermark.at(now), now);
        watermark.observe(0, at("2018-08-10T11:59:00Z"), now);
        watermark.observe(1, at("2018-08-09T00:00:00Z"), now);
        assert_eq!(watermark.at(now), at("2018-08-09T00:00:00Z"));
        watermark.observe(1, at("2018-08-08T00:00:00Z"), now); // never goes back
        assert_eq!(watermark.at(now), at("2018-08-09T00:00:00Z"));
        let later = now.plus_secs(IDLE_SECS);
        assert_eq!(watermark.at(later), later);
        watermark.observe(0, at("2019-01-01T00:00:00Z"), later); // a device's clock runs ahead
        assert!(watermark.at(later) <= later);
    }

    proptest! {
        #[test]
        fn both_ways_of_asking_agree(micros in 0_i64..4_000_000_000_000_000, offset in -3_i32..3) {
            let watermark = Timestamp::from_micros(micros);
            let month = watermark.month().plus(offset);
            prop_assert_eq!(month < closed_before(watermark), is_closed(month, watermark));
        }
    }
}
