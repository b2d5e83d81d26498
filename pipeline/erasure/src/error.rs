//! What can go wrong in an erasure, with its cause and what to do. No message
//! holds an identifier or a pseudonym.

use ameles_core::{IdError, RandomUnavailable};
use ameles_ledger::LedgerError;
use ameles_pseudonym::{IdentifyError, KeyringError};
use ameles_store::StoreError;

use crate::{CertificateError, Step};

/// An erasure could not be submitted, carried out or checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErasureError {
    /// An argument breaks its rule. The value is not repeated: it may be an identifier.
    #[error("{what} {rule}")]
    Refused {
        /// Which argument.
        what: &'static str,
        /// What would be right.
        rule: String,
    },
    /// A step failed. Its requests stay open with the error recorded; the next run goes on from there.
    #[error("the erasure stopped at the step {step}; its requests stay open, and `ameles erase run` goes on from there")]
    Stopped {
        /// Which step.
        step: Step,
        /// Why.
        #[source]
        source: Box<ErasureError>,
    },
    /// Something of an erased subject was still found.
    #[error(
        "something of an erased subject was still found in {places} places, first in {first}; the requests stay open, run `ameles erase run` again, and `ameles erase verify` lists them"
    )]
    Residue {
        /// How many.
        places: usize,
        /// The first file.
        first: String,
    },
    /// Rows kept arriving.
    #[error(
        "rows of the subjects were still being committed after {rounds} rounds of rewriting; is a writer of another version at work? stop it and run again"
    )]
    StillArriving {
        /// How many rounds.
        rounds: u32,
    },
    /// Replaced files could not be deleted in time.
    #[error("{waiting} replaced files were still within their grace when the run gave up; run again in {grace_s} seconds")]
    PurgeWaiting {
        /// How many files.
        waiting: u64,
        /// The grace.
        grace_s: u64,
    },
    /// The process that maintains the warehouse did not carry the run out in time.
    #[error(
        "another process maintains this warehouse and has not carried out the run within {seconds} seconds; the request for it stands, see `ameles erase list`"
    )]
    HandOverTimeout {
        /// How long it was waited for.
        seconds: u64,
    },
    /// The process that maintains the warehouse tried, and failed.
    #[error("the process that maintains this warehouse carried out the run and failed: {0}")]
    HandedOver(String),
    /// There is no certificate yet.
    #[error("request {0} has no certificate: only a completed request has one")]
    NoCertificate(String),
    /// What the ledger recorded of a run cannot be read.
    #[error("what the ledger recorded of an interrupted run cannot be read; it may be of a later version")]
    Record(#[source] serde_json::Error),
    /// The CSV cannot be read at all.
    #[error("the list cannot be read at line {line}: {rule}")]
    List {
        /// Line, from 1.
        line: u64,
        /// What would be right.
        rule: &'static str,
    },
    /// A stop that a test asked for.
    #[error("stopped after {step} because a test asked for it")]
    Injected {
        /// Which step.
        step: &'static str,
    },
    /// The warehouse failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// An identifier could not be pseudonymised.
    #[error(transparent)]
    Identify(#[from] IdentifyError),
    /// The keyring failed.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A certificate could not be made or read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The operating system gave no random bytes.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
    /// A table holds a pseudonym of another length.
    #[error("a table holds something that is no pseudonym")]
    Pseudonym(#[from] IdError),
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
    /// A data file cannot be decoded.
    #[error("data file {path} cannot be decoded")]
    Parquet {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// A batch cannot be decoded.
    #[error("a data file cannot be decoded")]
    Arrow(#[source] arrow::error::ArrowError),
    /// A data file lacks a column.
    #[error("data file {path} has no column {column} of the expected type")]
    Column {
        /// The file.
        path: String,
        /// The column.
        column: &'static str,
    },
    /// A background task ended before its work.
    #[error("a background task ended early")]
    Task(#[from] tokio::task::JoinError),
}

impl ErasureError {
    pub(crate) fn refused(what: &'static str, rule: impl Into<String>) -> Self {
        Self::Refused { what, rule: rule.into() }
    }

    /// The message and those of its causes, in one line, for the ledger.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let next = error.to_string();
            if !text.ends_with(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            cause = error.source();
        }
        text
    }
}
