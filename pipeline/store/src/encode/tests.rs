//! What is encoded comes back, with the statistics that ArrowWriter gives; other makers' readers are in `tests/readers.rs` of the root package.

use std::sync::Arc;

use ameles_core::{Random, SeededRandom};
use ameles_schemas::Table;
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, DictionaryArray, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, UInt32Type};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use proptest::prelude::*;

use super::FileEncoder;
use super::bits::{put_deltas, put_equal_deltas};
use crate::files::properties;

fn encoded(schema: &SchemaRef, properties: WriterProperties, batches: &[RecordBatch]) -> Bytes {
    let mut encoder = FileEncoder::new(Vec::new(), Arc::clone(schema), properties).unwrap();
    batches.iter().for_each(|batch| encoder.write(batch).unwrap());
    Bytes::from(encoder.finish().unwrap())
}

fn by_arrow_writer(schema: &SchemaRef, properties: WriterProperties, batch: &RecordBatch) -> Bytes {
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    Bytes::from(writer.into_inner().unwrap())
}

fn metadata(file: &Bytes) -> Arc<ParquetMetaData> {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    Arc::clone(ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options).unwrap().metadata())
}

fn read(file: &Bytes, selection: Option<RowSelection>) -> RecordBatch {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let mut builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options).unwrap().with_batch_size(1 << 10);
    if let Some(selection) = selection {
        builder = builder.with_row_selection(selection);
    }
    let schema = Arc::clone(builder.schema());
    concat_batches(&schema, builder.build().unwrap().map(Result::unwrap).collect::<Vec<_>>().iter()).unwrap()
}

/// The same rows with text as text.
fn plain(schema: &SchemaRef, batch: &RecordBatch) -> RecordBatch {
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| cast(column, field.data_type()).unwrap());
    RecordBatch::try_new(Arc::clone(schema), columns.collect()).unwrap()
}

/// One column of each kind, nullable where `nulls` says so.
fn schema() -> SchemaRef {
    let field = |name: &str, data_type: DataType, nullable| Field::new(name, data_type, nullable);
    let list = DataType::List(Arc::new(Field::new("element", DataType::Int32, false)));
    Arc::new(Schema::new(vec![
        field("device", DataType::Binary, false),
        field("ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        field("user", DataType::Binary, true),
        field("type", DataType::Utf8, false),
        field("country", DataType::Utf8, true),
        field("counts", list, false),
        field("room", DataType::Utf8, true),
        field("latency", DataType::Int64, true),
        field("days", DataType::Int32, false),
        field("share", DataType::Float64, true),
        field("on", DataType::Boolean, true),
    ]))
}

fn small(page_rows: usize, row_group_rows: usize) -> WriterProperties {
    let path = |name: &str| ColumnPath::from(name);
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(row_group_rows))
        .set_data_page_row_count_limit(page_rows)
        .set_write_batch_size(page_rows)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_column_dictionary_enabled(path("device"), false)
        .set_column_encoding(path("device"), Encoding::DELTA_BYTE_ARRAY)
        .set_column_dictionary_enabled(path("user"), false)
        .build()
}

/// What rows look like.
#[derive(Clone, Debug)]
struct Shape {
    seed: u64,
    rows: usize,
    /// Equal neighbours, on average.
    run: u64,
    /// Different values.
    distinct: u64,
    /// Of ten rows, how many are null where they may be.
    nulls: u64,
    /// Length of texts and of binary values.
    length: usize,
    /// As codes into one dictionary, whose entries are not all used.
    coded: bool,
    extremes: bool,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let rows = prop_oneof![Just(1_usize), Just(7), Just(16), Just(64), Just(65), Just(128), 1_usize..400];
    let nulls = prop_oneof![Just(0_u64), Just(10), 1_u64..10];
    let length = prop_oneof![Just(0_usize), Just(16), Just(65), 1_usize..100];
    (any::<u64>(), rows, 1_u64..60, 1_u64..300, nulls, length, any::<bool>(), any::<bool>()).prop_map(
        |(seed, rows, run, distinct, nulls, length, coded, extremes)| Shape { seed, rows, run, distinct, nulls, length, coded, extremes },
    )
}

struct Source(SeededRandom);

impl Source {
    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes).unwrap();
        u64::from_le_bytes(bytes) % bound
    }

    /// Row numbers of the values, in runs; none in rows without.
    fn picks(&self, shape: &Shape, nullable: bool) -> Vec<Option<u64>> {
        let mut pick = self.below(shape.distinct);
        let picks = (0..shape.rows).map(|_| {
            if self.below(shape.run) == 0 {
                pick = self.below(shape.distinct);
            }
            (!nullable || self.below(10) >= shape.nulls).then_some(pick)
        });
        picks.collect()
    }
}

