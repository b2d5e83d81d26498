//! The rewriting itself: one pass over a month's runs, device by device, in a
//! thread of its own.

use std::sync::Arc;

use ameles_core::{Month, SuppressionSet};
use ameles_schemas::Table;
use ameles_schemas::column::PARTNER;
use arrow::array::{Array, AsArray, RecordBatch, new_null_array};
use arrow::datatypes::TimestampMicrosecondType;
use hashbrown::HashMap;

use crate::append::covered;
use crate::files::{Rows, RunReader, RunWriter, Written, column, optional_pseudonyms, pseudonyms};
use crate::merge::{Merger, Next, Place};
use crate::names::{self, Keys, Origin};
use crate::progress::Counter;
use crate::rollup::{links_batch, roll_up};
use crate::rows::{hash_rows, mix};
use crate::snapshot::runs;
use crate::{DataFile, StoreError, Warehouse};

/// Rows gathered before they are written.
const BATCH_ROWS: usize = 64 << 10;
/// Partners whose repeats are counted one by one; the rest counts without a partner.
const PARTNERS_MAX: usize = 10_000;

/// What is to be done.
pub(crate) struct Job {
    pub(crate) warehouse: Warehouse,
    pub(crate) month: Month,
    pub(crate) inputs: Vec<DataFile>,
    pub(crate) generation: String,
    pub(crate) suppressed: Arc<SuppressionSet>,
    pub(crate) closed: bool,
    /// The tier of the run that is made where the inputs are but some of the month's runs; without, the month is settled.
    pub(crate) tier: Option<u32>,
    pub(crate) progress: Counter,
}

/// What was written, and what was left out.
#[derive(Default)]
pub(crate) struct Settled {
    pub(crate) files: HashMap<Table, Vec<Written>>,
    pub(crate) rows_after: u64,
    pub(crate) erased: u64,
    /// Repeats by the run's lease and their partner.
    pub(crate) duplicates_by: HashMap<(Option<String>, Option<String>), u64>,
}

impl Settled {
    pub(crate) fn duplicates(&self) -> u64 {
        self.duplicates_by.values().sum()
    }

    fn repeat(&mut self, lease: &Option<String>, partner: Option<&str>) {
        let mut key = (lease.clone(), partner.map(str::to_owned));
        if self.duplicates_by.len() >= PARTNERS_MAX && !self.duplicates_by.contains_key(&key) {
            key.1 = None;
        }
        *self.duplicates_by.entry(key).or_default() += 1;
    }
}

/// A batch's columns as the merge needs them.
struct Extra {
    keys: Option<Vec<Option<u128>>>,
    covered: Vec<bool>,
    /// Over all columns but the event key.
    hashes: Vec<u128>,
}

/// A row of the device in hand.
#[derive(Clone, Copy)]
struct Entry {
    next: Next,
    key: Option<u128>,
    hash: u128,
}

/// What the settled files' keys will be.
pub(crate) fn keys_after(inputs: &[DataFile], closed: bool) -> Keys {
    let is = |file: &DataFile, wanted: Keys| matches!(file.origin, Origin::Settled { keys, .. } if keys == wanted);
    if closed || (!inputs.is_empty() && inputs.iter().all(|file| is(file, Keys::Dropped))) {
        Keys::Dropped
    } else if inputs.iter().any(|file| is(file, Keys::Dropped) || is(file, Keys::Mixed)) {
        Keys::Mixed
    } else {
        Keys::Kept
    }
}

