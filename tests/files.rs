//! Files ingested twice, grown, recompressed; every kind of bad line.

use std::io::Write;

use crate::support::{Home, event};

fn lines(from: u64, to: u64) -> String {
    (from..to)
        .map(|i| event(i, &format!("8000000{:05}", i % 50), None, "wake", &format!("2018-07-{:02}T10:{:02}:00Z", 1 + i % 28, i % 60)))
        .collect()
}

fn accepted(summary: &serde_json::Value) -> (u64, u64) {
    (summary["received"].as_u64().unwrap(), summary["accepted"].as_u64().unwrap())
}

fn stored(home: &Home) -> String {
    home.ok(&["sql", "SELECT count(*) AS n FROM events", "--k", "1", "--format", "csv"]).lines().nth(1).unwrap().to_owned()
}

#[test]
fn a_file_ingested_again_adds_what_is_new() {
    let home = Home::new();
    let path = home.file("a.ndjson", lines(0, 1000));
    assert_eq!(accepted(&home.ingest(&path)), (1000, 1000));
    assert_eq!(accepted(&home.ingest(&path)), (0, 0));
    // Grown by some lines.
    home.file("a.ndjson", lines(0, 1300));
    assert_eq!(accepted(&home.ingest(&path)), (300, 300));
    // Recompressed, under another name.
    let mut zst = zstd_of(&lines(0, 1300));
    assert_eq!(accepted(&home.ingest(&home.file("b.ndjson.zst", &zst))), (0, 0));
    // Recompressed and grown.
    zst = zstd_of(&lines(0, 1400));
    assert_eq!(accepted(&home.ingest(&home.file("c.zst", &zst))), (100, 100));
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(lines(0, 1450).as_bytes()).unwrap();
    assert_eq!(accepted(&home.ingest(&home.file("d.gz", gz.finish().unwrap()))), (50, 50));
    // The same events in another order: duplicates, counted as such.
    let mut shuffled: Vec<_> = lines(0, 1450).lines().map(str::to_owned).collect();
    shuffled.reverse();
    let summary = home.ingest(&home.file("e.ndjson", shuffled.join("\n")));
    assert_eq!(summary["rejected"]["duplicate"], 1450, "{summary}");
    assert_eq!(stored(&home), "1450");
}

fn zstd_of(text: &str) -> Vec<u8> {
    zstd::encode_all(text.as_bytes(), 1).unwrap()
}

#[test]
fn a_long_file_grown_past_its_first_64_kib_goes_on_where_it_was() {
    let home = Home::new();
    let path = home.file("long.ndjson", lines(0, 5000));
    assert_eq!(accepted(&home.ingest(&path)), (5000, 5000));
    home.file("long.ndjson", lines(0, 5001));
    assert_eq!(accepted(&home.ingest(&path)), (1, 1));
    // A file that only begins alike is another file; what it repeats is a duplicate.
    let other = lines(0, 2500) + &lines(9000, 9100);
    let summary = home.ingest(&home.file("other.ndjson", other));
    assert_eq!(summary["received"].as_u64().unwrap(), 2600);
    assert_eq!(summary["accepted"].as_u64().unwrap(), 100);
}

#[test]
fn every_bad_line_is_counted_under_its_reason() {
    let home = Home::new();
    let good = event(1, "800000000001", Some("u1"), "wake", "2018-07-01T10:00:00Z");
    let line = |from: &str, to: &str| {
        good.replace("e-000000000001", &format!("e-{:012}", from.len() * 1000 + to.len())).replace(from, to).into_bytes()
    };
    let mut file: Vec<u8> = Vec::new();
    let mut add = |bytes: &[u8]| file.extend_from_slice(bytes);
    add(good.as_bytes());
    add(good.as_bytes()); // duplicate
    add(b"\n   \n"); // no events
    add(&good.as_bytes()[..100]); // truncated: malformed_json
    add(b"\n");
    add(b"[1,2]\n"); // no object: malformed_json
    add(&[b"{\"event_id\":\"", &[0xff, 0xfe][..], b"\"}\n"].concat()); // invalid UTF-8: malformed_json
    add(&line("\"latency_ms\":1", "\"latency_ms\":\"fast\"")); // wrong_type
    add(&line("\"wake\"", "\"explode\"")); // unknown_type
    add(&line("T10:00:00Z", "T10:00:00")); // no zone: invalid_value
    add(&line("2018-07-01T10:00:00Z", "9999-07-01T10:00:00Z")); // from_future
    add(&line("\"device_id\":\"800000000001\",", "")); // missing_field
    add(&line("\"DE\"", "\"Germany\"")); // invalid_value
    add(&line("2018-05-25", "2016-01-01")); // no_consent
    add(&[b"{\"event_id\":\"", "x".repeat(10 << 20).as_bytes(), b"\"}\n"].concat()); // too_large
    add(&line("2018-07-01T10:00:00Z", "1970-07-01T10:00:00Z")); // old, and a backfill is never too late
    add(good.replace("e-000000000001", "e-000000000002").trim_end().as_bytes()); // no newline at the end
    let summary = home.ingest(&home.file("bad.ndjson", &file));
    assert_eq!(
        summary,
        serde_json::json!({"received": 15, "accepted": 3, "rejected": {
            "malformed_json": 3, "missing_field": 1, "wrong_type": 1, "invalid_value": 2, "too_large": 1, "unknown_type": 1,
            "from_future": 1, "no_consent": 1, "duplicate": 1}})
    );
    assert_eq!(stored(&home), "3");
    let explained = home.ok(&["sql", "SELECT sum(count) AS n FROM quarantine", "--k", "1", "--format", "csv"]);
    assert_eq!(explained.lines().nth(1), Some("12"), "{explained}");
}

#[test]
fn strict_says_with_exit_code_3_that_events_were_rejected() {
    let home = Home::new();
    let path = home.file("x.ndjson", "not json\n");
    assert_eq!(home.run(&["ingest", path.to_str().unwrap(), "--strict"]).status.code(), Some(3));
    assert_eq!(home.run(&["ingest", home.file("empty.ndjson", "").to_str().unwrap(), "--strict"]).status.code(), Some(0));
}

#[test]
fn standard_input_is_a_source() {
    let home = Home::new();
    let out = home.ok_with(&["ingest", "-", "--json"], &lines(0, 20));
    assert_eq!(accepted(&serde_json::from_str(&out).unwrap()), (20, 20));
}

#[test]
fn streams_that_begin_alike_are_told_apart() {
    let home = Home::new();
    let stream = |input: &str| -> (u64, u64) {
        let out = home.ok_with(&["ingest", "-", "--json"], input);
        accepted(&serde_json::from_str(&out).unwrap())
    };
    // A few bytes that every line begins with.
    assert_eq!(stream("{\"event_id\":\n"), (1, 0));
    assert_eq!(stream(&lines(0, 3)), (3, 3));
    assert_eq!(stream(&lines(3, 5)), (2, 2));
    // The first stream once more, and once more with other lines behind it.
    assert_eq!(stream(&lines(0, 3)), (0, 0));
    assert_eq!(stream(&(lines(0, 3) + &lines(10, 14))), (4, 4));
    assert_eq!(stream(&(lines(0, 2) + &lines(20, 24))), (6, 4));
    // A long one that goes on where another ended, behind the beginning that is looked at.
    let long = lines(1_000, 3_000);
    assert!(long.len() > 256 << 10);
    assert_eq!(stream(&long), (2_000, 2_000));
    assert_eq!(stream(&(long + &lines(3_000, 3_100))), (100, 100));
}
