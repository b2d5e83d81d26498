//! A token's life, report runs and settings.

use super::*;
use crate::{NewReportRun, NewToken, Role};

fn token(name: &str) -> NewToken {
    NewToken {
        name: name.to_owned(),
        role: Role::Ingest,
        partner: Some("p179".to_owned()),
        expires: at("2027-01-01T00:00:00Z"),
        actor: "cli".to_owned(),
    }
}

#[tokio::test]
async fn a_token_is_verified_until_it_is_revoked_or_expires() {
    let home = Home::new();
    let ledger = home.create().await;
    let secret = ledger.create_token(token("sensor")).await.unwrap();
    assert!(secret.expose().starts_with("ameles_") && secret.expose().len() == 50);
    assert_eq!(format!("{secret:?}"), "ameles_…");
    let principal = home.open().await.verify_token(secret.expose()).await.unwrap().unwrap();
    assert_eq!((principal.name(), principal.role(), principal.partner()), ("sensor", Role::Ingest, Some("p179")));
    assert!(ledger.verify_named_token("sensor", secret.expose()).await.unwrap().is_some());
    assert!(ledger.verify_named_token("other", secret.expose()).await.unwrap().is_none());
    let mut wrong = secret.expose().to_owned();
    wrong.pop();
    wrong.push(if secret.expose().ends_with('A') { 'E' } else { 'A' });
    for text in [wrong.as_str(), "", "ameles_", "sensor"] {
        assert!(ledger.verify_token(text).await.unwrap().is_none());
    }
    assert!(matches!(ledger.create_token(token("sensor")).await, Err(LedgerError::TokenExists(_))));
    assert!(matches!(ledger.create_token(token("a b")).await, Err(LedgerError::Invalid { .. })));
    assert!(matches!(
        ledger.create_token(NewToken { expires: at("2026-01-01T00:00:00Z"), ..token("old") }).await,
        Err(LedgerError::Invalid { .. })
    ));

    let other = ledger.create_token(token("second")).await.unwrap();
    ledger.revoke_token("second", "cli").await.unwrap();
    ledger.revoke_token("second", "cli").await.unwrap();
    assert!(ledger.verify_token(other.expose()).await.unwrap().is_none());
    assert!(matches!(ledger.create_token(token("second")).await, Err(LedgerError::TokenExists(_))));
    let unknown = ledger.revoke_token(secret.expose(), "cli").await.unwrap_err();
    assert!(!unknown.to_string().contains(secret.expose()));
    assert_eq!(ledger.counts().await.unwrap().tokens, 1);
    let listed = ledger.list_tokens().await.unwrap();
    assert_eq!(
        listed.iter().map(|token| (token.name.as_str(), token.revoked.is_some())).collect::<Vec<_>>(),
        [("second", true), ("sensor", false)]
    );

    home.set("2027-01-01T00:00:00Z");
    assert!(ledger.verify_token(secret.expose()).await.unwrap().is_none());
    drop(ledger);
    for file in [home.path(), home.journal()] {
        let bytes = std::fs::read(file).unwrap();
        let shown = secret.expose().as_bytes();
        assert!(!bytes.windows(shown.len()).any(|window| window == shown));
    }
}

#[tokio::test]
async fn report_runs_and_settings_are_kept() {
    let home = Home::new();
    let ledger = home.create().await;
    let run = NewReportRun {
        name: "monthly-activity".to_owned(),
        period: "2018-09".to_owned(),
        scheduled: Some(at("2018-10-01T06:00:00Z")),
        started: at("2026-11-22T10:00:00Z"),
        finished: at("2026-11-22T10:00:09Z"),
        folder: Some("reports/1".to_owned()),
        error: None,
        detail: serde_json::json!({"k": 10}),
        actor: "schedule".to_owned(),
    };
    assert_eq!(ledger.last_report_run("monthly-activity").await.unwrap(), None);
    let id = ledger.record_report_run(run.clone()).await.unwrap();
    let failed = NewReportRun { started: at("2026-11-22T11:00:00Z"), error: Some("disk full".to_owned()), folder: None, ..run.clone() };
    ledger.record_report_run(failed.clone()).await.unwrap();
    assert_eq!(ledger.report_run(id).await.unwrap().unwrap().run, run);
    assert_eq!(ledger.last_report_run("monthly-activity").await.unwrap().unwrap().run, failed);
    assert_eq!(ledger.report_runs(None, 10).await.unwrap().len(), 2);

    ledger.set_setting("query/mine", Some("SELECT 1"), "anna").await.unwrap();
    ledger.set_setting("query/mine", Some("SELECT 2"), "anna").await.unwrap();
    assert_eq!(ledger.setting("query/mine").await.unwrap().as_deref(), Some("SELECT 2"));
    assert_eq!(ledger.settings("query/").await.unwrap().len(), 1);
    ledger.set_setting("query/mine", None, "anna").await.unwrap();
    assert_eq!(ledger.setting("query/mine").await.unwrap(), None);
}