impl Job {
    pub(crate) fn run(&self) -> Result<Settled, StoreError> {
        let tables = self.warehouse.tables();
        let keys = keys_after(&self.inputs, self.closed);
        let schema = tables.file_schema(Table::Events);
        let runs = runs(&self.inputs);
        let closed: Vec<bool> = runs.iter().map(|run| was_closed(&run[0].origin)).collect();
        let leases: Vec<Option<String>> =
            runs.iter().map(|run| crate::append::batch_of(&run[0].origin).map(|(lease, _)| lease.to_owned())).collect();
        let partner = tables.dimension_index(PARTNER).and_then(|_| schema.index_of(PARTNER).ok());
        let folder = self.warehouse.table_folder(Table::Events);
        let sources =
            runs.into_iter().map(|run| Box::new(RunReader::new(folder.clone(), run, Arc::clone(&schema))) as Box<dyn Rows>).collect();
        let mut merger = Merger::new(sources, Box::new(|_, batch: &RecordBatch| self.read(batch)));
        let mut out = Output::new(self, keys);
        let mut device: Vec<Entry> = Vec::new();
        let mut places: Vec<Place> = Vec::new();
        while let Some(next) = merger.next()? {
            let extra = merger.extra(next.place.slot);
            let row = next.place.row as usize;
            if extra.covered[row] {
                out.settled.erased += 1;
            } else {
                let key = extra.keys.as_ref().and_then(|keys| keys[row]);
                device.push(Entry { next, key, hash: extra.hashes[row] });
            }
            if merger.peek().is_none_or(|following| following.0 != next.key.0) {
                drop_repeats(&mut device, &closed, |repeat| {
                    let partners = partner.and_then(|column| merger.array(repeat.place.slot, column).as_string_opt::<i32>());
                    let row = repeat.place.row as usize;
                    let partner = partners.filter(|partners| partners.is_valid(row)).map(|partners| partners.value(row));
                    out.settled.repeat(&leases[repeat.run as usize], partner);
                });
                // The order in which a closed month keeps what the keys told.
                if !device.is_sorted_by_key(|entry| (entry.next.key.1, entry.key)) {
                    device.sort_by_key(|entry| (entry.next.key.1, entry.key));
                }
                for entry in device.drain(..) {
                    out.expected =
                        out.expected.wrapping_add(if keys == Keys::Dropped { entry.hash } else { with_key(entry.hash, entry.key) });
                    places.push(entry.next.place);
                }
                if places.len() >= BATCH_ROWS {
                    out.write(&merger.gather(&schema, &places)?)?;
                    places.clear();
                    merger.release();
                }
            }
        }
        out.write(&merger.gather(&schema, &places)?)?;
        drop(merger);
        out.finish()
    }

    fn read(&self, batch: &RecordBatch) -> Result<(Vec<crate::merge::Key>, Extra), StoreError> {
        self.progress.add(batch.num_rows() as u64);
        let devices = pseudonyms(column(batch, "device")?, "device")?;
        let ts = column(batch, "ts")?
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(|| StoreError::Batch("column ts is no timestamp".into()))?;
        let keys = devices.into_iter().zip(ts.values()).map(|(device, ts)| (device, in_order(*ts))).collect();
        let has_key = self.warehouse.tables().has_event_key;
        let extra = Extra {
            keys: if has_key { Some(optional_pseudonyms(column(batch, "event_key")?, "event_key")?) } else { None },
            covered: covered(batch, &self.suppressed)?,
            hashes: hash_rows(batch, Some("event_key"))?,
        };
        Ok((keys, extra))
    }
}

/// A number whose order is the time's.
pub(crate) const fn in_order(micros: i64) -> u128 {
    (micros as i128 - i64::MIN as i128) as u128
}

fn with_key(hash: u128, key: Option<u128>) -> u128 {
    mix(hash, key.map_or(u128::MAX, |key| mix(1, key)))
}

/// Whether a run's rows had been there when the month closed, or have come since and been settled.
const fn was_closed(origin: &Origin) -> bool {
    matches!(origin, Origin::Settled { keys: Keys::Dropped | Keys::Mixed, .. })
}

/// Drops a device's repeats; `dropped` is told of each.
///
/// Of rows with one event key the earliest run's earliest row stays. In a
/// reopened month a row that was settled takes away one newer row that equals it
/// in every column but the key, so that of each row there are in the end as many
/// as in the side that has more.
fn drop_repeats(device: &mut Vec<Entry>, closed: &[bool], mut dropped: impl FnMut(Next)) {
    let mut keyed: Vec<(u128, u32, u64, usize)> =
        device.iter().enumerate().filter_map(|(at, entry)| entry.key.map(|key| (key, entry.next.run, entry.next.position, at))).collect();
    keyed.sort_unstable();
    let settled = |at: usize| closed[device[at].next.run as usize];
    let mut base: HashMap<u128, u32> = HashMap::new();
    if device.iter().any(|entry| !closed[entry.next.run as usize]) {
        for entry in device.iter().filter(|entry| closed[entry.next.run as usize]) {
            *base.entry(entry.hash).or_default() += 1;
        }
    }
    let mut take = |hash: u128| match base.get_mut(&hash) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    };
    let mut gone = vec![false; device.len()];
    for same in keyed.chunk_by(|a, b| a.0 == b.0) {
        for repeat in &same[1..] {
            gone[repeat.3] = true;
            // A settled row and its repeat are a pair already.
            if settled(same[0].3) {
                take(device[repeat.3].hash);
            }
        }
    }
    for at in 0..device.len() {
        if !gone[at] && !settled(at) && take(device[at].hash) {
            gone[at] = true;
        }
    }
    if gone.contains(&true) {
        let mut at = 0;
        device.retain(|entry| {
            at += 1;
            if gone[at - 1] {
                dropped(entry.next);
            }
            !gone[at - 1]
        });
    }
}

