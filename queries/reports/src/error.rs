//! What can go wrong with a report, and what to do about it.

use std::path::PathBuf;

use ameles_core::SuppressionUnavailable;
use ameles_queries::QueryError;
use ameles_store::StoreError;

/// A report that could not be made. Nothing of it is left where it was to go.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// There is no such report.
    #[error("no report {0:?}; there is monthly-activity")]
    UnknownReport(String),
    /// The month has no data.
    #[error("no data in {month}; {known}")]
    NoData {
        /// The month asked for.
        month: ameles_core::Month,
        /// What there is.
        known: String,
    },
    /// The folder holds something that is no report.
    #[error("{0} is there already and is not a report; name another folder")]
    Occupied(PathBuf),
    /// A file could not be written.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// A file of the snapshot could not be opened.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The suppressions have changed since the report's view was opened, and it may count somebody who has asked to be erased.
    #[error("what is suppressed has changed while the report was made; run it again")]
    Superseded,
    /// What is suppressed could not be read.
    #[error(transparent)]
    Suppressions(#[from] SuppressionUnavailable),
    /// polars and the metric engine count differently: a defect of ours, and no report.
    #[error("the table {table} differs between polars and the metric engine at {place}; please report this")]
    Disagree {
        /// Which.
        table: String,
        /// The row, without its value.
        place: String,
    },
    /// A table could not be written as CSV.
    #[error("cannot write the table {table}")]
    Csv {
        /// Which.
        table: String,
        /// Why.
        #[source]
        cause: csv::Error,
    },
    /// The metric engine refused or failed.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The warehouse could not be read.
    #[error("cannot read the tables")]
    Store(#[from] StoreError),
    /// polars failed.
    #[error("cannot compute the report's tables")]
    Polars(#[from] polars::prelude::PolarsError),
    /// Rows could not be handed to polars.
    #[error("cannot hand a table to polars")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// A table's rows could not be read.
    #[error("cannot read a table's rows")]
    Rows(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An answer without a column that it must have: a defect of ours.
    #[error("an answer has no column {column}")]
    Answer {
        /// The column.
        column: &'static str,
    },
    /// An answer could not be read.
    #[error("cannot read an answer")]
    Arrow(#[from] arrow::error::ArrowError),
    /// The manifest could not be formed or read.
    #[error("cannot form or read the manifest")]
    Manifest(#[from] serde_json::Error),
    /// The worker ended early.
    #[error("the report's worker stopped")]
    Worker(#[from] tokio::task::JoinError),
}

impl ReportError {
    /// Whether a file has gone since the snapshot, or the suppressions have changed, so that running again on a new view helps.
    pub fn is_outdated(&self) -> bool {
        match self {
            Self::Superseded => true,
            Self::Query(error) => error.is_vanished_file(),
            Self::Store(error) => error.is_vanished_file(),
            Self::Read { cause, .. } => cause.kind() == std::io::ErrorKind::NotFound,
            Self::Polars(polars::prelude::PolarsError::IO { error, .. }) => error.kind() == std::io::ErrorKind::NotFound,
            _ => false,
        }
    }
}
