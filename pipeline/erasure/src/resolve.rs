//! From requests to the rows that go: devices of users, devices without another
//! user, what exactly is covered, and how much of it there is.

use std::sync::Arc;

use ameles_core::{DeviceId, Subject, SuppressedSubject, SuppressionEntry, SuppressionSet, Timestamp, UserId};
use ameles_ledger::RequestWithSubjects;
use ameles_schemas::Table;
use ameles_store::{Affected, DataFile, Snapshot, affected_beyond, takes_whole_devices};
use hashbrown::HashSet;

use crate::census::{Targets, devices_of};
use crate::{Eraser, ErasureError};

/// Stands where a row names nobody: no keyed hash is all zeros.
const NO_DEVICE: DeviceId = DeviceId::from_bytes([0; 16]);
const NO_USER: UserId = UserId::from_bytes([0; 16]);

/// Whom a run erases at one moment, and what the tables say about them.
pub(crate) struct Resolved {
    /// Subjects by request, and what is covered.
    pub targets: Arc<Targets>,
    /// What the store found.
    pub affected: Affected,
    /// The tables as they stood.
    pub snapshot: Arc<Snapshot>,
    /// For each request, devices whose events without a user were found to go with it just now.
    pub new_userless: Vec<Vec<DeviceId>>,
    /// Subjects that no later grant has lifted: nothing of them may remain anywhere.
    pub gone_for_good: Vec<Subject>,
    /// Subjects that a later grant has lifted: rows from then on stay.
    pub lifted: Vec<Subject>,
    /// All devices named by a request, and those that only erased users had.
    pub quarantined: HashSet<DeviceId>,
}

/// Resolves `requests` against the tables as they stand now; the files of `events` in `seen` hold no row that goes, unless more
/// devices have come to the requests since.
pub(crate) async fn resolve(eraser: &Eraser, requests: &[RequestWithSubjects], seen: &HashSet<String>) -> Result<Resolved, ErasureError> {
    let everything = eraser.ledger.suppressions().await?;
    let mut targets = Targets { requests: requests.len(), ..Targets::default() };
    let mut entries = Vec::new();
    let (mut gone_for_good, mut lifted) = (Vec::new(), Vec::new());
    for (place, request) in (0_u32..).zip(requests) {
        for (_, subject) in &request.subjects {
            match subject {
                Subject::Device(id) => targets.devices.entry(*id).or_default().push(place),
                Subject::User(id) => targets.users.entry(*id).or_default().push(place),
            }
            let lifted_from = lifted_from(&everything, *subject);
            if lifted_from.is_some() {
                lifted.push(*subject)
            } else {
                gone_for_good.push(*subject)
            }
            entries.push(entry((*subject).into(), request.request.received, lifted_from));
        }
        for device in &request.userless {
            add_once(&mut targets.userless, *device, place);
            entries.push(entry(SuppressedSubject::UserlessOn(*device), request.request.received, None));
        }
    }
    let named = SuppressionSet::new(everything.sequence(), entries.iter().copied());
    // A user's devices may become more by a commit in between; a device is a device.
    let seen = if targets.users.is_empty() { seen.clone() } else { HashSet::new() };
    let affected = affected_beyond(&eraser.warehouse, &named, seen).await?;
    // Read afterwards: whoever committed without having seen a request has committed by now.
    let snapshot = eraser.warehouse.snapshot().await?;
    let new_userless = assign_userless(eraser, requests, &snapshot, &affected, &mut targets).await?;
    for (request, devices) in requests.iter().zip(&new_userless) {
        let userless = |device: &DeviceId| entry(SuppressedSubject::UserlessOn(*device), request.request.received, None);
        entries.extend(devices.iter().map(userless));
    }
    targets.covered = Arc::new(SuppressionSet::new(everything.sequence(), entries));
    targets.whole = takes_whole_devices(&targets.covered);
    let quarantined = targets.devices.keys().chain(targets.userless.keys()).copied().collect();
    Ok(Resolved { targets: Arc::new(targets), affected, snapshot, new_userless, gone_for_good, lifted, quarantined })
}

