//! What stops an ingest as a whole.

use std::path::PathBuf;

use ameles_core::{RandomUnavailable, SuppressionUnavailable};

use crate::DuplicateError;

/// An ingest could not begin or could not go on. What was committed before
/// stays committed, and running again goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// A path that cannot be read: nothing was ingested.
    #[error("cannot read {path}; nothing was ingested")]
    Unreadable {
        /// What was asked for.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// A pattern or folder in which there is no file: nothing was ingested.
    #[error("no file matches {path}; nothing was ingested")]
    NothingFound {
        /// What was asked for.
        path: PathBuf,
    },
    /// Neither the contract nor the warehouse can be served with this set-up.
    #[error("{0}")]
    Setup(String),
    /// A key that the contract needs is missing or unusable.
    #[error("cannot use the keyring")]
    Keyring(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The warehouse refused.
    #[error("cannot write to the warehouse")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The ledger could not be read or written.
    #[error("cannot use the ledger")]
    Ledger(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The suppression list could not be read: nothing may be admitted then.
    #[error(transparent)]
    Suppressions(#[from] SuppressionUnavailable),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
    /// The memory of recent events could not be kept whole: nothing is taken until it can.
    #[error(transparent)]
    Duplicates(#[from] DuplicateError),
    /// Another process holds the maintainer lock for too long.
    #[error(
        "the events are stored, but another process held the maintainer lock for {waited_s} s, so the months {months} \
         are not settled; run the same command again once it has finished"
    )]
    MaintainerBusy {
        /// How long this process waited.
        waited_s: u64,
        /// The months left unsettled.
        months: String,
    },
    /// Columns that do not fit the table: a fault of this program.
    #[error("cannot build a batch")]
    Arrow(#[from] arrow::error::ArrowError),
    /// A worker thread ended early: a fault of this program.
    #[error("a worker stopped early: {0}")]
    Worker(String),
}

impl IngestError {
    pub(crate) fn store(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Store(cause.into())
    }
    pub(crate) fn ledger(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Ledger(cause.into())
    }
    pub(crate) fn keyring(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Keyring(cause.into())
    }
}
