//! Activity, links and devices made anew from events.

use std::collections::BTreeMap;
use std::sync::Arc;

use ameles_core::{SharedClock, SuppressionSet, SystemClock};
use ameles_schemas::Table;
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use futures::TryStreamExt;

use super::direct::Rolled;
use super::support::*;
use crate::failpoints::POINTS;
use crate::{Maintainer, MonthRebuild, TableRebuild};

const DERIVED: [Table; 3] = [Table::Activity, Table::Links, Table::Devices];

async fn rebuild(maintainer: &Maintainer, suppressed: SuppressionSet) -> MonthRebuild {
    maintainer.rebuild_month(month("2018-07"), Arc::new(suppressed), &|_| {}).await.unwrap()
}

async fn versions(world: &World) -> Vec<i64> {
    let snapshot = world.warehouse.snapshot().await.unwrap();
    tables().tables().into_iter().map(|table| snapshot.version(table)).collect()
}

/// July in one settled run.
async fn settled(all: &[Event]) -> World {
    let world = World::new().await;
    let mut lease = world.lease().await;
    for part in all.chunks(all.len() / 3) {
        world.append(&mut lease, month("2018-07"), part).await.unwrap();
    }
    settle(&world.maintainer().await, month("2018-07")).await;
    world
}

/// Puts other rows into the one file of a table.
async fn damage(world: &World, table: Table, change: impl Fn(&RecordBatch) -> RecordBatch) {
    let view = world.view().await;
    let batches: Vec<RecordBatch> = view.month_stream(table, month("2018-07"), None).unwrap().try_collect().await.unwrap();
    let rows = concat_batches(&tables().schema(table), &batches).unwrap();
    let rows = rows.project(&(0..rows.num_columns() - 1).collect::<Vec<_>>()).unwrap();
    let bytes = crate::bench::encode(&tables(), table, &change(&rows)).unwrap();
    std::fs::write(file(world, table).await, bytes).unwrap();
}

async fn file(world: &World, table: Table) -> std::path::PathBuf {
    let snapshot = world.warehouse.snapshot().await.unwrap();
    let [file] = snapshot.files(table) else { panic!("{table} has not one file") };
    world.root().join(table.as_str()).join(&file.path)
}

/// Rows whose number is no multiple of `each`.
fn without(rows: &RecordBatch, each: usize) -> RecordBatch {
    let kept: BooleanArray = (0..rows.num_rows()).map(|row| Some(!row.is_multiple_of(each))).collect();
    filter_record_batch(rows, &kept).unwrap()
}

fn table(found: &MonthRebuild, table: Table) -> &TableRebuild {
    found.tables.iter().find(|found| found.table == table.as_str()).unwrap()
}

#[tokio::test]
async fn what_is_as_its_events_say_stays_as_it_is() {
    let all = events(20, 300, 1);
    for settle_first in [false, true] {
        let world = if settle_first { settled(&all).await } else { World::new().await };
        let mut lease = world.lease().await;
        if !settle_first {
            for part in all.chunks(70) {
                world.append(&mut lease, month("2018-07"), part).await.unwrap();
            }
        }
        let before = (versions(&world).await, files(&world).await);
        let found = rebuild(&world.maintainer().await, SuppressionSet::default()).await;
        assert!(!found.replaced && found.tables.iter().all(TableRebuild::is_same), "{found:?}");
        assert_eq!((found.events, table(&found, Table::Activity).rows), (300, 20));
        assert_eq!((versions(&world).await, files(&world).await), before);
        world.check(month("2018-07"), &all).await;
    }
}

#[tokio::test]
async fn damaged_tables_are_healed_and_what_differed_is_told() {
    let all = events(20, 300, 1);
    let world = settled(&all).await;
    let events_file = file(&world, Table::Events).await;
    damage(&world, Table::Activity, |rows| without(rows, 5)).await;
    damage(&world, Table::Devices, |rows| {
        // The country of one row becomes that of the next.
        let mut columns = rows.columns().to_vec();
        let at = rows.schema().index_of("country").unwrap();
        let mut texts: Vec<Option<String>> = columns[at].as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect();
        texts[3] = Some("XX".to_owned());
        columns[at] = Arc::new(arrow::array::StringArray::from(texts));
        RecordBatch::try_new(rows.schema(), columns).unwrap()
    })
    .await;
    let maintainer = world.maintainer().await;
    let found = rebuild(&maintainer, SuppressionSet::default()).await;
    assert!(found.replaced);
    let counts = |of: Table| {
        let of = table(&found, of);
        (of.missing, of.surplus, of.changed)
    };
    assert_eq!(counts(Table::Activity), (4, 0, 0));
    assert_eq!(counts(Table::Devices), (0, 0, 1));
    assert!(table(&found, Table::Links).is_same());
    world.check(month("2018-07"), &all).await;
    assert_eq!(file(&world, Table::Events).await, events_file, "events are not written again");
    assert!(!rebuild(&maintainer, SuppressionSet::default()).await.replaced);
}

