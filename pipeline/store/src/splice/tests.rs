//! Splicing against writing the rows that stay anew: the same rows, the same
//! statistics, whatever the columns, pages, nulls and rows that go.

mod checking;
mod finding;

use std::sync::Arc;

use ameles_core::{Random, SeededRandom};
use ameles_schemas::Table;
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{concat_batches, interleave};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection};
use parquet::file::metadata::PageIndexPolicy;

use super::check::check;
use super::file::{ParquetFile, splice};
use super::find::{Looked, With, rows_of};
use super::page::Codec;
use super::pieces::Pieces;
use super::stats::PageRange;
use super::{Counts, Edit, Stop};
use crate::encode::FileEncoder;
use crate::files::properties;

struct Dice(SeededRandom);

impl Dice {
    fn below(&self, end: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes).unwrap();
        (u64::from_le_bytes(bytes) % end.max(1) as u64) as usize
    }
    fn one_in(&self, count: usize) -> bool {
        self.below(count) == 0
    }
}

fn schema() -> SchemaRef {
    let field = |name: &str, data_type, nullable| Field::new(name, data_type, nullable);
    Arc::new(Schema::new(vec![
        field("device", DataType::Binary, false),
        field("ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        field("user", DataType::Binary, true),
        field("type", DataType::Utf8, false),
        field("note", DataType::Utf8, true),
        field("latency", DataType::Int64, true),
        field("score", DataType::Float64, true),
        field("flag", DataType::Boolean, true),
        field("days", DataType::Int32, false),
        field("counts", DataType::List(Arc::new(field("element", DataType::Int32, false))), false),
    ]))
}

fn device(number: usize) -> [u8; 16] {
    let mut id = [0xd0; 16];
    id[..4].copy_from_slice(&((number as u32).wrapping_mul(0x9e37)).to_be_bytes());
    id
}

fn user(number: usize) -> [u8; 16] {
    let mut id = [0x11; 16];
    id[4..8].copy_from_slice(&((number as u32).wrapping_mul(0x9e37)).to_be_bytes());
    id
}

/// Sorted by device; columns are plain, repetitive or null as the dice say.
fn rows(dice: &Dice, count: usize, devices: usize) -> RecordBatch {
    let mut numbers: Vec<[u8; 16]> = (0..count).map(|_| device(dice.below(devices))).collect();
    numbers.sort_unstable();
    let nulls = [0, 1, 2, 9][dice.below(4)];
    // Here and there, or in stretches longer than a page.
    let (stretch, asked) = (dice.one_in(3).then(|| 1 + dice.below(120)), std::cell::Cell::new(0));
    let null = || {
        asked.set(asked.get() + 1);
        nulls > 0 && stretch.map_or_else(|| dice.one_in(nulls), |length| (asked.get() / length) % 2 == 0)
    };
    let long = dice.one_in(4);
    let text = |kinds: usize| match dice.below(kinds) {
        0 if long => "ein sehr langer Text über mehr als vierundsechzig Bytes, der geschnitten werden muss: äöü".repeat(2),
        kind => format!("v{kind}"),
    };
    let kinds = [1, 3, 500][dice.below(3)];
    let numbers_at = |row: usize| (row as i64) * 1_000 + dice.below(900) as i64 - 7;
    let wide = dice.one_in(2);
    let lengths: Vec<usize> = (0..count).map(|_| dice.below(4)).collect();
    let elements: Int32Array = (0..lengths.iter().sum()).map(|_| dice.below(kinds) as i32).collect();
    let list = ListArray::new(
        Arc::new(Field::new("element", DataType::Int32, false)),
        OffsetBuffer::from_lengths(lengths),
        Arc::new(elements),
        None,
    );
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BinaryArray::from_iter_values(&numbers)),
        Arc::new(TimestampMicrosecondArray::from_iter_values((0..count).map(numbers_at)).with_timezone("UTC")),
        Arc::new((0..count).map(|_| (!null()).then(|| user(dice.below(50)))).collect::<BinaryArray>()),
        Arc::new((0..count).map(|_| Some(text(kinds))).collect::<StringArray>()),
        Arc::new((0..count).map(|_| (!null()).then(|| text(kinds))).collect::<StringArray>()),
        Arc::new(
            (0..count)
                .map(|_| (!null()).then(|| if wide { dice.below(1 << 40) as i64 - 9 } else { dice.below(90) as i64 }))
                .collect::<Int64Array>(),
        ),
        Arc::new(
            (0..count)
                .map(|_| (!null()).then(|| [0.0, -0.0, 1.5, f64::NAN, -3.0][dice.below(if wide { 5 } else { 3 })]))
                .collect::<Float64Array>(),
        ),
        Arc::new((0..count).map(|_| (!null()).then(|| dice.one_in(3))).collect::<BooleanArray>()),
        Arc::new((0..count).map(|_| Some(dice.below(kinds) as i32)).collect::<Int32Array>()),
        Arc::new(list),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// A file of small pages and row groups.
fn encode(rows: &RecordBatch, page_rows: usize, group_rows: usize) -> Bytes {
    let builder = properties(Table::Events, &schema()).into_builder();
    let properties = builder.set_data_page_row_count_limit(page_rows).set_write_batch_size(page_rows);
    let properties = properties.set_max_row_group_row_count(Some(group_rows)).build();
    let mut encoder = FileEncoder::new(Vec::new(), schema(), properties).unwrap();
    encoder.write(rows).unwrap();
    Bytes::from(encoder.finish().unwrap())
}

fn joined(pieces: &Pieces) -> Bytes {
    Bytes::from(pieces.bytes().concat())
}

fn decode(bytes: &Bytes) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap().with_batch_size(100).build().unwrap();
    concat_batches(&schema(), &reader.collect::<Result<Vec<_>, _>>().unwrap()).unwrap()
}

