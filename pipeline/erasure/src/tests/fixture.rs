//! A small home on disk, and a reading of its tables as text.

use std::collections::BTreeMap;
use std::sync::Arc;

use ameles_core::{
    Clock as _, EventKey, ManualClock, Month, SharedClock, SharedRandom, Subject, SubjectKind, SuppressionSet, SystemRandom, Timestamp,
};
use ameles_ledger::{Ledger, LedgerKeys, LedgerOptions};
use ameles_pseudonym::{KeyEncryptionKey, Keyring, RawIdentifier, identify};
use ameles_schemas::{Contract, Policy, Table, TableSchemas, column};
use ameles_store::{Append, ReadView, Warehouse};
use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::util::display::array_value_to_string;
use futures::StreamExt as _;

use crate::{Eraser, FaultPoints, Layout, Settings, SubmitOptions};

/// An event, as a test writes it: device, user, time, type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Event {
    pub device: &'static str,
    pub user: Option<&'static str>,
    pub at: &'static str,
    pub kind: &'static str,
}

pub(crate) const fn event(device: &'static str, user: Option<&'static str>, at: &'static str, kind: &'static str) -> Event {
    Event { device, user, at, kind }
}

/// Two months, three devices, three users: d1 is u1's alone, d2 is shared by u1 and u2, d3 has no user.
pub(crate) fn fleet() -> Vec<Event> {
    vec![
        event("d1", None, "2026-07-01T08:00:00Z", "activate"),
        event("d1", Some("u1"), "2026-07-01T09:00:00Z", "wake"),
        event("d1", Some("u1"), "2026-07-03T09:00:00Z", "wake"),
        event("d1", None, "2026-08-02T09:00:00Z", "heartbeat"),
        event("d2", Some("u2"), "2026-07-02T07:00:00Z", "activate"),
        event("d2", Some("u1"), "2026-07-02T08:00:00Z", "wake"),
        event("d2", None, "2026-07-04T08:00:00Z", "heartbeat"),
        event("d2", Some("u2"), "2026-08-05T08:00:00Z", "wake"),
        event("d2", Some("u1"), "2026-08-05T09:00:00Z", "wake"),
        event("d3", None, "2026-07-09T08:00:00Z", "activate"),
        event("d3", None, "2026-08-09T08:00:00Z", "wake"),
        event("d4", Some("u3"), "2026-08-10T08:00:00Z", "activate"),
        event("d4", Some("u3"), "2026-08-11T08:00:00Z", "wake"),
    ]
}

pub(crate) struct Home {
    pub folder: tempfile::TempDir,
    pub clock: Arc<ManualClock>,
    pub eraser: Eraser,
}

