//! A crash at each point, and writers against the maintainer.

use std::sync::Arc;

use ameles_core::{SharedClock, SystemClock};
use ameles_schemas::Table;

use super::support::*;
use crate::failpoints::POINTS;
use crate::{Append, Rewrite};

#[tokio::test]
async fn an_append_that_crashes_anywhere_is_in_as_a_whole_or_not_at_all() {
    for point in POINTS.iter().copied().filter(|point| point.starts_with("append.")) {
        let world = World::new().await;
        let july = month("2018-07");
        let all = events(20, 200, 1);
        let mut lease = world.lease().await;
        world.append(&mut lease, july, &all[..100]).await.unwrap();
        let rest = || Append {
            events: vec![(july, batch(&tables(), july, &all[100..]))],
            quarantine: Some(quarantine(&[(july, Some(1))])),
            txns: World::txn(None, 1),
        };
        world.warehouse.fail_at(Some(point));
        lease.append(rest(), &world.suppressed).await.unwrap_err();
        world.warehouse.fail_at(None);
        drop(lease);
        let mut maintainer = world.maintainer().await;
        maintainer.recover().await.unwrap();
        let is_in = world.warehouse.snapshot().await.unwrap().txn(Table::Events, "file:abc").is_some();
        assert_eq!(is_in, !["append.files_written", "append.quarantine_committed"].contains(&point), "{point}");
        world.check(july, if is_in { &all } else { &all[..100] }).await;
        // The source is read again from where it stands, and all is well.
        if !is_in {
            world.lease().await.append(rest(), &world.suppressed).await.unwrap();
        }
        world.check(july, &all).await;
        let snapshot = world.warehouse.snapshot().await.unwrap();
        assert_eq!(snapshot.files(Table::Quarantine).iter().map(|file| file.rows).sum::<u64>(), 1, "{point}");
        maintainer.purge(0, &(Arc::new(SystemClock) as SharedClock)).await.unwrap();
        let (there, named) = files(&world).await;
        assert_eq!(there, named, "{point}");
        maintainer.recover().await.unwrap();
        assert_eq!(world.warehouse.snapshot().await.unwrap().version(Table::Activity), snapshot.version(Table::Activity), "{point}");
    }
}

#[tokio::test]
async fn a_rewrite_that_crashes_anywhere_is_made_up_for() {
    for point in POINTS.iter().copied().filter(|point| point.starts_with("rewrite.")) {
        for erase in [false, true] {
            let world = World::new().await;
            let july = month("2018-07");
            let all = events(20, 200, 1);
            let mut lease = world.lease().await;
            world.append(&mut lease, july, &all[..120]).await.unwrap();
            settle(&world.maintainer().await, july).await;
            world.append(&mut lease, july, &all[120..]).await.unwrap();
            let suppressed = Arc::new(if erase { suppress(1, &[3, 8], &[]) } else { Default::default() });
            let spec = Rewrite { suppressed: Arc::clone(&suppressed), closed: false };
            let maintainer = world.maintainer().await;
            world.warehouse.fail_at(Some(point));
            maintainer.rewrite_month(july, &spec, &|_| {}).await.unwrap_err();
            world.warehouse.fail_at(None);
            drop(maintainer);
            let stay: Vec<Event> = all.iter().filter(|event| !erase || ![3, 8].contains(&event.device)).copied().collect();
            // The erasure is still pending, so no answer counts the subject, whatever has been committed.
            world.suppressed.set(SuppressionSetClone(&suppressed).get());
            assert_eq!(world.rows(Table::Events).await.len(), stay.len(), "{point}");
            let mut maintainer = world.maintainer().await;
            maintainer.recover().await.unwrap();
            world.check(july, &stay).await;
            // It is run again, as the ledger says that it is pending.
            let done = maintainer.rewrite_month(july, &spec, &|_| {}).await.unwrap();
            assert_eq!(done.rows_after, stay.len() as u64, "{point}");
            world.suppressed.set(Default::default());
            world.check(july, &stay).await;
            maintainer.purge(0, &(Arc::new(SystemClock) as SharedClock)).await.unwrap();
            let (there, named) = files(&world).await;
            assert_eq!(there, named, "{point}");
            world.check(july, &stay).await;
        }
    }
}

struct SuppressionSetClone<'a>(&'a Arc<ameles_core::SuppressionSet>);
impl SuppressionSetClone<'_> {
    fn get(&self) -> ameles_core::SuppressionSet {
        ameles_core::SuppressionSet::clone(self.0)
    }
}

#[tokio::test]
async fn a_purge_that_crashes_anywhere_can_be_repeated() {
    for point in POINTS.iter().copied().filter(|point| point.starts_with("purge.")) {
        let world = World::new().await;
        let july = month("2018-07");
        let all = events(20, 200, 1);
        let mut lease = world.lease().await;
        for part in all.chunks(50) {
            world.append(&mut lease, july, part).await.unwrap();
        }
        let mut maintainer = world.maintainer().await;
        settle(&maintainer, july).await;
        world.warehouse.fail_at(Some(point));
        let clock: SharedClock = Arc::new(SystemClock);
        maintainer.purge(0, &clock).await.unwrap_err();
        world.warehouse.fail_at(None);
        world.check(july, &all).await;
        maintainer.purge(0, &clock).await.unwrap();
        world.check(july, &all).await;
        let (there, named) = files(&world).await;
        assert_eq!(there, named, "{point}");
    }
}

