//! Merging the runs of open months by tiers.

use std::sync::Arc;

use ameles_core::{Month, SharedClock, SuppressionSet, SystemClock};
use ameles_schemas::Table;
use futures::TryStreamExt;

use super::support::*;
use crate::failpoints::POINTS;
use crate::names::{Origin, Source};
use crate::snapshot::of_month;
use crate::{Append, DataFile, ReadView, Rewrite, Snapshot, Warehouse};

/// How many runs of each tier a month has.
fn tiers(files: &[DataFile]) -> Vec<usize> {
    let mut tiers = Vec::new();
    for run in files.chunk_by(|a, b| a.origin.source() == b.origin.source()) {
        let tier = match run[0].origin {
            Origin::Run { .. } => 0,
            Origin::Merged { tier, .. } => tier as usize,
            Origin::Settled { .. } => continue,
        };
        tiers.resize(tiers.len().max(tier + 1), 0);
        tiers[tier] += 1;
    }
    tiers
}

/// No month has more runs than it may have, in any table.
pub(super) fn assert_few(snapshot: &Snapshot, runs_max: usize) {
    for table in tables().tables() {
        for month in snapshot.months(table) {
            let tiers = tiers(snapshot.month_files(table, month));
            assert!(tiers.iter().all(|count| *count <= runs_max), "{table} of {month}: {tiers:?}");
        }
    }
}

/// Activity, links and devices are what the stored events give, repeats and all.
pub(super) async fn assert_functions_of_events(view: &Arc<ReadView>) {
    let wanted = |table: Table, month: Month| {
        let view = Arc::clone(view);
        async move {
            let batches: Vec<arrow::array::RecordBatch> = view.month_stream(table, month, None).unwrap().try_collect().await.unwrap();
            batches.iter().flat_map(lines_of).collect::<Vec<_>>()
        }
    };
    for month in view.months(Table::Events) {
        let schema = tables().file_schema(Table::Events);
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let batches: Vec<_> = view.month_stream(Table::Events, month, Some(&names)).unwrap().try_collect::<Vec<_>>().await.unwrap();
        let all = batches.iter().map(|batch| batch.clone().with_schema(Arc::clone(&schema)).unwrap()).collect::<Vec<_>>();
        let all = arrow::compute::concat_batches(&schema, &all).unwrap();
        let by = ["device", "ts"]
            .map(|name| arrow::compute::SortColumn { values: Arc::clone(all.column_by_name(name).unwrap()), options: None });
        let sorted = arrow::compute::take_record_batch(&all, &arrow::compute::lexsort_to_indices(&by, None).unwrap()).unwrap();
        let whole = crate::rollup::roll_up(&tables(), month, &sorted).unwrap();
        for table in [Table::Activity, Table::Links, Table::Devices] {
            let expected: Vec<String> =
                lines_of(whole.of(table).unwrap()).into_iter().map(|line| format!("{line} {}", month.first_day())).collect();
            assert_eq!(wanted(table, month).await, expected, "{table} of {month}");
        }
    }
}

#[tokio::test]
async fn runs_are_merged_by_tiers_and_stay_few() {
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(30, 480, 1);
    let mut lease = world.lease().await;
    let maintainer = world.maintainer().await;
    let mut rows = 0;
    for (at, part) in all.chunks(6).enumerate() {
        world.append(&mut lease, july, part).await.unwrap();
        if at % 2 == 0 {
            rows += maintainer.compact_month(july, 3, &world.suppressed, &|_| {}).await.unwrap().rows;
            assert_few(&world.warehouse.snapshot().await.unwrap(), 3);
        }
    }
    world.check(july, &all).await;
    // 80 batches are three digits to the base of 4 and one more.
    assert!((480..=480 * 3).contains(&rows), "{rows} rows were rewritten");
    let snapshot = world.warehouse.snapshot().await.unwrap();
    assert_eq!(tiers(snapshot.month_files(Table::Events, july)).len(), 4);
    // The roll-up of a merged run has its name.
    let sources = |table: Table| snapshot.month_files(table, july).iter().map(|file| file.origin.source()).collect::<Vec<Source<'_>>>();
    assert_eq!(sources(Table::Events).len(), sources(Table::Activity).len());
    assert!(sources(Table::Events).iter().all(|source| sources(Table::Activity).contains(source)));
    assert_eq!(maintainer.compact_month(july, 3, &world.suppressed, &|_| {}).await.unwrap(), crate::Compacted::default());
    // A reader that comes by way of a checkpoint sees the runs in the same order.
    world.warehouse.checkpoint(Table::Events).await.unwrap();
    let fresh = Warehouse::open(world.root(), tables()).await.unwrap();
    assert_eq!(fresh.snapshot().await.unwrap().files(Table::Events), world.warehouse.snapshot().await.unwrap().files(Table::Events));
    assert_eq!(settle(&maintainer, july).await.rows_after, 480);
    world.check(july, &all).await;
}

