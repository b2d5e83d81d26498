//! The files of a batch: pieces of ascending devices, made, rolled up and
//! written side by side while the others are still rows in memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use std::sync::Arc;

use ameles_core::{Month, SuppressionSet};
use ameles_schemas::Table;
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, SchemaRef};

use crate::append::{Files, covered, quarantine_by_month};
use crate::files::{RunWriter, Written};
use crate::log::NewFile;
use crate::names::{self, Keys};
use crate::rollup::{Link, Rolled, links_batch, roll_up_piece};
use crate::settle::without_keys;
use crate::syncing::{self, NotSynced, ToSync};
use crate::{StoreError, Warehouse};

/// Rows handed to a writer at once: a file ends between two calls only.
const STEP_ROWS: usize = 128 << 10;
/// Files that one piece may become; its numbers are set aside.
const FILES_PER_PIECE: u32 = 1 << 10;

/// The events of a batch, sorted, made piece by piece while they are written.
pub trait SortedEvents: Send + Sync + 'static {
    /// Months in ascending order, each once, and the number of their pieces.
    fn months(&self) -> Vec<(Month, usize)>;

    /// A piece of a month, by their numbers: `file_schema(Table::Events)`, sorted by (device, ts, event key, arrival); text may come as a
    /// dictionary. Without `keys` nobody needs the event keys: they may be null.
    /// The pieces of a month have ascending devices, and no device is in two. Called again it gives the same rows.
    ///
    /// # Errors
    /// When the columns cannot be put together.
    fn piece(&self, month: usize, piece: usize, keys: bool) -> Result<RecordBatch, StoreError>;

    /// Whether a suppression covers any of the rows.
    ///
    /// # Errors
    /// When the columns cannot be read.
    fn is_covered(&self, set: &SuppressionSet) -> Result<bool, StoreError>;

    /// Rejected events: `file_schema(Table::Quarantine)`, any order. Called when all pieces have been made.
    ///
    /// # Errors
    /// When the columns cannot be put together.
    fn quarantine(&self) -> Result<Option<RecordBatch>, StoreError>;
}

/// Whole batches, one piece each.
pub(crate) struct Batches {
    events: Vec<(Month, RecordBatch)>,
    quarantine: Option<RecordBatch>,
}

impl Batches {
    pub(crate) fn new(mut events: Vec<(Month, RecordBatch)>, quarantine: Option<RecordBatch>) -> Result<Self, StoreError> {
        events.retain(|(_, events)| events.num_rows() > 0);
        events.sort_by_key(|(month, _)| *month);
        match events.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(twice) => Err(StoreError::Batch(format!("month {} comes twice", twice[0].0))),
            None => Ok(Self { events, quarantine }),
        }
    }
}

impl SortedEvents for Batches {
    fn months(&self) -> Vec<(Month, usize)> {
        self.events.iter().map(|(month, _)| (*month, 1)).collect()
    }

    fn piece(&self, month: usize, _: usize, _: bool) -> Result<RecordBatch, StoreError> {
        Ok(self.events[month].1.clone())
    }

