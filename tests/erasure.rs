//! Erasure beside a running server: suppressed at once, physically gone after the run, never back.

use std::path::Path;

use crate::support::{AMELES, Home, event, python, script, simulated};

fn csv_of(subjects: &[(&str, String)]) -> String {
    subjects.iter().fold("kind,identifier\n".to_owned(), |text, (kind, id)| text + &format!("{kind},{id}\n"))
}

/// A hundred devices and fifty users of the other generator's fleet.
fn subjects() -> Vec<(&'static str, String)> {
    let devices = (0..100).map(|i| ("device", format!("{:012}", 700_000_000_000_u64 + i * 7 * 37)));
    let users = (0..50).map(|i| ("user", format!("u{:010}", 900_000_000_u64 + i * 11 + 3)));
    devices.chain(users).collect()
}

#[test]
fn a_hundred_devices_and_fifty_users_beside_a_server() {
    let Some(python) = python() else { return };
    let home = Home::new();
    let fleet = home.folder.path().join("fleet");
    script(&python, "fleet.py", &[fleet.to_str().unwrap(), "--devices", "1200", "--files", "1"]);
    home.ingest(&fleet);
    let server = home.serve();
    let list = home.file("erase.csv", csv_of(&subjects()));
    let list = list.to_str().unwrap();
    let submitted = home.json(&["erase", "submit", "--file", list, "--reference", "CASE-7"]);
    assert_eq!(submitted["requests"].as_array().unwrap().len(), 150, "{submitted}");
    let lines = format!("{}/*.ndjson", fleet.display());
    let home_path = home.path();
    let compare = || script(&python, "compare_metrics.py", &[AMELES, home_path.to_str().unwrap(), &lines, "--erased", list, "--quick"]);

    compare(); // suppressed at once
    let preview = home.json(&["erase", "preview"]);
    assert!(preview["rows"].as_u64().unwrap() > 0, "{preview}");
    let run = home.json(&["erase", "run"]);
    let outcomes = run["requests"].as_array().unwrap();
    assert_eq!(outcomes.iter().filter(|outcome| outcome["state"] == "completed").count(), 150, "{run}");
    compare();

    // The same events again, as another file: a line ahead makes it one.
    let original = std::fs::read_to_string(fleet.join("part-0.ndjson")).unwrap();
    let again = home.file("again.ndjson", "{}\n".to_owned() + &original);
    home.ingest(&again);
    compare();
    let verified = home.json(&["erase", "verify"]);
    assert!(verified["clean"] == true && verified["remains"] == serde_json::json!([]), "{verified}");
    server.stop();

    // Each certificate holds offline, with the public key alone, and not when changed.
    let requests = home.json(&["erase", "list"]);
    let id = requests["requests"][0]["id"].as_str().unwrap().to_owned();
    let certificate = home.ok(&["erase", "certificate", &id]);
    let parsed: serde_json::Value = serde_json::from_str(&certificate).unwrap();
    let key = parsed["signature"]["public_key"].as_str().unwrap();
    let file = home.file("certificate.json", &certificate);
    home.ok(&["erase", "check-certificate", file.to_str().unwrap(), "--public-key", key]);
    let forged = home.file("forged.json", certificate.replace("gdpr", "ccpa"));
    assert_eq!(home.run(&["erase", "check-certificate", forged.to_str().unwrap(), "--public-key", key]).status.code(), Some(1));
    assert_eq!(home.json(&["audit", "verify"])["verdict"], "intact");
}

#[test]
fn a_users_erasure_takes_their_events_and_leaves_the_others() {
    let home = Home::new();
    let mut lines = String::new();
    // d1: only u1, and events without a user. d2: u1 and u2. d3: nobody.
    for (id, device, user, kind, day) in [
        (1, "800000000001", Some("u1"), "activate", 1),
        (2, "800000000001", None, "wake", 2),
        (3, "800000000002", Some("u1"), "activate", 1),
        (4, "800000000002", Some("u2"), "wake", 3),
        (5, "800000000002", None, "wake", 4),
        (6, "800000000003", None, "wake", 5),
    ] {
        lines += &event(id, device, user, kind, &format!("2018-07-0{day}T10:00:00Z"));
    }
    home.ingest(&home.file("a.ndjson", &lines));
    let id = home.ok_with(&["erase", "submit", "--user", "-"], " u1 \n").trim().to_owned();
    let check = |when: &str| {
        let dau: Vec<_> = home.metric_rows(&["dau"]).into_iter().map(|row| format!("{} {}", row[0], row[1])).collect();
        assert_eq!(dau, ["2018-07-03 1", "2018-07-04 1", "2018-07-05 1"], "{when}");
        // The device that loses its activation is no longer activated.
        assert_eq!(home.metric_rows(&["activations"]), Vec::<Vec<String>>::new(), "{when}");
        let events = home.ok(&["sql", "SELECT count(*) FROM events", "--k", "1", "--format", "csv"]);
        assert_eq!(events.lines().nth(1), Some("3"), "{when}");
    };
    check("submitted");
    home.ok(&["erase", "run"]);
    check("run");
    let status = home.json(&["erase", "status", &id]);
    assert_eq!(status["state"], "completed", "{status}");
    // A backfill of what happened before does not bring it back; a new owner's events count.
    lines += &event(7, "800000000001", None, "wake", "2018-07-02T11:00:00Z");
    home.ingest(&home.file("b.ndjson", "\n{}\n".to_owned() + &lines));
    check("backfilled");
    home.ingest(&home.file("c.ndjson", event(8, "800000000001", Some("u9"), "wake", "2018-07-06T10:00:00Z")));
    assert_eq!(home.metric_rows(&["dau"]).len(), 4);
}

