//! The fleet's months as rows of `activity`, `links` and `devices`.

use std::sync::Arc;

use ameles_core::Month;
use ameles_schemas::{Table, TableSchemas};
use ameles_store::{RowSink, SettledRows, StoreError};
use arrow::array::{
    Array, ArrayRef, BinaryArray, DictionaryArray, Int32Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
    new_null_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, UInt32Type};

use super::device::{Device, NULL, Population};
use super::shape::{Curve, FleetShape};

/// Rows of a batch.
const BATCH_ROWS: usize = 32 << 10;
/// Rows of a range, about.
const RANGE_ROWS: f64 = 8e6;
/// Links of a range, all of them in memory until they are sorted.
const RANGE_LINKS: f64 = 4e6;
/// Links of an active device, about.
const LINKS_PER_DEVICE: f64 = 0.65;

type Link = (u128, u128, u32);

pub struct FleetRows {
    tables: TableSchemas,
    population: Population,
    curve: Curve,
}

/// The rows of a batch in the making, and the month that they are in.
struct Rows<'a> {
    population: &'a Population,
    month: usize,
    devices: Vec<Device>,
    ids: Vec<u8>,
    days: Vec<i32>,
    first: Vec<i64>,
    last: Vec<i64>,
    wakes: Vec<i32>,
    lengths: Vec<usize>,
}

impl FleetRows {
    /// A fleet for tables of the default contract.
    ///
    /// # Errors
    /// In words, when the tables are others or no fleet has these totals.
    pub fn new(tables: &TableSchemas, shape: FleetShape) -> Result<Self, String> {
        let measures: Vec<&str> = tables.measures.iter().map(|measure| measure.name.as_str()).collect();
        if tables.dimensions != ["product", "model", "partner", "country", "firmware"] || measures != ["wakes"] || !tables.has_user {
            return Err("the fleet has the default contract's dimensions and measure; make a home without --contract".to_owned());
        }
        let curve = shape.curve()?;
        Ok(Self { tables: tables.clone(), population: Population::new(shape, &curve), curve })
    }

    /// Rows of all tables, about.
    pub fn rows_expected(&self) -> u64 {
        let shape = &self.population.shape;
        (shape.device_months as f64 * (1.0 + LINKS_PER_DEVICE)) as u64 + shape.devices
    }

    /// The numbers of a range's devices.
    fn numbers(&self, table: Table, month: usize, range: usize) -> std::ops::Range<u64> {
        let (devices, ranges) = (u128::from(self.population.shape.devices), self.ranges(table, month) as u128);
        let bound = |range: usize| (devices * range as u128 / ranges) as u64;
        bound(range)..bound(range + 1)
    }

    fn devices_of(&self, table: Table, month: usize, range: usize, sink: RowSink<'_>) -> Result<(), StoreError> {
        let mut rows = Rows::new(&self.population, month);
        for number in self.numbers(table, month, range) {
            let device = self.population.device(number);
            let Some(age) = self.population.age(&device, month).filter(|age| table == Table::Activity || *age == 0) else { continue };
            rows.push(table, device, age);
            if rows.devices.len() == BATCH_ROWS {
                sink(&rows.take(table, &self.tables)?)?;
            }
        }
        if rows.devices.is_empty() { Ok(()) } else { sink(&rows.take(table, &self.tables)?) }
    }

    /// The month's links of one range of users, gathered from all devices.
    fn links_of(&self, month: usize, range: usize, sink: RowSink<'_>) -> Result<(), StoreError> {
        let (population, ranges) = (&self.population, self.ranges(Table::Links, month) as u128);
        let in_range = |user: &u128| ((*user >> 64) * ranges) >> 64 == range as u128;
        let mut links: Vec<Link> = Vec::new();
        for number in 0..population.shape.devices {
            let device = population.device(number);
            let users = population.users(&device).map(|user| user.filter(in_range));
            if users == [None; 2] {
                continue;
            }
            let Some(age) = population.age(&device, month) else { continue };
            let active = population.month(&device, month, age);
            let pseudonym = population.pseudonym(&device);
            let of_user = |(at, user): (usize, Option<u128>)| Some((user?, pseudonym, Population::signed_in(&active, at)));
            links.extend(users.into_iter().enumerate().filter_map(of_user).filter(|link| link.2 != 0));
        }
        links.sort_unstable();
        for some in links.chunks(BATCH_ROWS) {
            let ids = |pick: fn(&Link) -> u128| pseudonyms(some.iter().flat_map(|link| pick(link).to_be_bytes()).collect());
            let days = Int32Array::from_iter_values(some.iter().map(|link| link.2 as i32));
            let columns: Vec<ArrayRef> = vec![ids(|link| link.0)?, ids(|link| link.1)?, Arc::new(days)];
            sink(&RecordBatch::try_new(self.tables.file_schema(Table::Links), columns)?)?;
        }
        Ok(())
    }
}

