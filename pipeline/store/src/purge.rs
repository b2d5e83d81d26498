//! Deletes what no snapshot of now names: replaced files, orphans, old log entries and checkpoints.

use ameles_core::{SharedClock, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Maintainer, StoreError};

/// What a purge did.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PurgeReport {
    /// Data files deleted.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Log entries and checkpoints deleted.
    pub log_files: u64,
    /// Replaced files that still have their grace.
    pub waiting: u64,
    /// When the last of those may be deleted.
    pub next_at: Option<Timestamp>,
}

impl Maintainer {
    /// Deletes unreferenced data files whose grace has passed, and every log entry and checkpoint older than the present version.
    ///
    /// # Errors
    /// When storage fails; what was deleted stays deleted, and it can be repeated.
    pub async fn purge(&mut self, grace_s: u64, clock: &SharedClock) -> Result<PurgeReport, StoreError> {
        unimplemented!()
    }
}