#[test]
fn an_identifier_in_other_case_or_with_spaces_is_still_a_request_that_finds_nothing_or_the_subject() {
    let home = Home::new();
    home.ingest(&home.file("a.ndjson", event(1, "800000000001", None, "wake", "2018-07-01T10:00:00Z")));
    home.ok_with(&["erase", "submit", "--device", "-"], "\u{a0}800000000001 \r\n");
    home.ok(&["erase", "run"]);
    let events = home.ok(&["sql", "SELECT count(*) FROM events", "--k", "1", "--format", "csv"]);
    assert_eq!(events.lines().nth(1), Some("0"));
    // Nobody: a result with a warning, not an error.
    let id = home.ok_with(&["erase", "submit", "--device", "-"], "899999999999\n");
    let run = home.run(&["erase", "run", "--json"]);
    assert!(run.status.success());
    let certificate = home.ok(&["erase", "certificate", id.trim()]);
    assert!(certificate.contains("warning"), "{certificate}");
    assert_eq!(home.run_with(&["erase", "submit", "--device", "-"], "  \n").status.code(), Some(2));
}

#[test]
fn an_identifier_in_other_case_is_the_subject_where_the_contract_folds_case() {
    let outer = tempfile::tempdir().unwrap();
    let contract = outer.path().join("shop.json");
    std::fs::write(&contract, crate::metrics::SHOP.replace("\"domain\": \"device\"", "\"domain\": \"device\", \"fold_case\": true"))
        .unwrap();
    let home = Home::with(&["--contract", contract.to_str().unwrap()]);
    let at = |user: &str, day: u32| {
        format!(
            "{{\"user\":\"{user}\",\"session\":\"s\",\"event\":\"view\",\"timestamp\":\"2024-01-0{day}T10:00:00Z\",\"platform\":\"web\"}}\n"
        )
    };
    home.ingest(&home.file("a.ndjson", at("Jane.Doe@Example.org", 1) + &at("jane.doe@example.org", 2) + &at("john@example.org", 3)));
    assert_eq!(home.metric_rows(&["mau"])[0][1], "2");
    home.ok_with(&["erase", "submit", "--device", "-"], "  JANE.DOE@example.ORG\t\n");
    home.ok(&["erase", "run"]);
    let events = || home.ok(&["sql", "SELECT count(*) FROM events", "--k", "1", "--format", "csv"]).lines().nth(1).unwrap().to_owned();
    assert_eq!(events(), "1");
    assert_eq!(home.ingest(&home.file("b.ndjson", at("jane.DOE@example.org", 4)))["rejected"]["suppressed"], 1);
    assert_eq!(events(), "1");
}

#[test]
fn only_a_later_explicit_grant_lifts_a_suppression() {
    let home = Home::new();
    let at = |id: u64, day: u32| event(id, "800000000001", None, "wake", &format!("2018-07-{day:02}T10:00:00Z"));
    home.ingest(&home.file("a.ndjson", at(1, 1)));
    home.ok_with(&["erase", "submit", "--device", "-", "--received", "2018-07-10"], "800000000001\n");
    home.ok(&["erase", "run"]);
    // A consent stamp on an event does not lift it.
    assert_eq!(home.ingest(&home.file("b.ndjson", at(2, 11)))["rejected"]["suppressed"], 1);
    let grant = event(3, "800000000001", None, "consent_granted", "2018-07-12T10:00:00Z");
    home.ingest(&home.file("c.ndjson", grant));
    let summary = home.ingest(&home.file("d.ndjson", at(4, 11) + &at(5, 13)));
    assert_eq!((summary["accepted"].as_u64(), summary["rejected"]["suppressed"].as_u64()), (Some(1), Some(1)), "{summary}");
}

