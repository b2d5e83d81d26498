//! Recently accepted events, so that a device's repeat is told at once.
//!
//! A fingerprint of (device, event key) is kept for every accepted event whose
//! day lies within the last 48 hours of event time. Both halves are keyed hashes
//! already, so the fingerprint is their combination: 128 bits, no identifier. What falls out of
//! the memory is still found when its month settles.

use std::collections::BTreeMap;

use ameles_core::{Day, Timestamp};
use hashbrown::HashSet;

/// Hours of event time that are remembered, by whole days.
const KEPT_DAYS: i32 = 2;

/// Remembers accepted events of the last 48 hours.
#[derive(Debug)]
pub struct DuplicateMemory {
    days: BTreeMap<Day, HashSet<u128, foldhash::fast::RandomState>>,
    newest: Option<Day>,
    fingerprints_max: usize,
    len: usize,
}

impl DuplicateMemory {
    /// Keeps at most so many fingerprints; the oldest day goes first.
    pub fn new(fingerprints_max: usize) -> Self {
        Self { days: BTreeMap::new(), newest: None, fingerprints_max, len: 0 }
    }

    /// The first day that is still remembered when `latest` is the latest event's time.
    pub fn kept_from(latest: Timestamp) -> Day {
        latest.day().plus(-KEPT_DAYS)
    }

    /// Whether the event was accepted before, as far as is remembered.
    pub fn contains(&self, device: u128, event_key: u128, at: Timestamp) -> bool {
        event_key != 0 && self.days.get(&at.day()).is_some_and(|day| day.contains(&fingerprint(device, event_key)))
    }

    /// Remembers an accepted event; `now` bounds what a fast clock may push out.
    pub fn insert(&mut self, device: u128, event_key: u128, at: Timestamp, now: Timestamp) {
        if event_key == 0 {
            return;
        }
        let day = at.day();
        let newest = self.newest.map_or(day, |newest| newest.max(day)).min(now.day());
        self.newest = Some(newest);
        if day < newest.plus(-KEPT_DAYS) {
            return;
        }
        if self.days.entry(day).or_default().insert(fingerprint(device, event_key)) {
            self.len += 1;
        }
        while let Some((first, known)) = self.days.first_key_value() {
            let expired = *first < newest.plus(-KEPT_DAYS);
            if !expired && (self.len <= self.fingerprints_max || self.days.len() == 1) {
                break;
            }
            self.len -= known.len();
            self.days.pop_first();
        }
        if self.len > self.fingerprints_max {
            // One day alone is more than may be kept: begin it anew.
            self.days.clear();
            self.len = 0;
        }
    }

    /// How many events are remembered.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Nothing is remembered.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

const fn fingerprint(device: u128, event_key: u128) -> u128 {
    device ^ event_key.rotate_left(64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn remembers_two_days_of_event_time() {
        let mut memory = DuplicateMemory::new(100);
        let now = at("2018-07-10T12:00:00Z");
        memory.insert(1, 1, at("2018-07-08T23:00:00Z"), now);
        assert!(memory.contains(1, 1, at("2018-07-08T01:00:00Z")), "by day");
        assert!(!memory.contains(1, 2, at("2018-07-08T23:00:00Z")));
        assert!(!memory.contains(2, 1, at("2018-07-08T23:00:00Z")));
        memory.insert(1, 2, at("2018-07-11T01:00:00Z"), now); // a fast clock pushes nothing out
        assert!(memory.contains(1, 1, at("2018-07-08T23:00:00Z")));
        memory.insert(1, 3, at("2018-07-11T01:00:00Z"), at("2018-07-11T02:00:00Z"));
        assert!(!memory.contains(1, 1, at("2018-07-08T23:00:00Z")));
        assert!(memory.contains(1, 2, at("2018-07-11T01:00:00Z")));
        assert_eq!(memory.len(), 2);
    }

    #[test]
    fn is_bounded_and_ignores_events_without_an_id() {
        let mut memory = DuplicateMemory::new(10);
        let now = at("2018-07-10T12:00:00Z");
        for key in 1..=8 {
            memory.insert(1, key, at("2018-07-09T12:00:00Z"), now);
        }
        for key in 1..=8 {
            memory.insert(1, key, now, now);
        }
        assert!(memory.len() <= 10);
        assert!(memory.contains(1, 8, now), "the newest day stays");
        for key in 1..=100 {
            memory.insert(2, key, now, now);
            assert!(memory.len() <= 10);
        }
        memory.insert(3, 0, now, now);
        assert!(!memory.contains(3, 0, now));
    }
}
