//! One batch: quarantine, then events with the source's offsets, then the roll-up.
//!
//! All files are on the disk before the first commit. The batch is in when the
//! commit to `events` is; its roll-up to activity, links and devices follows, and
//! is made up for by `recover` if the process dies in between.

use std::path::PathBuf;
use std::sync::Arc;

use ameles_core::{DeviceId, Month, SuppressionSet, SuppressionSource, Timestamp, UserId};
use ameles_schemas::{Table, TableSchemas};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{SortColumn, SortOptions, filter_record_batch, lexsort_to_indices, nullif, take_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hashbrown::HashMap;

use crate::append_plans::{EventsPlan, QuarantinePlan, RollUpPlan};
use crate::files::{column, optional_pseudonyms};
use crate::log::NewFile;
use crate::names::{Keys, Origin};
use crate::pieces::{Batches, MonthForm, SettledForm, SortedEvents, Writing, Wrote, write_quarantine};
use crate::rewrite::warehouse_round;
use crate::{Maintainer, StoreError, WriterLease, durable};

/// A source's position: the commit that holds the batch moves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// The source, as `kafka:{cluster}:{topic}:{partition}` or `file:{keyed hash}`.
    pub app: String,
    /// Where it must stand; `None` where it must be unknown.
    pub before: Option<i64>,
    /// Where it stands after the batch.
    pub after: i64,
}

/// One batch.
#[derive(Clone, Debug, Default)]
pub struct Append {
    /// Accepted events by month: `file_schema(Table::Events)`, sorted by (device, ts, arrival). A month may come once.
    pub events: Vec<(Month, RecordBatch)>,
    /// Rejected events: `file_schema(Table::Quarantine)`, any order.
    pub quarantine: Option<RecordBatch>,
    /// The sources' positions.
    pub txns: Vec<Txn>,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Appended {
    /// The version of `events` that holds the batch.
    pub events_version: i64,
    /// Rows of `events` in it.
    pub rows: u64,
    /// Rows dropped because they fall under a suppression.
    pub suppressed: u64,
    /// Months that the batch has settled.
    pub settled: Vec<Month>,
}

/// Lets a batch settle the months that have nothing but it: it is sorted and without repeats already.
#[derive(Clone, Copy)]
pub struct Settling<'a> {
    /// Nobody else rewrites a month meanwhile.
    pub maintainer: &'a Maintainer,
    /// Whether a month has closed: its event keys are not stored then.
    pub closed: &'a (dyn Fn(Month) -> bool + Send + Sync),
}

/// The batch's files by table and month.
pub(crate) type Files = HashMap<(Table, Month), Vec<NewFile>>;

impl WriterLease {
    /// Commits a batch; when it returns, the batch is durable.
    ///
    /// A replayed batch's quarantine rows are skipped when all positions of `txns` have been passed in `quarantine` already;
    /// where they have been passed in part, the caller leaves out rows up to `snapshot.txn(Table::Quarantine, app)`.
    ///
    /// # Errors
    /// `TxnMoved` when another process has ingested the source meanwhile: nothing of `events` is committed then.
    /// After any other error the batch may be in: drop the lease, and go on from the positions that a new snapshot's `events` has.
    pub async fn append(&mut self, batch: Append, suppressions: &dyn SuppressionSource) -> Result<Appended, StoreError> {
        let Append { events, quarantine, txns } = batch;
        self.append_sorted(Arc::new(Batches::new(events, quarantine)?), &txns, None, suppressions).await
    }

