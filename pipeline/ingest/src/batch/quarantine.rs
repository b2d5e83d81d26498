//! Rows of `quarantine`: one for each rejected event that may be explained, and
//! hourly counts for the reasons that must name nobody.

use std::sync::Arc;

use ameles_core::{DeviceId, Reason, Timestamp};
use ameles_schemas::{Contract, Table};
use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Array, Int32Builder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use hashbrown::HashMap;

/// An explained rejection: never payload, never a raw identifier.
#[derive(Debug, Clone)]
pub(crate) struct QuarantineRow {
    pub(crate) at: Timestamp,
    pub(crate) source: Arc<str>,
    /// The line, or the offset where there is a partition.
    pub(crate) line: Option<i64>,
    pub(crate) partition: Option<i32>,
    pub(crate) reason: Reason,
    pub(crate) field: Option<usize>,
    pub(crate) partner: Option<Box<str>>,
    pub(crate) device: Option<DeviceId>,
}

/// Partners counted one by one; the rest counts without a partner.
const KEYS_MAX: usize = 10_000;

type CountKey = (Timestamp, Arc<str>, Reason, Option<Box<str>>);

/// How many events of an hour, source and partner were rejected for a reason that must name nobody.
#[derive(Debug, Clone, Default)]
pub(crate) struct HourlyCounts(HashMap<CountKey, u64>);

impl HourlyCounts {
    pub(crate) fn add(&mut self, at: Timestamp, source: &Arc<str>, reason: Reason, partner: Option<&str>, events: u64) {
        if events == 0 {
            return;
        }
        let mut key: CountKey = (at.hour(), Arc::clone(source), reason, partner.map(Box::from));
        if self.0.len() >= KEYS_MAX && !self.0.contains_key(&key) {
            key.3 = None;
        }
        *self.0.entry(key).or_default() += events;
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for ((at, source, reason, partner), events) in other.0 {
            self.add(at, &source, reason, partner.as_deref(), events);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One batch of `file_schema(Quarantine)`; `None` when there is nothing to say.
pub(crate) fn quarantine_batch(
    contract: &Contract,
    rows: &[QuarantineRow],
    counts: &HourlyCounts,
) -> Result<Option<RecordBatch>, arrow::error::ArrowError> {
    let len = rows.len() + counts.0.len();
    if len == 0 {
        return Ok(None);
    }
    let mut at = TimestampMicrosecondBuilder::with_capacity(len);
    let mut source = StringBuilder::new();
    let mut line = Int64Builder::with_capacity(len);
    let mut partition = Int32Builder::with_capacity(len);
    let mut offset = Int64Builder::with_capacity(len);
    let mut reason = StringBuilder::new();
    let mut field = StringBuilder::new();
    let mut partner = StringBuilder::new();
    let mut device = BinaryBuilder::new();
    let mut count = Int64Builder::with_capacity(len);
    let mut push = |row: &QuarantineRow, events: u64| {
        at.append_value(row.at.micros());
        source.append_value(&row.source);
        let is_kafka = row.partition.is_some();
        line.append_option(row.line.filter(|_| !is_kafka));
        partition.append_option(row.partition);
        offset.append_option(row.line.filter(|_| is_kafka));
        reason.append_value(row.reason.as_str());
        field.append_option(row.field.and_then(|at| contract.fields().get(at)).map(|field| field.name.as_str()));
        partner.append_option(row.partner.as_deref());
        device.append_option(row.device.as_ref().map(|device| device.as_bytes()));
        count.append_value(i64::try_from(events).unwrap_or(i64::MAX));
    };
    for row in rows {
        push(row, 1);
    }
    let mut counted: Vec<(&CountKey, &u64)> = counts.0.iter().collect();
    counted.sort();
    for ((hour, from, why, who), events) in counted {
        let row = QuarantineRow {
            at: *hour,
            source: Arc::clone(from),
            line: None,
            partition: None,
            reason: *why,
            field: None,
            partner: who.clone(),
            device: None,
        };
        push(&row, *events);
    }
    let version = i32::try_from(contract.version()).unwrap_or(i32::MAX);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(at.finish().with_timezone("UTC")),
        Arc::new(source.finish()),
        Arc::new(line.finish()),
        Arc::new(partition.finish()),
        Arc::new(offset.finish()),
        Arc::new(reason.finish()),
        Arc::new(field.finish()),
        Arc::new(Int32Array::from_value(version, len)),
        Arc::new(partner.finish()),
        Arc::new(device.finish()),
        Arc::new(count.finish()),
    ];
    RecordBatch::try_new(contract.tables().file_schema(Table::Quarantine), columns).map(Some)
}
