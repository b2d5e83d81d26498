//! What can go wrong in the warehouse, with its cause and what to do.

use ameles_core::SuppressionUnavailable;
use ameles_schemas::Table;

/// A failure of the warehouse.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A source position was committed by another process in the meantime.
    #[error("another process has ingested {app} up to {found:?} where this batch began at {expected:?}; read the source again from there")]
    TxnMoved {
        /// The source's transaction id (an alias or keyed hash, never a file name).
        app: String,
        /// Where the batch began.
        expected: Option<i64>,
        /// Where the table stands.
        found: Option<i64>,
    },
    /// The commit lost against others too often.
    #[error("could not commit to {table} in {attempts} attempts because others committed first; try again")]
    Contended {
        /// The table.
        table: &'static str,
        /// How often it was tried.
        attempts: u32,
    },
    /// Files that were to be replaced are gone: another maintainer was at work.
    #[error("files of {table} that were to be replaced have been replaced by another process; run the command again")]
    FilesReplaced {
        /// The table.
        table: &'static str,
    },
    /// The surviving rows of a rewrite are not the rows that should survive.
    #[error(
        "rewriting {table} of {month} would have changed rows that must stay; nothing was committed; keep the warehouse as it is and report this"
    )]
    Integrity {
        /// The table.
        table: &'static str,
        /// The month.
        month: String,
    },
    /// The folder holds no warehouse.
    #[error("no warehouse at {0}; `ameles init` makes one")]
    NoWarehouse(String),
    /// A table's columns are not those of the contract.
    #[error("table {table}: {what}")]
    Schema {
        /// The table.
        table: &'static str,
        /// What is different and what would be right.
        what: String,
    },
    /// A Delta log that cannot be read.
    #[error("the Delta log of {table} is damaged at version {version}: {what}")]
    Log {
        /// The table.
        table: &'static str,
        /// The version.
        version: i64,
        /// What is wrong.
        what: String,
    },
    /// A data file that is not as the tables need it.
    #[error("data file {path}: {what}")]
    File {
        /// The file, relative to its table.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// A batch that breaks the tables' rules.
    #[error("batch refused: {0}")]
    Batch(String),
    /// A lock or lease could not be taken.
    #[error("cannot lock {path}")]
    Lock {
        /// The lock file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The operating system refused a file operation.
    #[error("{doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The ledger could not tell what is suppressed: nothing may be committed.
    #[error("nothing was committed")]
    Suppressions(#[from] SuppressionUnavailable),
    /// The operating system gave no random bytes.
    #[error(transparent)]
    Random(#[from] ameles_core::RandomUnavailable),
    /// The object store failed.
    #[error("the warehouse's storage failed")]
    Storage(#[from] object_store::Error),
    /// Delta failed.
    #[error("the Delta table could not be read by delta-rs, or no checkpoint be written")]
    Delta(#[from] deltalake_core::DeltaTableError),
    /// Arrow failed.
    #[error("a batch of rows could not be put together")]
    Arrow(#[from] arrow::error::ArrowError),
    /// Parquet failed.
    #[error("a Parquet file could not be written or read")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// DataFusion failed.
    #[error("reading a view")]
    DataFusion(#[from] datafusion::error::DataFusionError),
    /// A background task ended before its work.
    #[error("a background task ended early")]
    Task(#[from] tokio::task::JoinError),
}

impl StoreError {
    /// Whether the cause is a file that has gone since the snapshot: reading a new snapshot helps.
    pub fn is_vanished_file(&self) -> bool {
        is_vanished_file(self)
    }
    pub(crate) fn schema(table: Table, what: impl Into<String>) -> Self {
        Self::Schema { table: table.as_str(), what: what.into() }
    }
}

/// As often a new snapshot is read before a file that has gone is an error: rewrites and purges may follow each other for a while.
pub const SNAPSHOTS_MAX: u32 = 5;

/// Whether an error, whoever's it is, has a file as its cause that has gone since the snapshot.
pub fn is_vanished_file(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        error.downcast_ref::<object_store::Error>().is_some_and(|error| matches!(error, object_store::Error::NotFound { .. }))
            || error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    })
}
