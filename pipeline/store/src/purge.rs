//! Deletes what no snapshot of now names: replaced files, orphans, old log
//! entries and checkpoints.
//!
//! Risks first. A file that a living writer has yet to commit must stay: it is
//! told by its lease and batch, never by its age. A replaced file stays for its
//! grace, because a reader that opened its snapshot before may still want it.
//! Readers of other makers that come later than that fail and must open again.
//! Time travel to before the purge is gone: that is its purpose.

use std::fs;
use std::path::{Path, PathBuf};

use ameles_core::{Month, SharedClock, Timestamp};
use ameles_schemas::Table;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::append::batch_of;
use crate::cohorts;
use crate::log;
use crate::names::{self, FileName, Origin};
use crate::{Maintainer, Snapshot, StoreError, Warehouse, durable};

/// A log file that was staged this long ago was left by a crash.
const STAGED_LOG_S: i64 = 3_600;

/// What a purge did.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PurgeReport {
    /// Data files deleted.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Log entries and checkpoints deleted.
    pub log_files: u64,
    /// Replaced files that still have their grace.
    pub waiting: u64,
    /// When the last of those may be deleted.
    pub next_at: Option<Timestamp>,
}

/// A file found on the disk.
struct Found {
    table: Table,
    path: PathBuf,
    /// Relative to the table, without the suffix of a staged file.
    relative: String,
    staged: bool,
    bytes: u64,
    name: FileName,
}

/// What is to be done with a file.
#[derive(PartialEq, Eq)]
enum Fate {
    Keep,
    Delete,
    WaitUntil(Timestamp),
}

impl Maintainer {
    /// Deletes unreferenced data files whose grace has passed, and every log entry and checkpoint older than the present version.
    ///
    /// # Errors
    /// When storage fails; what was deleted stays deleted, and it can be repeated.
    pub fn purge<'a>(&'a mut self, grace_s: u64, clock: &'a SharedClock) -> BoxFuture<'a, Result<PurgeReport, StoreError>> {
        async move {
            let now = clock.now();
            let warehouse = self.warehouse.clone();
            let (found, dead) = tokio::task::spawn_blocking(move || {
                // Listed first, then the leases are tried, then the logs are read: a file of a lease that was dead before the logs
                // were read is in them or in no commit ever.
                let found = list(&warehouse)?;
                let mut dead: HashMap<String, bool> = HashMap::new();
                for file in &found {
                    if let Some((lease, _)) = batch_of(&file.name.origin)
                        && !dead.contains_key(lease)
                    {
                        dead.insert(lease.to_owned(), warehouse.is_dead(lease)?);
                    }
                }
                Ok::<_, StoreError>((found, dead))
            })
            .await??;
            let snapshot = self.warehouse.snapshot().await?;
            let grace = i64::try_from(grace_s).unwrap_or(i64::MAX);
            let mut report = PurgeReport::default();
            let mut doomed = Vec::new();
            let judge = Judge::new(&snapshot, &dead, grace, now);
            for file in &found {
                match judge.fate(file) {
                    Fate::Keep => {}
                    Fate::Delete => {
                        report.files += 1;
                        report.bytes += file.bytes;
                        doomed.push(file.path.clone());
                    }
                    Fate::WaitUntil(at) => {
                        report.waiting += 1;
                        report.next_at = report.next_at.max(Some(at));
                    }
                }
            }
            let root = self.warehouse.root().display().to_string();
            let warehouse = self.warehouse.clone();
            let delete = move || durable::delete_in_any_order(&doomed).and_then(|_| cohorts::delete_others(&warehouse, &snapshot));
            let deleting = tokio::task::spawn_blocking(delete).await?;
            deleting.map_err(|source| StoreError::Io { doing: "deleting from", path: root, source })?;
            self.warehouse.failpoint("purge.files_deleted")?;
            // Side by side, on all cores. All are waited for, whichever fails.
            let tables = self.warehouse.tables().tables().into_iter();
            let mut cleaning: JoinSet<_> = tables.map(|table| clean_log(self.warehouse.clone(), table, now)).collect();
            let mut failed = None;
            while let Some(cleaned) = cleaning.join_next().await {
                match cleaned.map_err(StoreError::from).flatten() {
                    Ok(files) => report.log_files += files,
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            failed.map_or(Ok(report), Err)
        }
        .boxed()
    }
}

/// Puts a checkpoint at the present version and deletes what is older.
async fn clean_log(warehouse: Warehouse, table: Table, now: Timestamp) -> Result<u64, StoreError> {
    let folder = warehouse.table_folder(table);
    let io = |source| StoreError::Io { doing: "cleaning the log of", path: folder.display().to_string(), source };
    let before = log::list(&folder).map_err(io)?;
    let clean = before.checkpoints.len() == 1 && before.entries == before.checkpoints;
    let mut deleted = 0;
    if !clean && before.entries.last().is_some_and(|latest| *latest > 0) {
        let version = warehouse.checkpoint(table).await?;
        warehouse.failpoint("purge.checkpointed")?;
        let log_folder = log::log_folder(&folder);
        let now_there = log::list(&folder).map_err(io)?;
        if !now_there.checkpoints.contains(&version) {
            return Err(StoreError::Log { table: table.as_str(), version, what: "its checkpoint is not there".into() });
        }
        // In ascending order: a reader takes a missing next entry for the end only while its present one is there.
        let entries =
            now_there.entries.into_iter().filter(|entry| *entry < version).map(|entry| log_folder.join(format!("{entry:020}.json")));
        let checkpoints = now_there
            .checkpoints
            .into_iter()
            .filter(|old| *old < version)
            .map(|old| log_folder.join(format!("{old:020}.checkpoint.parquet")));
        let old: Vec<PathBuf> = entries.chain(checkpoints).collect();
        deleted += tokio::task::spawn_blocking(move || durable::delete_files(&old)).await?.map_err(io)?;
    }
    let staged = staged_long_ago(&log::log_folder(&folder), now).map_err(io)?;
    deleted += tokio::task::spawn_blocking(move || durable::delete_files(&staged)).await?.map_err(io)?;
    warehouse.failpoint("purge.log_cleaned")?;
    Ok(deleted)
}

/// Everything in the tables' folders that has a name of ours.
fn list(warehouse: &Warehouse) -> Result<Vec<Found>, StoreError> {
    let mut found = Vec::new();
    for table in warehouse.tables().tables() {
        let folder = warehouse.table_folder(table);
        let io = |source| StoreError::Io { doing: "listing", path: folder.display().to_string(), source };
        for partition in fs::read_dir(&folder).map_err(io)? {
            let partition = partition.map_err(io)?;
            let (true, Some(partition_name)) = (partition.path().is_dir(), partition.file_name().to_str().map(str::to_owned)) else {
                continue;
            };
            if partition_name == "_delta_log" {
                continue;
            }
            for file in fs::read_dir(partition.path()).map_err(io)? {
                let file = file.map_err(io)?;
                let Some(file_name) = file.file_name().to_str().map(str::to_owned) else { continue };
                let staged = durable::is_staged(&file_name);
                let bare = if staged { file_name.rsplit_once('#').map_or(file_name.as_str(), |(bare, _)| bare) } else { &file_name };
                let relative = format!("{partition_name}/{bare}");
                let Some(name) = names::parse(&relative) else { continue };
                // Gone since it was listed: a writer deletes what it did not commit.
                let Ok(metadata) = file.metadata() else { continue };
                found.push(Found { table, path: file.path(), relative, staged, bytes: metadata.len(), name });
            }
        }
    }
    Ok(found)
}

fn staged_long_ago(folder: &Path, now: Timestamp) -> std::io::Result<Vec<PathBuf>> {
    let mut staged = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(durable::is_staged)
            && let Ok(modified) = entry.metadata().and_then(|metadata| metadata.modified())
        {
            let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            if Timestamp::from_secs(i64::try_from(since.as_secs()).unwrap_or(i64::MAX)).plus_secs(STAGED_LOG_S) < now {
                staged.push(entry.path());
            }
        }
    }
    Ok(staged)
}

struct Judge<'a> {
    snapshot: &'a Snapshot,
    dead: &'a HashMap<String, bool>,
    live_runs: HashSet<(Month, String, u64)>,
    grace: i64,
    now: Timestamp,
}

