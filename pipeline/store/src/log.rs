//! A table's Delta log: replay and conditional put.
//!
//! delta-rs's snapshot drops the files' tags, looks up one transaction id per
//! pass and has a retry loop that is wrong for erasures, so entries are read and
//! written here: a commit is one JSON file that only one writer can create.
//! Table creation and checkpoints are delta-rs's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ameles_core::Timestamp;
use ameles_schemas::Table;
use arrow::array::{Array, AsArray, StructArray};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};

use crate::names::{self, Origin};
use crate::{DataFile, SNAPSHOTS_MAX, StoreError};

/// A table at one version.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogState {
    pub(crate) version: i64,
    /// By month, settled before runs, then in the order of their commits.
    pub(crate) files: Vec<DataFile>,
    live: HashSet<String>,
    pub(crate) txns: HashMap<String, i64>,
    /// Removed files and when, in milliseconds.
    pub(crate) tombstones: HashMap<String, i64>,
    /// The `metaData` action's schema and id.
    pub(crate) schema: String,
    pub(crate) id: String,
    last_modified_ms: i64,
}

/// A file to be added.
#[derive(Clone, Debug)]
pub(crate) struct NewFile {
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) rows: u64,
    pub(crate) ts: Option<(Timestamp, Timestamp)>,
    /// Range of the leading 16 bits of its first sort column; settled files only.
    pub(crate) range: Option<(u16, u16)>,
}

/// What a commit changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    pub(crate) operation: &'static str,
    /// Whether the table's rows differ afterwards.
    pub(crate) data_change: bool,
    pub(crate) add: Vec<NewFile>,
    pub(crate) remove: Vec<String>,
    pub(crate) txns: Vec<(String, i64)>,
    /// The place of the added files in the order of commits where it is not the next one: that of the last run that they replace.
    pub(crate) modified: Option<Timestamp>,
    /// A new schema of the table.
    pub(crate) schema: Option<String>,
}

#[derive(Deserialize)]
struct Line {
    add: Option<AddLine>,
    remove: Option<RemoveLine>,
    txn: Option<TxnLine>,
    #[serde(rename = "metaData")]
    metadata: Option<MetadataLine>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AddLine {
    path: String,
    size: i64,
    modification_time: i64,
    stats: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RemoveLine {
    path: String,
    deletion_timestamp: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TxnLine {
    app_id: String,
    version: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetadataLine {
    id: String,
    schema_string: String,
}

/// Row count and time range: all that the log tells of a file's content.
#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    pub(crate) num_records: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) min_values: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) max_values: BTreeMap<String, String>,
}

pub(crate) const fn time_column(table: Table) -> Option<&'static str> {
    match table {
        Table::Events => Some("ts"),
        Table::Quarantine => Some("at"),
        Table::Activity | Table::Links | Table::Devices => None,
    }
}

pub(crate) fn log_folder(table_folder: &Path) -> PathBuf {
    table_folder.join("_delta_log")
}

pub(crate) fn entry_path(table_folder: &Path, version: i64) -> PathBuf {
    log_folder(table_folder).join(format!("{version:020}.json"))
}

fn checkpoint_path(table_folder: &Path, version: i64) -> PathBuf {
    log_folder(table_folder).join(format!("{version:020}.checkpoint.parquet"))
}

/// Versions that the log has an entry or a checkpoint for.
pub(crate) struct Listing {
    pub(crate) entries: Vec<i64>,
    pub(crate) checkpoints: Vec<i64>,
}

/// Reads the names in the log.
pub(crate) fn list(table_folder: &Path) -> io::Result<Listing> {
    let mut listing = Listing { entries: Vec::new(), checkpoints: Vec::new() };
    for entry in fs::read_dir(log_folder(table_folder))? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(version) = name.strip_suffix(".checkpoint.parquet").and_then(|version| version.parse().ok()) {
            listing.checkpoints.push(version);
        } else if let Some(version) = name.strip_suffix(".json").and_then(|version| version.parse().ok()) {
            listing.entries.push(version);
        }
    }
    listing.entries.sort_unstable();
    listing.checkpoints.sort_unstable();
    Ok(listing)
}

/// Reads the table as it stands now, from `known` on where that is possible.
pub(crate) fn load(table: Table, folder: &Path, known: Option<&Arc<LogState>>) -> Result<Option<Arc<LogState>>, StoreError> {
    if let Some(known) = known
        && let Some(newer) = catch_up(table, folder, known)?
    {
        return Ok(Some(newer));
    }
    // A purge may take away what was listed: then there is a newer checkpoint.
    let mut attempt = 0;
    loop {
        attempt += 1;
        match load_all(table, folder) {
            Err(error) if attempt < SNAPSHOTS_MAX && error.is_vanished_file() => {}
            other => return Ok(other?.map(Arc::new)),
        }
    }
}

/// Applies entries after `known`; `None` when a purge has taken some of them away.
///
/// A purge deletes entries in ascending order. So when the next entry is not
/// there and afterwards the present one still is, there has been no next one.
fn catch_up(table: Table, folder: &Path, known: &Arc<LogState>) -> Result<Option<Arc<LogState>>, StoreError> {
    let mut newer: Option<LogState> = None;
    loop {
        let version = newer.as_ref().map_or(known.version, |state| state.version);
        match fs::read(entry_path(folder, version + 1)) {
            Ok(bytes) => newer.get_or_insert_with(|| LogState::clone(known)).apply_entry(table, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !entry_path(folder, version).exists() {
                    return Ok(None);
                }
                return Ok(Some(match newer {
                    Some(mut state) => {
                        state.sort();
                        Arc::new(state)
                    }
                    None => Arc::clone(known),
                }));
            }
            Err(source) => return Err(unreadable(folder, source)),
        }
    }
}

fn load_all(table: Table, folder: &Path) -> Result<Option<LogState>, StoreError> {
    let listing = match list(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(unreadable(folder, source)),
    };
    let Some(latest) = listing.entries.last().copied().max(listing.checkpoints.last().copied()) else { return Ok(None) };
    let mut state = match listing.checkpoints.last() {
        Some(version) => read_checkpoint(table, folder, *version)?,
        None => LogState::empty(),
    };
    while state.version < latest {
        let path = entry_path(folder, state.version + 1);
        let bytes = fs::read(&path).map_err(|source| unreadable(&path, source))?;
        state.apply_entry(table, &bytes)?;
    }
    state.sort();
    Ok(Some(state))
}

fn unreadable(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { doing: "reading", path: path.display().to_string(), source }
}

impl LogState {
    /// Before the first entry.
    pub(crate) fn empty() -> Self {
        Self { version: -1, ..Self::default() }
    }

