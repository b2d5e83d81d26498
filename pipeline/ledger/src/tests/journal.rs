//! Crashes, restored backups, lost and damaged journals.

use std::fs::OpenOptions;
use std::io::Write as _;

use super::*;
use crate::{ConsentEvent, ConsentSource, JournalCheck, JournalError, NewToken, RequestState, Role};

#[tokio::test]
async fn what_was_journalled_but_not_committed_comes_back() {
    let home = Home::new();
    let ledger = home.create().await;
    let backup = home.back_up(ledger).await;
    let ledger = home.open().await;
    let id = ledger.submit(request(device(1))).await.unwrap();
    // As if the process had died after the journal's sync and before the commit.
    home.restore(ledger, &backup).await;
    let ledger = home.open().await;
    assert!(ledger.suppressions().await.unwrap().covers_device(device_id(device(1))));
    let report = ledger.replay_journal().await.unwrap();
    assert_eq!((report.entries, report.requests), (1, vec![id]));
    assert_eq!(ledger.replay_journal().await.unwrap(), crate::ReplayReport::default());
    assert_eq!(ledger.request(id).await.unwrap().received, at("2026-11-20T00:00:00Z"));
    assert!(ledger.audit_verify().await.unwrap().is_intact());
}

#[tokio::test]
async fn a_handle_that_stays_open_over_a_restore_is_told_and_mends_it() {
    let home = Home::new();
    let ledger = home.create().await;
    let backup = home.back_up(ledger).await;
    let ledger = home.open().await;
    assert_eq!(ledger.check_journal().await.unwrap(), JournalCheck::UpToDate);
    let id = ledger.submit(request(device(1))).await.unwrap();
    let other = home.folder.path().join("copy/ledger.db");
    std::fs::create_dir(home.folder.path().join("copy")).unwrap();
    std::fs::write(&other, &backup).unwrap();
    // Opened with no journal beside it, then pointed at the right one.
    let options = crate::LedgerOptions { path: other.clone(), journal: home.journal(), horizon_days: 100 };
    let lonely = Ledger::open(&other, keys(), home.clock(), Arc::clone(&home.random)).await.unwrap();
    assert_eq!(lonely.check_journal().await.unwrap(), JournalCheck::Missing);
    lonely.close().await;
    let restored = Ledger::open_with(options, keys(), home.clock(), Arc::clone(&home.random)).await.unwrap();
    assert_eq!(restored.request(id).await.unwrap().state, RequestState::Pending);
}

