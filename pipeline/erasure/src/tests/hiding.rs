//! Where an erased subject could hide from a whole run, and what looking there must not disturb.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ameles_core::SubjectKind::Device;
use ameles_ledger::RequestState;
use ameles_schemas::Table;
use ameles_store::Locked;

use super::fixture::{Home, remaining};
use crate::{Eraser, ErasureError, Silent, Step};

/// Nobody told the run of the table; it searches all that is kept, and does not certify what it finds.
#[tokio::test]
async fn a_table_that_no_one_mapped_stops_the_run() {
    let home = Home::with_fleet().await;
    let snapshot = home.eraser.warehouse.snapshot().await.unwrap();
    let root = home.eraser.warehouse.root();
    let stray = root.join("wakewords/month=2026-07-01/part-0.parquet");
    std::fs::create_dir_all(stray.parent().unwrap()).unwrap();
    // Every device of July is in one of the month's files.
    let id = home.submit(Device, "d1").await;
    let subject = home.subject(Device, "d1");
    for file in snapshot.month_files(Table::Events, "2026-07".parse().unwrap()) {
        std::fs::copy(root.join("events").join(&file.path), &stray).unwrap();
        let found =
            ameles_store::verify::scan_for(stray.parent().unwrap(), &Locked::default(), &[subject], &|_| {}).await.unwrap().findings;
        if !found.is_empty() {
            break;
        }
    }
    let error = home.eraser.run("test", &Silent).await.unwrap_err();
    let ErasureError::Stopped { step: Step::Verify, source } = &error else { panic!("{error:?}") };
    assert!(matches!(&**source, ErasureError::Residue { first, .. } if first.contains("wakewords")), "{source:?}");
    let request = home.eraser.ledger.request(id).await.unwrap();
    assert_eq!(request.state, RequestState::InProgress);
    assert!(Eraser::last_error(&request).is_some_and(|error| error.contains("wakewords")));
    assert!(matches!(home.eraser.certificate(id).await, Err(ErasureError::NoCertificate(_))));
    assert!(!home.eraser.verify(None, &Silent).await.unwrap().pending.is_empty());
    // Once whoever added it has taken the subject out, the run goes on from there.
    std::fs::remove_dir_all(root.join("wakewords")).unwrap();
    home.eraser.run("test", &Silent).await.unwrap();
    assert_eq!(home.eraser.ledger.request(id).await.unwrap().state, RequestState::Completed);
    home.assert_holds_only(&remaining(|event| event.device == "d1")).await;
}

/// The POSIX locks that this process has on a file, as the kernel knows them.
fn locks_on(path: &Path) -> Vec<String> {
    let inode = std::fs::metadata(path).unwrap().ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let of_ours = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1) == Some(&"POSIX")
            && words.contains(&std::process::id().to_string().as_str())
            && words.iter().any(|word| word.rsplit(':').next() == Some(&inode))
    };
    locks.lines().filter(of_ours).map(|line| line.split_once(':').unwrap().1.to_owned()).collect()
}

/// To search the ledger's file and close it again took SQLite's locks away: the next process took itself for the only one, and
/// deleted the log that this one was writing to.
#[tokio::test]
async fn searching_the_home_leaves_the_ledgers_locks_in_place() {
    let home = Home::with_fleet().await;
    let files = ["ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"].map(|name| home.eraser.layout.home.join(name));
    let held = || files.iter().flat_map(|file| locks_on(file)).collect::<Vec<_>>();
    assert!(!held().is_empty(), "the pool has a connection open");
    home.submit(Device, "d1").await;
    home.eraser.run("test", &Silent).await.unwrap();
    assert!(!held().is_empty(), "a run leaves the locks in place");
    let before = held();
    home.eraser.verify(None, &Silent).await.unwrap();
    assert!(before.iter().all(|lock| held().contains(lock)), "{before:?} are {:?} after a search", held());
}
