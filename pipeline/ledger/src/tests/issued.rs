//! What was issued: sealed, found again, never overwritten unseen.

use ameles_core::Month;

use super::{Home, at, device, request};
use crate::{Issue, IssuedMonth, LedgerError};

const BYTES_MAX: u64 = 1 << 20;

fn month(text: &str) -> Month {
    text.parse().unwrap()
}

fn issue(turn: i64, name: &str, body: &str, devices: u64) -> Issue {
    let months = vec![IssuedMonth { month: month(name), body: body.as_bytes().to_vec() }];
    Issue { turn, months, marks: vec![(month(name), devices)] }
}

#[tokio::test]
async fn what_was_issued_survives_and_stands_in_no_file_in_clear() {
    let home = Home::new();
    let ledger = home.create().await;
    let series = "mau of a-filter-that-somebody-typed";
    let all = (month("1970-01"), month("2100-01"));
    assert!(ledger.issue(series, &issue(0, "2018-07", "rows-of-july", 40), BYTES_MAX).await.unwrap());
    assert!(ledger.issue(series, &issue(1, "2018-08", "rows-of-august", 41), BYTES_MAX).await.unwrap());
    assert!(ledger.issue("another", &issue(2, "2018-07", "others", 30), BYTES_MAX).await.unwrap());
    ledger.close().await;
    let ledger = home.open().await;
    let issued = ledger.issued(series, all).await.unwrap();
    assert_eq!(issued.turn, 3);
    let bodies: Vec<&[u8]> = issued.months.iter().map(|month| month.body.as_slice()).collect();
    assert_eq!(bodies, [&b"rows-of-july"[..], b"rows-of-august"]);
    assert_eq!(issued.marks[&month("2018-07")].iter().copied().collect::<Vec<_>>(), [30, 40]);
    assert_eq!(ledger.issued(series, (month("2018-08"), month("2018-08"))).await.unwrap().months.len(), 1);
    ledger.close().await;
    for entry in std::fs::read_dir(home.folder.path().join("home")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for text in ["a-filter-that-somebody-typed", "rows-of-july"] {
            assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{text}");
        }
    }
}

#[tokio::test]
async fn nobody_overwrites_what_he_has_not_seen_and_room_is_bounded() {
    let home = Home::new();
    home.set("2026-11-22T10:00:00Z");
    assert_eq!(home.clock().now(), at("2026-11-22T10:00:00Z"));
    let ledger = home.create().await;
    assert!(ledger.issue("mau", &issue(0, "2018-07", "first", 40), BYTES_MAX).await.unwrap());
    assert!(!ledger.issue("mau", &issue(0, "2018-07", "second", 39), BYTES_MAX).await.unwrap());
    let full = ledger.issue("mau", &issue(1, "2018-08", "more", 39), 10).await.unwrap_err();
    assert!(matches!(full, LedgerError::IssuedFull { .. }));
    let issued = ledger.issued("mau", (month("2018-01"), month("2018-12"))).await.unwrap();
    assert_eq!((issued.turn, issued.months.len(), issued.marks.len()), (1, 1, 1));
    // A swapped row does not open.
    sqlx::query("UPDATE issued SET month = month + 1").execute(&ledger.inner.pool).await.unwrap();
    assert!(matches!(ledger.issued("mau", (month("2018-01"), month("2018-12"))).await, Err(LedgerError::Damaged(_))));
}

#[tokio::test]
async fn a_ledger_of_format_one_is_brought_up_to_date() {
    let home = Home::new();
    let ledger = home.create().await;
    let id = ledger.submit(request(device(1))).await.unwrap();
    for sql in [
        "DROP TABLE issued",
        "DROP TABLE issued_marks",
        "DROP TABLE issues",
        "DROP TABLE certificate_bases",
        "ALTER TABLE requests DROP COLUMN certificate_base",
        "ALTER TABLE requests DROP COLUMN certificate_packed",
        "ALTER TABLE requests DROP COLUMN leader",
        "DELETE FROM versions WHERE version > 1",
    ] {
        sqlx::query(sql).execute(&ledger.inner.pool).await.unwrap();
    }
    ledger.close().await;
    let ledger = home.open().await;
    assert!(ledger.issue("mau", &issue(0, "2018-07", "rows", 40), BYTES_MAX).await.unwrap());
    ledger.begin_run("cli").await.unwrap();
    ledger.complete(id, r#"{"rows":1}"#).await.unwrap();
    assert_eq!(ledger.certificate(id).await.unwrap().as_deref(), Some(r#"{"rows":1}"#));
}
