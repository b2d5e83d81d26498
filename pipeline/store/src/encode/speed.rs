//! Not run by default: `cargo test --release -p ameles-store encode::speed -- --ignored --nocapture`.
//! `AMELES_ENCODE_ROWS` sets the number of rows.
#![allow(clippy::print_stderr)]

use std::sync::Arc;

use ameles_core::{Random, SeededRandom};
use ameles_schemas::Table;
use arrow::array::{ArrayRef, BinaryArray, DictionaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::FileEncoder;
use crate::files::properties;

struct Numbers {
    random: SeededRandom,
    buffer: Vec<u8>,
    at: usize,
}

impl Numbers {
    fn next(&mut self) -> u64 {
        if self.at + 8 > self.buffer.len() {
            self.random.fill(&mut self.buffer).unwrap();
            self.at = 0;
        }
        self.at += 8;
        u64::from_le_bytes(self.buffer[self.at - 8..self.at].try_into().unwrap())
    }
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
    fn id(&mut self) -> [u8; 16] {
        (u128::from(self.next()) << 64 | u128::from(self.next())).to_be_bytes()
    }
}

fn dictionary(name: &str, entries: u32, keys: Vec<Option<u32>>) -> ArrayRef {
    let values = StringArray::from_iter_values((0..entries).map(|entry| format!("{name}-{entry:03}")));
    Arc::new(DictionaryArray::try_new(UInt32Array::from(keys), Arc::new(values)).unwrap())
}

/// A month of devices with 40 events each, sorted.
fn fleet(rows: usize) -> RecordBatch {
    let mut numbers = Numbers { random: SeededRandom::new(5), buffer: vec![0; 1 << 16], at: 1 << 16 };
    let mut devices: Vec<[u8; 16]> = (0..rows.div_ceil(40)).map(|_| numbers.id()).collect();
    devices.sort_unstable();
    let (mut device, mut ts, mut user, mut key, mut latency) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut dimensions: [Vec<Option<u32>>; 7] = std::array::from_fn(|_| Vec::with_capacity(rows));
    for id in &devices {
        let users: Vec<[u8; 16]> = (0..numbers.below(3)).map(|_| numbers.id()).collect();
        let mut times: Vec<i64> = (0..40).map(|_| 1_530_403_200_000_000 + numbers.below(31 * 86_400_000) as i64 * 1_000).collect();
        times.sort_unstable();
        let fixed = [5, 40, 20, 30].map(|entries| numbers.below(entries) as u32);
        let (mut firmware, mut room) = (numbers.below(11) as u32, numbers.below(8) as u32);
        for (number, time) in times.into_iter().enumerate().take(rows - device.len()) {
            device.push(*id);
            ts.push(time);
            user.push((!users.is_empty() && numbers.below(10) > 0).then(|| users[numbers.below(users.len() as u64) as usize]));
            key.push(numbers.id());
            latency.push((numbers.below(5) > 0).then(|| numbers.below(2_000) as i64));
            firmware += u32::from(number == 25);
            if numbers.below(10) == 0 {
                room = numbers.below(8) as u32;
            }
            let kind = [0, 1, 1, 1, 2, 2, 3, 4][numbers.below(8) as usize];
            for (column, code) in dimensions.iter_mut().zip([kind, fixed[0], fixed[1], fixed[2], fixed[3], firmware, room]) {
                column.push(Some(code));
            }
        }
    }
    let mut dimensions = dimensions.into_iter();
    let mut text = |name: &'static str, entries| (name, dictionary(name, entries, dimensions.next().unwrap()));
    let kind = text("type", 5);
    let dimensions = [text("product", 5), text("model", 40), text("partner", 20), text("country", 30), text("firmware", 12)];
    let room = text("props.room", 8);
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("device", Arc::new(BinaryArray::from_iter_values(device))),
        ("ts", Arc::new(TimestampMicrosecondArray::from(ts).with_timezone("UTC"))),
        ("user", Arc::new(user.iter().map(Option::as_ref).collect::<BinaryArray>())),
        kind,
        ("event_key", Arc::new(key.iter().map(Some).collect::<BinaryArray>())),
    ];
    columns.extend(dimensions);
    columns.push(("props.latency_ms", Arc::new(Int64Array::from(latency))));
    columns.push(room);
    RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, !["device", "ts", "type"].contains(&name))),
    )
    .unwrap()
}

