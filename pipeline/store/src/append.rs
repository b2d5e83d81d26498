//! One batch: quarantine, then events with the source's offsets, then the roll-up.

use ameles_core::{Month, SuppressionSource};
use arrow::record_batch::RecordBatch;

use crate::{StoreError, WriterLease};

/// A source's position: the commit that holds the batch moves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// The source, as `kafka:{cluster}:{topic}:{partition}` or `file:{keyed hash}`.
    pub app: String,
    /// Where it must stand; `None` where it must be unknown.
    pub before: Option<i64>,
    /// Where it stands after the batch.
    pub after: i64,
}

/// One batch.
#[derive(Clone, Debug, Default)]
pub struct Append {
    /// Accepted events by month: `file_schema(Table::Events)`, sorted by (device, ts, arrival). A month may come once.
    pub events: Vec<(Month, RecordBatch)>,
    /// Rejected events: `file_schema(Table::Quarantine)`, any order.
    pub quarantine: Option<RecordBatch>,
    /// The sources' positions.
    pub txns: Vec<Txn>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Appended {
    /// The version of `events` that holds the batch.
    pub events_version: i64,
    /// Rows of `events` in it.
    pub rows: u64,
    /// Rows dropped because they fall under a suppression.
    pub suppressed: u64,
}

impl WriterLease {
    /// Commits a batch; when it returns, the batch is durable.
    ///
    /// # Errors
    /// `TxnMoved` when another process has ingested the source meanwhile: nothing of `events` is committed then.
    pub async fn append(&mut self, batch: Append, suppressions: &dyn SuppressionSource) -> Result<Appended, StoreError> {
        unimplemented!()
    }
}