/// Rows of a file, in order; the last is the row that takes its place, if one does.
type Gone = Vec<(usize, Option<u32>)>;

fn by_group(file: &ParquetFile, gone: &Gone) -> Vec<Vec<Edit>> {
    let mut first = 0;
    (0..file.metadata.num_row_groups())
        .map(|group| {
            let rows = first..first + file.group_rows(group);
            first = rows.end;
            let mine = gone.iter().filter(|(row, _)| rows.contains(row));
            mine.map(|(row, with)| Edit { row: (row - rows.start) as u32, with: *with }).collect()
        })
        .collect()
}

/// The slow way.
fn expected(old: &RecordBatch, gone: &Gone, replacements: &RecordBatch) -> RecordBatch {
    let mut places = Vec::new();
    let mut gone = gone.iter().peekable();
    for row in 0..old.num_rows() {
        match gone.next_if(|(at, _)| *at == row) {
            None => places.push((0, row)),
            Some((_, Some(with))) => places.push((1, *with as usize)),
            Some((_, None)) => {}
        }
    }
    let columns = (0..old.num_columns()).map(|column| {
        let both: [&dyn Array; 2] = [old.column(column), replacements.column(column)];
        interleave(&both, &places).unwrap()
    });
    RecordBatch::try_new(old.schema(), columns.collect()).unwrap()
}

struct Case {
    old: ParquetFile,
    rows: RecordBatch,
    replacements: RecordBatch,
    replacing: ParquetFile,
    gone: Gone,
    page_rows: usize,
    group_rows: usize,
}

fn case(seed: u64) -> Case {
    let dice = Dice(SeededRandom::new(seed));
    let count = 1 + dice.below(400);
    let (page_rows, group_rows) = (1 + dice.below(60), 20 + dice.below(300));
    let rows = rows(&dice, count, 1 + dice.below(60));
    let replacements = self::rows(&dice, 1 + dice.below(30), 40);
    let (rare, replaced) = ([2, 10, 60][dice.below(3)], dice.one_in(2));
    let block = dice.below(count)..dice.below(count * 2);
    let whole = dice.one_in(5);
    // Rows here and there, a block of them, or all that some subjects have.
    let subjects = dice.one_in(3).then(|| {
        let ids = rows.column(0).as_any().downcast_ref::<BinaryArray>().unwrap();
        let mut chosen: Vec<&[u8]> = ids.iter().flatten().collect();
        chosen.dedup();
        chosen.retain(|_| dice.one_in(rare));
        (0..count).map(|row| chosen.contains(&ids.value(row))).collect::<Vec<bool>>()
    });
    let goes = |row: &usize| subjects.as_ref().map_or_else(|| dice.one_in(rare) || whole && block.contains(row), |goes| goes[*row]);
    let gone = (0..count).filter(goes).map(|row| {
        let with = (replaced && dice.one_in(3)).then(|| dice.below(replacements.num_rows()) as u32);
        (row, with)
    });
    let gone = gone.collect();
    let old = ParquetFile::of_bytes(encode(&rows, page_rows, group_rows)).unwrap();
    let replacing = ParquetFile::of_bytes(encode(&replacements, 7, 1 << 10)).unwrap();
    Case { old, rows, replacements, replacing, gone, page_rows, group_rows }
}

