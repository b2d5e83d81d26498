//! A settled month without some subjects' rows: each file that holds one is
//! spliced, the others stay as they are.
//!
//! The new files carry the generation and the part of those that they replace,
//! and the `modificationTime`, so that the month is one sorted run as before; a
//! revision makes their names new. Where some events of a device stay, its rows
//! of the roll-up are computed from these and take the place of the old ones.

pub(crate) mod estimate;

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ameles_core::{DeviceId, Month, SuppressionSet, Timestamp, UserId};
use ameles_schemas::Table;
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::Int32Type;
use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use parquet::file::metadata::ParquetMetaData;

use super::file::ParquetFile;
use super::find::{Found, HasRow, Looked, With, rows_of, values_of};
use super::page::Codec;
use super::replace::Replaced;
use super::runs::Runs;
use super::throttle::Throttle;
use super::{Counts, Edit, Stop};
use crate::affected::{some_columns, sorted, takes_whole_devices};
use crate::append::covered;
use crate::durable;
use crate::encode::FileEncoder;
use crate::files::{Rows, RunReader, column, properties, pseudonyms as column_pseudonyms};
use crate::names::{Keys, Origin};
use crate::progress::Counter;
use crate::rollup::{RolledUp, roll_up};
use crate::settle::without_keys;
use crate::{DataFile, Snapshot, StoreError, Warehouse};

/// Files in work at once for each core: two months go at once, so that one has work while the other waits for the disk.
const FILES_PER_CORE: usize = 1;

/// What is to be done.
pub(crate) struct Splicing {
    pub(crate) warehouse: Warehouse,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) month: Month,
    /// Part of the new files' names, never used before.
    pub(crate) revision: String,
    pub(crate) suppressed: Arc<SuppressionSet>,
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) progress: Counter,
}

/// What was written.
#[derive(Default)]
pub(crate) struct SplicedMonth {
    pub(crate) files: Vec<Replaced>,
    pub(crate) erased: u64,
    pub(crate) counts: Counts,
}

/// Rows of the roll-up that take the place of others.
pub(super) struct Replacements {
    pub(super) rows: RecordBatch,
    pub(super) file: ParquetFile,
    /// The row of each device, or of each user and device.
    places: HashMap<(u128, u128), u32>,
}

/// Which rows of which files of `events` go, and what that means for their devices.
#[derive(Default)]
struct Erased {
    edits: HashMap<String, Vec<Found>>,
    /// The footers of the files that these are in.
    footers: HashMap<String, Arc<ParquetMetaData>>,
    rows: u64,
    /// Devices of which some row goes.
    devices: HashSet<[u8; 16]>,
    /// Those of them of which some row stays.
    partial: HashSet<[u8; 16]>,
}

/// Edits by row group; with each whether a row of the replacements stands there now.
type Edits = Vec<Vec<(Option<Edit>, bool)>>;

fn number(id: &[u8; 16]) -> u128 {
    u128::from_be_bytes(*id)
}

