//! A batch as the warehouse takes it: the rows of all parts, sorted piece by
//! piece, without repeats.
//!
//! Rows stay where they were decoded. A piece gathers those of one month and one
//! range of devices, which a core's cache holds, sorts them, and makes columns of
//! them when it is their turn to be written.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use ameles_core::{Month, Reason, SuppressionSet, Timestamp};
use ameles_schemas::{Contract, Table};
use ameles_store::{SortedEvents, StoreError};
use arrow::array::RecordBatch;

use super::columns::ColumnSet;
use super::gather::Gatherer;
use super::part::range_of;
use super::quarantine::{HourlyCounts, QuarantineRow, quarantine_batch};
use super::Part;

/// Rows of a piece, roughly: what a thread has in hand as columns.
const PIECE_ROWS: usize = 448 << 10;
/// Leading bits of the device that large batches are parted by: a range of a month fits a core's cache.
pub(crate) const RANGE_BITS: u32 = 6;
/// Batches of so many rows are parted.
const PARTED_ROWS: usize = 128 << 10;
/// Further bits of the device by which a range is sorted before it is compared.
const DIGIT_BITS: u32 = 10;

/// Part, and row in it: their order is the order of arrival.
pub(super) type Place = (u32, u32);

/// One row to sort.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) device: u128,
    pub(super) ts: i64,
    pub(super) event_key: u128,
    pub(super) place: Place,
}

struct MonthPieces {
    month: Month,
    /// Ranges of devices, each piece's.
    pieces: Vec<Range<u32>>,
}

/// The rows of a batch, ready to be written.
pub(crate) struct SortedBatch {
    contract: Arc<Contract>,
    parts: Vec<Part>,
    bits: u32,
    months: Vec<MonthPieces>,
    gatherer: Gatherer,
    /// Explained rejections of all parts, and the counts of the reasons that name nobody.
    rejected: Vec<QuarantineRow>,
    counts: HourlyCounts,
    /// Rows that repeat an event of their batch, by piece.
    repeats: Mutex<BTreeMap<(usize, usize), Vec<Place>>>,
}

impl SortedBatch {
    /// Plans the pieces. The parts keep what counting needs.
    pub(crate) fn new(contract: &Arc<Contract>, columns: &Arc<ColumnSet>, mut parts: Vec<Part>, mut counts: HourlyCounts) -> Self {
        let rows: usize = parts.iter().map(|part| part.rows.len()).sum();
        let bits = if rows < PARTED_ROWS { 0 } else { RANGE_BITS };
        let newest = parts.last().map_or_else(|| columns.dictionaries(), |part| Arc::clone(&part.dictionaries));
        let mut rejected = Vec::new();
        let mut sizes: BTreeMap<(i32, u32), usize> = BTreeMap::new();
        for part in &mut parts {
            part.renumber(columns, &newest);
            part.group(bits);
            for group in part.groups() {
                *sizes.entry((group.month, group.range)).or_default() += group.len();
            }
            rejected.append(&mut part.rejected);
            counts.merge(std::mem::take(&mut part.counted));
        }
        let mut months: Vec<MonthPieces> = Vec::new();
        let mut in_hand = 0;
        for ((month, range), rows) in sizes {
            let month = Month::from_epoch_months(month);
            match months.last_mut() {
                Some(last) if last.month == month => match last.pieces.last_mut() {
                    Some(piece) if in_hand + rows <= PIECE_ROWS => {
                        piece.end = range + 1;
                        in_hand += rows;
                    }
                    _ => {
                        last.pieces.push(range..range + 1);
                        in_hand = rows;
                    }
                },
                _ => {
                    months.push(MonthPieces { month, pieces: vec![range..range + 1] });
                    in_hand = rows;
                }
            }
        }
        let gatherer = Gatherer::new(contract, columns, &newest, rows);
        Self {
            contract: Arc::clone(contract),
            parts,
            bits,
            months,
            gatherer,
            rejected,
            counts,
            repeats: Mutex::default(),
        }
    }

