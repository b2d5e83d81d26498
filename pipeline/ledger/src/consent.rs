//! Consents: explicit grants and withdrawals, and the book that answers for any instant.

use std::collections::HashMap;
use std::sync::Arc;

use ameles_core::{Subject, Timestamp};

/// Where a consent was given or withdrawn. A stamp on an event is neither and is not recorded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConsentSource {
    /// A `consent_granted` or `consent_withdrawn` event.
    Event,
    /// `POST /v1/consents`.
    Api,
}

impl ConsentSource {
    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Api => "api",
        }
    }
}

/// An explicit grant or withdrawal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentEvent {
    /// Whose.
    pub subject: Subject,
    /// A grant, or else a withdrawal.
    pub granted: bool,
    /// From when on.
    pub at: Timestamp,
    /// The policy's version consented to, such as `2018-05-25`.
    pub policy: Option<String>,
    /// The purposes consented to.
    pub purposes: Vec<String>,
    /// Where it came from.
    pub source: ConsentSource,
}

/// What became of recorded consent events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsentsRecorded {
    /// New rows.
    pub stored: u64,
    /// Known already.
    pub repeated: u64,
    /// Not stored, because the subject is erased or being erased.
    pub suppressed: u64,
    /// Suppressions that a grant has lifted.
    pub lifted: u64,
}

/// A subject's consent at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentState {
    /// Granted, or else withdrawn.
    pub granted: bool,
    /// Since when.
    pub at: Timestamp,
    /// To which policy and for what.
    pub terms: Arc<ConsentTerms>,
}

impl ConsentState {
    /// The policy's version consented to.
    pub fn policy(&self) -> Option<&str> {
        self.terms.policy.as_deref()
    }
    /// The purposes consented to.
    pub fn purposes(&self) -> &[String] {
        &self.terms.purposes
    }
}

/// What was consented to; shared, since millions consent to the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConsentTerms {
    /// The policy's version.
    pub policy: Option<String>,
    /// The purposes.
    pub purposes: Vec<String>,
}

type Shard = HashMap<Subject, Vec<ConsentState>>;

/// How many parts a book has: a new event copies one part, not the book.
const SHARDS: usize = 256;

/// All consents at one sequence number of the ledger.
#[derive(Clone, Debug)]
pub struct ConsentBook {
    sequence: u64,
    shards: Vec<Arc<Shard>>,
}

impl Default for ConsentBook {
    fn default() -> Self {
        Self { sequence: 0, shards: (0..SHARDS).map(|_| Arc::default()).collect() }
    }
}

impl ConsentBook {
    /// The ledger's sequence number that this book belongs to.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How many subjects have ever granted or withdrawn.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    /// Nobody has.
    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.is_empty())
    }

    /// The latest grant or withdrawal at or before `ts`; at the same instant a withdrawal wins.
    pub fn state_at(&self, subject: Subject, ts: Timestamp) -> Option<ConsentState> {
        let events = self.events(subject);
        let end = events.partition_point(|event| event.at <= ts);
        end.checked_sub(1).and_then(|last| events.get(last)).cloned()
    }

    /// The state as of `now`. Unlike a grant, a withdrawal dated ahead of `now`, by a device whose clock is fast, holds at once.
    pub fn state_now(&self, subject: Subject, now: Timestamp) -> Option<ConsentState> {
        match self.events(subject).last() {
            Some(last) if last.at > now && !last.granted => Some(last.clone()),
            _ => self.state_at(subject, now),
        }
    }

    fn events(&self, subject: Subject) -> &[ConsentState] {
        self.shards.get(shard_of(subject)).and_then(|shard| shard.get(&subject)).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn extended(mut self, sequence: u64, events: Vec<(Subject, ConsentState)>) -> Self {
        self.sequence = sequence;
        for (subject, event) in events {
            let Some(shard) = self.shards.get_mut(shard_of(subject)) else { continue };
            let known = Arc::make_mut(shard).entry(subject).or_default();
            // Withdrawals sort last among equals, so that they win.
            let place = known.partition_point(|old| (old.at, !old.granted) <= (event.at, !event.granted));
            known.insert(place, event);
        }
        self
    }
}

fn shard_of(subject: Subject) -> usize {
    // A pseudonym is a keyed hash: its first byte spreads evenly.
    usize::from(subject.as_bytes()[0]) % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use ameles_core::DeviceId;

    fn event(at: i64, granted: bool) -> (Subject, ConsentState) {
        let subject = Subject::Device(DeviceId::from_bytes([3; 16]));
        (subject, ConsentState { granted, at: Timestamp::from_secs(at), terms: Arc::default() })
    }

    #[test]
    fn the_latest_event_counts_and_a_withdrawal_wins_a_tie() {
        let (subject, _) = event(0, true);
        let book = ConsentBook::default().extended(1, vec![event(30, false), event(10, true), event(30, true), event(50, true)]);
        let granted = |ts| book.state_at(subject, Timestamp::from_secs(ts)).map(|state| state.granted);
        assert_eq!(
            [granted(9), granted(10), granted(29), granted(30), granted(50)],
            [None, Some(true), Some(true), Some(false), Some(true)]
        );
    }

    #[test]
    fn a_withdrawal_from_a_fast_clock_holds_at_once_and_a_grant_does_not() {
        let (subject, _) = event(0, true);
        let now = Timestamp::from_secs(20);
        let withdrawn = ConsentBook::default().extended(1, vec![event(10, true), event(30, false)]);
        assert_eq!(withdrawn.state_now(subject, now).map(|state| state.granted), Some(false));
        let granted = ConsentBook::default().extended(1, vec![event(10, false), event(30, true)]);
        assert_eq!(granted.state_now(subject, now).map(|state| state.granted), Some(false));
    }
}
