use ameles_schemas::Table;

use super::support::{World, event, month};
use crate::{Append, StoreError, Txn, Warehouse};

const APP: &str = "kafka:c:t:0";

fn txn(before: Option<i64>, after: i64) -> Append {
    Append { txns: vec![Txn { app: APP.to_owned(), before, after }], ..Append::default() }
}

#[tokio::test]
async fn a_position_set_back_voids_what_was_at_work_and_survives_a_checkpoint() {
    let world = World::new().await;
    let mut lease = world.lease().await;
    let none = &world.suppressed;
    lease.append(txn(None, 10), none).await.unwrap();
    world.warehouse.set_positions(&[APP.to_owned(), "kafka:c:t:1".to_owned()], -2).await.unwrap();
    let version = world.warehouse.snapshot().await.unwrap().version(Table::Events);
    world.warehouse.set_positions(&[APP.to_owned()], -2).await.unwrap();
    assert_eq!(world.warehouse.snapshot().await.unwrap().version(Table::Events), version, "it is there already");
    let moved = lease.append(txn(Some(10), 20), none).await;
    assert!(matches!(moved, Err(StoreError::TxnMoved { found: Some(-2), .. })), "{moved:?}");
    world.warehouse.checkpoint(Table::Events).await.unwrap();
    let again = Warehouse::open(world.root(), world.warehouse.tables().clone()).await.unwrap();
    let snapshot = again.snapshot().await.unwrap();
    assert_eq!(snapshot.txn(Table::Events, APP), Some(-2));
    assert_eq!(snapshot.txn(Table::Quarantine, APP), Some(-2), "or what is rejected is not explained when it is read again");
    lease.append(txn(Some(-2), 5), none).await.unwrap();
    world.append(&mut lease, month("2018-07"), &[event(1, 1, 1)]).await.unwrap();
}

#[tokio::test]
async fn a_position_is_noted_once_until_it_is_set_back() {
    let world = World::new().await;
    assert_eq!(world.warehouse.position_or_set("kafka-topic:c:t", 7).await.unwrap(), 7);
    assert_eq!(world.warehouse.position_or_set("kafka-topic:c:t", 8).await.unwrap(), 7);
    world.warehouse.set_positions(&["kafka-topic:c:t".to_owned()], -2).await.unwrap();
    assert_eq!(world.warehouse.position_or_set("kafka-topic:c:t", 8).await.unwrap(), 8);
}