#[test]
fn a_restored_ledger_learns_from_the_journal() {
    let home = Home::new();
    let path = simulated(&home, "fleet.ndjson", 50, &["--days", "20"]);
    home.ingest(&path);
    let backup = home.folder.path().join("backup.db");
    copy_ledger(&home.path().join("ledger.db"), &backup);
    let device = first_device(&path);
    home.ok_with(&["erase", "submit", "--device", "-"], &device);
    home.ok(&["erase", "run"]);
    copy_ledger(&backup, &home.path().join("ledger.db"));
    let server = home.serve(); // replays
    server.stop();
    let requests = home.json(&["erase", "list"]);
    assert_eq!(requests["requests"].as_array().unwrap().len(), 1, "{requests}");
    let again =
        home.file("again.ndjson", "\n".to_owned() + &std::fs::read_to_string(&path).unwrap().replace("\"props\"", "\"x\":1,\"props\""));
    let summary = home.ingest(&again);
    assert!(summary["rejected"]["suppressed"].as_u64().unwrap() > 0, "{summary}");
}

/// The warehouse of the backup has the subject, and its ledger knows of no request.
#[test]
fn a_restored_home_is_erased_again() {
    let home = Home::new();
    let path = simulated(&home, "fleet.ndjson", 60, &["--days", "20"]);
    home.ingest(&path);
    let (all, device) = (home.metric_rows(&["dau"]), first_device(&path));
    let backup = home.folder.path().join("backup");
    copy(&home.path(), &backup);
    home.ok_with(&["erase", "submit", "--device", "-"], &device);
    home.ok(&["erase", "run"]);
    let erased = home.metric_rows(&["dau"]);
    assert_ne!(all, erased);
    std::fs::remove_dir_all(home.path()).unwrap();
    copy(&backup, &home.path());
    std::fs::remove_dir_all(&backup).unwrap();
    let verify = || home.run_with(&["erase", "verify", "--device", "-", "--json"], &device);
    assert_eq!(verify().status.code(), Some(1), "the backup holds the device");
    home.serve().stop(); // replays
    assert_eq!(home.metric_rows(&["dau"]), erased, "hidden at once");
    let requests = home.json(&["erase", "list"]);
    assert_eq!(requests["requests"][0]["state"], "in_progress", "{requests}");
    home.ok(&["erase", "run"]);
    let verified = verify();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    assert_eq!(home.metric_rows(&["dau"]), erased);
}

fn copy_ledger(from: &Path, to: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let side = |path: &Path| Path::new(&format!("{}{suffix}", path.display())).to_owned();
        if side(from).exists() {
            std::fs::copy(side(from), side(to)).unwrap();
        } else if side(to).exists() {
            std::fs::remove_file(side(to)).unwrap();
        }
    }
}

fn first_device(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let event: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    event["device_id"].as_str().unwrap().to_owned()
}

#[test]
fn other_readers_read_what_an_erasure_has_spliced() {
    let Some(python) = python() else { return };
    let home = Home::new();
    let fleet = simulated(&home, "fleet.ndjson", 3000, &["--days", "70", "--seed", "12"]);
    home.ingest(&fleet);
    let text = std::fs::read_to_string(fleet).unwrap();
    let mut list = "kind,identifier\n".to_owned();
    for (number, line) in text.lines().step_by(1_499).take(30).enumerate() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        list += &match event["user_id"].as_str() {
            Some(user) if number % 3 == 0 => format!("user,{user}\n"),
            _ => format!("device,{}\n", event["device_id"].as_str().unwrap()),
        };
    }
    let before = home.folder.path().join("before");
    copy(&home.path().join("warehouse"), &before);
    home.ok(&["erase", "submit", "--file", home.file("list.csv", list).to_str().unwrap()]);
    let run = home.json(&["erase", "run"]);
    assert!(run["spliced"]["files"].as_u64().unwrap() > 6 && run["rows_erased"].as_u64().unwrap() > 100, "{run}");
    let warehouse = home.path().join("warehouse");
    let read = script(&python, "read_spliced.py", &[warehouse.to_str().unwrap()]);
    assert!(read.starts_with("duckdb pyarrow") && !read.trim().ends_with(" 0"), "{read}");
    let residues = script(&python, "residues.py", &[before.to_str().unwrap(), home.path().to_str().unwrap()]);
    assert!(residues.trim().parse::<u32>().unwrap() >= 20, "{residues}");
    // A certificate names the files that held its subject, with what took their place, and what was left unread.
    let id = run["requests"][1]["id"].as_str().unwrap().to_owned();
    let certificate: serde_json::Value = serde_json::from_str(&home.ok(&["erase", "certificate", &id])).unwrap();
    let events = &certificate["certificate"]["tables"][0];
    assert_eq!(events["table"], "events", "{certificate}");
    let (removed, written) = (events["files_removed"].as_array().unwrap(), events["files_written"].as_array().unwrap());
    assert!(!removed.is_empty() && written.len() == removed.len(), "{events}");
    assert!(removed.iter().chain(written).all(|file| file["sha256"].as_str().is_some_and(|hash| hash.len() == 64)), "{events}");
    let number = |name: &str| events[name].as_u64().unwrap();
    assert_eq!(number("rows_before") - number("rows_after"), number("rows_deleted"), "{events}");
    assert_eq!(home.json(&["erase", "verify"])["clean"], true);
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
