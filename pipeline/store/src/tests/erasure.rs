//! Erasing devices and users: pending, in flight, rewritten, purged, looked for.

use std::sync::Arc;

use ameles_core::{SharedClock, Subject, SystemClock, Timestamp};
use ameles_schemas::Table;
use hashbrown::HashSet;

use super::support::*;
use crate::{Append, Locked, Rewrite, affected, affected_beyond, verify};

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

/// What stays when devices go, and users with the events without a user on devices where nobody else was seen.
fn remaining(all: &[Event], devices: &[u32], users: &[u32]) -> Vec<Event> {
    let userless = |number: u32| {
        let seen: HashSet<u32> = all.iter().filter(|event| event.device == number).filter_map(|event| event.user).collect();
        !seen.is_empty() && seen.iter().all(|user| users.contains(user))
    };
    let stays = |event: &&Event| {
        !devices.contains(&event.device) && event.user.map_or_else(|| !userless(event.device), |user| !users.contains(&user))
    };
    all.iter().filter(stays).copied().collect()
}

#[tokio::test]
async fn an_erasure_is_seen_at_once_and_leaves_nothing() {
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(60, 900, 1);
    let mut lease = world.lease().await;
    world.append(&mut lease, july, &all[..500]).await.unwrap();
    let mut maintainer = world.maintainer().await;
    settle(&maintainer, july).await;
    world.append(&mut lease, july, &all[500..]).await.unwrap();
    let rows = quarantine(&[(july, Some(4)), (july, Some(5)), (july, None)]);
    lease.append(Append { quarantine: Some(rows), ..Append::default() }, &world.suppressed).await.unwrap();

    let (devices, users) = ([4, 9, 33], [2]);
    let set = suppress(1, &devices, &users);
    let subjects: Vec<Subject> = devices
        .iter()
        .map(|number| Subject::Device(device(*number)))
        .chain(users.iter().map(|number| Subject::User(user(*number))))
        .collect();
    let before = verify::scan_for(world.root(), &Locked::default(), &subjects, &|_| {}).await.unwrap();
    assert!(before.findings.iter().any(|finding| finding.what.starts_with("column device")), "{before:?}");
    assert!(before.findings.iter().any(|finding| finding.path.starts_with("quarantine")));
    assert!(before.findings.iter().any(|finding| finding.what.starts_with("column user")));

    // Pending: nothing counts them any more, in month files settled or not.
    let stay = remaining(&all, &devices, &users);
    assert!(stay.len() < all.len() - 10);
    world.suppressed.set(set.clone());
    world.check(july, &stay).await;
    assert_eq!(world.view().await.exact_rows(Table::Activity, july), None);

    let found = affected(&world.warehouse, &set).await.unwrap();
    assert_eq!(found.rows, (all.len() - stay.len()) as u64);
    assert_eq!(found.months.iter().copied().collect::<Vec<_>>(), [july]);
    assert!(devices.iter().all(|number| found.devices.contains(&device(*number))));
    let others: HashSet<u32> = all
        .iter()
        .filter(|event| devices.contains(&event.device))
        .filter_map(|event| event.user)
        .filter(|user| !users.contains(user))
        .collect();
    assert_eq!(found.other_users, others.len() as u64);

    let covering = set.with_userless(found.userless_devices.iter().copied(), Timestamp::MAX);
    let spec = Rewrite { suppressed: Arc::new(covering), closed: false };
    let done = maintainer.rewrite_month(july, &spec, &|_| {}).await.unwrap();
    assert_eq!((done.erased_rows, done.rows_after), ((all.len() - stay.len()) as u64, stay.len() as u64));
    assert!(done.tables[0].removed.iter().all(|file| file.sha256.len() == 64 && file.bytes > 0));
    let change = maintainer.erase_quarantine(&found.devices).await.unwrap();
    assert_eq!((change.rows_before, change.rows_after), (3, 2));
    assert_eq!(maintainer.erase_quarantine(&found.devices).await.unwrap().version_after, change.version_after, "nothing is left to do");

    maintainer.purge(0, &clock()).await.unwrap();
    let after = verify::scan_for(world.root(), &Locked::default(), &subjects, &|_| {}).await.unwrap();
    assert_eq!(after.findings, [], "{after:?}");
    assert!(after.files_decoded >= 4 && after.rows > 0 && after.pages > 0);
    let (there, named) = files(&world).await;
    assert_eq!(there, named);
    // Done: no longer pending, and the numbers are the same.
    world.suppressed.set(Default::default());
    world.check(july, &stay).await;
}

#[tokio::test]
async fn an_erasure_that_finds_nothing_changes_nothing() {
    let world = World::new().await;
    let july = month("2018-07");
    let mut lease = world.lease().await;
    world.append(&mut lease, july, &events(10, 100, 1)).await.unwrap();
    let maintainer = world.maintainer().await;
    settle(&maintainer, july).await;
    let (before, version) = (files(&world).await, world.warehouse.snapshot().await.unwrap().version(Table::Events));
    let spec = Rewrite { suppressed: Arc::new(suppress(1, &[77], &[])), closed: false };
    let done = maintainer.rewrite_month(july, &spec, &|_| {}).await.unwrap();
    assert_eq!((done.erased_rows, done.rows_after, done.tables.len()), (0, 100, 0));
    assert_eq!(files(&world).await, before);
    assert_eq!(world.warehouse.snapshot().await.unwrap().version(Table::Events), version);
}

