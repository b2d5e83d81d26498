//! `kill -9` at any moment changes nothing in the end.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::erasure::copy;
use crate::support::{AMELES, Home, event, python, script, simulated};

/// Kills a command after a while; tells whether it had ended by itself before.
fn killed_after(home: &Home, arguments: &[&str], wait: Duration) -> bool {
    let mut child = home.command(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let end = Instant::now() + wait;
    while Instant::now() < end {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _already_gone = child.kill();
    child.wait().unwrap();
    false
}

fn all_metrics(home: &Home) -> Vec<Vec<Vec<String>>> {
    ["dau", "mau", "activations", "wakes", "mau28", "retention", "growth"]
        .iter()
        .map(|name| home.metric_rows(&[name, "--by", "country"]))
        .collect()
}

#[test]
fn an_ingest_killed_again_and_again_ends_as_one_that_was_not() {
    let (whole, broken) = (Home::new(), Home::new());
    // Without consent events: what one says holds for events that arrive after it, so where an ingest is
    // cut decides which of its neighbours in the batch arrive again after a withdrawal.
    let fleet = simulated(&whole, "fleet.ndjson", 3000, &["--days", "70", "--seed", "5"]);
    let text = std::fs::read_to_string(fleet).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.contains("\"consent_")).collect();
    let path = whole.file("events.ndjson", lines.join("\n") + "\n");
    let summary = whole.ingest(&path);
    let path = path.to_str().unwrap();
    let mut killed = 0;
    for round in 0..12_u64 {
        if killed_after(&broken, &["ingest", path], Duration::from_millis(40 + round * 67 % 500)) {
            break;
        }
        killed += 1;
    }
    assert!(killed > 0, "the first run was done before it could be killed");
    broken.ok(&["ingest", path]);
    assert_eq!(all_metrics(&whole), all_metrics(&broken));
    let count = |home: &Home| home.ok(&["sql", "SELECT count(*), count(DISTINCT device) FROM events", "--k", "1", "--format", "csv"]);
    assert_eq!(count(&whole), count(&broken));
    assert!(summary["accepted"].as_u64().unwrap() > 10_000, "{summary}");
}

#[test]
fn an_erasure_killed_again_and_again_ends_as_one_that_was_not() {
    let (whole, broken) = (Home::new(), Home::new());
    let path = simulated(&whole, "fleet.ndjson", 2000, &["--days", "70", "--seed", "6"]);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut subjects = "kind,identifier\n".to_owned();
    for line in text.lines().step_by(997).take(60) {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        subjects += &match event["user_id"].as_str() {
            Some(user) => format!("user,{user}\n"),
            None => format!("device,{}\n", event["device_id"].as_str().unwrap()),
        };
    }
    for home in [&whole, &broken] {
        home.ingest(&path);
        let list = home.file("list.csv", &subjects);
        home.ok(&["erase", "submit", "--file", list.to_str().unwrap()]);
    }
    let before = broken.folder.path().join("before");
    copy(&broken.path().join("warehouse"), &before);
    let started = Instant::now();
    whole.ok(&["erase", "run"]);
    // Over the whole of a run, wherever that is spent on this machine.
    let took = started.elapsed().as_millis() as u64 + 30;
    let mut killed = 0;
    for round in 0..15_u64 {
        if killed_after(&broken, &["erase", "run"], Duration::from_millis(30 + round * 61 % took)) {
            break;
        }
        killed += 1;
    }
    assert!(killed > 0, "the first run was done before it could be killed");
    broken.ok(&["erase", "run"]);
    if let Some(python) = python() {
        let residues = script(&python, "residues.py", &[before.to_str().unwrap(), broken.path().to_str().unwrap()]);
        assert!(residues.trim().parse::<u32>().unwrap() > 0, "{residues}");
    }
    assert_eq!(all_metrics(&whole), all_metrics(&broken));
    let verified = broken.json(&["erase", "verify"]);
    assert_eq!(verified["clean"], true, "{verified}");
    let open = broken.json(&["erase", "list"]);
    assert!(open["requests"].as_array().unwrap().iter().all(|request| request["state"] == "completed"), "{open}");
}

/// Many runs, each killed at a random moment and resumed, while files and posts come in, months settle and runs merge:
/// no residue in any file, no other row lost or changed, nobody back. `AMELES_KILLED_RUNS=200` takes some minutes.
#[test]
fn erasures_killed_at_random_moments_beside_ingest_and_serve_leave_nothing_and_lose_nothing() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let runs = std::env::var("AMELES_KILLED_RUNS").unwrap_or_else(|_| "6".to_owned());
    let home = folder.path().join("home");
    let told = script(&python, "killed_runs.py", &[AMELES, home.to_str().unwrap(), "--runs", &runs]);
    assert!(told.starts_with(&format!("{runs} runs resumed")), "{told}");
    eprintln!("{told}");
}

#[test]
fn what_http_acknowledged_survives_a_kill() {
    let home = Home::new();
    let token = home.json(&["token", "create", "feeder", "--role", "ingest"])["token"].as_str().unwrap().to_owned();
    let mut server = home.serve();
    for batch in 0..5_u64 {
        let body: String = (0..20).map(|i| event(batch * 20 + i, &format!("8{i:011}"), None, "wake", "2018-07-02T10:00:00Z")).collect();
        let mut reply = ureq::post(server.url("/v1/events"))
            .header("Authorization", format!("Bearer {token}"))
            .content_type("application/x-ndjson")
            .send(&body)
            .unwrap();
        let reply: serde_json::Value = reply.body_mut().read_json().unwrap();
        // The month has long closed for a live source.
        assert_eq!((reply["received"].as_u64(), reply["rejected"]["too_late"].as_u64()), (Some(20), Some(20)), "{reply}");
    }
    let now = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap().stdout;
    let now = String::from_utf8(now).unwrap().trim().to_owned();
    let mut accepted = 0;
    for batch in 0..5_u64 {
        let body: String = (0..20).map(|i| event(1000 + batch * 20 + i, &format!("8{i:011}"), None, "wake", &now)).collect();
        let mut reply = ureq::post(server.url("/v1/events"))
            .header("Authorization", format!("Bearer {token}"))
            .content_type("application/x-ndjson")
            .send(&body)
            .unwrap();
        accepted += reply.body_mut().read_json::<serde_json::Value>().unwrap()["accepted"].as_u64().unwrap();
    }
    server.child.kill().unwrap();
    drop(server);
    assert_eq!(accepted, 100);
    let stored = home.ok(&["sql", "SELECT count(*) FROM events", "--k", "1", "--format", "csv"]);
    assert_eq!(stored.lines().nth(1), Some("100"));
    // The same events again after the restart are duplicates.
    let server = home.serve();
    let body: String = (0..20).map(|i| event(1000 + i, &format!("8{i:011}"), None, "wake", &now)).collect();
    let mut reply = ureq::post(server.url("/v1/events"))
        .header("Authorization", format!("Bearer {token}"))
        .content_type("application/x-ndjson")
        .send(&body)
        .unwrap();
    let reply: serde_json::Value = reply.body_mut().read_json().unwrap();
    assert_eq!(reply["rejected"]["duplicate"], 20, "{reply}");
    assert_eq!(home.metric_rows(&["wakes"])[0][1], "100");
}
