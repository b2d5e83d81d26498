//! A home in a temporary folder, and events for it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ameles_core::{DeviceId, Limits, ManualClock, Reason, SharedClock, SharedRandom, SystemRandom, Tally, Timestamp, UserId};
use ameles_ledger::{Ledger, LedgerKeys};
use ameles_pseudonym::{KeyEncryptionKey, Keyring};
use ameles_schemas::{Contract, Policy, Table, column};
use ameles_store::{ReadView, Warehouse};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use futures::TryStreamExt;
use tempfile::TempDir;

use crate::{EnvParts, FileOptions, FileReport, IngestEnv, NoProgress, ingest_files};

/// Days after the events of the tests, so that July is open and June is closed.
pub(crate) const NOW: &str = "2018-07-20T12:00:00Z";

pub(crate) struct Home {
    pub(crate) root: PathBuf,
    pub(crate) env: Arc<IngestEnv>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) ledger: Ledger,
    pub(crate) warehouse: Warehouse,
    keyring: Keyring,
    _folder: Option<TempDir>,
}

/// The default policy, and a made-up regime (country XA) that erases whoever withdraws.
fn policy() -> Policy {
    let text = Policy::text_default().replace("[countries]\n", "[countries]\nXA = \"strict\"\n");
    let strict = "[regimes.strict]\ncollection = \"opt_out\"\nlegal_basis = \"test\"\nerasure_months = 1\nextension_months = 1\non_withdrawal = \"erase\"\n\n";
    Policy::parse(&text.replace("[countries]\n", &format!("{strict}[countries]\n"))).unwrap()
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

impl Home {
    pub(crate) async fn new() -> Self {
        Self::with(Contract::default_contract(), Limits::default()).await
    }

    pub(crate) async fn with(contract: Contract, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        Self { _folder: Some(folder), ..Self::create_or_open(root, contract, limits).await }
    }

    /// A home that another process may have made.
    pub(crate) async fn create_or_open(root: PathBuf, contract: Contract, limits: Limits) -> Self {
        let clock = Arc::new(ManualClock::new(at(NOW)));
        let shared: SharedClock = Arc::clone(&clock) as SharedClock;
        let random: SharedRandom = Arc::new(SystemRandom);
        let home = root.join("home");
        std::fs::create_dir_all(&home).unwrap();
        let mut domains = vec!["device", "user", "event"];
        domains.extend(contract.domains());
        domains.sort_unstable();
        domains.dedup();
        let (kek_path, keyring_path, ledger_path) = (root.join("key"), home.join("keyring.json"), home.join("ledger.sqlite"));
        let known = keyring_path.exists();
        let keyring = if known {
            Keyring::open(&keyring_path, &KeyEncryptionKey::load(&kek_path).unwrap()).unwrap()
        } else {
            let kek = KeyEncryptionKey::create(&kek_path, random.as_ref()).unwrap();
            Keyring::create(&keyring_path, &kek, &domains, shared.as_ref(), random.as_ref()).unwrap()
        };
        let key = |purpose: &str| *keyring.secret(purpose).unwrap().expose();
        let keys = LedgerKeys::new(key("suppression"), key("journal"), key("audit"));
        let (ledger_clock, ledger_random) = (Arc::clone(&shared), Arc::clone(&random));
        let ledger = if known {
            Ledger::open(&ledger_path, keys, ledger_clock, ledger_random).await.unwrap()
        } else {
            Ledger::create(&ledger_path, keys, ledger_clock, ledger_random).await.unwrap()
        };
        let warehouse = Warehouse::create(&home.join("warehouse"), contract.tables()).await.unwrap().with_clock(Arc::clone(&shared));
        let parts = EnvParts {
            contract: Arc::new(contract),
            policy: Arc::new(policy()),
            keyring: &keyring,
            ledger: ledger.clone(),
            warehouse: warehouse.clone(),
            clock: shared,
            random,
            limits,
            k: 3,
        };
        let env = IngestEnv::new(parts).unwrap();
        Self { root, env: Arc::new(env), clock, ledger, warehouse, keyring, _folder: None }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) async fn ingest(&self, paths: &[PathBuf]) -> FileReport {
        let options = FileOptions { maintainer_wait_s: 5, ..FileOptions::default() };
        let report = ingest_files(&self.env, paths, &options, &NoProgress).await.unwrap();
        let of_files = report.files.iter().fold(0, |sum, file| sum + file.tally.received());
        assert_eq!(report.tally.received(), of_files);
        report
    }

    pub(crate) fn device(&self, identifier: &str) -> DeviceId {
        self.keyring.hasher("device").unwrap().pseudonym(identifier)
    }

    pub(crate) fn user(&self, identifier: &str) -> UserId {
        self.keyring.hasher("user").unwrap().pseudonym(identifier)
    }

    pub(crate) async fn batches(&self, table: Table) -> Vec<arrow::array::RecordBatch> {
        let view = ReadView::open(&self.warehouse, self.ledger.suppressions().await.unwrap()).await.unwrap();
        let mut all = Vec::new();
        for month in view.months(table) {
            let stream = view.month_stream(table, month, None).unwrap();
            all.extend(stream.try_collect::<Vec<_>>().await.unwrap());
        }
        all
    }

    /// Stored events as (device, micros, type, partner), sorted.
    pub(crate) async fn events(&self) -> Vec<(DeviceId, i64, String, Option<String>)> {
        let mut rows = Vec::new();
        for batch in self.batches(Table::Events).await {
            let column = |name: &str| batch.column_by_name(name).unwrap().clone();
            let (device, ts) = (column(column::DEVICE), column(column::TS));
            let (kind, partner) = (column(column::TYPE), column("partner"));
            for row in 0..batch.num_rows() {
                let partner = partner.as_string::<i32>();
                rows.push((
                    DeviceId::from_slice(device.as_binary::<i32>().value(row)).unwrap(),
                    ts.as_primitive::<TimestampMicrosecondType>().value(row),
                    kind.as_string::<i32>().value(row).to_owned(),
                    partner.is_valid(row).then(|| partner.value(row).to_owned()),
                ));
            }
        }
        rows.sort();
        rows
    }

    /// Rows of quarantine as (reason, field, source, line, partner, has device, count), sorted.
    pub(crate) async fn quarantine(&self) -> Vec<Quarantined> {
        let mut rows = Vec::new();
        for batch in self.batches(Table::Quarantine).await {
            let column = |name: &str| batch.column_by_name(name).unwrap().clone();
            let text = |name: &str, row: usize| {
                let values = column(name);
                let values = values.as_string::<i32>();
                values.is_valid(row).then(|| values.value(row).to_owned())
            };
            for row in 0..batch.num_rows() {
                let line = column(column::LINE);
                let line = line.as_primitive::<Int64Type>();
                rows.push(Quarantined {
                    reason: text(column::REASON, row).unwrap(),
                    field: text(column::FIELD, row),
                    source: text(column::SOURCE, row).unwrap(),
                    line: line.is_valid(row).then(|| line.value(row)),
                    partner: text(column::PARTNER, row),
                    has_device: column(column::DEVICE).is_valid(row),
                    count: column(column::COUNT).as_primitive::<Int64Type>().value(row),
                });
            }
        }
        rows.sort();
        rows
    }

    /// Quarantine counts what the tally counts.
    pub(crate) async fn assert_quarantine(&self, tally: &Tally) {
        let rows = self.quarantine().await;
        for reason in Reason::ALL {
            let counted: i64 = rows.iter().filter(|row| row.reason == reason.as_str()).map(|row| row.count).sum();
            assert_eq!(counted as u64, tally.rejected(reason), "{reason}: {rows:#?}");
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Quarantined {
    pub(crate) reason: String,
    pub(crate) field: Option<String>,
    pub(crate) source: String,
    pub(crate) line: Option<i64>,
    pub(crate) partner: Option<String>,
    pub(crate) has_device: bool,
    pub(crate) count: i64,
}

/// An event with consent; `extra` overrides or adds members.
pub(crate) fn line(device: &str, id: &str, ts: &str, kind: &str, extra: serde_json::Value) -> String {
    let mut event = serde_json::json!({
        "event_id": id, "device_id": device, "type": kind, "ts": ts, "product": "speaker", "model": "m1", "partner": "p1", "country": "DE",
        "firmware": "1.0", "consent": {"policy": "2018-05-25", "purposes": ["analytics"]}
    });
    event.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap_or_default());
    event.to_string() + "\n"
}

/// `count` events of different devices, from the `first`.
pub(crate) fn lines(first: usize, count: usize) -> String {
    let one = |number: usize| {
        let ts = format!("2018-07-{:02}T{:02}:00:{:02}Z", 1 + number % 18, number % 24, number % 60);
        line(&format!("device-{}", number % 97), &format!("event-{number}"), &ts, "wake", serde_json::json!({}))
    };
    (first..first + count).map(one).collect()
}

/// Every file below a folder.
pub(crate) fn all_files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}
