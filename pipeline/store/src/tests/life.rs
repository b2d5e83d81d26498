//! Append, settle, close, reopen, purge.

use std::sync::Arc;

use ameles_core::{Clock, ManualClock, SharedClock, SystemClock, Timestamp};
use ameles_schemas::{Measure, Table};
use arrow::datatypes::DataType;

use super::support::*;
use crate::{Append, Repeats, Rewrite, StoreError, Warehouse};

#[tokio::test]
async fn batches_merge_to_what_one_batch_would_give() {
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(40, 600, 1);
    let mut lease = world.lease().await;
    for part in all.chunks(150) {
        let appended = world.append(&mut lease, july, part).await.unwrap();
        assert_eq!((appended.rows, appended.suppressed), (150, 0));
    }
    world.check(july, &all).await;
    let snapshot = world.warehouse.snapshot().await.unwrap();
    assert_eq!(snapshot.files(Table::Events).len(), 4);
    assert!(!snapshot.is_settled(july));
    let seconds: Vec<i64> = all.iter().map(|event| event.at).collect();
    let at = |seconds: i64| july.first_day().start().plus_secs(seconds);
    assert_eq!(snapshot.data_range(), Some((at(*seconds.iter().min().unwrap()), at(*seconds.iter().max().unwrap()))));
}

#[tokio::test]
async fn a_source_position_is_taken_once() {
    let world = World::new().await;
    let july = month("2018-07");
    let append = |events: &[Event], before, after| Append {
        events: vec![(july, batch(&tables(), july, events))],
        quarantine: Some(quarantine(&[(july, Some(3)), (month("2018-08"), None)])),
        txns: World::txn(before, after),
    };
    let (mut one, mut two) = (world.lease().await, world.lease().await);
    let all = events(5, 30, 1);
    one.append(append(&all[..10], None, 10), &world.suppressed).await.unwrap();
    let moved = two.append(append(&all[..10], None, 10), &world.suppressed).await.unwrap_err();
    assert!(matches!(moved, StoreError::TxnMoved { expected: None, found: Some(10), .. }), "{moved}");
    two.append(append(&all[10..], Some(10), 30), &world.suppressed).await.unwrap();
    world.check(july, &all).await;
    let snapshot = world.warehouse.snapshot().await.unwrap();
    assert_eq!(snapshot.txn(Table::Events, "file:abc"), Some(30));
    // The batch that lost had been passed in quarantine too, so its rows were skipped there, and its files are gone.
    assert_eq!(snapshot.files(Table::Quarantine).iter().map(|file| file.rows).sum::<u64>(), 4);
    let (there, named) = files(&world).await;
    assert_eq!(there, named);
}

#[tokio::test]
async fn a_batch_that_breaks_the_rules_is_refused() {
    let world = World::new().await;
    let mut lease = world.lease().await;
    let wrong_month = world.append(&mut lease, month("2018-08"), &[event(1, -5, 1)]).await.unwrap_err();
    assert!(wrong_month.to_string().contains("outside of 2018-08"), "{wrong_month}");
    let sorted = batch(&tables(), month("2018-07"), &events(9, 20, 1));
    let reversed = arrow::compute::take_record_batch(&sorted, &arrow::array::UInt32Array::from_iter_values((0..20).rev())).unwrap();
    let unsorted =
        lease.append(Append { events: vec![(month("2018-07"), reversed)], ..Append::default() }, &world.suppressed).await.unwrap_err();
    assert!(unsorted.to_string().contains("not sorted"), "{unsorted}");
    assert!(world.rows(Table::Events).await.is_empty());
}

#[tokio::test]
async fn settling_removes_repeats_and_tells_whose_they_were() {
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(30, 300, 1);
    let (mut one, mut two) = (world.lease().await, world.lease().await);
    world.append(&mut one, july, &all[..200]).await.unwrap();
    // Repeats in another batch and within one; a repeat with another time is one all the same, the first one stays.
    let mut repeats = all[150..].to_vec();
    repeats.extend_from_slice(&all[250..260]);
    repeats.push(Event { at: all[0].at / 2, ..all[0] });
    world.append(&mut two, july, &repeats).await.unwrap();
    let maintainer = world.maintainer().await;
    let done = settle(&maintainer, july).await;
    assert_eq!((done.duplicates, done.rows_after, done.erased_rows), (61, 300, 0));
    assert_eq!(done.duplicates_by, [Repeats { lease: Some(two.id().to_owned()), partner: None, rows: 61 }]);
    world.check(july, &all).await;
    assert_eq!(done.tables.iter().map(|change| change.table.as_str()).collect::<Vec<_>>(), ["events", "activity", "links", "devices"]);
    let snapshot = world.warehouse.snapshot().await.unwrap();
    assert!(snapshot.is_settled(july));
    assert_eq!(world.view().await.exact_rows(Table::Activity, july), Some(30));
    // Once more: nothing to do.
    let again = settle(&maintainer, july).await;
    assert!(again.tables.is_empty());
    assert_eq!(world.warehouse.snapshot().await.unwrap().version(Table::Events), snapshot.version(Table::Events));
}

