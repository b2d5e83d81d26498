//! The proof that rows which stay are unchanged, before anything is committed.
//!
//! The new file is read from its own bytes. Each copied page must be the old one,
//! byte for byte; the pages that were encoded again are decoded from both files
//! by parquet's reader, not by the code that wrote them, and compared row by row.
//! A column whose dictionary is another is compared in all its rows.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, filter, take};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection};
use parquet::file::metadata::PageIndexPolicy;

use super::file::ParquetFile;
use super::{Edit, Stop};

const ROWS: Stop = Stop::Mismatch("a spliced file has other rows than those that were to stay");

/// Compares `new` with `old` less its edits; `replacements` are the rows that replaced ones must be.
pub(crate) fn check(old: &ParquetFile, new: &ParquetFile, edits: &[Vec<Edit>], replacements: Option<&RecordBatch>) -> Result<(), Stop> {
    let (before, after) = (old.metadata.file_metadata(), new.metadata.file_metadata());
    if before.schema_descr().columns() != after.schema_descr().columns()
        || before.key_value_metadata() != after.key_value_metadata()
        || before.created_by() != after.created_by()
    {
        return Err(Stop::Mismatch("a spliced file has another footer than the file that it was made from"));
    }
    let (old_reader, new_reader) = (Reader::new(old)?, Reader::new(new)?);
    let mut place = 0;
    for group in 0..old.metadata.num_row_groups() {
        let mine = edits.get(group).map_or(&[][..], Vec::as_slice);
        let deleted = mine.iter().filter(|edit| edit.with.is_none()).count();
        if deleted == old.group_rows(group) {
            continue;
        }
        if new.group_rows(place) + deleted != old.group_rows(group) {
            return Err(ROWS);
        }
        let mut changed = Vec::new();
        let mut touched: Vec<Range<usize>> = Vec::new();
        let leaves = before.schema_descr().num_columns();
        for leaf in 0..leaves {
            if !pages_are_the_same(old, group, new, place, leaf, mine, &mut touched)? {
                changed.push(leaf);
            }
        }
        if !mine.is_empty() {
            touched.sort_by_key(|rows| rows.start);
            let others = (0..leaves).filter(|leaf| !changed.contains(leaf)).collect();
            compare(&old_reader, group, &new_reader, place, others, &merged(&touched), mine, replacements)?;
            compare(
                &old_reader,
                group,
                &new_reader,
                place,
                changed,
                std::slice::from_ref(&(0..old.group_rows(group))),
                mine,
                replacements,
            )?;
        }
        place += 1;
    }
    if place != new.metadata.num_row_groups() {
        return Err(ROWS);
    }
    Ok(())
}

/// Compares the pages of a column that hold no edit, byte for byte; the others' rows are put into `touched`. False where the dictionaries differ.
fn pages_are_the_same(
    old: &ParquetFile,
    group: usize,
    new: &ParquetFile,
    place: usize,
    leaf: usize,
    edits: &[Edit],
    touched: &mut Vec<Range<usize>>,
) -> Result<bool, Stop> {
    let (old, new) = (old.chunk(group, leaf)?, new.chunk(place, leaf)?);
    let (mut next, mut left) = (0, edits);
    for page in 0..old.page_count() {
        let rows = old.page_rows(page)?;
        let (mine, others) = left.split_at(left.partition_point(|edit| (edit.row as usize) < rows.end));
        left = others;
        let deleted = mine.iter().filter(|edit| edit.with.is_none()).count();
        if !mine.is_empty() {
            touched.push(rows.clone());
        }
        if deleted == rows.len() {
            continue;
        }
        if next == new.page_count() || new.page_rows(next)?.len() + deleted != rows.len() {
            return Err(ROWS);
        }
        if mine.is_empty() && old.page_bytes(page)? != new.page_bytes(next)? {
            return Err(Stop::Mismatch("a copied page is not the page that it was copied from"));
        }
        next += 1;
    }
    if next != new.page_count() || !left.is_empty() {
        return Err(ROWS);
    }
    Ok(old.dictionary_bytes()? == new.dictionary_bytes()?)
}

/// Ranges in order, overlapping ones as one.
fn merged(ranges: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range.clone()),
        }
    }
    merged
}

/// A file as parquet's own reader sees it.
struct Reader<'a> {
    file: &'a ParquetFile,
    metadata: ArrowReaderMetadata,
}

impl<'a> Reader<'a> {
    fn new(file: &'a ParquetFile) -> Result<Self, Stop> {
        let options = || ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let metadata = ArrowReaderMetadata::try_new(Arc::clone(&file.metadata), options())?;
        // Text stays codes: they compare faster, and no text is copied.
        let fields = metadata.schema().fields().iter().map(|field| match field.data_type() {
            DataType::Utf8 => {
                let codes = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
                Arc::new(Field::new(field.name(), codes, field.is_nullable()))
            }
            _ => Arc::clone(field),
        });
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let metadata = ArrowReaderMetadata::try_new(Arc::clone(&file.metadata), options().with_schema(schema))?;
        Ok(Self { file, metadata })
    }

