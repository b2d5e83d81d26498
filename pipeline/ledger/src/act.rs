//! Acts: what is written to the journal, applied to the tables and named in the audit log.

use ameles_core::{SubjectKind, SuppressedSubject, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::keys::{Lookup, decode_subject, encode_subject};
use crate::{RequestId, Role};

/// One act: who did what to which request, and how the tables change by it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Act {
    pub actor: String,
    /// The audit row's action; none where a new journal repeats what was audited before.
    pub action: Option<String>,
    pub request: Option<RequestId>,
    /// JSON text, kept as text so that the audit hash covers the same bytes everywhere.
    pub detail: String,
    pub op: Op,
}

impl Act {
    pub fn new(actor: &str, action: &str, request: Option<RequestId>, detail: &Value, op: Op) -> Self {
        Self { actor: actor.to_owned(), action: Some(action.to_owned()), request, detail: detail.to_string(), op }
    }
}

/// A change of the tables, complete enough to be made again from the journal alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Op {
    /// None: the audit row is all.
    Note,
    /// A request is entered and its subjects suppressed.
    Submit(Submit),
    /// A run takes the request up.
    Begin,
    /// A run found devices whose events without a user fall under the request.
    Userless { devices: Vec<SealedSubject> },
    /// The deadline is extended.
    Extend {
        #[serde(with = "micros")]
        due: Timestamp,
        reason: String,
    },
    /// The request is withdrawn.
    Cancel,
    /// The request is done. The certificate itself is not repeated in the journal.
    Complete { certificate_sha256: String },
    /// A grant lifts the suppressions of a subject, named by its keyed hash.
    Lift {
        #[serde(with = "lookup_text")]
        lookup: Lookup,
        #[serde(with = "micros")]
        at: Timestamp,
    },
    /// A token is made.
    Token {
        name: String,
        role: Role,
        partner: Option<String>,
        #[serde(with = "micros")]
        expires: Timestamp,
        hash: String,
    },
    /// A token is revoked.
    Revoke { name: String },
}

impl Op {
    /// The journal line's kind, readable without the key.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Note => "audit",
            Self::Submit(_) => "submit",
            Self::Begin => "begin",
            Self::Userless { .. } => "userless",
            Self::Extend { .. } => "extend",
            Self::Cancel => "cancel",
            Self::Complete { .. } => "complete",
            Self::Lift { .. } => "lift",
            Self::Token { .. } => "token",
            Self::Revoke { .. } => "revoke",
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Submit {
    pub kind: SubjectKind,
    pub regulation: String,
    #[serde(with = "micros")]
    pub received: Timestamp,
    #[serde(with = "micros")]
    pub due: Timestamp,
    /// When it was entered, where that is not when the line was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted_micros: Option<i64>,
    pub reference: Option<String>,
    pub subjects: Vec<(u32, SealedSubject)>,
}

/// A subject inside a sealed line. `Debug` shows its domain only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SealedSubject(pub SuppressedSubject);

impl Serialize for SealedSubject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(encode_subject(self.0)))
    }
}

impl<'de> Deserialize<'de> for SealedSubject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        decode_subject(&bytes).map(Self).ok_or_else(|| serde::de::Error::custom("not a subject"))
    }
}

/// Instants as numbers: the text form cannot name the earliest and the latest.
mod micros {
    use ameles_core::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(at.micros())
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(deserializer).map(Timestamp::from_micros)
    }
}

mod lookup_text {
    use super::Lookup;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(lookup: &Lookup, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(lookup))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Lookup, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut lookup = Lookup::default();
        hex::decode_to_slice(text, &mut lookup).map_err(serde::de::Error::custom)?;
        Ok(lookup)
    }
}
