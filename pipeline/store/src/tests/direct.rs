//! Settled months that were written directly.

use std::sync::Arc;

use ameles_core::Month;
use ameles_schemas::Table;
use arrow::array::RecordBatch;

use super::support::*;
use crate::rollup::roll_up;
use crate::settle::without_keys;
use crate::{ReadView, Rewrite, RowSink, SettledRows, StoreError};

/// What two months of events are rolled up into.
pub(super) struct Rolled {
    months: Vec<(Month, Vec<Event>)>,
    backwards: bool,
}

impl Rolled {
    pub(super) fn new() -> Self {
        let events = events(40, 500, 1);
        Self { months: vec![(month("2018-07"), events[..300].to_vec()), (month("2018-08"), events[300..].to_vec())], backwards: false }
    }

    fn of(&self, table: Table, at: usize) -> RecordBatch {
        let (month, events) = &self.months[at];
        let rolled = roll_up(&tables(), *month, &batch(&tables(), *month, events)).unwrap();
        without_keys(rolled.of(table).unwrap()).unwrap()
    }
}

impl SettledRows for Rolled {
    fn months(&self) -> Vec<Month> {
        self.months.iter().map(|(month, _)| *month).collect()
    }
    fn ranges(&self, _: Table, _: usize) -> usize {
        2
    }
    fn rows(&self, table: Table, month: usize, range: usize, sink: RowSink<'_>) -> Result<(), StoreError> {
        let rows = self.of(table, month);
        let half = rows.num_rows() / 2;
        let (first, rest) = (rows.slice(0, half), rows.slice(half, rows.num_rows() - half));
        let of_range = if range == 0 { first } else { rest };
        let middle = of_range.num_rows() / 2;
        let mut parts = [of_range.slice(0, middle), of_range.slice(middle, of_range.num_rows() - middle)];
        if self.backwards {
            parts.reverse();
        }
        parts.iter().try_for_each(|part| sink(part))
    }
}

async fn check(world: &World, rolled: &Rolled) {
    for table in [Table::Activity, Table::Links, Table::Devices] {
        let mut expected = Vec::new();
        for (month, events) in &rolled.months {
            let mut model = Model::of(*month, events);
            model.keys = false;
            expected.extend(model.rows(table));
        }
        assert_eq!(world.rows(table).await, expected, "{table}");
    }
}

#[tokio::test]
async fn months_written_directly_are_settled_and_plain_and_stay_so() {
    let world = World::new().await;
    let rolled = Rolled::new();
    let mut maintainer = world.maintainer().await;
    let told = std::sync::atomic::AtomicU64::new(0);
    let add = |rows: u64| {
        told.fetch_add(rows, std::sync::atomic::Ordering::Relaxed);
    };
    let written = maintainer.write_settled(Arc::new(Rolled::new()), &add).await.unwrap();
    assert_eq!(written.iter().map(|table| table.rows).sum::<u64>(), told.into_inner());
    check(&world, &rolled).await;
    let view = world.view().await;
    for (at, (month, _)) in rolled.months.iter().enumerate() {
        for table in [Table::Activity, Table::Links, Table::Devices] {
            assert_eq!(view.exact_rows(table, *month), Some(rolled.of(table, at).num_rows() as u64));
        }
        assert!(view.snapshot().is_closed(*month));
    }
    // Nothing was interrupted, so there is nothing to make up for.
    let versions = |view: &Arc<ReadView>| tables().tables().into_iter().map(|table| view.snapshot().version(table)).collect::<Vec<_>>();
    maintainer.recover().await.unwrap();
    maintainer.rewrite_month(month("2018-07"), &Rewrite { closed: true, ..Rewrite::default() }, &|_| {}).await.unwrap();
    assert_eq!(versions(&world.view().await), versions(&view));
    let (there, named) = files(&world).await;
    assert_eq!(there, named);
}

#[tokio::test]
async fn they_are_written_into_an_empty_warehouse_only() {
    let world = World::new().await;
    let mut lease = world.lease().await;
    world.append(&mut lease, month("2018-09"), &events(3, 10, 1)).await.unwrap();
    let before = world.rows(Table::Activity).await;
    let error = world.maintainer().await.write_settled(Arc::new(Rolled::new()), &|_| {}).await.unwrap_err();
    assert!(error.to_string().contains("has rows already"), "{error}");
    assert_eq!(world.rows(Table::Activity).await, before);
}

#[tokio::test]
async fn rows_out_of_order_are_refused() {
    let world = World::new().await;
    let rolled = Rolled { backwards: true, ..Rolled::new() };
    let error = world.maintainer().await.write_settled(Arc::new(rolled), &|_| {}).await.unwrap_err();
    assert!(error.to_string().contains("not sorted"), "{error}");
    assert!(world.rows(Table::Activity).await.is_empty());
}

#[tokio::test]
async fn what_a_crash_left_of_them_is_taken_away() {
    let world = World::new().await;
    let mut maintainer = world.maintainer().await;
    world.warehouse.fail_at(Some("direct.committed"));
    maintainer.write_settled(Arc::new(Rolled::new()), &|_| {}).await.unwrap_err();
    world.warehouse.fail_at(None);
    assert!(!world.rows(Table::Activity).await.is_empty());
    maintainer.recover().await.unwrap();
    for table in tables().tables() {
        assert!(world.rows(table).await.is_empty(), "{table}");
    }
    maintainer.write_settled(Arc::new(Rolled::new()), &|_| {}).await.unwrap();
    check(&world, &Rolled::new()).await;
}

#[tokio::test]
async fn an_erasure_in_them_is_refused_and_a_pending_one_is_hidden() {
    let world = World::new().await;
    let maintainer = world.maintainer().await;
    maintainer.write_settled(Arc::new(Rolled::new()), &|_| {}).await.unwrap();
    let all = world.rows(Table::Activity).await.len();
    world.suppressed.set(suppress(1, &[3], &[]));
    let left = world.rows(Table::Activity).await;
    assert!(left.len() < all && !left.iter().any(|row| row.starts_with(&hex::encode(device(3).as_bytes()))));
    let spec = Rewrite { suppressed: Arc::new(suppress(1, &[3], &[])), closed: true };
    let error = maintainer.rewrite_month(month("2018-07"), &spec, &|_| {}).await.unwrap_err();
    assert!(error.to_string().contains("no events"), "{error}");
    assert_eq!(world.rows(Table::Activity).await, left);
}
