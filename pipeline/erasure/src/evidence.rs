//! Evidence: what a rewriting did when the process died before it could say so,
//! and one request's part of what the run did to each table.

use std::collections::BTreeMap;
use std::path::Path;

use ameles_core::Month;
use ameles_schemas::Table;
use ameles_store::{FileEvidence as StoreFile, MonthRewrite, Snapshot, TableChange, takes_the_place_of};
use hashbrown::{HashMap, HashSet};

use crate::ErasureError;
use crate::certificate::{FileEvidence, TableEvidence};
use crate::record::{FoundRecord, MonthEvidence, PlannedFile, RunRecord};

/// Finds planned months whose commit landed although no evidence of it was recorded, and
/// tells from the tables what happened there.
pub(crate) async fn reconstruct(root: &Path, snapshot: &Snapshot, record: &mut RunRecord) -> Result<(), ErasureError> {
    let known: HashSet<Month> = record.rewrites.iter().map(|evidence| evidence.month).collect();
    let mut found = Vec::new();
    for (month, planned) in record.planned.iter().filter(|(month, _)| !known.contains(*month)) {
        let mut rewrite = MonthRewrite::default();
        for (table, files) in planned {
            let Some(table) = Table::parse(table) else { continue };
            if let Some(change) = changed(root, snapshot, record, table, *month, files).await? {
                if table == Table::Events {
                    rewrite.rows_after = change.rows_after;
                    rewrite.erased_rows = change.rows_before.saturating_sub(change.rows_after);
                }
                rewrite.tables.push(change);
            }
        }
        if !rewrite.tables.is_empty() {
            found.push(MonthEvidence { month: *month, reconstructed: true, rewrite });
        }
    }
    record.rewrites.extend(found);
    Ok(())
}

async fn changed(
    root: &Path,
    snapshot: &Snapshot,
    record: &RunRecord,
    table: Table,
    month: Month,
    planned: &[PlannedFile],
) -> Result<Option<TableChange>, ErasureError> {
    let live: Vec<_> = snapshot.files(table).iter().filter(|file| file.month == month).collect();
    let gone: Vec<_> = planned.iter().filter(|file| !live.iter().any(|live| live.path == file.path)).collect();
    if gone.is_empty() {
        return Ok(None);
    }
    let mut added = Vec::new();
    for file in live.iter().filter(|live| live.is_rewritten() && !planned.iter().any(|file| file.path == live.path)) {
        let sha256 = sha256_of(root.join(table.as_str()).join(&file.path)).await?;
        added.push(StoreFile { path: file.path.clone(), sha256, rows: file.rows, bytes: file.size });
    }
    let removed: Vec<_> =
        gone.iter().map(|file| StoreFile { path: file.path.clone(), sha256: String::new(), rows: file.rows, bytes: file.bytes }).collect();
    let version_after = snapshot.version(table);
    Ok(Some(TableChange {
        table: table.as_str().to_owned(),
        version_before: record.versions.get(table.as_str()).copied().unwrap_or(version_after),
        version_after,
        rows_before: removed.iter().map(|file| file.rows).sum(),
        rows_after: added.iter().map(|file| file.rows).sum(),
        removed,
        added,
    }))
}

async fn sha256_of(path: std::path::PathBuf) -> Result<String, ErasureError> {
    let read = tokio::task::spawn_blocking(move || {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        std::fs::read(&path).map_err(|source| ErasureError::Io { doing: "reading", path: name, source })
    });
    let bytes = read.await??;
    Ok(hex::encode(ring::digest::digest(&ring::digest::SHA256, &bytes)))
}

