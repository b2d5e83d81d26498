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