impl Splicing {
    /// Writes what takes the place of the month's files that hold covered rows, and commits nothing. No files where no row is covered.
    pub(crate) fn run(&self) -> Result<SplicedMonth, Stop> {
        let erased = self.find()?;
        if erased.rows == 0 {
            return Ok(SplicedMonth::default());
        }
        let rolled = self.remaining(&erased.partial)?;
        let replacements = Table::ALL.map(|table| rolled.as_ref().and_then(|rolled| rolled.of(table)).filter(|rows| rows.num_rows() > 0));
        let mut by_table: Vec<(Table, Option<Replacements>)> = Vec::new();
        for (table, rows) in Table::ALL.into_iter().zip(replacements) {
            by_table.push((table, rows.map(|rows| self.replacements(table, rows)).transpose()?));
        }
        let devices: Vec<[u8; 16]> = sorted(erased.devices.iter().copied()).to_vec();
        let mut jobs = self.jobs(&erased);
        // The largest first, so that all cores end at about the same time.
        jobs.sort_by_key(|(_, file)| Reverse(file.size));
        let written: Mutex<Vec<PathBuf>> = Mutex::default();
        let work = |codec: &mut Codec, (table, file): (Table, DataFile)| {
            let replacements = by_table.iter().find(|(of, _)| *of == table).and_then(|(_, rows)| rows.as_ref());
            let (edits, footer) = match table {
                Table::Events => self.edits_of_events(&file, &erased)?,
                Table::Links => self.edits_of_links(codec, &file, &erased.devices, replacements)?,
                _ => self.edits_by_device(codec, table, &file, &devices, replacements)?,
            };
            let matched: usize = edits.iter().flatten().filter(|edit| edit.1).count();
            let edits: Vec<Vec<Edit>> = edits.into_iter().map(|edits| edits.into_iter().filter_map(|edit| edit.0).collect()).collect();
            let replaced = if edits.iter().all(Vec::is_empty) {
                None
            } else {
                Some(self.replace(codec, (table, file, footer), &edits, replacements, &written)?)
            };
            Ok((table, matched, replaced))
        };
        let done = parallel(jobs.into(), work).and_then(|done| {
            for (table, replacements) in by_table.iter().filter_map(|(table, rows)| Some((table, rows.as_ref()?))) {
                let matched: usize = done.iter().filter(|(of, ..)| of == table).map(|(_, matched, _)| matched).sum();
                if matched != replacements.rows.num_rows() {
                    return Err(Stop::Unsupported("a device's remaining events give rows that it had none of before"));
                }
            }
            // One sync for the names of all files of a folder; nothing is committed before.
            let folders: BTreeSet<PathBuf> =
                written.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(|path| path.parent().map(PathBuf::from)).collect();
            for folder in folders {
                durable::sync_directory(&folder).map_err(|source| StoreError::Io {
                    doing: "syncing",
                    path: folder.display().to_string(),
                    source,
                })?;
            }
            Ok(done)
        });
        let done = done.inspect_err(|_| {
            // Nothing names them: what cannot be deleted now is an orphan, which a purge takes away.
            let written = written.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = durable::delete_files(&written) {
                tracing::warn!(error = &error as &dyn std::error::Error, "files of an erasure that stopped could not be deleted");
            }
        })?;
        let mut month = SplicedMonth { erased: erased.rows, ..SplicedMonth::default() };
        for (replaced, counts) in done.into_iter().filter_map(|(_, _, replaced)| replaced) {
            month.counts.add(&counts);
            month.files.push(replaced);
        }
        month.files.sort_by(|a, b| (a.table, &a.old.path).cmp(&(b.table, &b.old.path)));
        Ok(month)
    }

    /// Files of all tables that may hold a row that goes.
    fn jobs(&self, erased: &Erased) -> Vec<(Table, DataFile)> {
        let tables = self.warehouse.tables().tables().into_iter().filter(|table| *table != Table::Quarantine);
        let files = tables.flat_map(|table| self.snapshot.month_files(table, self.month).iter().map(move |file| (table, file)));
        let wanted = files.filter(|(table, file)| *table != Table::Events || erased.edits.contains_key(&file.path));
        wanted.map(|(table, file)| (table, file.clone())).collect()
    }

    pub(super) fn path(&self, table: Table, file: &DataFile) -> PathBuf {
        self.warehouse.table_folder(table).join(&file.path)
    }

    /// Devices that may have a covered row: those that are named, and the users' by the month's links.
    fn named_devices(&self) -> Result<Arc<Vec<[u8; 16]>>, Stop> {
        let mut devices: HashSet<[u8; 16]> = self.suppressed.touched_devices().iter().map(|device| *device.as_bytes()).collect();
        if self.warehouse.tables().has_user && self.suppressed.users().next().is_some() {
            let schema = some_columns(&self.warehouse, Table::Links, &["user", "device"])?;
            let files = self.snapshot.month_files(Table::Links, self.month).to_vec();
            let mut links = RunReader::new(self.warehouse.table_folder(Table::Links), files, schema);
            while let Some(batch) = links.next_batch()? {
                let users = column_pseudonyms(column(&batch, "user")?, "user")?;
                let of = column_pseudonyms(column(&batch, "device")?, "device")?;
                let named = |user: u128| self.suppressed.names_user(UserId::from_bytes(user.to_be_bytes()));
                devices.extend(users.into_iter().zip(of).filter(|(user, _)| named(*user)).map(|(_, device)| device.to_be_bytes()));
            }
        }
        Ok(sorted(devices.into_iter()))
    }

