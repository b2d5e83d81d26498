//! The proof that rows which stay are unchanged, before anything is committed.
//!
//! The new file is read from its own bytes. Each copied page must be the old one,
//! byte for byte; the pages that were encoded again are decoded from both files
//! by the readers that answer queries, not by the code that wrote them, and
//! compared row by row. Where a dictionary is another, no row that stays may
//! refer to an entry that changed. Rows that took the place of others are read
//! by parquet's reader and compared with what they had to be.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, take};
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection};
use parquet::file::metadata::PageIndexPolicy;

use super::chunk::Chunk;
use super::file::ParquetFile;
use super::page::Codec;
use super::readback::{Readback, Walk};
use super::{Edit, Stop};

const ROWS: Stop = Stop::Mismatch("a spliced file has other rows than those that were to stay");
const REPLACED: Stop = Stop::Mismatch("a row that was to be replaced is not the row in its place");

fn deleted(edits: &[Edit]) -> usize {
    edits.iter().filter(|edit| edit.with.is_none()).count()
}

/// Compares `new` with `old` less its edits; `replacements` are the rows that replaced ones must be.
pub(crate) fn check(
    old: &ParquetFile,
    new: &ParquetFile,
    edits: &[Vec<Edit>],
    replacements: Option<&RecordBatch>,
    codec: &mut Codec,
) -> Result<(), Stop> {
    let (before, after) = (old.metadata.file_metadata(), new.metadata.file_metadata());
    if before.schema_descr().columns() != after.schema_descr().columns()
        || before.key_value_metadata() != after.key_value_metadata()
        || before.created_by() != after.created_by()
    {
        return Err(Stop::Mismatch("a spliced file has another footer than the file that it was made from"));
    }
    let mut pages = Pages::default();
    let mut place = 0;
    for group in 0..old.metadata.num_row_groups() {
        let mine = edits.get(group).map_or(&[][..], Vec::as_slice);
        let deleted = deleted(mine);
        if deleted == old.group_rows(group) {
            continue;
        }
        if new.group_rows(place) + deleted != old.group_rows(group) {
            return Err(ROWS);
        }
        for leaf in 0..before.schema_descr().num_columns() {
            pages.compare(&old.chunk(group, leaf)?, &new.chunk(place, leaf)?, mine, codec)?;
        }
        if mine.iter().any(|edit| edit.with.is_some()) {
            replaced_rows_are(new, place, mine, replacements.ok_or(REPLACED)?)?;
        }
        place += 1;
    }
    if place != new.metadata.num_row_groups() {
        return Err(ROWS);
    }
    Ok(())
}

/// A page of each file, decoded.
#[derive(Default)]
struct Pages {
    old: Readback,
    new: Readback,
}

impl Pages {
    fn compare(&mut self, old: &Chunk<'_>, new: &Chunk<'_>, edits: &[Edit], codec: &mut Codec) -> Result<(), Stop> {
        let other_entries = self.other_entries(old, new, codec)?;
        let keeps = |codes: &[u32]| match &other_entries {
            None => true,
            Some(other) => codes.iter().all(|code| other.get(*code as usize) == Some(&false)),
        };
        let (mut next, mut left) = (0, edits);
        for page in 0..old.page_count() {
            let rows = old.page_rows(page)?;
            let (mine, others) = left.split_at(left.partition_point(|edit| (edit.row as usize) < rows.end));
            left = others;
            let deleted = deleted(mine);
            if deleted == rows.len() {
                continue;
            }
            if next == new.page_count() || new.page_rows(next)?.len() + deleted != rows.len() {
                return Err(ROWS);
            }
            let (stored, spliced) = (old.page_bytes(page)?, new.page_bytes(next)?);
            next += 1;
            if mine.is_empty() {
                if stored != spliced {
                    return Err(Stop::Mismatch("a copied page is not the page that it was copied from"));
                }
                if other_entries.is_some() {
                    self.new.read(codec, &spliced, new.metadata.compression(), &new.shape)?;
                    if !keeps(self.new.codes()) {
                        return Err(ROWS);
                    }
                }
                continue;
            }
            self.old.read(codec, &stored, old.metadata.compression(), &old.shape)?;
            self.new.read(codec, &spliced, new.metadata.compression(), &new.shape)?;
            self.same_rows(rows, mine, keeps)?;
        }
        if next != new.page_count() || !left.is_empty() {
            return Err(ROWS);
        }
        Ok(())
    }

