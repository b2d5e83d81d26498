//! Two processes on one ledger, killed at any moment.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ameles_core::SystemRandom;

use super::*;
use crate::{JournalCheck, RequestFilter, RequestId};

const FOLDER: &str = "AMELES_TEST_LEDGER_FOLDER";
const NUMBER: &str = "AMELES_TEST_LEDGER_NUMBER";

async fn open_at(folder: &Path, clock: SharedClock) -> Ledger {
    Ledger::open(&folder.join("home/ledger.db"), keys(), clock, Arc::new(SystemRandom)).await.unwrap()
}

/// The other process: submits and cancels without end, and notes what was acknowledged. As a test by itself it does nothing.
#[tokio::test]
async fn child() {
    let (Ok(folder), Ok(number)) = (std::env::var(FOLDER), std::env::var(NUMBER)) else { return };
    let folder = Path::new(&folder);
    let ledger = open_at(folder, Home::new().clock()).await;
    let mut acknowledged = std::fs::File::create(folder.join(format!("acknowledged-{number}"))).unwrap();
    let number: u8 = number.parse().unwrap();
    for round in 0_u64.. {
        let mut bytes = [number; 16];
        bytes[..8].copy_from_slice(&round.to_be_bytes());
        let id = ledger.submit(request(Subject::Device(DeviceId::from_bytes(bytes)))).await.unwrap();
        writeln!(acknowledged, "{id}").unwrap();
    }
}

fn spawn(folder: &Path, number: u8) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["tests::kill::child", "--exact"])
        .env(FOLDER, folder)
        .env(NUMBER, number.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9_of_two_processes() {
    let home = Home::new();
    home.create().await.close().await;
    let folder = home.folder.path();
    let mut known = 0;
    for round in 0..6_u8 {
        let mut children = [spawn(folder, round * 2), spawn(folder, round * 2 + 1)];
        // They need a moment to start; then they die at some point of their work.
        std::thread::sleep(Duration::from_millis(150 + 37 * u64::from(round)));
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let ledger = open_at(folder, home.clock()).await;
        assert_eq!(ledger.check_journal().await.unwrap(), JournalCheck::UpToDate);
        assert!(ledger.audit_verify().await.unwrap().is_intact());
        let there: Vec<RequestId> = ledger.requests(&RequestFilter::default()).await.unwrap().iter().map(|request| request.id).collect();
        for number in [round * 2, round * 2 + 1] {
            let text = std::fs::read_to_string(folder.join(format!("acknowledged-{number}"))).unwrap_or_default();
            // The last line may be torn itself.
            for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
                assert!(there.contains(&line.trim_end().parse().unwrap()), "an acknowledged request is lost");
            }
        }
        assert_eq!(ledger.suppressions().await.unwrap().devices().count(), there.len());
        assert!(there.len() > known, "the children did nothing");
        known = there.len();
        ledger.close().await;
    }
}
