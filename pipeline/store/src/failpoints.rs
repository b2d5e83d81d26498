//! A test aid: `AMELES_CRASH_AT=<point>` aborts the process at that point, as
//! `kill -9` would, so that tests can crash between any two writes.
//!
//! `AMELES_CRASH_AT=<point>:<n>` aborts at the n-th time that the point is passed.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The points, in the order in which an append and a rewrite pass them.
pub const POINTS: &[&str] = &[
    "append.files_written",
    "append.quarantine_committed",
    "append.events_committed",
    "append.activity_committed",
    "append.links_committed",
    "append.devices_committed",
    "rewrite.events_written",
    "rewrite.files_written",
    "rewrite.events_committed",
    "rewrite.activity_committed",
    "rewrite.links_committed",
    "rewrite.devices_committed",
    "purge.files_deleted",
    "purge.checkpointed",
    "purge.log_cleaned",
];

struct Plan {
    point: String,
    nth: u64,
}

fn plan() -> Option<&'static Plan> {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    PLAN.get_or_init(|| {
        let text = std::env::var("AMELES_CRASH_AT").ok()?;
        let (point, nth) = match text.split_once(':') {
            Some((point, nth)) => (point.to_owned(), nth.parse().unwrap_or(1)),
            None => (text, 1),
        };
        Some(Plan { point, nth })
    })
    .as_ref()
}

/// Crashes here if the environment says so.
pub(crate) fn hit(point: &'static str) {
    debug_assert!(POINTS.contains(&point), "{point}");
    let Some(plan) = plan().filter(|plan| plan.point == point) else { return };
    static PASSED: Mutex<Option<HashMap<&'static str, u64>>> = Mutex::new(None);
    let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    let count = passed.get_or_insert_default().entry(point).or_default();
    *count += 1;
    if *count == plan.nth {
        std::process::abort();
    }
}
