//! From a month's events to its activity, links and devices.
//!
//! A device's attributes are those of its latest event by (ts, event key), its
//! activation is the earliest activating event by the same order, a missing key
//! comes first. Events equal in both are told apart by their position.

use std::sync::Arc;

use ameles_core::Month;
use ameles_schemas::{Table, TableSchemas};
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int32Array, ListArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Schema, TimestampMicrosecondType, UInt32Type};

use crate::StoreError;
use crate::files::{column, pseudonym_bytes, to_u128};

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Rows of the merge tables that a batch of events gives, each in its table's file schema and order.
#[derive(Clone, Debug)]
pub struct RolledUp {
    /// One row per device.
    pub activity: RecordBatch,
    /// One row per user and device; no rows and no columns where the contract has no user.
    pub links: RecordBatch,
    /// One row per device that was activated.
    pub devices: RecordBatch,
}

impl RolledUp {
    pub(crate) fn of(&self, table: Table) -> Option<&RecordBatch> {
        match table {
            Table::Activity => Some(&self.activity),
            Table::Links => Some(&self.links),
            Table::Devices => Some(&self.devices),
            Table::Events | Table::Quarantine => None,
        }
    }
}

/// Rolls up events of one month, sorted by (device, ts).
///
/// # Errors
/// When the batch has not the columns of `events`, or is not sorted, or has rows of another month.
pub fn roll_up(tables: &TableSchemas, month: Month, sorted_events: &RecordBatch) -> Result<RolledUp, StoreError> {
    let Rolled { activity, links, devices } = roll_up_piece(tables, month, sorted_events)?;
    let links = if tables.has_user { links_batch(tables, &links)? } else { RecordBatch::new_empty(Arc::new(Schema::empty())) };
    Ok(RolledUp { activity, links, devices })
}

/// The same; links are sorted and still numbers, to be put together with those of other pieces.
pub(crate) fn roll_up_piece(tables: &TableSchemas, month: Month, sorted_events: &RecordBatch) -> Result<Rolled, StoreError> {
    let events = Events::new(tables, month, sorted_events)?;
    let links = if tables.has_user { events.links()? } else { Vec::new() };
    Ok(Rolled { activity: events.activity(tables)?, links, devices: events.devices(tables)? })
}

/// User, device, and the bits of the days.
pub(crate) type Link = (u128, u128, u32);

/// What [`roll_up_piece`] gives.
pub(crate) struct Rolled {
    pub(crate) activity: RecordBatch,
    pub(crate) links: Vec<Link>,
    pub(crate) devices: RecordBatch,
}

struct Events<'a> {
    batch: &'a RecordBatch,
    devices: &'a [[u8; 16]],
    ts: &'a TimestampMicrosecondArray,
    types: &'a ArrayRef,
    keys: Option<&'a BinaryArray>,
    /// The first row of each device, and the number of rows.
    starts: Vec<u32>,
    /// The day of the month of each row, from 0.
    days: Vec<u8>,
}

impl<'a> Events<'a> {
    fn new(tables: &TableSchemas, month: Month, batch: &'a RecordBatch) -> Result<Self, StoreError> {
        let devices = pseudonym_bytes(column(batch, "device")?, "device")?;
        let ts = column(batch, "ts")?
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(|| StoreError::Batch("column ts is no timestamp".into()))?;
        let (first, end) = (month.first_day().start().micros(), month.end().micros());
        if ts.null_count() > 0 || ts.values().iter().any(|at| *at < first || *at >= end) {
            return Err(StoreError::Batch(format!("column ts has times outside of {month}")));
        }
        let mut starts = Vec::new();
        let mut before = (0, i64::MIN);
        for (row, (device, at)) in devices.iter().zip(ts.values()).enumerate() {
            let this = (u128::from_be_bytes(*device), *at);
            if row == 0 || this.0 != before.0 {
                starts.push(row as u32);
            }
            if row > 0 && this < before {
                return Err(StoreError::Batch("events are not sorted by device and ts".into()));
            }
            before = this;
        }
        starts.push(devices.len() as u32);
        let days = ts.values().iter().map(|at| ((at - first) / MICROS_PER_DAY) as u8).collect();
        let keys = if tables.has_event_key { column(batch, "event_key")?.as_binary_opt::<i32>() } else { None };
        Ok(Self { batch, devices, ts, types: column(batch, "type")?, keys, starts, days })
    }

