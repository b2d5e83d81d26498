//! Runs metrics and SQL over one view of the tables.

use std::sync::Arc;
use std::time::Duration;

use ameles_core::{Month, Timestamp};
use arrow::record_batch::RecordBatch;

use crate::{Guard, MetricRequest, QueryError, TableSource};

/// How far the data can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completeness {
    /// Events up to here have arrived.
    pub watermark: Timestamp,
    /// Months before this one have closed.
    pub closed_before: Month,
}

/// Bounds on one SQL statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqlLimits {
    /// The longest it may run.
    pub timeout: Duration,
    /// The most rows in its answer.
    pub rows_max: usize,
    /// The most memory that it may hold.
    pub memory_bytes_max: usize,
}

impl Default for SqlLimits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(60), rows_max: 1_000_000, memory_bytes_max: 2 << 30 }
    }
}

/// The metrics and SQL over one view.
#[derive(Clone)]
pub struct Metrics {
    source: Arc<dyn TableSource>,
    completeness: Completeness,
    limits: SqlLimits,
}

impl Metrics {
    /// Over a view (an `Arc<ReadView>` will do).
    pub fn new(source: Arc<dyn TableSource>, completeness: Completeness) -> Self {
        Self { source, completeness, limits: SqlLimits::default() }
    }
    /// With other bounds.
    #[must_use]
    pub fn with_limits(mut self, limits: SqlLimits) -> Self {
        self.limits = limits;
        self
    }
    /// A metric's rows: date, dimensions as asked, value, `complete`; sorted.
    ///
    /// # Errors
    /// When the request names what does not exist, or the tables cannot be read.
    pub async fn run_metric(&self, request: &MetricRequest, guard: Guard) -> Result<RecordBatch, QueryError> {
        let _ = (request, guard, self.completeness);
        unimplemented!()
    }
    /// A SELECT over `events`, `activity`, `devices`, `links` and the metrics (at least one batch, for its schema).
    ///
    /// # Errors
    /// When the statement is no SELECT, is refused by the guard, or passes a limit.
    pub async fn run_sql(&self, sql: &str, guard: Guard) -> Result<Vec<RecordBatch>, QueryError> {
        let _ = (sql, guard, self.limits, &self.source);
        unimplemented!()
    }
}
