//! Whole erasures on a small warehouse, against what the remaining events alone give.

use ameles_core::SubjectKind::{Device, User};
use ameles_ledger::{RequestFilter, RequestState};
use ameles_pseudonym::RawIdentifier;
use ameles_schemas::Table;

use super::certificates::assert_keeps_to_schema;
use super::fixture::{Home, event, fleet, options, remaining};
use crate::{ErasureError, Silent, SubmitOptions, check_certificate};

#[tokio::test]
async fn a_devices_erasure_takes_its_rows_everywhere_and_no_others() {
    let home = Home::with_fleet().await;
    let id = home.submit(Device, " d1 ").await;
    let report = home.eraser.run("test", &Silent).await.unwrap();
    assert_eq!(report.rows_erased, 4);
    assert_eq!(report.requests[0].rows, 4);
    home.assert_holds_only(&remaining(|event| event.device == "d1")).await;

    assert_eq!(home.eraser.ledger.request(id).await.unwrap().state, RequestState::Completed);
    let certificate = home.eraser.certificate(id).await.unwrap();
    assert_keeps_to_schema(&certificate);
    let verdict = check_certificate(&certificate, &home.eraser.keyring.public_key()).unwrap();
    assert!(verdict.genuine, "{:?}", verdict.problems);
    let certificate = verdict.certificate.unwrap();
    assert_eq!(certificate.found.event_rows, 4);
    assert_eq!(certificate.found.months.len(), 2);
    let events = &certificate.tables[0];
    assert_eq!((events.table.as_str(), events.rows_deleted), ("events", Some(4)));
    assert!(events.version_after > events.version_before && !events.files_written.is_empty());
    assert!(certificate.clock.in_time && certificate.warnings.is_empty(), "{:?}", certificate.warnings);
    assert!(certificate.verification.files_decoded > 0);
    let report = home.eraser.verify(None, &Silent).await.unwrap();
    assert!(report.clean, "{report:?}");
    assert_eq!(report.subjects_completed, 1);
}

#[tokio::test]
async fn a_users_erasure_takes_userless_events_only_where_no_other_user_was() {
    let home = Home::with_fleet().await;
    home.submit(User, "u1").await;
    let preview = home.eraser.preview().await.unwrap();
    assert_eq!((preview.requests, preview.rows, preview.userless_devices), (1, 6, 1));
    let mau: Vec<_> = preview.numbers.iter().filter(|number| number.metric == "mau").map(|number| (number.before, number.after)).collect();
    assert_eq!(mau, [(Some(3), Some(2)), (Some(4), Some(3))]);
    let activations: Vec<_> = preview.numbers.iter().filter(|number| number.metric == "activations").map(|number| number.change).collect();
    assert_eq!(activations, [-1]);
    let report = home.eraser.run("test", &Silent).await.unwrap();
    assert_eq!(report.rows_erased, 6);
    home.assert_holds_only(&remaining(|event| event.device == "d1" || event.user == Some("u1"))).await;
    assert!(report.requests[0].warnings.iter().any(|warning| warning.contains("on 1 devices")), "{report:?}");
    assert!(home.eraser.verify(None, &Silent).await.unwrap().clean);
}

#[tokio::test]
async fn a_devices_erasure_tells_how_many_users_it_touches() {
    let home = Home::with_fleet().await;
    home.submit(Device, "d2").await;
    let preview = home.eraser.preview().await.unwrap();
    assert_eq!((preview.rows, preview.other_users), (5, 2));
    assert!(preview.bytes > 0 && preview.bytes_encoded > 0 && preview.seconds > 0);
    home.assert_holds_only(&fleet()).await;
    let report = home.eraser.run("test", &Silent).await.unwrap();
    assert_eq!((preview.rows, preview.files, preview.bytes), (report.rows_erased, report.files_deleted, report.bytes_deleted));
}