    fn groups(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.starts.windows(2).map(|pair| (pair[0] as usize, pair[1] as usize))
    }

    fn key(&self, row: usize) -> Option<&[u8]> {
        self.keys.filter(|keys| !keys.is_null(row)).map(|keys| keys.value(row))
    }

    /// For each row whether its type is `wanted`.
    fn is_type(&self, wanted: &str) -> Result<Vec<bool>, StoreError> {
        let no_text = || StoreError::Batch("column type is no string".into());
        if let Some(types) = self.types.as_dictionary_opt::<UInt32Type>() {
            let names = types.values().as_string_opt::<i32>().ok_or_else(no_text)?;
            let wanted: Vec<bool> = names.iter().map(|name| name == Some(wanted)).collect();
            return Ok(types.keys().values().iter().map(|code| wanted.get(*code as usize).copied().unwrap_or(false)).collect());
        }
        let types = self.types.as_string_opt::<i32>().ok_or_else(no_text)?;
        Ok((0..types.len()).map(|row| types.value(row) == wanted).collect())
    }

    /// The latest row of a device by (ts, key, position).
    fn latest(&self, start: usize, end: usize) -> usize {
        let mut latest = end - 1;
        let mut row = latest;
        while row > start && self.ts.value(row - 1) == self.ts.value(latest) {
            row -= 1;
            if self.key(row) > self.key(latest) {
                latest = row;
            }
        }
        latest
    }

    /// A column's values at some rows; text without its dictionary, since these rows are few.
    fn taken(&self, name: &str, rows: &UInt32Array) -> Result<ArrayRef, StoreError> {
        let taken = take(column(self.batch, name)?, rows, None)?;
        Ok(match taken.data_type() {
            DataType::Dictionary(_, values) => cast(&taken, values)?,
            _ => taken,
        })
    }

