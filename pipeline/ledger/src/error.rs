//! What can go wrong with the ledger and its journal, and what to do about it.

use std::path::PathBuf;

use ameles_core::RandomUnavailable;

use crate::{RequestId, RequestState};

/// The ledger could not do what was asked, and nothing was changed.
///
/// Only where SQLite failed to commit after the journal was written, the next writer makes the
/// change after all: a request may then be there although its submission failed. Submitting it
/// once more does no harm.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// SQLite failed.
    #[error("cannot {doing} in the ledger")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// SQLite's own words.
        #[source]
        source: sqlx::Error,
    },
    /// There is no ledger there.
    #[error("no ledger at {0}; restore it from a backup or, where it is lost for good, make it anew with `ameles audit restore-ledger`")]
    Missing(PathBuf),
    /// There is one already.
    #[error("a ledger is already at {0}")]
    Exists(PathBuf),
    /// Written by a later version.
    #[error("the ledger has format {found}, this version knows up to {known}; use the newer ameles")]
    Newer {
        /// The file's format.
        found: i64,
        /// The last one known here.
        known: i64,
    },
    /// The keys are not the ones that it was made with.
    #[error("the keyring does not belong to this ledger; restore the one that was made with it")]
    WrongKey,
    /// The journal outside the home.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// No such request.
    #[error("no request {0}")]
    NoSuchRequest(RequestId),
    /// The request's state does not allow it.
    #[error("request {id} is {state}, which does not allow to {act} it")]
    WrongState {
        /// The request.
        id: RequestId,
        /// Its state.
        state: RequestState,
        /// What was asked.
        act: &'static str,
    },
    /// The deadline cannot be extended.
    #[error("request {id} cannot be extended: {why}")]
    NotExtendable {
        /// The request.
        id: RequestId,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// An argument breaks its rule. The value is not repeated: it may hold an identifier.
    #[error("{what} is not valid: {rule}")]
    Invalid {
        /// Which argument.
        what: &'static str,
        /// What would be right.
        rule: &'static str,
    },
    /// A token of that name exists.
    #[error("a token named {0} exists already, revoked or not; take another name")]
    TokenExists(String),
    /// There is no such token.
    #[error("no token named {0}; `ameles token list` shows them")]
    NoSuchToken(String),
    /// The stored bytes make no sense.
    #[error("the ledger is damaged: {0}; restore it from a backup, the journal brings the requests back")]
    Damaged(&'static str),
    /// Erased rows may still stand in the write-ahead log, because another process keeps reading.
    #[error("the ledger's write-ahead log could not be emptied while others read it; the next run tries again")]
    WalBusy,
    /// No more of what was issued about closed months can be kept.
    #[error(
        "what analysts were told about closed months takes more than {mib_max} MiB; raise privacy.issued_mb_max, or ask a question that was asked before"
    )]
    IssuedFull {
        /// The limit.
        mib_max: u64,
    },
    /// Others keep issuing answers.
    #[error("too many answers about closed months are being issued at once; ask again")]
    Contended,
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
    /// A worker thread died.
    #[error("the ledger's worker stopped")]
    Worker(#[source] tokio::task::JoinError),
}

/// What can go wrong with the journal outside the home.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file is not there although the ledger has written it.
    #[error("the journal {0} is missing; bring it back from where it went, or begin a new one with `ameles audit restart-journal`")]
    Missing(PathBuf),
    /// The file ends before what the ledger has written.
    #[error("the journal {0} ends before the ledger does: an older copy was put there; bring the newest one back")]
    Behind(PathBuf),
    /// A line does not follow from the one before or its seal is broken.
    #[error("the journal {path} is damaged at byte {offset}: {what}; bring an intact copy back")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the line begins.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It was written by another ledger.
    #[error("the journal {0} belongs to another ledger; move it away or name another with `journal`")]
    Foreign(PathBuf),
    /// Reading or writing failed.
    #[error("cannot {doing} the journal {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's own words.
        #[source]
        source: std::io::Error,
    },
}

pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, LedgerError>;
}

impl<T> Doing<T> for Result<T, sqlx::Error> {
    fn doing(self, doing: &'static str) -> Result<T, LedgerError> {
        self.map_err(|source| LedgerError::Database { doing, source })
    }
}