fn text(shape: &Shape, pick: u64) -> String {
    let letters = ['a', 'ß', '語', '\u{10ffff}', '\u{7f}', 'z'];
    let mut text: String = (0..shape.length).map(|at| letters[(pick as usize + at / 30) % letters.len()]).collect();
    if !pick.is_multiple_of(3) {
        text.push_str(&pick.to_string());
    }
    text
}

fn binary(shape: &Shape, pick: u64) -> Vec<u8> {
    let mut bytes = vec![if pick.is_multiple_of(2) { 0xff } else { pick as u8 }; shape.length];
    if shape.length > 2 {
        bytes[shape.length - 2..].copy_from_slice(&(pick as u16).to_be_bytes());
    }
    bytes
}

fn integer(shape: &Shape, pick: u64) -> i64 {
    match (shape.extremes, pick % 4) {
        (true, 0) => i64::MIN,
        (true, 1) => i64::MAX,
        (true, 2) => -1,
        _ => pick as i64 * 1_000,
    }
}

fn batch_of(shape: &Shape) -> RecordBatch {
    let source = Source(SeededRandom::new(shape.seed));
    let texts = |nullable| -> ArrayRef {
        let picks = source.picks(shape, nullable);
        if shape.coded {
            let values = StringArray::from_iter_values((0..shape.distinct).map(|pick| text(shape, pick)));
            let keys = picks.iter().map(|pick| pick.map(|pick| pick as u32)).collect();
            Arc::new(DictionaryArray::<UInt32Type>::try_new(keys, Arc::new(values)).unwrap())
        } else {
            Arc::new(picks.iter().map(|pick| pick.map(|pick| text(shape, pick))).collect::<StringArray>())
        }
    };
    let binaries =
        |nullable| -> BinaryArray { source.picks(shape, nullable).iter().map(|pick| pick.map(|pick| binary(shape, pick))).collect() };
    let integers =
        |nullable| -> Int64Array { source.picks(shape, nullable).iter().map(|pick| pick.map(|pick| integer(shape, pick))).collect() };
    let lengths: Vec<usize> = (0..shape.rows).map(|_| source.below(4) as usize).collect();
    let elements = Int32Array::from_iter_values((0..lengths.iter().sum()).map(|at: usize| at as i32));
    let DataType::List(element) = schema().field(5).data_type().clone() else { panic!("counts is a list") };
    let floats = |pick: u64| if shape.extremes && pick == 1 { f64::NAN } else { pick as f64 / 3.0 };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(binaries(false)),
        Arc::new(integers(false).reinterpret_cast::<arrow::datatypes::TimestampMicrosecondType>().with_timezone("UTC")),
        Arc::new(binaries(true)),
        texts(false),
        texts(true),
        Arc::new(ListArray::try_new(element, OffsetBuffer::from_lengths(lengths), Arc::new(elements), None).unwrap()),
        texts(true),
        Arc::new(integers(true)),
        Arc::new(source.picks(shape, false).iter().map(|pick| pick.map(|pick| pick as i32)).collect::<Int32Array>()),
        Arc::new(source.picks(shape, true).iter().map(|pick| pick.map(floats)).collect::<Float64Array>()),
        Arc::new(source.picks(shape, true).iter().map(|pick| pick.map(|pick| pick.is_multiple_of(2))).collect::<BooleanArray>()),
    ];
    let fields = schema()
        .fields()
        .iter()
        .zip(&columns)
        .map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()))
        .collect::<Vec<_>>();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// Statistics, ranges of pages, first rows of pages and histograms of levels are ArrowWriter's.
