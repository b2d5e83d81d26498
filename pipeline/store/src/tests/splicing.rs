//! Erasing from settled months: by splicing, and as if the months had been written whole.

use std::sync::Arc;

use ameles_core::{SuppressedSubject, SuppressionEntry, SuppressionSet, Timestamp};
use ameles_schemas::Table;

use super::support::*;
use crate::{Locked, MonthRewrite, Rewrite, affected, verify};

fn names(done: &MonthRewrite, table: Table) -> (Vec<String>, Vec<String>) {
    let change = done.tables.iter().find(|change| change.table == table.as_str()).unwrap();
    let paths = |files: &[crate::FileEvidence]| files.iter().map(|file| file.path.clone()).collect();
    (paths(&change.removed), paths(&change.added))
}

/// Everything that the tables say of what is not covered.
async fn erase(world: &World, set: &SuppressionSet) -> Vec<MonthRewrite> {
    let maintainer = world.maintainer().await;
    let found = affected(&world.warehouse, set).await.unwrap();
    let covering = set.clone().with_userless(found.userless_devices.iter().copied(), Timestamp::MAX);
    let mut all = Vec::new();
    for month in found.months {
        let spec = Rewrite { suppressed: Arc::new(covering.clone()), closed: false };
        all.push(maintainer.rewrite_month(month, &spec, &|_| {}).await.unwrap());
    }
    all
}

#[tokio::test]
async fn a_settled_month_is_spliced_and_stays_one_run() {
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(400, 6_000, 1);
    let mut lease = world.lease().await;
    world.append(&mut lease, july, &all).await.unwrap();
    settle(&world.maintainer().await, july).await;
    let mut stay = all.clone();
    for victims in [[7, 9], [300, 12], [13, 14]] {
        let before = world.warehouse.snapshot().await.unwrap();
        let done = erase(&world, &suppress(1, &victims, &[])).await;
        stay.retain(|event| !victims.contains(&event.device));
        assert_eq!(done.len(), 1);
        let spliced = done[0].spliced.unwrap();
        assert!(spliced.files >= 3 && spliced.pages_encoded > 0, "{spliced:?}");
        assert_eq!(done[0].rows_after, stay.len() as u64);
        for table in [Table::Events, Table::Activity, Table::Links, Table::Devices] {
            let (removed, added) = names(&done[0], table);
            // A device that was not activated in the month has no row of `devices`.
            let files = if table == Table::Devices { removed.len() } else { 1 };
            assert_eq!((removed.len(), added.len()), (files, files), "{table}");
            assert!(removed.is_empty() || removed != added);
        }
        let after = world.warehouse.snapshot().await.unwrap();
        assert!(after.is_settled(july));
        for table in [Table::Events, Table::Activity, Table::Links, Table::Devices] {
            let (old, new) = (&before.month_files(table, july)[0], &after.month_files(table, july)[0]);
            assert_eq!((&old.settled, old.modified), (&new.settled, new.modified), "{table}");
            assert!(old.ts.zip(new.ts).is_none_or(|(old, new)| old.0 <= new.0 && new.1 <= old.1));
        }
        world.check(july, &stay).await;
        // Still as settled as before: nothing is left to do, and an exact count comes from the footers.
        assert!(settle(&world.maintainer().await, july).await.tables.is_empty());
        assert!(world.view().await.exact_rows(Table::Activity, july).is_some());
    }
    // What comes later goes behind it and settles with it.
    let late: Vec<Event> = events(400, 300, 9_000).into_iter().filter(|event| ![7, 9, 300, 12, 13, 14].contains(&event.device)).collect();
    world.append(&mut lease, july, &late).await.unwrap();
    stay.extend(&late);
    world.check(july, &stay).await;
    settle(&world.maintainer().await, july).await;
    world.check(july, &stay).await;
}

