//! The ledger of a home: erasure requests, suppressions, consents, tokens,
//! report runs and the audit chain in SQLite, and the journal outside the home
//! from which requests come back after a restore.
//!
//! `docs/ledger.md` tells the state machines. No pseudonym stands in any of
//! these files in clear: subjects are sealed, and found by a keyed hash.

mod audit;
mod consent;
mod error;
mod keys;
mod ledger;
mod model;
mod token;

pub use audit::{AuditFilter, AuditRow, AuditVerdict};
pub use consent::{ConsentBook, ConsentEvent, ConsentSource, ConsentState, ConsentTerms, ConsentsRecorded};
pub use error::{JournalError, LedgerError};
pub use keys::LedgerKeys;
pub use ledger::{Ledger, LedgerOptions};
pub use model::{
    JournalCheck, LedgerCounts, NewReportRun, NewRequest, ReplayReport, ReportRun, ReportRunId, Request, RequestFilter, RequestId,
    RequestState, RequestWithSubjects,
};
pub use token::{NewToken, Principal, Role, TokenInfo, TokenSecret};