#[tokio::test]
async fn the_last_event_of_a_month_can_go() {
    let world = World::new().await;
    let july = month("2018-07");
    let mut lease = world.lease().await;
    world.append(&mut lease, july, &[event(3, 5, 4), event(3, 9, 8)]).await.unwrap();
    let mut maintainer = world.maintainer().await;
    let spec = Rewrite { suppressed: Arc::new(suppress(1, &[3], &[])), closed: false };
    assert_eq!(maintainer.rewrite_month(july, &spec, &|_| {}).await.unwrap().erased_rows, 2);
    for table in tables().tables() {
        assert!(world.rows(table).await.is_empty());
    }
    maintainer.purge(0, &clock()).await.unwrap();
    assert!(files(&world).await.0.is_empty());
}

#[tokio::test]
async fn a_batch_in_flight_loses_what_was_suppressed_meanwhile() {
    let mut world = World::new().await;
    let july = month("2018-07");
    let all = events(10, 100, 1);
    // The first look is when the batch is taken; the request comes in before the second, at the commit.
    world.suppressed = Suppressed::later(1, suppress(1, &[4], &[]));
    let mut lease = world.lease().await;
    let appended = world.append(&mut lease, july, &all).await.unwrap();
    let stay: Vec<Event> = all.iter().filter(|event| event.device != 4).copied().collect();
    assert_eq!((appended.rows, appended.suppressed), (stay.len() as u64, (all.len() - stay.len()) as u64));
    world.suppressed.set(Default::default());
    *world.suppressed_later().lock().unwrap() = None;
    world.check(july, &stay).await;
    let (there, named) = files(&world).await;
    assert_eq!(there, named, "the first attempt's files are gone");
}

#[tokio::test]
async fn a_whole_batch_may_be_suppressed_and_its_position_is_kept() {
    let world = World::new().await;
    let july = month("2018-07");
    world.suppressed.set(suppress(1, &[1], &[]));
    let mut lease = world.lease().await;
    let batch = Append { events: vec![(july, batch(&tables(), july, &[event(1, 5, 1)]))], txns: World::txn(None, 9), ..Append::default() };
    let appended = lease.append(batch, &world.suppressed).await.unwrap();
    assert_eq!((appended.rows, appended.suppressed), (0, 1));
    assert_eq!(world.warehouse.snapshot().await.unwrap().txn(Table::Events, "file:abc"), Some(9));
}

#[tokio::test]
async fn quarantine_does_not_name_a_suppressed_device() {
    let july = month("2018-07");
    // Known when the batch is taken, and come in before its commit.
    for looks in [0, 1] {
        let mut world = World::new().await;
        world.suppressed = Suppressed::later(looks, suppress(1, &[4], &[]));
        let mut lease = world.lease().await;
        let rows = quarantine(&[(july, Some(4)), (july, Some(5)), (july, None)]);
        lease.append(Append { quarantine: Some(rows), ..Append::default() }, &world.suppressed).await.unwrap();
        let lines = rows_of_quarantine(&world).await;
        assert_eq!(lines.len(), 3, "{looks}");
        assert!(!lines.iter().any(|line| line.contains(&hex::encode(device(4).as_bytes()))));
        assert!(lines.iter().any(|line| line.contains(&hex::encode(device(5).as_bytes()))));
        let subjects = [Subject::Device(device(4))];
        assert_eq!(verify::scan_for(world.root(), &Locked::default(), &subjects, &|_| {}).await.unwrap().findings, [], "{looks}");
    }
}

async fn rows_of_quarantine(world: &World) -> Vec<String> {
    let view = crate::ReadView::open(&world.warehouse, Arc::default()).await.unwrap();
    rows(&view, Table::Quarantine).await
}

#[tokio::test]
async fn files_that_were_looked_into_are_passed_over_and_new_ones_are_not() {
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(60, 900, 1);
    let of_devices = |some: &[Event]| some.iter().filter(|event| [4, 9].contains(&event.device)).count() as u64;
    let mut lease = world.lease().await;
    world.append(&mut lease, july, &all[..500]).await.unwrap();
    let set = suppress(1, &[4, 9], &[]);
    let first = affected_beyond(&world.warehouse, &set, HashSet::new()).await.unwrap();
    assert_eq!((first.rows, first.other_users), (of_devices(&all[..500]), 0));
    assert!(first.rows > 0 && !first.looked_in.is_empty());

    world.append(&mut lease, july, &all[500..]).await.unwrap();
    let second = affected_beyond(&world.warehouse, &set, first.looked_in.clone()).await.unwrap();
    assert_eq!(second.rows, of_devices(&all[500..]));
    assert!(second.rows > 0 && second.looked_in.is_disjoint(&first.looked_in));
    let whole = affected(&world.warehouse, &set).await.unwrap();
    assert_eq!((whole.rows, whole.looked_in.len()), (first.rows + second.rows, first.looked_in.len() + second.looked_in.len()));
    // What a device's pseudonym alone tells is what its rows tell.
    let (rows, other_users) = (whole.rows, whole.other_users);
    let with_user = affected(&world.warehouse, &suppress(1, &[4, 9], &[4_000])).await.unwrap();
    assert_eq!((with_user.rows, with_user.other_users), (rows, other_users));
}