#[tokio::test]
async fn all_that_is_pending_goes_in_one_pass_and_each_certificate_speaks_of_its_own() {
    let home = Home::with_fleet().await;
    let device = home.submit(Device, "d3").await;
    let user = home.submit(User, "u2").await;
    let unknown = home.submit(Device, "never-seen").await;
    let report = home.eraser.run("test", &Silent).await.unwrap();
    let rows = |id| report.requests.iter().find(|outcome| outcome.id == id).unwrap().rows;
    assert_eq!((rows(device), rows(user), rows(unknown)), (2, 2, 0));
    assert_eq!(report.rows_erased, 4);
    home.assert_holds_only(&remaining(|event| event.device == "d3" || event.user == Some("u2"))).await;

    let certificate = home.eraser.certificate(unknown).await.unwrap();
    let certificate = check_certificate(&certificate, &home.eraser.keyring.public_key()).unwrap().certificate.unwrap();
    assert!(certificate.warnings[0].contains("no row of the subject was found"), "{:?}", certificate.warnings);
    assert!(certificate.tables.iter().all(|table| table.files_written.is_empty() && table.version_before == table.version_after));
    assert!(!certificate.verification.searched.is_empty() && certificate.verification.rows_decoded > 0);
}

#[tokio::test]
async fn a_second_run_finds_nothing_to_do_and_a_second_request_nothing_to_erase() {
    let home = Home::with_fleet().await;
    home.submit(Device, "d1").await;
    home.eraser.run("test", &Silent).await.unwrap();
    let versions = home.eraser.warehouse.snapshot().await.unwrap().version(Table::Events);
    assert!(home.eraser.run("test", &Silent).await.unwrap().requests.is_empty());
    home.submit(Device, "d1").await;
    let again = home.eraser.run("test", &Silent).await.unwrap();
    assert_eq!((again.rows_erased, again.requests[0].warnings.len()), (0, 1));
    assert_eq!(home.eraser.warehouse.snapshot().await.unwrap().version(Table::Events), versions);
    home.assert_holds_only(&remaining(|event| event.device == "d1")).await;
}

#[tokio::test]
async fn what_was_erased_does_not_come_back_by_ingest() {
    let home = Home::with_fleet().await;
    home.submit(Device, "d1").await;
    let replay = [event("d1", None, "2026-08-02T09:00:00Z", "heartbeat")];
    assert_eq!(home.append(&home.eraser.warehouse, &replay).await, 0);
    home.eraser.run("test", &Silent).await.unwrap();
    assert_eq!(home.append(&home.eraser.warehouse, &fleet()[..4]).await, 0);
    assert!(home.eraser.verify(None, &Silent).await.unwrap().clean);
}

#[tokio::test]
async fn no_byte_on_disk_holds_the_identifier_or_after_the_run_the_pseudonym() {
    let home = Home::with_fleet().await;
    let subject = home.subject(Device, "d1");
    let holds = |needle: &[u8]| {
        let all = home.all_bytes();
        all.into_iter()
            .filter(|(_, bytes)| bytes.windows(needle.len()).any(|window| window == needle))
            .map(|(path, _)| path)
            .collect::<Vec<_>>()
    };
    let before = home.eraser.verify(Some((Device, RawIdentifier::new("d1".to_owned()))), &Silent).await.unwrap();
    assert!(!before.clean && !before.remains.is_empty());
    let canary = "canary-5f2b9c";
    home.eraser
        .submit(vec![(Device, RawIdentifier::new("d1".to_owned())), (Device, RawIdentifier::new(canary.to_owned()))], &options())
        .await
        .unwrap();
    home.eraser.run("test", &Silent).await.unwrap();
    assert_eq!(holds(canary.as_bytes()), Vec::<std::path::PathBuf>::new());
    for needle in [subject.as_bytes().to_vec(), hex::encode(subject.as_bytes()).into_bytes()] {
        assert_eq!(holds(&needle), Vec::<std::path::PathBuf>::new());
    }
    assert!(home.eraser.verify(Some((Device, RawIdentifier::new("d1".to_owned()))), &Silent).await.unwrap().clean);
}

#[tokio::test]
async fn a_list_enters_good_rows_and_names_bad_ones_by_line() {
    let home = Home::with_fleet().await;
    let list = "kind,identifier\ndevice,d1\nvehicle,secret-1\nuser,u3\ndevice,\n";
    let outcome = home.eraser.submit_list(list.as_bytes(), &options()).await.unwrap();
    assert_eq!(outcome.requests.len(), 2);
    assert_eq!(outcome.refused.iter().map(|row| row.line).collect::<Vec<_>>(), [3, 5]);
    assert!(!serde_json::to_string(&outcome).unwrap().contains("secret-1"));
    home.eraser.run("test", &Silent).await.unwrap();
    home.assert_holds_only(&remaining(|event| event.device == "d1" || event.device == "d4")).await;
}

