//! The warehouse as a whole.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ameles_core::{SharedClock, SystemClock};
use ameles_schemas::{Table, TableSchemas};
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use deltalake_core::kernel::StructType;
use deltalake_core::kernel::engine::arrow_conversion::{TryIntoArrow, TryIntoKernel};
use deltalake_core::{DeltaTableBuilder, DeltaTableError};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use url::Url;

use crate::commit::{Decision, Plan};
use crate::durable::{self, DurableStore};
use crate::log::{self, Change, LogState};
use crate::{Snapshot, StoreError};

/// A warehouse: a folder with one Delta table per subfolder. Cheap to clone.
#[derive(Clone)]
pub struct Warehouse {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    tables: TableSchemas,
    clock: SharedClock,
    /// What was read last, by table.
    states: Mutex<[Option<Arc<LogState>>; Table::ALL.len()]>,
    /// Whose turn it is to commit, by table.
    turns: [tokio::sync::Mutex<()>; Table::ALL.len()],
    /// In unit tests a crash is an error at this point.
    #[cfg(test)]
    fail_at: Mutex<Option<&'static str>>,
}

impl fmt::Debug for Warehouse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warehouse").field("root", &self.inner.root).finish_non_exhaustive()
    }
}

impl Warehouse {
    fn new(root: &Path, tables: TableSchemas, clock: SharedClock) -> Self {
        let inner = Inner {
            root: root.to_owned(),
            tables,
            clock,
            states: Mutex::default(),
            turns: Default::default(),
            #[cfg(test)]
            fail_at: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Crashes here if a test wants it.
    #[cfg_attr(not(test), allow(clippy::unnecessary_wraps, reason = "in unit tests a crash is an error"))]
    pub(crate) fn failpoint(&self, point: &'static str) -> Result<(), StoreError> {
        crate::failpoints::hit(point);
        #[cfg(test)]
        if *self.inner.fail_at.lock().unwrap_or_else(PoisonError::into_inner) == Some(point) {
            return Err(StoreError::Batch(format!("failpoint {point}")));
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn fail_at(&self, point: Option<&'static str>) {
        *self.inner.fail_at.lock().unwrap_or_else(PoisonError::into_inner) = point;
    }

    /// Creates what is missing: the folder, its tables, and nullable columns that a newer contract has added. Safe to repeat.
    ///
    /// # Errors
    /// When a table there has other columns, or storage fails.
    pub fn create<'a>(root: &'a Path, tables: TableSchemas) -> BoxFuture<'a, Result<Self, StoreError>> {
        async move {
            let io = |source| StoreError::Io { doing: "creating", path: root.display().to_string(), source };
            durable::make_directory(root).map_err(io)?;
            let warehouse = Self::new(&root.canonicalize().map_err(io)?, tables, Arc::new(SystemClock));
            for table in warehouse.tables().tables() {
                let mut plan = Shape { table, wanted: warehouse.tables().schema(table) };
                warehouse.commit(table, &mut plan).await?;
            }
            Ok(warehouse)
        }
        .boxed()
    }

    /// Opens a warehouse that `create` has made for the same contract.
    ///
    /// # Errors
    /// When there is none, or its columns are not the contract's.
    pub fn open<'a>(root: &'a Path, tables: TableSchemas) -> BoxFuture<'a, Result<Self, StoreError>> {
        async move {
            let missing = || StoreError::NoWarehouse(root.display().to_string());
            let warehouse = Self::new(&root.canonicalize().map_err(|_| missing())?, tables, Arc::new(SystemClock));
            for table in warehouse.tables().tables() {
                let state = warehouse.refresh(table).await?;
                if state.version < 0 {
                    return Err(missing());
                }
                if merged_schema(table, &state, &warehouse.tables().schema(table))?.is_some() {
                    return Err(StoreError::schema(
                        table,
                        "the contract has columns that the table has not; `Warehouse::create` adds them",
                    ));
                }
            }
            Ok(warehouse)
        }
        .boxed()
    }