fn assert_same_statistics(mine: &ParquetMetaData, theirs: &ParquetMetaData) {
    assert_eq!(mine.file_metadata().key_value_metadata(), theirs.file_metadata().key_value_metadata());
    assert_eq!(mine.file_metadata().schema_descr(), theirs.file_metadata().schema_descr());
    assert_eq!(mine.num_row_groups(), theirs.num_row_groups());
    assert_eq!(mine.column_index(), theirs.column_index());
    for (group, (mine_of, theirs_of)) in mine.row_groups().iter().zip(theirs.row_groups()).enumerate() {
        assert_eq!(mine_of.num_rows(), theirs_of.num_rows());
        for (column, (mine_of, theirs_of)) in mine_of.columns().iter().zip(theirs_of.columns()).enumerate() {
            let name = mine_of.column_path();
            assert_eq!(mine_of.statistics(), theirs_of.statistics(), "{name}");
            assert_eq!(mine_of.num_values(), theirs_of.num_values(), "{name}");
            assert_eq!(mine_of.definition_level_histogram(), theirs_of.definition_level_histogram(), "{name}");
            assert_eq!(mine_of.unencoded_byte_array_data_bytes(), theirs_of.unencoded_byte_array_data_bytes(), "{name}");
            let pages = |metadata: &ParquetMetaData| {
                let index = &metadata.offset_index().unwrap()[group][column];
                let rows: Vec<i64> = index.page_locations().iter().map(|page| page.first_row_index).collect();
                (rows, index.unencoded_byte_array_data_bytes().cloned())
            };
            assert_eq!(pages(mine), pages(theirs), "{name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn rows_come_back_with_the_statistics_of_arrow_writer(shape in shapes(), cut in 1_usize..200, seed in any::<u64>()) {
        let (schema, batch) = (schema(), batch_of(&shape));
        let expected = plain(&schema, &batch);
        let pieces: Vec<RecordBatch> = (0..batch.num_rows()).step_by(cut).map(|at| batch.slice(at, cut.min(batch.num_rows() - at))).collect();
        let file = encoded(&schema, small(16, 64), &pieces);
        let reference = by_arrow_writer(&schema, small(16, 64), &expected);
        // By their text, which tells NaN from nothing else.
        let same = |mine: &RecordBatch, theirs: &RecordBatch| format!("{mine:?}") == format!("{theirs:?}") && mine.num_rows() == theirs.num_rows();
        prop_assert!(same(&read(&file, None), &read(&reference, None)));
        assert_same_statistics(&metadata(&file), &metadata(&reference));
        let source = Source(SeededRandom::new(seed));
        let rows: Vec<usize> = (0..expected.num_rows()).filter(|row| (row / 11) % 3 > 0 && source.below(3) > 0).collect();
        let selection = RowSelection::from_consecutive_ranges(rows.iter().map(|row| *row..row + 1), expected.num_rows());
        let selected = take_record_batch(&expected, &arrow::array::UInt32Array::from_iter_values(rows.iter().map(|row| *row as u32))).unwrap();
        prop_assert!(same(&read(&file, Some(selection)), &selected.with_schema(Arc::clone(read(&file, None).schema_ref())).unwrap()));
    }
}

/// polars 1.36 panics when it filters a column of deltas with nulls (pola-rs/polars#28536).
#[test]
fn columns_with_nulls_hold_no_deltas() {
    let shape = Shape { seed: 3, rows: 3_000, run: 4, distinct: 2_000, nulls: 2, length: 16, coded: true, extremes: false };
    for extremes in [false, true] {
        let batch = batch_of(&Shape { extremes, ..shape.clone() });
        let metadata = metadata(&encoded(&schema(), small(512, 2_048), std::slice::from_ref(&batch)));
        for column in metadata.row_groups().iter().flat_map(|group| group.columns()) {
            let nulls = batch.column_by_name(&column.column_path().parts()[0]).unwrap().null_count();
            let deltas = [Encoding::DELTA_BINARY_PACKED, Encoding::DELTA_BYTE_ARRAY, Encoding::DELTA_LENGTH_BYTE_ARRAY];
            let has_deltas = column.encodings().any(|encoding| deltas.contains(&encoding));
            assert!(nulls == 0 || !has_deltas, "{}", column.column_path());
            assert_eq!(has_deltas, ["device", "ts"].contains(&column.column_path().string().as_str()), "{}", column.column_path());
        }
    }
}

/// Set `AMELES_TEST_PYTHON` to a Python that has tests/requirements.txt; skipped without.
#[test]
fn duckdb_pyarrow_and_polars_read_the_same_rows() {
    let Some(python) = std::env::var_os("AMELES_TEST_PYTHON") else { return };
    let folder = tempfile::tempdir().unwrap();
    let script = std::path::PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../tests/python/compare_parquet.py");
    let lengths = [(16, 0), (16, 3), (0, 5), (70, 10), (16, 10)];
    let shapes = lengths.into_iter().enumerate().map(|(seed, (length, nulls))| Shape {
        seed: seed as u64,
        rows: 5_000,
        run: 1 + seed as u64 * 13,
        distinct: 1 << (seed * 2),
        nulls,
        length,
        coded: seed % 2 == 0,
        extremes: false,
    });
    for shape in shapes {
        let (schema, batch) = (schema(), batch_of(&shape));
        let write = |name: &str, file: Bytes| {
            let path = folder.path().join(format!("{}-{name}.parquet", shape.seed));
            std::fs::write(&path, file).unwrap();
            path
        };
        let mine = write("mine", encoded(&schema, small(512, 2_048), std::slice::from_ref(&batch)));
        let theirs = write("reference", by_arrow_writer(&schema, small(512, 2_048), &plain(&schema, &batch)));
        let output = std::process::Command::new(&python).args([script.as_ref(), mine.as_os_str(), theirs.as_os_str()]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "5000", "{shape:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn batches_may_mix_texts_and_dictionaries() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("room", DataType::Utf8, true)]));
    let dictionary = |keys: Vec<Option<u32>>, values: Vec<Option<&str>>| -> ArrayRef {
        Arc::new(DictionaryArray::<UInt32Type>::try_new(keys.into(), Arc::new(StringArray::from(values))).unwrap())
    };
    let columns: Vec<ArrayRef> = vec![
        dictionary(vec![Some(1), None, Some(0)], vec![Some("kitchen"), Some("bath"), Some("unused")]),
        Arc::new(StringArray::from(vec![None, Some(""), Some("hall"), Some("bath")])),
        // A null may also be an entry of the dictionary.
        dictionary(vec![Some(0), Some(1), Some(0)], vec![None, Some("hall")]),
        dictionary(vec![], vec![]),
        dictionary(vec![None], vec![]),
    ];
    let batches: Vec<RecordBatch> =
        columns.into_iter().map(|column| RecordBatch::try_from_iter_with_nullable([("room", column, true)]).unwrap()).collect();
    let file = encoded(&schema, small(4, 1 << 10), &batches);
    let expected = StringArray::from(vec![
        Some("bath"),
        None,
        Some("kitchen"),
        None,
        Some(""),
        Some("hall"),
        Some("bath"),
        None,
        Some("hall"),
        None,
        None,
    ]);
    assert_eq!(read(&file, None).column(0).as_ref(), &expected as &dyn Array);
    assert!(!String::from_utf8_lossy(&file).contains("unused"), "an entry that no row uses is not stored");
}

#[test]
fn an_entry_that_no_row_uses_is_not_stored_in_the_dictionary() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("room", DataType::Utf8, true)]));
    let values = StringArray::from_iter_values((0..9).map(|number| format!("room {number}")));
    let column: ArrayRef = Arc::new(DictionaryArray::<UInt32Type>::try_new(vec![3, 3, 5].into(), Arc::new(values)).unwrap());
    let file = encoded(&schema, small(16, 64), &[RecordBatch::try_from_iter_with_nullable([("room", column, true)]).unwrap()]);
    let reader = parquet::file::serialized_reader::SerializedFileReader::new(file).unwrap();
    let pages = parquet::file::reader::FileReader::get_row_group(&reader, 0).unwrap().get_column_page_reader(0).unwrap();
    let dictionary = pages.map(Result::unwrap).find_map(|page| match page {
        parquet::column::page::Page::DictionaryPage { buf, num_values, is_sorted, .. } => Some((buf, num_values, is_sorted)),
        _ => None,
    });
    assert_eq!(dictionary.unwrap(), (Bytes::from_static(b"\x06\0\0\0room 3\x06\0\0\0room 5"), 2, true));
}