#[tokio::test]
async fn a_users_rows_are_spliced_out_and_the_roll_up_follows() {
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(90, 4_000, 1);
    let mut lease = world.lease().await;
    world.append(&mut lease, july, &all).await.unwrap();
    settle(&world.maintainer().await, july).await;
    let set = suppress(1, &[5], &[2, 4]);
    let found = affected(&world.warehouse, &set).await.unwrap();
    let done = erase(&world, &set).await;
    assert!(done[0].spliced.is_some(), "{done:?}");
    let userless: Vec<u32> = (0..90).filter(|number| found.userless_devices.contains(&device(*number))).collect();
    let stays =
        |event: &&Event| event.device != 5 && event.user.map_or_else(|| !userless.contains(&event.device), |user| user != 2 && user != 4);
    let stay: Vec<Event> = all.iter().filter(stays).copied().collect();
    assert!(stay.len() < all.len() - 100);
    assert_eq!(done[0].erased_rows, (all.len() - stay.len()) as u64);
    world.check(july, &stay).await;
    let mut maintainer = world.maintainer().await;
    maintainer.purge(0, &(Arc::new(ameles_core::SystemClock) as ameles_core::SharedClock)).await.unwrap();
    let subjects = [ameles_core::Subject::User(user(2)), ameles_core::Subject::User(user(4)), ameles_core::Subject::Device(device(5))];
    assert_eq!(verify::scan_for(world.root(), &Locked::default(), &subjects, &|_| {}).await.unwrap().findings, []);
}

#[tokio::test]
async fn an_erasure_up_to_a_grant_keeps_what_came_later() {
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(40, 2_000, 1);
    let mut lease = world.lease().await;
    world.append(&mut lease, july, &all).await.unwrap();
    settle(&world.maintainer().await, july).await;
    let grant = 1_200_000;
    let lifted_from = Some(july.first_day().start().plus_secs(grant));
    let entry = SuppressionEntry { subject: SuppressedSubject::Device(device(8)), received: Timestamp::MAX, pending: true, lifted_from };
    let done = erase(&world, &SuppressionSet::new(1, [entry])).await;
    let stay: Vec<Event> = all.iter().filter(|event| event.device != 8 || event.at >= grant).copied().collect();
    assert!(done[0].spliced.is_some() && done[0].erased_rows > 0);
    assert!(stay.iter().any(|event| event.device == 8));
    world.check(july, &stay).await;
}

#[tokio::test]
async fn a_closed_months_rows_are_spliced_without_keys() {
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(60, 2_000, 1);
    let mut lease = world.lease().await;
    world.append(&mut lease, july, &all).await.unwrap();
    let closed = Rewrite { closed: true, ..Rewrite::default() };
    world.maintainer().await.rewrite_month(july, &closed, &|_| {}).await.unwrap();
    let done = erase(&world, &suppress(1, &[3], &[1])).await;
    assert!(done[0].spliced.is_some());
    assert!(world.warehouse.snapshot().await.unwrap().is_closed(july));
    let lines = world.rows(Table::Events).await;
    assert_eq!(lines.len() as u64, done[0].rows_after);
}

/// At each point where a process may die: the next one finds the month, brings it in line, and erases what is left.
#[tokio::test]
async fn a_splice_that_was_cut_short_is_brought_in_line() {
    let july = month("2018-07");
    let all = events(60, 2_000, 1);
    let points = [
        "rewrite.events_written",
        "rewrite.files_written",
        "rewrite.events_committed",
        "rewrite.activity_committed",
        "rewrite.links_committed",
        "rewrite.devices_committed",
    ];
    for point in points {
        let world = World::new().await;
        let mut lease = world.lease().await;
        world.append(&mut lease, july, &all).await.unwrap();
        settle(&world.maintainer().await, july).await;
        let set = suppress(1, &[4, 17], &[3]);
        let found = affected(&world.warehouse, &set).await.unwrap();
        let covering = set.clone().with_userless(found.userless_devices.iter().copied(), Timestamp::MAX);
        let spec = Rewrite { suppressed: Arc::new(covering.clone()), closed: false };
        world.warehouse.fail_at(Some(point));
        world.maintainer().await.rewrite_month(july, &spec, &|_| {}).await.unwrap_err();
        world.warehouse.fail_at(None);
        let stay: Vec<Event> = all
            .iter()
            .filter(|event| {
                let at = july.first_day().start().plus_secs(event.at);
                !covering.covers(device(event.device), event.user.map(user), at)
            })
            .copied()
            .collect();
        let mut maintainer = world.maintainer().await;
        maintainer.recover().await.unwrap();
        maintainer.rewrite_month(july, &spec, &|_| {}).await.unwrap();
        world.check(july, &stay).await;
        maintainer.purge(0, &(Arc::new(ameles_core::SystemClock) as ameles_core::SharedClock)).await.unwrap();
        let (there, named) = files(&world).await;
        assert_eq!(there, named, "{point}");
        let subjects = [ameles_core::Subject::User(user(3)), ameles_core::Subject::Device(device(4))];
        assert_eq!(verify::scan_for(world.root(), &Locked::default(), &subjects, &|_| {}).await.unwrap().findings, [], "{point}");
    }
}

