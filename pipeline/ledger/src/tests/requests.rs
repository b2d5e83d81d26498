//! Requests' lives, and what readers see of them.

use super::*;
use crate::{RequestFilter, RequestId, RequestState};

#[tokio::test]
async fn a_submitted_subject_is_suppressed_at_once_in_every_handle() {
    let home = Home::new();
    let first = home.create().await;
    let second = home.open().await;
    assert!(second.suppressions().await.unwrap().is_empty());
    let before = second.suppression_sequence().await.unwrap();
    first.submit(request(device(1))).await.unwrap();
    let set = second.suppressions().await.unwrap();
    assert!(set.sequence() > before);
    assert!(set.covers(device_id(device(1)), None, at("2030-01-01T00:00:00Z")));
    assert!(set.pending().covers_device(device_id(device(1))));
    assert!(!set.covers(device_id(device(2)), None, home.clock().now()));
    // Unchanged, the very same set is handed out.
    assert!(Arc::ptr_eq(&set, &second.suppressions().await.unwrap()));
}

#[tokio::test]
async fn two_handles_write_at_once_and_lose_nothing() {
    let home = Home::new();
    let handles = [home.create().await, home.open().await];
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..40_u8 {
        let ledger = handles[usize::from(number) % 2].clone();
        tasks.spawn(async move { ledger.submit(request(device(number))).await.unwrap() });
    }
    let ids = tasks.join_all().await;
    assert_eq!(handles[0].requests(&RequestFilter::default()).await.unwrap().len(), 40);
    assert_eq!(handles[1].suppressions().await.unwrap().devices().count(), 40);
    assert!(handles[0].audit_verify().await.unwrap().is_intact());
    assert_eq!(ids.len(), 40);
}

