//! How long ago each device of a settled month of `activity` was activated: one byte a row, kept beside the tables.
//!
//! Retention meets the active devices of each month with the activations of all months up to it. What comes out changes only when
//! one of those files does, so the maintainer keeps it for large months as `_ameles/cohorts/{month}-{basis}.codes`, whose basis is a
//! hash of the names of all these files. A file whose basis is not that of the snapshot at hand is never read, and the next purge
//! deletes it. Where there is none, the tables are met as ever: nothing depends on it but time.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use ameles_core::Month;
use ameles_schemas::Table;
use bytes::Bytes;
use hashbrown::HashSet;
use ring::digest;

use crate::durable::{self, IfThere};
use crate::snapshot::one_generation;
use crate::{Maintainer, ReadView, Snapshot, StoreError, Warehouse};

/// The code of a device that has not been activated yet; any other is how many months ago it was.
pub const NEVER: u8 = u8::MAX;
/// Of longer ago no codes are kept.
const MONTHS_AGO_MAX: i32 = NEVER as i32 - 1;

const MAGIC: [u8; 8] = *b"ACOHORT1";
const HEAD_BYTES: usize = 16;

/// The kept codes of one month.
#[derive(Debug)]
pub struct Cohorts {
    /// None for a month without activity.
    file: Option<(File, PathBuf)>,
    rows: u64,
    activated: u64,
}

impl Cohorts {
    /// Devices whose first activation was in this month.
    pub const fn activated(&self) -> u64 {
        self.activated
    }

    /// Rows of the month: active devices.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// The codes of the rows from `row` on: as many as `out` has places.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read_at(&self, row: u64, out: &mut [u8]) -> Result<(), StoreError> {
        let Some((file, path)) = &self.file else { return Ok(()) };
        let failed = |source| StoreError::Io { doing: "reading", path: path.display().to_string(), source };
        file.read_exact_at(out, row + HEAD_BYTES as u64).map_err(failed)
    }
}

impl ReadView {
    /// The kept codes of a month; `None` where there are none for the files of this view, or something is pending that they would count.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn cohorts(&self, month: Month) -> Result<Option<Cohorts>, StoreError> {
        let snapshot = self.snapshot();
        let files = snapshot.month_files(Table::Activity, month);
        if self.has_pending() {
            return Ok(None);
        }
        if files.is_empty() {
            let nothing = Cohorts { file: None, rows: 0, activated: 0 };
            return Ok(snapshot.month_files(Table::Devices, month).is_empty().then_some(nothing));
        }
        let Some(path) = path_of(self.warehouse(), snapshot, month) else { return Ok(None) };
        let failed = |source| StoreError::Io { doing: "reading", path: path.display().to_string(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let rows: u64 = files.iter().map(|file| file.rows).sum();
        let mut head = [0; HEAD_BYTES];
        let whole = file.metadata().map_err(failed)?.len() == rows + HEAD_BYTES as u64;
        if !whole || file.read_exact_at(&mut head, 0).is_err() || head[..8] != MAGIC {
            tracing::warn!("{} is damaged and is not used; it will be made anew", path.display());
            return Ok(None);
        }
        let activated = head.last_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Ok(Some(Cohorts { file: Some((file, path)), rows, activated }))
    }

    /// Months of at least so many active devices for which codes can be kept, and are not.
    pub fn months_without_cohorts(&self, rows_min: u64) -> Vec<Month> {
        let snapshot = self.snapshot();
        let large = |month: &Month| snapshot.month_files(Table::Activity, *month).iter().map(|file| file.rows).sum::<u64>() >= rows_min;
        let missing = |month: &Month| path_of(self.warehouse(), snapshot, *month).is_some() && matches!(self.cohorts(*month), Ok(None));
        self.months(Table::Activity).into_iter().filter(large).filter(missing).collect()
    }
}

impl Maintainer {
    /// Keeps the codes of a month as it stands in a view: of the rows of all its files, in the order of devices; in pieces.
    ///
    /// # Errors
    /// When the codes are not those of as many rows, or storage fails.
    pub async fn keep_cohorts(&self, view: &ReadView, month: Month, activated: u64, codes: Vec<Vec<u8>>) -> Result<(), StoreError> {
        let rows: u64 = view.snapshot().month_files(Table::Activity, month).iter().map(|file| file.rows).sum();
        let count: usize = codes.iter().map(Vec::len).sum();
        let Some(path) = path_of(&self.warehouse, view.snapshot(), month).filter(|_| rows == count as u64) else {
            return Err(StoreError::Batch(format!("{count} cohort codes for {rows} rows of {month}")));
        };
        let head = [MAGIC, activated.to_le_bytes()].concat();
        let chunks: Vec<Bytes> = std::iter::once(head).chain(codes).map(Bytes::from).collect();
        let shown = path.display().to_string();
        let put = tokio::task::spawn_blocking(move || durable::put_file(&path, &chunks, IfThere::Replace)).await?;
        put.map_err(|source| StoreError::Io { doing: "writing", path: shown, source })
    }
}

/// Deletes what no month of the snapshot has codes in, staged files too.
pub(crate) fn delete_others(warehouse: &Warehouse, snapshot: &Snapshot) -> io::Result<u64> {
    let entries = match fs::read_dir(folder(warehouse)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let valid: HashSet<PathBuf> =
        snapshot.months(Table::Activity).into_iter().filter_map(|month| path_of(warehouse, snapshot, month)).collect();
    let mut others = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if !valid.contains(&path) {
            others.push(path);
        }
    }
    durable::delete_files(&others)
}

fn folder(warehouse: &Warehouse) -> PathBuf {
    warehouse.root().join("_ameles").join("cohorts")
}

/// Where the month's codes are kept; `None` where a month is not settled of which they are made.
fn path_of(warehouse: &Warehouse, snapshot: &Snapshot, month: Month) -> Option<PathBuf> {
    let activations = snapshot.files(Table::Devices).chunk_by(|a, b| a.month == b.month).filter(|files| files[0].month <= month);
    let mut basis = digest::Context::new(&digest::SHA256);
    for (table, files) in activations.map(|files| ("devices", files)).chain([("activity", snapshot.month_files(Table::Activity, month))]) {
        let oldest = files.first()?.month;
        if !one_generation(files) || month.epoch_months() - oldest.epoch_months() > MONTHS_AGO_MAX {
            return None;
        }
        let mut names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        names.sort_unstable();
        for name in names {
            basis.update(format!("{table}/{name}\n").as_bytes());
        }
    }
    let basis = hex::encode(basis.finish().as_ref().get(..16)?);
    Some(folder(warehouse).join(format!("{month}-{basis}.codes")))
}
