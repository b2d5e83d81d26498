//! Grants, withdrawals and what they do to suppressions.

use super::*;
use crate::{ConsentEvent, ConsentSource, ConsentsRecorded};

fn consent(subject: Subject, granted: bool, ts: &str) -> ConsentEvent {
    ConsentEvent {
        subject,
        granted,
        at: at(ts),
        policy: Some("2018-05-25".to_owned()),
        purposes: vec!["analytics".to_owned()],
        source: ConsentSource::Event,
    }
}

#[tokio::test]
async fn the_same_event_is_recorded_once_and_the_book_follows_in_every_handle() {
    let home = Home::new();
    let (first, second) = (home.create().await, home.open().await);
    assert!(second.consents().await.unwrap().is_empty());
    let grant = consent(device(1), true, "2026-11-01T00:00:00Z");
    let recorded = first.record_consents(&[grant.clone(), grant.clone()]).await.unwrap();
    assert_eq!((recorded.stored, recorded.repeated), (1, 1));
    let book = second.consents().await.unwrap();
    let state = book.state_at(device(1), at("2026-11-02T00:00:00Z")).unwrap();
    assert!(state.granted && state.policy() == Some("2018-05-25") && state.purposes() == ["analytics"]);
    assert_eq!(book.state_at(device(1), at("2026-10-31T00:00:00Z")), None);
    assert_eq!(second.record_consents(&[grant]).await.unwrap(), ConsentsRecorded { repeated: 1, ..ConsentsRecorded::default() });
    assert!(Arc::ptr_eq(&book, &second.consents().await.unwrap()));
    // Read on from where the book stood.
    first
        .record_consents(&[consent(device(1), false, "2026-11-03T00:00:00Z"), consent(user(1), true, "2026-11-03T00:00:00Z")])
        .await
        .unwrap();
    let book = second.consents().await.unwrap();
    assert_eq!(book.len(), 2);
    assert!(!book.state_now(device(1), home.clock().now()).unwrap().granted);
    assert!(book.state_at(device(1), at("2026-11-02T00:00:00Z")).unwrap().granted);
}

#[tokio::test]
async fn only_a_later_grant_that_is_not_in_the_future_lifts() {
    let home = Home::new();
    let ledger = home.create().await;
    ledger.submit(request(device(1))).await.unwrap(); // received 2026-11-20, now 2026-11-22T10
    let covered = async |ts: &str| ledger.suppressions().await.unwrap().covers(device_id(device(1)), None, at(ts));
    let none = [
        consent(device(1), true, "2026-11-19T00:00:00Z"),
        consent(device(1), true, "2026-11-20T00:00:00Z"),
        consent(device(1), true, "2026-11-23T00:00:00Z"),
        consent(device(1), false, "2026-11-21T00:00:00Z"),
        consent(device(2), true, "2026-11-21T00:00:00Z"),
    ];
    assert_eq!(ledger.record_consents(&none).await.unwrap().lifted, 0);
    assert!(covered("2026-11-30T00:00:00Z").await);
    let two = [consent(device(1), true, "2026-11-22T09:00:00Z"), consent(device(1), true, "2026-11-22T08:00:00Z")];
    assert_eq!(ledger.record_consents(&two).await.unwrap().lifted, 1);
    assert!(covered("2026-11-22T07:59:59Z").await);
    assert!(!covered("2026-11-22T08:00:00Z").await);
    // A request that is received after the grant holds again.
    home.set("2026-11-24T00:00:00Z");
    ledger.submit(NewRequest { received: at("2026-11-23T00:00:00Z"), ..request(device(1)) }).await.unwrap();
    assert!(covered("2026-11-30T00:00:00Z").await);
    assert!(ledger.audit_verify().await.unwrap().is_intact());
}

#[tokio::test]
async fn a_grant_between_receipt_and_entry_lifts_too() {
    let home = Home::new();
    let ledger = home.create().await;
    ledger
        .record_consents(&[consent(device(1), true, "2026-11-21T00:00:00Z"), consent(device(2), true, "2026-11-19T00:00:00Z")])
        .await
        .unwrap();
    ledger.submit_all(vec![request(device(1)), request(device(2))]).await.unwrap();
    let set = ledger.suppressions().await.unwrap();
    assert!(!set.covers(device_id(device(1)), None, at("2026-11-21T00:00:00Z")));
    assert!(set.covers_device(device_id(device(2))));
}

#[tokio::test]
async fn consents_of_the_erased_are_forgotten_up_to_the_grant_that_lifts() {
    let home = Home::new();
    let ledger = home.create().await;
    let early = |subject| consent(subject, true, "2026-10-01T00:00:00Z");
    ledger.record_consents(&[early(device(1)), early(device(2)), early(device(3))]).await.unwrap();
    ledger.submit_all(vec![request(device(1)), request(device(2))]).await.unwrap();
    ledger.record_consents(&[consent(device(2), true, "2026-11-21T00:00:00Z")]).await.unwrap();
    let open = ledger.begin_run("cli").await.unwrap();
    assert_eq!(ledger.forget_subject(&[device(1), device(2)]).await.unwrap(), 2);
    // While the run goes on, a withdrawal comes in.
    let late = [consent(device(1), false, "2026-11-22T09:00:00Z"), consent(device(2), false, "2026-11-22T09:00:00Z")];
    let recorded = ledger.record_consents(&late).await.unwrap();
    assert_eq!((recorded.suppressed, recorded.stored), (1, 1));
    for one in open {
        ledger.complete(one.request.id, "{}").await.unwrap();
    }
    let book = ledger.consents().await.unwrap();
    assert_eq!(book.state_now(device(1), home.clock().now()), None);
    assert_eq!(book.state_at(device(2), at("2026-11-20T12:00:00Z")), None);
    assert!(book.state_at(device(2), at("2026-11-21T12:00:00Z")).unwrap().granted);
    assert!(!book.state_now(device(2), home.clock().now()).unwrap().granted);
    assert!(book.state_now(device(3), home.clock().now()).unwrap().granted);
}

#[tokio::test]
async fn a_withdrawal_while_pending_survives_a_cancelled_request() {
    let home = Home::new();
    let ledger = home.create().await;
    let id = ledger.submit(request(device(1))).await.unwrap();
    ledger.record_consents(&[consent(device(1), false, "2026-11-22T00:00:00Z")]).await.unwrap();
    ledger.cancel(id, "cli").await.unwrap();
    assert!(!ledger.consents().await.unwrap().state_now(device(1), home.clock().now()).unwrap().granted);
}