/// A merged run keeps its inputs' place, before what was accepted while it was made and before what comes later.
#[tokio::test]
async fn of_repeats_the_first_accepted_stays_across_merges() {
    let world = World::new().await;
    let july = month("2018-07");
    let mut lease = world.lease().await;
    let maintainer = world.maintainer().await;
    let of = |country: &'static str, at: i64| Event { country: Some(country), at, ..event(1, 0, 7) };
    let filler = |key: u32| event(2, i64::from(key), key);
    let mut all = vec![of("DE", 9_000)];
    world.append(&mut lease, july, &all).await.unwrap();
    for key in 20..23 {
        all.push(filler(key));
        world.append(&mut lease, july, &[filler(key)]).await.unwrap();
    }
    // In the same merge, and after it; earlier by its own time both times.
    world.append(&mut lease, july, &[of("FR", 500), filler(22)]).await.unwrap();
    let merged = maintainer.compact_month(july, 4, &world.suppressed, &|_| {}).await.unwrap();
    assert_eq!((merged.merges, merged.files, merged.duplicates), (1, 5, 2));
    world.check(july, &all).await;
    world.append(&mut lease, july, &[of("PL", 10)]).await.unwrap();
    let snapshot = world.warehouse.snapshot().await.unwrap();
    let runs = of_month(snapshot.files(Table::Events), july);
    assert!(matches!(runs[0].origin, Origin::Merged { tier: 1, .. }) && matches!(runs[1].origin, Origin::Run { .. }));
    assert_eq!(settle(&maintainer, july).await.duplicates, 1);
    world.check(july, &all).await;
}

/// Batches accepted while a merge was under way, or left to the next one, are behind the merged run although it is committed after them.
#[tokio::test]
async fn a_merged_run_stands_before_what_was_accepted_after_its_inputs() {
    let world = World::new().await;
    let july = month("2018-07");
    let mut lease = world.lease().await;
    let maintainer = world.maintainer().await;
    let first = Event { country: Some("DE"), at: 9_000, ..event(1, 0, 7) };
    let mut all = vec![first];
    world.append(&mut lease, july, &all).await.unwrap();
    for key in 100..165 {
        all.push(event(2, i64::from(key), key));
        world.append(&mut lease, july, &all[all.len() - 1..]).await.unwrap();
    }
    // The 67th run: 64 are read at once.
    world.append(&mut lease, july, &[Event { country: Some("FR"), at: 10, ..first }]).await.unwrap();
    assert_eq!(maintainer.compact_month(july, 16, &world.suppressed, &|_| {}).await.unwrap().files, 64);
    let snapshot = world.warehouse.snapshot().await.unwrap();
    let runs = snapshot.month_files(Table::Events, july);
    assert!(matches!(runs[0].origin, Origin::Merged { tier: 1, .. }) && runs.len() == 4, "{runs:?}");
    assert_eq!(settle(&maintainer, july).await.duplicates, 1);
    world.check(july, &all).await;
}

#[tokio::test]
async fn a_merge_that_crashes_anywhere_is_made_up_for() {
    for point in POINTS.iter().copied().filter(|point| point.starts_with("rewrite.")) {
        for recovers in [true, false] {
            let world = World::new().await;
            let july = month("2018-07");
            let all = events(20, 60, 1);
            let mut lease = world.lease().await;
            for part in all.chunks(10) {
                world.append(&mut lease, july, part).await.unwrap();
            }
            world.append(&mut lease, july, &all[..5]).await.unwrap();
            let maintainer = world.maintainer().await;
            world.warehouse.fail_at(Some(point));
            maintainer.compact_month(july, 4, &world.suppressed, &|_| {}).await.unwrap_err();
            world.warehouse.fail_at(None);
            drop(maintainer);
            // Ingest goes on over what was left behind.
            let more = events(20, 10, 900);
            world.append(&mut lease, july, &more).await.unwrap();
            let mut maintainer = world.maintainer().await;
            if recovers {
                maintainer.recover().await.unwrap();
            } else {
                // The next merge does not hide it.
                maintainer.compact_month(july, 4, &world.suppressed, &|_| {}).await.unwrap();
            }
            assert_functions_of_events(&world.view().await).await;
            settle(&maintainer, july).await;
            world.check(july, &[all, more].concat()).await;
            maintainer.purge(0, &(Arc::new(SystemClock) as SharedClock)).await.unwrap();
            let (there, named) = files(&world).await;
            assert_eq!(there, named, "{point}");
        }
    }
}