    /// Which entries of the old dictionary are others in the new one; none where it is the same.
    fn other_entries(&mut self, old: &Chunk<'_>, new: &Chunk<'_>, codec: &mut Codec) -> Result<Option<Vec<bool>>, Stop> {
        let (before, after) = match (old.dictionary_bytes()?, new.dictionary_bytes()?) {
            (before, after) if before == after => return Ok(None),
            (Some(before), Some(after)) => (before, after),
            _ => return Err(Stop::Mismatch("a column has lost its dictionary, or got one")),
        };
        let entries = self.old.read_dictionary(codec, &before, old.metadata.compression(), &old.shape)?;
        let now = self.new.read_dictionary(codec, &after, new.metadata.compression(), &new.shape)?;
        Ok(Some((0..entries).map(|entry| entry >= now || !self.old.same_entry(&self.new, entry)).collect()))
    }

    /// Compares the rows that stay of a page; `keeps` tells whether the entries that they refer to are what they were.
    fn same_rows(&self, rows: Range<usize>, edits: &[Edit], keeps: impl Fn(&[u32]) -> bool) -> Result<(), Stop> {
        let (mut old, mut new) = (Walk::new(&self.old), Walk::new(&self.new));
        if old.left() != rows.len() {
            return Err(Stop::Damaged("a page has another number of rows than its index says"));
        }
        let mut done = rows.start;
        let ends = edits.iter().map(|edit| (edit.row as usize, Some(edit))).chain([(rows.end, None)]);
        for (row, edit) in ends {
            let count = row.checked_sub(done).ok_or(ROWS)?;
            if count > 0 {
                let (Some(before), Some(after)) = (old.next(count), new.next(count)) else { return Err(ROWS) };
                if !before.is(&after) || !keeps(after.codes()) {
                    return Err(ROWS);
                }
            }
            if let Some(edit) = edit {
                let there = old.next(1).is_some() && (edit.with.is_none() || new.next(1).is_some());
                if !there {
                    return Err(ROWS);
                }
                done = row + 1;
            }
        }
        if new.left() > 0 { Err(ROWS) } else { Ok(()) }
    }
}

/// Compares the rows of a row group that took the place of others with what they had to be.
fn replaced_rows_are(file: &ParquetFile, group: usize, edits: &[Edit], replacements: &RecordBatch) -> Result<(), Stop> {
    let (mut wanted, mut places, mut gone) = (Vec::new(), Vec::new(), 0);
    for edit in edits {
        match edit.with {
            Some(with) => {
                wanted.push(with);
                places.push(edit.row as usize - gone);
            }
            None => gone += 1,
        }
    }
    let wanted = UInt32Array::from(wanted);
    let found = rows(file, group, &places)?;
    for (field, found) in found.schema().fields().iter().zip(found.columns()) {
        let column = replacements.column_by_name(field.name()).ok_or(REPLACED)?;
        if plain(&take(column, &wanted, None)?)?.as_ref() != plain(found)?.as_ref() {
            return Err(REPLACED);
        }
    }
    Ok(())
}

/// Some rows of a row group, by parquet's own reader.
fn rows(file: &ParquetFile, group: usize, places: &[usize]) -> Result<RecordBatch, Stop> {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(&file.metadata), options)?;
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file.bytes()?.clone(), metadata);
    let ranges = places.chunk_by(|a, b| a + 1 == *b).filter_map(|near| Some(*near.first()?..near.last()? + 1));
    let selection = RowSelection::from_consecutive_ranges(ranges, file.group_rows(group));
    let reader = builder.with_row_groups(vec![group]).with_row_selection(selection).with_batch_size(places.len().max(1)).build()?;
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    let Some(first) = batches.first() else { return Err(ROWS) };
    let batch = concat_batches(&first.schema(), &batches)?;
    if batch.num_rows() == places.len() { Ok(batch) } else { Err(ROWS) }
}

fn plain(column: &ArrayRef) -> Result<ArrayRef, Stop> {
    Ok(match column.data_type() {
        DataType::Dictionary(_, values) => cast(column, values)?,
        _ => Arc::clone(column),
    })
}
