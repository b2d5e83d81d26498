//! Tampering with the audit log behind the ledger's back.

use sqlx::{Connection as _, Row as _, SqliteConnection};

use super::*;
use crate::audit::{ChainRow, Head};
use crate::keys::Keys;
use crate::{AuditFilter, AuditVerdict};

/// A ledger with five rows: made, two requests, two acts.
async fn five_rows(home: &Home) -> Ledger {
    let ledger = home.create().await;
    ledger.submit_all(vec![request(device(1)), request(device(2))]).await.unwrap();
    ledger.audit("anna", "metrics_read", None, serde_json::json!({"metric": "mau"})).await.unwrap();
    ledger.audit("anna", "metrics_read", None, serde_json::json!({"metric": "dau"})).await.unwrap();
    assert_eq!(ledger.audit_verify().await.unwrap(), AuditVerdict::Intact { rows: 5 });
    ledger
}

async fn edit(home: &Home, sql: &'static str) {
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", home.path().display())).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn rows_tell_who_did_what_and_name_no_subject() {
    let home = Home::new();
    let ledger = five_rows(&home).await;
    let rows = ledger.audit_list(&AuditFilter::default()).await.unwrap();
    let actions: Vec<&str> = rows.iter().map(|row| row.action.as_str()).collect();
    assert_eq!(actions, ["ledger_created", "request_submitted", "request_submitted", "metrics_read", "metrics_read"]);
    assert!(rows[1].request.is_some() && rows[3].detail["metric"] == "mau");
    let about = AuditFilter { request: rows[1].request, ..AuditFilter::default() };
    assert_eq!(ledger.audit_list(&about).await.unwrap(), vec![rows[1].clone()]);
    let page = AuditFilter { after: 2, limit: Some(2), ..AuditFilter::default() };
    assert_eq!(ledger.audit_list(&page).await.unwrap(), rows[2..4]);
    let text = serde_json::to_string(&rows).unwrap();
    assert!(!text.contains(&hex::encode(device(1).as_bytes())));
}

#[tokio::test]
async fn a_changed_row_is_found() {
    for sql in [
        "UPDATE audit SET actor = 'bert' WHERE seq = 4",
        "UPDATE audit SET at = at + 1 WHERE seq = 4",
        "UPDATE audit SET detail = '{}' WHERE seq = 4",
        "UPDATE audit SET request = NULL WHERE seq = 2",
        "UPDATE audit SET hash = zeroblob(32) WHERE seq = 4",
        "UPDATE audit SET prev = zeroblob(32) WHERE seq = 4",
    ] {
        let home = Home::new();
        let ledger = five_rows(&home).await;
        edit(&home, sql).await;
        let verdict = ledger.audit_verify().await.unwrap();
        assert!(matches!(verdict, AuditVerdict::Changed { seq: 2 | 4 }), "{sql}: {verdict:?}");
    }
}

#[tokio::test]
async fn a_removed_row_is_found_the_last_one_too_and_also_after_more_acts() {
    let home = Home::new();
    let ledger = five_rows(&home).await;
    edit(&home, "DELETE FROM audit WHERE seq = 5").await;
    assert_eq!(ledger.audit_verify().await.unwrap(), AuditVerdict::Removed { seq: 5 });
    ledger.audit("anna", "metrics_read", None, serde_json::json!({})).await.unwrap();
    assert_eq!(ledger.audit_verify().await.unwrap(), AuditVerdict::Removed { seq: 5 });

    let home = Home::new();
    let ledger = five_rows(&home).await;
    edit(&home, "DELETE FROM audit WHERE seq = 2").await;
    assert_eq!(ledger.audit_verify().await.unwrap(), AuditVerdict::Removed { seq: 2 });
}

#[tokio::test]
async fn a_chain_hashed_anew_is_found_even_with_the_key() {
    for keep in [5, 4] {
        let home = Home::new();
        let ledger = five_rows(&home).await;
        let mut connection = SqliteConnection::connect(&format!("sqlite://{}", home.path().display())).await.unwrap();
        sqlx::query("DELETE FROM audit WHERE seq > ?").bind(keep).execute(&mut connection).await.unwrap();
        sqlx::query("UPDATE audit SET actor = 'nobody' WHERE seq = 4").execute(&mut connection).await.unwrap();
        let key = Keys::derive(&keys()).unwrap();
        let mut head = Head::default();
        for row in
            sqlx::query("SELECT at, actor, action, request, detail FROM audit ORDER BY seq").fetch_all(&mut connection).await.unwrap()
        {
            let request = row.get::<Option<String>, _>(3).map(|id| id.parse().unwrap());
            let (actor, action, detail): (String, String, String) = (row.get(1), row.get(2), row.get(4));
            let seq = head.seq + 1;
            let chained =
                ChainRow { seq, at: Timestamp::from_micros(row.get(0)), actor: &actor, action: &action, request, detail: &detail };
            let hash = chained.hash(&key.audit, &head.hash);
            sqlx::query("UPDATE audit SET prev = ?, hash = ? WHERE seq = ?")
                .bind(&head.hash[..])
                .bind(&hash[..])
                .bind(seq as i64)
                .execute(&mut connection)
                .await
                .unwrap();
            head = Head { seq, hash };
        }
        connection.close().await.unwrap();
        assert_eq!(ledger.audit_verify().await.unwrap(), AuditVerdict::Rewritten { seq: 4 });
    }
}

#[tokio::test]
async fn an_added_row_is_found_and_without_a_journal_the_verdict_is_open() {
    let home = Home::new();
    let ledger = five_rows(&home).await;
    let key = Keys::derive(&keys()).unwrap();
    let last = ledger.audit_list(&AuditFilter { after: 4, ..AuditFilter::default() }).await.unwrap().pop().unwrap();
    let mut prev = [0; 32];
    hex::decode_to_slice(&last.hash, &mut prev).unwrap();
    let hash = ChainRow { seq: 6, at: last.at, actor: "x", action: "y", request: None, detail: "{}" }.hash(&key.audit, &prev);
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", home.path().display())).await.unwrap();
    sqlx::query("INSERT INTO audit (seq, at, actor, action, detail, prev, hash) VALUES (6, ?, 'x', 'y', '{}', ?, ?)")
        .bind(last.at.micros())
        .bind(&prev[..])
        .bind(&hash[..])
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    assert_eq!(ledger.audit_verify().await.unwrap(), AuditVerdict::Added { seq: 6 });

    let home = Home::new();
    let ledger = five_rows(&home).await;
    std::fs::remove_file(home.journal()).unwrap();
    assert!(matches!(ledger.audit_verify().await.unwrap(), AuditVerdict::Unanchored { .. }));
    edit(&home, "UPDATE audit SET actor = 'bert' WHERE seq = 3").await;
    assert_eq!(ledger.audit_verify().await.unwrap(), AuditVerdict::Changed { seq: 3 });
}
