//! Partial rows of a merge table as one row per key: days or'ed, measures added
//! day by day, first and last times widened, attributes of the latest event as
//! one row, the earliest activation.
//!
//! Of two partial rows whose times and keys are equal the one with the greater
//! attributes wins, whatever the order in which they come.

use std::cmp::Ordering;
use std::sync::Arc;

use ameles_schemas::{Table, TableSchemas};
use arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListArray, RecordBatch, TimestampMicrosecondArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Int32Type, Schema, SchemaRef, TimestampMicrosecondType};

use crate::StoreError;
use crate::files::{Rows, column, pseudonyms};
use crate::merge::{Key, Merger, Place};

/// Rows in one batch of the result.
const BATCH_ROWS: usize = 8 << 10;

/// Merged rows of one month of a merge table.
pub(crate) struct Folded<'a> {
    merger: Merger<'a, ()>,
    how: Columns,
}

/// What is read and what is given.
struct Columns {
    table: Table,
    /// Columns read: those wanted and those needed to merge them.
    read: SchemaRef,
    wanted: SchemaRef,
    /// Places in `read` of the columns whose values choose among equal times.
    attributes: Vec<usize>,
}

/// The columns that have to be read in order to merge `wanted` ones.
pub(crate) fn columns_to_read(tables: &TableSchemas, table: Table, wanted: &Schema) -> SchemaRef {
    let wants = |name: &str| wanted.field_with_name(name).is_ok();
    let any_attribute = tables.dimensions.iter().any(|dimension| wants(dimension)) || wants("last_key") || wants("activated_key");
    let any_measure = tables.measures.iter().any(|measure| wants(&measure.name));
    let all = tables.file_schema(table);
    let needed = all.fields().iter().filter(|field| {
        let name = field.name().as_str();
        wants(name)
            || table.key_columns().contains(&name)
            || (any_measure && name == "days")
            || (any_attribute && (tables.dimension_index(name).is_some() || ["last_ts", "last_key"].contains(&name)))
            || ["activated_ts", "activated_key"].contains(&name) && (any_attribute || wants("activated_ts"))
    });
    Arc::new(Schema::new(needed.cloned().collect::<Vec<_>>()))
}

impl<'a> Folded<'a> {
    /// `runs` give the columns of `columns_to_read`.
    pub(crate) fn new(tables: &TableSchemas, table: Table, wanted: SchemaRef, runs: Vec<Box<dyn Rows + 'a>>) -> Self {
        let read = columns_to_read(tables, table, &wanted);
        let attributes = read
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| tables.dimension_index(field.name()).is_some())
            .map(|(at, _)| at)
            .collect();
        let merger = Merger::new(runs, Box::new(move |_, batch: &RecordBatch| Ok((keys(table, batch)?, ()))));
        Self { merger, how: Columns { table, read, wanted, attributes } }
    }
}

/// The sort keys of a batch of a merge table.
pub(crate) fn keys(table: Table, batch: &RecordBatch) -> Result<Vec<Key>, StoreError> {
    match table.key_columns() {
        [first] => Ok(pseudonyms(column(batch, first)?, first)?.into_iter().map(|key| (key, 0)).collect()),
        [first, second] => {
            let second = pseudonyms(column(batch, second)?, second)?;
            Ok(pseudonyms(column(batch, first)?, first)?.into_iter().zip(second).collect())
        }
        _ => Err(StoreError::schema(table, "its rows have no key")),
    }
}

impl Rows for Folded<'_> {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>, StoreError> {
        self.merger.release();
        let mut places = Vec::with_capacity(BATCH_ROWS + 64);
        let mut starts = vec![0];
        while let Some(next) = self.merger.next()? {
            places.push(next.place);
            if self.merger.peek() != Some(next.key) {
                starts.push(places.len());
                if starts.len() > BATCH_ROWS {
                    break;
                }
            }
        }
        if places.is_empty() {
            return Ok(None);
        }
        self.how.fold(&self.merger, &places, &starts).map(Some)
    }
}

