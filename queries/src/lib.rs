//! Metrics, SQL and the privacy guard over the warehouse's tables.
//!
//! Each metric is a file in `queries/` that says what it counts. The engine
//! runs it over one view of the tables, turns counts per bit of the month into
//! dated rows, and hands them to the guard, which no analyst's answer misses.

mod catalog;
mod cells;
mod count;
mod engine;
mod error;
mod format;
mod functions;
mod guard;
mod issued;
mod kept;
mod metrics;
mod request;
mod session;
mod source;
mod sql;
mod template;
#[cfg(test)]
mod tests;

/// What the engine that runs statements fails with; [`QueryError::Engine`] tells it in words for its caller.
pub use datafusion::error::DataFusionError as EngineError;

pub use catalog::{MetricInfo, list_metrics};
pub use count::{COHORT_ROWS_MIN, keep_cohorts};
pub use engine::{Completeness, Metrics, SqlLimits};
pub use error::QueryError;
pub use format::{Format, format_batches};
pub use issued::{HELD_BACK, Issues};
pub use kept::{KeptAnswers, SnapshotId};
pub use metrics::OTHER;
pub use request::{Filter, Guard, MetricRequest, Unit};
pub use source::{MemSource, TableSource};