#[tokio::test]
async fn certificates_come_back_as_they_were_signed_those_of_earlier_formats_too() {
    let home = Home::new();
    let ledger = home.create().await;
    let mut ids = Vec::new();
    for number in 0..150 {
        ids.push(ledger.submit(request(user(number))).await.unwrap());
    }
    ledger.begin_run("cli").await.unwrap();
    let text = |id: &RequestId| format!(r#"{{"files":"{}","id":"{id}"}}"#, "0123456789abcdef é ".repeat(80));
    let signed: Vec<_> = ids.iter().map(|id| (*id, text(id))).collect();
    let (first, others) = signed.split_first().unwrap();
    ledger.complete_all(others.to_vec()).await.unwrap();
    ledger.complete_all(others.to_vec()).await.unwrap();
    // Formats 1 and 2 kept the text as it is.
    sqlx::query("UPDATE requests SET state = 'completed', certificate = ? WHERE id = ?")
        .bind(&first.1)
        .bind(first.0.to_string())
        .execute(&ledger.inner.pool)
        .await
        .unwrap();
    ledger.complete(first.0, &first.1).await.unwrap();
    for (id, certificate) in &signed {
        assert_eq!(ledger.certificate(*id).await.unwrap().as_ref(), Some(certificate));
    }
    let bytes: i64 =
        sqlx::query_scalar("SELECT SUM(LENGTH(certificate_packed)) FROM requests").fetch_one(&ledger.inner.pool).await.unwrap();
    assert!(bytes < 149 * 150, "{bytes}");
}

#[tokio::test]
async fn those_that_follow_a_leader_are_at_its_step_until_it_is_completed() {
    let home = Home::new();
    let ledger = home.create().await;
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(ledger.submit(request(user(number))).await.unwrap());
    }
    let [leader, second, third] = ids[..] else { panic!("three requests") };
    assert!(matches!(ledger.follow(&[second], leader, "begin", "{}").await, Err(LedgerError::WrongState { .. })));
    ledger.begin_run("cli").await.unwrap();
    ledger.set_step(leader, "begin", "{}").await.unwrap();
    ledger.follow(&[second, third], leader, "begin", r#"{"leader":1}"#).await.unwrap();
    ledger.set_step(leader, "purge", "{}").await.unwrap();
    for id in &ids {
        assert_eq!(ledger.request(*id).await.unwrap().step.as_deref(), Some("purge"));
    }
    assert_eq!(ledger.request(second).await.unwrap().step_detail.as_deref(), Some(r#"{"leader":1}"#));
    // A step of its own is its own.
    ledger.set_step(third, "verify", "{}").await.unwrap();
    assert_eq!(ledger.request(third).await.unwrap().step.as_deref(), Some("verify"));
    ledger.complete(leader, "{}").await.unwrap();
    assert_eq!(ledger.request(leader).await.unwrap().step, None);
    assert_eq!(ledger.request(second).await.unwrap().step.as_deref(), Some("begin"));
    ledger.complete(second, "{}").await.unwrap();
    assert_eq!(ledger.request(second).await.unwrap().step, None);
}

#[tokio::test]
async fn a_run_takes_requests_up_resumes_and_completes_them() {
    let home = Home::new();
    let ledger = home.create().await;
    let id = ledger.submit(request(user(1))).await.unwrap();
    assert!(matches!(ledger.complete(id, "{}").await, Err(LedgerError::WrongState { state: RequestState::Pending, .. })));
    let run = ledger.begin_run("schedule").await.unwrap();
    assert_eq!(run.len(), 1);
    assert_eq!(run[0].subjects, vec![(1, user(1))]);
    assert_eq!(run[0].request.state, RequestState::InProgress);
    ledger.add_userless(id, &[device_id(device(5))]).await.unwrap();
    let sequence = ledger.suppression_sequence().await.unwrap();
    ledger.add_userless(id, &[device_id(device(5))]).await.unwrap();
    assert_eq!(ledger.suppression_sequence().await.unwrap(), sequence);
    ledger.set_step(id, "rewrite", r#"{"month":"2018-07"}"#).await.unwrap();

    // The process is killed; another goes on.
    let resumed = home.open().await.begin_run("schedule").await.unwrap();
    assert_eq!(resumed[0].request.step.as_deref(), Some("rewrite"));
    assert_eq!(resumed[0].request.step_detail.as_deref(), Some(r#"{"month":"2018-07"}"#));
    assert_eq!(resumed[0].userless, vec![device_id(device(5))]);
    let set = ledger.suppressions().await.unwrap();
    assert!(set.covers(device_id(device(5)), None, at("2026-11-19T00:00:00Z")));
    assert!(!set.covers(device_id(device(5)), None, at("2026-11-21T00:00:00Z")));

    ledger.complete(id, r#"{"rows":3}"#).await.unwrap();
    ledger.complete(id, r#"{"rows":3}"#).await.unwrap();
    assert!(matches!(ledger.complete(id, "{}").await, Err(LedgerError::WrongState { state: RequestState::Completed, .. })));
    assert_eq!(ledger.certificate(id).await.unwrap().as_deref(), Some(r#"{"rows":3}"#));
    let set = ledger.suppressions().await.unwrap();
    assert!(set.pending().is_empty() && set.names_user(UserId::from_bytes([1; 16])));
    assert!(ledger.begin_run("schedule").await.unwrap().is_empty());
    assert!(matches!(ledger.cancel(id, "cli").await, Err(LedgerError::WrongState { .. })));
    assert!(matches!(ledger.set_step(id, "purge", "{}").await, Err(LedgerError::WrongState { .. })));
}

#[tokio::test]
async fn cancelling_frees_the_subject_unless_another_request_names_it() {
    let home = Home::new();
    let ledger = home.create().await;
    let first = ledger.submit(request(device(1))).await.unwrap();
    let second = ledger.submit(request(device(1))).await.unwrap();
    ledger.cancel(first, "cli").await.unwrap();
    assert!(ledger.suppressions().await.unwrap().covers_device(device_id(device(1))));
    ledger.cancel(second, "cli").await.unwrap();
    assert!(ledger.suppressions().await.unwrap().is_empty());
    assert!(matches!(ledger.cancel(second, "cli").await, Err(LedgerError::WrongState { state: RequestState::Cancelled, .. })));
    let taken_up = ledger.submit(request(device(1))).await.unwrap();
    ledger.begin_run("cli").await.unwrap();
    assert!(matches!(ledger.cancel(taken_up, "cli").await, Err(LedgerError::WrongState { state: RequestState::InProgress, .. })));
}

#[tokio::test]
async fn a_deadline_is_extended_once_in_time_and_for_a_reason() {
    let home = Home::new();
    let ledger = home.create().await;
    let id = ledger.submit(request(device(1))).await.unwrap();
    let later = at("2027-02-20T00:00:00Z");
    assert!(matches!(ledger.extend(id, later, "", "cli").await, Err(LedgerError::Invalid { .. })));
    assert!(matches!(ledger.extend(id, at("2026-12-01T00:00:00Z"), "many requests", "cli").await, Err(LedgerError::NotExtendable { .. })));
    ledger.extend(id, later, "many requests", "cli").await.unwrap();
    let request_now = ledger.request(id).await.unwrap();
    assert_eq!((request_now.due, request_now.due_before_extension), (later, Some(at("2026-12-20T00:00:00Z"))));
    assert!(matches!(ledger.extend(id, later.plus_days(1), "more", "cli").await, Err(LedgerError::NotExtendable { .. })));

    let late = ledger.submit(request(device(2))).await.unwrap();
    home.set("2026-12-21T00:00:00Z");
    assert!(matches!(ledger.extend(late, later, "late", "cli").await, Err(LedgerError::NotExtendable { .. })));
    let overdue = ledger.requests(&RequestFilter { overdue: true, ..RequestFilter::default() }).await.unwrap();
    assert_eq!(overdue.iter().map(|request| request.id).collect::<Vec<_>>(), vec![late]);
    let counts = ledger.counts().await.unwrap();
    assert_eq!((counts.pending, counts.overdue, counts.suppressions), (2, 1, 2));
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_without_repeating_it() {
    let home = Home::new();
    let ledger = home.create().await;
    let secret = "max@example.org";
    let wrong = [
        NewRequest { reference: Some(secret.to_owned()), ..request(device(1)) },
        NewRequest { reference: Some("a".repeat(65)), ..request(device(1)) },
        NewRequest { regulation: secret.to_owned(), ..request(device(1)) },
        NewRequest { subjects: vec![], ..request(device(1)) },
        NewRequest { subjects: vec![(1, user(1))], ..request(device(1)) },
        NewRequest { received: at("2026-11-23T00:00:00Z"), ..request(device(1)) },
        NewRequest { due: at("2026-11-01T00:00:00Z"), ..request(device(1)) },
    ];
    for new in wrong {
        let error = ledger.submit(new).await.unwrap_err();
        assert!(matches!(error, LedgerError::Invalid { .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains(secret));
    }
    let all_or_none = vec![request(device(1)), NewRequest { subjects: vec![], ..request(device(2)) }];
    assert!(ledger.submit_all(all_or_none).await.is_err());
    assert!(ledger.requests(&RequestFilter::default()).await.unwrap().is_empty());
    ledger.submit(NewRequest { reference: Some("CASE-17".to_owned()), ..request(device(1)) }).await.unwrap();
    let filter = RequestFilter { reference: Some("CASE-17".to_owned()), ..RequestFilter::default() };
    assert_eq!(ledger.requests(&filter).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_horizon_starts_again_with_each_dropped_event() {
    let home = Home::new();
    let options = crate::LedgerOptions { horizon_days: 10, ..crate::LedgerOptions::new(&home.path()) };
    let ledger = Ledger::create_with(options, keys(), home.clock(), Arc::clone(&home.random)).await.unwrap();
    ledger.submit_all(vec![request(device(1)), request(device(2)), request(device(3))]).await.unwrap();
    let open = ledger.begin_run("cli").await.unwrap();
    let of = |subject| open.iter().find(|one| one.subjects[0].1 == subject).unwrap().request.id;
    ledger.complete_all(vec![(of(device(1)), "{}".to_owned()), (of(device(2)), "{}".to_owned())]).await.unwrap();
    home.set("2026-12-01T00:00:00Z");
    assert_eq!(ledger.note_drops(&[device(2), device(2), device(9)], home.clock().now()).await.unwrap(), 1);
    assert_eq!(ledger.note_drops(&[device(2)], home.clock().now()).await.unwrap(), 0);
    home.set("2026-12-05T00:00:00Z");
    // The first has not been seen, the second has, the third is not done.
    assert_eq!(ledger.expire_suppressions().await.unwrap(), 1);
    let set = ledger.suppressions().await.unwrap();
    let covered = [1, 2, 3].map(|number| set.covers_device(device_id(device(number))));
    assert_eq!(covered, [false, true, true]);
}

#[tokio::test]
async fn a_hundred_thousand_identifiers_are_entered_in_one_go() {
    let home = Home::new();
    let ledger = home.create().await;
    let all = (0..100_000_u32)
        .map(|number| {
            let mut bytes = [9; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            request(Subject::Device(DeviceId::from_bytes(bytes)))
        })
        .collect();
    let ids = ledger.submit_all(all).await.unwrap();
    assert_eq!(ids.len(), 100_000);
    assert_eq!(ledger.suppressions().await.unwrap().devices().count(), 100_000);
    assert!(ledger.audit_verify().await.unwrap().is_intact());
}