impl Columns {
    fn fold(&self, merger: &Merger<'_, ()>, places: &[Place], starts: &[usize]) -> Result<RecordBatch, StoreError> {
        let groups: Vec<&[Place]> = starts.windows(2).map(|pair| &places[pair[0]..pair[1]]).collect();
        let mut chosen: Option<Vec<Place>> = None;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.wanted.fields().len());
        for field in self.wanted.fields() {
            let at = self.read.index_of(field.name())?;
            columns.push(if groups.len() == places.len() {
                merger.gather_column(at, places)?
            } else {
                match field.name().as_str() {
                    "days" => Arc::new(Int32Array::from_iter_values(groups.iter().map(|group| days(merger, at, group) as i32))),
                    "first_ts" => {
                        times(groups.iter().map(|group| group.iter().map(|place| time(merger, at, *place)).min().unwrap_or_default()))
                    }
                    "last_ts" => {
                        times(groups.iter().map(|group| group.iter().map(|place| time(merger, at, *place)).max().unwrap_or_default()))
                    }
                    _ if matches!(field.data_type(), DataType::List(_)) => self.measure(merger, at, field.data_type(), &groups)?,
                    _ => {
                        let chosen = chosen.get_or_insert_with(|| groups.iter().map(|group| self.choose(merger, group)).collect());
                        merger.gather_column(at, chosen)?
                    }
                }
            });
        }
        let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(groups.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.wanted), columns, &options)?)
    }

    /// The partial row whose attributes are the merged row's.
    fn choose(&self, merger: &Merger<'_, ()>, group: &[Place]) -> Place {
        let (ts, key, earliest) = match self.table {
            Table::Devices => ("activated_ts", "activated_key", true),
            _ => ("last_ts", "last_key", false),
        };
        let (Ok(ts), Ok(key)) = (self.read.index_of(ts), self.read.index_of(key)) else { return group[0] };
        let compare = |a: Place, b: Place| {
            let by_time = time(merger, ts, a).cmp(&time(merger, ts, b)).then_with(|| bytes(merger, key, a).cmp(&bytes(merger, key, b)));
            let by_time = if earliest { by_time.reverse() } else { by_time };
            by_time.then_with(|| {
                self.attributes
                    .iter()
                    .fold(Ordering::Equal, |order, at| order.then_with(|| text(merger, *at, a).cmp(&text(merger, *at, b))))
            })
        };
        group.iter().copied().reduce(|a, b| if compare(b, a) == Ordering::Greater { b } else { a }).unwrap_or(group[0])
    }

    fn measure(&self, merger: &Merger<'_, ()>, at: usize, data_type: &DataType, groups: &[&[Place]]) -> Result<ArrayRef, StoreError> {
        let DataType::List(element) = data_type else { return Err(StoreError::schema(self.table, "a measure is no list")) };
        let days_at = self.read.index_of("days")?;
        let mut values: Vec<i32> = Vec::new();
        let mut lengths = Vec::with_capacity(groups.len());
        for group in groups {
            let mut sums = [0_i32; 32];
            let mut all = 0;
            for place in *group {
                let bits = days(merger, days_at, &[*place]);
                all |= bits;
                let list = merger.array(place.slot, at).as_list::<i32>().value(place.row as usize);
                let mut counts = list.as_primitive::<Int32Type>().values().iter();
                for day in (0..32).filter(|day| bits >> day & 1 == 1) {
                    sums[day] = sums[day].saturating_add(counts.next().copied().unwrap_or_default());
                }
            }
            values.extend((0..32).filter(|day| all >> day & 1 == 1).map(|day| sums[day]));
            lengths.push(all.count_ones() as usize);
        }
        Ok(Arc::new(ListArray::try_new(
            Arc::clone(element),
            OffsetBuffer::from_lengths(lengths),
            Arc::new(Int32Array::from(values)),
            None,
        )?))
    }
}

fn times(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}

fn days(merger: &Merger<'_, ()>, at: usize, group: &[Place]) -> u32 {
    group.iter().fold(0, |bits, place| bits | merger.array(place.slot, at).as_primitive::<Int32Type>().value(place.row as usize) as u32)
}

fn time(merger: &Merger<'_, ()>, at: usize, place: Place) -> i64 {
    merger.array(place.slot, at).as_primitive::<TimestampMicrosecondType>().value(place.row as usize)
}

fn bytes<'m>(merger: &'m Merger<'_, ()>, at: usize, place: Place) -> Option<&'m [u8]> {
    let column = merger.array(place.slot, at).as_binary::<i32>();
    (!column.is_null(place.row as usize)).then(|| column.value(place.row as usize))
}

fn text<'m>(merger: &'m Merger<'_, ()>, at: usize, place: Place) -> Option<&'m str> {
    let column = merger.array(place.slot, at).as_string::<i32>();
    (!column.is_null(place.row as usize)).then(|| column.value(place.row as usize))
}