#[tokio::test]
async fn submissions_are_checked_and_dated() {
    let home = Home::new().await;
    let submit = |raw: &str, options: SubmitOptions| {
        let identifiers = vec![(Device, RawIdentifier::new(raw.to_owned()))];
        let eraser = home.eraser.clone();
        async move { eraser.submit(identifiers, &options).await }
    };
    for (raw, bad) in [
        (" \t", options()),
        ("d1", SubmitOptions { received: Some("2026-09-10T12:00:01Z".parse().unwrap()), ..options() }),
        ("d1", SubmitOptions { reference: Some("jane doe".to_owned()), ..options() }),
        ("d1", SubmitOptions { regulation: Some("the GDPR!".to_owned()), ..options() }),
    ] {
        assert!(submit(raw, bad).await.is_err());
    }
    assert!(home.eraser.ledger.requests(&RequestFilter::default()).await.unwrap().is_empty());
    let good = SubmitOptions {
        received: Some("2026-08-31T10:00:00Z".parse().unwrap()),
        reference: Some("DSR-17".to_owned()),
        regulation: Some("CCPA".to_owned()),
        ..options()
    };
    let id = submit("d1", good).await.unwrap()[0];
    let request = home.eraser.find("DSR-17").await.unwrap();
    assert_eq!((request.id, request.regulation.as_str(), request.due.to_string().as_str()), (id, "ccpa", "2026-09-30T10:00:00Z"));
    assert!(matches!(home.eraser.certificate(id).await, Err(ErasureError::NoCertificate(_))));
    home.eraser.cancel(id, "test").await.unwrap();
    assert_eq!(home.eraser.find(&id.to_string()).await.unwrap().state, RequestState::Cancelled);
}

#[tokio::test]
async fn an_opendsr_request_names_one_subject_by_several_identities_and_is_entered_once() {
    let home = Home::with_fleet().await;
    let body = r#"{"regulation":"gdpr","subject_request_id":"a7551968-d5d6-44b2-9831-815ac9017798","subject_request_type":"erasure","submitted_time":"2026-09-01T00:00:00Z","subject_identities":[
        {"identity_type":"user_id","identity_value":"u3","identity_format":"raw"},{"identity_type":"device_id","identity_value":"d1","identity_format":"raw"}]}"#;
    let parse = || crate::opendsr::parse_request(body.as_bytes(), &home.eraser.contract).unwrap();
    let reply = home.eraser.submit_opendsr(parse(), "controller").await.unwrap();
    assert_eq!(reply.expected_completion_time.to_string(), "2026-10-01T00:00:00Z");
    let again = home.eraser.submit_opendsr(parse(), "controller").await.unwrap();
    assert_eq!(again.request_id, reply.request_id);
    assert_eq!(home.eraser.status_opendsr(&reply.subject_request_id).await.unwrap().request_status, "pending");
    // One for the device and one for the user: neither waits for the other.
    let entered = home.eraser.ledger.requests(&RequestFilter::default()).await.unwrap();
    assert_eq!(entered.len(), 2);
    home.eraser.run("test", &Silent).await.unwrap();
    let status = home.eraser.status_opendsr(&reply.request_id).await.unwrap();
    assert_eq!((status.request_status.as_str(), status.results_url.is_some()), ("completed", true));
    home.assert_holds_only(&remaining(|event| event.device == "d1" || event.device == "d4")).await;
}

#[tokio::test]
async fn an_opendsr_cancellation_takes_back_all_of_it() {
    let home = Home::with_fleet().await;
    let body = r#"{"regulation":"gdpr","subject_request_id":"a7551968-d5d6-44b2-9831-815ac9017798","subject_request_type":"erasure","submitted_time":"2026-09-01T00:00:00Z","subject_identities":[
        {"identity_type":"user_id","identity_value":"u3","identity_format":"raw"},{"identity_type":"device_id","identity_value":"d1","identity_format":"raw"}]}"#;
    let request = crate::opendsr::parse_request(body.as_bytes(), &home.eraser.contract).unwrap();
    let reply = home.eraser.submit_opendsr(request, "controller").await.unwrap();
    home.eraser.cancel_opendsr(&reply.subject_request_id, "controller").await.unwrap();
    assert_eq!(home.eraser.status_opendsr(&reply.subject_request_id).await.unwrap().request_status, "cancelled");
    assert!(home.eraser.run("test", &Silent).await.unwrap().requests.is_empty());
    assert!(home.eraser.ledger.suppressions().await.unwrap().is_empty());
    home.assert_holds_only(&fleet()).await;
}

