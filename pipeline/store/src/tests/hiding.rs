//! Where an erased subject could hide in the tables, or come back from.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ameles_core::{SharedClock, Subject, SuppressionSet, SuppressionSource, SuppressionUnavailable, SystemClock};
use ameles_schemas::Table;
use bytes::Bytes;
use tokio::sync::Notify;

use super::support::*;
use crate::rewrite::Scope;
use crate::{Append, Locked, Rewrite, StoreError, entry, verify};

async fn findings(folder: &std::path::Path, subjects: &[Subject]) -> Vec<verify::Finding> {
    verify::scan_for(folder, &Locked::default(), subjects, &|_| {}).await.unwrap().findings
}

/// Neither before an erasure nor after it: statistics, tags and operations in the log and its checkpoints name rows and times only.
#[tokio::test]
async fn the_log_and_its_checkpoints_name_nobody() {
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(30, 600, 1);
    let mut lease = world.lease().await;
    world.append(&mut lease, july, &all[..400]).await.unwrap();
    settle(&world.maintainer().await, july).await;
    world.append(&mut lease, july, &all[400..]).await.unwrap();
    let rows = quarantine(&[(july, Some(4)), (july, Some(5))]);
    lease.append(Append { quarantine: Some(rows), ..Append::default() }, &world.suppressed).await.unwrap();
    let subjects: Vec<Subject> =
        (0..30).map(|number| Subject::Device(device(number))).chain((0..7).map(|number| Subject::User(user(number)))).collect();
    for table in tables().tables() {
        let folder = world.warehouse.table_folder(table);
        assert!(!findings(&folder, &subjects).await.is_empty(), "{table}: the data files name them");
        world.warehouse.checkpoint(table).await.unwrap();
        assert_eq!(findings(&folder.join("_delta_log"), &subjects).await, [], "{table}");
    }
    let spec = Rewrite { suppressed: Arc::new(suppress(1, &[3, 4], &[])), closed: false };
    world.maintainer().await.rewrite_month(july, &spec, &|_| {}).await.unwrap();
    for table in tables().tables() {
        assert_eq!(findings(&world.warehouse.table_folder(table).join("_delta_log"), &subjects).await, [], "{table}");
    }
}

/// Another maker's `DELETE` writes its predicate into the log, the very pseudonym: the entry goes with the next purge.
#[tokio::test]
async fn a_predicate_in_an_old_log_entry_goes_with_the_purge() {
    let world = World::new().await;
    let july = month("2018-07");
    let mut lease = world.lease().await;
    world.append(&mut lease, july, &events(30, 400, 1)).await.unwrap();
    let predicate = format!("device = X'{}'", hex::encode(device(4).as_bytes()));
    let text = serde_json::json!({"commitInfo": {"operation": "DELETE", "operationParameters": {"predicate": predicate}}}).to_string();
    let version = world.warehouse.snapshot().await.unwrap().version(Table::Events);
    let folder = world.warehouse.table_folder(Table::Events);
    assert!(entry::put_entry(&folder, version + 1, &Bytes::from(text + "\n")).unwrap());
    let subject = [Subject::Device(device(4))];
    let mut maintainer = world.maintainer().await;
    let spec = Rewrite { suppressed: Arc::new(suppress(1, &[4], &[])), closed: false };
    maintainer.rewrite_month(july, &spec, &|_| {}).await.unwrap();
    assert!(findings(&folder.join("_delta_log"), &subject).await.iter().any(|finding| finding.path.ends_with(".json")));
    maintainer.purge(0, &(Arc::new(SystemClock) as SharedClock)).await.unwrap();
    assert_eq!(findings(world.root(), &subject).await, []);
    assert_eq!(world.warehouse.snapshot().await.unwrap().version(Table::Events), version + 2);
}

/// A merge that read the month before an erasure and comes to commit after it must not put the subject back.
#[tokio::test]
async fn a_merge_that_an_erasure_has_overtaken_is_refused() {
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(30, 600, 1);
    let mut lease = world.lease().await;
    for part in all[..400].chunks(100) {
        world.append(&mut lease, july, part).await.unwrap();
    }
    let maintainer = world.maintainer().await;
    let before = world.warehouse.snapshot().await.unwrap();
    let inputs = before.month_files(Table::Events, july).to_vec();
    let late = maintainer.merge(july, &inputs, Some(1), &Rewrite::default(), &|_| {}).await.unwrap();
    // Meanwhile the month settles, more rows come, and the erasure takes device 4 out.
    settle(&maintainer, july).await;
    world.append(&mut lease, july, &all[400..]).await.unwrap();
    let spec = Rewrite { suppressed: Arc::new(suppress(1, &[4], &[])), closed: false };
    maintainer.rewrite_month(july, &spec, &|_| {}).await.unwrap();
    let stay: Vec<Event> = all.iter().filter(|event| event.device != 4).copied().collect();
    let landed = maintainer.replace(&before, Table::Events, july, &inputs, &late, Scope::Runs).await;
    assert!(matches!(landed, Err(StoreError::FilesReplaced { .. })), "{landed:?}");
    world.check(july, &stay).await;
}

/// A batch that stalls between its last look at the suppressions, which names nobody yet, and its commit.
#[derive(Default)]
struct Stalling {
    looks: AtomicU32,
    reached: Notify,
    erased: Notify,
}

impl SuppressionSource for Stalling {
    fn current(&self) -> Pin<Box<dyn Future<Output = Result<Arc<SuppressionSet>, SuppressionUnavailable>> + Send + '_>> {
        Box::pin(async move {
            if self.looks.fetch_add(1, Ordering::SeqCst) == 1 {
                self.reached.notify_one();
                // Long enough for an erasure that waits for nobody; one that waits goes on once the batch is in.
                let _it_waits = tokio::time::timeout(std::time::Duration::from_millis(400), self.erased.notified()).await;
            }
            Ok(Arc::default())
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_waits_for_a_batch_that_has_looked_and_not_committed() {
    let world = World::new().await;
    let july = month("2018-07");
    let all = events(10, 200, 1);
    let mut lease = world.lease().await;
    world.append(&mut lease, july, &all[..100]).await.unwrap();
    let maintainer = world.maintainer().await;
    let stalling = Stalling::default();
    let spec = Rewrite { suppressed: Arc::new(suppress(1, &[4], &[])), closed: false };
    let rest = Append { events: vec![(july, batch(&tables(), july, &all[100..]))], ..Append::default() };
    let erasing = async {
        stalling.reached.notified().await;
        maintainer.rewrite_month(july, &spec, &|_| {}).await.unwrap();
        stalling.erased.notify_one();
    };
    let (appended, ()) = tokio::join!(lease.append(rest, &stalling), erasing);
    assert_eq!(appended.unwrap().rows, 100);
    let stay: Vec<Event> = all.iter().filter(|event| event.device != 4).copied().collect();
    world.check(july, &stay).await;
}