    fn find(&self) -> Result<Erased, Stop> {
        let devices = self.named_devices()?;
        let set = &self.suppressed;
        // Where all of a device goes, nothing but its pseudonym tells.
        let whole = takes_whole_devices(set);
        let with = if whole { With::default() } else { With { user: true, ts: true } };
        let files: VecDeque<DataFile> = self.snapshot.month_files(Table::Events, self.month).iter().cloned().collect();
        let found = parallel(files, |codec, file| {
            let opened = ParquetFile::open(&self.path(Table::Events, &file))?;
            let rows = rows_of(&opened, codec, &devices, with, &mut Looked::default())?;
            self.progress.add(file.rows);
            Ok((file.path, rows, opened.metadata))
        })?;
        let mut erased = Erased::default();
        let covers = |found: &Found| {
            let user = found.user.map(UserId::from_bytes);
            whole || set.covers(DeviceId::from_bytes(found.device), user, found.ts.unwrap_or(Timestamp::MAX))
        };
        for (_, rows, _) in &found {
            erased.devices.extend(rows.iter().filter(|found| covers(found)).map(|found| found.device));
        }
        for (path, mut rows, footer) in found {
            let stays = rows.iter().filter(|found| !covers(found) && erased.devices.contains(&found.device));
            erased.partial.extend(stays.map(|found| found.device));
            rows.retain(covers);
            erased.rows += rows.iter().map(|found| u64::from(found.count)).sum::<u64>();
            if !rows.is_empty() {
                erased.footers.insert(path.clone(), footer);
                erased.edits.insert(path, rows);
            }
        }
        Ok(erased)
    }

    /// What the remaining events of devices give of which some go.
    fn remaining(&self, partial: &HashSet<[u8; 16]>) -> Result<Option<RolledUp>, Stop> {
        if partial.is_empty() {
            return Ok(None);
        }
        let schema = self.warehouse.tables().file_schema(Table::Events);
        let files = self.snapshot.month_files(Table::Events, self.month).to_vec();
        let devices = sorted(partial.iter().copied());
        let mut events = RunReader::new(self.warehouse.table_folder(Table::Events), files, Arc::clone(&schema)).of_devices(devices);
        let mut kept = Vec::new();
        while let Some(batch) = events.next_batch()? {
            let devices = column_pseudonyms(column(&batch, "device")?, "device")?;
            let covered = covered(&batch, &self.suppressed)?;
            let stays = devices.iter().zip(covered).map(|(device, covered)| Some(!covered && partial.contains(&device.to_be_bytes())));
            kept.push(filter_record_batch(&batch, &stays.collect::<BooleanArray>())?);
        }
        Ok(Some(roll_up(self.warehouse.tables(), self.month, &concat_batches(&schema, &kept)?)?))
    }

    fn replacements(&self, table: Table, rows: &RecordBatch) -> Result<Replacements, Stop> {
        let dropped = |file: &DataFile| matches!(file.origin, Origin::Settled { keys: Keys::Dropped, .. });
        let events = self.snapshot.month_files(Table::Events, self.month);
        let rows = if events.iter().all(dropped) { without_keys(rows)? } else { rows.clone() };
        let schema = self.warehouse.tables().file_schema(table);
        let mut encoder = FileEncoder::new(Vec::new(), Arc::clone(&schema), properties(table, &schema))?;
        encoder.write(&rows)?;
        let file = ParquetFile::of_bytes(Bytes::from(encoder.finish()?))?;
        let devices = column_pseudonyms(column(&rows, "device")?, "device")?;
        let users = match table {
            Table::Links => column_pseudonyms(column(&rows, "user")?, "user")?,
            _ => vec![0; devices.len()],
        };
        let places = users.into_iter().zip(devices).zip(0_u32..).collect();
        Ok(Replacements { rows, file, places })
    }

    fn edits_of_events(&self, file: &DataFile, erased: &Erased) -> Result<(Edits, Arc<ParquetMetaData>), Stop> {
        let mut edits = Edits::new();
        for found in erased.edits.get(&file.path).into_iter().flatten() {
            for row in found.row..found.row + found.count {
                put(&mut edits, found.group, Some(Edit { row, with: None }), false);
            }
        }
        let footer = erased.footers.get(&file.path).ok_or(Stop::Mismatch("a file in which rows were found has not been opened"))?;
        Ok((edits, Arc::clone(footer)))
    }

    fn edits_by_device(
        &self,
        codec: &mut Codec,
        table: Table,
        file: &DataFile,
        devices: &[[u8; 16]],
        replacements: Option<&Replacements>,
    ) -> Result<(Edits, Arc<ParquetMetaData>), Stop> {
        let opened = ParquetFile::open(&self.path(table, file))?;
        let mut edits = Edits::new();
        for found in rows_of(&opened, codec, devices, With::default(), &mut Looked::default())? {
            let with = replacements.and_then(|rows| rows.places.get(&(0, number(&found.device))).copied());
            for row in found.row..found.row + found.count {
                put(&mut edits, found.group, Some(Edit { row, with }), with.is_some());
            }
        }
        Ok((edits, opened.metadata))
    }

