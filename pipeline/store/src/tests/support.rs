//! Synthetic events, a model of what the tables must say of them, and readers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use ameles_core::{
    DeviceId, Month, SeededRandom, SuppressedSubject, SuppressionEntry, SuppressionSet, SuppressionSource, SuppressionUnavailable,
    Timestamp, UserId,
};
use ameles_schemas::{Measure, Table, TableSchemas};
use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;

use crate::{Append, Appended, Maintainer, MonthRewrite, ReadView, Rewrite, StoreError, Txn, Warehouse, WriterLease};

pub(crate) fn tables() -> TableSchemas {
    TableSchemas {
        dimensions: vec!["product".into(), "country".into()],
        measures: vec![Measure { name: "wakes".into(), event_type: "wake".into() }],
        has_user: true,
        has_event_key: true,
        activation_type: Some("activate".into()),
        extra: vec![("latency_ms".into(), DataType::Int64)],
        descriptions: Vec::new(),
    }
}

pub(super) fn month(text: &str) -> Month {
    text.parse().unwrap()
}

pub(super) fn device(number: u32) -> DeviceId {
    DeviceId::from_bytes(bytes(b'd', number))
}

pub(super) fn user(number: u32) -> UserId {
    UserId::from_bytes(bytes(b'u', number))
}

/// Spread over the whole range, and each far from the others.
fn bytes(kind: u8, number: u32) -> [u8; 16] {
    let mut bytes = [kind; 16];
    bytes[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b1).to_be_bytes());
    bytes[4..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Event {
    pub(super) device: u32,
    /// Seconds from the month's start.
    pub(super) at: i64,
    pub(super) user: Option<u32>,
    pub(super) kind: &'static str,
    pub(super) key: Option<u32>,
    pub(super) country: Option<&'static str>,
    pub(super) latency: Option<i64>,
}

pub(super) fn event(device: u32, at: i64, key: u32) -> Event {
    const KINDS: [&str; 4] = ["activate", "wake", "heartbeat", "wake"];
    const COUNTRIES: [Option<&str>; 4] = [Some("DE"), Some("FR"), None, Some("PL")];
    Event {
        device,
        at,
        user: key.is_multiple_of(3).then_some(device % 7),
        kind: KINDS[(key % 4) as usize],
        key: Some(key),
        country: COUNTRIES[(key / 5 % 4) as usize],
        latency: (!key.is_multiple_of(2)).then(|| i64::from(key) * 3),
    }
}

/// `count` events of `devices` devices over the month, keys from `first`.
pub(super) fn events(devices: u32, count: u32, first: u32) -> Vec<Event> {
    (first..first + count)
        .map(|key| event(key.wrapping_mul(7919) % devices, i64::from(key.wrapping_mul(104_729) % 2_500_000), key))
        .collect()
}

pub(super) fn batch(tables: &TableSchemas, month: Month, events: &[Event]) -> RecordBatch {
    let start = month.first_day().start().micros();
    let mut events = events.to_vec();
    events.sort_by_key(|event| (device(event.device), event.at));
    let schema = tables.file_schema(Table::Events);
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        let text = |pick: fn(&Event) -> Option<&'static str>| Arc::new(events.iter().map(pick).collect::<StringArray>());
        match field.name().as_str() {
            "device" => Arc::new(BinaryArray::from_iter_values(events.iter().map(|event| *device(event.device).as_bytes()))),
            "ts" => Arc::new(
                TimestampMicrosecondArray::from_iter_values(events.iter().map(|event| start + event.at * 1_000_000)).with_timezone("UTC"),
            ),
            "user" => Arc::new(events.iter().map(|event| event.user.map(|number| *user(number).as_bytes())).collect::<BinaryArray>()),
            "type" => text(|event| Some(event.kind)),
            "event_key" => Arc::new(events.iter().map(|event| event.key.map(|key| bytes(b'k', key))).collect::<BinaryArray>()),
            "product" => text(|event| event.device.is_multiple_of(2).then_some("speaker")),
            "country" => text(|event| event.country),
            "latency_ms" => Arc::new(events.iter().map(|event| event.latency).collect::<Int64Array>()),
            _ => arrow::array::new_null_array(field.data_type(), events.len()),
        }
    });
    let columns = columns.collect();
    RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()
}

