//! A run that stops after any step goes on from there and ends in the same state.

use ameles_core::SubjectKind::{Device, User};
use ameles_ledger::RequestState;

use super::fixture::{Home, event, remaining};
use crate::{Eraser, ErasureError, Silent, Step, check_certificate};

#[tokio::test]
async fn resumes_after_every_step() {
    for step in Step::ALL {
        let home = Home::with_fleet().await;
        let device = home.submit(Device, "d4").await;
        let user = home.submit(User, "u1").await;
        home.eraser.faults.fail_after(step);
        let error = home.eraser.run("test", &Silent).await.unwrap_err();
        assert!(matches!(error, ErasureError::Stopped { .. }), "{step}: {error}");
        if step == Step::Complete {
            assert_eq!(home.eraser.ledger.request(user).await.unwrap().state, RequestState::Completed);
        } else {
            let request = home.eraser.ledger.request(user).await.unwrap();
            assert_eq!(request.state, RequestState::InProgress, "{step}");
            assert!(Eraser::last_error(&request).is_some_and(|error| error.contains(step.as_str())), "{step}");
            let report = home.eraser.run("test", &Silent).await.unwrap();
            assert_eq!(report.requests.len(), 2, "{step}");
        }
        home.assert_holds_only(&remaining(|event| matches!(event.device, "d1" | "d4") || event.user == Some("u1"))).await;
        // A certificate counts its own rows, and the run's in the months where it found some.
        for (id, rows, rows_of_run) in [(device, 2, 4), (user, 6, 8)] {
            let certificate = home.eraser.certificate(id).await.unwrap();
            let certificate = check_certificate(&certificate, &home.eraser.keyring.public_key()).unwrap().certificate.unwrap();
            assert_eq!(certificate.found.event_rows, rows, "{step}");
            let events = &certificate.tables[0];
            assert_eq!(events.rows_deleted, Some(rows_of_run), "{step}");
            let resumed = certificate.warnings.iter().any(|warning| warning.contains("interrupted"));
            assert_eq!(resumed, step != Step::Complete, "{step}: {:?}", certificate.warnings);
        }
        assert!(home.eraser.verify(None, &Silent).await.unwrap().clean, "{step}");
    }
}

#[tokio::test]
async fn a_request_that_comes_between_stop_and_resumption_goes_along() {
    let home = Home::with_fleet().await;
    home.submit(User, "u1").await;
    home.eraser.faults.fail_after(Step::Rewrite);
    home.eraser.run("test", &Silent).await.unwrap_err();
    let later = home.submit(Device, "d3").await;
    home.append(&home.eraser.warehouse, &[event("d4", Some("u3"), "2026-08-12T08:00:00Z", "wake")]).await;
    let report = home.eraser.run("test", &Silent).await.unwrap();
    assert_eq!(report.requests.len(), 2);
    assert_eq!(report.requests.iter().find(|outcome| outcome.id == later).unwrap().rows, 2);
    let mut events = remaining(|event| matches!(event.device, "d1" | "d3") || event.user == Some("u1"));
    events.push(event("d4", Some("u3"), "2026-08-12T08:00:00Z", "wake"));
    home.assert_holds_only(&events).await;
}

#[tokio::test]
async fn a_commit_that_landed_without_its_record_is_told_from_the_tables() {
    let home = Home::with_fleet().await;
    let id = home.submit(Device, "d1").await;
    home.eraser.faults.fail_after(Step::Plan);
    home.eraser.run("test", &Silent).await.unwrap_err();
    // As if the process had died right after the first month's commit.
    let maintainer = home.eraser.warehouse.try_maintainer(&*home.eraser.random).await.unwrap().unwrap();
    let suppressed = home.eraser.ledger.suppressions().await.unwrap();
    let spec = ameles_store::Rewrite { suppressed, closed: false };
    maintainer.rewrite_month("2026-07".parse().unwrap(), &spec, &|_| ()).await.unwrap();
    drop(maintainer);
    home.eraser.run("test", &Silent).await.unwrap();
    let certificate = home.eraser.certificate(id).await.unwrap();
    let certificate = check_certificate(&certificate, &home.eraser.keyring.public_key()).unwrap().certificate.unwrap();
    assert_eq!(certificate.found.event_rows, 4);
    assert_eq!(certificate.tables[0].rows_deleted, Some(4));
    assert!(certificate.warnings.iter().any(|warning| warning.contains("2026-07")), "{:?}", certificate.warnings);
    home.assert_holds_only(&remaining(|event| event.device == "d1")).await;
}