fn rounds() -> u64 {
    std::env::var("AMELES_SPLICE_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(400)
}

#[test]
fn spliced_files_hold_the_rows_that_whole_rewriting_gives() {
    let mut codec = Codec::new().unwrap();
    let (mut spliced_files, mut copied_pages, mut dictionaries) = (0, 0, 0);
    let mut seen = Seen::default();
    for seed in 0..rounds() {
        let case = case(seed);
        seen.look_at(&case.old);
        let edits = by_group(&case.old, &case.gone);
        let wanted = expected(&case.rows, &case.gone, &case.replacements);
        let mut counts = Counts::default();
        let spliced =
            splice(&case.old, &edits, Some(&case.replacing), &mut codec, &mut counts).unwrap_or_else(|stop| panic!("{seed}: {stop:?}"));
        let Some(spliced) = spliced else {
            assert_eq!(wanted.num_rows(), 0, "{seed}");
            continue;
        };
        let bytes = joined(&spliced);
        assert_eq!(decode(&bytes), wanted, "{seed}");
        let new = ParquetFile::of_bytes(bytes.clone()).unwrap();
        check(&case.old, &new, &edits, Some(&case.replacements), &mut codec).unwrap_or_else(|stop| panic!("{seed}: {stop:?}"));
        pages_tell_the_truth(&new, &wanted, seed);
        same_statistics(&new, &ParquetFile::of_bytes(encode(&wanted, case.page_rows, case.group_rows)).unwrap(), seed);
        skipping_by_index_gives_the_rows(&bytes, &wanted, seed);
        // Once more, on top: what was spliced can be spliced.
        let again: Gone = (0..wanted.num_rows()).filter(|row| row % 5 == 1).map(|row| (row, None)).collect();
        let spliced = splice(&new, &by_group(&new, &again), None, &mut codec, &mut Counts::default()).unwrap();
        if let Some(twice) = spliced {
            assert_eq!(decode(&joined(&twice)), expected(&wanted, &again, &case.replacements), "{seed}");
        }
        spliced_files += 1;
        copied_pages += counts.pages_copied;
        dictionaries += counts.dictionaries;
    }
    assert!(spliced_files > rounds() / 2 && copied_pages > rounds() && dictionaries > rounds() / 20);
    seen.is_enough();
}

/// What kinds of chunks and pages the files had.
#[derive(Default)]
struct Seen {
    encodings: std::collections::BTreeSet<String>,
    pages_of_nulls: u64,
    pages_with_some: u64,
    pages_without: u64,
}

impl Seen {
    fn look_at(&mut self, file: &ParquetFile) {
        for group in 0..file.metadata.num_row_groups() {
            for leaf in 0..file.metadata.file_metadata().schema_descr().num_columns() {
                let chunk = file.chunk(group, leaf).unwrap();
                self.encodings.extend(chunk.metadata.encodings().map(|encoding| encoding.to_string()));
                let Some(index) = chunk.index.filter(|_| chunk.metadata.column_path().string() == "latency") else { continue };
                for page in 0..chunk.page_count() {
                    match (index.is_null_page(page), index.null_count(page)) {
                        (true, _) => self.pages_of_nulls += 1,
                        (false, Some(0)) => self.pages_without += 1,
                        _ => self.pages_with_some += 1,
                    }
                }
            }
        }
    }

    fn is_enough(&self) {
        for encoding in ["PLAIN", "RLE", "RLE_DICTIONARY", "DELTA_BINARY_PACKED", "DELTA_BYTE_ARRAY"] {
            assert!(self.encodings.contains(encoding), "{encoding}: {:?}", self.encodings);
        }
        let pages = [self.pages_of_nulls, self.pages_with_some, self.pages_without];
        assert!(pages.iter().all(|pages| *pages > rounds() / 4), "{pages:?}");
    }
}

/// The index of each page holds for its rows, and only deleted rows' values could have been wider.
fn pages_tell_the_truth(file: &ParquetFile, rows: &RecordBatch, seed: u64) {
    let mut codec = Codec::new().unwrap();
    let mut first = 0;
    for group in 0..file.metadata.num_row_groups() {
        for leaf in 0..file.metadata.file_metadata().schema_descr().num_columns() {
            let chunk = file.chunk(group, leaf).unwrap();
            let dictionary = chunk.dictionary(&mut codec).unwrap();
            let mut values = 0;
            for page in 0..chunk.page_count() {
                let (header, leaf) = chunk.page(&mut codec, page).unwrap();
                values += header.values as i64;
                let Some(index) = chunk.index else { continue };
                let stored = PageRange::of_index(index, page).unwrap();
                let made = PageRange::of_rows(&chunk.shape, &leaf, dictionary.as_ref().map(|dictionary| &dictionary.entries), &stored);
                assert_eq!(made, Some(stored), "{seed}: {} page {page}", chunk.metadata.column_path());
            }
            assert_eq!(values, chunk.metadata.num_values(), "{seed}");
        }
        first += file.group_rows(group);
    }
    assert_eq!(first, rows.num_rows());
}

/// Statistics of chunks as if the rows had been written anew, where row groups begin at the same rows.
fn same_statistics(spliced: &ParquetFile, anew: &ParquetFile, seed: u64) {
    if spliced.metadata.num_row_groups() != 1 || anew.metadata.num_row_groups() != 1 {
        return;
    }
    for (a, b) in spliced.metadata.row_group(0).columns().iter().zip(anew.metadata.row_group(0).columns()) {
        let path = a.column_path();
        if path.string() == "score" && a.statistics().is_none() {
            // A page of nothing but NaN takes the ranges of the whole chunk with it.
            continue;
        }
        assert_eq!(a.num_values(), b.num_values(), "{seed}: {path}");
        assert_eq!(a.unencoded_byte_array_data_bytes(), b.unencoded_byte_array_data_bytes(), "{seed}: {path}");
        assert_eq!(a.definition_level_histogram(), b.definition_level_histogram(), "{seed}: {path}");
        assert_eq!(a.repetition_level_histogram(), b.repetition_level_histogram(), "{seed}: {path}");
        let (Some(a), Some(b)) = (a.statistics(), b.statistics()) else {
            assert!(path.string() == "score" || a.statistics().is_some() == b.statistics().is_some(), "{seed}: {path}");
            continue;
        };
        assert_eq!(a.null_count_opt(), b.null_count_opt(), "{seed}: {path}");
        // Of a bound that was cut at a page only its cut form is left.
        if b.max_is_exact() && b.min_is_exact() {
            assert_eq!((a.min_bytes_opt(), a.max_bytes_opt()), (b.min_bytes_opt(), b.max_bytes_opt()), "{seed}: {path}");
        }
    }
}

/// A reader that skips by the offset index finds the rows where it says.
fn skipping_by_index_gives_the_rows(bytes: &Bytes, rows: &RecordBatch, seed: u64) {
    let (from, to) = (rows.num_rows() / 3, rows.num_rows() / 3 + rows.num_rows() / 4);
    if from == to {
        return;
    }
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes.clone(), options).unwrap();
    let mask = ProjectionMask::all();
    let selection = RowSelection::from_consecutive_ranges(std::iter::once(from..to), rows.num_rows());
    let reader = builder.with_projection(mask).with_row_selection(selection).build().unwrap();
    let found = concat_batches(&schema(), &reader.collect::<Result<Vec<_>, _>>().unwrap()).unwrap();
    assert_eq!(found, rows.slice(from, to - from), "{seed}");
}

