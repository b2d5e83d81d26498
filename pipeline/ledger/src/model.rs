//! Requests, report runs and other plain records that callers hand in and get back.

use std::fmt;
use std::str::FromStr;

use ameles_core::{Random, Subject, SubjectKind, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use uuid::Uuid;

use crate::LedgerError;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub Uuid);

        impl $name {
            pub(crate) fn new(random: &dyn Random) -> Result<Self, LedgerError> {
                let mut bytes = [0; 16];
                random.fill(&mut bytes)?;
                Ok(Self(uuid::Builder::from_random_bytes(bytes).into_uuid()))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
        impl FromStr for $name {
            type Err = LedgerError;
            fn from_str(text: &str) -> Result<Self, LedgerError> {
                // The text is not repeated in the error: somebody may have typed an identifier here.
                Uuid::try_parse(text).map(Self).map_err(|_| LedgerError::Invalid { what: $what, rule: $rule })
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
ids! {
    /// An erasure request's id, a random UUID.
    RequestId, "the request id", "a UUID, as `ameles erase submit` prints it";
    /// A report run's id, a random UUID.
    ReportRunId, "the report run's id", "a UUID";
}

/// Where a request stands, in OpenDSR's words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestState {
    /// Received; its subjects are suppressed, nothing has been rewritten.
    Pending,
    /// A run has taken it up.
    InProgress,
    /// Erased and certified.
    Completed,
    /// Withdrawn before a run took it up.
    Cancelled,
}

impl RequestState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Pending, Self::InProgress, Self::Completed, Self::Cancelled];
    /// The name that users see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }
    /// The state of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
    /// Pending or in progress.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::InProgress)
    }
}

impl fmt::Display for RequestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request to be entered.
#[derive(Clone, Debug)]
pub struct NewRequest {
    /// The one subject's pseudonyms, with the key epoch of each.
    pub subjects: Vec<(u32, Subject)>,
    /// What kind of subject it names.
    pub kind: SubjectKind,
    /// The regulation, such as `gdpr`.
    pub regulation: String,
    /// When it was received, which is not always when it is entered.
    pub received: Timestamp,
    /// When it must be done, by the policy.
    pub due: Timestamp,
    /// The case number elsewhere, `[A-Za-z0-9-]{1,64}`.
    pub reference: Option<String>,
    /// Who enters it: a token's name or `cli`.
    pub actor: String,
}

/// A request as it stands. It names no subject.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Request {
    /// Its id.
    pub id: RequestId,
    /// What kind of subject it names.
    pub kind: SubjectKind,
    /// The regulation, such as `gdpr`.
    pub regulation: String,
    /// Where it stands.
    pub state: RequestState,
    /// When it was received.
    pub received: Timestamp,
    /// When it was entered, and its subjects suppressed.
    pub submitted: Timestamp,
    /// When it must be done, extension included.
    pub due: Timestamp,
    /// When it had to be done before it was extended.
    pub due_before_extension: Option<Timestamp>,
    /// Why it was extended.
    pub extension_reason: Option<String>,
    /// When a run first took it up.
    pub started: Option<Timestamp>,
    /// When it was completed or cancelled.
    pub closed: Option<Timestamp>,
    /// The case number elsewhere.
    pub reference: Option<String>,
    /// Who entered it.
    pub actor: String,
    /// The step that a run has reached.
    pub step: Option<String>,
    /// What the run needs to go on from that step, as JSON.
    pub step_detail: Option<String>,
}

impl Request {
    /// Open and past its due date.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.state.is_open() && self.due < now
    }
}

/// A request and whom it names, for a run.
#[derive(Clone, Debug)]
pub struct RequestWithSubjects {
    /// The request.
    pub request: Request,
    /// Its subject's pseudonyms, with the key epoch of each.
    pub subjects: Vec<(u32, Subject)>,
    /// Devices whose events without a user fall under it, found by an earlier part of the run.
    pub userless: Vec<ameles_core::DeviceId>,
}

/// Which requests to list; newest first.
#[derive(Clone, Debug, Default)]
pub struct RequestFilter {
    /// Only in this state.
    pub state: Option<RequestState>,
    /// Only those open and past their due date.
    pub overdue: bool,
    /// Only with this reference.
    pub reference: Option<String>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// How many there are, for the server's metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LedgerCounts {
    /// Requests that no run has taken up.
    pub pending: u64,
    /// Requests that a run has taken up.
    pub in_progress: u64,
    /// Requests that are done.
    pub completed: u64,
    /// Requests that were withdrawn.
    pub cancelled: u64,
    /// Open requests past their due date.
    pub overdue: u64,
    /// Suppression entries.
    pub suppressions: u64,
    /// Consent events.
    pub consents: u64,
    /// Tokens that are neither revoked nor expired.
    pub tokens: u64,
}

/// A report's run to be recorded, once it has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewReportRun {
    /// The report's name.
    pub name: String,
    /// The period it is about, such as `2018-09`.
    pub period: String,
    /// The schedule's instant that it answers; none when run by hand.
    pub scheduled: Option<Timestamp>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Where its files lie.
    pub folder: Option<String>,
    /// Why it failed; none when it succeeded.
    pub error: Option<String>,
    /// Its manifest or whatever else is worth keeping.
    pub detail: Value,
    /// Who asked for it: a token's name, `cli` or `schedule`.
    pub actor: String,
}

/// A recorded run of a report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReportRun {
    /// Its id.
    pub id: ReportRunId,
    /// What was recorded.
    #[serde(flatten)]
    pub run: NewReportRun,
}

/// What a replay of the journal has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReplayReport {
    /// Journal lines that the ledger did not know.
    pub entries: u64,
    /// Requests entered again.
    pub requests: Vec<RequestId>,
    /// Requests that had been completed after the backup: they are in progress again,
    /// since the warehouse may have come from the same backup.
    pub reopened: Vec<RequestId>,
    /// Requests cancelled again.
    pub cancelled: Vec<RequestId>,
    /// Suppressions lifted again by a grant.
    pub lifted: u64,
}

/// How ledger and journal stand to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalCheck {
    /// Both end at the same entry.
    UpToDate,
    /// The journal knows more: the ledger comes from a backup or a crash; `replay_journal` mends it.
    ReplayNeeded {
        /// How many lines more.
        entries: u64,
    },
    /// The journal is gone: `serve` must not start.
    Missing,
    /// The journal is an older copy or was tampered with: `serve` must not start.
    Damaged {
        /// What is wrong.
        what: String,
    },
}