    pub(crate) fn is_live(&self, path: &str) -> bool {
        self.live.contains(path)
    }

    /// A time for files of the next commit: later than any file's here, so that the order of commits can be told from the files alone.
    pub(crate) fn next_modification_ms(&self, now: Timestamp) -> i64 {
        (now.micros() / 1_000).max(self.last_modified_ms + 1)
    }

    fn apply_entry(&mut self, table: Table, bytes: &[u8]) -> Result<(), StoreError> {
        let version = self.version + 1;
        let damaged = |what: String| StoreError::Log { table: table.as_str(), version, what };
        let mut removed = HashSet::new();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            let line: Line = serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))?;
            if let Some(metadata) = line.metadata {
                self.schema = metadata.schema_string;
                self.id = metadata.id;
            }
            if let Some(txn) = line.txn {
                self.txns.insert(txn.app_id, txn.version);
            }
            if let Some(remove) = line.remove {
                self.live.remove(&remove.path);
                self.tombstones.insert(remove.path.clone(), remove.deletion_timestamp.unwrap_or_default());
                removed.insert(remove.path);
            }
            if let Some(add) = line.add {
                self.add(table, version, add)?;
            }
        }
        if !removed.is_empty() {
            self.files.retain(|file| !removed.contains(&file.path));
        }
        self.version = version;
        Ok(())
    }

    fn add(&mut self, table: Table, version: i64, add: AddLine) -> Result<(), StoreError> {
        let damaged = |what: &str| StoreError::Log { table: table.as_str(), version, what: what.to_owned() };
        let name = names::parse(&add.path)
            .ok_or_else(|| damaged("a file was added that Ameles has not written; restore the table to a version without it"))?;
        let stats: Stats =
            serde_json::from_str(add.stats.as_deref().unwrap_or_default()).map_err(|_| damaged("a file has no row count"))?;
        let bound = |values: &BTreeMap<String, String>| time_column(table).and_then(|column| values.get(column)?.parse::<Timestamp>().ok());
        let settled = match &name.origin {
            Origin::Settled { generation, .. } => Some(generation.clone()),
            Origin::Run { .. } | Origin::Merged { .. } => None,
        };
        self.last_modified_ms = self.last_modified_ms.max(add.modification_time);
        self.live.insert(add.path.clone());
        self.files.push(DataFile {
            path: add.path,
            size: add.size.unsigned_abs(),
            rows: stats.num_records,
            month: name.month,
            settled,
            ts: bound(&stats.min_values).zip(bound(&stats.max_values)),
            modified: Timestamp::from_millis(add.modification_time),
            origin: name.origin,
            rolled_up: name.rolled_up,
        });
        Ok(())
    }

    fn sort(&mut self) {
        self.files.sort_by(|a, b| {
            let rank = |file: &DataFile| (file.month, file.settled.is_none(), file.modified);
            let serial = |file: &DataFile| match &file.origin {
                Origin::Run { batch, part, .. } => (*batch, *part),
                Origin::Settled { part, .. } | Origin::Merged { part, .. } => (0, *part),
            };
            rank(a).cmp(&rank(b)).then_with(|| serial(a).cmp(&serial(b))).then_with(|| a.path.cmp(&b.path))
        });
    }
}