pub(super) fn quarantine(rows: &[(Month, Option<u32>)]) -> RecordBatch {
    let schema = tables().file_schema(Table::Quarantine);
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "at" => Arc::new(
                TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(month, _)| month.first_day().start().micros() + 5))
                    .with_timezone("UTC"),
            ),
            "source" => Arc::new(StringArray::from(vec!["ci"; rows.len()])),
            "reason" => Arc::new(StringArray::from(vec!["missing_field"; rows.len()])),
            "contract_version" => Arc::new(arrow::array::Int32Array::from(vec![1; rows.len()])),
            "count" => Arc::new(Int64Array::from(vec![1; rows.len()])),
            "device" => Arc::new(rows.iter().map(|(_, number)| number.map(|number| *device(number).as_bytes())).collect::<BinaryArray>()),
            _ => arrow::array::new_null_array(field.data_type(), rows.len()),
        }
    });
    let columns = columns.collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

/// A ledger of a test.
#[derive(Default)]
pub(crate) struct Suppressed {
    set: Mutex<Arc<SuppressionSet>>,
    /// Becomes the set at the n-th look from now on.
    later: Mutex<Option<(u32, Arc<SuppressionSet>)>>,
}

impl Suppressed {
    pub(super) fn later(looks: u32, set: SuppressionSet) -> Self {
        Self { set: Mutex::default(), later: Mutex::new(Some((looks, Arc::new(set)))) }
    }
    pub(super) fn set(&self, set: SuppressionSet) {
        *self.set.lock().unwrap() = Arc::new(set);
    }
}

impl SuppressionSource for Suppressed {
    fn current(&self) -> std::pin::Pin<Box<dyn Future<Output = Result<Arc<SuppressionSet>, SuppressionUnavailable>> + Send + '_>> {
        let mut later = self.later.lock().unwrap();
        if let Some((looks, set)) = later.as_mut() {
            if *looks == 0 {
                *self.set.lock().unwrap() = Arc::clone(set);
            } else {
                *looks -= 1;
            }
        }
        let set = Arc::clone(&self.set.lock().unwrap());
        Box::pin(async move { Ok(set) })
    }
}

pub(super) fn suppress(sequence: u64, devices: &[u32], users: &[u32]) -> SuppressionSet {
    let subjects = devices
        .iter()
        .map(|number| SuppressedSubject::Device(device(*number)))
        .chain(users.iter().map(|number| SuppressedSubject::User(user(*number))));
    SuppressionSet::new(
        sequence,
        subjects.map(|subject| SuppressionEntry { subject, received: Timestamp::MAX, pending: true, lifted_from: None }),
    )
}

/// Devices whose erasure is complete.
pub(super) fn carried_out(sequence: u64, devices: &[u32]) -> SuppressionSet {
    let entry = |number: &u32| SuppressionEntry {
        subject: SuppressedSubject::Device(device(*number)),
        received: Timestamp::MAX,
        pending: false,
        lifted_from: None,
    };
    SuppressionSet::new(sequence, devices.iter().map(entry))
}

pub(crate) struct World {
    pub(super) folder: tempfile::TempDir,
    pub(super) warehouse: Warehouse,
    pub(super) random: SeededRandom,
    pub(super) suppressed: Suppressed,
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let warehouse = Warehouse::create(&folder.path().join("warehouse"), tables()).await.unwrap();
        Self { folder, warehouse, random: SeededRandom::new(7), suppressed: Suppressed::default() }
    }
    pub(super) fn root(&self) -> &Path {
        self.warehouse.root()
    }
    pub(super) const fn suppressed_later(&self) -> &Mutex<Option<(u32, Arc<SuppressionSet>)>> {
        &self.suppressed.later
    }
    pub(super) async fn lease(&self) -> WriterLease {
        self.warehouse.lease(&self.random).await.unwrap()
    }
    pub(super) async fn maintainer(&self) -> Maintainer {
        self.warehouse.try_maintainer(&self.random).await.unwrap().expect("nobody else maintains")
    }
    pub(super) async fn append(&self, lease: &mut WriterLease, month: Month, events: &[Event]) -> Result<Appended, StoreError> {
        lease.append(Append { events: vec![(month, batch(&tables(), month, events))], ..Append::default() }, &self.suppressed).await
    }
    pub(crate) async fn view(&self) -> Arc<ReadView> {
        let set = self.suppressed.current().await.unwrap();
        ReadView::open(&self.warehouse, set).await.unwrap()
    }
    /// The table's merged rows as text, one line each, months in order.
    pub(super) async fn rows(&self, table: Table) -> Vec<String> {
        rows(&self.view().await, table).await
    }
    pub(super) async fn check(&self, month: Month, events: &[Event]) {
        let model = Model::of(month, events);
        for table in [Table::Activity, Table::Links, Table::Devices] {
            assert_eq!(self.rows(table).await, model.rows(table), "{table}");
        }
        assert_eq!(self.rows(Table::Events).await.len(), events.len());
    }
    pub(super) fn txn(before: Option<i64>, after: i64) -> Vec<Txn> {
        vec![Txn { app: "file:abc".into(), before, after }]
    }
}