#[tokio::test]
async fn of_repeats_the_first_committed_stays() {
    let world = World::new().await;
    let july = month("2018-07");
    let mut lease = world.lease().await;
    let first = Event { country: Some("DE"), at: 5_000, ..event(1, 0, 7) };
    world.append(&mut lease, july, &[first]).await.unwrap();
    // Earlier by its own time, later by commit.
    world.append(&mut lease, july, &[Event { country: Some("FR"), at: 10, ..first }]).await.unwrap();
    let maintainer = world.maintainer().await;
    assert_eq!(settle(&maintainer, july).await.duplicates, 1);
    world.check(july, &[first]).await;
}

#[tokio::test]
async fn a_closed_month_loses_its_keys_and_reopens_as_a_multiset() {
    let world = World::new().await;
    let july = month("2018-07");
    let mut lease = world.lease().await;
    let all = events(10, 100, 1);
    // Two rows that are equal in all but the key stay two.
    let twin = Event { key: Some(5_000), ..all[0] };
    let mut stored = all.clone();
    stored.push(twin);
    world.append(&mut lease, july, &stored).await.unwrap();
    let maintainer = world.maintainer().await;
    let close = Rewrite { closed: true, ..Rewrite::default() };
    let closed = maintainer.rewrite_month(july, &close, &|_| {}).await.unwrap();
    assert_eq!((closed.duplicates, closed.rows_after), (0, 101));
    let mut model = Model::of(july, &stored);
    model.keys = false;
    for table in [Table::Activity, Table::Links, Table::Devices] {
        assert_eq!(world.rows(table).await, model.rows(table), "{table}");
    }
    // The month is reopened by a backfill: one of the twins, one of them three times in all, and a new event.
    let new = event(3, 77, 9_000);
    let backfill = [all[0], Event { key: Some(6_000), ..all[0] }, Event { key: Some(6_001), ..all[0] }, new, all[50]];
    world.append(&mut lease, july, &backfill).await.unwrap();
    let reopened = settle(&maintainer, july).await;
    assert_eq!((reopened.duplicates, reopened.rows_after), (3, 103), "two of three twins and all[50] were there");
    // The same file again while the month is open: by key where there is one, by value where there is none.
    world.append(&mut lease, july, &backfill).await.unwrap();
    let again = settle(&maintainer, july).await;
    assert_eq!(again.rows_after, 103);
    // Closed again, and once more the same file: still nothing new.
    maintainer.rewrite_month(july, &close, &|_| {}).await.unwrap();
    world.append(&mut lease, july, &backfill).await.unwrap();
    let last = maintainer.rewrite_month(july, &close, &|_| {}).await.unwrap();
    assert_eq!((last.duplicates, last.rows_after), (5, 103));
    assert!(last.tables[0].added.iter().all(|file| file.path.ends_with("-c.parquet")));
}