/// The roll-up of a batch whose run was merged before it came is in the merged run's.
#[tokio::test]
async fn a_roll_up_that_comes_after_a_merge_is_left_out() {
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(20, 50, 1);
    let mut lease = world.lease().await;
    for part in all[..40].chunks(10) {
        world.append(&mut lease, july, part).await.unwrap();
    }
    world.warehouse.fail_at(Some("append.events_committed"));
    world.append(&mut lease, july, &all[40..]).await.unwrap_err();
    world.warehouse.fail_at(None);
    let mut maintainer = world.maintainer().await;
    assert_eq!(maintainer.compact_month(july, 4, &world.suppressed, &|_| {}).await.unwrap().merges, 1);
    world.check(july, &all).await;
    maintainer.purge(0, &(Arc::new(SystemClock) as SharedClock)).await.unwrap();
    let (there, named) = files(&world).await;
    assert_eq!(there, named);
}

#[tokio::test]
async fn quarantine_is_merged_and_stays_sorted_and_loses_who_was_erased() {
    let world = World::new().await;
    let (july, august) = (month("2018-07"), month("2018-08"));
    let mut lease = world.lease().await;
    for number in 0..23_u32 {
        let rows = quarantine(&[(july, Some(number * 7 % 23)), (july, None), (august, (number % 2 == 0).then_some(number))]);
        lease.append(Append { quarantine: Some(rows), ..Append::default() }, &world.suppressed).await.unwrap();
    }
    let mut maintainer = world.maintainer().await;
    let done = maintainer.compact_quarantine(4, &world.suppressed).await.unwrap();
    assert_eq!((done.merges, done.files, done.rows), (2, 46, 69));
    let lines = world.rows(Table::Quarantine).await;
    assert_eq!(lines.len(), 69);
    let snapshot = world.warehouse.snapshot().await.unwrap();
    assert_eq!(snapshot.files(Table::Quarantine).len(), 2);
    // Five more, one of them of a device that has been erased since.
    for number in [1, 2, 3, 4, 5] {
        let rows = quarantine(&[(july, Some(number))]);
        lease.append(Append { quarantine: Some(rows), ..Append::default() }, &world.suppressed).await.unwrap();
    }
    world.suppressed.set(carried_out(1, &[3]));
    assert_eq!(maintainer.compact_quarantine(4, &world.suppressed).await.unwrap().rows, 4);
    assert_eq!(world.rows(Table::Quarantine).await.len(), 73);
    // The erasure itself finds merged files like any other.
    let change = maintainer.erase_quarantine(&[device(14)].into_iter().collect()).await.unwrap();
    assert_eq!(change.rows_before - change.rows_after, 2);
    maintainer.purge(0, &(Arc::new(SystemClock) as SharedClock)).await.unwrap();
    let (there, named) = files(&world).await;
    assert_eq!(there, named);
}