    /// Whether there is anything to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.months.is_empty() && self.rejected.is_empty() && self.counts.is_empty()
    }

    /// The months that have rows.
    pub(crate) fn month_list(&self) -> Vec<Month> {
        self.months.iter().map(|pieces| pieces.month).collect()
    }

    /// The parts, the repeats taken out of them.
    pub(crate) fn into_parts(self) -> Vec<Part> {
        let mut parts = self.parts;
        for (part, at) in self.repeats.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().flatten() {
            parts[part as usize].drop_row(at as usize, Reason::Duplicate);
        }
        // The batch's quarantine has told of them.
        for part in &mut parts {
            part.counted = HourlyCounts::default();
        }
        parts
    }

    /// The rows of a range of one month, sorted by (device, ts, event key, arrival).
    fn sorted(&self, month: i32, range: u32) -> Vec<Key> {
        let mut keys: Vec<Key> = Vec::new();
        for (number, part) in (0..).zip(&self.parts) {
            let groups = part.groups();
            let Ok(found) = groups.binary_search_by_key(&(month, range), |group| (group.month, group.range)) else { continue };
            keys.extend(part.places(&groups[found]).iter().filter(|at| !part.is_dropped(**at as usize)).map(|at| {
                let row = &part.rows[*at as usize];
                Key { device: row.device, ts: row.ts, event_key: row.event_key, place: (number, *at) }
            }));
        }
        sort(&mut keys, self.bits);
        keys
    }
}

impl SortedEvents for SortedBatch {
    fn months(&self) -> Vec<(Month, usize)> {
        self.months.iter().map(|pieces| (pieces.month, pieces.pieces.len())).collect()
    }

    fn piece(&self, month: usize, piece: usize) -> Result<RecordBatch, StoreError> {
        let pieces = &self.months[month];
        let mut columns = self.gatherer.start(PIECE_ROWS);
        let mut repeats = Vec::new();
        for range in pieces.pieces[piece].clone() {
            let mut keys = self.sorted(pieces.month.epoch_months(), range);
            if self.contract.roles().event_id.is_some() {
                drop_repeats(&mut keys, &mut repeats);
            }
            self.gatherer.push(&mut columns, &keys, &self.parts);
        }
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner).insert((month, piece), repeats);
        Ok(self.gatherer.finish(columns, self.contract.tables().file_schema(Table::Events))?)
    }

    fn is_covered(&self, set: &SuppressionSet) -> Result<bool, StoreError> {
        let covered = |part: &Part, at: usize| {
            let row = &part.rows[at];
            !part.is_dropped(at) && set.covers(row.device_id(), row.user_id(), Timestamp::from_micros(row.ts))
        };
        Ok(!set.is_empty() && self.parts.iter().any(|part| (0..part.rows.len()).any(|at| covered(part, at))))
    }

    fn quarantine(&self) -> Result<Option<RecordBatch>, StoreError> {
        let mut counts = self.counts.clone();
        for (part, at) in self.repeats.lock().unwrap_or_else(PoisonError::into_inner).values().flatten() {
            let part = &self.parts[*part as usize];
            if !part.explained {
                counts.add(part.arrival, &part.source, Reason::Duplicate, part.partner(*at as usize).as_deref(), 1);
            }
        }
        Ok(quarantine_batch(&self.contract, &self.rejected, &counts)?)
    }
}

/// Sorts the rows of one range: first by the bits of the device behind the range's, so that few are left to compare.
fn sort(keys: &mut Vec<Key>, bits: u32) {
    if keys.len() < 1 << DIGIT_BITS {
        keys.sort_unstable();
        return;
    }
    let digit = |key: &Key| range_of(key.device << bits, DIGIT_BITS) as usize;
    let mut ends = vec![0_usize; 1 << DIGIT_BITS];
    for key in keys.iter() {
        ends[digit(key)] += 1;
    }
    let mut end = 0;
    for count in &mut ends {
        end += *count;
        *count = end - *count;
    }
    let mut sorted = keys.clone();
    for key in keys.iter() {
        let place = &mut ends[digit(key)];
        sorted[*place] = *key;
        *place += 1;
    }
    let mut start = 0;
    for end in ends {
        sorted[start..end].sort_unstable();
        start = end;
    }
    *keys = sorted;
}

/// Of a device's rows with the same event key the first to arrive stays; the others' places are told.
fn drop_repeats(keys: &mut Vec<Key>, repeats: &mut Vec<Place>) {
    let mut repeated: Vec<usize> = Vec::new();
    let mut of_device: Vec<(u128, Place, usize)> = Vec::new();
    let mut start = 0;
    for device in keys.chunk_by(|left, right| left.device == right.device) {
        of_device.clear();
        of_device.extend(device.iter().zip(start..).map(|(key, at)| (key.event_key, key.place, at)));
        of_device.sort_unstable();
        let twice = |pair: &&[(u128, Place, usize)]| pair[0].0 == pair[1].0 && pair[1].0 != 0;
        repeated.extend(of_device.windows(2).filter(twice).map(|pair| pair[1].2));
        start += device.len();
    }
    if repeated.is_empty() {
        return;
    }
    repeats.extend(repeated.iter().map(|at| keys[*at].place));
    repeated.sort_unstable();
    let mut next = repeated.into_iter().peekable();
    let mut at = 0;
    keys.retain(|_| {
        at += 1;
        next.next_if_eq(&(at - 1)).is_none()
    });
}
