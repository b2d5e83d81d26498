//! Crashes: this test binary starts itself as the process that dies.
#![allow(clippy::unwrap_used, clippy::expect_used)]
use ameles_core::Limits;
use ameles_schemas::{Contract, Table};
use serde_json::json;

use super::*;
use crate::testing::{Home, line, lines};

const CRASH_ROOT: &str = "AMELES_TEST_CRASH_ROOT";
/// More than two chunks.
const CRASH_LINES: usize = 40_000;

async fn crash_home(root: PathBuf) -> Home {
    let limits = Limits { batch_rows_max: 2000, ..Limits::default() };
    Home::create_or_open(root, Contract::default_contract(), limits).await
}

/// Every 50th line is bad, every 70th without consent.
fn crash_text() -> String {
    let bad = |number: usize| line("d1", &format!("bad-{number}"), "never", "wake", json!({}));
    let refused = |number: usize| line("d1", &format!("no-{number}"), "2018-07-01T00:00:00Z", "wake", json!({"consent": null}));
    (0..CRASH_LINES)
        .map(|number| match number {
            _ if number % 50 == 0 => bad(number),
            _ if number % 70 == 0 => refused(number),
            _ => lines(number, 1),
        })
        .collect()
}

/// Not a test: the process that crashes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test below"]
async fn crashing_child() {
    let Some(root) = std::env::var_os(CRASH_ROOT).map(PathBuf::from) else { return };
    let home = crash_home(root.clone()).await;
    home.ingest(&[root.join("input.ndjson")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_between_any_two_commits_loses_and_doubles_nothing() {
    let points = [
        "append.files_written:2",
        "append.quarantine_committed:1",
        "append.quarantine_committed:3",
        "append.events_committed:2",
        "append.activity_committed:2",
        "rewrite.files_written",
        "rewrite.events_committed",
    ];
    for point in points {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        std::fs::write(root.join("input.ndjson"), crash_text()).unwrap();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "files::crash::crashing_child", "--ignored"])
            .envs([("AMELES_CRASH_AT", point.as_ref()), (CRASH_ROOT, root.as_os_str())])
            .output()
            .unwrap();
        assert!(child.status.code().is_none(), "{point} was not reached");
        let home = crash_home(root.clone()).await;
        let report = home.ingest(&[root.join("input.ndjson")]).await;
        assert!(report.errors.is_empty());
        let (bad, refused) =
            ((0..CRASH_LINES).filter(|at| at % 50 == 0).count(), (0..CRASH_LINES).filter(|at| at % 50 != 0 && at % 70 == 0).count());
        assert_eq!(home.events().await.len(), CRASH_LINES - bad - refused, "{point}");
        let rows = home.quarantine().await;
        let counted = |reason: &str| rows.iter().filter(|row| row.reason == reason).map(|row| row.count as usize).sum::<usize>();
        assert_eq!((counted("invalid_value"), counted("no_consent"), counted("duplicate")), (bad, refused, 0), "{point}");
        let mut places: Vec<i64> = rows.iter().filter_map(|row| row.line).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), bad, "{point}: each bad line once");
        assert_eq!(home.ingest(&[root.join("input.ndjson")]).await.tally.received(), 0, "{point}");
        let snapshot = home.warehouse.snapshot().await.unwrap();
        assert!(snapshot.months(Table::Events).into_iter().all(|month| snapshot.is_settled(month)), "{point}");
    }
}