impl Resolved {
    /// Devices of which rows may go, sorted.
    pub fn devices(&self) -> Arc<Vec<[u8; 16]>> {
        let named = self.targets.devices.keys().chain(self.targets.userless.keys());
        let mut devices: Vec<[u8; 16]> = named.chain(&self.affected.devices).map(|device| *device.as_bytes()).collect();
        devices.sort_unstable();
        devices.dedup();
        Arc::new(devices)
    }
    /// Live files of `events` in which rows that go may stand.
    pub fn event_files(&self) -> impl Iterator<Item = &DataFile> {
        self.snapshot.files(Table::Events).iter().filter(|file| self.affected.months.contains(&file.month))
    }
}

/// Gives each device without another user to the requests whose users were on it.
async fn assign_userless(
    eraser: &Eraser,
    requests: &[RequestWithSubjects],
    snapshot: &Snapshot,
    affected: &Affected,
    targets: &mut Targets,
) -> Result<Vec<Vec<DeviceId>>, ErasureError> {
    let mut new = vec![Vec::new(); requests.len()];
    if targets.users.is_empty() || affected.userless_devices.is_empty() || !eraser.warehouse.tables().has_user {
        return Ok(new);
    }
    let users = Arc::new(targets.users.clone());
    let wanted = Arc::new(affected.userless_devices.clone());
    let root = eraser.warehouse.root();
    for (device, places) in devices_of(root, snapshot.files(Table::Links), users, wanted).await? {
        for place in places {
            if add_once(&mut targets.userless, device, place)
                && let Some(devices) = new.get_mut(place as usize)
            {
                devices.push(device);
            }
        }
    }
    Ok(new)
}

fn add_once(map: &mut hashbrown::HashMap<DeviceId, Vec<u32>>, device: DeviceId, place: u32) -> bool {
    let places = map.entry(device).or_default();
    let new = !places.contains(&place);
    if new {
        places.push(place);
    }
    new
}

fn entry(subject: SuppressedSubject, received: Timestamp, lifted_from: Option<Timestamp>) -> SuppressionEntry {
    SuppressionEntry { subject, received, pending: true, lifted_from }
}

/// From when on events of a subject are accepted again, by the set's own answers: the set
/// tells whether an instant is covered, not where its scopes end, and they end once.
pub(crate) fn lifted_from(set: &SuppressionSet, subject: Subject) -> Option<Timestamp> {
    let covers = |at: i64| match subject {
        Subject::Device(id) => set.covers(id, Some(NO_USER), Timestamp::from_micros(at)),
        Subject::User(id) => set.covers(NO_DEVICE, Some(id), Timestamp::from_micros(at)),
    };
    if covers(i64::MAX - 1) || !covers(i64::MIN) {
        return None;
    }
    let (mut covered, mut free) = (i64::MIN, i64::MAX - 1);
    while free.abs_diff(covered) > 1 {
        let middle = i64::midpoint(covered, free);
        if covers(middle) { covered = middle } else { free = middle }
    }
    Some(Timestamp::from_micros(free))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instant_of_a_grant_is_found_to_the_microsecond() {
        let device = Subject::Device(DeviceId::from_bytes([7; 16]));
        let user = Subject::User(UserId::from_bytes([8; 16]));
        let other = Subject::User(UserId::from_bytes([9; 16]));
        let grant = Timestamp::from_micros(1_530_403_200_000_001);
        let set = SuppressionSet::new(
            1,
            [entry(device.into(), Timestamp::default(), Some(grant)), entry(user.into(), Timestamp::default(), None)],
        );
        assert_eq!(lifted_from(&set, device), Some(grant));
        assert_eq!(lifted_from(&set, user), None);
        assert_eq!(lifted_from(&set, other), None);
    }
}
