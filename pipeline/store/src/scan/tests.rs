//! The columns against parquet's own reader, for files of ours and for others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use ameles_core::{Month, Random, SeededRandom};
use ameles_schemas::Table;
use arrow::array::{ArrayRef, BinaryArray, Int32Array, Int32Builder, ListBuilder, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterVersion};

use super::pieces::{Kind, Settled};
use super::reader::State;
use super::{Columns, DimensionFilter, Grouping, Piece, Reader, Wanted};
use crate::files::RunReader;
use crate::scan::layout::Layout;
use crate::scan::rows::BatchRows;
use crate::tests::support::{World, tables};
use crate::{DataFile, ReadView};

struct Dice(SeededRandom);

impl Dice {
    fn next(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    }
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Rows of a table; `texts` different ones in each dimension, `nulls` of 100 rows without.
fn batch(table: Table, rows: usize, texts: u64, nulls: u64, dice: &mut Dice) -> RecordBatch {
    let schema = tables().file_schema(table);
    let mut ids: Vec<[u8; 16]> = (0..rows).map(|_| (u128::from(dice.next()) << 64 | u128::from(dice.next())).to_be_bytes()).collect();
    if table == Table::Links {
        // A user has several devices.
        for row in 1..rows {
            if dice.below(3) == 0 {
                ids[row] = ids[row - 1];
            }
        }
    }
    ids.sort_unstable();
    let mask = if dice.below(2) == 0 { 0x7fff_ffff } else { 0x4000_0007 };
    let days: Vec<i32> = (0..rows).map(|_| ((dice.next() & mask) as i32).max(1)).collect();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match (field.name().as_str(), field.data_type()) {
            ("user", _) => Arc::new(BinaryArray::from_iter_values(&ids)),
            ("device", _) if table != Table::Links => Arc::new(BinaryArray::from_iter_values(&ids)),
            ("device", _) => Arc::new(BinaryArray::from_iter_values((0..rows).map(|_| (u128::from(dice.next()) << 64).to_be_bytes()))),
            ("days", _) => Arc::new(Int32Array::from(days.clone())),
            (_, DataType::Timestamp(..)) => {
                let start = 1_530_403_200_000_000;
                let times = (0..rows).map(|_| start + dice.below(31 * 86_400_000_000) as i64);
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
            }
            (_, DataType::Utf8) => {
                let text = |dice: &mut Dice| (dice.below(100) >= nulls).then(|| format!("t{}", dice.below(texts)));
                Arc::new((0..rows).map(|_| text(dice)).collect::<StringArray>())
            }
            (_, DataType::List(_)) => {
                let mut lists = ListBuilder::new(Int32Builder::new()).with_field(Field::new("element", DataType::Int32, false));
                for days in &days {
                    for _ in 0..days.count_ones() {
                        lists.values().append_value(dice.below(9) as i32);
                    }
                    lists.append(true);
                }
                Arc::new(lists.finish())
            }
            (_, other) => arrow::array::new_null_array(other, rows),
        }
    });
    let columns: Vec<ArrayRef> = columns.collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

fn piece_of(view: &ReadView, table: Table, name: &str, bytes: &[u8], number: usize) -> Piece {
    let path = view.table_folder(table).join(name);
    std::fs::write(&path, bytes).unwrap();
    let layout = Arc::new(Layout::read(&path, view.tables(), table).unwrap());
    let file = DataFile::unlisted(name, "2018-07".parse::<Month>().unwrap());
    Piece(Kind::Group { file: Arc::new(Settled { file, path, layout }), number })
}

fn wanted(table: Table, grouping: &Arc<Grouping>) -> Wanted {
    let activity = table == Table::Activity;
    Wanted {
        devices: true,
        users: table == Table::Links,
        days: table != Table::Devices,
        time: match table {
            Table::Activity => Some("last_ts"),
            Table::Devices => Some("activated_ts"),
            _ => None,
        },
        measure: activity.then_some(0),
        grouping: (table != Table::Links).then(|| Arc::clone(grouping)),
    }
}