    fn rows(&self, group: usize, leaves: &[usize], rows: &[Range<usize>]) -> Result<RecordBatch, Stop> {
        let count = rows.iter().map(ExactSizeIterator::len).sum::<usize>();
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.bytes()?.clone(), self.metadata.clone());
        let mask = ProjectionMask::leaves(builder.parquet_schema(), leaves.iter().copied());
        let selection = RowSelection::from_consecutive_ranges(rows.iter().cloned(), self.file.group_rows(group));
        let builder = builder.with_row_groups(vec![group]).with_projection(mask).with_row_selection(selection);
        let reader = builder.with_batch_size(count.max(1)).build()?;
        let batches = reader.collect::<Result<Vec<_>, _>>()?;
        match batches.as_slice() {
            [batch] if batch.num_rows() == count => Ok(batch.clone()),
            [first, ..] => {
                let batch = concat_batches(&first.schema(), &batches)?;
                if batch.num_rows() == count { Ok(batch) } else { Err(ROWS) }
            }
            [] => Err(ROWS),
        }
    }
}

/// Compares some rows of some columns of a row group.
#[expect(clippy::too_many_arguments, reason = "two files, and what of them")]
fn compare(
    old: &Reader<'_>,
    group: usize,
    new: &Reader<'_>,
    place: usize,
    leaves: Vec<usize>,
    rows: &[Range<usize>],
    edits: &[Edit],
    replacements: Option<&RecordBatch>,
) -> Result<(), Stop> {
    if leaves.is_empty() {
        return Ok(());
    }
    let gone_before =
        |row: usize| edits[..edits.partition_point(|edit| (edit.row as usize) < row)].iter().filter(|edit| edit.with.is_none()).count();
    let there: Vec<Range<usize>> = rows.iter().map(|rows| rows.start - gone_before(rows.start)..rows.end - gone_before(rows.end)).collect();
    let there: Vec<Range<usize>> = there.into_iter().filter(|rows| !rows.is_empty()).collect();
    let before = old.rows(group, &leaves, rows)?;
    let after = if there.is_empty() { RecordBatch::new_empty(before.schema()) } else { new.rows(place, &leaves, &merged(&there))? };
    // Rows that stay in both, replaced ones aside.
    let (mut stays, mut same) = (Vec::with_capacity(before.num_rows()), Vec::with_capacity(after.num_rows()));
    let (mut wanted, mut found) = (Vec::new(), Vec::new());
    for rows in rows {
        let mut mine = edits[edits.partition_point(|edit| (edit.row as usize) < rows.start)..].iter().peekable();
        for row in rows.clone() {
            let edit = mine.next_if(|edit| edit.row as usize == row);
            stays.push(edit.is_none());
            match edit.map(|edit| edit.with) {
                None => same.push(true),
                Some(Some(with)) => {
                    wanted.push(with);
                    found.push(same.len() as u32);
                    same.push(false);
                }
                Some(None) => {}
            }
        }
    }
    if same.len() != after.num_rows() {
        return Err(ROWS);
    }
    let (stays, same, found) = (BooleanArray::from(stays), BooleanArray::from(same), UInt32Array::from(found));
    let wanted = UInt32Array::from(wanted);
    for (field, (before, after)) in before.schema().fields().iter().zip(before.columns().iter().zip(after.columns())) {
        let kept = filter(before, &stays)?;
        let spliced = if found.is_empty() { Arc::clone(after) } else { filter(after, &same)? };
        if !equal(&kept, &spliced)? {
            return Err(ROWS);
        }
        if let (Some(replacements), false) = (replacements, found.is_empty()) {
            let column = replacements.column_by_name(field.name()).ok_or(ROWS)?;
            let (wanted, there) = (take(column, &wanted, None)?, take(after, &found, None)?);
            if plain(&wanted)?.as_ref() != plain(&there)?.as_ref() {
                return Err(Stop::Mismatch("a row that was to be replaced is not the row in its place"));
            }
        }
    }
    Ok(())
}

fn plain(column: &ArrayRef) -> Result<ArrayRef, Stop> {
    Ok(match column.data_type() {
        DataType::Dictionary(_, values) => cast(column, values)?,
        _ => Arc::clone(column),
    })
}

fn equal(a: &ArrayRef, b: &ArrayRef) -> Result<bool, Stop> {
    if let (Some(x), Some(y)) = (a.as_dictionary_opt::<Int32Type>(), b.as_dictionary_opt::<Int32Type>())
        && x.values().as_ref() == y.values().as_ref()
    {
        return Ok(x.keys() == y.keys());
    }
    Ok(plain(a)?.as_ref() == plain(b)?.as_ref())
}
