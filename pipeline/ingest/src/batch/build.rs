//! From the parts of a batch to sorted record batches, one per month.

use std::sync::Arc;

use ameles_core::{Month, Reason, Timestamp};
use ameles_schemas::{Contract, Table};
use arrow::array::{Array, ArrayRef, BinaryArray, RecordBatch, TimestampMicrosecondArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::interleave;
use arrow::error::ArrowError;
use hashbrown::HashSet;

use super::{Part, Row};

const PSEUDONYM_BYTES: usize = 16;

/// What the warehouse takes of a batch.
#[derive(Debug, Default)]
pub(crate) struct Built {
    pub(crate) events: Vec<(Month, RecordBatch)>,
}

/// Part, and row in it: their order is the order of arrival.
type Place = (u32, u32);
/// One row to sort: month, device, time, arrival.
type Key = (i32, u128, i64, Place);

/// Sorts the rows of all parts by (month, device, time, arrival), takes repeats
/// of (device, event key) within a month out of their parts, and makes one
/// record batch per month. The parts must be finished; they keep only what
/// counting needs.
pub(crate) fn build(contract: &Contract, parts: &mut [Part]) -> Result<Built, ArrowError> {
    let mut keys = sort_keys(parts);
    keys.sort_unstable();
    if contract.roles().event_id.is_some() {
        drop_repeats(parts, &mut keys);
    }
    let schema = contract.tables().file_schema(Table::Events);
    let roles = contract.roles();
    let width = parts.first().map_or(0, |part| part.arrays.len());
    let mut built = Built::default();
    for run in keys.chunk_by(|left, right| left.0 == right.0) {
        let rows: Vec<Row> = run.iter().map(|key| row(parts, key.3)).collect();
        let places: Vec<(usize, usize)> = run.iter().map(|key| (key.3.0 as usize, key.3.1 as usize)).collect();
        let times: ScalarBuffer<i64> = run.iter().map(|key| key.2).collect();
        let mut arrays: Vec<ArrayRef> = vec![
            pseudonyms(run.iter().map(|key| key.1), false)?,
            Arc::new(TimestampMicrosecondArray::new(times, None).with_timezone("UTC")),
        ];
        if roles.user.is_some() {
            arrays.push(pseudonyms(rows.iter().map(|row| row.user), true)?);
        }
        let mut sorted = (0..width).map(|column| {
            let of_parts: Vec<&dyn Array> = parts.iter().map(|part| part.arrays[column].as_ref()).collect();
            interleave(&of_parts, &places)
        });
        arrays.extend(sorted.next().transpose()?);
        if roles.event_id.is_some() {
            arrays.push(pseudonyms(rows.iter().map(|row| row.event_key), true)?);
        }
        for column in sorted {
            arrays.push(column?);
        }
        built.events.push((Month::from_epoch_months(run[0].0), RecordBatch::try_new(Arc::clone(&schema), arrays)?));
    }
    parts.iter_mut().for_each(Part::release);
    Ok(built)
}

fn row(parts: &[Part], (part, at): Place) -> Row {
    parts[part as usize].rows[at as usize]
}

fn sort_keys(parts: &[Part]) -> Vec<Key> {
    let mut keys = Vec::with_capacity(parts.iter().map(|part| part.rows.len()).sum());
    // Events of one day come together: the month is worked out once per day.
    let mut day_month = (i32::MIN, 0);
    for (number, part) in (0..).zip(parts) {
        for (at, row) in (0..).zip(&part.rows) {
            if part.is_dropped(at as usize) {
                continue;
            }
            let day = Timestamp::from_micros(row.ts).day();
            if day_month.0 != day.epoch_days() {
                day_month = (day.epoch_days(), day.month().epoch_months());
            }
            keys.push((day_month.1, row.device, row.ts, (number, at)));
        }
    }
    keys
}

/// Of rows with the same month, device and event key the first to arrive stays.
fn drop_repeats(parts: &mut [Part], keys: &mut Vec<Key>) {
    let mut repeated: HashSet<Place> = HashSet::new();
    let mut of_device: Vec<(u128, Place)> = Vec::new();
    for group in keys.chunk_by(|left, right| left.0 == right.0 && left.1 == right.1) {
        if group.len() == 1 {
            continue;
        }
        of_device.clear();
        of_device.extend(group.iter().map(|key| (row(parts, key.3).event_key, key.3)));
        of_device.sort_unstable();
        for pair in of_device.windows(2) {
            if pair[0].0 == pair[1].0 && pair[1].0 != 0 {
                repeated.insert(pair[1].1);
            }
        }
    }
    for (part, at) in &repeated {
        parts[*part as usize].drop_row(*at as usize, Reason::Duplicate);
    }
    if !repeated.is_empty() {
        keys.retain(|key| !repeated.contains(&key.3));
    }
}

/// A binary column of 16 bytes each; zero is null where nulls are allowed.
fn pseudonyms(values: impl ExactSizeIterator<Item = u128>, nullable: bool) -> Result<ArrayRef, ArrowError> {
    let len = values.len();
    let mut bytes = Vec::with_capacity(len * PSEUDONYM_BYTES);
    let mut lengths = Vec::with_capacity(len);
    let mut valid = Vec::with_capacity(if nullable { len } else { 0 });
    for value in values {
        let present = !nullable || value != 0;
        if present {
            bytes.extend_from_slice(&value.to_be_bytes());
        }
        lengths.push(if present { PSEUDONYM_BYTES } else { 0 });
        if nullable {
            valid.push(present);
        }
    }
    let nulls = nullable.then(|| NullBuffer::from(valid)).filter(|nulls| nulls.null_count() > 0);
    let array = BinaryArray::try_new(OffsetBuffer::from_lengths(lengths), Buffer::from_vec(bytes), nulls)?;
    Ok(Arc::new(array))
}