/// The settled files while they are written.
struct Output<'a> {
    job: &'a Job,
    keys: Keys,
    writers: Vec<(Table, RunWriter<'a>)>,
    links: Vec<(u128, u128, u32)>,
    /// Sum of the hashes of the rows that must come out.
    expected: u128,
    settled: Settled,
}

impl<'a> Output<'a> {
    fn new(job: &'a Job, keys: Keys) -> Self {
        let writer = |table: Table| {
            let name = move |part| match job.tier {
                Some(tier) => names::merged_path(job.month, &job.generation, tier, part),
                None => names::settled_path(job.month, &job.generation, part, keys),
            };
            (table, RunWriter::new(table, job.warehouse.table_folder(table), job.warehouse.tables().file_schema(table), true, name))
        };
        let writers = job.warehouse.tables().tables().into_iter().filter(|table| *table != Table::Quarantine).map(writer).collect();
        Self { job, keys, writers, links: Vec::new(), expected: 0, settled: Settled::default() }
    }

    /// Writes whole devices.
    fn write(&mut self, events: &RecordBatch) -> Result<(), StoreError> {
        if events.num_rows() == 0 {
            return Ok(());
        }
        self.settled.rows_after += events.num_rows() as u64;
        let rolled = roll_up(self.job.warehouse.tables(), self.job.month, events)?;
        for (table, writer) in &mut self.writers {
            let rows = match table {
                Table::Events => events,
                Table::Links => {
                    let id = |name: &str| pseudonyms(column(&rolled.links, name)?, name);
                    let days = column(&rolled.links, "days")?
                        .as_primitive_opt::<arrow::datatypes::Int32Type>()
                        .ok_or_else(|| StoreError::Batch("column days is no number".into()))?;
                    let pairs = id("user")?.into_iter().zip(id("device")?).zip(days.values());
                    self.links.extend(pairs.map(|((user, device), days)| (user, device, *days as u32)));
                    continue;
                }
                _ => match rolled.of(*table) {
                    Some(rows) => rows,
                    None => continue,
                },
            };
            match self.keys {
                Keys::Dropped => writer.write(&without_keys(rows)?)?,
                Keys::Kept | Keys::Mixed => writer.write(rows)?,
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Settled, StoreError> {
        // A device's users are all in one batch, so no pair comes twice.
        self.links.sort_unstable();
        let links = std::mem::take(&mut self.links);
        for (table, mut writer) in std::mem::take(&mut self.writers) {
            if table == Table::Links {
                for part in links.chunks(128 << 10) {
                    writer.write(&links_batch(self.job.warehouse.tables(), part)?)?;
                }
            }
            let written = writer.finish()?;
            if table == Table::Events {
                self.check(&written)?;
                self.job.warehouse.failpoint("rewrite.events_written")?;
            }
            self.settled.files.insert(table, written);
        }
        self.job.warehouse.failpoint("rewrite.files_written")?;
        Ok(self.settled)
    }

    /// Reads back what was written: it must be the rows that were to stay, each with every value.
    fn check(&self, written: &[Written]) -> Result<(), StoreError> {
        let schema = self.job.warehouse.tables().file_schema(Table::Events);
        let (mut found, mut rows) = (0_u128, 0);
        let has_key = self.job.warehouse.tables().has_event_key && self.keys != Keys::Dropped;
        for file in written {
            let file = DataFile::unlisted(&file.file.path, self.job.month);
            let mut reader = RunReader::new(self.job.warehouse.table_folder(Table::Events), vec![file], Arc::clone(&schema));
            while let Some(batch) = reader.next_batch()? {
                rows += batch.num_rows() as u64;
                let hashes = hash_rows(&batch, Some("event_key"))?;
                let keys = if has_key { optional_pseudonyms(column(&batch, "event_key")?, "event_key")? } else { vec![None; hashes.len()] };
                for (hash, key) in hashes.into_iter().zip(keys) {
                    found = found.wrapping_add(if self.keys == Keys::Dropped { hash } else { with_key(hash, key) });
                }
            }
        }
        let before: u64 = self.job.inputs.iter().map(|file| file.rows).sum();
        let dropped = self.settled.erased + self.settled.duplicates();
        if found != self.expected || rows != self.settled.rows_after || rows + dropped != before {
            return Err(StoreError::Integrity { table: Table::Events.as_str(), month: self.job.month.to_string() });
        }
        Ok(())
    }
}

/// Event keys go when a month has closed.
pub(crate) fn without_keys(batch: &RecordBatch) -> Result<RecordBatch, StoreError> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| match field.name().as_str() {
        "event_key" | "last_key" | "activated_key" => new_null_array(field.data_type(), column.len()),
        _ => Arc::clone(column),
    });
    Ok(RecordBatch::try_new(Arc::clone(&schema), columns.collect())?)
}