fn schema_of(batch: &RecordBatch) -> SchemaRef {
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::Dictionary(..) => field.as_ref().clone().with_data_type(DataType::Utf8),
        DataType::Timestamp(..) => field.as_ref().clone().with_data_type(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        _ => field.as_ref().clone(),
    };
    Arc::new(Schema::new(batch.schema().fields().iter().map(field).collect::<Vec<_>>()))
}

/// Nanoseconds that this thread has run, whatever else the machine does.
fn cpu() -> u64 {
    std::fs::read_to_string("/proc/thread-self/schedstat").unwrap().split(' ').next().unwrap().parse().unwrap()
}

/// On average of eight, after one that does not count.
fn nanoseconds(rows: usize, mut work: impl FnMut() -> Vec<u8>) -> (f64, Vec<u8>) {
    const RUNS: usize = 8;
    let file = work();
    let start = cpu();
    for _ in 0..RUNS {
        std::hint::black_box(work());
    }
    ((cpu() - start) as f64 / (RUNS * rows) as f64, file)
}

fn ours(schema: &SchemaRef, batch: &RecordBatch) -> Vec<u8> {
    let mut encoder = FileEncoder::new(Vec::new(), Arc::clone(schema), properties(Table::Events, schema)).unwrap();
    for start in (0..batch.num_rows()).step_by(128 << 10) {
        encoder.write(&batch.slice(start, (batch.num_rows() - start).min(128 << 10))).unwrap();
    }
    encoder.finish().unwrap()
}

fn arrow_writers(schema: &SchemaRef, batch: &RecordBatch) -> Vec<u8> {
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties(Table::Events, schema))).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

fn described(file: &[u8]) -> String {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::copy_from_slice(file)).unwrap();
    let column = builder.metadata().row_group(0).column(0).clone();
    let encodings: Vec<_> = column.encodings().filter(|encoding| *encoding != parquet::basic::Encoding::RLE).collect();
    format!("{encodings:?} {:?}", column.compression_codec())
}

#[test]
#[ignore = "takes some seconds"]
fn speed_of_each_column_beside_arrow_writer() {
    let rows = std::env::var("AMELES_ENCODE_ROWS").map_or(512 << 10, |rows| rows.parse().unwrap());
    let batch = fleet(rows);
    let schema = schema_of(&batch);
    let text = |schema: &SchemaRef, batch: &RecordBatch| {
        let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| cast(column, field.data_type()).unwrap());
        RecordBatch::try_new(Arc::clone(schema), columns.collect()).unwrap()
    };
    let report = |name: &str, schema: &SchemaRef, batch: &RecordBatch, described: &dyn Fn(&[u8]) -> String| {
        let plain = text(schema, batch);
        let (mine, file) = nanoseconds(rows, || ours(schema, batch));
        let (of_text, _) = nanoseconds(rows, || ours(schema, &plain));
        let (theirs, their_file) = nanoseconds(rows, || arrow_writers(schema, &plain));
        let bytes = |file: &[u8]| file.len() as f64 / rows as f64;
        eprintln!(
            "{name:>16}  ns/row: ours {mine:6.1}  from text {of_text:6.1}  ArrowWriter {theirs:6.1}   bytes/row: {:6.3}  {:6.3}  {}",
            bytes(&file),
            bytes(&their_file),
            described(&file)
        );
    };
    for at in 0..batch.num_columns() {
        let one = batch.project(&[at]).unwrap();
        let schema = Arc::new(schema.project(&[at]).unwrap());
        report(schema.field(0).name(), &schema, &one, &described);
    }
    report("all", &schema, &batch, &|_| String::new());
}