    fn times(rows: impl Iterator<Item = i64>) -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows).with_timezone("UTC"))
    }

    fn activity(&self, tables: &TableSchemas) -> Result<RecordBatch, StoreError> {
        let schema = tables.file_schema(Table::Activity);
        let bits: Vec<u32> = self.groups().map(|(start, end)| self.days[start..end].iter().fold(0, |bits, day| bits | 1 << day)).collect();
        let firsts = UInt32Array::from(self.starts[..self.starts.len() - 1].to_vec());
        let latest: UInt32Array = self.groups().map(|(start, end)| self.latest(start, end) as u32).collect();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            columns.push(match field.name().as_str() {
                "device" => take(column(self.batch, "device")?, &firsts, None)?,
                "days" => Arc::new(Int32Array::from_iter_values(bits.iter().map(|bits| *bits as i32))),
                "first_ts" => Self::times(self.groups().map(|(start, _)| self.ts.value(start))),
                "last_ts" => Self::times(self.groups().map(|(_, end)| self.ts.value(end - 1))),
                "last_key" => match self.keys {
                    Some(_) => take(column(self.batch, "event_key")?, &latest, None)?,
                    None => arrow::array::new_null_array(&DataType::Binary, bits.len()),
                },
                name => match tables.measure_index(name) {
                    Some(measure) => self.measure(&tables.measures[measure].event_type, field, &bits)?,
                    None => self.taken(name, &latest)?,
                },
            });
        }
        Ok(RecordBatch::try_new(schema, columns)?)
    }

    /// Events of one type on each active day, aligned with the set bits.
    fn measure(&self, event_type: &str, field: &Field, bits: &[u32]) -> Result<ArrayRef, StoreError> {
        let DataType::List(element) = field.data_type() else {
            return Err(StoreError::Batch(format!("measure {} is no list", field.name())));
        };
        let counted = self.is_type(event_type)?;
        let mut values = Vec::new();
        let mut lengths = Vec::with_capacity(bits.len());
        for ((start, end), bits) in self.groups().zip(bits) {
            let mut counts = [0_i32; 31];
            for row in start..end {
                counts[self.days[row] as usize] += i32::from(counted[row]);
            }
            values.extend((0..31).filter(|day| bits >> day & 1 == 1).map(|day| counts[day as usize]));
            lengths.push(bits.count_ones() as usize);
        }
        Ok(Arc::new(ListArray::try_new(
            Arc::clone(element),
            OffsetBuffer::from_lengths(lengths),
            Arc::new(Int32Array::from(values)),
            None,
        )?))
    }

    fn devices(&self, tables: &TableSchemas) -> Result<RecordBatch, StoreError> {
        let schema = tables.file_schema(Table::Devices);
        let activates = match &tables.activation_type {
            Some(activation) => self.is_type(activation)?,
            None => vec![true; self.devices.len()],
        };
        let earliest: UInt32Array = self.groups().filter_map(|(start, end)| self.activation(&activates, start, end)).collect();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            columns.push(match field.name().as_str() {
                "activated_ts" => take(column(self.batch, "ts")?, &earliest, None)?,
                "activated_key" => match self.keys {
                    Some(_) => take(column(self.batch, "event_key")?, &earliest, None)?,
                    None => arrow::array::new_null_array(&DataType::Binary, earliest.len()),
                },
                name => self.taken(name, &earliest)?,
            });
        }
        Ok(RecordBatch::try_new(schema, columns)?)
    }

    /// The earliest activating row of a device by (ts, key, position).
    fn activation(&self, activates: &[bool], start: usize, end: usize) -> Option<u32> {
        let first = (start..end).find(|row| activates[*row])?;
        let same_time = (first + 1..end).take_while(|row| self.ts.value(*row) == self.ts.value(first)).filter(|row| activates[*row]);
        Some(same_time.fold(first, |earliest, row| if self.key(row) < self.key(earliest) { row } else { earliest }) as u32)
    }

    fn links(&self) -> Result<Vec<Link>, StoreError> {
        let bad = || StoreError::Batch("column user must hold 16 bytes or null in each row".into());
        let users = column(self.batch, "user")?.as_binary_opt::<i32>().ok_or_else(bad)?;
        let mut links: Vec<Link> = Vec::new();
        for (row, (device, day)) in self.devices.iter().zip(&self.days).enumerate().filter(|(row, _)| !users.is_null(*row)) {
            let (user, device, bit) = (to_u128(users.value(row)).ok_or_else(bad)?, u128::from_be_bytes(*device), 1 << day);
            match links.last_mut() {
                // A user's events on a device mostly come one after another.
                Some(last) if (last.0, last.1) == (user, device) => last.2 |= bit,
                _ => links.push((user, device, bit)),
            }
        }
        links.sort_unstable();
        links.dedup_by(|next, kept| {
            let same = (next.0, next.1) == (kept.0, kept.1);
            if same {
                kept.2 |= next.2;
            }
            same
        });
        Ok(links)
    }
}

/// Rows of `links` from sorted ones.
pub(crate) fn links_batch(tables: &TableSchemas, links: &[Link]) -> Result<RecordBatch, StoreError> {
    let bytes = |pick: fn(&Link) -> u128| Arc::new(BinaryArray::from_iter_values(links.iter().map(|link| pick(link).to_be_bytes())));
    let days = Int32Array::from_iter_values(links.iter().map(|link| link.2 as i32));
    Ok(RecordBatch::try_new(tables.file_schema(Table::Links), vec![bytes(|link| link.0), bytes(|link| link.1), Arc::new(days)])?)
}
