//! Why an event is not accepted, and the count that always adds up.

use std::fmt;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// Why an event was rejected.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Reason { $($(#[$doc])* $name),* }
        impl Reason {
            /// Every reason, in the order in which summaries list them.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$name),*];
            /// The name that users see.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

reasons! {
    /// Not JSON, or not a JSON object.
    MalformedJson = "malformed_json",
    /// A required field is absent or null.
    MissingField = "missing_field",
    /// A field has another JSON type than the contract says.
    WrongType = "wrong_type",
    /// A field's value breaks the contract.
    InvalidValue = "invalid_value",
    /// The line or message is longer than the limit.
    TooLarge = "too_large",
    /// The event's type is none that the contract lists.
    UnknownType = "unknown_type",
    /// The event belongs to a month that has closed.
    TooLate = "too_late",
    /// The event's time lies more than 24 hours ahead of its arrival.
    FromFuture = "from_future",
    /// No valid consent at the event's time or at its arrival.
    NoConsent = "no_consent",
    /// The subject's data is being erased or has been.
    Suppressed = "suppressed",
    /// The device's repeat of an event.
    Duplicate = "duplicate",
}

impl Reason {
    /// Whether quarantine keeps hourly counts only: no pseudonym, no position.
    pub const fn counted_only(self) -> bool {
        matches!(self, Self::NoConsent | Self::Suppressed | Self::Duplicate)
    }
    /// The reason of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `received = accepted + Σ rejected`, by construction: only `accept` and
/// `reject` count, and `received` is their sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    accepted: u64,
    rejected: [u64; Reason::ALL.len()],
}

impl Tally {
    /// Counts accepted events.
    pub fn accept(&mut self, events: u64) {
        self.accepted += events;
    }
    /// Counts rejected events.
    pub fn reject(&mut self, reason: Reason, events: u64) {
        self.rejected[reason as usize] += events;
    }
    /// Moves events that were accepted at first to a reason found out later.
    pub fn reclassify(&mut self, reason: Reason, events: u64) {
        let events = events.min(self.accepted);
        self.accepted -= events;
        self.reject(reason, events);
    }
    /// Adds another tally.
    pub fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        for (mine, theirs) in self.rejected.iter_mut().zip(other.rejected) {
            *mine += theirs;
        }
    }
    /// All events seen.
    pub fn received(&self) -> u64 {
        self.accepted + self.rejected_total()
    }
    /// Events accepted.
    pub const fn accepted(&self) -> u64 {
        self.accepted
    }
    /// Events rejected for `reason`.
    pub const fn rejected(&self, reason: Reason) -> u64 {
        self.rejected[reason as usize]
    }
    /// Events rejected for any reason.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().sum()
    }
}

struct Rejected<'a>(&'a Tally);

impl Serialize for Rejected<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer
            .collect_map(Reason::ALL.into_iter().map(|reason| (reason.as_str(), self.0.rejected(reason))).filter(|(_, count)| *count > 0))
    }
}

/// `{"received":3,"accepted":2,"rejected":{"missing_field":1}}`.
impl Serialize for Tally {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("received", &self.received())?;
        map.serialize_entry("accepted", &self.accepted())?;
        map.serialize_entry("rejected", &Rejected(self))?;
        map.end()
    }
}
