#![allow(clippy::unwrap_used, clippy::expect_used)]
use ameles_core::{Limits, Reason};
use ameles_schemas::Contract;
use serde_json::json;

use super::*;
use crate::testing::{Home, at, line, lines};

async fn start(home: &Home) -> Collector {
    Collector::start(Arc::clone(&home.env), CollectorOptions::default()).await.unwrap()
}

fn wake(id: &str, ts: &str, extra: serde_json::Value) -> String {
    line("d1", id, ts, "wake", extra)
}

const TODAY: &str = "2018-07-20T10:00:00Z";

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_counts_and_names_what_was_wrong_and_its_events_are_stored() {
    let home = Home::new().await;
    let collector = start(&home).await;
    let body = wake("e1", TODAY, json!({})) + "\n" + &wake("e2", "never", json!({})) + &wake("e3", TODAY, json!({"consent": null})) + "{";
    let reply = collector.submit_for(body.into(), BodyFormat::Auto, None).await.unwrap();
    let expected = json!({
        "received": 4, "accepted": 1, "rejected": {"malformed_json": 1, "invalid_value": 1, "no_consent": 1},
        "errors": [{"line": 3, "reason": "invalid_value", "field": "ts"}, {"line": 5, "reason": "malformed_json"}]
    });
    assert_eq!(serde_json::to_value(&reply).unwrap(), expected);
    assert_eq!(home.events().await.len(), 1);
    let array = format!("[{},{}]", wake("e4", TODAY, json!({})), wake("e5", TODAY, json!({"type": "none"})));
    let reply = collector.submit_for(array.into(), BodyFormat::Auto, None).await.unwrap();
    assert_eq!((reply.tally.accepted(), reply.errors[0].line, reply.errors[0].reason), (1, 2, "unknown_type"));
    assert_eq!(home.events().await.len(), 2);
    home.assert_quarantine(&collector.tally()).await;
    assert!(home.quarantine().await.iter().all(|row| row.source == "http"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_that_has_closed_takes_no_more() {
    let home = Home::new().await;
    let collector = start(&home).await;
    let two = |first: &str, second: &str| wake(first, "2018-06-30T23:59:59Z", json!({})) + &wake(second, "2018-07-01T00:00:00Z", json!({}));
    let reply = collector.submit_for(two("e1", "e2").into(), BodyFormat::Ndjson, None).await.unwrap();
    assert_eq!((reply.tally.accepted(), reply.tally.rejected(Reason::TooLate)), (1, 1));
    home.clock.set(at("2018-07-08T00:00:00Z")); // June is open until then
    let reply = collector.submit_for(two("e3", "e4").into(), BodyFormat::Ndjson, None).await.unwrap();
    assert_eq!((reply.tally.rejected(Reason::TooLate), reply.tally.accepted()), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_are_told_at_once_and_after_a_restart() {
    let home = Home::new().await;
    let collector = start(&home).await;
    let body: Bytes = (wake("e1", TODAY, json!({})) + &wake("e1", TODAY, json!({})) + &wake("e2", TODAY, json!({}))).into();
    let reply = collector.submit_for(body.clone(), BodyFormat::Ndjson, None).await.unwrap();
    assert_eq!((reply.tally.accepted(), reply.tally.rejected(Reason::Duplicate)), (2, 1));
    let reply = collector.submit_for(body.clone(), BodyFormat::Ndjson, None).await.unwrap();
    assert_eq!((reply.tally.accepted(), reply.tally.rejected(Reason::Duplicate)), (0, 3));
    collector.stop().await;
    assert!(matches!(collector.submit_for(body.clone(), BodyFormat::Ndjson, None).await, Err(SubmitError::Stopping)));
    let collector = start(&home).await;
    let reply = collector.submit_for(body, BodyFormat::Ndjson, None).await.unwrap();
    assert_eq!((reply.tally.accepted(), reply.tally.rejected(Reason::Duplicate)), (0, 3));
    assert_eq!(home.events().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_that_was_given_a_later_time_is_told_at_once() {
    let home = Home::new().await;
    let collector = start(&home).await;
    assert_eq!(accepted(&collector, wake("e1", "2018-07-19T23:59:59Z", json!({}))).await, 1);
    assert_eq!(accepted(&collector, wake("e1", "2018-07-20T00:00:03Z", json!({}))).await, 0);
    collector.stop().await;
    let collector = start(&home).await;
    assert_eq!(accepted(&collector, wake("e1", TODAY, json!({}))).await, 0);
    assert_eq!(home.events().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_no_event_of_the_last_days_of_event_time() {
    let home = Home::new().await;
    let collector = start(&home).await;
    let four_days_old = "2018-07-16T10:00:00Z";
    let body = wake("e1", four_days_old, json!({})) + &wake("e2", "2018-07-14T00:00:00Z", json!({}));
    assert_eq!(accepted(&collector, body.clone()).await, 2);
    assert_eq!(accepted(&collector, body.clone()).await, 0);
    collector.stop().await;
    let collector = start(&home).await;
    assert_eq!(accepted(&collector, body.clone()).await, 0, "nothing newer has come since");
    // Newer events move the window on, before a restart and after.
    assert_eq!(accepted(&collector, todays(0, 1)).await, 1);
    assert_eq!(accepted(&collector, wake("e1", four_days_old, json!({}))).await, 1);
    collector.stop().await;
    let collector = start(&home).await;
    assert_eq!(accepted(&collector, wake("e1", four_days_old, json!({}))).await, 1, "its month will tell");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_limited_to_a_partner_speaks_for_no_other() {
    let home = Home::new().await;
    let collector = start(&home).await;
    let body = wake("e1", TODAY, json!({})) + &wake("e2", TODAY, json!({"partner": "p2"})) + &wake("e3", TODAY, json!({"partner": null}));
    let reply = collector.submit_for(body.into(), BodyFormat::Ndjson, Some("p1")).await.unwrap();
    assert_eq!((reply.tally.accepted(), reply.tally.rejected(Reason::InvalidValue)), (1, 2));
    assert_eq!(reply.errors[0].field.as_deref(), Some("partner"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_stops_the_next_request() {
    let home = Home::new().await;
    let collector = start(&home).await;
    let submit = async |body: String| collector.submit_for(body.into(), BodyFormat::Ndjson, None).await.unwrap().tally;
    assert_eq!(submit(wake("e1", TODAY, json!({}))).await.accepted(), 1);
    assert_eq!(submit(wake("e2", TODAY, json!({"type": "consent_withdrawn"}))).await.accepted(), 1);
    assert_eq!(submit(wake("e3", TODAY, json!({}))).await.rejected(Reason::NoConsent), 1);
    let later = "2018-07-20T11:00:00Z";
    assert_eq!(submit(wake("e4", later, json!({"type": "consent_granted"})) + &wake("e5", later, json!({}))).await.accepted(), 2);
    assert_eq!(home.events().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_at_once_is_busy_and_many_requests_share_commits() {
    let home = Home::with(Contract::default_contract(), Limits { body_bytes_max: 1 << 20, ..Limits::default() }).await;
    let options = CollectorOptions { queue_bytes_max: 256 << 10, group_ms: 50, ..CollectorOptions::default() };
    let collector = Collector::start(Arc::clone(&home.env), options).await.unwrap();
    let big = collector.submit_for(vec![b' '; 2 << 20].into(), BodyFormat::Auto, None).await;
    assert!(matches!(big, Err(SubmitError::TooLarge { .. })));
    let version = home.warehouse.snapshot().await.unwrap().version(ameles_schemas::Table::Events);
    let requests = (0..40).map(|number| collector.submit_for(lines(number * 50, 50).into(), BodyFormat::Ndjson, None));
    let replies = futures::future::join_all(requests).await;
    let busy = replies.iter().filter(|reply| matches!(reply, Err(SubmitError::Busy))).count();
    let accepted: u64 = replies.iter().flatten().map(|reply| reply.tally.accepted()).sum();
    assert!(busy > 0 && busy < 40, "{busy}");
    assert_eq!(accepted as usize, (40 - busy) * 50);
    assert_eq!(home.events().await.len() as u64, accepted);
    let commits = home.warehouse.snapshot().await.unwrap().version(ameles_schemas::Table::Events) - version;
    assert!(commits < (40 - busy) as i64, "{commits} commits");
    let rest = collector.submit_for(lines(90_000, 1).into(), BodyFormat::Ndjson, None).await.unwrap();
    assert_eq!(rest.tally.accepted(), 1, "the room was given back");
}

/// `count` events of today, one device each, from the `first`.
fn todays(first: usize, count: usize) -> String {
    (first..first + count).map(|number| line(&format!("d{number}"), &format!("e{number}"), TODAY, "wake", json!({}))).collect()
}

async fn accepted(collector: &Collector, body: String) -> u64 {
    collector.submit_for(body.into(), BodyFormat::Ndjson, None).await.unwrap().tally.accepted()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_a_source_over_reads_what_others_have_committed_since() {
    let home = Home::new().await;
    let first = start(&home).await;
    assert_eq!(accepted(&first, todays(0, 40)).await, 40);
    // An old day, which need not be remembered.
    assert_eq!(accepted(&first, wake("old", "2018-07-03T00:00:00Z", json!({}))).await, 1);
    let mut memory = recent::remember(&home.env, 1 << 20).await.unwrap();
    assert_eq!(memory.len(), 40);
    assert_eq!(accepted(&first, todays(40, 7)).await, 7);
    let snapshot = home.warehouse.snapshot().await.unwrap();
    let lease = snapshot.files(ameles_schemas::Table::Events)[0].lease().unwrap().to_owned();
    let second = start(&home).await;
    assert_eq!(accepted(&second, todays(47, 3)).await, 3);
    let before = memory.read_until;
    recent::catch_up(&home.env, &mut memory, Some(&lease)).await.unwrap();
    assert_eq!(memory.len(), 43, "what the other wrote, less one's own");
    memory.read_until = before;
    recent::catch_up(&home.env, &mut memory, None).await.unwrap();
    assert_eq!(memory.len(), 50);
    let device = |number: usize| home.device(&format!("d{number}"));
    let request = ameles_ledger::NewRequest {
        subjects: vec![(1, ameles_core::Subject::Device(device(3)))],
        kind: ameles_core::SubjectKind::Device,
        regulation: "gdpr".to_owned(),
        received: at("2018-07-20T11:00:00Z"),
        due: at("2018-08-20T11:00:00Z"),
        reference: None,
        actor: "test".to_owned(),
    };
    home.ledger.submit(request).await.unwrap();
    assert_eq!(recent::remember(&home.env, 1 << 20).await.unwrap().len(), 49, "a pending subject's events are not read");
    let spill = home.warehouse.root().join("_ameles/spill");
    assert_eq!(std::fs::read_dir(spill).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_whose_commit_failed_after_it_had_landed_are_not_doubled() {
    let home = Home::new().await;
    let collector = start(&home).await;
    assert_eq!(accepted(&collector, todays(0, 5)).await, 5);
    // The commit to `events` lands, and the roll-up after it fails.
    let log = home.warehouse.root().join("activity/_delta_log");
    let aside = home.path("aside");
    std::fs::rename(&log, &aside).unwrap();
    std::fs::write(&log, "no folder").unwrap();
    let failed = collector.submit_for(todays(5, 5).into(), BodyFormat::Ndjson, None).await;
    assert!(matches!(failed, Err(SubmitError::Failed(_))), "{failed:?}");
    std::fs::remove_file(&log).unwrap();
    std::fs::rename(&aside, &log).unwrap();
    let again = collector.submit_for(todays(5, 5).into(), BodyFormat::Ndjson, None).await.unwrap();
    assert_eq!((again.tally.accepted(), again.tally.rejected(Reason::Duplicate)), (0, 5));
    assert_eq!(home.events().await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_while_recent_events_cannot_be_remembered() {
    let home = Home::new().await;
    let options = CollectorOptions { duplicates_bytes_max: 16 << 10, ..CollectorOptions::default() };
    let collector = Collector::start(Arc::clone(&home.env), options).await.unwrap();
    let spill = home.warehouse.root().join("_ameles/spill");
    std::fs::remove_dir(&spill).unwrap();
    assert_eq!(accepted(&collector, todays(0, 2_000)).await, 2_000, "stored, and kept in memory over its bound");
    let refused = collector.submit_for(todays(2_000, 1).into(), BodyFormat::Ndjson, None).await;
    assert!(matches!(refused, Err(SubmitError::Failed(_))), "{refused:?}");
    std::fs::create_dir(&spill).unwrap();
    let again = collector.submit_for(todays(0, 2_001).into(), BodyFormat::Ndjson, None).await.unwrap();
    assert_eq!((again.tally.accepted(), again.tally.rejected(Reason::Duplicate)), (1, 2_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_for_what_has_come_and_given_back() {
    let home = Home::new().await;
    let options = CollectorOptions { queue_bytes_max: 100 << 10, ..CollectorOptions::default() };
    let collector = Collector::start(Arc::clone(&home.env), options).await.unwrap();
    let mut rooms: Vec<Room> = (0..2).map(|_| collector.room().unwrap()).collect();
    rooms[0].grow(60 << 10).unwrap();
    assert!(matches!(rooms[1].grow(50 << 10), Err(SubmitError::Busy)));
    rooms.remove(0);
    rooms[0].grow(1 << 20).unwrap();
    assert!(matches!(collector.room(), Err(SubmitError::Busy)), "a body larger than the queue takes all of it");
    drop(rooms);
    assert_eq!(accepted(&collector, todays(0, 1)).await, 1);
    collector.stop().await;
    assert!(matches!(collector.room(), Err(SubmitError::Stopping)));
}
