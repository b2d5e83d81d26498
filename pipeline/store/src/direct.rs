//! Settled months written directly, from rows that never were events.
//!
//! What a benchmark of queries reads is `activity`, `links` and `devices`;
//! events a hundred times as many would only be rolled up into them. Such a
//! warehouse is no one's data: it has no `events`, so nothing can be made anew
//! from them, an erasure in its months is refused, and a backfill into one
//! replaces the month by what it brings.
//!
//! Files, names, tags and transactions are those of a month that has been
//! settled after it had closed: readers take them as such. `events` is committed
//! last, without files. A crash before that leaves months whose rounds differ,
//! and `recover` takes their rows away.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use ameles_core::Month;
use ameles_schemas::Table;
use arrow::array::{AsArray, RecordBatch};
use async_trait::async_trait;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::append::derived_tables;
use crate::commit::{Decision, Plan};
use crate::files::{RunWriter, column};
use crate::log::{Change, LogState, NewFile};
use crate::names::{self, Keys};
use crate::progress::{Counter, counted};
use crate::rewrite::{RowProgress, round_app, warehouse_round};
use crate::{Maintainer, Snapshot, StoreError, Warehouse};

/// Files that one range may become; its numbers are set aside.
const FILES_PER_RANGE: u32 = 1 << 10;

/// Takes rows in their order.
pub type RowSink<'a> = &'a mut dyn FnMut(&RecordBatch) -> Result<(), StoreError>;

/// Rows of `activity`, `links` and `devices`, made while they are written.
pub trait SettledRows: Send + Sync + 'static {
    /// The months, ascending, each once.
    fn months(&self) -> Vec<Month>;

    /// How many ranges of its first sort column a table's month comes in (by the month's number); they are written side by side.
    fn ranges(&self, table: Table, month: usize) -> usize;

    /// Hands the rows of a range to `sink`, at most some ten thousand at once: `file_schema(table)` without event keys, one row per key, sorted;
    /// text may come as a dictionary. Ranges ascend, and no key is in two.
    ///
    /// # Errors
    /// When the columns cannot be put together, or `sink` fails.
    fn rows(&self, table: Table, month: usize, range: usize, sink: RowSink<'_>) -> Result<(), StoreError>;
}

/// What was written of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenTable {
    /// The table.
    pub table: Table,
    /// Rows.
    pub rows: u64,
    /// Files.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
}

impl Maintainer {
    /// Fills an empty warehouse with settled months that have no events; `progress` hears of rows.
    ///
    /// # Errors
    /// When the warehouse has rows already, rows come out of order, or storage fails.
    pub fn write_settled<'a>(
        &'a self,
        source: Arc<dyn SettledRows>,
        progress: RowProgress<'a>,
    ) -> BoxFuture<'a, Result<Vec<WrittenTable>, StoreError>> {
        async move {
            let snapshot = self.warehouse.snapshot().await?;
            if !snapshot.is_empty(&self.warehouse) {
                return Err(not_empty());
            }
            let months = source.months();
            if !months.is_sorted_by(|a, b| a < b) {
                return Err(StoreError::Batch("the months do not ascend".into()));
            }
            let rounds: Vec<(Month, i64)> =
                months.iter().map(|month| (*month, 1 + warehouse_round(&snapshot, &self.warehouse, *month))).collect();
            let writing = Writing { warehouse: self.warehouse.clone(), generation: self.next_generation(), months, source };
            let files = counted(move |counter| writing.run(&counter), progress).await?;
            let mut written = Vec::new();
            for table in derived_tables(self.warehouse.tables()).into_iter().chain([Table::Events]) {
                let mut add: Vec<NewFile> = files.iter().filter(|(of, _)| *of == table).map(|(_, file)| file.clone()).collect();
                add.sort_by(|a, b| a.path.cmp(&b.path));
                if table != Table::Events {
                    let (rows, bytes) = (add.iter().map(|file| file.rows).sum(), add.iter().map(|file| file.size).sum());
                    written.push(WrittenTable { table, rows, files: add.len(), bytes });
                }
                self.warehouse.commit(table, &mut DirectPlan { add, rounds: &rounds }).await?;
                self.warehouse.failpoint("direct.committed")?;
            }
            Ok(written)
        }
        .boxed()
    }
}

impl Snapshot {
    /// Whether no table has a file.
    pub fn is_empty(&self, warehouse: &Warehouse) -> bool {
        warehouse.tables().tables().into_iter().all(|table| self.files(table).is_empty())
    }
}