#[test]
fn large_texts_are_plain_and_end_a_page_early() {
    let schema: SchemaRef =
        Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, true), Field::new("key", DataType::Binary, true)]));
    let texts: StringArray = (0..3_000).map(|row| (row % 7 > 0).then(|| format!("{row:01000}"))).collect();
    let keys: BinaryArray = (0..3_000).map(|row| (row % 5 > 0).then(|| format!("{row:01000}").into_bytes())).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(texts), Arc::new(keys)]).unwrap();
    let file = encoded(&schema, small(2_000, 4_000), std::slice::from_ref(&batch));
    assert_eq!(read(&file, None), batch);
    let metadata = metadata(&file);
    for column in metadata.row_group(0).columns() {
        assert_eq!(column.dictionary_page_offset(), None);
    }
    assert!(metadata.offset_index().unwrap()[0].iter().all(|column| column.page_locations().len() > 2));
    // One value may be larger than a page.
    let texts = StringArray::from(vec!["a".repeat(3 << 20), String::new(), "b".repeat(2 << 20)]);
    let keys = BinaryArray::from_iter_values([vec![1; 2 << 20], vec![2; 2 << 20], vec![]]);
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(texts), Arc::new(keys)]).unwrap();
    assert_eq!(read(&encoded(&schema, small(2_000, 4_000), std::slice::from_ref(&batch)), None), batch);
}