/// What the run did to each table in the months where a request's rows were found; where single files were spliced, to
/// those that held its rows.
pub(crate) fn tables_for(record: &RunRecord, spliced: &SplicedFiles<'_>, found: &FoundRecord) -> Vec<TableEvidence> {
    let mut tables: BTreeMap<String, TableEvidence> = BTreeMap::new();
    for (table, version) in &record.versions {
        let untouched =
            TableEvidence { table: table.clone(), version_before: *version, version_after: *version, ..TableEvidence::default() };
        tables.insert(table.clone(), untouched);
    }
    let events = Table::Events.as_str();
    for (number, evidence) in record.rewrites.iter().enumerate().filter(|(_, evidence)| found.events.contains_key(&evidence.month)) {
        for (at, change) in evidence.rewrite.tables.iter().enumerate() {
            if evidence.rewrite.spliced.is_some() {
                let mine = spliced.of_request(found, number, at, change);
                let deleted = (change.table == events).then_some(mine.rows_before - mine.rows_after);
                add_change(&mut tables, &mine, deleted);
            } else {
                let deleted = (change.table == events).then_some(evidence.rewrite.erased_rows);
                add_change(&mut tables, change, deleted);
            }
        }
    }
    for change in record.quarantine.iter().filter(|_| found.quarantine > 0) {
        add_change(&mut tables, change, Some(change.rows_before.saturating_sub(change.rows_after)));
    }
    // The order in which the tables are documented, not that of their names.
    let order = |table: &TableEvidence| Table::parse(&table.table).map(|table| Table::ALL.iter().position(|other| *other == table));
    let mut tables: Vec<_> = tables.into_values().collect();
    tables.sort_by_key(order);
    tables
}

/// Where the files that held rows went: for each in the run's list, what a splice made of it.
pub(crate) struct SplicedFiles<'a> {
    /// By place in the list: the rewrite and the change that it stands in, the file, and the one in its place.
    by_place: HashMap<u32, (usize, usize, &'a StoreFile, Option<&'a StoreFile>)>,
}

impl<'a> SplicedFiles<'a> {
    pub(crate) fn new(record: &'a RunRecord) -> Self {
        let places: HashMap<&str, u32> = record.files.iter().map(String::as_str).zip(0..).collect();
        let mut by_place = HashMap::new();
        for (number, evidence) in record.rewrites.iter().enumerate().filter(|(_, evidence)| evidence.rewrite.spliced.is_some()) {
            for (at, change) in evidence.rewrite.tables.iter().enumerate() {
                for old in &change.removed {
                    let Some(place) = places.get(format!("{}/{}", change.table, old.path).as_str()) else { continue };
                    let new = change.added.iter().find(|new| takes_the_place_of(&new.path, &old.path));
                    by_place.insert(*place, (number, at, old, new));
                }
            }
        }
        Self { by_place }
    }

    /// The part of a change that is about files which held rows of a request.
    fn of_request(&self, found: &FoundRecord, number: usize, at: usize, change: &TableChange) -> TableChange {
        let mine: Vec<_> =
            found.files.iter().filter_map(|place| self.by_place.get(place)).filter(|file| (file.0, file.1) == (number, at)).collect();
        let removed: Vec<StoreFile> = mine.iter().map(|file| file.2.clone()).collect();
        let added: Vec<StoreFile> = mine.iter().filter_map(|file| file.3.cloned()).collect();
        TableChange {
            table: change.table.clone(),
            version_before: change.version_before,
            version_after: change.version_after,
            rows_before: removed.iter().map(|file| file.rows).sum(),
            rows_after: added.iter().map(|file| file.rows).sum(),
            removed,
            added,
        }
    }
}

fn add_change(tables: &mut BTreeMap<String, TableEvidence>, change: &TableChange, deleted: Option<u64>) {
    let untouched = || TableEvidence { table: change.table.clone(), version_before: change.version_before, ..TableEvidence::default() };
    let mine = tables.entry(change.table.clone()).or_insert_with(untouched);
    let first = mine.files_removed.is_empty() && mine.files_written.is_empty();
    mine.version_before = if first { change.version_before } else { mine.version_before.min(change.version_before) };
    mine.version_after = mine.version_after.max(change.version_after);
    mine.rows_before += change.rows_before;
    mine.rows_after += change.rows_after;
    if let Some(deleted) = deleted {
        *mine.rows_deleted.get_or_insert(0) += deleted;
    }
    // A file that one round wrote and a later one replaced stands in both lists, as it happened.
    mine.files_removed.extend(change.removed.iter().map(evidence));
    mine.files_written.extend(change.added.iter().map(evidence));
}

fn evidence(file: &StoreFile) -> FileEvidence {
    let sha256 = (!file.sha256.is_empty()).then(|| file.sha256.clone());
    FileEvidence { path: file.path.clone(), sha256, rows: file.rows, bytes: file.bytes }
}