/// What is read of a checkpoint.
const CHECKPOINT_COLUMNS: [&str; 10] = [
    "add.path",
    "add.size",
    "add.modificationTime",
    "add.stats",
    "remove.path",
    "remove.deletionTimestamp",
    "txn.appId",
    "txn.version",
    "metaData.id",
    "metaData.schemaString",
];

fn read_checkpoint(table: Table, folder: &Path, version: i64) -> Result<LogState, StoreError> {
    let path = checkpoint_path(folder, version);
    // Read whole: a reader of the file would seek for each of its many small columns.
    let bytes = fs::read(&path).map_err(|source| unreadable(&path, source))?;
    let mut state = LogState { version, ..LogState::default() };
    let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes))?;
    let read = ProjectionMask::columns(builder.parquet_schema(), CHECKPOINT_COLUMNS);
    for batch in builder.with_projection(read).build()? {
        let batch = batch?;
        let action = |name: &str| batch.column_by_name(name).and_then(|column| column.as_struct_opt()).cloned();
        // A position or size that cannot be read must not count as zero: what was ingested would be taken in again.
        let required = |action: &StructArray, field: &str, row: usize| {
            let what = || StoreError::Log { table: table.as_str(), version, what: format!("the checkpoint has an entry without {field}") };
            number(action, field, row).ok_or_else(what)
        };
        let (add, remove, txn, metadata) = (action("add"), action("remove"), action("txn"), action("metaData"));
        for row in 0..batch.num_rows() {
            if let Some(add) = &add
                && let Some(path) = text(add, "path", row)
            {
                let size = required(add, "size", row)?;
                let modification_time = required(add, "modificationTime", row)?;
                state.add(table, version, AddLine { path, size, modification_time, stats: text(add, "stats", row) })?;
            }
            if let Some(remove) = &remove
                && let Some(path) = text(remove, "path", row)
            {
                state.tombstones.insert(path, number(remove, "deletionTimestamp", row).unwrap_or_default());
            }
            if let Some(txn) = &txn
                && let Some(app) = text(txn, "appId", row)
            {
                state.txns.insert(app, required(txn, "version", row)?);
            }
            if let Some(metadata) = &metadata
                && let Some(schema) = text(metadata, "schemaString", row)
            {
                state.schema = schema;
                state.id = text(metadata, "id", row).unwrap_or_default();
            }
        }
    }
    if state.schema.is_empty() {
        return Err(StoreError::Log { table: table.as_str(), version, what: "the checkpoint has no metaData".into() });
    }
    Ok(state)
}

fn text(action: &StructArray, field: &str, row: usize) -> Option<String> {
    let column = action.column_by_name(field)?;
    if action.is_null(row) || column.is_null(row) {
        return None;
    }
    column.as_string_opt::<i32>().map(|texts| texts.value(row).to_owned())
}

fn number(action: &StructArray, field: &str, row: usize) -> Option<i64> {
    let column = action.column_by_name(field)?;
    if action.is_null(row) || column.is_null(row) {
        return None;
    }
    column.as_primitive_opt::<Int64Type>().map(|numbers| numbers.value(row))
}
