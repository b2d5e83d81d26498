//! One month made anew: settling, compaction and erasure are this one operation.

use std::sync::Arc;

use ameles_core::{DeviceId, Month, SuppressionSet};
use hashbrown::HashSet;
use serde::{Deserialize, Serialize};

use crate::{Maintainer, StoreError};

/// Told how many rows have been read since it was told last.
pub type RowProgress<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// How a month is rewritten.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    /// Rows that it covers are dropped.
    pub suppressed: Arc<SuppressionSet>,
    /// The month has closed: event keys are dropped.
    pub closed: bool,
}

/// A file as evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEvidence {
    /// Relative to the table's folder.
    pub path: String,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What happened to a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableChange {
    /// The table's name.
    pub table: String,
    /// Its version before.
    pub version_before: i64,
    /// Its version after; the same when nothing changed.
    pub version_after: i64,
    /// Rows of what was replaced.
    pub rows_before: u64,
    /// Rows of what replaces it.
    pub rows_after: u64,
    /// Files replaced.
    pub removed: Vec<FileEvidence>,
    /// Files written.
    pub added: Vec<FileEvidence>,
}

/// What a rewrite did.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MonthRewrite {
    /// Rows dropped as repeats.
    pub duplicates: u64,
    /// The same by the lease that had written the dropped row; none for rows settled before.
    pub duplicates_by: Vec<(Option<String>, u64)>,
    /// Rows dropped because they fall under `suppressed`.
    pub erased_rows: u64,
    /// Rows of `events` in the month afterwards.
    pub rows_after: u64,
    /// The tables.
    pub tables: Vec<TableChange>,
}

impl Maintainer {
    /// Merges all runs of a month into one, without repeats and without what `spec` covers, and makes its activity, links and devices anew.
    /// Two months may be rewritten at once.
    ///
    /// # Errors
    /// When rows that must stay would not, or storage fails: the month is then as it was.
    pub async fn rewrite_month(&self, month: Month, spec: &Rewrite, progress: RowProgress<'_>) -> Result<MonthRewrite, StoreError> {
        unimplemented!()
    }
    /// Removes the devices' rows from `quarantine`.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn erase_quarantine(&self, devices: &HashSet<DeviceId>) -> Result<TableChange, StoreError> {
        unimplemented!()
    }
}