#[test]
fn nothing_of_a_deleted_row_stays_in_any_byte() {
    let mut codec = Codec::new().unwrap();
    let all = 3_000;
    let dice = Dice(SeededRandom::new(77));
    let base = rows(&dice, all, 40);
    // One device has a firmware, a number and a text that nobody else has.
    let victim = base.column(0).as_any().downcast_ref::<BinaryArray>().unwrap().value(all / 2).to_vec();
    let devices = base.column(0).as_any().downcast_ref::<BinaryArray>().unwrap();
    let mine: Vec<bool> = devices.iter().map(|device| device == Some(&victim)).collect();
    let text: StringArray = mine
        .iter()
        .enumerate()
        .map(|(row, mine)| Some(if *mine { "SECRETFIRMWARE".to_owned() } else { format!("v{}", row % 5) }))
        .collect();
    let numbers: Int64Array =
        mine.iter().enumerate().map(|(row, mine)| (row % 3 > 0).then_some(if *mine { 0x5ec2_e7ab } else { 7 + row as i64 % 9 })).collect();
    let days: Int32Array = mine.iter().enumerate().map(|(row, mine)| Some(if *mine { 0x5ec3_e7ab } else { row as i32 % 9 })).collect();
    let mut columns = base.columns().to_vec();
    columns[4] = Arc::new(text);
    columns[5] = Arc::new(numbers);
    columns[8] = Arc::new(days);
    let base = RecordBatch::try_new(schema(), columns).unwrap();
    let old = ParquetFile::of_bytes(encode(&base, 100, 1_000)).unwrap();
    let mut gone: Gone = Vec::new();
    let mut first = 0;
    let found =
        rows_of(&old, &mut codec, &[victim.clone().try_into().unwrap()], With { user: true, ts: true }, &mut Looked::default()).unwrap();
    let mut group = 0;
    for one in &found {
        while group < one.group {
            first += old.group_rows(group as usize);
            group += 1;
        }
        gone.push((first + one.row as usize, None));
        let ts = base.column(1).as_any().downcast_ref::<TimestampMicrosecondArray>().unwrap().value(first + one.row as usize);
        assert_eq!(one.ts.unwrap().micros(), ts);
    }
    assert_eq!(gone.iter().map(|(row, _)| *row).collect::<Vec<_>>(), (0..all).filter(|row| mine[*row]).collect::<Vec<_>>());
    let mut counts = Counts::default();
    let spliced = joined(&splice(&old, &by_group(&old, &gone), None, &mut codec, &mut counts).unwrap().unwrap());
    assert!(counts.dictionaries >= 2, "{counts:?}");
    assert!(counts.pages_copied > 10 * counts.pages_encoded, "{counts:?}");
    let new = ParquetFile::of_bytes(spliced.clone()).unwrap();
    check(&old, &new, &by_group(&old, &gone), None, &mut codec).unwrap();
    let holds = |bytes: &[u8], needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    // Pages are compressed: each is searched as it is and unpacked.
    let mut unpacked = Vec::new();
    for (file, there) in [(&old, true), (&new, false)] {
        unpacked.clear();
        for group in 0..file.metadata.num_row_groups() {
            for leaf in 0..file.metadata.file_metadata().schema_descr().num_columns() {
                let chunk = file.chunk(group, leaf).unwrap();
                let compression = chunk.metadata.compression();
                if let Some(bytes) = chunk.dictionary_bytes().unwrap() {
                    unpacked.extend(codec.read(&bytes, compression).unwrap().1);
                }
                for page in 0..chunk.page_count() {
                    unpacked.extend(codec.read(&chunk.page_bytes(page).unwrap(), compression).unwrap().1);
                }
            }
        }
        unpacked.extend_from_slice(file.bytes().unwrap());
        for needle in [b"SECRETFIRMWARE".as_slice(), &0x5ec2_e7ab_i64.to_le_bytes(), &0x5ec3_e7ab_i32.to_le_bytes(), &victim[2..6]] {
            assert_eq!(holds(&unpacked, needle), there, "{needle:?}");
        }
    }
}
