//! The ledger between processes, and the journal outside the home.

use crate::support::{Home, event};

fn wakes(devices: std::ops::Range<u64>) -> String {
    devices.map(|i| event(i, &format!("8{i:011}"), None, "wake", "2018-07-01T10:00:00Z")).collect()
}

/// The search of one process took its own locks away: others then deleted the log that it wrote to, and requests were
/// completed and forgotten, or the ledger destroyed.
#[test]
fn runs_beside_other_commands_lose_nothing() {
    let home = Home::new();
    home.ingest(&home.file("a.ndjson", wakes(0..40)));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                home.ok(&["erase", "list"]);
            }
        });
        for i in 0..12 {
            let id = home.ok_with(&["erase", "submit", "--device", "-"], &format!("8{i:011}\n")).trim().to_owned();
            home.ok(&["erase", "run"]);
            assert_eq!(home.json(&["erase", "status", &id])["state"], "completed", "of run {i}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    home.ok(&["audit", "verify"]);
    assert_eq!(home.json(&["erase", "verify"])["clean"], true);
    // In a loop over lines, standard input is the loop's.
    home.ok_with(&["erase", "verify"], "800000000020\n");
}

/// A restored home would take in again what only the journal knows to be erased.
#[test]
fn nothing_is_taken_in_without_the_journal() {
    let home = Home::new();
    let file = home.file("a.ndjson", wakes(0..20));
    home.ingest(&file);
    let journal = home.path().with_extension("journal");
    let kept = std::fs::read(&journal).unwrap();
    let refuses = |what: &str| {
        for arguments in [&["ingest", file.to_str().unwrap()][..], &["serve"]] {
            let refused = home.run(arguments);
            assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
            let told = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(told.contains("journal") && told.contains(what), "{told}");
        }
    };
    let mut flipped = kept.clone();
    flipped[kept.len() / 2] ^= 1;
    std::fs::write(&journal, flipped).unwrap();
    refuses("damaged");
    std::fs::remove_file(&journal).unwrap();
    refuses("restart-journal");
    // Lost for good: a new one is begun.
    home.ok(&["audit", "restart-journal"]);
    home.ok(&["audit", "verify"]);
    home.ingest(&home.file("b.ndjson", wakes(20..40)));
    // One that is there is not begun anew.
    assert_ne!(home.run(&["audit", "restart-journal"]).status.code(), Some(0));
}

/// Ledger lost, keyring and journal kept: who was erased stays out, and whoever asked is known.
#[test]
fn a_lost_ledger_is_made_anew_from_the_journal() {
    let home = Home::new();
    let file = home.file("a.ndjson", wakes(0..20));
    home.ingest(&file);
    let submit = |device: u64| home.ok_with(&["erase", "submit", "--device", "-"], &format!("8{device:011}\n")).trim().to_owned();
    let done = submit(3);
    home.ok(&["erase", "run"]);
    let (pending, cancelled) = (submit(4), submit(5));
    home.ok(&["erase", "cancel", &cancelled]);
    let refused = home.run(&["audit", "restore-ledger"]);
    assert_eq!(refused.status.code(), Some(1), "one that is there is not made anew");
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        let _ = std::fs::remove_file(home.path().join(name));
    }
    let lost = home.run(&["metric", "dau", "--k", "1"]);
    assert!(!lost.status.success() && String::from_utf8_lossy(&lost.stderr).contains("restore-ledger"));
    // A journal that cannot be relied on makes no ledger.
    let journal = home.path().with_extension("journal");
    let kept = std::fs::read(&journal).unwrap();
    let mut flipped = kept.clone();
    flipped[kept.len() / 2] ^= 1;
    for damaged in [Some(flipped), None] {
        match damaged {
            Some(bytes) => std::fs::write(&journal, bytes).unwrap(),
            None => std::fs::remove_file(&journal).unwrap(),
        }
        assert!(!home.run(&["audit", "restore-ledger"]).status.success());
        assert!(!home.path().join("ledger.db").exists());
    }
    std::fs::write(&journal, kept).unwrap();
    let told = home.json(&["audit", "restore-ledger"]);
    assert_eq!((&told["requests"], &told["reopened"], &told["cancelled"]), (&3.into(), &1.into(), &1.into()));
    let state = |id: &str| home.json(&["erase", "status", id])["state"].clone();
    assert_eq!([state(&done), state(&pending), state(&cancelled)], ["in_progress", "pending", "cancelled"]);
    // Neither an old file nor the tables count a subject, and the run ends as it would have.
    let again = home.json(&["ingest", file.to_str().unwrap()]);
    assert_eq!(again["accepted"], 0, "{again}");
    home.ok(&["erase", "run"]);
    assert_eq!([state(&done), state(&pending)], ["completed", "completed"]);
    assert!(home.ok(&["metric", "dau", "--k", "1", "--format", "csv"]).contains(",18,"));
    home.ok(&["audit", "verify"]);
    assert_eq!(home.json(&["erase", "verify"])["clean"], true);
}
