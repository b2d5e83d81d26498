//! Metrics against DuckDB over the raw lines; a clickstream by a contract alone.

use crate::support::{AMELES, Home, python, script};

#[test]
fn every_metric_equals_duckdb_over_the_raw_lines() {
    let Some(python) = python() else { return };
    let home = Home::new();
    let fleet = home.folder.path().join("fleet");
    script(&python, "fleet.py", &[fleet.to_str().unwrap(), "--devices", "1500"]);
    let summary = home.ingest(&fleet);
    assert_eq!(
        summary["received"].as_u64().unwrap(),
        summary["accepted"].as_u64().unwrap() + summary["rejected"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>()
    );
    let lines = format!("{}/*.ndjson", fleet.display());
    script(&python, "compare_metrics.py", &[AMELES, home.path().to_str().unwrap(), &lines]);
}

pub const SHOP: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Clicks of a shop", "x-contract": {"name": "clicks", "version": 1},
  "x-legal-basis": "legitimate interest, article 6(1)(f), in how the shop is used",
  "type": "object",
  "required": ["user", "session", "event", "timestamp"],
  "properties": {
    "user": {"type": "string", "x-privacy": {"class": "identifier", "transform": "pseudonymize", "domain": "device"}},
    "session": {"type": "string", "x-privacy": {"class": "identifier", "transform": "drop"}},
    "event": {"type": "string", "maxLength": 40, "x-privacy": {"class": "operational", "transform": "keep"}},
    "timestamp": {"type": "string", "format": "date-time", "x-privacy": {"class": "operational", "transform": "keep"}},
    "platform": {"type": "string", "enum": ["web", "ios", "android"], "x-privacy": {"class": "operational", "transform": "keep"}}
  },
  "x-roles": {"device": "user", "time": "timestamp", "type": "event", "dimensions": ["platform"], "measures": {"purchases": "purchase"}}
}"#;

#[test]
fn a_clickstream_comes_in_with_a_contract_alone() {
    let outer = tempfile::tempdir().unwrap();
    let contract = outer.path().join("shop.json");
    std::fs::write(&contract, SHOP).unwrap();
    let home = Home::with(&["--contract", contract.to_str().unwrap()]);
    let mut lines = String::new();
    for user in 0..300 {
        for (day, event) in [(3, "view"), (9, "purchase"), (9, "view")] {
            if user % 3 == 0 || day == 3 {
                let platform = ["web", "ios", "android"][user % 3];
                lines += &format!(
                    "{{\"user\":\"shopper-{user:05}\",\"session\":\"s{user}\",\"event\":\"{event}\",\"timestamp\":\"2024-0{}-0{day}T1{}:00:00+02:00\",\"platform\":\"{platform}\"}}\n",
                    1 + user % 2,
                    user % 9,
                );
            }
        }
    }
    let summary = home.ingest(&home.file("clicks.ndjson", &lines));
    assert_eq!(summary["rejected"], serde_json::json!({}));
    let mau: Vec<_> = home.metric_rows(&["mau"]).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    assert_eq!(mau, [("2024-01-01".to_owned(), "150".to_owned()), ("2024-02-01".to_owned(), "150".to_owned())]);
    let purchases: u64 = home.metric_rows(&["purchases", "--by", "platform"]).iter().map(|row| row[2].parse::<u64>().unwrap()).sum();
    assert_eq!(purchases, 100);
    // Without an activation type, a device is activated by its first event.
    let activations: u64 = home.metric_rows(&["activations"]).iter().map(|row| row[1].parse::<u64>().unwrap()).sum();
    assert_eq!(activations, 300);
}

#[test]
fn an_analyst_sees_no_group_below_k() {
    let home = Home::new();
    let mut lines = String::new();
    for device in 0..40_u64 {
        let country = if device < 3 { "AT" } else { "DE" };
        lines += &crate::support::event(device, &format!("8000000{device:05}"), None, "wake", "2018-07-02T10:00:00Z")
            .replace("\"DE\"", &format!("\"{country}\""));
    }
    home.ingest(&home.file("few.ndjson", &lines));
    let shown = home.ok(&["metric", "mau", "--by", "country", "--format", "csv"]);
    assert!(!shown.contains("AT"), "{shown}");
    let all = home.ok(&["metric", "mau", "--by", "country", "--format", "csv", "--k", "1"]);
    assert!(all.contains("AT,3"), "{all}");
    let refused = home.run(&["sql", "SELECT device FROM events"]);
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));
    let counted = home.ok(&["sql", "SELECT country, count(*) AS n FROM events GROUP BY country", "--format", "csv"]);
    assert!(counted.contains("DE,37") && !counted.contains("AT"), "{counted}");
}
