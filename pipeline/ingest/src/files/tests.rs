#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::io::Write;
use std::time::Duration;

use ameles_core::{Limits, Subject, SubjectKind};
use ameles_ledger::NewRequest;
use ameles_schemas::{Contract, Table};
use base64::Engine;
use serde_json::json;
use sha2::Digest;

use super::*;
use crate::NoProgress;
use crate::testing::{Home, all_files, at, line, lines};

fn gz(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn zst(text: &str) -> Vec<u8> {
    zstd::encode_all(text.as_bytes(), 1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_bad_line_is_counted_and_explained() {
    let home = Home::new().await;
    let good = |id: &str, extra| line("d1", id, "2018-07-01T00:00:00Z", "wake", extra);
    let mut text = good("e1", json!({}));
    text += "\n  \n\r\n"; // no events
    text += "{\"device_id\":\"d1\",\n"; // line 5
    text += &good("e2", json!({"ts": null}));
    text += &good("e3", json!({"country": "XXX"}));
    text += &good("e4", json!({"type": "explode"}));
    text += &good("e5", json!({"product": 5}));
    text += &good("e6", json!({"ts": "2018-07-22T12:00:00Z"})); // line 10
    text += &good("e7", json!({"consent": null}));
    text += &good("e8", json!({"consent": {"policy": "2017-01-01", "purposes": ["analytics"]}}));
    text += &good("e9", json!({"consent": {"policy": "2018-05-25", "purposes": ["ads"]}}));
    text += &good("e10", json!({"consent": null, "country": "US"})); // opt-out: accepted
    text += &good("e1", json!({})); // repeat
    text += &good("e11", json!({"model": "x".repeat(1 << 20)})); // line 16: too large for a line, not for a chunk
    text += &format!("{{\"x\":\"{}\"}}\n", "y".repeat(10 << 20)); // line 17: ten megabytes
    text += &good("e12", json!({"device_id": " \u{a0}"}));
    text += &good("e13", json!({"ts": "2010-01-01T00:00:00Z"})); // files are never too late
    text += &good("e14", json!({"device_id": "x".repeat(256) + "é"}));
    text += "{\"cut\":"; // line 21
    let report = home.ingest(&[home.write("bad.ndjson", &text)]).await;
    let tally = report.tally;
    assert_eq!(tally.accepted(), 3, "{tally:?}");
    let expected = [
        (Reason::MalformedJson, 2),
        (Reason::MissingField, 1),
        (Reason::WrongType, 1),
        (Reason::InvalidValue, 3),
        (Reason::TooLarge, 2),
        (Reason::UnknownType, 1),
        (Reason::FromFuture, 1),
        (Reason::NoConsent, 3),
        (Reason::Duplicate, 1),
    ];
    for (reason, count) in expected {
        assert_eq!(tally.rejected(reason), count, "{reason}");
    }
    assert_eq!(tally.received(), 3 + expected.iter().map(|(_, count)| count).sum::<u64>());
    assert_eq!(home.events().await.len(), 3);
    home.assert_quarantine(&tally).await;
    let explained: Vec<(i64, String, Option<String>, bool)> =
        home.quarantine().await.into_iter().filter_map(|row| Some((row.line?, row.reason, row.field, row.has_device))).collect();
    for (number, reason, field, device) in [
        (5, "malformed_json", None, false),
        (6, "missing_field", Some("ts"), true),
        (7, "invalid_value", Some("country"), true),
        (8, "unknown_type", Some("type"), true),
        (9, "wrong_type", Some("product"), true),
        (10, "from_future", Some("ts"), true),
        (16, "too_large", None, false),
        (17, "too_large", None, false),
        (18, "invalid_value", Some("device_id"), false),
        (20, "invalid_value", Some("device_id"), false),
        (21, "malformed_json", None, false),
    ] {
        let row = (number, reason.to_owned(), field.map(str::to_owned), device);
        assert!(explained.contains(&row), "{row:?} in {explained:#?}");
    }
    for row in home.quarantine().await {
        assert!(row.source.starts_with("file:") && row.source.len() == 13, "{row:?}");
        if row.line.is_none() {
            assert!(!row.has_device && row.field.is_none(), "{row:?}");
            assert_eq!(row.partner.as_deref(), Some("p1"));
        }
    }
    let again = home.ingest(&[home.path("bad.ndjson")]).await;
    assert_eq!(again.tally.received(), 0, "the same file again brings nothing: {:?}", again.tally);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_on_where_it_was_however_it_is_packed_or_called() {
    let home = Home::new().await;
    let (first, grown) = (lines(0, 3), lines(0, 500)); // from less than 64 KiB to more
    assert!(grown.starts_with(&first) && grown.len() > 100_000);
    let received = async |name: &str, bytes: &[u8]| {
        let report = home.ingest(&[home.write(name, bytes)]).await;
        assert!(report.errors.is_empty());
        assert_eq!(report.tally.accepted(), report.tally.received(), "{name}: {:?}", report.tally);
        report.tally.received()
    };
    assert_eq!(received("a.ndjson", first.as_bytes()).await, 3);
    assert_eq!(received("a.ndjson", first.as_bytes()).await, 0);
    assert_eq!(received("b.gz", &gz(&first)).await, 0);
    assert_eq!(received("a.ndjson", grown.as_bytes()).await, 497);
    assert_eq!(received("renamed.zst", &zst(&grown)).await, 0);
    assert_eq!(received("old.ndjson", first.as_bytes()).await, 0, "an older state of it is known too");
    let more = grown.clone() + &lines(500, 10);
    assert_eq!(received("c.ndjson.zst", &[zst(&grown), zst(&lines(500, 10))].concat()).await, 10);
    assert_eq!(received("c.ndjson.gz", &gz(&more)).await, 0);
    // The same beginning, then different: another file.
    let other = grown.clone() + &lines(600, 7);
    let report = home.ingest(&[home.write("other.ndjson", &other)]).await;
    assert_eq!((report.tally.received(), report.tally.accepted()), (507, 7), "repeats are found when the month settles");
    assert_eq!(report.tally.rejected(Reason::Duplicate), 500);
    assert_eq!(received("other.ndjson.gz", &gz(&other)).await, 0);
    assert_eq!(home.events().await.len(), 517);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_line_without_an_end_is_read_again_once_it_is_whole() {
    let home = Home::new().await;
    let whole = lines(0, 3);
    let cut = &whole[..whole.len() - 20];
    let tally = home.ingest(&[home.write("a.ndjson", cut)]).await.tally;
    assert_eq!((tally.accepted(), tally.rejected(Reason::MalformedJson)), (2, 1));
    assert_eq!(home.ingest(&[home.path("a.ndjson")]).await.tally.received(), 0);
    let tally = home.ingest(&[home.write("a.ndjson", &whole)]).await.tally;
    assert_eq!((tally.received(), tally.accepted()), (1, 1));
    // Whole JSON without a line end is an event at once.
    let tally = home.ingest(&[home.write("b.ndjson", lines(10, 2).trim_end())]).await.tally;
    assert_eq!(tally.accepted(), 2);
    let tally = home.ingest(&[home.write("b.ndjson", lines(10, 3))]).await.tally;
    assert_eq!((tally.received(), tally.accepted()), (1, 1));
    assert_eq!(home.events().await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_files_marks_and_the_same_file_twice_in_one_run() {
    let home = Home::new().await;
    let empty = home.write("empty.ndjson", "");
    let report = home.ingest(&[empty, home.write("empty.gz", gz("")), home.write("blank.ndjson", "\n\n \n")]).await;
    assert_eq!((report.tally.received(), report.files.len(), report.errors.len()), (0, 3, 0));
    let marked = home.write("marked.ndjson", format!("\u{feff}{}", lines(0, 2)));
    let copy = home.write("copy.gz", gz(&format!("\u{feff}{}", lines(0, 2))));
    let grown = home.write("grown.ndjson", format!("\u{feff}{}", lines(0, 5)));
    let report = home.ingest(&[marked.clone(), marked, copy, grown]).await;
    let received: Vec<u64> = report.files.iter().map(|file| file.tally.received()).collect();
    assert_eq!(received, [2, 0, 0, 3]);
    assert_eq!(report.tally.accepted(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_a_cut_is_ingested_and_the_other_files_go_on() {
    let home = Home::new().await;
    let text = lines(0, 20_000);
    for (name, bytes) in [("a.zst", zst(&text)), ("b.gz", gz(&text))] {
        let cut = home.write(name, &bytes[..bytes.len() / 2]);
        let report = home.ingest(&[cut, home.write("good.ndjson", lines(50_000, 2))]).await;
        let [error] = &report.errors[..] else { panic!("{:?}", report.errors) };
        assert!(error.to_string().contains("breaks off") && error.line > 0 && error.path.ends_with(name), "{error}");
        assert_eq!(report.tally.rejected_total() - report.tally.rejected(Reason::Duplicate), 0, "{:?}", report.tally);
    }
    let before = home.events().await.len();
    assert!(before > 1000 && before < 20_000, "{before}");
    let report = home.ingest(&[home.write("a.zst", zst(&text))]).await;
    assert!(report.errors.is_empty());
    assert_eq!(home.events().await.len(), 20_002);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_ingested_when_one_path_is_wrong() {
    let home = Home::new().await;
    let good = home.write("good.ndjson", lines(0, 2));
    let options = FileOptions::default();
    let refused = ingest_files(&home.env, &[good, home.path("missing.ndjson")], &options, &NoProgress).await;
    assert!(matches!(refused, Err(IngestError::Unreadable { .. })));
    assert!(home.events().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_across_files_and_batches_are_counted_once() {
    let limits = Limits { batch_rows_max: 1000, ..Limits::default() };
    let home = Home::with(Contract::default_contract(), limits).await;
    let (a, b) = (home.write("a.ndjson", lines(0, 9_000)), home.write("b.ndjson", lines(8_000, 9_000)));
    let report = home.ingest(&[a, b]).await;
    assert_eq!((report.tally.received(), report.tally.accepted()), (18_000, 17_000));
    assert_eq!(report.tally.rejected(Reason::Duplicate), 1_000);
    assert_eq!(home.events().await.len(), 17_000);
    home.assert_quarantine(&report.tally).await;
    // Those that were found among what is stored have their partner too.
    assert!(home.quarantine().await.iter().all(|row| row.partner.as_deref() == Some("p1")));
    let snapshot = home.warehouse.snapshot().await.unwrap();
    for month in snapshot.months(Table::Events) {
        assert!(snapshot.is_settled(month));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_ingest_goes_on_without_loss_or_repeat() {
    let limits = Limits { batch_rows_max: 2000, ..Limits::default() };
    let home = Home::with(Contract::default_contract(), limits).await;
    let path = home.write("a.ndjson.zst", zst(&lines(0, 60_000)));
    let (paths, options) = (vec![path], FileOptions::default());
    for wait in [5, 40, 80, 160, 320] {
        let ingest = ingest_files(&home.env, &paths, &options, &NoProgress);
        let _ = tokio::time::timeout(Duration::from_millis(wait), ingest).await;
    }
    // A batch in flight may still land after its ingest was dropped; then the next one says so and is run again.
    let mut finished = None;
    for _ in 0..20 {
        match ingest_files(&home.env, &paths, &options, &NoProgress).await {
            Ok(report) => {
                finished = Some(report);
                break;
            }
            Err(error) => assert!(matches!(error, IngestError::Store(_)), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let report = finished.unwrap();
    assert!(report.errors.is_empty());
    assert_eq!(home.events().await.len(), 60_000);
    assert_eq!(home.ingest(&paths).await.tally.received(), 0);
    let snapshot = home.warehouse.snapshot().await.unwrap();
    assert!(snapshot.months(Table::Events).into_iter().all(|month| snapshot.is_settled(month)));
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_and_withdrawals_count_from_where_they_stand() {
    let home = Home::new().await;
    let day = |day: u32| format!("2018-07-{day:02}T00:00:00Z");
    let event =
        |device: &str, id: &str, on: u32, kind: &str, user: Option<&str>| line(device, id, &day(on), kind, json!({"user_id": user}));
    let text = [
        event("d1", "1", 1, "wake", None),
        event("d1", "2", 2, "consent_withdrawn", None),
        event("d1", "3", 3, "wake", None),      // after it
        event("d1", "4", 1, "heartbeat", None), // happened before, arrives after
        event("d2", "5", 3, "wake", None),      // somebody else
        event("d1", "6", 4, "consent_granted", None),
        event("d1", "7", 5, "wake", None),      // again allowed
        event("d1", "8", 3, "heartbeat", None), // happened while withdrawn
        event("d3", "9", 2, "consent_withdrawn", Some("u1")),
        event("d4", "10", 3, "wake", Some("u1")), // the user's, on any device
        event("d3", "11", 3, "wake", None),       // the device itself has not withdrawn
        event("d3", "12", 3, "wake", Some("u2")),
    ]
    .concat();
    let report = home.ingest(&[home.write("a.ndjson", &text)]).await;
    // Three consent events are accepted without being rows.
    assert_eq!((report.tally.accepted(), report.tally.rejected(Reason::NoConsent)), (8, 4), "{:?}", report.tally);
    let mut found: Vec<_> = home.events().await.into_iter().map(|(device, ts, _, _)| (device, ts)).collect();
    let row = |device: &str, on: u32| (home.device(device), at(&day(on)).micros());
    let mut expected = vec![row("d1", 1), row("d2", 3), row("d1", 5), row("d3", 3), row("d3", 3)];
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    // The ledger remembers for later files.
    let later = [event("d4", "20", 6, "wake", Some("u1")), event("d1", "21", 6, "wake", None)].concat();
    let report = home.ingest(&[home.write("b.ndjson", later)]).await;
    assert_eq!((report.tally.accepted(), report.tally.rejected(Reason::NoConsent)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suppressed_subject_stays_out_until_it_grants_anew() {
    let home = Home::new().await;
    let (device, user) = (SubjectKind::Device, SubjectKind::User);
    for (kind, subject) in
        [(device, Subject::Device(home.device("d1"))), (user, Subject::User(home.user("u1"))), (device, Subject::Device(home.device("d5")))]
    {
        let request = NewRequest {
            subjects: vec![(1, subject)],
            kind,
            regulation: "gdpr".to_owned(),
            received: at("2018-07-10T00:00:00Z"),
            due: at("2018-08-10T00:00:00Z"),
            reference: None,
            actor: "test".to_owned(),
        };
        home.ledger.submit(request).await.unwrap();
    }
    let text = [
        line("d1", "1", "2018-07-01T00:00:00Z", "wake", json!({})),
        line("d1", "2", "2018-07-12T00:00:00Z", "wake", json!({})),
        line("d2", "3", "2018-07-01T00:00:00Z", "wake", json!({"user_id": "u1"})),
        line("d2", "4", "2018-07-01T00:00:00Z", "wake", json!({"user_id": "u2"})),
        line("d1", "5", "2018-07-11T00:00:00Z", "consent_withdrawn", json!({})),
        line("d1", "6", "2018-07-13T00:00:00Z", "consent_granted", json!({})),
        line("d1", "7", "2018-07-14T00:00:00Z", "wake", json!({})),
        line("d1", "8", "2018-07-12T12:00:00Z", "wake", json!({})), // before the grant
        line("d5", "9", "never", "wake", json!({})),
    ]
    .concat();
    let report = home.ingest(&[home.write("a.ndjson", text)]).await;
    assert_eq!((report.tally.accepted(), report.tally.rejected(Reason::Suppressed)), (3, 5), "{:?}", report.tally);
    home.assert_quarantine(&report.tally).await;
    assert!(home.quarantine().await.iter().all(|row| !row.has_device), "a suppressed device is named nowhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_erases_where_the_regime_says_so() {
    let home = Home::new().await;
    let event = |id: &str, on: u32, kind: &str| line("d1", id, &format!("2018-07-{on:02}T00:00:00Z"), kind, json!({"country": "XA"}));
    let text =
        [event("1", 1, "wake"), event("2", 2, "consent_withdrawn"), event("3", 2, "consent_withdrawn"), event("4", 3, "wake")].concat();
    let report = home.ingest(&[home.write("a.ndjson", text)]).await;
    // The event before it is dropped as well: the subject is suppressed by the time of the commit.
    let tally = report.tally;
    assert_eq!((tally.accepted(), tally.rejected(Reason::Suppressed), tally.rejected(Reason::NoConsent)), (2, 1, 1), "{tally:?}");
    assert!(home.events().await.is_empty());
    let requests = home.ledger.requests(&ameles_ledger::RequestFilter::default()).await.unwrap();
    assert_eq!(requests.len(), 1);
    assert_eq!((requests[0].regulation.as_str(), requests[0].due), ("strict", at("2018-08-20T12:00:00Z")));
    home.assert_quarantine(&tally).await;
}

fn erasure_of(subject: Subject) -> NewRequest {
    NewRequest {
        subjects: vec![(1, subject)],
        kind: subject.kind(),
        regulation: "gdpr".to_owned(),
        received: at("2018-07-10T00:00:00Z"),
        due: at("2018-08-10T00:00:00Z"),
        reference: None,
        actor: "test".to_owned(),
    }
}

/// It was dropped with the device's events, and the user's on other devices went on being taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_users_withdrawal_from_a_suppressed_device_holds_everywhere() {
    let home = Home::new().await;
    home.ledger.submit(erasure_of(Subject::Device(home.device("d1")))).await.unwrap();
    let by_user = |device: &str, id: &str, kind: &str, country: &str| {
        line(device, id, &format!("2018-07-{id}T00:00:00Z"), kind, json!({"user_id": "u1", "country": country}))
    };
    let text = [
        by_user("d1", "11", "consent_withdrawn", "DE"),
        by_user("d1", "12", "wake", "DE"),
        by_user("d2", "13", "wake", "DE"),
        line("d2", "14", "2018-07-14T00:00:00Z", "wake", json!({"user_id": "u2"})),
    ]
    .concat();
    let tally = home.ingest(&[home.write("a.ndjson", text)]).await.tally;
    let of = |reason| tally.rejected(reason);
    assert_eq!((tally.accepted(), of(Reason::Suppressed), of(Reason::NoConsent)), (2, 1, 1), "{tally:?}");
    // Where the regime says so it asks for the user's erasure, though the device's is under way.
    home.ingest(&[home.write("b.ndjson", by_user("d1", "15", "consent_withdrawn", "XA"))]).await;
    let requests = home.ledger.requests(&ameles_ledger::RequestFilter::default()).await.unwrap();
    assert_eq!(requests.iter().filter(|request| request.regulation == "strict").count(), 1, "{requests:?}");
}

/// A request may be cancelled: what its subject withdrew meanwhile would be forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_outlives_a_request_that_is_cancelled() {
    let home = Home::new().await;
    let id = home.ledger.submit(erasure_of(Subject::Device(home.device("d1")))).await.unwrap();
    let event = |id: &str, kind: &str| line("d1", id, &format!("2018-07-{id}T00:00:00Z"), kind, json!({}));
    let tally = home.ingest(&[home.write("a.ndjson", event("11", "consent_withdrawn"))]).await.tally;
    assert_eq!((tally.accepted(), tally.rejected(Reason::Suppressed)), (0, 1));
    home.ledger.cancel(id, "test").await.unwrap();
    let tally = home.ingest(&[home.write("b.ndjson", event("12", "wake"))]).await.tally;
    assert_eq!((tally.accepted(), tally.rejected(Reason::NoConsent)), (0, 1));
}

/// Whoever had withdrawn before, where that only stops, was taken to have been erased already.
#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_erases_whoever_had_withdrawn_under_another_regime() {
    let home = Home::new().await;
    let withdraw =
        |id: &str, country: &str| line("d1", id, &format!("2018-07-{id}T00:00:00Z"), "consent_withdrawn", json!({"country": country}));
    let requests = async || home.ledger.requests(&ameles_ledger::RequestFilter::default()).await.unwrap().len();
    home.ingest(&[home.write("a.ndjson", withdraw("01", "DE"))]).await;
    assert_eq!(requests().await, 0);
    let later = [withdraw("02", "XA"), withdraw("03", "XA")].concat();
    home.ingest(&[home.write("b.ndjson", later)]).await;
    assert_eq!(requests().await, 1);
    home.ingest(&[home.write("c.ndjson", withdraw("04", "XA"))]).await;
    assert_eq!(requests().await, 1, "once is enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clickstream_comes_in_by_its_contract_alone() {
    let contract = Contract::parse(include_str!("../../../../schemas/fixtures/contracts/clickstream.v1.json")).unwrap();
    let home = Home::with(contract, Limits::default()).await;
    let click = |user: &str, event: &str| {
        json!({"user": user, "session": "s1", "event": event, "timestamp": "2018-07-01T10:00:00+02:00", "platform": "web"}).to_string()
            + "\n"
    };
    let text = click("Ann", "view") + &click("ann ", "view") + &click("Bob", "fly") + &click("Cy", "buy");
    let path = home.write("clicks.ndjson", &text);
    let report = home.ingest(std::slice::from_ref(&path)).await;
    assert_eq!((report.tally.accepted(), report.tally.rejected(Reason::UnknownType)), (3, 1));
    assert_eq!(home.ingest(&[path, home.write("copy.gz", gz(&text))]).await.tally.received(), 0, "the position tells a repeat");
    let batches = home.batches(Table::Events).await;
    let rows: usize = batches.iter().map(arrow::array::RecordBatch::num_rows).sum();
    assert_eq!(rows, 3);
    let device = batches[0].column_by_name("device").unwrap();
    let devices: std::collections::HashSet<_> =
        (0..3).map(|at| arrow::array::AsArray::as_binary::<i32>(device).value(at).to_vec()).collect();
    assert_eq!(devices.len(), 2, "case is folded as the contract says");
}

#[tokio::test(flavor = "multi_thread")]
async fn undeclared_fields_are_named_only_when_many_devices_send_them() {
    let home = Home::new().await;
    let text: String = (0..5)
        .map(|number| {
            let extra = json!({"battery": 5, "props": {"volume": 3}, format!("id_{number}"): 1, "800000002492": 1, "with space": 2});
            line(&format!("d{number}"), &format!("e{number}"), "2018-07-01T00:00:00Z", "wake", extra)
        })
        .collect();
    let report = home.ingest(&[home.write("a.ndjson", text)]).await;
    assert_eq!(report.undeclared.dropped, 25);
    let names: Vec<_> = report.undeclared.named.iter().map(|field| (field.name.as_str(), field.dropped)).collect();
    assert_eq!(names, [("battery", 5), ("props.volume", 5)]);
}

/// Invariant 1: an identifier is on no disk, in no form.
#[tokio::test(flavor = "multi_thread")]
async fn no_identifier_reaches_a_file() {
    let home = Home::new().await;
    let canaries = ["Canary-Device-7f3a", "canary-user-91bc", "canary-event-55de", "canary-file-name", "38:a7:51:11:30:0e", "203.0.193.24"];
    let good = |ts: &str, extra| line(canaries[0], canaries[2], ts, "wake", extra);
    let private = json!({"user_id": canaries[1], "mac": canaries[4], "ip": canaries[5]});
    let mut text = good("2018-07-01T00:00:00Z", private.clone());
    text += &good("never", private.clone());
    text += &good("2018-07-01T00:00:00Z", json!({"type": canaries[0]}));
    text += &good("2018-07-01T00:00:00Z", json!({"country": canaries[1], canaries[0]: 1, "user_id": canaries[1]}));
    text += &good("2018-07-02T00:00:00Z", json!({"consent": null, "user_id": canaries[1]}));
    text += &good("2018-07-03T00:00:00Z", json!({"type": "consent_withdrawn", "user_id": canaries[1]}));
    text += &format!("{{\"device_id\":\"{}\"", canaries[0]);
    let input = home.root.parent().unwrap().join(format!("canary-file-name-{}.ndjson", std::process::id()));
    std::fs::write(&input, text).unwrap();
    let report = home.ingest(std::slice::from_ref(&input)).await;
    std::fs::remove_file(input).unwrap();
    assert_eq!(report.tally.accepted(), 2);
    let mut needles: Vec<Vec<u8>> = Vec::new();
    for canary in canaries {
        for form in [canary.to_owned(), canary.to_lowercase(), canary.to_uppercase()] {
            needles.push(form.clone().into_bytes());
            needles.push(hex::encode(&form).into_bytes());
            needles.push(base64::engine::general_purpose::STANDARD_NO_PAD.encode(&form).into_bytes());
            let plain = sha2::Sha256::digest(&form);
            needles.push(plain[..16].to_vec());
            needles.push(hex::encode(plain).into_bytes());
        }
    }
    let files = all_files(&home.root);
    assert!(files.iter().any(|file| file.extension().is_some_and(|extension| extension == "parquet")));
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let name = file.to_string_lossy().into_owned();
        for needle in &needles {
            let found = bytes.windows(needle.len()).any(|window| window == needle.as_slice());
            assert!(!found, "{name} holds a canary");
            assert!(
                !String::from_utf8_lossy(needle).is_empty()
                    && !name.as_bytes().windows(needle.len()).any(|window| window == needle.as_slice())
            );
        }
    }
}

/// Content is hashed step by step while it is read, chunk by chunk: that gives what reading it otherwise gives.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_several_chunks_goes_on_where_it_was_however_it_is_stored() {
    const COUNT: usize = 40_000;
    let home = Home::new().await;
    let (text, more) = (lines(0, COUNT), lines(COUNT, 1_000));
    assert!(text.len() > 8 << 20, "{}", text.len());
    let report = home.ingest(&[home.write("a.ndjson", &text)]).await;
    assert_eq!((report.tally.received(), report.tally.accepted()), (COUNT as u64, COUNT as u64));
    let again = home.ingest(&[home.write("b.ndjson.gz", gz(&text))]).await;
    assert_eq!((again.tally.received(), again.files[0].skipped_bytes), (0, text.len() as u64));
    let grown = home.ingest(&[home.write("c.ndjson.zst", zst(&(text.clone() + &more)))]).await;
    assert_eq!((grown.tally.accepted(), grown.files[0].skipped_bytes), (1_000, text.len() as u64));
    // One other byte near the end makes it another file, whose events are repeats.
    let end = text.len() - 100;
    let other = text[..end].to_owned() + &text[end..].replacen('m', "n", 1);
    let other = home.ingest(&[home.write("d.ndjson", &other)]).await;
    assert_eq!((other.tally.received(), other.files[0].skipped_bytes), (COUNT as u64, 0));
}