#[tokio::test]
async fn a_restored_backup_gets_back_requests_cancels_grants_tokens_and_reopens_the_completed() {
    let home = Home::new();
    let ledger = home.create().await;
    let backup = home.back_up(ledger).await;
    let ledger = home.open().await;
    let [cancelled, completed, lifted] = [1, 2, 3].map(|number| request(device(number)));
    let cancelled = ledger.submit(cancelled).await.unwrap();
    ledger.cancel(cancelled, "cli").await.unwrap();
    let lifted = ledger.submit(lifted).await.unwrap();
    let grant = ConsentEvent {
        subject: device(3),
        granted: true,
        at: at("2026-11-21T00:00:00Z"),
        policy: None,
        purposes: vec![],
        source: ConsentSource::Api,
    };
    ledger.record_consents(&[grant]).await.unwrap();
    let completed = ledger.submit(completed).await.unwrap();
    ledger.begin_run("cli").await.unwrap();
    ledger.add_userless(completed, &[device_id(device(7))]).await.unwrap();
    ledger.complete(completed, r#"{"done":true}"#).await.unwrap();
    ledger.extend(lifted, at("2027-01-20T00:00:00Z"), "many", "cli").await.unwrap();
    let new =
        NewToken { name: "t".to_owned(), role: Role::Admin, partner: None, expires: at("2027-01-01T00:00:00Z"), actor: "cli".to_owned() };
    let secret = ledger.create_token(new).await.unwrap();
    ledger.revoke_token("t", "cli").await.unwrap();
    home.restore(ledger, &backup).await;

    let ledger = home.open().await;
    let report = ledger.replay_journal().await.unwrap();
    assert_eq!(report.requests, vec![cancelled, lifted, completed]);
    assert_eq!((report.cancelled, report.reopened, report.lifted), (vec![cancelled], vec![completed], 1));
    let set = ledger.suppressions().await.unwrap();
    assert!(!set.covers(device_id(device(1)), None, at("2026-11-01T00:00:00Z")));
    // The warehouse may hold the erased rows again: they are not counted, and the next run takes them out.
    assert!(set.pending().covers_device(device_id(device(2))));
    assert!(set.covers(device_id(device(7)), None, at("2026-11-01T00:00:00Z")));
    assert!(!set.covers(device_id(device(3)), None, at("2026-11-21T00:00:00Z")));
    assert_eq!(ledger.request(completed).await.unwrap().state, RequestState::InProgress);
    assert_eq!(ledger.request(lifted).await.unwrap().due, at("2027-01-20T00:00:00Z"));
    assert!(ledger.verify_token(secret.expose()).await.unwrap().is_none());
    assert!(ledger.begin_run("cli").await.unwrap().iter().any(|one| one.request.id == completed));
    ledger.complete(completed, "{}").await.unwrap();
    assert!(ledger.audit_verify().await.unwrap().is_intact());
}

#[tokio::test]
async fn a_new_ledger_takes_its_own_journal_up() {
    let home = Home::new();
    let ledger = home.create().await;
    let id = ledger.submit(request(device(1))).await.unwrap();
    ledger.close().await;
    std::fs::remove_file(home.path()).unwrap();
    let ledger = home.create().await;
    assert_eq!(ledger.replay_journal().await.unwrap().requests, vec![id]);
    assert!(ledger.audit_verify().await.unwrap().is_intact());
    ledger.close().await;
    std::fs::remove_file(home.path()).unwrap();
    let other_keys = LedgerKeys::new([4; 32], [5; 32], [6; 32]);
    let error = Ledger::create(&home.path(), other_keys, home.clock(), Arc::clone(&home.random)).await.unwrap_err();
    assert!(matches!(error, LedgerError::Journal(JournalError::Foreign(_))), "{error}");
}

#[tokio::test]
async fn a_torn_last_line_is_tolerated_and_cut_off() {
    let home = Home::new();
    let ledger = home.create().await;
    let backup = home.back_up(ledger).await;
    let ledger = home.open().await;
    let first = ledger.submit(request(device(1))).await.unwrap();
    let whole = std::fs::metadata(home.journal()).unwrap().len();
    ledger.submit(request(device(2))).await.unwrap();
    home.restore(ledger, &backup).await;
    let length = std::fs::metadata(home.journal()).unwrap().len();
    let file = OpenOptions::new().write(true).open(home.journal()).unwrap();
    file.set_len(length - 1).unwrap();
    let ledger = home.open().await;
    assert_eq!(ledger.replay_journal().await.unwrap().requests, vec![first]);
    let third = ledger.submit(request(device(3))).await.unwrap();
    let text = std::fs::read_to_string(home.journal()).unwrap();
    assert_eq!(text.lines().count(), 3);
    assert!(text.len() as u64 > whole && text.ends_with('\n'));
    home.restore(ledger, &backup).await;
    let ledger = home.open().await;
    assert_eq!(ledger.replay_journal().await.unwrap().requests, vec![first, third]);
}

#[tokio::test]
async fn of_a_file_of_requests_all_lines_count_or_none() {
    let home = Home::new();
    let ledger = home.create().await;
    let backup = home.back_up(ledger).await;
    let ledger = home.open().await;
    let one = ledger.submit(request(device(1))).await.unwrap();
    let after_one = std::fs::metadata(home.journal()).unwrap().len();
    let many = (0..1_200_u16).map(|number| {
        let mut bytes = [8; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        request(Subject::Device(DeviceId::from_bytes(bytes)))
    });
    ledger.submit_all(many.collect()).await.unwrap();
    home.restore(ledger, &backup).await;
    // Two of the three lines reached the disk.
    let bytes = std::fs::read(home.journal()).unwrap();
    let ends: Vec<usize> = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(place, _)| place + 1).collect();
    assert_eq!(ends.len(), 5);
    std::fs::write(home.journal(), &bytes[..ends[3]]).unwrap();
    let ledger = home.open().await;
    assert_eq!(ledger.replay_journal().await.unwrap().requests, vec![one]);
    assert_eq!(ledger.suppressions().await.unwrap().devices().count(), 1);
    ledger.cancel(one, "cli").await.unwrap();
    assert!(ledger.suppressions().await.unwrap().is_empty());
    assert!(after_one < ends[3] as u64);
    assert!(ledger.audit_verify().await.unwrap().is_intact());
}

#[tokio::test]
async fn a_missing_older_or_damaged_journal_is_told_and_stops_writing() {
    let home = Home::new();
    let ledger = home.create().await;
    let old = std::fs::read(home.journal()).unwrap();
    ledger.submit(request(device(1))).await.unwrap();
    let newest = std::fs::read(home.journal()).unwrap();

    std::fs::remove_file(home.journal()).unwrap();
    assert_eq!(ledger.check_journal().await.unwrap(), JournalCheck::Missing);
    assert!(matches!(ledger.submit(request(device(2))).await, Err(LedgerError::Journal(JournalError::Missing(_)))));
    assert!(matches!(ledger.replay_journal().await, Err(LedgerError::Journal(JournalError::Missing(_)))));
    // Reading goes on.
    let opened = home.open().await;
    assert!(opened.suppressions().await.unwrap().covers_device(device_id(device(1))));

    std::fs::write(home.journal(), &old).unwrap();
    assert!(matches!(ledger.check_journal().await.unwrap(), JournalCheck::Damaged { .. }));
    assert!(matches!(ledger.submit(request(device(2))).await, Err(LedgerError::Journal(JournalError::Behind(_)))));

    let mut flipped = newest.clone();
    let place = newest.len() - 100;
    flipped[place] ^= 1;
    std::fs::write(home.journal(), &flipped).unwrap();
    assert!(matches!(ledger.submit(request(device(2))).await, Err(LedgerError::Journal(JournalError::Damaged { .. }))));

    // In what the ledger knows already it matters too: a backup that is restored does not.
    let mut flipped = newest.clone();
    let place = old.len() / 2;
    flipped[place] ^= 1;
    std::fs::write(home.journal(), &flipped).unwrap();
    assert!(matches!(ledger.check_journal().await.unwrap(), JournalCheck::Damaged { .. }));

    std::fs::write(home.journal(), &newest).unwrap();
    let mut file = OpenOptions::new().append(true).open(home.journal()).unwrap();
    file.write_all(b"{\"seq\":3}\n").unwrap();
    assert!(matches!(ledger.check_journal().await.unwrap(), JournalCheck::Damaged { .. }));

    std::fs::write(home.journal(), &newest).unwrap();
    assert_eq!(ledger.check_journal().await.unwrap(), JournalCheck::UpToDate);
    ledger.submit(request(device(2))).await.unwrap();
}

#[tokio::test]
async fn a_lost_journal_is_begun_anew_with_all_requests() {
    let home = Home::new();
    let ledger = home.create().await;
    let done = ledger.submit(request(device(1))).await.unwrap();
    ledger.begin_run("cli").await.unwrap();
    ledger.complete(done, "{}").await.unwrap();
    let open = ledger.submit(request(user(2))).await.unwrap();
    let gone = ledger.submit(request(user(3))).await.unwrap();
    ledger.cancel(gone, "cli").await.unwrap();
    assert!(ledger.restart_journal("cli").await.is_err());
    std::fs::remove_file(home.journal()).unwrap();
    ledger.restart_journal("cli").await.unwrap();
    assert_eq!(ledger.check_journal().await.unwrap(), JournalCheck::UpToDate);
    assert!(ledger.audit_verify().await.unwrap().is_intact());
    assert_eq!(ledger.request(done).await.unwrap().state, RequestState::Completed);

    ledger.close().await;
    std::fs::remove_file(home.path()).unwrap();
    let ledger = home.create().await;
    let report = ledger.replay_journal().await.unwrap();
    assert_eq!(report.requests.len(), 2);
    assert_eq!(report.reopened, vec![done]);
    assert_eq!(ledger.request(open).await.unwrap().state, RequestState::Pending);
}
