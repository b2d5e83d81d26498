//! The tables at one version each: which files are live, how far sources and writers have come.

use std::collections::BTreeSet;
use std::sync::Arc;

use ameles_core::{Month, Timestamp};
use ameles_schemas::Table;

use crate::log::LogState;
use crate::names::{Keys, Origin};

/// A live data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Relative to the table's folder.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Rows.
    pub rows: u64,
    /// The partition.
    pub month: Month,
    /// The generation that settled it; none for a batch's own run and for several of them merged.
    pub settled: Option<String>,
    /// First and last `ts` (`at` for quarantine), where known.
    pub ts: Option<(Timestamp, Timestamp)>,
    /// When it was committed: later for later commits to the table.
    pub modified: Timestamp,
    pub(crate) origin: Origin,
    pub(crate) rolled_up: Vec<Table>,
}

impl DataFile {
    /// The lease under which a batch wrote it; none once it is settled or merged.
    pub fn lease(&self) -> Option<&str> {
        match &self.origin {
            Origin::Run { lease, .. } => Some(lease),
            Origin::Settled { .. } | Origin::Merged { .. } => None,
        }
    }
    /// Whether a maintainer wrote it, settling or merging; a batch's own run otherwise.
    pub fn is_rewritten(&self) -> bool {
        !matches!(self.origin, Origin::Run { .. })
    }
    /// Whether its events may have keys still: once a month has closed and is settled they have none.
    pub fn has_event_keys(&self) -> bool {
        !matches!(self.origin, Origin::Settled { keys: Keys::Dropped, .. })
    }
    /// The one sorted run that the file is a part of, where it was written as such.
    fn generation(&self) -> Option<&str> {
        match &self.origin {
            Origin::Settled { generation, .. } | Origin::Merged { generation, .. } => Some(generation),
            Origin::Run { .. } => None,
        }
    }
    /// A file that no log names yet.
    pub(crate) fn unlisted(path: &str, month: Month) -> Self {
        let origin = Origin::Run { lease: String::new(), batch: 0, part: 0 };
        Self {
            path: path.to_owned(),
            size: 0,
            rows: 0,
            month,
            settled: None,
            ts: None,
            modified: Timestamp::default(),
            origin,
            rolled_up: Vec::new(),
        }
    }
}

/// All tables at one version each.
#[derive(Debug)]
pub struct Snapshot {
    states: [Option<Arc<LogState>>; Table::ALL.len()],
}

impl Snapshot {
    pub(crate) fn new(states: [Option<Arc<LogState>>; Table::ALL.len()]) -> Self {
        Self { states }
    }
    pub(crate) fn state(&self, table: Table) -> Option<&LogState> {
        self.states[table as usize].as_deref()
    }
    /// The table's version; -1 where the contract has no such table.
    pub fn version(&self, table: Table) -> i64 {
        self.state(table).map_or(-1, |state| state.version)
    }
    /// The table's live files, by month, then in the order in which they were committed.
    pub fn files(&self, table: Table) -> &[DataFile] {
        self.state(table).map_or(&[], |state| &state.files)
    }
    /// The same, of one month.
    pub fn month_files(&self, table: Table, month: Month) -> &[DataFile] {
        of_month(self.files(table), month)
    }
    /// Where an application's transaction stands in a table.
    pub fn txn(&self, table: Table, app: &str) -> Option<i64> {
        self.state(table).and_then(|state| state.txns.get(app).copied())
    }
    /// All transactions of a table, in no order.
    pub fn txns(&self, table: Table) -> impl Iterator<Item = (&str, i64)> {
        self.state(table).into_iter().flat_map(|state| state.txns.iter().map(|(app, version)| (app.as_str(), *version)))
    }
    /// Months that have files.
    pub fn months(&self, table: Table) -> BTreeSet<Month> {
        self.files(table).iter().map(|file| file.month).collect()
    }
    /// Whether all the month's events lie in one settled run (true for a month without events).
    pub fn is_settled(&self, month: Month) -> bool {
        one_generation(self.month_files(Table::Events, month))
    }
    /// Whether the month was settled after it had closed: one run, its event keys dropped.
    pub fn is_closed(&self, month: Month) -> bool {
        let files = self.month_files(Table::Events, month);
        one_generation(files) && files.iter().all(|file| matches!(file.origin, Origin::Settled { keys: Keys::Dropped, .. }))
    }
    /// First and last `ts` of all events, from statistics.
    pub fn data_range(&self) -> Option<(Timestamp, Timestamp)> {
        self.files(Table::Events).iter().filter_map(|file| file.ts).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }
}

/// The part of sorted files that lies in a month.
pub(crate) fn of_month(files: &[DataFile], month: Month) -> &[DataFile] {
    let start = files.partition_point(|file| file.month < month);
    let end = files.partition_point(|file| file.month <= month);
    &files[start..end]
}

/// Whether the files are one sorted run without overlaps.
pub(crate) fn one_generation(files: &[DataFile]) -> bool {
    files.iter().all(|file| file.settled.is_some() && file.settled == files[0].settled)
}

/// Splits a month's files into runs, each sorted as a whole: a settled or merged generation is one run, each other file is one.
pub(crate) fn runs(files: &[DataFile]) -> Vec<Vec<DataFile>> {
    let mut runs: Vec<Vec<DataFile>> = Vec::new();
    for file in files {
        match runs.last_mut() {
            Some(run) if file.generation().is_some() && run[0].generation() == file.generation() => run.push(file.clone()),
            _ => runs.push(vec![file.clone()]),
        }
    }
    runs
}