    /// This warehouse with another clock (for tests and simulations).
    #[must_use]
    pub fn with_clock(self, clock: SharedClock) -> Self {
        Self::new(&self.inner.root, self.inner.tables.clone(), clock)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The tables' schemas.
    pub fn tables(&self) -> &TableSchemas {
        &self.inner.tables
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.inner.clock
    }

    pub(crate) fn turn(&self, table: Table) -> &tokio::sync::Mutex<()> {
        &self.inner.turns[table as usize]
    }

    pub(crate) fn table_folder(&self, table: Table) -> PathBuf {
        self.inner.root.join(table.as_str())
    }

    /// The table as it stands now.
    pub(crate) async fn refresh(&self, table: Table) -> Result<Arc<LogState>, StoreError> {
        let known = self.states()[table as usize].clone();
        let folder = self.table_folder(table);
        let loaded = tokio::task::spawn_blocking(move || log::load(table, &folder, known.as_ref())).await??;
        let Some(state) = loaded else { return Ok(Arc::new(LogState::empty())) };
        let slot = &mut self.states()[table as usize];
        // Another task may have read a newer one meanwhile.
        if slot.as_ref().is_none_or(|known| known.version < state.version) {
            *slot = Some(Arc::clone(&state));
        }
        Ok(state)
    }

    fn states(&self) -> std::sync::MutexGuard<'_, [Option<Arc<LogState>>; Table::ALL.len()]> {
        self.inner.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tables as they stand now.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub fn snapshot<'a>(&'a self) -> BoxFuture<'a, Result<Arc<Snapshot>, StoreError>> {
        async move {
            let mut states: [Option<Arc<LogState>>; Table::ALL.len()] = Default::default();
            // Events last: whatever is rolled up in the snapshot is then in its events.
            for table in Table::ALL.into_iter().rev().filter(|table| *table != Table::Links || self.tables().has_user) {
                states[table as usize] = Some(self.refresh(table).await?);
            }
            Ok(Arc::new(Snapshot::new(states)))
        }
        .boxed()
    }

    /// Writes a checkpoint of the table's present version.
    pub(crate) fn checkpoint<'a>(&'a self, table: Table) -> BoxFuture<'a, Result<i64, StoreError>> {
        async move {
            let (name, folder) = (table.as_str(), self.table_folder(table));
            let url = Url::from_directory_path(&folder).map_err(|()| StoreError::NoWarehouse(folder.display().to_string()))?;
            let store = Arc::new(DurableStore::new());
            let table = DeltaTableBuilder::from_url(url.clone())?.with_storage_backend(store, url.clone()).build()?;
            let engine = table.log_store().engine(None);
            let written = tokio::task::spawn_blocking(move || {
                let snapshot = delta_kernel::Snapshot::builder_for(url).build(engine.as_ref())?;
                snapshot.checkpoint(engine.as_ref(), None)?;
                Ok::<_, delta_kernel::Error>(snapshot.version())
            });
            let version = written.await?.map_err(DeltaTableError::from)?;
            i64::try_from(version).map_err(|_| StoreError::Log {
                table: name,
                version: i64::MAX,
                what: "its version is out of range".into(),
            })
        }
        .boxed()
    }
}

/// Makes a table, or adds the columns that it lacks.
struct Shape {
    table: Table,
    wanted: Arc<Schema>,
}

#[async_trait]
impl Plan for Shape {
    async fn decide(&mut self, state: &Arc<LogState>) -> Result<Decision, StoreError> {
        let Some(schema) = merged_schema(self.table, state, &self.wanted)? else { return Ok(Decision::Done) };
        let delta: StructType = (&schema).try_into_kernel()?;
        let schema = serde_json::to_string(&delta).map_err(|error| StoreError::schema(self.table, error.to_string()))?;
        Ok(Decision::Commit(Change { operation: "schema", schema: Some(schema), ..Change::default() }))
    }
}

/// The table's schema with what the contract adds; `None` when it has all of it.
fn merged_schema(table: Table, state: &LogState, wanted: &Schema) -> Result<Option<Schema>, StoreError> {
    if state.version < 0 {
        return Ok(Some(without_metadata(wanted)));
    }
    let present: StructType = serde_json::from_str(&state.schema).map_err(|error| StoreError::schema(table, error.to_string()))?;
    let present: Schema = (&present).try_into_arrow()?;
    let mut merged: Vec<Field> = Vec::new();
    let mut added = false;
    for field in wanted.fields() {
        match present.field_with_name(field.name()) {
            Ok(old) if same_type(old.data_type(), field.data_type()) => {}
            Ok(old) => {
                let what = format!(
                    "column {} is {} there and {} in the contract; give the new field another name",
                    field.name(),
                    old.data_type(),
                    field.data_type()
                );
                return Err(StoreError::schema(table, what));
            }
            Err(_) if field.is_nullable() || matches!(field.data_type(), DataType::List(_)) => added = true,
            Err(_) => {
                return Err(StoreError::schema(table, format!("column {} is missing and rows there have no value for it", field.name())));
            }
        }
        // A column that was not there from the start is null in older files, whatever the contract says of new ones.
        let nullable = field.is_nullable() || present.field_with_name(field.name()).map_or(true, Field::is_nullable);
        merged.push(Field::new(field.name(), field.data_type().clone(), nullable));
    }
    // A column that the contract has dropped stays readable.
    let dropped = present.fields().iter().filter(|old| wanted.field_with_name(old.name()).is_err());
    let at = merged.len().saturating_sub(1);
    merged.splice(at..at, dropped.map(|old| Field::new(old.name(), old.data_type().clone(), true)));
    Ok(added.then(|| Schema::new(merged)))
}

fn without_metadata(schema: &Schema) -> Schema {
    Schema::new(
        schema.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), field.is_nullable())).collect::<Vec<_>>(),
    )
}

/// Whether two types are one to Delta (a list's element has no name there).
fn same_type(a: &DataType, b: &DataType) -> bool {
    match (a, b) {
        (DataType::List(a), DataType::List(b)) => same_type(a.data_type(), b.data_type()),
        _ => a == b,
    }
}
