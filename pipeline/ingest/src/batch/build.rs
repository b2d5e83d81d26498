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
use hashbrown::HashMap;

use super::columns::ColumnSet;
use super::gather::Gatherer;
use super::order::{Key, drop_repeats, sort};
use super::quarantine::{HourlyCounts, QuarantineRow, quarantine_batch};
use super::stretches::{Share, Stretch, Stretches};
use super::{Part, Row};

/// Rows of a piece, roughly: what a thread has in hand as columns.
const PIECE_ROWS: usize = 448 << 10;
/// The last ones may be as small as this: smaller ones would make each erasure replace more files.
const PIECE_ROWS_LEAST: usize = PIECE_ROWS / 4;
/// Leading bits of the device that large batches are parted by: a range of a month fits a core's cache.
pub(crate) const RANGE_BITS: u32 = 8;
/// Batches of so many rows are parted.
const PARTED_ROWS: usize = 128 << 10;

/// Part, and row in it.
type Place = (u32, u32);

/// The rows of one month and one range of devices, together: what a core's cache holds.
#[derive(Default)]
pub(super) struct Bucket {
    pub(super) rows: Vec<Row>,
    pub(super) words: Vec<u32>,
    pub(super) words_per_row: usize,
    /// Where in which part each stretch of rows stands.
    stretches: Vec<(u32, Place)>,
    pub(super) keys: Vec<Key>,
    spare: Vec<Key>,
}

impl Bucket {
    fn place(&self, at: u32) -> Option<Place> {
        let stretch = self.stretches.partition_point(|(start, _)| *start <= at).checked_sub(1)?;
        let (start, (part, row)) = self.stretches[stretch];
        Some((part, row + (at - start)))
    }
}

/// A piece's rows that repeat an event of their batch.
#[derive(Default)]
struct Repeats {
    places: Vec<Place>,
    /// How many there are of each source and partner, while what tells them is at hand.
    counts: HourlyCounts,
}

struct MonthPieces {
    month: Month,
    /// The numbers of each piece's shares.
    pieces: Vec<Range<usize>>,
}

/// The rows of a batch, ready to be written.
pub(crate) struct SortedBatch {
    contract: Arc<Contract>,
    parts: Vec<Part>,
    bits: u32,
    words_per_row: usize,
    stretches: Stretches,
    months: Vec<MonthPieces>,
    gatherer: Gatherer,
    /// Explained rejections of all parts, and the counts of the reasons that name nobody.
    rejected: Vec<QuarantineRow>,
    counts: HourlyCounts,
    /// Rows that repeat an event of their batch, by piece.
    repeats: Mutex<BTreeMap<(usize, usize), Repeats>>,
}

impl SortedBatch {
    /// Plans the pieces. The parts keep what counting needs.
    pub(crate) fn new(contract: &Arc<Contract>, columns: &Arc<ColumnSet>, mut parts: Vec<Part>, mut counts: HourlyCounts) -> Self {
        let rows: usize = parts.iter().map(|part| part.rows.len()).sum();
        let bits = if rows < PARTED_ROWS { 0 } else { RANGE_BITS };
        let newest = parts.last().map_or_else(|| columns.dictionaries(), |part| Arc::clone(&part.dictionaries));
        let mut rejected = Vec::new();
        for part in &mut parts {
            part.renumber(columns, &newest);
            part.group(bits);
            rejected.append(&mut part.rejected);
            counts.merge(std::mem::take(&mut part.counted));
        }
        let stretches = Stretches::new(&parts, bits);
        let months = pieces(stretches.shares(), std::thread::available_parallelism().map_or(1, usize::from));
        let gatherer = Gatherer::new(contract, columns, &newest, rows);
        Self {
            contract: Arc::clone(contract),
            parts,
            bits,
            words_per_row: columns.words(),
            stretches,
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
        for repeats in self.repeats.into_inner().unwrap_or_else(PoisonError::into_inner).into_values() {
            for (part, at) in repeats.places {
                parts[part as usize].drop_repeat(at as usize);
            }
        }
        parts
    }

    /// Notes which rows of a bucket are repeats, and counts them for the quarantine.
    fn tell(&self, repeated: &[u32], bucket: &Bucket, to: &mut Repeats) {
        let mut counts: HashMap<(i64, *const u8, Option<u32>), (u32, u64)> = HashMap::new();
        for at in repeated {
            let Some(place) = bucket.place(*at) else { continue };
            to.places.push(place);
            let part = &self.parts[place.0 as usize];
            if !part.explained {
                let words = &bucket.words[*at as usize * bucket.words_per_row..];
                // Parts of one source share its name.
                let key = (part.arrival.hour().micros(), part.source.as_ptr(), part.partner_number(words));
                counts.entry(key).or_insert((place.0, 0)).1 += 1;
            }
        }
        for ((.., number), (part, events)) in counts {
            let part = &self.parts[part as usize];
            let partner = number.and_then(|number| part.partner_text(number));
            to.counts.add(part.arrival, &part.source, Reason::Duplicate, partner.as_deref(), events);
        }
    }

    /// Gathers the rows of a range of one month, sorted by (device, ts, event key, arrival).
    fn sorted(&self, bucket: &mut Bucket, share: usize) {
        let Bucket { rows, words, stretches, keys, spare, .. } = bucket;
        rows.clear();
        words.clear();
        stretches.clear();
        keys.clear();
        for Stretch { part: number, start, end } in self.stretches.of(share).iter().copied() {
            let part = &self.parts[number as usize];
            let first = rows.len() as u32;
            stretches.push((first, (number, start)));
            let stretch = start as usize..end as usize;
            rows.extend_from_slice(&part.rows[stretch.clone()]);
            part.read_words(stretch, words);
            let key = |(at, row): (u32, &Row)| Key { device: row.device, ts: row.ts, at };
            if part.has_dropped() {
                keys.extend(
                    (first..).zip(&rows[first as usize..]).filter(|(at, _)| !part.is_dropped((at - first + start) as usize)).map(key),
                );
            } else {
                keys.extend((first..).zip(&rows[first as usize..]).map(key));
            }
        }
        sort(keys, spare, self.bits, rows);
    }
}

impl SortedEvents for SortedBatch {
    fn months(&self) -> Vec<(Month, usize)> {
        self.months.iter().map(|pieces| (pieces.month, pieces.pieces.len())).collect()
    }