    /// The same for events that are made piece by piece. Months that have no rows yet are settled by the batch itself where `settling` is given.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_sorted<'a>(
        &'a mut self,
        source: Arc<dyn SortedEvents>,
        txns: &'a [Txn],
        settling: Option<Settling<'a>>,
        suppressions: &'a dyn SuppressionSource,
    ) -> BoxFuture<'a, Result<Appended, StoreError>> {
        async move {
            let mut seen = suppressions.current().await?;
            let mut explained = false;
            loop {
                self.batch += 1;
                let forms = self.forms(source.as_ref(), settling).await?;
                let Wrote { mut files, rows, suppressed, settled } = self.write_events(&source, &forms, &seen).await?;
                if !explained
                // Its rejections stay counted; whose they were is not kept.
                && let Some(rejected) = source.quarantine()?.filter(|rows| rows.num_rows() > 0)
                {
                    let rejected = without_suppressed(&rejected, &seen)?;
                    files.extend(self.write_quarantine(rejected.clone()).await?);
                    self.warehouse.failpoint("append.files_written")?;
                    if let Some(set) = self.commit_quarantine(&files, &rejected, txns, suppressions, &seen).await? {
                        self.delete(&files).await?;
                        seen = set;
                        continue;
                    }
                    explained = true;
                    self.warehouse.failpoint("append.quarantine_committed")?;
                } else {
                    self.warehouse.failpoint("append.files_written")?;
                }
                let mut plan = EventsPlan {
                    lease: self,
                    txns,
                    suppressions,
                    seen: Arc::clone(&seen),
                    source: source.as_ref(),
                    add: of_table(&files, Table::Events),
                    rounds: &settled,
                    gate: None,
                    changed: None,
                };
                let landed = self.warehouse.commit(Table::Events, &mut plan).await;
                let changed = plan.changed.take();
                drop(plan);
                if let Some(set) = changed {
                    // A suppression came in between: the batch is made anew without what it covers.
                    self.delete(&files).await?;
                    seen = set;
                    continue;
                }
                let landed = match landed {
                    Ok(landed) => landed,
                    Err(error) => {
                        if matches!(error, StoreError::TxnMoved { .. }) {
                            self.delete(&files).await?;
                        }
                        return Err(error);
                    }
                };
                self.warehouse.failpoint("append.events_committed")?;
                self.commit_roll_up(&files, &settled).await?;
                let settled = settled.into_iter().map(|(month, _)| month).collect();
                return Ok(Appended { events_version: landed.after, rows, suppressed, settled });
            }
        }
        .boxed()
    }

    /// How each month's files are named: a month that has nothing yet may be settled at once.
    async fn forms(&self, source: &dyn SortedEvents, settling: Option<Settling<'_>>) -> Result<Vec<MonthForm>, StoreError> {
        let months = source.months();
        let Some(Settling { maintainer, closed }) = settling else {
            return Ok(months.into_iter().map(|(month, pieces)| MonthForm { month, pieces, settled: None }).collect());
        };
        let snapshot = self.warehouse.snapshot().await?;
        let generation = maintainer.next_generation();
        let derived = derived_tables(self.warehouse.tables());
        let form = |(month, pieces): (Month, usize)| {
            let mut tables = derived.iter().chain([&Table::Events]);
            let settled = tables.all(|table| snapshot.month_files(*table, month).is_empty()).then(|| SettledForm {
                generation: generation.clone(),
                keys: if closed(month) { Keys::Dropped } else { Keys::Kept },
                round: 1 + warehouse_round(&snapshot, &self.warehouse, month),
            });
            MonthForm { month, pieces, settled }
        };
        Ok(months.into_iter().map(form).collect())
    }

    async fn write_events(
        &self,
        source: &Arc<dyn SortedEvents>,
        forms: &[MonthForm],
        suppressed: &Arc<SuppressionSet>,
    ) -> Result<Wrote, StoreError> {
        let writing = Writing {
            warehouse: self.warehouse.clone(),
            lease: self.id.clone(),
            batch: self.batch,
            source: Arc::clone(source),
            forms: forms.to_vec(),
            suppressed: Arc::clone(suppressed),
        };
        tokio::task::spawn_blocking(move || writing.run()).await?
    }

    async fn write_quarantine(&self, rows: RecordBatch) -> Result<Files, StoreError> {
        let (warehouse, lease, batch) = (self.warehouse.clone(), self.id.clone(), self.batch);
        tokio::task::spawn_blocking(move || write_quarantine(&warehouse, &lease, batch, &rows)).await?
    }

    /// Gives the suppressions when they have come to name a device of the rows: nothing is committed then.
    async fn commit_quarantine(
        &self,
        files: &Files,
        rows: &RecordBatch,
        txns: &[Txn],
        suppressions: &dyn SuppressionSource,
        seen: &Arc<SuppressionSet>,
    ) -> Result<Option<Arc<SuppressionSet>>, StoreError> {
        let add = of_table(files, Table::Quarantine);
        let seen = Arc::clone(seen);
        let mut plan = QuarantinePlan { lease: self, txns, suppressions, seen, rows, add, gate: None, changed: None, committed: false };
        self.warehouse.commit(Table::Quarantine, &mut plan).await?;
        if !plan.committed {
            self.delete_files(Table::Quarantine, std::mem::take(&mut plan.add)).await?;
        }
        Ok(plan.changed.take())
    }

    /// The tables do not wait for each other: none is read with another.
    async fn commit_roll_up(&self, files: &Files, rounds: &[(Month, i64)]) -> Result<(), StoreError> {
        let steps = [
            (Table::Activity, "append.activity_committed"),
            (Table::Links, "append.links_committed"),
            (Table::Devices, "append.devices_committed"),
        ];
        futures::future::try_join_all(steps.map(|(table, point)| async move {
            self.commit_rolled_up(files, table, rounds).await?;
            self.warehouse.failpoint(point)
        }))
        .await
        .map(drop)
    }

    async fn commit_rolled_up(&self, files: &Files, table: Table, rounds: &[(Month, i64)]) -> Result<(), StoreError> {
        let add = of_table(files, table);
        if (add.is_empty() && rounds.is_empty()) || !self.warehouse.tables().tables().contains(&table) {
            return Ok(());
        }
        let mut plan = RollUpPlan { lease: self, files, table, rounds, kept: Vec::new() };
        self.warehouse.commit(table, &mut plan).await?;
        let skipped = add.into_iter().filter(|file| !plan.kept.contains(&file.path)).collect();
        self.delete_files(table, skipped).await
    }

    async fn delete(&self, files: &Files) -> Result<(), StoreError> {
        for table in Table::ALL.into_iter().filter(|table| *table != Table::Quarantine) {
            self.delete_files(table, of_table(files, table)).await?;
        }
        Ok(())
    }

    async fn delete_files(&self, table: Table, files: Vec<NewFile>) -> Result<(), StoreError> {
        if files.is_empty() {
            return Ok(());
        }
        let folder = self.warehouse.table_folder(table);
        let paths: Vec<PathBuf> = files.iter().map(|file| folder.join(&file.path)).collect();
        let done = tokio::task::spawn_blocking(move || durable::delete_files(&paths)).await?;
        done.map(drop).map_err(|source| StoreError::Io { doing: "deleting from", path: folder.display().to_string(), source })
    }
}

