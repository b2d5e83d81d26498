//! Where the rows of some devices lie in a file: pages are chosen by their range,
//! and only those are decoded.

use std::sync::Arc;

use ameles_core::{DeviceId, Timestamp, UserId};
use ameles_schemas::Table;
use hashbrown::HashSet;

use super::Stop;
use super::file::ParquetFile;
use super::leaf::{Rows, Values};
use super::page::Codec;
use super::runs::{NOT_16, Runs};
use super::stats::PageRange;
use crate::affected::some_columns;
use crate::append::times;
use crate::files::{Rows as _, RunReader, column, optional_pseudonyms, pseudonyms as column_pseudonyms};
use crate::{DataFile, StoreError, Warehouse};

/// A row of one of the devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) group: u32,
    /// Counted from the beginning of the row group.
    pub(crate) row: u32,
    /// Rows of the device from there on; one where values of each were asked for.
    pub(crate) count: u32,
    pub(crate) device: [u8; 16],
    pub(crate) user: Option<[u8; 16]>,
    pub(crate) ts: Option<Timestamp>,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Looked {
    pub(crate) pages_decoded: u64,
    pub(crate) rows_decoded: u64,
    pub(crate) bytes: u64,
}

/// A row of one of some devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceRow {
    /// The device.
    pub device: DeviceId,
    /// The user, where the table has one and the row too.
    pub user: Option<UserId>,
    /// When it happened; only of `events`.
    pub ts: Option<Timestamp>,
}

/// How many neighbouring rows of a data file are one device's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceRows {
    /// The device.
    pub device: DeviceId,
    /// Its rows.
    pub rows: u64,
}

/// The rows of `devices` (sorted, each once) in a data file, in order; pages that cannot hold one by their range are not read.
///
/// # Errors
/// When the file cannot be read.
pub fn rows_of_devices(
    warehouse: &Warehouse,
    table: Table,
    file: &DataFile,
    devices: &Arc<Vec<[u8; 16]>>,
) -> Result<Vec<DeviceRow>, StoreError> {
    let events = table == Table::Events;
    match found_in(warehouse, table, file, devices, With { user: events || table == Table::Links, ts: events }) {
        Ok(found) => {
            let row = |found: Found| DeviceRow {
                device: DeviceId::from_bytes(found.device),
                user: found.user.map(UserId::from_bytes),
                ts: found.ts,
            };
            Ok(found.into_iter().map(row).collect())
        }
        Err(Stop::Failed(error)) => Err(error),
        Err(_) => the_general_way(warehouse, table, file, devices),
    }
}

/// How many rows of each of `devices` (sorted, each once) a data file has; a device of which rows lie apart comes more than once.
///
/// # Errors
/// As [`rows_of_devices`].
pub fn devices_in(
    warehouse: &Warehouse,
    table: Table,
    file: &DataFile,
    devices: &Arc<Vec<[u8; 16]>>,
) -> Result<Vec<DeviceRows>, StoreError> {
    match found_in(warehouse, table, file, devices, With::default()) {
        Ok(found) => {
            let rows = |found: Found| DeviceRows { device: DeviceId::from_bytes(found.device), rows: u64::from(found.count) };
            Ok(found.into_iter().map(rows).collect())
        }
        Err(Stop::Failed(error)) => Err(error),
        Err(_) => {
            let rows = the_general_way(warehouse, table, file, devices)?;
            let same = rows.chunk_by(|a, b| a.device == b.device);
            Ok(same.filter_map(|rows| Some(DeviceRows { device: rows.first()?.device, rows: rows.len() as u64 })).collect())
        }
    }
}

fn found_in(warehouse: &Warehouse, table: Table, file: &DataFile, devices: &[[u8; 16]], with: With) -> Result<Vec<Found>, Stop> {
    let opened = ParquetFile::open(&warehouse.table_folder(table).join(&file.path))?;
    rows_of(&opened, &mut Codec::new()?, devices, with, &mut Looked::default())
}

/// By parquet's own reader, whatever the file's shape.
fn the_general_way(
    warehouse: &Warehouse,
    table: Table,
    file: &DataFile,
    devices: &Arc<Vec<[u8; 16]>>,
) -> Result<Vec<DeviceRow>, StoreError> {
    let events = table == Table::Events;
    let has_user = table == Table::Links || events && warehouse.tables().has_user;
    let names: &[&str] = match (events, has_user) {
        (true, true) => &["device", "ts", "user"],
        (true, false) => &["device", "ts"],
        (false, true) => &["device", "user"],
        (false, false) => &["device"],
    };
    let schema = some_columns(warehouse, table, names)?;
    let reader = RunReader::new(warehouse.table_folder(table), vec![file.clone()], schema);
    let mut reader = reader.of_devices(Arc::clone(devices));
    let mut found = Vec::new();
    while let Some(batch) = reader.next_batch()? {
        let ids = column_pseudonyms(column(&batch, "device")?, "device")?;
        let users = if has_user { Some(optional_pseudonyms(column(&batch, "user")?, "user")?) } else { None };
        let times = if events { Some(times(column(&batch, "ts")?)?) } else { None };
        for (row, device) in ids.into_iter().enumerate() {
            let device = device.to_be_bytes();
            if devices.binary_search(&device).is_ok() {
                let user = users.as_ref().and_then(|users| users.get(row).copied().flatten());
                let user = user.map(|user| UserId::from_bytes(user.to_be_bytes()));
                let ts = times.as_ref().and_then(|times| times.get(row).copied());
                found.push(DeviceRow { device: DeviceId::from_bytes(device), user, ts });
            }
        }
    }
    Ok(found)
}