/// Writers, two of them as another process, against a maintainer that merges, settles and purges.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn appends_and_merges_at_once_lose_nothing_and_double_nothing() {
    const APPENDS: usize = 60;
    let world = Arc::new(World::new().await);
    let july = month("2018-07");
    let all = events(50, 3 * APPENDS as u32 * 10, 1);
    let writers: Vec<_> = (0..3_usize)
        .map(|writer| {
            let (world, mine) = (Arc::clone(&world), all[writer * APPENDS * 10..][..APPENDS * 10].to_vec());
            tokio::spawn(async move {
                let warehouse = if writer < 2 { Warehouse::open(world.root(), tables()).await.unwrap() } else { world.warehouse.clone() };
                let mut lease = warehouse.lease(&world.random).await.unwrap();
                for part in mine.chunks(10) {
                    // Some of it once more, so that merges have something to drop.
                    let rows = [part, &mine[..2]].concat();
                    let append = Append { events: vec![(july, batch(&tables(), july, &rows))], ..Append::default() };
                    assert_eq!(lease.append(append, &world.suppressed).await.unwrap().rows, 12);
                }
                // Each batch was committed once: as many commits as batches carry its lease's number.
                let snapshot = warehouse.snapshot().await.unwrap();
                assert_eq!(snapshot.txn(Table::Events, &format!("writer:{}", lease.id())), Some(APPENDS as i64));
            })
        })
        .collect();
    let maintaining = {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let mut maintainer = world.maintainer().await;
            let mut duplicates = 0;
            for round in 0..40 {
                let done = maintainer.compact_month(july, 4, &world.suppressed, &|_| {}).await.unwrap();
                duplicates += done.duplicates;
                if round % 13 == 12 {
                    duplicates += settle(&maintainer, july).await.duplicates;
                    maintainer.recover().await.unwrap();
                    maintainer.purge(0, &(Arc::new(SystemClock) as SharedClock)).await.unwrap();
                }
            }
            duplicates
        })
    };
    for task in writers {
        task.await.unwrap();
    }
    let mut duplicates = maintaining.await.unwrap();
    let mut maintainer = world.maintainer().await;
    duplicates += maintainer.compact_month(july, 4, &world.suppressed, &|_| {}).await.unwrap().duplicates;
    assert_few(&world.warehouse.snapshot().await.unwrap(), 4);
    assert_functions_of_events(&world.view().await).await;
    duplicates += settle(&maintainer, july).await.duplicates;
    // The first two events of each writer's are in each of its batches, and twice in its first.
    assert_eq!(duplicates, 3 * 2 * APPENDS as u64);
    world.check(july, &all).await;
    maintainer.purge(0, &(Arc::new(SystemClock) as SharedClock)).await.unwrap();
    let (there, named) = files(&world).await;
    assert_eq!(there, named);
}

/// What a completed erasure covers does not outlive a merge; what is pending is the erasure's own to delete and attest.
#[tokio::test]
async fn a_merge_drops_what_a_completed_erasure_covers_and_nothing_that_is_pending() {
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(10, 50, 1);
    let mut lease = world.lease().await;
    for part in all.chunks(10) {
        world.append(&mut lease, july, part).await.unwrap();
    }
    let maintainer = world.maintainer().await;
    world.suppressed.set(suppress(1, &[4], &[]));
    let merged = maintainer.compact_month(july, 4, &world.suppressed, &|_| {}).await.unwrap();
    assert_eq!((merged.merges, merged.rows), (1, 50));
    for part in events(10, 40, 800).chunks(10) {
        world.suppressed.set(Default::default());
        world.append(&mut lease, july, part).await.unwrap();
    }
    world.append(&mut lease, july, &[event(4, 9, 7_000), event(5, 9, 7_001)]).await.unwrap();
    world.suppressed.set(carried_out(2, &[4]));
    let mine = events(10, 40, 800).iter().filter(|event| event.device == 4).count() as u64;
    let merged = maintainer.compact_month(july, 4, &world.suppressed, &|_| {}).await.unwrap();
    assert_eq!((merged.merges, merged.rows), (1, 41 - mine));
    assert_functions_of_events(&world.view().await).await;
}

/// An erasure after merges finds the subject in merged runs of every tier.
#[tokio::test]
async fn an_erasure_finds_a_subject_in_merged_runs() {
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(20, 260, 1);
    let mut lease = world.lease().await;
    let maintainer = world.maintainer().await;
    for part in all.chunks(10) {
        world.append(&mut lease, july, part).await.unwrap();
        maintainer.compact_month(july, 2, &world.suppressed, &|_| {}).await.unwrap();
    }
    let set: SuppressionSet = suppress(1, &[4], &[3]);
    let found = crate::affected(&world.warehouse, &set).await.unwrap();
    let stay: Vec<Event> = all.iter().filter(|event| event.device != 4 && event.user != Some(3)).copied().collect();
    let covering = set.with_userless(found.userless_devices.iter().copied(), ameles_core::Timestamp::MAX);
    let spec = Rewrite { suppressed: Arc::new(covering), closed: false };
    let done = maintainer.rewrite_month(july, &spec, &|_| {}).await.unwrap();
    assert_eq!(done.erased_rows, found.rows);
    assert!(found.rows >= (all.len() - stay.len()) as u64 && world.warehouse.snapshot().await.unwrap().is_settled(july));
    assert_functions_of_events(&world.view().await).await;
    let gone = hex::encode(user(3).as_bytes());
    assert!(!world.rows(Table::Links).await.iter().any(|line| line.starts_with(&gone)));
}
