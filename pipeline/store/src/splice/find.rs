//! Where the rows of some devices lie in a file: pages are chosen by their range,
//! and only those are decoded.

use std::sync::Arc;

use ameles_core::{DeviceId, Timestamp, UserId};
use ameles_schemas::Table;
use hashbrown::HashSet;

use super::Stop;
use super::file::ParquetFile;
use super::leaf::{Leaf, Rows, Values};
use super::page::Codec;
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
    rows_with(warehouse, table, file, devices, With { user: events || table == Table::Links, ts: events })
}

/// The same, where nothing but the devices is wanted to know: users and times may be left out, and their columns are not read.
///
/// # Errors
/// As [`rows_of_devices`].
pub fn devices_in(
    warehouse: &Warehouse,
    table: Table,
    file: &DataFile,
    devices: &Arc<Vec<[u8; 16]>>,
) -> Result<Vec<DeviceRow>, StoreError> {
    rows_with(warehouse, table, file, devices, With::default())
}

fn rows_with(
    warehouse: &Warehouse,
    table: Table,
    file: &DataFile,
    devices: &Arc<Vec<[u8; 16]>>,
    with: With,
) -> Result<Vec<DeviceRow>, StoreError> {
    let found = Codec::new().and_then(|mut codec| {
        let opened = ParquetFile::open(&warehouse.table_folder(table).join(&file.path))?;
        rows_of(&opened, &mut codec, devices, with, &mut Looked::default())
    });
    match found {
        Ok(rows) => {
            let row = |found: Found| DeviceRow {
                device: DeviceId::from_bytes(found.device),
                user: found.user.map(UserId::from_bytes),
                ts: found.ts,
            };
            Ok(rows.into_iter().map(row).collect())
        }
        Err(Stop::Failed(error)) => Err(error),
        Err(_) => the_general_way(warehouse, table, file, devices),
    }
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

/// Rows of `devices` (sorted), in order.
pub(crate) fn rows_of(
    file: &ParquetFile,
    codec: &mut Codec,
    devices: &[[u8; 16]],
    with: With,
    looked: &mut Looked,
) -> Result<Vec<Found>, Stop> {
    let column = file.leaf_of("device").ok_or(Stop::Unsupported("the file has no device column"))?;
    let all: HashSet<[u8; 16]> = devices.iter().copied().collect();
    let mut found = Vec::new();
    for group in 0..file.metadata.num_row_groups() {
        let chunk = file.chunk(group, column)?;
        let first = found.len();
        for page in 0..chunk.page_count() {
            let range = chunk.index.and_then(|index| PageRange::of_index(index, page)).and_then(|page| page.range);
            let mine = range.map_or(devices, |(min, max)| within(devices, &min, &max));
            if mine.is_empty() {
                continue;
            }
            let (_, leaf) = chunk.page(codec, page)?;
            looked.pages_decoded += 1;
            looked.rows_decoded += leaf.slots as u64;
            looked.bytes += chunk.page_bytes(page)?.len() as u64;
            let start = chunk.page_rows(page)?.start;
            let mut last: Option<(&[u8; 16], bool)> = None;
            for (row, device) in pseudonyms(&leaf)?.iter().enumerate() {
                // Neighbours are mostly of one device.
                let hit = match last {
                    Some((same, hit)) if same == device => hit,
                    _ if mine.len() <= 8 => mine.contains(device),
                    _ => all.contains(device),
                };
                last = Some((device, hit));
                if hit {
                    let row = u32::try_from(start + row).map_err(|_| Stop::Damaged("a row group has too many rows"))?;
                    found.push(Found { group: group as u32, row, device: *device, user: None, ts: None });
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

const NOT_16: Stop = Stop::Damaged("a pseudonym has not 16 bytes");

/// Those of sorted devices that lie in a range.
pub(crate) fn within<'a>(devices: &'a [[u8; 16]], min: &[u8], max: &[u8]) -> &'a [[u8; 16]] {
    let start = devices.partition_point(|device| device.as_slice() < min);
    let end = devices.partition_point(|device| device.as_slice() <= max);
    devices.get(start..end.max(start)).unwrap_or_default()
}

/// The values of a pseudonym column without nulls.
pub(crate) fn pseudonyms(leaf: &Leaf) -> Result<&[[u8; 16]], Stop> {
    match &leaf.values {
        Values::Texts(texts) if leaf.nulls() == 0 => {
            if texts.are_of::<16>() {
                Ok(texts.bytes.as_chunks().0)
            } else {
                Err(NOT_16)
            }
        }
        _ => Err(Stop::Unsupported("a pseudonym column has nulls or a dictionary")),
    }
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
        looked.bytes += chunk.page_bytes(page)?.len() as u64;
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