impl SettledRows for FleetRows {
    fn months(&self) -> Vec<Month> {
        (0..self.population.shape.months as usize).map(|month| self.population.shape.month(month)).collect()
    }

    fn ranges(&self, table: Table, month: usize) -> usize {
        let devices = self.population.shape.devices as f64;
        let ranges = match table {
            Table::Links => devices * self.curve.active_in(month) * LINKS_PER_DEVICE / RANGE_LINKS,
            Table::Devices => devices * self.curve.activated[month] / RANGE_ROWS,
            _ => devices * self.curve.active_in(month) / RANGE_ROWS,
        };
        (ranges.ceil() as usize).max(1)
    }

    fn rows(&self, table: Table, month: usize, range: usize, sink: RowSink<'_>) -> Result<(), StoreError> {
        match table {
            Table::Links => self.links_of(month, range, sink),
            _ => self.devices_of(table, month, range, sink),
        }
    }
}

impl<'a> Rows<'a> {
    fn new(population: &'a Population, month: usize) -> Self {
        Self {
            population,
            month,
            devices: Vec::with_capacity(BATCH_ROWS),
            ids: Vec::new(),
            days: Vec::new(),
            first: Vec::new(),
            last: Vec::new(),
            wakes: Vec::new(),
            lengths: Vec::new(),
        }
    }

    fn push(&mut self, table: Table, device: Device, age: usize) {
        self.ids.extend_from_slice(&self.population.pseudonym(&device).to_be_bytes());
        let active = self.population.month(&device, self.month, age);
        self.first.push(active.first_ms * 1_000);
        if table == Table::Activity {
            self.days.push(active.days as i32);
            self.last.push(active.last_ms * 1_000);
            self.population.wakes(&device, &active, &mut self.wakes);
            self.lengths.push(active.days.count_ones() as usize);
        }
        self.devices.push(device);
    }

    /// The batch; what is in the making is empty then.
    fn take(&mut self, table: Table, tables: &TableSchemas) -> Result<RecordBatch, StoreError> {
        let schema = tables.file_schema(table);
        let devices = std::mem::take(&mut self.devices);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            columns.push(match field.name().as_str() {
                "device" => pseudonyms(std::mem::take(&mut self.ids))?,
                "days" => Arc::new(Int32Array::from(std::mem::take(&mut self.days))),
                "first_ts" | "activated_ts" => times(std::mem::take(&mut self.first)),
                "last_ts" => times(std::mem::take(&mut self.last)),
                "wakes" => {
                    let DataType::List(element) = field.data_type() else {
                        return Err(StoreError::Batch("wakes is no list".into()));
                    };
                    let offsets = OffsetBuffer::from_lengths(std::mem::take(&mut self.lengths));
                    let values = Arc::new(Int32Array::from(std::mem::take(&mut self.wakes)));
                    Arc::new(ListArray::try_new(Arc::clone(element), offsets, values, None)?)
                }
                "last_key" | "activated_key" => new_null_array(field.data_type(), devices.len()),
                name => self.dimension(name, &devices)?,
            });
        }
        // Text comes as dictionaries, which the files' schema does not know.
        let fields: Vec<_> = schema
            .fields()
            .iter()
            .zip(&columns)
            .map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()))
            .collect();
        Ok(RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns)?)
    }

    fn dimension(&self, name: &str, devices: &[Device]) -> Result<ArrayRef, StoreError> {
        let (population, words) = (self.population, &self.population.words);
        let model = |device: &Device| population.model(device);
        let coded = |texts: &Arc<StringArray>, code: &dyn Fn(&Device) -> u32| coded(texts, devices.iter().map(code).collect());
        match name {
            "product" => coded(&words.products, &|device| u32::from(words.made(model(device)).product)),
            "model" => coded(&words.models, &model),
            "partner" => coded(&words.partners, &|device| words.made(model(device)).partner),
            "country" => coded(&words.countries, &|device| population.country(device, self.month)),
            "firmware" => coded(&words.firmwares, &|device| Population::firmware(device, self.month)),
            other => Err(StoreError::Batch(format!("the fleet has no {other}"))),
        }
    }
}

fn times(micros: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC"))
}

/// 16 bytes each.
fn pseudonyms(bytes: Vec<u8>) -> Result<ArrayRef, StoreError> {
    let offsets = OffsetBuffer::from_repeated_length(16, bytes.len() / 16);
    Ok(Arc::new(BinaryArray::try_new(offsets, Buffer::from_vec(bytes), None)?))
}

fn coded(texts: &Arc<StringArray>, mut codes: Vec<u32>) -> Result<ArrayRef, StoreError> {
    let nulls = codes.contains(&NULL).then(|| codes.iter().map(|code| *code != NULL).collect::<NullBuffer>());
    codes.iter_mut().filter(|code| **code == NULL).for_each(|code| *code = 0);
    let keys = UInt32Array::new(codes.into(), nulls);
    Ok(Arc::new(DictionaryArray::<UInt32Type>::try_new(keys, Arc::clone(texts) as ArrayRef)?))
}