    fn is_covered(&self, set: &SuppressionSet) -> Result<bool, StoreError> {
        for (_, events) in &self.events {
            if covered(events, set)?.contains(&true) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn quarantine(&self) -> Result<Option<RecordBatch>, StoreError> {
        Ok(self.quarantine.clone())
    }
}

/// A month that its batch settles.
#[derive(Clone)]
pub(crate) struct SettledForm {
    pub(crate) generation: String,
    pub(crate) keys: Keys,
    /// What its `month:` transaction will say in every table.
    pub(crate) round: i64,
}

/// How the files of a month are named.
#[derive(Clone)]
pub(crate) struct MonthForm {
    pub(crate) month: Month,
    pub(crate) pieces: usize,
    pub(crate) settled: Option<SettledForm>,
}

/// What was written.
pub(crate) struct Wrote {
    pub(crate) files: Files,
    pub(crate) rows: u64,
    /// Rows left out because they fall under a suppression.
    pub(crate) suppressed: u64,
    /// Months settled, and their rounds.
    pub(crate) settled: Vec<(Month, i64)>,
}

/// Writes a batch's files.
pub(crate) struct Writing {
    pub(crate) warehouse: Warehouse,
    pub(crate) lease: String,
    pub(crate) batch: u64,
    pub(crate) source: Arc<dyn SortedEvents>,
    pub(crate) forms: Vec<MonthForm>,
    pub(crate) suppressed: Arc<SuppressionSet>,
}

/// What the pieces of a month have given so far.
struct MonthSoFar {
    left: AtomicUsize,
    /// Links are sorted by user, so that all pieces of the month come together in one run.
    links: Mutex<Vec<Link>>,
}

/// What one thread has written.
#[derive(Default)]
struct Share {
    files: Vec<(Table, Month, Vec<NewFile>)>,
    rows: u64,
    suppressed: u64,
}

impl Writing {
    pub(crate) fn run(&self) -> Result<Wrote, StoreError> {
        let jobs: usize = self.forms.iter().map(|form| form.pieces).sum();
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(jobs).max(1);
        let (to_sync, syncing) = syncing::channel();
        let (shares, synced) = std::thread::scope(|scope| {
            let syncing = scope.spawn(|| syncing.run(threads));
            let shares = self.pieces(threads, &to_sync);
            drop(to_sync);
            (shares, syncing.join())
        });
        // First, for a thread that could not hand on what it wrote does not know why.
        synced.map_err(|_| panicked())?.map_err(|NotSynced { path, source }| StoreError::Io {
            doing: "writing",
            path: path.display().to_string(),
            source,
        })?;
        let settled = self.forms.iter().filter_map(|form| Some((form.month, form.settled.as_ref()?.round))).collect();
        let mut wrote = Wrote { files: Files::new(), rows: 0, suppressed: 0, settled };
        for share in shares {
            let share = share?;
            wrote.rows += share.rows;
            wrote.suppressed += share.suppressed;
            for (table, month, files) in share.files {
                wrote.files.entry((table, month)).or_default().extend(files);
            }
        }
        Ok(wrote)
    }

    /// Makes and writes all pieces, so many at once.
    fn pieces(&self, threads: usize, to_sync: &ToSync) -> Vec<Result<Share, StoreError>> {
        let pieces = self.forms.iter().enumerate().flat_map(|(month, form)| (0..form.pieces).map(move |piece| (month, piece)));
        let queue: Mutex<VecDeque<(usize, usize)>> = Mutex::new(pieces.collect());
        let so_far: Vec<MonthSoFar> =
            self.forms.iter().map(|form| MonthSoFar { left: AtomicUsize::new(form.pieces), links: Mutex::default() }).collect();
        let work = || -> Result<Share, StoreError> {
            let mut share = Share::default();
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some((month, piece)) = next else { return Ok(share) };
                if let Err(error) = self.piece(month, piece, &so_far[month], to_sync, &mut share) {
                    // The others stop too: nothing of the batch will be committed.
                    queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    return Err(error);
                }
            }
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            others.into_iter().map(|other| other.join().unwrap_or_else(|_| Err(panicked()))).chain([own]).collect()
        })
    }