#[tokio::test]
async fn rows_that_no_event_gives_are_taken_away() {
    let all = events(20, 300, 1);
    let world = settled(&all).await;
    // An activity of twenty devices, and events of the half of them.
    let few: Vec<Event> = all.iter().filter(|event| event.device % 2 == 0).copied().collect();
    let other = settled(&few).await;
    std::fs::copy(file(&world, Table::Activity).await, file(&other, Table::Activity).await).unwrap();
    let found = rebuild(&other.maintainer().await, SuppressionSet::default()).await;
    assert_eq!(table(&found, Table::Activity).surplus, 10);
    other.check(month("2018-07"), &few).await;
}

#[tokio::test]
async fn a_file_that_is_lost_or_broken_is_made_anew() {
    let all = events(20, 300, 1);
    for lost in [true, false] {
        let world = settled(&all).await;
        for table in DERIVED {
            let path = file(&world, table).await;
            if lost { std::fs::remove_file(path).unwrap() } else { std::fs::write(path, b"PAR1 is not enough").unwrap() }
        }
        let mut maintainer = world.maintainer().await;
        let found = rebuild(&maintainer, SuppressionSet::default()).await;
        assert!(found.tables.iter().all(|table| table.unreadable.is_some() && table.missing == table.rows), "{found:?}");
        world.check(month("2018-07"), &all).await;
        maintainer.purge(0, &(Arc::new(SystemClock) as SharedClock)).await.unwrap();
        let (there, named) = files(&world).await;
        assert_eq!(there, named);
    }
}

#[tokio::test]
async fn whoever_was_erased_stays_so() {
    let all = events(20, 300, 1);
    // The events of device 3 are still there, as a restored backup might bring them; its erasure has been carried out.
    let world = settled(&all).await;
    damage(&world, Table::Activity, |rows| without(rows, 4)).await;
    rebuild(&world.maintainer().await, carried_out(1, &[3])).await;
    let stay: Vec<Event> = all.iter().filter(|event| event.device != 3).copied().collect();
    world.check(month("2018-07"), &stay).await;
    // A pending one is neither brought back nor taken away: it is the erasure's to count.
    damage(&world, Table::Activity, |rows| without(rows, 4)).await;
    world.suppressed.set(suppress(2, &[5], &[2]));
    let hidden: BTreeMap<Table, Vec<String>> = {
        let mut hidden = BTreeMap::new();
        for table in DERIVED {
            hidden.insert(table, world.rows(table).await);
        }
        hidden
    };
    rebuild(&world.maintainer().await, carried_out(2, &[3])).await;
    for table in [Table::Links, Table::Devices] {
        assert_eq!(world.rows(table).await, hidden[&table], "{table}");
    }
    let id = hex::encode(device(5).as_bytes());
    assert!(!world.rows(Table::Activity).await.iter().any(|row| row.starts_with(&id)));
    world.suppressed.set(SuppressionSet::default());
    world.check(month("2018-07"), &stay).await;
}

#[tokio::test]
async fn a_rebuild_that_crashes_anywhere_is_made_up_for() {
    for again in [false, true] {
        for point in POINTS.iter().copied().filter(|point| point.starts_with("rewrite.")) {
            let all = events(20, 300, 1);
            let world = settled(&all).await;
            damage(&world, Table::Activity, |rows| without(rows, 3)).await;
            damage(&world, Table::Links, |rows| without(rows, 3)).await;
            let maintainer = world.maintainer().await;
            world.warehouse.fail_at(Some(point));
            maintainer.rebuild_month(month("2018-07"), Arc::default(), &|_| {}).await.unwrap_err();
            world.warehouse.fail_at(None);
            drop(maintainer);
            let mut maintainer = world.maintainer().await;
            if !again {
                maintainer.recover().await.unwrap();
            }
            // Before the first commit nothing tells of the rebuild: the month is still damaged.
            rebuild(&maintainer, SuppressionSet::default()).await;
            world.check(month("2018-07"), &all).await;
            maintainer.purge(0, &(Arc::new(SystemClock) as SharedClock)).await.unwrap();
            let (there, named) = files(&world).await;
            assert_eq!(there, named, "{point}");
            let before = versions(&world).await;
            maintainer.recover().await.unwrap();
            assert_eq!(versions(&world).await, before, "{point}");
        }
    }
}

#[tokio::test]
async fn an_open_month_keeps_what_comes_in_meanwhile() {
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(20, 300, 1);
    let mut lease = world.lease().await;
    world.append(&mut lease, july, &all[..150]).await.unwrap();
    std::fs::remove_file(file(&world, Table::Activity).await).unwrap();
    world.append(&mut lease, july, &all[150..]).await.unwrap();
    let maintainer = world.maintainer().await;
    assert!(rebuild(&maintainer, SuppressionSet::default()).await.replaced);
    world.check(july, &all).await;
    let more = events(30, 50, 1_000);
    world.append(&mut lease, july, &more).await.unwrap();
    world.check(july, &[all, more].concat()).await;
}

#[tokio::test]
async fn without_events_nothing_is_made_anew() {
    let world = World::new().await;
    let maintainer = world.maintainer().await;
    maintainer.write_settled(Arc::new(Rolled::new()), &|_| {}).await.unwrap();
    let before = world.rows(Table::Activity).await;
    let error = maintainer.rebuild_month(month("2018-07"), Arc::default(), &|_| {}).await.unwrap_err();
    assert!(error.to_string().contains("no events"), "{error}");
    assert_eq!(world.rows(Table::Activity).await, before);
}