/// Whether the columns were read here, and not by way of arrow.
fn check(view: &ReadView, table: Table, bytes: &[u8], dice: &mut Dice) -> bool {
    let groupings = [
        Grouping::new(Vec::new(), Vec::new()),
        Grouping::new(vec![1], Vec::new()),
        Grouping::new(vec![1, 0], vec![DimensionFilter { dimension: 0, negate: true, values: vec!["t1".into(), "t3".into()] }]),
        Grouping::new(Vec::new(), vec![DimensionFilter { dimension: 1, negate: false, values: vec!["t0".into(), "t2".into()] }]),
    ];
    let mut here = true;
    let piece = piece_of(view, table, "x.parquet", bytes, 0);
    let Kind::Group { file, .. } = &piece.0 else { panic!("no row group") };
    for grouping in &groupings {
        let wanted = wanted(table, grouping);
        let mut before = 0;
        for (number, group) in file.layout.row_groups.iter().enumerate() {
            let mut expected = Columns::default();
            let reader = Reader::new(view, table, &wanted, []);
            let rows = RunReader::new(view.table_folder(table), vec![file.file.clone()], reader.schema().unwrap());
            let mut rows = BatchRows::new(Box::new(rows), view.tables(), &wanted, before, group.rows);
            while rows.read(usize::MAX, &mut expected).unwrap().is_some() {}
            before += group.rows;

            let piece = Piece(Kind::Group { file: Arc::clone(file), number });
            let mut reader = Reader::new(view, table, &wanted, [piece.clone()]);
            let mut found = Columns::default();
            let step = 1 + dice.below(20_000) as usize;
            while reader.read(step, &mut found).unwrap().is_some() {
                here &= !matches!(reader.state, State::Rows { .. });
            }
            assert!(found == expected, "{table} row group {number}, {} of {} rows", found.rows, expected.rows);

            // Stretches in which no device is wanted are passed over.
            let mut reader = Reader::new(view, table, &wanted, [piece]);
            let mut some = Columns::default();
            let (mut kept, mut at) = (Vec::new(), 0);
            let step = 1 + dice.below(9_000) as usize;
            loop {
                let mut keep = true;
                let mut choose = |devices: &[u128]| {
                    keep = devices[0].is_multiple_of(3);
                    keep
                };
                let Some(read) = reader.read_if(step, &mut some, &mut choose).unwrap() else { break };
                let passed = if keep { read } else { step.min(expected.rows - at) };
                if read > 0 {
                    kept.extend(at..at + read);
                }
                at += passed;
            }
            assert_eq!(at, expected.rows);
            assert_eq!(some.devices, kept.iter().map(|row| expected.devices[*row]).collect::<Vec<_>>());
            if !expected.days.is_empty() {
                assert_eq!(some.days, kept.iter().map(|row| expected.days[*row]).collect::<Vec<_>>());
            }
            if !expected.groups.is_empty() {
                assert_eq!(some.groups, kept.iter().map(|row| expected.groups[*row]).collect::<Vec<_>>());
            }
            if !expected.users.is_empty() {
                assert_eq!(some.users, kept.iter().map(|row| expected.users[*row]).collect::<Vec<_>>());
            }
        }
    }
    here
}

fn with_view(work: impl FnOnce(&ReadView, &mut Dice)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::new().await;
        let view = world.view().await;
        work(&view, &mut Dice(SeededRandom::new(17)));
    });
}

#[test]
fn files_of_ours_are_read_as_parquet_reads_them() {
    with_view(|view, dice| {
        for (rows, texts, nulls) in [(1, 1, 0), (7, 3, 50), (8_192, 1, 0), (20_001, 5, 10), (33_000, 300, 100), (140_000, 40, 1)] {
            for table in [Table::Activity, Table::Devices, Table::Links] {
                let bytes = crate::bench::encode(&tables(), table, &batch(table, rows, texts, nulls, dice)).unwrap();
                assert!(check(view, table, &bytes, dice), "{table} of {rows} rows is not read here");
            }
        }
    });
}

