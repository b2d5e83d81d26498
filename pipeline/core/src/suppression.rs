//! Subjects whose events are dropped at ingest and, while their erasure is
//! pending, counted by no query.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::{DeviceId, Subject, Timestamp, UserId};

/// What a suppression entry names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SuppressedSubject {
    /// All events of a device.
    Device(DeviceId),
    /// All events of a user, on every device.
    User(UserId),
    /// Events without a user on a device where only an erased user was seen.
    /// They fall under that user's erasure when they happened before it was
    /// received; later ones are somebody else's.
    UserlessOn(DeviceId),
}

impl From<Subject> for SuppressedSubject {
    fn from(subject: Subject) -> Self {
        match subject {
            Subject::Device(id) => Self::Device(id),
            Subject::User(id) => Self::User(id),
        }
    }
}

/// One entry of the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SuppressionEntry {
    /// What is suppressed.
    pub subject: SuppressedSubject,
    /// When the request was received.
    pub received: Timestamp,
    /// The erasure has not been carried out yet: stored rows must not be counted.
    pub pending: bool,
    /// A later explicit grant: events from then on are accepted.
    pub lifted_from: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Scope {
    /// Events before this instant fall under the suppression.
    until: Timestamp,
    pending: bool,
}

/// All suppressions at one sequence number of the ledger.
#[derive(Clone, Debug, Default)]
pub struct SuppressionSet {
    sequence: u64,
    devices: HashMap<DeviceId, Scope>,
    users: HashMap<UserId, Scope>,
    userless: HashMap<DeviceId, Scope>,
}

/// The ledger could not tell what is suppressed: nothing may be admitted,
/// committed or counted then.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the suppression list")]
pub struct SuppressionUnavailable(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Where the current suppressions are read, per batch and again before commit.
pub trait SuppressionSource: Send + Sync {
    /// The set at the ledger's present sequence number; cheap when unchanged.
    fn current(&self) -> std::pin::Pin<Box<dyn Future<Output = Result<Arc<SuppressionSet>, SuppressionUnavailable>> + Send + '_>>;
}

impl SuppressionSet {
    /// Collects entries read at `sequence`. Of two entries for one subject the wider scope wins.
    pub fn new(sequence: u64, entries: impl IntoIterator<Item = SuppressionEntry>) -> Self {
        let mut set = Self { sequence, ..Self::default() };
        for entry in entries {
            let until = match entry.subject {
                SuppressedSubject::UserlessOn(_) => entry.received,
                _ => entry.lifted_from.unwrap_or(Timestamp::MAX),
            };
            let scope = Scope { until, pending: entry.pending };
            match entry.subject {
                SuppressedSubject::Device(id) => widen(&mut set.devices, id, scope),
                SuppressedSubject::User(id) => widen(&mut set.users, id, scope),
                SuppressedSubject::UserlessOn(id) => widen(&mut set.userless, id, scope),
            }
        }
        set
    }

    /// Whether events of the subject itself at this instant are suppressed, whoever else they name.
    pub fn covers_subject(&self, subject: Subject, at: Timestamp) -> bool {
        let scope = match subject {
            Subject::Device(device) => self.devices.get(&device),
            Subject::User(user) => self.users.get(&user),
        };
        scope.is_some_and(|scope| at < scope.until)
    }

    /// The ledger's sequence number that this set belongs to.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }
    /// Nothing is suppressed.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.users.is_empty() && self.userless.is_empty()
    }
    /// Whether an event falls under a suppression, pending or carried out.
    pub fn covers(&self, device: DeviceId, user: Option<UserId>, at: Timestamp) -> bool {
        if self.devices.get(&device).is_some_and(|scope| at < scope.until) {
            return true;
        }
        match user {
            Some(user) => self.users.get(&user).is_some_and(|scope| at < scope.until),
            None => self.userless.get(&device).is_some_and(|scope| at < scope.until),
        }
    }
    /// Whether all that a device has sent up to now falls under a suppression that was never lifted.
    pub fn covers_device(&self, device: DeviceId) -> bool {
        self.devices.get(&device).is_some_and(|scope| scope.until == Timestamp::MAX)
    }
    /// The part whose erasure is still pending: what reads must leave out.
    #[must_use]
    pub fn pending(&self) -> Self {
        Self {
            sequence: self.sequence,
            devices: select(&self.devices, true),
            users: select(&self.users, true),
            userless: select(&self.userless, true),
        }
    }
    /// The part whose erasure has been carried out: what rewriting a month drops.
    /// A pending user's rows stay until the run has resolved their devices.
    #[must_use]
    pub fn carried_out(&self) -> Self {
        Self {
            sequence: self.sequence,
            devices: select(&self.devices, false),
            users: select(&self.users, false),
            userless: select(&self.userless, false),
        }
    }
    /// This set with events without a user on `devices` covered too, before `until`.
    #[must_use]
    pub fn with_userless(mut self, devices: impl IntoIterator<Item = DeviceId>, until: Timestamp) -> Self {
        for device in devices {
            widen(&mut self.userless, device, Scope { until, pending: true });
        }
        self
    }
    /// Devices named by an entry, in no order.
    pub fn devices(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.devices.keys().copied()
    }
    /// Users named by an entry, in no order.
    pub fn users(&self) -> impl Iterator<Item = UserId> + '_ {
        self.users.keys().copied()
    }
    /// Devices whose events without a user are covered, in no order.
    pub fn userless_devices(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.userless.keys().copied()
    }
    /// Whether an entry names the user.
    pub fn names_user(&self, user: UserId) -> bool {
        self.users.contains_key(&user)
    }
    /// Every device that an entry names in any way.
    pub fn touched_devices(&self) -> HashSet<DeviceId> {
        self.devices.keys().chain(self.userless.keys()).copied().collect()
    }
}

fn select<K: std::hash::Hash + Eq + Copy>(map: &HashMap<K, Scope>, pending: bool) -> HashMap<K, Scope> {
    map.iter().filter(|(_, scope)| scope.pending == pending).map(|(key, scope)| (*key, *scope)).collect()
}

fn widen<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Scope>, key: K, scope: Scope) {
    map.entry(key)
        .and_modify(|old| {
            old.until = old.until.max(scope.until);
            old.pending |= scope.pending;
        })
        .or_insert(scope);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn a_grant_lifts_a_suppression_for_later_events_only() {
        let device = DeviceId::from_bytes([1; 16]);
        let entry =
            SuppressionEntry { subject: SuppressedSubject::Device(device), received: at(10), pending: false, lifted_from: Some(at(20)) };
        let set = SuppressionSet::new(1, [entry]);
        assert!(set.covers(device, None, at(19)));
        assert!(!set.covers(device, None, at(20)));
        assert!(set.pending().is_empty());
    }

    #[test]
    fn userless_events_fall_under_a_users_erasure_until_it_was_received() {
        let (device, user) = (DeviceId::from_bytes([1; 16]), UserId::from_bytes([2; 16]));
        let entry = SuppressionEntry { subject: SuppressedSubject::UserlessOn(device), received: at(10), pending: true, lifted_from: None };
        let set = SuppressionSet::new(1, [entry]);
        assert!(set.covers(device, None, at(9)));
        assert!(!set.covers(device, None, at(10)));
        assert!(!set.covers(device, Some(user), at(9)));
    }
}
