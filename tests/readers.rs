//! Other makers' readers open the tables.

use crate::support::{Home, python, script, simulated, succeeded};

#[test]
fn python_deltalake_counts_the_same_rows() {
    let Some(python) = python() else { return };
    let home = Home::new();
    home.ingest(&simulated(&home, "fleet.ndjson", 400, &["--days", "40"]));
    let count = |home: &Home| {
        home.ok(&[
            "sql",
            "SELECT (SELECT count(*) FROM events) AS e, (SELECT count(*) FROM activity) AS a, (SELECT count(*) FROM devices) AS d",
            "--k",
            "1",
            "--format",
            "csv",
        ])
    };
    let mine = count(&home);
    let warehouse = home.path().join("warehouse");
    let theirs = script(&python, "count_rows.py", &[warehouse.to_str().unwrap(), "events", "activity", "devices"]);
    assert_eq!(mine.lines().nth(1).unwrap(), theirs.trim());
    // After an erasure with purge and cleaned log, too.
    let device: serde_json::Value =
        serde_json::from_str(std::fs::read_to_string(home.folder.path().join("fleet.ndjson")).unwrap().lines().next().unwrap()).unwrap();
    home.ok_with(&["erase", "submit", "--device", "-"], device["device_id"].as_str().unwrap());
    let command = ["erase", "run"];
    succeeded(home.command(&command).env("AMELES__ERASURE__PURGE_GRACE_S", "0").output().unwrap(), &command);
    let theirs = script(&python, "count_rows.py", &[warehouse.to_str().unwrap(), "events", "activity", "devices"]);
    assert_eq!(count(&home).lines().nth(1).unwrap(), theirs.trim());
    assert_ne!(mine, count(&home));
}