/// A run that is rewritten before its roll-up is committed: the roll-up is left out.
#[tokio::test]
async fn a_roll_up_that_comes_after_a_rewrite_is_left_out() {
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(20, 100, 1);
    let mut lease = world.lease().await;
    world.warehouse.fail_at(Some("append.events_committed"));
    world.append(&mut lease, july, &all).await.unwrap_err();
    world.warehouse.fail_at(None);
    // The lease lives: recovery leaves its roll-up to it, a rewrite takes it in.
    let mut maintainer = world.maintainer().await;
    maintainer.recover().await.unwrap();
    assert!(world.rows(Table::Activity).await.is_empty());
    settle(&maintainer, july).await;
    world.check(july, &all).await;
    // The purge knows that the writer will leave it out.
    maintainer.purge(0, &(Arc::new(SystemClock) as SharedClock)).await.unwrap();
    let (there, named) = files(&world).await;
    assert_eq!(there, named);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_and_the_maintainer_at_once_lose_nothing_and_double_nothing() {
    let world = Arc::new(World::new().await);
    let july = month("2018-07");
    let all = events(50, 1_200, 1);
    let writers = (0..3_usize).map(|writer| {
        let (world, mine) = (Arc::clone(&world), all[writer * 400..][..400].to_vec());
        tokio::spawn(async move {
            // One of them in another process, as it were: its own knowledge of the log.
            let warehouse =
                if writer == 0 { crate::Warehouse::open(world.root(), tables()).await.unwrap() } else { world.warehouse.clone() };
            let mut lease = warehouse.lease(&world.random).await.unwrap();
            for part in mine.chunks(20) {
                lease
                    .append(Append { events: vec![(july, batch(&tables(), july, part))], ..Append::default() }, &world.suppressed)
                    .await
                    .unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let maintaining = {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let mut maintainer = world.maintainer().await;
            for round in 0..12 {
                settle(&maintainer, july).await;
                if round % 3 == 2 {
                    maintainer.recover().await.unwrap();
                    maintainer.purge(0, &(Arc::new(SystemClock) as SharedClock)).await.unwrap();
                }
            }
        })
    };
    for task in writers {
        task.await.unwrap();
    }
    maintaining.await.unwrap();
    world.check(july, &all).await;
    let mut maintainer = world.maintainer().await;
    assert_eq!(settle(&maintainer, july).await.duplicates, 0);
    world.check(july, &all).await;
    maintainer.purge(0, &(Arc::new(SystemClock) as SharedClock)).await.unwrap();
    let (there, named) = files(&world).await;
    assert_eq!(there, named);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_beats_batches_in_flight() {
    let world = Arc::new(World::new().await);
    let july = month("2018-07");
    let writing = {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let mut lease = world.lease().await;
            for part in events(10, 600, 1).chunks(20) {
                world.append(&mut lease, july, part).await.unwrap();
            }
        })
    };
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    let set = suppress(1, &[4], &[]);
    world.suppressed.set(set.clone());
    let maintainer = world.maintainer().await;
    let spec = Rewrite { suppressed: Arc::new(set), closed: false };
    maintainer.rewrite_month(july, &spec, &|_| {}).await.unwrap();
    writing.await.unwrap();
    // No longer pending, so the tables themselves tell.
    let pending_over = crate::ReadView::open(&world.warehouse, Arc::default()).await.unwrap();
    let gone = hex::encode(device(4).as_bytes());
    for table in [Table::Events, Table::Activity, Table::Devices] {
        assert!(!rows(&pending_over, table).await.iter().any(|line| line.starts_with(&gone)), "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_months_are_rewritten_at_once() {
    let world = World::new().await;
    let (july, august) = (month("2018-07"), month("2018-08"));
    let (one, two) = (events(20, 200, 1), events(20, 200, 700));
    let mut lease = world.lease().await;
    let both = vec![(july, batch(&tables(), july, &one)), (august, batch(&tables(), august, &two))];
    lease.append(Append { events: both, ..Append::default() }, &world.suppressed).await.unwrap();
    let maintainer = world.maintainer().await;
    let (a, b) = tokio::join!(settle(&maintainer, july), settle(&maintainer, august));
    assert_eq!((a.rows_after, b.rows_after), (200, 200));
    let snapshot = world.warehouse.snapshot().await.unwrap();
    assert!(snapshot.is_settled(july) && snapshot.is_settled(august));
    let expected = [Model::of(july, &one).rows(Table::Activity), Model::of(august, &two).rows(Table::Activity)].concat();
    assert_eq!(world.rows(Table::Activity).await, expected);
}
