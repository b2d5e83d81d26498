//! `ameles rebuild activity` heals damaged tables, and brings nobody back.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Home, simulated};

const METRICS: [&[&str]; 4] = [
    &["metric", "dau", "--by", "country"],
    &["metric", "mau", "--unit", "user"],
    &["metric", "installed_base"],
    &["metric", "wakes", "--by", "product", "--grain", "month"],
];

fn answers(home: &Home) -> Vec<String> {
    METRICS.iter().map(|metric| home.ok(&[*metric, &["--k", "1", "--format", "csv"]].concat())).collect()
}

/// The data files of a table's month.
fn files(home: &Home, table: &str, month: &str) -> Vec<PathBuf> {
    let folder = home.path().join("warehouse").join(table).join(format!("month={month}-01"));
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn of_month<'a>(report: &'a Value, month: &str) -> &'a Value {
    report["months"].as_array().unwrap().iter().find(|of| of["month"] == month).unwrap()
}

#[test]
fn damaged_activity_is_made_anew_from_events() {
    let home = Home::new();
    let events = simulated(&home, "fleet.ndjson", 300, &[]);
    home.ingest(&events);
    // One device is erased first.
    let device = std::fs::read_to_string(&events).unwrap().lines().find_map(|line| {
        let event: Value = serde_json::from_str(line).ok()?;
        event["device_id"].as_str().map(str::to_owned)
    });
    let device = device.unwrap();
    home.ok_with(&["erase", "submit", "--device", "-"], &device);
    home.ok(&["erase", "run"]);
    let before = answers(&home);
    let report = home.json(&["rebuild", "activity"]);
    assert_eq!(report["replaced"], 0, "{report}");

    // July loses a file of activity, August's links are those of July.
    std::fs::remove_file(&files(&home, "activity", "2018-07")[0]).unwrap();
    std::fs::copy(&files(&home, "links", "2018-07")[0], &files(&home, "links", "2018-08")[0]).unwrap();
    assert!(!home.run(&[METRICS[0], &["--k", "1"]].concat()).status.success(), "a file that is not there is no answer");
    let only_july = home.json(&["rebuild", "activity", "--month", "2018-07"]);
    assert_eq!((only_july["months"].as_array().unwrap().len(), &only_july["replaced"]), (1, &1.into()), "{only_july}");
    let told = home.ok(&["rebuild", "activity"]);
    assert!(told.contains("2018-08: ") && told.contains("replaced") && told.contains("links: "), "{told}");
    assert_eq!(answers(&home), before);
    let again = home.json(&["rebuild", "activity"]);
    assert_eq!(again["replaced"], 0, "{again}");
    assert!(of_month(&again, "2018-08")["events"].as_u64().unwrap() > 0);
    assert!(home.ok(&["audit", "list"]).contains("activity_rebuilt"));
    let verified = home.json(&["erase", "verify"]);
    assert_eq!(verified["clean"], true, "{verified}");
    assert_eq!(home.run(&["rebuild", "activity", "--month", "1999-01"]).status.code(), Some(2));
}

#[test]
fn a_benchmark_warehouse_says_what_it_is_and_has_nothing_to_be_made_anew_from() {
    let home = Home::new();
    let made =
        home.run(&["simulate", "--fleet", "--devices", "5000", "--months", "3", "--device-months", "9000", "--last-month-actives", "3200"]);
    let told = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(made.status.success() && told.contains("benchmark warehouse"), "{told}");
    let rows = home.metric_rows(&["installed_base", "--from", "2018-09-30", "--to", "2018-09-30"]);
    assert_eq!(rows[0][1], "5000", "{rows:?}");
    let again = home.run(&["simulate", "--fleet", "--devices", "5000"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("has rows already"));
    let rebuilt = home.run(&["rebuild", "activity"]);
    assert_eq!(rebuilt.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&rebuilt.stderr).contains("no events"));
    let impossible = Home::new().run(&["simulate", "--fleet", "--devices", "5000", "--months", "3", "--device-months", "50000"]);
    assert_eq!(impossible.status.code(), Some(2));
}
