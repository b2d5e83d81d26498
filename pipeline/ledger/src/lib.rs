//! The ledger of a home: erasure requests, suppressions, consents, tokens,
//! report runs and the audit chain in SQLite, and the journal outside the home
//! from which requests come back after a restore.
//!
//! `docs/ledger.md` tells the state machines. No pseudonym stands in any of
//! these files in clear: subjects are sealed, and found by a keyed hash.

mod act;
mod apply;
mod audit;
mod audit_log;
mod consent;
mod consents;
mod error;
mod issued;
mod journal;
mod keys;
mod ledger;
mod model;
mod pack;
mod records;
mod requests;
mod runs;
mod suppressions;
mod token;
mod tokens;
mod validate;
mod write;

#[cfg(test)]
mod tests;

pub use audit::{AuditFilter, AuditRow, AuditVerdict};
pub use consent::{ConsentBook, ConsentEvent, ConsentSource, ConsentState, ConsentTerms, ConsentsRecorded};
pub use error::{JournalError, LedgerError};
pub use issued::{Issue, Issued, IssuedMonth};
pub use keys::LedgerKeys;
pub use ledger::{Ledger, LedgerOptions};
pub use model::{
    JournalCheck, LedgerCounts, NewReportRun, NewRequest, ReplayReport, ReportRun, ReportRunId, Request, RequestFilter, RequestId,
    RequestState, RequestWithSubjects,
};
pub use token::{NewToken, Principal, Role, TokenInfo, TokenSecret};