pub(super) async fn settle(maintainer: &Maintainer, month: Month) -> MonthRewrite {
    maintainer.rewrite_month(month, &Rewrite::default(), &|_| {}).await.unwrap()
}

pub(super) async fn rows(view: &Arc<ReadView>, table: Table) -> Vec<String> {
    let mut lines = Vec::new();
    for month in view.months(table) {
        let batches: Vec<RecordBatch> = view.month_stream(table, month, None).unwrap().try_collect().await.unwrap();
        for batch in batches {
            lines.extend(lines_of(&batch));
        }
    }
    lines
}

pub(super) fn lines_of(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("-");
    let formatters: Vec<ArrayFormatter<'_>> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    (0..batch.num_rows()).map(|row| formatters.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join(" ")).collect()
}

/// What activity, links and devices must say, computed the slow way. Event keys are left out where `keys` is false.
pub(super) struct Model {
    month: Month,
    by_device: BTreeMap<DeviceId, Vec<Event>>,
    pub(super) keys: bool,
}

impl Model {
    pub(super) fn of(month: Month, events: &[Event]) -> Self {
        let mut by_device: BTreeMap<DeviceId, Vec<Event>> = BTreeMap::new();
        for event in events {
            by_device.entry(device(event.device)).or_default().push(*event);
        }
        for events in by_device.values_mut() {
            events.sort_by_key(|event| (event.at, event.key.map(|key| bytes(b'k', key))));
        }
        Self { month, by_device, keys: true }
    }
    fn day(event: &Event) -> u32 {
        (event.at / 86_400) as u32
    }
    fn key(&self, event: &Event) -> String {
        event.key.filter(|_| self.keys).map_or("-".into(), |key| hex::encode(bytes(b'k', key)))
    }
    fn time(&self, event: &Event) -> String {
        self.month.first_day().start().plus_secs(event.at).to_string()
    }
    fn attributes(event: &Event) -> String {
        format!("{} {}", if event.device.is_multiple_of(2) { "speaker" } else { "-" }, event.country.unwrap_or("-"))
    }
    pub(super) fn rows(&self, table: Table) -> Vec<String> {
        let month = self.month.first_day();
        let mut lines = Vec::new();
        let mut links: BTreeMap<(UserId, DeviceId), u32> = BTreeMap::new();
        for (id, events) in &self.by_device {
            let (first, last) = (events.first().unwrap(), events.last().unwrap());
            let days: BTreeSet<u32> = events.iter().map(Self::day).collect();
            let bits = days.iter().fold(0_u32, |bits, day| bits | 1 << day);
            let wakes: Vec<String> = days
                .iter()
                .map(|day| events.iter().filter(|event| Self::day(event) == *day && event.kind == "wake").count().to_string())
                .collect();
            for event in events.iter().filter(|event| event.user.is_some()) {
                *links.entry((user(event.user.unwrap()), *id)).or_default() |= 1 << Self::day(event);
            }
            match table {
                Table::Activity => lines.push(format!(
                    "{} {bits} {} {} {} {} [{}] {month}",
                    hex::encode(id.as_bytes()),
                    self.time(first),
                    self.time(last),
                    self.key(last),
                    Self::attributes(last),
                    wakes.join(", ")
                )),
                Table::Devices => {
                    if let Some(activation) = events.iter().find(|event| event.kind == "activate") {
                        lines.push(format!(
                            "{} {} {} {} {month}",
                            hex::encode(id.as_bytes()),
                            self.time(activation),
                            self.key(activation),
                            Self::attributes(activation)
                        ));
                    }
                }
                _ => {}
            }
        }
        if table == Table::Links {
            lines.extend(links.iter().map(|((user, device), bits)| {
                format!("{} {} {bits} {month}", hex::encode(user.as_bytes()), hex::encode(device.as_bytes()))
            }));
        }
        lines
    }
}

/// Data files on the disk and data files that the log names, relative to the warehouse.
pub(super) async fn files(world: &World) -> (BTreeSet<String>, BTreeSet<String>) {
    let snapshot = world.warehouse.snapshot().await.unwrap();
    let (mut there, mut named) = (BTreeSet::new(), BTreeSet::new());
    for table in tables().tables() {
        named.extend(snapshot.files(table).iter().map(|file| format!("{table}/{}", file.path)));
        for partition in std::fs::read_dir(world.root().join(table.as_str())).unwrap().map(|entry| entry.unwrap()) {
            let name = partition.file_name().into_string().unwrap();
            if name != "_delta_log" {
                let files = std::fs::read_dir(partition.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
                there.extend(files.map(|file| format!("{table}/{name}/{file}")));
            }
        }
    }
    (there, named)
}
