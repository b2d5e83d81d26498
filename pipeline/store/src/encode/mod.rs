//! Parquet files from sorted rows, encoded by hand.
//!
//! parquet's ArrowWriter treats each value alone: it hashes it into a
//! dictionary, compares it for the statistics, copies it. Here a column of a
//! row group is encoded at once, as its shape suggests: texts that come as
//! codes stay codes, equal neighbours are runs, random bytes are copied and not
//! compressed. The pages, their offsets and ranges are made here (`chunk`,
//! `ranges`); parquet writes the footer, and the columns of types that are rare
//! or nested.
//!
//! | column | encoding | statistics |
//! | --- | --- | --- |
//! | text | sorted dictionary per row group, or plain where that would be large | yes |
//! | pseudonym | what it shares with its neighbour where the file is sorted by it, else lengths and bytes, plain where there are nulls; never a dictionary | as `properties` says |
//! | whole number, time | packed deltas; with nulls, codes or plain | yes |
//! | others | parquet's | yes |
//!
//! A chunk is compressed if that shrinks its first page noticeably.

pub(crate) mod bits;
mod chunk;
mod columns;
pub(crate) mod ranges;
mod text;

#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::mem;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::Encoding;
use parquet::column::writer::ColumnCloseResult;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnDescPtr;

use self::chunk::{Chunk, Tools};
use self::columns::{Lay, put_coded, put_integers, put_texts, put_values};
use self::text::Coded;
use crate::StoreError;

/// A row group ends early when its rows take this much memory.
const ROW_GROUP_BYTES_MAX: usize = 32 << 20;
/// No page has fewer, but a chunk's last one, whatever a value takes.
const PAGE_ROWS_MIN: usize = 1 << 10;

/// Writes batches of a schema as one Parquet file to `sink`.
///
/// Where the schema says text, a batch may bring `Dictionary(UInt32, Utf8)`; batches that share a dictionary cost least.
/// Row groups and pages end at the rows that the properties say, whatever the batches.
pub(crate) struct FileEncoder<W: Write + Send> {
    file: SerializedFileWriter<W>,
    /// Makes writers for the columns that are parquet's to encode.
    others: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    properties: WriterPropertiesPtr,
    row_group_rows: usize,
    tools: Tools,
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    pending_bytes: usize,
    /// Bytes in memory of the rows that are in the file.
    encoded_bytes: usize,
}

/// What is appended to a row group.
enum Encoded {
    Ours(Bytes, Box<ColumnCloseResult>),
    Theirs(Vec<ArrowColumnChunk>),
}

impl<W: Write + Send> FileEncoder<W> {
    pub(crate) fn new(sink: W, schema: SchemaRef, properties: WriterProperties) -> Result<Self, StoreError> {
        // By way of ArrowWriter, which puts the Arrow schema into the footer.
        let (file, others) = ArrowWriter::try_new(sink, SchemaRef::clone(&schema), Some(properties))?.into_serialized_writer()?;
        let properties = WriterPropertiesPtr::clone(file.properties());
        Ok(Self {
            file,
            others,
            schema,
            row_group_rows: properties.max_row_group_row_count().unwrap_or(usize::MAX),
            properties,
            tools: Tools::new()?,
            pending: Vec::new(),
            pending_rows: 0,
            pending_bytes: 0,
            encoded_bytes: 0,
        })
    }

