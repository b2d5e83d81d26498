//! From the parts of a batch to sorted record batches, one per month.

use std::sync::Arc;

use ameles_core::{Month, Reason, Timestamp};
use ameles_schemas::{Contract, Table};
use arrow::array::{Array, ArrayRef, BinaryArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{concat, take};
use arrow::error::ArrowError;

use super::{Part, Row};

const PSEUDONYM_BYTES: usize = 16;

/// What the warehouse takes of a batch.
#[derive(Debug, Default)]
pub(crate) struct Built {
    pub(crate) events: Vec<(Month, RecordBatch)>,
}

/// One row to sort: month, device, time, place of arrival.
type Key = (i32, u128, i64, u32);

/// Sorts the rows of all parts by (month, device, time, arrival), takes repeats
/// of (device, event key) within a month out of their parts, and makes one
/// record batch per month. The parts must be finished.
pub(crate) fn build(contract: &Contract, parts: &mut [Part]) -> Result<Built, ArrowError> {
    let mut keys = sort_keys(parts);
    keys.sort_unstable();
    if contract.roles().event_id.is_some() {
        drop_repeats(parts, &mut keys);
    }
    if keys.is_empty() {
        return Ok(Built::default());
    }
    let rows: Vec<Row> = parts.iter().flat_map(|part| part.rows.iter().copied()).collect();
    let columns = concat_columns(parts)?;
    parts.iter_mut().for_each(Part::release);
    let schema = contract.tables().file_schema(Table::Events);
    let roles = contract.roles();
    let mut built = Built::default();
    for run in keys.chunk_by(|left, right| left.0 == right.0) {
        let places = UInt32Array::from_iter_values(run.iter().map(|key| key.3));
        let of_run = || run.iter().map(|key| &rows[key.3 as usize]);
        let times = ScalarBuffer::from_iter(run.iter().map(|key| key.2));
        let mut arrays: Vec<ArrayRef> = vec![
            pseudonyms(run.iter().map(|key| key.1), false)?,
            Arc::new(TimestampMicrosecondArray::new(times, None).with_timezone("UTC")),
        ];
        if roles.user.is_some() {
            arrays.push(pseudonyms(of_run().map(|row| row.user), true)?);
        }
        let mut taken = columns.iter().map(|column| take(column, &places, None));
        arrays.extend(taken.next().transpose()?);
        if roles.event_id.is_some() {
            arrays.push(pseudonyms(of_run().map(|row| row.event_key), true)?);
        }
        for column in taken {
            arrays.push(column?);
        }
        built.events.push((Month::from_epoch_months(run[0].0), RecordBatch::try_new(Arc::clone(&schema), arrays)?));
    }
    Ok(built)
}

fn sort_keys(parts: &[Part]) -> Vec<Key> {
    let mut keys = Vec::with_capacity(parts.iter().map(|part| part.rows.len()).sum());
    let mut place = 0_u32;
    // Events of one month come together: the month is worked out once per day.
    let mut day_month = (i32::MIN, 0);
    for part in parts {
        for (at, row) in part.rows.iter().enumerate() {
            if !part.is_dropped(at) {
                let day = Timestamp::from_micros(row.ts).day();
                if day_month.0 != day.epoch_days() {
                    day_month = (day.epoch_days(), day.month().epoch_months());
                }
                keys.push((day_month.1, row.device, row.ts, place));
            }
            place += 1;
        }
    }
    keys
}

/// Of rows with the same month, device and event key the first to arrive stays.
fn drop_repeats(parts: &mut [Part], keys: &mut Vec<Key>) {
    let starts: Vec<u32> = parts
        .iter()
        .scan(0, |start, part| {
            let this = *start;
            *start += part.rows.len() as u32;
            Some(this)
        })
        .collect();
    let locate = |place: u32| {
        let part = starts.partition_point(|start| *start <= place) - 1;
        (part, (place - starts[part]) as usize)
    };
    let mut repeated: Vec<u32> = Vec::new();
    let mut of_device: Vec<(u128, u32)> = Vec::new();
    for group in keys.chunk_by(|left, right| left.0 == right.0 && left.1 == right.1) {
        if group.len() == 1 {
            continue;
        }
        of_device.clear();
        of_device.extend(group.iter().map(|key| {
            let (part, at) = locate(key.3);
            (parts[part].rows[at].event_key, key.3)
        }));
        of_device.sort_unstable();
        for pair in of_device.windows(2) {
            if pair[0].0 == pair[1].0 && pair[1].0 != 0 {
                repeated.push(pair[1].1);
            }
        }
    }
    if repeated.is_empty() {
        return;
    }
    for place in &repeated {
        let (part, at) = locate(*place);
        parts[part].drop_row(at, Reason::Duplicate);
    }
    repeated.sort_unstable();
    keys.retain(|key| repeated.binary_search(&key.3).is_err());
}

fn concat_columns(parts: &[Part]) -> Result<Vec<ArrayRef>, ArrowError> {
    let width = parts.first().map_or(0, |part| part.arrays.len());
    (0..width)
        .map(|column| {
            let of_parts: Vec<&dyn Array> = parts.iter().filter_map(|part| part.arrays.get(column)).map(AsRef::as_ref).collect();
            concat(&of_parts)
        })
        .collect()
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
