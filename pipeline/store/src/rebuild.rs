//! A month's activity, links and devices made anew from its events, where what
//! is stored differs.
//!
//! Nothing but damage, or a mistake of ours, makes them differ. So the month is
//! merged as if it were settled, what that gives is compared with what is
//! stored, row by row, and only where a table differs is anything committed: the
//! month's round goes up in `events` first, then the tables follow. A crash in
//! between leaves rounds that differ, and `recover`, or the next rebuild, ends it.

use std::sync::Arc;
use std::time::Duration;

use ameles_core::{Month, SuppressionSet};
use ameles_schemas::Table;
use async_trait::async_trait;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::Serialize;

use crate::append::{batch_of, derived_tables};
use crate::commit::{Decision, Plan};
use crate::files::{Rows, RunReader, Written};
use crate::fold::{Folded, keys};
use crate::log::{Change, LogState};
use crate::merge::Key;
use crate::recover::not_rolled_up;
use crate::rewrite::{RowProgress, Scope, committed, in_line, round_app, warehouse_round};
use crate::rows::hash_rows;
use crate::settle::Settled;
use crate::snapshot::{one_generation, runs};
use crate::{DataFile, Maintainer, Rewrite, Snapshot, StoreError, Warehouse, durable};

/// A writer commits its roll-up within moments of its events.
const LOOKS_FOR_ROLL_UP: u32 = 50;
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a table's month was found to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableRebuild {
    /// The table's name.
    pub table: &'static str,
    /// Rows that the events give.
    pub rows: u64,
    /// Of these, rows that were not stored.
    pub missing: u64,
    /// Rows stored that the events do not give.
    pub surplus: u64,
    /// Rows stored with other values than the events give.
    pub changed: u64,
    /// Why what was stored could not be read to its end.
    pub unreadable: Option<String>,
}

impl TableRebuild {
    /// Whether what was stored is what the events give.
    pub fn is_same(&self) -> bool {
        self.missing == 0 && self.surplus == 0 && self.changed == 0 && self.unreadable.is_none()
    }
}

/// What was found in a month, and whether it was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MonthRebuild {
    /// Rows of `events`.
    pub events: u64,
    /// Repeats among them that the rebuild has dropped: a month that is still open may hold some.
    pub duplicates: u64,
    /// The tables.
    pub tables: Vec<TableRebuild>,
    /// Whether the month was replaced in all tables.
    pub replaced: bool,
}

impl Maintainer {
    /// Makes a month's activity, links and devices from its events, without what `suppressed` covers, and replaces what is stored where it differs.
    ///
    /// `suppressed` is what erasures have carried out, read under this lock: none can end meanwhile.
    ///
    /// # Errors
    /// When the month has rows but no events, or storage fails; before the first commit the month is as it was.
    pub fn rebuild_month<'a>(
        &'a self,
        month: Month,
        suppressed: Arc<SuppressionSet>,
        progress: RowProgress<'a>,
    ) -> BoxFuture<'a, Result<MonthRebuild, StoreError>> {
        async move {
            let _claim = self.claim(month)?;
            let warehouse = &self.warehouse;
            let snapshot = self.rolled_up(month).await?;
            let inputs = snapshot.month_files(Table::Events, month).to_vec();
            if let Some(table) =
                derived_tables(warehouse.tables()).into_iter().find(|table| !snapshot.month_files(*table, month).is_empty())
                && inputs.is_empty()
            {
                return Err(StoreError::Batch(format!(
                    "{month} has rows in {table} but no events, from which alone they could be made anew; it stays as it is"
                )));
            }
            let spec = Rewrite { suppressed, closed: false };
            let settled = self.merge(month, &inputs, None, &spec, progress).await?;
            let mut tables = Vec::new();
            for table in derived_tables(warehouse.tables()) {
                let stored = snapshot.month_files(table, month).to_vec();
                let made = settled.files.get(&table).cloned().unwrap_or_default();
                let warehouse = warehouse.clone();
                tables.push(tokio::task::spawn_blocking(move || compare(&warehouse, table, month, &stored, &made)).await??);
            }
            // Where a rewrite was interrupted the tables may agree, and their rounds do not.
            let replaced = !tables.iter().all(TableRebuild::is_same) || !in_line(&snapshot, warehouse, month);
            if replaced {
                self.put_in_place(&snapshot, month, &inputs, &settled).await?;
            } else {
                self.discard(&settled).await?;
            }
            let duplicates = if replaced { settled.duplicates() } else { 0 };
            Ok(MonthRebuild { events: settled.rows_after, duplicates, tables, replaced })
        }
        .boxed()
    }

    /// A snapshot in which no living writer's roll-up of the month is on its way.
    async fn rolled_up(&self, month: Month) -> Result<Arc<Snapshot>, StoreError> {
        let mut looks = 0;
        loop {
            let snapshot = self.warehouse.snapshot().await?;
            let mut due = false;
            for table in derived_tables(self.warehouse.tables()) {
                for file in not_rolled_up(&snapshot, table).into_iter().filter(|file| file.month == month) {
                    if let Some((lease, _)) = batch_of(&file.origin) {
                        due |= !self.warehouse.is_dead(lease)?;
                    }
                }
            }
            looks += 1;
            if !due || looks == LOOKS_FOR_ROLL_UP {
                return Ok(snapshot);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn put_in_place(&self, snapshot: &Snapshot, month: Month, inputs: &[DataFile], settled: &Settled) -> Result<(), StoreError> {
        let as_they_are = one_generation(inputs) && settled.erased == 0 && settled.duplicates() == 0;
        if as_they_are {
            let round = 1 + warehouse_round(snapshot, &self.warehouse, month);
            self.delete(Table::Events, settled.files.get(&Table::Events).map_or(&[], Vec::as_slice)).await?;
            self.warehouse.commit(Table::Events, &mut Round { month, round, inputs }).await?;
        } else {
            self.replace(snapshot, Table::Events, month, inputs, settled, Scope::Month).await?;
        }
        committed(&self.warehouse, Table::Events)?;
        for table in derived_tables(self.warehouse.tables()) {
            self.replace(snapshot, table, month, inputs, settled, Scope::Month).await?;
            committed(&self.warehouse, table)?;
        }
        Ok(())
    }

    async fn delete(&self, table: Table, written: &[Written]) -> Result<(), StoreError> {
        let folder = self.warehouse.table_folder(table);
        let paths: Vec<_> = written.iter().map(|written| folder.join(&written.file.path)).collect();
        let deleted = tokio::task::spawn_blocking(move || durable::delete_files(&paths)).await?;
        deleted.map(drop).map_err(|source| StoreError::Io { doing: "deleting from", path: folder.display().to_string(), source })
    }
}

/// Counts a rebuild in `events`, whose files stay.
struct Round<'a> {
    month: Month,
    round: i64,
    inputs: &'a [DataFile],
}

#[async_trait]
impl Plan for Round<'_> {
    async fn decide(&mut self, state: &Arc<LogState>) -> Result<Decision, StoreError> {
        let app = round_app(self.month);
        if state.txns.get(&app) == Some(&self.round) {
            return Ok(Decision::Done);
        }
        if !self.inputs.iter().all(|file| state.is_live(&file.path)) {
            return Err(StoreError::FilesReplaced { table: Table::Events.as_str() });
        }
        Ok(Decision::Commit(Change { operation: "rebuild", txns: vec![(app, self.round)], ..Change::default() }))
    }
}