    /// Takes rows; they are encoded when a row group is full.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        self.check(batch)?;
        let mut start = 0;
        while start < batch.num_rows() {
            let rows = (batch.num_rows() - start).min(self.row_group_rows - self.pending_rows);
            let part = batch.slice(start, rows);
            self.pending_bytes += bytes_of(&part);
            self.pending_rows += rows;
            self.pending.push(part);
            start += rows;
            if self.pending_rows == self.row_group_rows || self.pending_bytes >= ROW_GROUP_BYTES_MAX {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Bytes of the file so far; rows that are not encoded yet count as much as those before them.
    pub(crate) fn bytes(&self) -> usize {
        let written = self.file.bytes_written();
        let pending = if self.encoded_bytes == 0 {
            self.pending_bytes as u128
        } else {
            self.pending_bytes as u128 * written as u128 / self.encoded_bytes as u128
        };
        written + pending as usize
    }

    /// Ends the file.
    pub(crate) fn finish(mut self) -> Result<W, StoreError> {
        self.flush()?;
        Ok(self.file.into_inner()?)
    }

    fn check(&self, batch: &RecordBatch) -> Result<(), StoreError> {
        if batch.num_columns() != self.schema.fields().len() {
            return Err(StoreError::Batch(format!("{} columns where the file has {}", batch.num_columns(), self.schema.fields().len())));
        }
        for (field, column) in self.schema.fields().iter().zip(batch.columns()) {
            let fits = match (field.data_type(), column.data_type()) {
                (DataType::Utf8, DataType::Dictionary(keys, values)) => **keys == DataType::UInt32 && **values == DataType::Utf8,
                (DataType::Timestamp(wanted, _), DataType::Timestamp(unit, _)) => wanted == unit,
                (wanted, found) => wanted.equals_datatype(found),
            };
            if !fits {
                let found = column.data_type();
                return Err(StoreError::Batch(format!("column {} must be {}, not {found}", field.name(), field.data_type())));
            }
            if !field.is_nullable() && column.logical_null_count() > 0 {
                return Err(StoreError::Batch(format!("column {} has nulls", field.name())));
            }
        }
        Ok(())
    }

    /// Encodes what is pending as a row group.
    fn flush(&mut self) -> Result<(), StoreError> {
        let pending = mem::take(&mut self.pending);
        if pending.is_empty() {
            return Ok(());
        }
        let ordinal = self.file.flushed_row_groups().len();
        let leaves = self.file.schema_descr().columns().to_vec();
        let mut others = None;
        let mut encoded = Vec::with_capacity(leaves.len());
        for (at, field) in self.schema.fields().iter().enumerate() {
            let pieces: Vec<&ArrayRef> = pending.iter().map(|batch| batch.column(at)).collect();
            let root = |leaf: &usize| self.file.schema_descr().get_column_root_idx(*leaf) == at;
            let own: Vec<usize> = (0..leaves.len()).filter(root).collect();
            let leaf = match own.as_slice() {
                [leaf] => leaves.get(*leaf).filter(|leaf| leaf.max_rep_level() == 0),
                _ => None,
            };
            let ours = match leaf {
                Some(leaf) => encode(field, leaf, &pieces, &self.properties, &mut self.tools)?,
                None => None,
            };
            if let Some((bytes, close)) = ours {
                encoded.push(Encoded::Ours(bytes, Box::new(close)));
                continue;
            }
            if others.is_none() {
                others = Some(self.others.create_column_writers(ordinal)?.into_iter().map(Some).collect::<Vec<_>>());
            }
            let mut writers: Vec<_> =
                own.iter().filter_map(|leaf| others.as_mut().and_then(|others| others.get_mut(*leaf)).and_then(Option::take)).collect();
            // At once, so that pages end at the same rows as ours.
            for (writer, leaf) in writers.iter_mut().zip(compute_leaves(field, &one(&pieces)?)?) {
                writer.write(&leaf)?;
            }
            encoded.push(Encoded::Theirs(writers.into_iter().map(|writer| writer.close()).collect::<Result<_, _>>()?));
        }
        let mut row_group = self.file.next_row_group()?;
        for column in encoded {
            match column {
                Encoded::Ours(bytes, close) => row_group.append_column(&bytes, *close)?,
                Encoded::Theirs(chunks) => chunks.into_iter().try_for_each(|chunk| chunk.append_to_row_group(&mut row_group))?,
            }
        }
        row_group.close()?;
        self.encoded_bytes += mem::take(&mut self.pending_bytes);
        self.pending_rows = 0;
        Ok(())
    }
}

/// The chunk of a column in one row group; none where the type is parquet's to encode.
fn encode(
    field: &Field,
    column: &ColumnDescPtr,
    pieces: &[&ArrayRef],
    properties: &WriterProperties,
    tools: &mut Tools,
) -> Result<Option<(Bytes, ColumnCloseResult)>, StoreError> {
    let page_bytes = properties.column_data_page_size_limit(column.path());
    // By what a value takes at most, or in texts' codes about.
    let page_rows = |width: usize| properties.data_page_row_count_limit().min((page_bytes / width).max(PAGE_ROWS_MIN));
    let statistics = properties.statistics_enabled(column.path()) != EnabledStatistics::None;
    let optional = column.max_def_level() > 0;
    let column = ColumnDescPtr::clone(column);
    Ok(Some(match field.data_type() {
        DataType::Utf8 => match Coded::new(pieces) {
            Some(coded) => {
                let mut chunk = Chunk::new(column, tools, statistics);
                put_coded(&mut chunk, &coded, optional, page_rows(size_of::<u16>()))?;
                chunk.finish()?
            }
            None => {
                let texts = pieces.iter().map(|piece| compute::cast(piece, &DataType::Utf8)).collect::<Result<Vec<_>, _>>()?;
                let texts = one(&texts.iter().collect::<Vec<_>>())?;
                let mut chunk = Chunk::new(column, tools, statistics);
                put_texts(&mut chunk, texts.as_string(), optional, page_rows(size_of::<u16>()))?;
                chunk.finish()?
            }
        },
        DataType::Binary => {
            let values = one(pieces)?;
            let values = values.as_binary::<i32>();
            let sorted = properties.encoding(column.path()) == Some(Encoding::DELTA_BYTE_ARRAY);
            let lay = Lay::of(values, sorted);
            let mut chunk = Chunk::new(column, tools, statistics);
            put_values(&mut chunk, values, lay, optional, page_rows(size_of::<u128>()), statistics.then_some(|value| value))?;
            chunk.finish()?
        }
        DataType::Int64 => {
            let mut chunk = Chunk::new(column, tools, statistics);
            put_integers::<Int64Type>(&mut chunk, one(pieces)?.as_primitive(), optional, page_rows(size_of::<i64>()))?;
            chunk.finish()?
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let mut chunk = Chunk::new(column, tools, statistics);
            put_integers::<TimestampMicrosecondType>(&mut chunk, one(pieces)?.as_primitive(), optional, page_rows(size_of::<i64>()))?;
            chunk.finish()?
        }
        _ => return Ok(None),
    }))
}

/// The pieces as one array.
fn one(pieces: &[&ArrayRef]) -> Result<ArrayRef, StoreError> {
    match pieces {
        [piece] => Ok(ArrayRef::clone(piece)),
        _ => Ok(compute::concat(&pieces.iter().map(|piece| piece.as_ref()).collect::<Vec<_>>())?),
    }
}

/// What the rows of a batch take in memory, dictionaries aside.
fn bytes_of(batch: &RecordBatch) -> usize {
    let of = |column: &ArrayRef| match column.data_type() {
        DataType::Dictionary(..) => Ok(column.len() * size_of::<u32>()),
        _ => column.to_data().get_slice_memory_size(),
    };
    batch.columns().iter().map(|column| of(column).unwrap_or_default()).sum()
}