#[tokio::test]
async fn a_grant_after_the_request_keeps_what_comes_after_it() {
    let home = Home::with_fleet().await;
    let options = SubmitOptions { received: Some("2026-07-15T00:00:00Z".parse().unwrap()), ..options() };
    let id = home.eraser.submit(vec![(Device, RawIdentifier::new("d1".to_owned()))], &options).await.unwrap()[0];
    let grant = ameles_ledger::ConsentEvent {
        subject: home.subject(Device, "d1"),
        granted: true,
        at: "2026-08-01T00:00:00Z".parse().unwrap(),
        policy: None,
        purposes: Vec::new(),
        source: ameles_ledger::ConsentSource::Api,
    };
    assert_eq!(home.eraser.ledger.record_consents(&[grant]).await.unwrap().lifted, 1);
    let report = home.eraser.run("test", &Silent).await.unwrap();
    assert_eq!(report.rows_erased, 3);
    assert!(
        report
            .requests
            .iter()
            .any(|outcome| outcome.id == id && outcome.warnings.iter().any(|warning| warning.contains("consented again")))
    );
    home.assert_holds_only(&remaining(|event| event.device == "d1" && event.at < "2026-08")).await;
    let report = home.eraser.verify(None, &Silent).await.unwrap();
    assert!(report.clean && report.subjects_lifted == 1, "{report:?}");
    assert_eq!(home.append(&home.eraser.warehouse, &[event("d1", None, "2026-09-01T09:00:00Z", "wake")]).await, 1);
}

#[tokio::test]
async fn an_identifier_is_looked_for_under_every_key_epoch() {
    let mut home = Home::with_fleet().await;
    home.rotate("device");
    home.append(&home.eraser.warehouse, &[event("d1", Some("u1"), "2026-08-20T09:00:00Z", "wake")]).await;
    let id = home.submit(Device, "d1").await;
    let report = home.eraser.run("test", &Silent).await.unwrap();
    assert_eq!(report.rows_erased, 5);
    let certificate = home.eraser.certificate(id).await.unwrap();
    let certificate = check_certificate(&certificate, &home.eraser.keyring.public_key()).unwrap().certificate.unwrap();
    assert_eq!((certificate.found.event_rows, certificate.found.key_epochs), (5, 2));
    assert!(home.eraser.verify(None, &Silent).await.unwrap().clean);
}

#[tokio::test]
async fn quarantined_rows_of_the_device_go_and_others_stay() {
    let home = Home::with_fleet().await;
    home.quarantine(&["d1", "d1", "d3"]).await;
    let id = home.submit(Device, "d1").await;
    let report = home.eraser.run("test", &Silent).await.unwrap();
    assert_eq!(report.quarantine_rows_erased, 2);
    let certificate = home.eraser.certificate(id).await.unwrap();
    assert_keeps_to_schema(&certificate);
    let certificate = check_certificate(&certificate, &home.eraser.keyring.public_key()).unwrap().certificate.unwrap();
    assert_eq!(certificate.found.quarantine_rows, 2);
    let quarantine = certificate.tables.iter().find(|table| table.table == "quarantine").unwrap();
    assert_eq!((quarantine.rows_before, quarantine.rows_after, quarantine.rows_deleted), (3, 1, Some(2)));
    assert_eq!(home.rows(&home.eraser.warehouse, Table::Quarantine, std::sync::Arc::default()).await.len(), 1);
}

#[tokio::test]
async fn months_and_tables_may_become_empty() {
    let home = Home::with_fleet().await;
    for device in ["d1", "d2", "d3", "d4"] {
        home.submit(Device, device).await;
    }
    assert_eq!(home.eraser.run("test", &Silent).await.unwrap().rows_erased, fleet().len() as u64);
    for table in [Table::Events, Table::Activity, Table::Links, Table::Devices] {
        assert_eq!(home.rows(&home.eraser.warehouse, table, std::sync::Arc::default()).await, Vec::<String>::new(), "{table}");
    }
    assert!(home.eraser.verify(None, &Silent).await.unwrap().clean);
}