/// What is encoded again depends on who goes, not on who stays.
#[tokio::test]
async fn ten_times_the_devices_do_not_make_an_erasure_dearer() {
    let july = month("2018-07");
    let victims = [3, 9_000, 17_110];
    let mut encoded = Vec::new();
    // Enough for pages that are full, in the tables of one row a device too.
    for devices in [20_000, 200_000] {
        let world = World::new().await;
        let mut lease = world.lease().await;
        world.append(&mut lease, july, &events(devices, devices * 4, 1)).await.unwrap();
        settle(&world.maintainer().await, july).await;
        let done = erase(&world, &suppress(1, &victims, &[])).await;
        let spliced = done[0].spliced.unwrap();
        let schemas = [Table::Events, Table::Activity, Table::Links, Table::Devices];
        let columns: usize = schemas.iter().map(|table| tables().file_schema(*table).fields().len()).sum();
        assert!(spliced.pages_encoded <= (2 * victims.len() * columns) as u64, "{spliced:?}");
        encoded.push(spliced);
    }
    let (few, many) = (encoded[0].bytes_encoded as f64, encoded[1].bytes_encoded as f64);
    assert!(many < 1.5 * few, "{encoded:?}");
    assert!(encoded[1].bytes_copied > 5 * encoded[0].bytes_copied, "{encoded:?}");
}

/// Told before, by the pages that hold the rows: what the erasure then replaces and encodes.
#[tokio::test]
async fn an_estimate_is_what_the_erasure_takes_and_changes_nothing() {
    let world = World::new().await;
    let (july, august) = (month("2018-07"), month("2018-08"));
    let mut lease = world.lease().await;
    for month in [july, august] {
        world.append(&mut lease, month, &events(20_000, 80_000, 1)).await.unwrap();
    }
    settle(&world.maintainer().await, july).await;
    // August is open: written whole.
    for set in [suppress(1, &[3, 9_000, 17_110], &[]), suppress(1, &[5], &[2])] {
        let before = world.warehouse.snapshot().await.unwrap();
        let found = affected(&world.warehouse, &set).await.unwrap();
        let covering = Arc::new(set.clone().with_userless(found.userless_devices.iter().copied(), Timestamp::MAX));
        let of = |month| std::collections::BTreeSet::from([month]);
        let spliced = crate::estimate_rewrite(&world.warehouse, &before, &of(july), &covering).await.unwrap();
        let whole = crate::estimate_rewrite(&world.warehouse, &before, &of(august), &covering).await.unwrap();
        let after = world.warehouse.snapshot().await.unwrap();
        assert!(tables().tables().into_iter().all(|table| before.version(table) == after.version(table)));
        let maintainer = world.maintainer().await;
        let spec = Rewrite { suppressed: covering, closed: false };
        for (month, told) in [(july, spliced), (august, whole)] {
            let was_settled = before.is_settled(month);
            let done = maintainer.rewrite_month(month, &spec, &|_| {}).await.unwrap();
            let removed: Vec<_> = done.tables.iter().flat_map(|change| &change.removed).collect();
            assert_eq!((told.files, told.bytes), (removed.len() as u64, removed.iter().map(|file| file.bytes).sum()), "{month}");
            assert_eq!(done.spliced.is_some(), was_settled, "{month}");
            if let Some(counts) = done.spliced {
                let (told, took) = (told.bytes_encoded, counts.bytes_encoded);
                assert!(told <= took * 3 / 2 && took <= told * 3 / 2, "told {told}, took {took}");
            } else {
                assert_eq!(told.bytes_encoded, told.bytes);
            }
        }
    }
}

