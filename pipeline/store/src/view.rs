//! What queries read: merged rows of one snapshot, less what is pending erasure.
//!
//! A device that a pending suppression touches is left out of every stored
//! partial row, and comes back as what its remaining events give.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ameles_core::{Month, SuppressionSet, Timestamp};
use ameles_schemas::{Table, TableSchemas};
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hashbrown::{HashMap, HashSet};

use crate::affected::{resolve, some_columns, sorted};
use crate::append::covered;
use crate::files::{InMemory, Rows, RunReader, column, pseudonyms};
use crate::fold::{Folded, columns_to_read};
use crate::merge::Merger;
use crate::provider::{MonthProvider, Part, stream};
use crate::rollup::{RolledUp, roll_up};
use crate::scan::Layout;
use crate::settle::in_order;
use crate::snapshot::{one_generation, runs};
use crate::{DataFile, SNAPSHOTS_MAX, Snapshot, StoreError, Warehouse};

/// One snapshot with one state of the suppressions.
pub struct ReadView {
    warehouse: Warehouse,
    snapshot: Arc<Snapshot>,
    sequence: u64,
    pending: SuppressionSet,
    /// Devices of which some row is pending erasure.
    touched: HashSet<u128>,
    touched_sorted: Arc<Vec<[u8; 16]>>,
    /// What the touched devices' remaining events give, by month, made when it is first asked for.
    overlays: Mutex<HashMap<Month, Arc<Overlay>>>,
    /// Footers that have been read, one a file of the snapshot.
    layouts: Mutex<HashMap<(Table, String), Arc<Layout>>>,
}

type Overlay = Mutex<Option<Arc<RolledUp>>>;

impl fmt::Debug for ReadView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadView").field("sequence", &self.sequence).field("touched", &self.touched.len()).finish_non_exhaustive()
    }
}