impl Home {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new("2026-09-10T12:00:00Z".parse().unwrap()));
        let shared: SharedClock = clock.clone();
        let random: SharedRandom = Arc::new(SystemRandom);
        let home = folder.path().join("home");
        std::fs::create_dir(&home).unwrap();
        let kek = KeyEncryptionKey::create(&folder.path().join("home.key"), &*random).unwrap();
        let keyring = Keyring::create(&home.join("keyring.json"), &kek, &["device", "user", "event"], &*shared, &*random).unwrap();
        let secret = |purpose| *keyring.secret(purpose).unwrap().expose();
        let keys = LedgerKeys::new(secret("suppression"), secret("journal"), secret("audit"));
        let journal = folder.path().join("home.journal");
        let options = LedgerOptions { path: home.join("ledger.sqlite"), journal: journal.clone(), horizon_days: 1_096 };
        let ledger = Ledger::create_with(options, keys, shared.clone(), random.clone()).await.unwrap();
        let contract = Contract::default_contract();
        let warehouse = Warehouse::create(&home.join("warehouse"), contract.tables()).await.unwrap().with_clock(shared.clone());
        let settings = Settings { purge_grace_s: 0, handover_poll_ms: 10, handover_timeout_s: 20, ..Settings::default() };
        let eraser = Eraser {
            warehouse,
            ledger,
            keyring: Arc::new(keyring),
            contract: Arc::new(contract),
            policy: Arc::new(Policy::default_policy()),
            clock: shared,
            random,
            layout: Layout { home, journal },
            settings,
            faults: FaultPoints::default(),
        };
        Self { folder, clock, eraser }
    }

    /// A home with the fleet, committed in two batches.
    pub(crate) async fn with_fleet() -> Self {
        let home = Self::new().await;
        let (first, second): (Vec<_>, Vec<_>) = fleet().into_iter().enumerate().partition(|(at, _)| at % 2 == 0);
        for part in [first, second] {
            let events: Vec<Event> = part.into_iter().map(|(_, event)| event).collect();
            home.append(&home.eraser.warehouse, &events).await;
        }
        home
    }

    pub(crate) fn subject(&self, kind: SubjectKind, raw: &str) -> Subject {
        let all = identify(&self.eraser.keyring, &self.eraser.contract, kind, &RawIdentifier::new(raw.to_owned())).unwrap();
        all.last().unwrap().1
    }

    /// Commits events; gives how many rows were kept.
    pub(crate) async fn append(&self, warehouse: &Warehouse, events: &[Event]) -> u64 {
        let batch = Append { events: self.batches(warehouse.tables(), events), ..Append::default() };
        let mut lease = warehouse.lease(&*self.eraser.random).await.unwrap();
        lease.append(batch, &self.eraser.ledger).await.unwrap().rows
    }

    fn batches(&self, tables: &TableSchemas, events: &[Event]) -> Vec<(Month, RecordBatch)> {
        let mut months: BTreeMap<Month, Vec<(Subject, Timestamp, &Event)>> = BTreeMap::new();
        for event in events {
            let at: Timestamp = event.at.parse().unwrap();
            months.entry(at.month()).or_default().push((self.subject(SubjectKind::Device, event.device), at, event));
        }
        let batch = |(month, mut rows): (Month, Vec<(Subject, Timestamp, &Event)>)| {
            rows.sort_by(|left, right| (left.0.as_bytes(), left.1).cmp(&(right.0.as_bytes(), right.1)));
            (month, self.batch(tables, &rows))
        };
        months.into_iter().map(batch).collect()
    }

    fn batch(&self, tables: &TableSchemas, rows: &[(Subject, Timestamp, &Event)]) -> RecordBatch {
        let schema = tables.file_schema(Table::Events);
        let users: Vec<Option<Subject>> = rows.iter().map(|row| row.2.user.map(|user| self.subject(SubjectKind::User, user))).collect();
        let keys: Vec<EventKey> =
            rows.iter().map(|row| self.eraser.keyring.hasher("event").unwrap().event_key(&format!("{:?}", row.2))).collect();
        let columns = schema.fields().iter().map(|field| -> ArrayRef {
            match field.name().as_str() {
                column::DEVICE => Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| row.0.as_bytes()))),
                column::TS => {
                    Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1.micros())).with_timezone("UTC"))
                }
                column::USER => Arc::new(users.iter().map(|user| user.as_ref().map(Subject::as_bytes)).collect::<BinaryArray>()),
                column::TYPE => Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.2.kind))),
                column::EVENT_KEY => Arc::new(BinaryArray::from_iter_values(keys.iter().map(|key| key.0))),
                "country" => Arc::new(StringArray::from_iter_values(rows.iter().map(|row| if row.2.device == "d3" { "FR" } else { "DE" }))),
                _ => new_null_array(field.data_type(), rows.len()),
            }
        });
        RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
    }

    /// Begins a new epoch of a domain.
    pub(crate) fn rotate(&mut self, domain: &str) {
        let kek = KeyEncryptionKey::load(&self.folder.path().join("home.key")).unwrap();
        let mut keyring = Keyring::open(&self.eraser.layout.home.join("keyring.json"), &kek).unwrap();
        keyring.rotate(domain, &*self.eraser.clock, &*self.eraser.random).unwrap();
        self.eraser.keyring = Arc::new(keyring);
    }

    /// Leaves a quarantine row for each device.
    pub(crate) async fn quarantine(&self, devices: &[&str]) {
        let schema = self.eraser.warehouse.tables().file_schema(Table::Quarantine);
        let rows = devices.len();
        let subjects: Vec<Subject> = devices.iter().map(|device| self.subject(SubjectKind::Device, device)).collect();
        let columns = schema.fields().iter().map(|field| -> ArrayRef {
            match field.name().as_str() {
                column::AT => Arc::new(TimestampMicrosecondArray::from(vec![self.clock.now().micros(); rows]).with_timezone("UTC")),
                column::SOURCE => Arc::new(StringArray::from(vec!["test"; rows])),
                column::REASON => Arc::new(StringArray::from(vec!["invalid_value"; rows])),
                column::CONTRACT_VERSION => Arc::new(arrow::array::Int32Array::from(vec![1; rows])),
                column::COUNT => Arc::new(arrow::array::Int64Array::from(vec![1; rows])),
                column::DEVICE => Arc::new(BinaryArray::from_iter_values(subjects.iter().map(Subject::as_bytes))),
                _ => new_null_array(field.data_type(), rows),
            }
        });
        let quarantine = RecordBatch::try_new(schema.clone(), columns.collect()).unwrap();
        let batch = Append { quarantine: Some(quarantine), ..Append::default() };
        self.eraser.warehouse.lease(&*self.eraser.random).await.unwrap().append(batch, &self.eraser.ledger).await.unwrap();
    }

    /// All rows of a table as text, sorted.
    pub(crate) async fn rows(&self, warehouse: &Warehouse, table: Table, suppressed: Arc<SuppressionSet>) -> Vec<String> {
        let view = ReadView::open(warehouse, suppressed).await.unwrap();
        let mut rows = Vec::new();
        for month in view.months(table) {
            let mut stream = view.month_stream(table, month, None).unwrap();
            while let Some(batch) = stream.next().await {
                let batch = batch.unwrap();
                for row in 0..batch.num_rows() {
                    let value = |column: &ArrayRef| array_value_to_string(column, row).unwrap();
                    rows.push(batch.columns().iter().map(value).collect::<Vec<_>>().join("|"));
                }
            }
        }
        rows.sort();
        rows
    }

    /// Fails unless every table holds what `events` alone would give.
    pub(crate) async fn assert_holds_only(&self, events: &[Event]) {
        let folder = tempfile::tempdir().unwrap();
        let tables = self.eraser.contract.tables();
        let reference = Warehouse::create(&folder.path().join("reference"), tables.clone()).await.unwrap();
        let fresh = Nobody;
        let batch = Append { events: self.batches(&tables, events), ..Append::default() };
        reference.lease(&*self.eraser.random).await.unwrap().append(batch, &fresh).await.unwrap();
        for table in [Table::Events, Table::Activity, Table::Links, Table::Devices] {
            let expected = self.rows(&reference, table, Arc::default()).await;
            let found = self.rows(&self.eraser.warehouse, table, Arc::default()).await;
            assert_eq!(found, expected, "{table}");
        }
    }

    pub(crate) async fn submit(&self, kind: SubjectKind, raw: &str) -> ameles_ledger::RequestId {
        let identifiers = vec![(kind, RawIdentifier::new(raw.to_owned()))];
        self.eraser.submit(identifiers, &options()).await.unwrap()[0]
    }

    /// Copies of all the files that stand below a folder: path and content.
    pub(crate) fn all_bytes(&self) -> Vec<(std::path::PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push((path.clone(), std::fs::read(&path).unwrap()));
                }
            }
        }
        found
    }
}

pub(crate) fn options() -> SubmitOptions {
    SubmitOptions { actor: "test".to_owned(), ..SubmitOptions::default() }
}

/// The fleet without what `goes` picks.
pub(crate) fn remaining(goes: impl Fn(&Event) -> bool) -> Vec<Event> {
    fleet().into_iter().filter(|event| !goes(event)).collect()
}

/// Suppresses nobody.
pub(crate) struct Nobody;

impl ameles_core::SuppressionSource for Nobody {
    fn current(
        &self,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Arc<SuppressionSet>, ameles_core::SuppressionUnavailable>> + Send + '_>> {
        Box::pin(async { Ok(Arc::default()) })
    }
}
