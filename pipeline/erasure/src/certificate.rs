//! What a certificate says. It attests what was done, and holds neither an
//! identifier nor a pseudonym. Its JSON Schema is `schemas/certificate/v1.json`.

use ameles_core::{Month, SubjectKind, Timestamp};
use serde::{Deserialize, Serialize};

/// The format that this build writes.
pub const FORMAT_VERSION: u32 = 1;

/// A certificate of erasure, before it is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Always [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Which program wrote it: `ameles 0.1.0`.
    pub issued_by: String,
    /// What was asked for.
    pub request: CertifiedRequest,
    /// When things happened.
    pub clock: CertifiedClock,
    /// What was found of the request's subjects.
    pub found: Found,
    /// What the run did to each table in the months where this request's rows were found.
    /// One run serves all requests that were open: other subjects' rows may have gone from
    /// the same files.
    pub tables: Vec<TableEvidence>,
    /// How it was checked that nothing remains.
    pub verification: Verification,
    /// Where copies may lie that Ameles does not reach, and until when.
    pub remains_elsewhere: Vec<RemainsElsewhere>,
    /// How a return of the data is prevented.
    pub suppression: SuppressionHorizon,
    /// What a reader should know: zero rows found, a resumed run, a missed deadline.
    pub warnings: Vec<String>,
}

/// The request as it was submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertifiedRequest {
    /// The request's id in the ledger.
    pub id: String,
    /// Whether a device or a user was named.
    pub subject_kind: SubjectKind,
    /// Such as `gdpr`.
    pub regulation: String,
    /// The controller's own case number, where one was given.
    #[serde(default)]
    pub reference: Option<String>,
}

/// The request's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertifiedClock {
    /// When the request was received.
    pub received: Timestamp,
    /// When ingest and queries began to leave the subject out.
    pub suppressed: Timestamp,
    /// When the last table that held the subject had been rewritten.
    pub erased: Timestamp,
    /// When the replaced files, log entries and checkpoints had been deleted.
    pub purged: Timestamp,
    /// When this certificate was made.
    pub certified: Timestamp,
    /// By when the erasure was due.
    pub due: Timestamp,
    /// Whether it was purged by then.
    pub in_time: bool,
}

/// What was found of one request's subjects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Rows of `events` that fell under the request.
    pub event_rows: u64,
    /// Rows of `quarantine` that named its devices.
    pub quarantine_rows: u64,
    /// The months in which rows were found.
    pub months: Vec<Month>,
    /// How many key epochs the identifier was looked for under.
    pub key_epochs: u32,
}

/// One table's change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableEvidence {
    /// The table's name.
    pub table: String,
    /// Its Delta version when the run was planned.
    pub version_before: i64,
    /// Its Delta version when the run had rewritten it.
    pub version_after: i64,
    /// Rows of the files that were replaced.
    pub rows_before: u64,
    /// Rows of the files that replace them.
    pub rows_after: u64,
    /// Rows that were deleted because they named an erased subject, of all requests of the
    /// run; none given for tables whose rows are not deleted but computed anew from `events`.
    #[serde(default)]
    pub rows_deleted: Option<u64>,
    /// Files that were replaced, and then deleted from storage.
    pub files_removed: Vec<FileEvidence>,
    /// Files that were written in their place.
    pub files_written: Vec<FileEvidence>,
}

/// One data file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileEvidence {
    /// Path below the table's folder.
    pub path: String,
    /// SHA-256 of the file in hex, where it was taken.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Rows in it.
    pub rows: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// How the run looked for what might remain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// When the search ended.
    pub at: Timestamp,
    /// What was searched, in words.
    pub searched: Vec<String>,
    /// Files that were decoded value by value, or read byte by byte.
    pub files_decoded: u64,
    /// Rows decoded in them.
    pub rows_decoded: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Files left out because an index showed that they cannot hold the subject.
    pub files_excluded_by_index: u64,
    /// Places where something of a subject was still found: empty, or the erasure is not complete.
    pub residues: Vec<String>,
}

/// A copy that Ameles does not reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemainsElsewhere {
    /// What it is: a source topic, input files, backups.
    pub place: String,
    /// Until when at the latest, where that is known.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// What ends it.
    pub note: String,
}

/// How long the subject stays suppressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuppressionHorizon {
    /// The entry is kept at least until then; the time starts again at each event that it drops.
    pub at_least_until: Timestamp,
    /// What the entry is and what ends it.
    pub note: String,
}