impl ReadView {
    /// Opens the tables as they stand now; `suppressions` is the whole set, of which the pending part is left out of every answer.
    ///
    /// # Errors
    /// When storage fails.
    pub fn open<'a>(warehouse: &'a Warehouse, suppressions: Arc<SuppressionSet>) -> BoxFuture<'a, Result<Arc<Self>, StoreError>> {
        async move {
            let mut attempt = 1;
            loop {
                match Self::try_open(warehouse, &suppressions).await {
                    // A purge took files away between the log and the look at them: a new snapshot names others.
                    Err(error) if error.is_vanished_file() && attempt < SNAPSHOTS_MAX => attempt += 1,
                    opened => return opened,
                }
            }
        }
        .boxed()
    }

    async fn try_open(warehouse: &Warehouse, suppressions: &SuppressionSet) -> Result<Arc<Self>, StoreError> {
        let snapshot = warehouse.snapshot().await?;
        let (warehouse, sequence, pending) = (warehouse.clone(), suppressions.sequence(), suppressions.pending());
        tokio::task::spawn_blocking(move || {
            for table in warehouse.tables().tables() {
                let folder = warehouse.table_folder(table);
                for file in snapshot.files(table) {
                    let path = folder.join(&file.path);
                    std::fs::metadata(&path).map_err(|source| StoreError::Io {
                        doing: "looking at",
                        path: path.display().to_string(),
                        source,
                    })?;
                }
            }
            let mut touched = HashSet::new();
            let mut pending = pending;
            if !pending.is_empty() {
                let found = resolve(&warehouse, &snapshot, &pending)?;
                touched.extend(pending.touched_devices().iter().chain(&found.devices).map(|device| device.as_u128()));
                pending = pending.with_userless(found.userless, Timestamp::MAX);
            }
            let touched_sorted = sorted(touched.iter().map(|device: &u128| device.to_be_bytes()));
            let (overlays, layouts) = (Mutex::default(), Mutex::default());
            Ok(Arc::new(Self { warehouse, snapshot, sequence, pending, touched, touched_sorted, overlays, layouts }))
        })
        .await?
    }

    /// The table's rows: `schema(table)` with `month`; one row per key and month for activity, links and devices, in the table's order within a partition.
    ///
    /// # Errors
    /// When the contract has no such table.
    pub fn provider(self: &Arc<Self>, table: Table) -> Result<Arc<dyn TableProvider>, StoreError> {
        self.check(table)?;
        Ok(Arc::new(MonthProvider::new(Arc::clone(self), table)))
    }

    /// One month's rows of a table in its order, without DataFusion around it; `columns` names those wanted, in that order (all of `schema(table)` if none are named).
    ///
    /// # Errors
    /// When a column is unknown. Must be called within a tokio runtime.
    pub fn month_stream(
        self: &Arc<Self>,
        table: Table,
        month: Month,
        columns: Option<&[&str]>,
    ) -> Result<SendableRecordBatchStream, StoreError> {
        self.check(table)?;
        let all = self.tables().schema(table);
        let schema = match columns {
            Some(names) => {
                let fields = names.iter().map(|name| all.field_with_name(name).cloned()).collect::<Result<Vec<_>, _>>();
                Arc::new(Schema::new(fields.map_err(|error| StoreError::schema(table, error.to_string()))?))
            }
            None => all,
        };
        let files = self.snapshot.month_files(table, month).to_vec();
        Ok(stream(Arc::clone(self), table, Part { month, files }, schema, None))
    }

    /// Rows of some of a month's files of `events`, in no order across files, less what is pending erasure: for who wants what was committed lately.
    ///
    /// # Errors
    /// When a column is unknown. Must be called within a tokio runtime.
    pub fn events_stream(
        self: &Arc<Self>,
        month: Month,
        files: Vec<DataFile>,
        columns: &[&str],
    ) -> Result<SendableRecordBatchStream, StoreError> {
        let all = self.tables().schema(Table::Events);
        let fields = columns.iter().map(|name| all.field_with_name(name).cloned()).collect::<Result<Vec<_>, _>>();
        let schema = Arc::new(Schema::new(fields.map_err(|error| StoreError::schema(Table::Events, error.to_string()))?));
        Ok(stream(Arc::clone(self), Table::Events, Part { month, files }, schema, None))
    }

    fn check(&self, table: Table) -> Result<(), StoreError> {
        if self.tables().tables().contains(&table) {
            Ok(())
        } else {
            Err(StoreError::schema(table, "the contract names no user, so there is no such table"))
        }
    }

    /// Months that have rows in a table.
    pub fn months(&self, table: Table) -> Vec<Month> {
        self.snapshot.months(table).into_iter().collect()
    }

    /// Rows of a table's month where the files' footers tell: settled, and nothing pending touches it.
    pub fn exact_rows(&self, table: Table, month: Month) -> Option<u64> {
        let files = self.snapshot.month_files(table, month);
        self.is_plain(table, files).then(|| files.iter().map(|file| file.rows).sum())
    }

    /// Each month's files where they hold exactly the rows that `provider` gives (without `month`); `None` where rows have to be merged or left out.
    pub fn files_for_polars(&self, table: Table) -> Vec<(Month, Option<Vec<PathBuf>>)> {
        let folder = self.warehouse.table_folder(table);
        let paths = |files: &[DataFile]| files.iter().map(|file| folder.join(&file.path)).collect();
        self.months(table)
            .into_iter()
            .map(|month| {
                let files = self.snapshot.month_files(table, month);
                (month, self.is_plain(table, files).then(|| paths(files)))
            })
            .collect()
    }

    /// Whether an erasure is pending that touches some device.
    pub fn has_pending(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Whether the files' rows are the answer as they stand.
    pub(crate) fn is_plain(&self, table: Table, files: &[DataFile]) -> bool {
        self.touched.is_empty() && (table.key_columns().is_empty() || one_generation(files))
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
    /// The ledger's sequence number that the answers belong to.
    pub fn suppression_sequence(&self) -> u64 {
        self.sequence
    }
    pub(crate) const fn warehouse(&self) -> &Warehouse {
        &self.warehouse
    }
    /// The tables' schemas.
    pub fn tables(&self) -> &TableSchemas {
        self.warehouse.tables()
    }

    pub(crate) fn table_folder(&self, table: Table) -> PathBuf {
        self.warehouse.table_folder(table)
    }

    /// Devices of which some row is pending erasure.
    pub(crate) const fn touched(&self) -> &HashSet<u128> {
        &self.touched
    }

    pub(crate) const fn layouts(&self) -> &Mutex<HashMap<(Table, String), Arc<Layout>>> {
        &self.layouts
    }

    /// What the touched devices' remaining events of a month give.
    pub(crate) fn remaining_rows(&self, table: Table, month: Month) -> Result<Option<RecordBatch>, StoreError> {
        Ok(self.overlay(month)?.of(table).filter(|rows| rows.num_rows() > 0).cloned())
    }

    /// The rows of some files of one month: the columns of `wanted` (without `month`). For a merge table the files are all of its month.
    pub(crate) fn rows(&self, table: Table, part: &Part, wanted: &SchemaRef) -> Result<Box<dyn Rows>, StoreError> {
        let folder = self.warehouse.table_folder(table);
        if self.is_plain(table, &part.files) {
            return Ok(Box::new(RunReader::new(folder, part.files.clone(), Arc::clone(wanted))));
        }
        if table.key_columns().is_empty() {
            let needed: &[&str] = match table {
                Table::Events if self.tables().has_user => &["device", "ts", "user"],
                Table::Events => &["device", "ts"],
                _ => &["device"],
            };
            let names: Vec<&str> = needed.iter().copied().chain(wanted.fields().iter().map(|field| field.name().as_str())).collect();
            let inner = Box::new(RunReader::new(folder, part.files.clone(), some_columns(&self.warehouse, table, &names)?));
            return Ok(Box::new(Uncovered { inner, pending: self.pending.clone(), wanted: Arc::clone(wanted), table }));
        }
        let read = columns_to_read(self.tables(), table, wanted);
        let mut sources: Vec<Box<dyn Rows>> = Vec::new();
        for run in runs(&part.files) {
            let inner = RunReader::new(folder.clone(), run, Arc::clone(&read));
            sources.push(if self.touched.is_empty() {
                Box::new(inner)
            } else {
                Box::new(Untouched { inner, touched: self.touched.clone() })
            });
        }
        if !self.touched.is_empty() {
            let overlay = self.overlay(part.month)?;
            let rows = overlay.of(table).map(|rows| project(rows, &read)).transpose()?;
            sources.push(Box::new(InMemory(rows)));
        }
        Ok(Box::new(Folded::new(self.tables(), table, Arc::clone(wanted), sources)))
    }

    /// What the touched devices' remaining events of a month give.
    fn overlay(&self, month: Month) -> Result<Arc<RolledUp>, StoreError> {
        let slot = Arc::clone(self.overlays.lock().unwrap_or_else(PoisonError::into_inner).entry(month).or_default());
        let mut made = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(overlay) = made.as_ref() {
            return Ok(Arc::clone(overlay));
        }
        let overlay = Arc::new(roll_up(self.tables(), month, &self.remaining_events(month)?)?);
        *made = Some(Arc::clone(&overlay));
        Ok(overlay)
    }

    /// The touched devices' events of a month that stay, in order.
    fn remaining_events(&self, month: Month) -> Result<RecordBatch, StoreError> {
        let schema = self.tables().file_schema(Table::Events);
        let folder = self.warehouse.table_folder(Table::Events);
        let mut sources: Vec<Box<dyn Rows + '_>> = Vec::new();
        for run in runs(self.snapshot.month_files(Table::Events, month)) {
            let inner = RunReader::new(folder.clone(), run, Arc::clone(&schema)).of_devices(Arc::clone(&self.touched_sorted));
            sources.push(Box::new(Remaining { inner, view: self }));
        }
        let read = |_: usize, batch: &RecordBatch| {
            let devices = pseudonyms(column(batch, "device")?, "device")?;
            let ts = column(batch, "ts")?
                .as_primitive_opt::<TimestampMicrosecondType>()
                .ok_or_else(|| StoreError::Batch("column ts is no timestamp".into()))?;
            Ok((devices.into_iter().zip(ts.values()).map(|(device, ts)| (device, in_order(*ts))).collect(), ()))
        };
        let mut merger: Merger<'_, ()> = Merger::new(sources, Box::new(read));
        let mut places = Vec::new();
        while let Some(next) = merger.next()? {
            places.push(next.place);
        }
        merger.gather(&schema, &places)
    }
}

/// Rows that no pending suppression covers.
struct Uncovered {
    inner: Box<RunReader>,
    pending: SuppressionSet,
    wanted: SchemaRef,
    table: Table,
}

impl Rows for Uncovered {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>, StoreError> {
        while let Some(batch) = self.inner.next_batch()? {
            let kept: BooleanArray = if self.table == Table::Events {
                covered(&batch, &self.pending)?.into_iter().map(|covered| Some(!covered)).collect()
            } else {
                let devices = crate::files::optional_pseudonyms(column(&batch, "device")?, "device")?;
                let gone: HashSet<u128> = self.pending.devices().map(|device| device.as_u128()).collect();
                devices.into_iter().map(|device| Some(device.is_none_or(|device| !gone.contains(&device)))).collect()
            };
            let batch = project(&filter_record_batch(&batch, &kept)?, &self.wanted)?;
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

/// Stored partial rows of devices that no pending suppression touches.
struct Untouched {
    inner: RunReader,
    touched: HashSet<u128>,
}

impl Rows for Untouched {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>, StoreError> {
        while let Some(batch) = self.inner.next_batch()? {
            let devices = pseudonyms(column(&batch, "device")?, "device")?;
            let kept: BooleanArray = devices.iter().map(|device| Some(!self.touched.contains(device))).collect();
            let batch = if kept.true_count() == kept.len() { batch } else { filter_record_batch(&batch, &kept)? };
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

/// Events of touched devices that stay.
struct Remaining<'a> {
    inner: RunReader,
    view: &'a ReadView,
}

impl Rows for Remaining<'_> {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>, StoreError> {
        while let Some(batch) = self.inner.next_batch()? {
            let devices = pseudonyms(column(&batch, "device")?, "device")?;
            let covered = covered(&batch, &self.view.pending)?;
            let kept: BooleanArray =
                devices.iter().zip(covered).map(|(device, covered)| Some(!covered && self.view.touched.contains(device))).collect();
            let batch = filter_record_batch(&batch, &kept)?;
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

fn project(batch: &RecordBatch, wanted: &SchemaRef) -> Result<RecordBatch, StoreError> {
    let columns = wanted.fields().iter().map(|field| column(batch, field.name()).cloned()).collect::<Result<Vec<_>, _>>()?;
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(wanted), columns, &options)?)
}