/// DataFusion leaves out pages by the index that was made anew, and finds what is there.
#[tokio::test]
async fn a_reader_that_skips_pages_by_their_index_finds_the_rows() {
    use datafusion::common::ScalarValue;
    use datafusion::physical_plan::{collect, display::DisplayableExecutionPlan};
    use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext, col, lit};
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(2_000, 100_000, 1);
    let mut lease = world.lease().await;
    world.append(&mut lease, july, &all).await.unwrap();
    settle(&world.maintainer().await, july).await;
    let victims = [7, 300, 1_999];
    assert!(erase(&world, &suppress(1, &victims, &[])).await[0].spliced.is_some());
    let config = SessionConfig::new()
        .with_target_partitions(1)
        .set_bool("datafusion.execution.parquet.enable_page_index", true)
        .set_bool("datafusion.execution.parquet.pushdown_filters", true);
    let context = SessionContext::new_with_config(config);
    let snapshot = world.warehouse.snapshot().await.unwrap();
    let file = &snapshot.month_files(Table::Events, july)[0];
    let path = world.warehouse.table_folder(Table::Events).join(&file.path);
    let mut skipped = 0;
    for number in (0..2_000).step_by(97).chain(victims) {
        let wanted = all.iter().filter(|event| event.device == number && !victims.contains(&number)).count();
        let device = ScalarValue::Binary(Some(device(number).as_bytes().to_vec()));
        let frame = context.read_parquet(path.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
        let plan = frame.filter(col("device").eq(lit(device))).unwrap().create_physical_plan().await.unwrap();
        let rows = collect(Arc::clone(&plan), context.task_ctx()).await.unwrap();
        assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), wanted, "{number}");
        let told = DisplayableExecutionPlan::with_metrics(plan.as_ref()).indent(true).to_string();
        let pruned = told.split("page_index_rows_pruned=").nth(1).unwrap_or_else(|| panic!("{told}"));
        skipped += usize::from(!pruned.starts_with('0'));
    }
    assert!(skipped > 10, "pages are left out by their index");
}

/// Beside `cp`: `cargo test --release -p ameles-store -p ameles --lib -- --ignored --nocapture copies_at`.
#[test]
#[ignore = "takes some seconds, and tells a speed"]
#[allow(clippy::print_stdout, reason = "the figure is what it is for")]
fn copies_at_the_speed_of_cp() {
    use std::io::Read as _;

    use bytes::Bytes;

    use crate::durable::{IfThere, Staged};
    use crate::splice::file::{ParquetFile, splice};
    use crate::splice::{Counts, Edit, page::Codec};
    let rows = batch(&tables(), month("2018-07"), &events(50_000, 2_000_000, 1));
    let schema = tables().file_schema(Table::Events);
    let properties = crate::files::properties(Table::Events, &schema);
    let mut encoder = crate::encode::FileEncoder::new(Vec::new(), schema, properties).unwrap();
    encoder.write(&rows).unwrap();
    let bytes = encoder.finish().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old");
    std::fs::write(&path, &bytes).unwrap();
    let mut codec = Codec::new().unwrap();
    let synced = |path: &std::path::Path| std::fs::File::open(path).unwrap().sync_all().unwrap();
    let (mut copying, mut splicing) = (Vec::new(), Vec::new());
    for _ in 0..31 {
        // Both make a new file: in memory that the machine has yet to find, each takes some times as long.
        let started = std::time::Instant::now();
        let copied = folder.path().join("copied");
        std::fs::copy(&path, &copied).unwrap();
        synced(&copied);
        copying.push(started.elapsed().as_secs_f64());
        let started = std::time::Instant::now();
        // As `replace` reads and writes.
        let mut buffer = codec.buffer();
        std::fs::File::open(&path).unwrap().read_to_end(&mut buffer).unwrap();
        let read = Bytes::from(buffer);
        let old = ParquetFile::of_bytes(read.clone()).unwrap();
        let edits = vec![vec![Edit { row: 7, with: None }]];
        let new = splice(&old, &edits, None, &mut codec, &mut Counts::default()).unwrap().unwrap();
        let spliced = folder.path().join("spliced");
        Staged::write(&spliced, new.bytes()).unwrap().put(IfThere::Fail).unwrap();
        splicing.push(started.elapsed().as_secs_f64());
        drop(old);
        codec.give_back(new.into_encoded());
        codec.give_back(read);
        std::fs::remove_file(copied).unwrap();
        std::fs::remove_file(spliced).unwrap();
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let share = median(copying.iter().zip(&splicing).map(|(copying, splicing)| copying / splicing).collect());
    let mib = bytes.len() as f64 / 1_048_576.0;
    let (copying, splicing) = (mib / median(copying), mib / median(splicing));
    println!("{mib:.1} MiB, medians: cp {copying:.0} MiB/s, a splice of one row {splicing:.0} MiB/s; of a round {share:.2}");
}