/// Keys and hashes of sorted rows, one at a time.
struct Hashed<'a> {
    table: Table,
    rows: Box<dyn Rows + 'a>,
    batch: std::vec::IntoIter<(Key, u128)>,
    last: Option<Key>,
}

impl Hashed<'_> {
    fn next(&mut self) -> Result<Option<(Key, u128)>, StoreError> {
        loop {
            if let Some(row) = self.batch.next() {
                if self.last.is_some_and(|last| last >= row.0) {
                    return Err(StoreError::Batch(format!("rows of {} are out of order", self.table)));
                }
                self.last = Some(row.0);
                return Ok(Some(row));
            }
            let Some(batch) = self.rows.next_batch()? else { return Ok(None) };
            self.batch = keys(self.table, &batch)?.into_iter().zip(hash_rows(&batch, None)?).collect::<Vec<_>>().into_iter();
        }
    }
}

fn compare(warehouse: &Warehouse, table: Table, month: Month, stored: &[DataFile], made: &[Written]) -> Result<TableRebuild, StoreError> {
    let (tables, folder) = (warehouse.tables(), warehouse.table_folder(table));
    let schema = tables.file_schema(table);
    let hashed = |rows| Hashed { table, rows, batch: Vec::new().into_iter(), last: None };
    let run = |files: Vec<DataFile>| Box::new(RunReader::new(folder.clone(), files, Arc::clone(&schema))) as Box<dyn Rows>;
    let files = made.iter().map(|written| DataFile::unlisted(&written.file.path, month)).collect();
    let mut made = hashed(run(files));
    let mut stored = hashed(Box::new(Folded::new(tables, table, Arc::clone(&schema), runs(stored).into_iter().map(run).collect())));
    let mut found = TableRebuild { table: table.as_str(), rows: 0, missing: 0, surplus: 0, changed: 0, unreadable: None };
    let mut read = |found: &mut TableRebuild| match stored.next() {
        Ok(row) => row,
        // What cannot be read is not there; the caller asks no more.
        Err(error) => {
            found.unreadable = Some(error.to_string());
            None
        }
    };
    let (mut ours, mut theirs) = (made.next()?, read(&mut found));
    loop {
        match (ours, theirs) {
            (None, None) => return Ok(found),
            (Some((key, hash)), Some((other, other_hash))) if key == other => {
                found.rows += 1;
                found.changed += u64::from(hash != other_hash);
                (ours, theirs) = (made.next()?, read(&mut found));
            }
            (Some((key, _)), other) if other.is_none_or(|(other, _)| key < other) => {
                found.rows += 1;
                found.missing += 1;
                ours = made.next()?;
            }
            _ => {
                found.surplus += 1;
                theirs = read(&mut found);
            }
        }
    }
}