    fn piece(&self, month: usize, piece: usize, keys: bool) -> Result<RecordBatch, StoreError> {
        let pieces = &self.months[month];
        let mut columns = self.gatherer.start(PIECE_ROWS, keys);
        let mut repeats = Repeats::default();
        let mut bucket = Bucket { words_per_row: self.words_per_row, ..Bucket::default() };
        for share in pieces.pieces[piece].clone() {
            self.sorted(&mut bucket, share);
            if self.contract.roles().event_id.is_some() {
                let repeated = drop_repeats(&mut bucket.keys, &bucket.rows);
                self.tell(&repeated, &bucket, &mut repeats);
            }
            self.gatherer.push(&mut columns, &bucket);
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
        for repeats in self.repeats.lock().unwrap_or_else(PoisonError::into_inner).values() {
            counts.merge(repeats.counts.clone());
        }
        Ok(quarantine_batch(&self.contract, &self.rejected, &counts)?)
    }
}

/// Plans the pieces by month and range. Those that come last are smaller, so that all threads end at about the same time.
fn pieces(shares: &[Share], threads: usize) -> Vec<MonthPieces> {
    let mut months: Vec<MonthPieces> = Vec::new();
    let (mut left, mut in_hand) = (shares.iter().map(|share| share.rows).sum::<usize>(), 0);
    let mut most = PIECE_ROWS;
    for (number, Share { month, rows, .. }) in shares.iter().enumerate() {
        match months.last_mut() {
            Some(MonthPieces { month: last, pieces }) if last == month => match pieces.last_mut() {
                Some(piece) if in_hand + rows <= most => piece.end = number + 1,
                _ => {
                    pieces.push(number..number + 1);
                    in_hand = 0;
                }
            },
            _ => {
                months.push(MonthPieces { month: *month, pieces: std::iter::once(number..number + 1).collect() });
                in_hand = 0;
            }
        }
        if in_hand == 0 {
            most = (left / (2 * threads)).clamp(PIECE_ROWS_LEAST, PIECE_ROWS);
        }
        in_hand += rows;
        left -= rows;
    }
    months
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_hold_each_share_once_and_end_small(
            mut sizes in prop::collection::vec((0..4_i32, 1..PIECE_ROWS_LEAST), 1..200),
            threads in 1..9_usize,
        ) {
            sizes.sort_unstable();
            let shares: Vec<Share> = sizes.iter().map(|(month, rows)| Share::of(Month::from_epoch_months(*month), *rows)).collect();
            let mut planned = Vec::new();
            let mut left: usize = sizes.iter().map(|(_, rows)| rows).sum();
            for MonthPieces { month, pieces } in pieces(&shares, threads) {
                for piece in pieces {
                    let of_piece = &shares[piece.clone()];
                    let held: usize = of_piece.iter().map(|share| share.rows).sum();
                    let most = (left / (2 * threads)).clamp(PIECE_ROWS_LEAST, PIECE_ROWS);
                    prop_assert!(held <= most || of_piece.len() == 1, "{} rows of at most {}", held, most);
                    prop_assert!(of_piece.iter().all(|share| share.month == month));
                    left -= held;
                    planned.extend(piece);
                }
            }
            prop_assert_eq!(planned, (0..shares.len()).collect::<Vec<_>>());
        }
    }
}