#[test]
fn texts_whose_dictionary_is_too_large_are_read_here_too() {
    with_view(|view, dice| {
        let batch = batch(Table::Devices, 131_072, 10_000_000, 3, dice);
        let bytes = crate::bench::encode(&tables(), Table::Devices, &batch).unwrap();
        assert!(check(view, Table::Devices, &bytes, dice));
    });
}

#[test]
fn files_of_others_give_the_same() {
    with_view(|view, dice| {
        let plain = || WriterProperties::builder().set_max_row_group_row_count(Some(9_000)).set_data_page_row_count_limit(1_000);
        let variants: [(&str, WriterProperties); 7] = [
            ("plain", plain().set_dictionary_enabled(false).build()),
            // A dictionary that is full after some pages: codes and values in one chunk.
            ("mixed", plain().set_dictionary_page_size_limit(600).set_write_batch_size(100).build()),
            ("zstd", plain().set_compression(Compression::ZSTD(ZstdLevel::default())).build()),
            ("prefixes", plain().set_dictionary_enabled(false).set_encoding(Encoding::DELTA_BYTE_ARRAY).build()),
            ("snappy", plain().set_compression(Compression::SNAPPY).build()),
            ("version 2", plain().set_writer_version(WriterVersion::PARQUET_2_0).build()),
            ("default", WriterProperties::builder().build()),
        ];
        for (name, properties) in variants {
            for table in [Table::Activity, Table::Devices, Table::Links] {
                let batch = batch(table, 12_345, 60, 20, dice);
                let schema = batch.schema();
                // An encoding for bytes is none for numbers.
                let batch = if name == "prefixes" && table != Table::Links { continue } else { batch };
                let properties = if name == "prefixes" {
                    let days = parquet::schema::types::ColumnPath::from("days");
                    WriterProperties::builder()
                        .set_dictionary_enabled(false)
                        .set_encoding(Encoding::DELTA_BYTE_ARRAY)
                        .set_column_encoding(days, Encoding::DELTA_BINARY_PACKED)
                        .build()
                } else {
                    properties.clone()
                };
                let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).unwrap();
                writer.write(&batch).unwrap();
                let here = check(view, table, &writer.into_inner().unwrap(), dice);
                let read_here = match (name, table) {
                    ("plain" | "prefixes", _) => true,
                    ("snappy" | "version 2", _) => false,
                    // A dictionary of pseudonyms is nothing that we write.
                    (_, _) => false,
                };
                assert_eq!(here, read_here, "{name} {table}");
            }
        }
    });
}

#[test]
fn bytes_of_chance_are_refused_or_read_and_never_a_panic() {
    with_view(|view, dice| {
        let whole = crate::bench::encode(&tables(), Table::Activity, &batch(Table::Activity, 3_000, 9, 9, dice)).unwrap();
        let grouping = Grouping::new(vec![0, 1], Vec::new());
        let piece = piece_of(view, Table::Activity, "y.parquet", &whole, 0);
        for round in 0..400 {
            let mut bytes = whole.clone();
            // Past the magic, before the footer.
            for _ in 0..=round % 5 {
                let at = 4 + dice.below(whole.len() as u64 * 8 / 10) as usize;
                bytes[at] = dice.next() as u8;
            }
            std::fs::write(view.table_folder(Table::Activity).join("y.parquet"), &bytes).unwrap();
            let mut reader = Reader::new(view, Table::Activity, &wanted(Table::Activity, &grouping), [piece.clone()]);
            let mut columns = Columns::default();
            while let Ok(Some(_)) = reader.read(1_000, &mut columns) {}
        }
    });
}