    /// Devices come in no order: the column is read whole, the others where one of them is found.
    fn edits_of_links(
        &self,
        codec: &mut Codec,
        file: &DataFile,
        devices: &HashSet<[u8; 16]>,
        replacements: Option<&Replacements>,
    ) -> Result<(Edits, Arc<ParquetMetaData>), Stop> {
        let opened = ParquetFile::open(&self.path(Table::Links, file))?;
        let place = |name: &str| opened.leaf_of(name).ok_or(Stop::Unsupported("links have another column than expected"));
        let (device, user, days) = (place("device")?, place("user")?, place("days")?);
        let (mut edits, mut runs) = (Edits::new(), Runs::default());
        for group in 0..opened.metadata.num_row_groups() {
            let chunk = opened.chunk(group, device)?;
            let mut found: Vec<Link> = Vec::new();
            for page in 0..chunk.page_count() {
                for run in runs.of(&chunk, codec, page)?.iter().filter(|run| devices.contains(&run.id)) {
                    found.extend(run.rows.clone().map(|row| Link { row: row as usize, device: run.id, ..Link::default() }));
                }
            }
            if replacements.is_some() {
                let mut looked = Looked::default();
                values_of(&opened, codec, group, user, &mut found, &mut looked, |link, value| {
                    link.user = value.and_then(|value| value.try_into().ok()).unwrap_or_default();
                    Ok(())
                })?;
                values_of(&opened, codec, group, days, &mut found, &mut looked, |link, value| {
                    link.days = value.and_then(<[u8]>::first_chunk).map(|days| i32::from_le_bytes(*days));
                    Ok(())
                })?;
            }
            for link in found {
                let row = u32::try_from(link.row).map_err(|_| Stop::Damaged("a row group has too many rows"))?;
                let group = group as u32;
                let Some((rows, with)) =
                    replacements.and_then(|rows| Some((rows, rows.places.get(&(number(&link.user), number(&link.device))).copied()?)))
                else {
                    put(&mut edits, group, Some(Edit { row, with: None }), false);
                    continue;
                };
                let days = column(&rows.rows, "days")?.as_primitive_opt::<Int32Type>().map(|days| days.value(with as usize));
                let same = days == link.days;
                put(&mut edits, group, (!same).then_some(Edit { row, with: Some(with) }), true);
            }
        }
        Ok((edits, opened.metadata))
    }
}

/// A row of `links`.
#[derive(Clone, Copy, Default)]
struct Link {
    row: usize,
    device: [u8; 16],
    user: [u8; 16],
    days: Option<i32>,
}

impl HasRow for Link {
    fn row(&self) -> usize {
        self.row
    }
}

fn put(edits: &mut Edits, group: u32, edit: Option<Edit>, matched: bool) {
    let group = group as usize;
    if edits.len() <= group {
        edits.resize_with(group + 1, Vec::new);
    }
    edits[group].push((edit, matched));
}

/// Works through jobs in a few threads, each with a codec of its own; the first error ends all.
pub(crate) fn parallel<J: Send, R: Send>(
    jobs: VecDeque<J>,
    work: impl Fn(&mut Codec, J) -> Result<R, Stop> + Sync,
) -> Result<Vec<R>, Stop> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (cores * FILES_PER_CORE).min(jobs.len()).max(1);
    let queue = Mutex::new(jobs);
    let run = || -> Result<Vec<R>, Stop> {
        let mut codec = Codec::new()?;
        let mut done = Vec::new();
        loop {
            let Some(job) = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front() else { return Ok(done) };
            match work(&mut codec, job) {
                Ok(result) => done.push(result),
                Err(error) => {
                    queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    return Err(error);
                }
            }
        }
    };
    let shares: Vec<Result<Vec<R>, Stop>> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let own = run();
        let panicked = |_| Err(Stop::Mismatch("a thread that rewrites files panicked"));
        others.into_iter().map(|other| other.join().unwrap_or_else(panicked)).chain([own]).collect()
    });
    let mut all = Vec::new();
    for share in shares {
        all.extend(share?);
    }
    Ok(all)
}
