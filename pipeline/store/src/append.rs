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
use hashbrown::HashMap;

use crate::append_plans::{EventsPlan, QuarantinePlan, RollUpPlan};
use crate::files::{RunWriter, Written, column, optional_pseudonyms};
use crate::log::NewFile;
use crate::names::{self, Origin};
use crate::rollup::roll_up;
use crate::{StoreError, Warehouse, WriterLease, durable};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Appended {
    /// The version of `events` that holds the batch.
    pub events_version: i64,
    /// Rows of `events` in it.
    pub rows: u64,
    /// Rows dropped because they fall under a suppression.
    pub suppressed: u64,
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
        let mut rest = batch.events;
        rest.retain(|(_, events)| events.num_rows() > 0);
        rest.sort_by_key(|(month, _)| *month);
        let mut quarantine = batch.quarantine.filter(|rows| rows.num_rows() > 0);
        let mut seen = suppressions.current().await?;
        let mut suppressed = drop_covered(&mut rest, &seen)?;
        loop {
            self.batch += 1;
            // Its rejections stay counted; whose they were is not kept.
            quarantine = quarantine.map(|rows| without_suppressed(&rows, &seen)).transpose()?;
            let rows = rest.iter().map(|(_, events)| events.num_rows() as u64).sum();
            let files = self.write_files(rest.clone(), quarantine.clone()).await?;
            self.warehouse.failpoint("append.files_written")?;
            if let Some(rejected) = &quarantine {
                if let Some(set) = self.commit_quarantine(&files, rejected, &batch.txns, suppressions, &seen).await? {
                    self.delete(&files).await?;
                    seen = set;
                    suppressed += drop_covered(&mut rest, &seen)?;
                    continue;
                }
                quarantine = None;
                self.warehouse.failpoint("append.quarantine_committed")?;
            }
            let mut plan = EventsPlan {
                lease: self,
                txns: &batch.txns,
                suppressions,
                seen: Arc::clone(&seen),
                rest: &rest,
                add: of_table(&files, Table::Events),
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
                suppressed += drop_covered(&mut rest, &seen)?;
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
            self.commit_roll_up(&files).await?;
            return Ok(Appended { events_version: landed.after, rows, suppressed });
        }
    }

    async fn write_files(&self, events: Vec<(Month, RecordBatch)>, quarantine: Option<RecordBatch>) -> Result<Files, StoreError> {
        let writing = Writing { warehouse: self.warehouse.clone(), lease: self.id.clone(), batch: self.batch };
        tokio::task::spawn_blocking(move || {
            let mut files = Files::new();
            for (month, events) in &events {
                writing.month(*month, events, &mut files)?;
            }
            if let Some(rows) = quarantine {
                writing.quarantine(&rows, &mut files)?;
            }
            Ok(files)
        })
        .await?
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
    async fn commit_roll_up(&self, files: &Files) -> Result<(), StoreError> {
        let steps = [
            (Table::Activity, "append.activity_committed"),
            (Table::Links, "append.links_committed"),
            (Table::Devices, "append.devices_committed"),
        ];
        futures::future::try_join_all(steps.map(|(table, point)| async move {
            self.commit_rolled_up(files, table).await?;
            self.warehouse.failpoint(point)
        }))
        .await
        .map(drop)
    }

    async fn commit_rolled_up(&self, files: &Files, table: Table) -> Result<(), StoreError> {
        let add = of_table(files, table);
        if add.is_empty() {
            return Ok(());
        }
        let mut plan = RollUpPlan { lease: self, files, table, kept: Vec::new() };
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

/// Writes a batch's files.
struct Writing {
    warehouse: Warehouse,
    lease: String,
    batch: u64,
}

impl Writing {
    fn write(&self, table: Table, month: Month, rows: &RecordBatch, rolled_up: &[Table]) -> Result<Vec<NewFile>, StoreError> {
        let schema = self.warehouse.tables().file_schema(table);
        let rows = conform(table, &schema, rows)?;
        let name = |part| names::run_path(table, month, &self.lease, self.batch, part, rolled_up);
        let mut writer = RunWriter::new(table, self.warehouse.table_folder(table), schema, false, name);
        // In steps, so that a file that has become too large ends.
        for start in (0..rows.num_rows()).step_by(128 << 10) {
            writer.write(&rows.slice(start, (rows.num_rows() - start).min(128 << 10)))?;
        }
        Ok(writer.finish()?.into_iter().map(|written: Written| written.file).collect())
    }

    /// The run of events and its roll-up, side by side.
    fn month(&self, month: Month, events: &RecordBatch, files: &mut Files) -> Result<(), StoreError> {
        if files.contains_key(&(Table::Events, month)) {
            return Err(StoreError::Batch(format!("month {month} comes twice")));
        }
        let expected = self.tables_with_rows(events)?;
        let (run, rolled) = std::thread::scope(|scope| {
            let rolling = scope.spawn(|| self.roll_up(month, events));
            let run = self.write(Table::Events, month, events, &expected);
            (run, rolling.join())
        });
        let rolled = rolled.map_err(|_| StoreError::Batch("the roll-up panicked".into()))??;
        let mut rolled_up: Vec<Table> = rolled.iter().map(|(table, _)| *table).collect();
        rolled_up.sort_unstable();
        if rolled_up != expected {
            return Err(StoreError::Batch("the roll-up has rows in other tables than its run says".into()));
        }
        files.insert((Table::Events, month), run?);
        files.extend(rolled.into_iter().map(|(table, files)| ((table, month), files)));
        Ok(())
    }

    /// The tables that the roll-up of events will have rows in, in order.
    fn tables_with_rows(&self, events: &RecordBatch) -> Result<Vec<Table>, StoreError> {
        let mut with_rows = vec![Table::Activity];
        let tables = self.warehouse.tables();
        if tables.has_user && column(events, "user")?.null_count() < events.num_rows() {
            with_rows.push(Table::Links);
        }
        let types = column(events, "type")?.as_string_opt::<i32>().ok_or_else(|| StoreError::Batch("column type is no string".into()))?;
        if types.iter().flatten().any(|event_type| tables.activates(event_type)) {
            with_rows.push(Table::Devices);
        }
        Ok(with_rows)
    }

    fn roll_up(&self, month: Month, events: &RecordBatch) -> Result<Vec<(Table, Vec<NewFile>)>, StoreError> {
        let rolled = roll_up(self.warehouse.tables(), month, events)?;
        let with_rows = [Table::Activity, Table::Links, Table::Devices].into_iter().filter_map(|table| Some((table, rolled.of(table)?)));
        with_rows.filter(|(_, rows)| rows.num_rows() > 0).map(|(table, rows)| Ok((table, self.write(table, month, rows, &[])?))).collect()
    }

    fn quarantine(&self, rows: &RecordBatch, files: &mut Files) -> Result<(), StoreError> {
        for (month, rows) in quarantine_by_month(rows)? {
            files.insert((Table::Quarantine, month), self.write(Table::Quarantine, month, &rows, &[])?);
        }
        Ok(())
    }
}

/// The batch under the table's own schema; refuses other columns.
fn conform(table: Table, schema: &arrow::datatypes::SchemaRef, rows: &RecordBatch) -> Result<RecordBatch, StoreError> {
    if rows.num_columns() != schema.fields().len()
        || rows.schema().fields().iter().zip(schema.fields()).any(|(a, b)| a.name() != b.name() || a.data_type() != b.data_type())
    {
        return Err(StoreError::schema(table, "the batch has other columns than `file_schema`"));
    }
    Ok(RecordBatch::try_new(Arc::clone(schema), rows.columns().to_vec())?)
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

fn times(column: &ArrayRef) -> Result<Vec<Timestamp>, StoreError> {
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

/// Drops covered rows and months that have none left; returns how many rows went.
fn drop_covered(events: &mut Vec<(Month, RecordBatch)>, set: &SuppressionSet) -> Result<u64, StoreError> {
    let mut dropped = 0;
    for (_, events) in events.iter_mut() {
        let covered = covered(events, set)?;
        let count = covered.iter().filter(|covered| **covered).count();
        if count > 0 {
            dropped += count as u64;
            let kept: BooleanArray = covered.iter().map(|covered| Some(!covered)).collect();
            *events = filter_record_batch(events, &kept)?;
        }
    }
    events.retain(|(_, events)| events.num_rows() > 0);
    Ok(dropped)
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
