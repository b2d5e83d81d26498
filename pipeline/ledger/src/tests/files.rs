//! What stands in the files, and what opening refuses.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;
use crate::{ConsentEvent, ConsentSource};

/// Every way in which 16 bytes may stand in a file: raw, hex, base64 at each offset.
fn spellings(bytes: &[u8; 16]) -> Vec<Vec<u8>> {
    let mut all = vec![bytes.to_vec(), hex::encode(bytes).into_bytes(), hex::encode_upper(bytes).into_bytes()];
    for offset in 0..3 {
        let shifted = [&vec![0; offset][..], bytes].concat();
        for engine in [STANDARD, URL_SAFE] {
            let text = engine.encode(&shifted);
            all.push(text.as_bytes()[4..20].to_vec());
        }
    }
    all
}

fn found_in(folder: &Path, spellings: &[Vec<u8>]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(found_in(&path, spellings));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        if spellings.iter().any(|spelling| bytes.windows(spelling.len()).any(|window| window == &spelling[..])) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test]
async fn no_file_holds_a_pseudonym_in_clear() {
    let home = Home::new();
    let ledger = home.create().await;
    let subjects = [*b"\x01canary-device\xfe\xfd", *b"\x02canary-users.\xfe\xfd", *b"\x03canary-other.\xfe\xfd"];
    let canaries: Vec<Vec<u8>> = subjects.iter().flat_map(spellings).collect();
    let proof = home.folder.path().join("proof");
    std::fs::write(&proof, format!("..{}", STANDARD.encode([&[7_u8, 7][..], &subjects[1]].concat()))).unwrap();
    assert_eq!(found_in(home.folder.path(), &canaries).len(), 1);
    std::fs::remove_file(proof).unwrap();

    let [one, two, three] = subjects;
    let (one, two) = (Subject::Device(DeviceId::from_bytes(one)), Subject::User(UserId::from_bytes(two)));
    let consent = |granted, at| ConsentEvent { subject: one, granted, at, policy: None, purposes: vec![], source: ConsentSource::Event };
    ledger.record_consents(&[consent(true, at("2026-10-01T00:00:00Z"))]).await.unwrap();
    ledger.submit_all(vec![request(one), request(two)]).await.unwrap();
    ledger.record_consents(&[consent(true, at("2026-11-22T00:00:00Z"))]).await.unwrap();
    let open = ledger.begin_run("cli").await.unwrap();
    let of_user = open.iter().find(|each| each.subjects[0].1 == two).unwrap().request.id;
    ledger.add_userless(of_user, &[DeviceId::from_bytes(three)]).await.unwrap();
    assert!(ledger.suppressions().await.unwrap().names_user(UserId::from_bytes(*two.as_bytes())));
    assert_eq!(found_in(home.folder.path(), &canaries), Vec::<String>::new());
    ledger.forget_subject(&[one, two]).await.unwrap();
    let mut wal = home.path().into_os_string();
    wal.push("-wal");
    assert_eq!(std::fs::metadata(&wal).map_or(0, |metadata| metadata.len()), 0);
    assert_eq!(found_in(home.folder.path(), &canaries), Vec::<String>::new());
    for file in [home.path(), home.journal()] {
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn forgotten_consents_leave_no_bytes_behind() {
    let home = Home::new();
    let ledger = home.create().await;
    let marked = ConsentEvent {
        subject: device(1),
        granted: true,
        at: at("2026-10-01T00:00:00Z"),
        policy: Some("policy-of-the-forgotten".to_owned()),
        purposes: vec![],
        source: ConsentSource::Api,
    };
    ledger.record_consents(&[marked]).await.unwrap();
    let mark = [b"policy-of-the-forgotten".to_vec()];
    assert!(!found_in(home.folder.path(), &mark).is_empty());
    assert_eq!(ledger.forget_subject(&[device(1)]).await.unwrap(), 1);
    assert_eq!(found_in(home.folder.path(), &mark), Vec::<String>::new());
}

#[tokio::test]
async fn opening_refuses_what_is_not_there_other_keys_and_newer_formats() {
    let home = Home::new();
    assert!(matches!(home.try_open(keys()).await, Err(LedgerError::Missing(_))));
    let ledger = home.create().await;
    let again = Ledger::create(&home.path(), keys(), home.clock(), Arc::clone(&home.random)).await;
    assert!(matches!(again, Err(LedgerError::Exists(_))));
    for wrong in
        [LedgerKeys::new([9; 32], [2; 32], [3; 32]), LedgerKeys::new([1; 32], [9; 32], [3; 32]), LedgerKeys::new([1; 32], [2; 32], [9; 32])]
    {
        assert!(matches!(home.try_open(wrong).await, Err(LedgerError::WrongKey)));
    }
    sqlx::query("INSERT INTO versions (version, applied) VALUES (99, 0)").execute(&ledger.inner.pool).await.unwrap();
    assert!(matches!(home.try_open(keys()).await, Err(LedgerError::Newer { found: 99, .. })));
    assert_eq!(format!("{:?} {ledger:?}", keys()), "LedgerKeys(…) Ledger(…)");
}

#[tokio::test]
async fn sqlite_is_set_to_forget_and_to_keep() {
    let home = Home::new();
    let ledger = home.create().await;
    let pragma = async |sql: &'static str| sqlx::query_scalar::<_, i64>(sql).fetch_one(&ledger.inner.pool).await.unwrap();
    assert_eq!(pragma("PRAGMA secure_delete").await, 1);
    assert_eq!(pragma("PRAGMA synchronous").await, 2);
    assert_eq!(pragma("PRAGMA foreign_keys").await, 1);
}