fn not_empty() -> StoreError {
    StoreError::Batch("the warehouse has rows already, and nothing can be added to it in this way; make a new home".into())
}

struct Writing {
    warehouse: Warehouse,
    generation: String,
    months: Vec<Month>,
    source: Arc<dyn SettledRows>,
}

/// One range of a month of a table, by their numbers.
#[derive(Clone, Copy)]
struct Range {
    table: Table,
    month: usize,
    range: usize,
}

impl Writing {
    fn run(&self, counter: &Counter) -> Result<Vec<(Table, NewFile)>, StoreError> {
        let tables = derived_tables(self.warehouse.tables());
        let of_table = |month: usize, table: Table| (0..self.source.ranges(table, month)).map(move |range| Range { table, month, range });
        let of_month = |month: usize| tables.iter().flat_map(move |table| of_table(month, *table));
        let ranges: VecDeque<Range> = (0..self.months.len()).flat_map(of_month).collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(ranges.len()).max(1);
        let queue = Mutex::new(ranges);
        let work = || -> Result<Vec<(Table, NewFile)>, StoreError> {
            let mut files = Vec::new();
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(range) = next else { return Ok(files) };
                match self.write(range, counter) {
                    Ok(written) => files.extend(written.into_iter().map(|file| (range.table, file))),
                    Err(error) => {
                        // The others stop too: nothing will be committed.
                        queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
                        return Err(error);
                    }
                }
            }
        };
        let shares: Vec<Result<Vec<(Table, NewFile)>, StoreError>> = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            let panicked = |_| Err(StoreError::Batch("a thread that writes the rows panicked".into()));
            others.into_iter().map(|other| other.join().unwrap_or_else(panicked)).chain([own]).collect()
        });
        let mut files = Vec::new();
        for share in shares {
            files.extend(share?);
        }
        Ok(files)
    }

    fn write(&self, Range { table, month, range }: Range, counter: &Counter) -> Result<Vec<NewFile>, StoreError> {
        let first = u32::try_from(range).unwrap_or(u32::MAX).saturating_mul(FILES_PER_RANGE);
        let name = |part: u32| names::settled_path(self.months[month], &self.generation, first.saturating_add(part), Keys::Dropped);
        let schema = self.warehouse.tables().file_schema(table);
        let mut writer = RunWriter::new(table, self.warehouse.table_folder(table), schema, true, name).unhashed();
        let mut last: Option<(Vec<u8>, Vec<u8>)> = None;
        self.source.rows(table, month, range, &mut |rows| {
            check_order(table, rows, &mut last)?;
            counter.add(rows.num_rows() as u64);
            writer.write(rows)
        })?;
        Ok(writer.finish()?.into_iter().map(|written| written.file).collect())
    }
}

/// Keys ascend, and none comes twice; `last` is the last one seen.
fn check_order(table: Table, rows: &RecordBatch, last: &mut Option<(Vec<u8>, Vec<u8>)>) -> Result<(), StoreError> {
    let bad = || StoreError::Batch(format!("rows of {table} are not sorted by its key"));
    let binary = |name: &str| column(rows, name)?.as_binary_opt::<i32>().ok_or_else(bad);
    let keys = table.key_columns();
    let first = binary(keys.first().copied().unwrap_or_default())?;
    let second = keys.get(1).map(|name| binary(name)).transpose()?;
    let key = |row: usize| (first.value(row), second.map_or(&[][..], |second| second.value(row)));
    let follows = |row: usize| match (row, last.as_ref()) {
        (0, None) => true,
        (0, Some((first, second))) => (first.as_slice(), second.as_slice()) < key(0),
        _ => key(row - 1) < key(row),
    };
    if !(0..rows.num_rows()).all(follows) {
        return Err(bad());
    }
    if let Some(row) = rows.num_rows().checked_sub(1) {
        *last = Some((key(row).0.to_vec(), key(row).1.to_vec()));
    }
    Ok(())
}

/// A table's files, where it has none yet.
struct DirectPlan<'a> {
    add: Vec<NewFile>,
    rounds: &'a [(Month, i64)],
}

#[async_trait]
impl Plan for DirectPlan<'_> {
    async fn decide(&mut self, state: &Arc<LogState>) -> Result<Decision, StoreError> {
        if !state.files.is_empty() {
            return Err(not_empty());
        }
        let txns = self.rounds.iter().map(|(month, round)| (round_app(*month), *round)).collect();
        Ok(Decision::Commit(Change { operation: "direct", data_change: true, add: self.add.clone(), txns, ..Change::default() }))
    }
}