impl<'a> Judge<'a> {
    fn new(snapshot: &'a Snapshot, dead: &'a HashMap<String, bool>, grace: i64, now: Timestamp) -> Self {
        let runs = snapshot
            .files(Table::Events)
            .iter()
            .filter_map(|file| batch_of(&file.origin).map(|(lease, batch)| (file.month, lease.to_owned(), batch)));
        Self { snapshot, dead, live_runs: runs.collect(), grace, now }
    }

    fn fate(&self, file: &Found) -> Fate {
        let Some(state) = self.snapshot.state(file.table) else { return Fate::Keep };
        if !file.staged && state.is_live(&file.relative) {
            return Fate::Keep;
        }
        if !file.staged
            && let Some(removed_ms) = state.tombstones.get(&file.relative)
        {
            let until = Timestamp::from_millis(*removed_ms).plus_secs(self.grace);
            return if until <= self.now { Fate::Delete } else { Fate::WaitUntil(until) };
        }
        match &file.name.origin {
            // Only this maintainer writes settled and merged files, and it is not rewriting now.
            Origin::Settled { .. } | Origin::Merged { .. } => Fate::Delete,
            Origin::Run { lease, batch, .. } => {
                if self.dead.get(lease).copied().unwrap_or(false)
                    || (!file.staged && self.is_past(file.table, file.name.month, lease, *batch))
                {
                    Fate::Delete
                } else {
                    Fate::Keep
                }
            }
        }
    }

    /// Whether a living lease can no longer commit an unreferenced file.
    fn is_past(&self, table: Table, month: Month, lease: &str, batch: u64) -> bool {
        let reached = |table: Table, app: &str| {
            self.snapshot.txn(table, &format!("{app}:{lease}")).is_some_and(|at| u64::try_from(at).is_ok_and(|at| at >= batch))
        };
        match table {
            Table::Events | Table::Quarantine => reached(table, "writer"),
            // Its events have been rewritten since: the writer will see that and leave the roll-up out.
            _ => {
                reached(table, "rollup")
                    || (reached(Table::Events, "writer") && !self.live_runs.contains(&(month, lease.to_owned(), batch)))
            }
        }
    }
}
