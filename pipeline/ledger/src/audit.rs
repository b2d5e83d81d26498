//! The hash-chained audit log: its rows and what checking it can find.

use ameles_core::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::RequestId;

/// One act on the ledger. It names a request, never a subject.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuditRow {
    /// Its place, from 1.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Who: a token's name, `cli`, `schedule`.
    pub actor: String,
    /// What, such as `request_submitted`.
    pub action: String,
    /// About which request.
    pub request: Option<RequestId>,
    /// What else is worth knowing.
    pub detail: Value,
    /// The hash of the row before, in hex.
    pub prev: String,
    /// This row's hash, in hex.
    pub hash: String,
}

/// Which audit rows to list; oldest first.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only rows after this one.
    pub after: u64,
    /// Only about this request.
    pub request: Option<RequestId>,
    /// At most so many; 1,000 when not given.
    pub limit: Option<u32>,
}

/// What checking the chain against itself and against the journal found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum AuditVerdict {
    /// Every row follows from the one before, and the last is the one that the journal names.
    Intact {
        /// How many rows.
        rows: u64,
    },
    /// A row's content is not what was hashed.
    Changed {
        /// The first such row.
        seq: u64,
    },
    /// A row is not there, the last one included.
    Removed {
        /// The first such row.
        seq: u64,
    },
    /// Rows follow from each other, but not from what the journal names: the chain was made anew.
    Rewritten {
        /// The first row that the journal knows otherwise.
        seq: u64,
    },
    /// A row was added that the journal does not know.
    Added {
        /// The first such row.
        seq: u64,
    },
    /// The chain holds in itself, but the journal that would prove it cannot be read.
    Unanchored {
        /// Why.
        why: String,
    },
}

impl AuditVerdict {
    /// Whether nothing was found.
    pub const fn is_intact(&self) -> bool {
        matches!(self, Self::Intact { .. })
    }
}