#[test]
fn no_pseudonym_is_in_a_dictionary_and_only_devices_have_ranges() {
    for table in [Table::Events, Table::Quarantine] {
        let schema = crate::tests::support::tables().file_schema(table);
        let columns: Vec<ArrayRef> = schema
            .fields()
            .iter()
            .map(|field| match field.data_type() {
                DataType::Binary => Arc::new(BinaryArray::from_iter_values((0..50_u128).map(|row| (row / 10).to_be_bytes()))) as ArrayRef,
                DataType::Utf8 => Arc::new(StringArray::from_iter_values((0..50).map(|row| (row / 10).to_string()))),
                data_type => cast(&Int64Array::from_iter_values(0..50), data_type).unwrap(),
            })
            .collect();
        let file = encoded(&schema, properties(table, &schema), &[RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()]);
        let metadata = metadata(&file);
        for (at, (field, column)) in schema.fields().iter().zip(metadata.row_group(0).columns()).enumerate() {
            let pseudonym = *field.data_type() == DataType::Binary;
            assert!(!pseudonym || column.dictionary_page_offset().is_none(), "{}", field.name());
            let ranged = !pseudonym || field.name() == "device";
            assert_eq!(column.statistics().is_some(), ranged, "{}", field.name());
            let index = &metadata.column_index().unwrap()[0][at];
            assert_eq!(!matches!(index, parquet::file::page_index::column_index::ColumnIndexMetaData::NONE), ranged, "{}", field.name());
        }
    }
}

#[test]
fn a_batch_of_another_shape_is_refused() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let mut encoder = FileEncoder::new(Vec::new(), Arc::clone(&schema), small(16, 64)).unwrap();
    let of = |column: ArrayRef| RecordBatch::try_from_iter_with_nullable([("n", column, true)]).unwrap();
    for wrong in [of(Arc::new(StringArray::from(vec!["1"]))), of(Arc::new(Int64Array::from(vec![None])))] {
        assert!(matches!(encoder.write(&wrong), Err(crate::StoreError::Batch(_))));
    }
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let two = RecordBatch::try_from_iter([("n", Arc::clone(&column)), ("m", column)]).unwrap();
    assert!(matches!(encoder.write(&two), Err(crate::StoreError::Batch(_))));
}

#[test]
fn equal_deltas_are_the_deltas_of_equal_numbers() {
    for (value, count) in [(16, 0), (16, 1), (16, 2), (-3, 129), (0, 130), (7, 8 << 10)] {
        let (mut fast, mut slow) = (Vec::new(), Vec::new());
        put_equal_deltas(&mut fast, if count == 0 { 0 } else { value }, count);
        put_deltas(&mut slow, &vec![value; count]);
        assert_eq!(fast, slow, "{count} times {value}");
    }
}

/// What an erasure encodes again does not grow with the fleet: few other devices share a page, and no dictionary of numbers is large.
#[test]
fn pages_of_one_row_a_device_hold_few_devices() {
    let schema = crate::tests::support::tables().file_schema(Table::Activity);
    let rows = 20_000_u32;
    let columns: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Binary => {
                Arc::new(BinaryArray::from_iter_values((0..rows).map(|row| (u128::from(row) << 96).to_be_bytes()))) as ArrayRef
            }
            DataType::Utf8 => Arc::new(StringArray::from_iter_values((0..rows).map(|row| (row % 10).to_string()))),
            list @ DataType::List(_) => cast(&Int32Array::from_iter_values(0..rows as i32), list).unwrap(),
            data_type => cast(&Int64Array::from_iter_values((0..i64::from(rows)).map(|row| row * 97 % 1_000_003)), data_type).unwrap(),
        })
        .collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    let file = encoded(&schema, properties(Table::Activity, &schema), std::slice::from_ref(&batch));
    assert_eq!(read(&file, None), batch);
    let metadata = metadata(&file);
    for (chunk, index) in metadata.row_group(0).columns().iter().zip(&metadata.offset_index().unwrap()[0]) {
        let starts: Vec<i64> = index.page_locations().iter().map(|page| page.first_row_index).chain([i64::from(rows)]).collect();
        let most = starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        let name = chunk.column_path().parts()[0].as_str();
        let limit = match name {
            "device" => 1 << 10,
            "first_ts" | "last_ts" => 2 << 10,
            _ => 8 << 10,
        };
        assert!(most <= limit, "{name}: {most} rows in a page");
        let largest = index.page_locations().iter().map(|page| page.compressed_page_size).max().unwrap();
        assert!(largest <= 21 << 10, "{name}: {largest} bytes in a page");
        if let Some(dictionary) = chunk.dictionary_page_offset() {
            assert!(chunk.data_page_offset() - dictionary <= 21 << 10, "{name}");
        }
    }
}