fn of_table(files: &Files, table: Table) -> Vec<NewFile> {
    let mut found: Vec<NewFile> = files.iter().filter(|((of, _), _)| *of == table).flat_map(|(_, files)| files.iter().cloned()).collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Sorts quarantine rows by (device, at), nulls first, and parts them by the month of `at`.
pub(crate) fn quarantine_by_month(rows: &RecordBatch) -> Result<Vec<(Month, RecordBatch)>, StoreError> {
    let nulls_first = Some(SortOptions { descending: false, nulls_first: true });
    let by = ["device", "at"].map(|name| column(rows, name).map(|values| SortColumn { values: Arc::clone(values), options: nulls_first }));
    let by = by.into_iter().collect::<Result<Vec<_>, _>>()?;
    let rows = take_record_batch(rows, &lexsort_to_indices(&by, None)?)?;
    let months: Vec<Month> = times(column(&rows, "at")?)?.into_iter().map(Timestamp::month).collect();
    let mut distinct = months.clone();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
        .into_iter()
        .map(|month| {
            let mask: BooleanArray = months.iter().map(|of| Some(*of == month)).collect();
            Ok((month, filter_record_batch(&rows, &mask)?))
        })
        .collect()
}

pub(crate) fn times(column: &ArrayRef) -> Result<Vec<Timestamp>, StoreError> {
    let column =
        column.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| StoreError::Batch("a time column is no timestamp".into()))?;
    Ok(column.values().iter().map(|at| Timestamp::from_micros(*at)).collect())
}

/// For each event whether a suppression covers it.
pub(crate) fn covered(events: &RecordBatch, set: &SuppressionSet) -> Result<Vec<bool>, StoreError> {
    if set.is_empty() {
        return Ok(vec![false; events.num_rows()]);
    }
    let bad = |_| StoreError::Batch("a pseudonym has not 16 bytes".into());
    let binary =
        |name: &str| column(events, name)?.as_binary_opt::<i32>().ok_or_else(|| StoreError::Batch(format!("column {name} is not binary")));
    let devices = binary("device")?;
    let users = if events.column_by_name("user").is_some() { Some(binary("user")?) } else { None };
    let at = times(column(events, "ts")?)?;
    (0..events.num_rows())
        .map(|row| {
            let device = DeviceId::from_slice(devices.value(row)).map_err(bad)?;
            let user =
                users.filter(|users| !users.is_null(row)).map(|users| UserId::from_slice(users.value(row)).map_err(bad)).transpose()?;
            Ok(set.covers(device, user, at[row]))
        })
        .collect()
}

/// For each quarantine row whether a suppression covers its device.
pub(crate) fn covered_rejections(rows: &RecordBatch, set: &SuppressionSet) -> Result<BooleanArray, StoreError> {
    let devices = optional_pseudonyms(column(rows, "device")?, "device")?;
    let at = times(column(rows, "at")?)?;
    let covers = |(device, at): (Option<u128>, Timestamp)| {
        Some(device.is_some_and(|device| set.covers(DeviceId::from_bytes(device.to_be_bytes()), None, at)))
    };
    Ok(devices.into_iter().zip(at).map(covers).collect())
}

/// Quarantine rows without the pseudonyms of suppressed devices.
fn without_suppressed(rows: &RecordBatch, set: &SuppressionSet) -> Result<RecordBatch, StoreError> {
    if set.is_empty() {
        return Ok(rows.clone());
    }
    let covered = covered_rejections(rows, set)?;
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| match field.name().as_str() {
        "device" => nullif(column, &covered),
        _ => Ok(Arc::clone(column)),
    });
    Ok(RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<Vec<_>, _>>()?)?)
}

/// The batch that a file belongs to.
pub(crate) fn batch_of(origin: &Origin) -> Option<(&str, u64)> {
    match origin {
        Origin::Run { lease, batch, .. } => Some((lease, *batch)),
        Origin::Settled { .. } | Origin::Merged { .. } => None,
    }
}

/// The tables that are rolled up from events.
pub(crate) fn derived_tables(tables: &TableSchemas) -> Vec<Table> {
    tables.tables().into_iter().filter(|table| !table.key_columns().is_empty()).collect()
}