#[tokio::test]
async fn purge_leaves_what_is_named_and_a_log_that_opens() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_800_000_000)));
    let shared: SharedClock = clock.clone();
    let mut world = World::new().await;
    world.warehouse = world.warehouse.clone().with_clock(Arc::clone(&shared));
    let july = month("2018-07");
    let all = events(30, 300, 1);
    let reader = Warehouse::open(world.root(), tables()).await.unwrap();
    let old = reader.snapshot().await.unwrap();
    let mut lease = world.lease().await;
    for part in all.chunks(60) {
        world.append(&mut lease, july, part).await.unwrap();
    }
    let mut maintainer = world.maintainer().await;
    settle(&maintainer, july).await;
    clock.set(clock.now().plus_secs(30));
    let early = maintainer.purge(60, &shared).await.unwrap();
    assert_eq!((early.files, early.waiting > 0), (0, true));
    assert_eq!(early.next_at, Some(Timestamp::from_secs(1_800_000_060)));
    clock.set(clock.now().plus_secs(31));
    // A batch that is under way: its file is on the disk and in no log.
    let under_way = world.root().join("events/month=2018-07-01").join(format!("e-{}-99-0-a.parquet", lease.id()));
    let orphan = world.root().join("activity/month=2018-07-01/a-00000000dead-1-0.parquet");
    let staged = world.root().join("events/month=2018-07-01/e-00000000dead-1-0-a.parquet#123000000000");
    for path in [&under_way, &orphan, &staged] {
        std::fs::write(path, b"x").unwrap();
    }
    let late = maintainer.purge(60, &shared).await.unwrap();
    assert_eq!((late.waiting, late.next_at), (0, None));
    assert!(late.files >= 20 && early.log_files >= 3, "{late:?}");
    assert!(under_way.exists() && !orphan.exists() && !staged.exists());
    std::fs::remove_file(&under_way).unwrap();
    let (there, named) = files(&world).await;
    assert_eq!(there, named);
    for table in tables().tables() {
        let log = std::fs::read_dir(world.root().join(table.as_str()).join("_delta_log")).unwrap();
        let names: Vec<String> = log.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.iter().filter(|name| name.ends_with(".json")).count() == 1, "{names:?}");
    }
    world.check(july, &all).await;
    // A warehouse that knew an older version, and one that knows none, see the same; so do positions of writers.
    assert!(old.version(Table::Events) < reader.snapshot().await.unwrap().version(Table::Events));
    let fresh = Warehouse::open(world.root(), tables()).await.unwrap();
    for warehouse in [&reader, &fresh] {
        let (mine, theirs) = (world.warehouse.snapshot().await.unwrap(), warehouse.snapshot().await.unwrap());
        for table in tables().tables() {
            assert_eq!(mine.files(table), theirs.files(table));
        }
        assert_eq!(theirs.txn(Table::Events, &format!("writer:{}", lease.id())), Some(5));
    }
    // Writing goes on.
    let more = events(30, 50, 1_000);
    world.append(&mut lease, july, &more).await.unwrap();
    world.check(july, &[all, more].concat()).await;
    assert_eq!(maintainer.purge(0, &(Arc::new(SystemClock) as SharedClock)).await.unwrap().files, 0);
}

#[tokio::test]
async fn a_checkpoint_now_and_then_keeps_the_log_readable() {
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(4, 230, 1);
    let mut lease = world.lease().await;
    for part in all.chunks(2) {
        world.append(&mut lease, july, part).await.unwrap();
    }
    assert!(world.root().join("events/_delta_log/00000000000000000100.checkpoint.parquet").exists());
    let fresh = Warehouse::open(world.root(), tables()).await.unwrap();
    assert_eq!(fresh.snapshot().await.unwrap().files(Table::Events), world.warehouse.snapshot().await.unwrap().files(Table::Events));
    world.check(july, &all).await;
    settle(&world.maintainer().await, july).await;
    world.check(july, &all).await;
}

#[tokio::test]
async fn a_newer_contract_adds_columns_and_old_files_stay_readable() {
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(10, 40, 1);
    let mut lease = world.lease().await;
    world.append(&mut lease, july, &all).await.unwrap();
    let mut newer = tables();
    newer.dimensions.push("firmware".into());
    newer.measures.push(Measure { name: "beats".into(), event_type: "heartbeat".into() });
    newer.extra.push(("room".into(), DataType::Utf8));
    assert!(matches!(Warehouse::open(world.root(), newer.clone()).await, Err(StoreError::Schema { .. })));
    let warehouse = Warehouse::create(world.root(), newer.clone()).await.unwrap();
    let version = warehouse.snapshot().await.unwrap().version(Table::Events);
    Warehouse::create(world.root(), newer.clone()).await.unwrap();
    assert_eq!(warehouse.snapshot().await.unwrap().version(Table::Events), version, "it is done once");
    let more = events(10, 40, 500);
    let mut lease = warehouse.lease(&world.random).await.unwrap();
    lease.append(Append { events: vec![(july, batch(&newer, july, &more))], ..Append::default() }, &world.suppressed).await.unwrap();
    let view = crate::ReadView::open(&warehouse, Arc::default()).await.unwrap();
    assert_eq!(rows(&view, Table::Events).await.len(), 80);
    assert_eq!(rows(&view, Table::Activity).await.len(), 10);
    settle(&warehouse.try_maintainer(&world.random).await.unwrap().unwrap(), july).await;
    let view = crate::ReadView::open(&warehouse, Arc::default()).await.unwrap();
    assert_eq!(rows(&view, Table::Activity).await.len(), 10);
    let mut other = tables();
    other.extra[0].1 = DataType::Utf8;
    let refused = Warehouse::create(world.root(), other).await.unwrap_err();
    assert!(refused.to_string().contains("latency_ms"), "{refused}");
}

#[tokio::test]
async fn one_maintainer_at_a_time() {
    let world = World::new().await;
    let maintainer = world.maintainer().await;
    assert!(world.warehouse.try_maintainer(&world.random).await.unwrap().is_none());
    drop(maintainer);
    world.maintainer().await;
    assert!(matches!(Warehouse::open(&world.folder.path().join("nothing"), tables()).await, Err(StoreError::NoWarehouse(_))));
}