/// Which columns' values are wanted with each row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct With {
    pub(crate) user: bool,
    pub(crate) ts: bool,
}

/// Rows of `devices` (sorted), in order; those that are neighbours together, where no value of theirs is asked for.
pub(crate) fn rows_of(
    file: &ParquetFile,
    codec: &mut Codec,
    devices: &[[u8; 16]],
    with: With,
    looked: &mut Looked,
) -> Result<Vec<Found>, Stop> {
    let column = file.leaf_of("device").ok_or(Stop::Unsupported("the file has no device column"))?;
    let all: HashSet<[u8; 16]> = devices.iter().copied().collect();
    let (mut found, mut runs) = (Vec::new(), Runs::default());
    let each_row = with != With::default();
    for group in 0..file.metadata.num_row_groups() {
        let chunk = file.chunk(group, column)?;
        let first = found.len();
        for page in 0..chunk.page_count() {
            let range = chunk.index.and_then(|index| PageRange::of_index(index, page)).and_then(|page| page.range);
            let mine = range.map_or(devices, |(min, max)| within(devices, &min, &max));
            if mine.is_empty() {
                continue;
            }
            looked.pages_decoded += 1;
            looked.rows_decoded += chunk.page_rows(page)?.len() as u64;
            looked.bytes += chunk.page_size(page)?;
            for run in runs.of(&chunk, codec, page)? {
                let hit = if mine.len() <= 8 { mine.contains(&run.id) } else { all.contains(&run.id) };
                if !hit {
                    continue;
                }
                let one =
                    Found { group: group as u32, row: run.rows.start, count: run.rows.len() as u32, device: run.id, user: None, ts: None };
                if each_row {
                    found.extend(run.rows.clone().map(|row| Found { row, count: 1, ..one }));
                } else {
                    found.push(one);
                }
            }
        }
        let mine = found.get_mut(first..).unwrap_or_default();
        if with.user
            && let Some(column) = file.leaf_of("user")
        {
            values_of(file, codec, group, column, mine, looked, |found, value| {
                found.user = value.map(|value| <[u8; 16]>::try_from(value).map_err(|_| NOT_16)).transpose()?;
                Ok(())
            })?;
        }
        if with.ts {
            let column = file.leaf_of("ts").ok_or(Stop::Unsupported("the file has no ts column"))?;
            values_of(file, codec, group, column, mine, looked, |found, value| {
                found.ts = value.and_then(<[u8]>::first_chunk).map(|chunk| Timestamp::from_micros(i64::from_le_bytes(*chunk)));
                Ok(())
            })?;
        }
    }
    Ok(found)
}

/// Those of sorted devices that lie in a range.
pub(crate) fn within<'a>(devices: &'a [[u8; 16]], min: &[u8], max: &[u8]) -> &'a [[u8; 16]] {
    let start = devices.partition_point(|device| device.as_slice() < min);
    let end = devices.partition_point(|device| device.as_slice() <= max);
    devices.get(start..end.max(start)).unwrap_or_default()
}

/// Calls `take` with each found row's value of a column; none where it is null.
pub(crate) fn values_of<T: HasRow>(
    file: &ParquetFile,
    codec: &mut Codec,
    group: usize,
    column: usize,
    found: &mut [T],
    looked: &mut Looked,
    mut take: impl FnMut(&mut T, Option<&[u8]>) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let chunk = file.chunk(group, column)?;
    let dictionary = if found.is_empty() { None } else { chunk.dictionary(codec)? };
    let mut left = found;
    for page in 0..chunk.page_count() {
        let rows = chunk.page_rows(page)?;
        let (mine, others) = std::mem::take(&mut left).split_at_mut_checked_by(rows.end);
        left = others;
        if mine.is_empty() {
            continue;
        }
        let (_, leaf) = chunk.page(codec, page)?;
        looked.pages_decoded += 1;
        looked.rows_decoded += leaf.slots as u64;
        looked.bytes += chunk.page_size(page)?;
        let places = Rows::new(&leaf, &chunk.shape);
        for one in mine {
            let row = one.row() - rows.start;
            let range = places.values(row..row + 1).ok_or(Stop::Damaged("a page has fewer rows than its index says"))?;
            let value = range.clone().next().map(|at| match (&leaf.values, &dictionary) {
                (Values::Codes(codes), Some(dictionary)) => codes.get(at).map_or(&[][..], |code| dictionary.entries.get(*code as usize)),
                (values, _) => values.get(at),
            });
            take(one, value)?;
        }
    }
    Ok(())
}

/// What is found in a row of a row group; in order of the rows.
pub(crate) trait HasRow {
    fn row(&self) -> usize;
}

impl HasRow for Found {
    fn row(&self) -> usize {
        self.row as usize
    }
}

trait SplitByRow: Sized {
    fn split_at_mut_checked_by(self, end: usize) -> (Self, Self);
}

impl<T: HasRow> SplitByRow for &mut [T] {
    /// Those in rows before `end`, and the others.
    fn split_at_mut_checked_by(self, end: usize) -> (Self, Self) {
        let at = self.partition_point(|one| one.row() < end);
        self.split_at_mut(at)
    }
}
