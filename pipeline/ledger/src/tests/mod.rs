#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Tests of the ledger on real files.

mod audit;
mod consents;
mod files;
mod issued;
mod journal;
mod kill;
mod requests;
mod tokens;

use std::path::PathBuf;
use std::sync::Arc;

use ameles_core::{DeviceId, ManualClock, SeededRandom, SharedClock, SharedRandom, Subject, Timestamp, UserId};
use tempfile::TempDir;

use crate::{Ledger, LedgerError, LedgerKeys, NewRequest};

/// A home in a folder of its own, whose clock stands until it is moved.
struct Home {
    folder: TempDir,
    clock: Arc<ManualClock>,
    random: SharedRandom,
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn device(number: u8) -> Subject {
    let mut bytes = [number; 16];
    bytes[15] = 0xd0;
    Subject::Device(DeviceId::from_bytes(bytes))
}

fn device_id(subject: Subject) -> DeviceId {
    DeviceId::from_bytes(*subject.as_bytes())
}

fn user(number: u8) -> Subject {
    Subject::User(UserId::from_bytes([number; 16]))
}

fn keys() -> LedgerKeys {
    LedgerKeys::new([1; 32], [2; 32], [3; 32])
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("home")).unwrap();
        Self { folder, clock: Arc::new(ManualClock::new(at("2026-11-22T10:00:00Z"))), random: Arc::new(SeededRandom::new(7)) }
    }
    fn path(&self) -> PathBuf {
        self.folder.path().join("home/ledger.db")
    }
    fn journal(&self) -> PathBuf {
        self.folder.path().join("home.journal")
    }
    fn clock(&self) -> SharedClock {
        Arc::<ManualClock>::clone(&self.clock)
    }
    async fn create(&self) -> Ledger {
        Ledger::create(&self.path(), keys(), self.clock(), Arc::clone(&self.random)).await.unwrap()
    }
    async fn open(&self) -> Ledger {
        self.try_open(keys()).await.unwrap()
    }
    async fn try_open(&self, keys: LedgerKeys) -> Result<Ledger, LedgerError> {
        Ledger::open(&self.path(), keys, self.clock(), Arc::clone(&self.random)).await
    }
    fn set(&self, now: &str) {
        self.clock.set(at(now));
    }
    /// The file as a backup taken while nothing is open.
    async fn back_up(&self, ledger: Ledger) -> Vec<u8> {
        ledger.close().await;
        std::fs::read(self.path()).unwrap()
    }
    /// Puts a backup in the file's place.
    async fn restore(&self, ledger: Ledger, backup: &[u8]) {
        ledger.close().await;
        for suffix in ["-wal", "-shm"] {
            let mut beside = self.path().into_os_string();
            beside.push(suffix);
            let _ = std::fs::remove_file(beside);
        }
        std::fs::write(self.path(), backup).unwrap();
    }
}

fn request(subject: Subject) -> NewRequest {
    NewRequest {
        subjects: vec![(1, subject)],
        kind: subject.kind(),
        regulation: "gdpr".to_owned(),
        received: at("2026-11-20T00:00:00Z"),
        due: at("2026-12-20T00:00:00Z"),
        reference: None,
        actor: "cli".to_owned(),
    }
}
