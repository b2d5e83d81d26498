//! Log entries as they are written.

use std::io;
use std::path::Path;

use ameles_core::Timestamp;
use ameles_schemas::Table;
use bytes::Bytes;
use hashbrown::HashMap;
use serde_json::{Value, json};

use crate::DataFile;
use crate::durable::{self, IfThere};
use crate::log::{Change, LogState, Stats, entry_path, time_column};
use crate::names::{self, Origin};

/// The bytes of the log entry after `state`.
pub(crate) fn entry_bytes(table: Table, state: &LogState, change: &Change, nonce: &str, now: Timestamp) -> Bytes {
    let now_ms = now.micros() / 1_000;
    let modified_ms = change.modified.map_or_else(|| state.next_modification_ms(now), |modified| modified.micros() / 1_000);
    let mode = if change.remove.is_empty() { "Append" } else { "Overwrite" };
    let mut text = String::new();
    let mut line = |value: Value| {
        text.push_str(&value.to_string());
        text.push('\n');
    };
    // The operation is a neutral one: delta-rs's own DELETE would write its predicate, the very identifier, into the log.
    line(json!({"commitInfo": {
        "timestamp": now_ms, "operation": "WRITE", "operationParameters": {"mode": mode, "partitionBy": "[\"month\"]"},
        "engineInfo": concat!("ameles/", env!("CARGO_PKG_VERSION")), "amelesStep": change.operation, "amelesCommit": nonce,
    }}));
    if state.version < 0 {
        line(json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}));
    }
    if let Some(schema) = &change.schema {
        let id = if state.id.is_empty() { nonce } else { &state.id };
        // Nothing cleans the log but a purge: it keeps what crash recovery still reads.
        let configuration = json!({"delta.enableExpiredLogCleanup": "false", "delta.enableChangeDataFeed": "false"});
        line(json!({"metaData": {
            "id": id, "name": table.as_str(), "format": {"provider": "parquet", "options": {}}, "schemaString": schema,
            "partitionColumns": ["month"], "configuration": configuration, "createdTime": now_ms,
        }}));
    }
    for (app, version) in &change.txns {
        line(json!({"txn": {"appId": app, "version": version, "lastUpdated": now_ms}}));
    }
    let removed: HashMap<&str, &DataFile> = state.files.iter().map(|file| (file.path.as_str(), file)).collect();
    for path in &change.remove {
        let file = removed.get(path.as_str());
        line(json!({"remove": {
            "path": path, "deletionTimestamp": now_ms, "dataChange": change.data_change, "extendedFileMetadata": true,
            "partitionValues": {"month": file.map(|file| names::partition_value(file.month))}, "size": file.map(|file| file.size),
        }}));
    }
    for file in &change.add {
        let mut stats = Stats { num_records: file.rows, ..Stats::default() };
        if let (Some(column), Some((first, last))) = (time_column(table), file.ts) {
            stats.min_values.insert(column.to_owned(), first.to_string());
            stats.max_values.insert(column.to_owned(), last.to_string());
        }
        let name = names::parse(&file.path);
        let mut tags = serde_json::Map::new();
        if let Some(Origin::Settled { generation, .. }) = name.as_ref().map(|name| &name.origin) {
            tags.insert("ameles.settled".into(), json!(generation));
        }
        if let Some((first, last)) = file.range {
            tags.insert("ameles.range".into(), json!(format!("{first:04x}-{last:04x}")));
        }
        line(json!({"add": {
            "path": file.path, "partitionValues": {"month": name.map(|name| names::partition_value(name.month))}, "size": file.size,
            "modificationTime": modified_ms, "dataChange": change.data_change,
            "stats": serde_json::to_string(&stats).unwrap_or_default(), "tags": tags,
        }}));
    }
    Bytes::from(text)
}

/// Creates the entry of `version`; false when another writer has.
pub(crate) fn put_entry(folder: &Path, version: i64, bytes: &Bytes) -> io::Result<bool> {
    match durable::put_file(&entry_path(folder, version), std::slice::from_ref(bytes), IfThere::Fail) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}