    fn piece(&self, month: usize, piece: usize, so_far: &MonthSoFar, to_sync: &ToSync, share: &mut Share) -> Result<(), StoreError> {
        let (form, tables) = (&self.forms[month], self.warehouse.tables());
        // Rows of one device and time come in the order of their keys: the roll-up of keys that will go does without.
        let keys = form.settled.as_ref().is_none_or(|settled| settled.keys != Keys::Dropped);
        let mut events = self.source.piece(month, piece, keys)?;
        let covered = covered(&events, &self.suppressed)?;
        let count = covered.iter().filter(|covered| **covered).count();
        if count > 0 {
            share.suppressed += count as u64;
            let kept: BooleanArray = covered.iter().map(|covered| Some(!covered)).collect();
            events = filter_record_batch(&events, &kept)?;
        }
        if events.num_rows() > 0 {
            share.rows += events.num_rows() as u64;
            let Rolled { activity, links, devices } = roll_up_piece(tables, form.month, &events)?;
            let rows_of = [(Table::Activity, activity.num_rows()), (Table::Links, links.len()), (Table::Devices, devices.num_rows())];
            let with_rows: Vec<Table> = rows_of.into_iter().filter(|(_, rows)| *rows > 0).map(|(table, _)| table).collect();
            for (table, rows) in [(Table::Events, &events), (Table::Activity, &activity), (Table::Devices, &devices)] {
                if rows.num_rows() > 0 {
                    share.files.push((table, form.month, self.write(table, form, piece, rows, &with_rows, to_sync)?));
                }
            }
            so_far.links.lock().unwrap_or_else(PoisonError::into_inner).extend(links);
        }
        if so_far.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut links = std::mem::take(&mut *so_far.links.lock().unwrap_or_else(PoisonError::into_inner));
            // Runs that are sorted already are merged. A device is in one piece, so that no pair comes twice.
            links.sort();
            if !links.is_empty() {
                share.files.push((Table::Links, form.month, self.write_links(form, &links, to_sync)?));
            }
        }
        Ok(())
    }

    fn name(&self, table: Table, form: &MonthForm, part: u32, rolled_up: &[Table]) -> String {
        match &form.settled {
            Some(settled) => names::settled_path(form.month, &settled.generation, part, settled.keys),
            None => names::run_path(table, form.month, &self.lease, self.batch, part, rolled_up),
        }
    }

    fn write(
        &self,
        table: Table,
        form: &MonthForm,
        piece: usize,
        rows: &RecordBatch,
        rolled_up: &[Table],
        to_sync: &ToSync,
    ) -> Result<Vec<NewFile>, StoreError> {
        let schema = self.warehouse.tables().file_schema(table);
        let mut rows = conform(table, &schema, rows)?;
        if form.settled.as_ref().is_some_and(|settled| settled.keys == Keys::Dropped) {
            rows = without_keys(&rows)?;
        }
        let first = u32::try_from(piece).unwrap_or(u32::MAX).saturating_mul(FILES_PER_PIECE);
        let name = |part: u32| self.name(table, form, first.saturating_add(part), rolled_up);
        let folder = self.warehouse.table_folder(table);
        let mut writer = RunWriter::new(table, folder, schema, form.settled.is_some(), name).unhashed().synced_by(to_sync);
        for start in (0..rows.num_rows()).step_by(STEP_ROWS) {
            writer.write(&rows.slice(start, (rows.num_rows() - start).min(STEP_ROWS)))?;
        }
        files_of(writer)
    }

    fn write_links(&self, form: &MonthForm, links: &[Link], to_sync: &ToSync) -> Result<Vec<NewFile>, StoreError> {
        let tables = self.warehouse.tables();
        let name = |part: u32| self.name(Table::Links, form, part, &[]);
        let folder = self.warehouse.table_folder(Table::Links);
        let schema = tables.file_schema(Table::Links);
        let mut writer = RunWriter::new(Table::Links, folder, schema, form.settled.is_some(), name).unhashed().synced_by(to_sync);
        for some in links.chunks(STEP_ROWS) {
            writer.write(&links_batch(tables, some)?)?;
        }
        files_of(writer)
    }
}

fn panicked() -> StoreError {
    StoreError::Batch("a thread that writes the batch panicked".into())
}

fn files_of(writer: RunWriter<'_>) -> Result<Vec<NewFile>, StoreError> {
    Ok(writer.finish()?.into_iter().map(|written: Written| written.file).collect())
}

pub(crate) fn write_quarantine(warehouse: &Warehouse, lease: &str, batch: u64, rows: &RecordBatch) -> Result<Files, StoreError> {
    let table = Table::Quarantine;
    let schema = warehouse.tables().file_schema(table);
    let mut files = Files::new();
    for (month, rows) in quarantine_by_month(&conform(table, &schema, rows)?)? {
        let name = |part| names::run_path(table, month, lease, batch, part, &[]);
        let mut writer = RunWriter::new(table, warehouse.table_folder(table), Arc::clone(&schema), false, name).unhashed();
        writer.write(&rows)?;
        files.insert((table, month), files_of(writer)?);
    }
    Ok(files)
}

/// Refuses a batch of other columns than its table has.
fn conform(table: Table, schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch, StoreError> {
    let plain = |data_type: &DataType| match data_type {
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        other => other.clone(),
    };
    if rows.num_columns() != schema.fields().len()
        || rows.schema().fields().iter().zip(schema.fields()).any(|(a, b)| a.name() != b.name() || plain(a.data_type()) != *b.data_type())
    {
        return Err(StoreError::schema(table, "the batch has other columns than `file_schema`"));
    }
    Ok(rows.clone())
}
