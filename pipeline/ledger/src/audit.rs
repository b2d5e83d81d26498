//! The hash-chained audit log: its rows and what checking it can find.

use ameles_core::Timestamp;
use ring::hmac;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::RequestId;
use crate::act::Act;

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

/// The chain's last row: its number and hash. All zero before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub seq: u64,
    pub hash: [u8; 32],
}

impl Serialize for Head {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.seq, hex::encode(self.hash)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (seq, text) = <(u64, String)>::deserialize(deserializer)?;
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(serde::de::Error::custom)?;
        Ok(Self { seq, hash })
    }
}

/// A row as it is hashed and stored.
pub(crate) struct ChainRow<'a> {
    pub seq: u64,
    pub at: Timestamp,
    pub actor: &'a str,
    pub action: &'a str,
    pub request: Option<RequestId>,
    pub detail: &'a str,
}

impl ChainRow<'_> {
    /// HMAC-SHA-256 over the hash of the row before and this row's fields, each text with its length.
    pub fn hash(&self, key: &hmac::Key, prev: &[u8; 32]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(key);
        context.update(b"ameles audit 1\0");
        context.update(prev);
        context.update(&self.seq.to_be_bytes());
        context.update(&self.at.micros().to_be_bytes());
        let request = self.request.map(|id| id.to_string()).unwrap_or_default();
        for text in [self.actor, self.action, &request, self.detail] {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.sign().as_ref());
        hash
    }
}

/// Gives each act its row's place in the chain: the head after each, and the rows themselves.
pub(crate) fn chain<'a>(key: &hmac::Key, mut head: Head, at: Timestamp, acts: &'a [Act]) -> (Vec<Head>, Vec<(ChainRow<'a>, Head, Head)>) {
    let mut heads = Vec::with_capacity(acts.len());
    let mut rows = Vec::with_capacity(acts.len());
    for act in acts {
        if let Some(action) = &act.action {
            let row = ChainRow { seq: head.seq + 1, at, actor: &act.actor, action, request: act.request, detail: &act.detail };
            let next = Head { seq: row.seq, hash: row.hash(key, &head.hash) };
            rows.push((row, head, next));
            head = next;
        }
        heads.push(head);
    }
    (heads, rows)
}
