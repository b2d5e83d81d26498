//! Parquet files: how they are laid out, written whole and read in columns.
//!
//! Pseudonyms are stored without dictionary and bloom filter: an erased value
//! would stay in the one and cannot be taken out of the other.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ameles_core::Timestamp;
use ameles_schemas::Table;
use ameles_schemas::column::DAYS;
use arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListArray, RecordBatch, new_null_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute;
use arrow::datatypes::{DataType, Int32Type, SchemaRef, TimestampMicrosecondType};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::durable::{self, IfThere};
use crate::encode::FileEncoder;
use crate::log::NewFile;
use crate::rewrite::FileEvidence;
use crate::syncing::ToSync;
use crate::{DataFile, StoreError};

/// Settled files are closed before they reach 64 MiB.
const FILE_BYTES_MAX: usize = 60 << 20;
const ROW_GROUP_ROWS: usize = 128 << 10;
const PAGE_ROWS: usize = 8 << 10;
/// Of `events`: an erasure encodes again the pages that hold a subject, and few of its rows lie in each.
const EVENT_PAGE_ROWS: usize = 4 << 10;
/// Rows between two looks at a page's size.
const PAGE_STEP_ROWS: usize = 1 << 10;
/// What a page of a device's one row, or of times, takes before compression. An erasure encodes the pages that hold a subject again: where
/// a row is one device's, eight thousand others would be in each.
const PAGE_BYTES: usize = 16 << 10;
/// A column of numbers whose dictionary has grown so large goes on without one: an erasure that takes away the only row of an entry
/// writes all of it anew.
const DICTIONARY_BYTES: usize = 16 << 10;
const READ_ROWS: usize = 8 << 10;

pub(crate) fn properties(table: Table, schema: &SchemaRef) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("ameles ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(if table == Table::Events { EVENT_PAGE_ROWS } else { PAGE_ROWS })
        .set_write_batch_size(PAGE_STEP_ROWS)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_statistics_enabled(EnabledStatistics::Page);
    if !table.key_columns().is_empty() {
        properties = properties.set_data_page_size_limit(PAGE_BYTES);
    }
    let located_by = table.sort_columns().iter().find(|column| **column == "device");
    for field in schema.fields() {
        let path = ColumnPath::from(field.name().as_str());
        match field.data_type() {
            DataType::Binary => {
                // Neighbours share their first bytes only where the file is sorted by the column.
                let encoding = if table.sort_columns()[0] == field.name() { Encoding::DELTA_BYTE_ARRAY } else { Encoding::PLAIN };
                properties = properties.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path.clone(), encoding);
                // Pages are found by device; nothing looks for pages by any other pseudonym.
                if located_by.is_none_or(|column| *column != field.name().as_str()) {
                    properties = properties.set_column_statistics_enabled(path, EnabledStatistics::None);
                }
            }
            DataType::Timestamp(..) => {
                properties = properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED)
                    .set_column_data_page_size_limit(path, PAGE_BYTES);
            }
            // Bits that are read for nearly each question, and hardly shrink.
            DataType::Int32 if field.name() == DAYS => {
                properties = properties.set_column_compression(path, Compression::UNCOMPRESSED);
            }
            _ => {}
        }
    }
    properties.build()
}

/// A file that was written and is on the disk.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) file: NewFile,
    /// Empty where nobody will ask.
    sha256: String,
}

impl Written {
    pub(crate) const fn new(file: NewFile, sha256: String) -> Self {
        Self { file, sha256 }
    }
    pub(crate) fn evidence(&self) -> FileEvidence {
        FileEvidence { path: self.file.path.clone(), sha256: self.sha256.clone(), rows: self.file.rows, bytes: self.file.size }
    }
}

/// Writes sorted batches as files of bounded size, each named by its part.
pub(crate) struct RunWriter<'a> {
    table: Table,
    folder: PathBuf,
    schema: SchemaRef,
    name: Box<dyn Fn(u32) -> String + Send + 'a>,
    open: Option<OpenFile>,
    written: Vec<Written>,
    tag_range: bool,
    hashed: bool,
    /// Where files go instead of being on the disk at once.
    to_sync: Option<&'a ToSync>,
}

struct OpenFile {
    writer: FileEncoder<Vec<u8>>,
    rows: u64,
    ts: Option<(i64, i64)>,
    range: Option<(u16, u16)>,
}

impl<'a> RunWriter<'a> {
    pub(crate) fn new(table: Table, folder: PathBuf, schema: SchemaRef, tag_range: bool, name: impl Fn(u32) -> String + Send + 'a) -> Self {
        Self { table, folder, schema, name: Box::new(name), open: None, written: Vec::new(), tag_range, hashed: true, to_sync: None }
    }

    /// Without the hashes that only a rewrite's evidence shows.
    pub(crate) fn unhashed(mut self) -> Self {
        self.hashed = false;
        self
    }

    /// Has files synced and named elsewhere: they are not on the disk yet when they are written.
    pub(crate) const fn synced_by(mut self, to_sync: &'a ToSync) -> Self {
        self.to_sync = Some(to_sync);
        self
    }

    /// Appends rows; a file ends between two calls only.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => OpenFile {
                writer: FileEncoder::new(Vec::new(), Arc::clone(&self.schema), properties(self.table, &self.schema))?,
                rows: 0,
                ts: None,
                range: None,
            },
        };
        open.writer.write(batch)?;
        open.rows += batch.num_rows() as u64;
        let time = match self.table {
            Table::Events => batch.column_by_name("ts"),
            Table::Quarantine => batch.column_by_name("at"),
            _ => None,
        };
        if let Some(times) = time.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>())
            && let (Some(first), Some(last)) = (compute::min(times), compute::max(times))
        {
            open.ts = Some(open.ts.map_or((first, last), |(a, b)| (a.min(first), b.max(last))));
        }
        if self.tag_range
            && self.table.sort_columns()[0] == "device"
            && let Some(devices) = batch.column_by_name("device").and_then(|column| column.as_binary_opt::<i32>())
        {
            let bucket = |row: usize| devices.value(row).first_chunk::<2>().map_or(0, |bytes| u16::from_be_bytes(*bytes));
            let last = bucket(batch.num_rows() - 1);
            open.range = Some((open.range.map_or_else(|| bucket(0), |range| range.0), last));
        }
        let bytes = open.writer.bytes();
        self.open = Some(open);
        if bytes >= FILE_BYTES_MAX {
            self.close_file()?;
        }
        Ok(())
    }

    fn close_file(&mut self) -> Result<(), StoreError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let bytes = Bytes::from(open.writer.finish()?);
        let part = u32::try_from(self.written.len()).unwrap_or(u32::MAX);
        let path = (self.name)(part);
        let at = self.folder.join(&path);
        // No name is ever used twice, so there must be none like it.
        let put = match self.to_sync {
            Some(to_sync) => to_sync.write(&at, bytes.clone()),
            None => durable::put_file(&at, std::slice::from_ref(&bytes), IfThere::Fail),
        };
        put.map_err(|source| StoreError::Io { doing: "writing", path: at.display().to_string(), source })?;
        let bounds = |(first, last)| (Timestamp::from_micros(first), Timestamp::from_micros(last));
        let file = NewFile { path, size: bytes.len() as u64, rows: open.rows, ts: open.ts.map(bounds), range: open.range };
        self.written.push(Written { file, sha256: if self.hashed { sha256(&bytes) } else { String::new() } });
        Ok(())
    }

    /// Ends the run; its files are on the disk.
    pub(crate) fn finish(mut self) -> Result<Vec<Written>, StoreError> {
        self.close_file()?;
        Ok(self.written)
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(ameles_core::sha256(bytes))
}

/// The evidence of a file that is on the disk.
pub(crate) fn evidence(folder: &Path, file: &DataFile) -> Result<FileEvidence, StoreError> {
    let path = folder.join(&file.path);
    let bytes = std::fs::read(&path).map_err(|source| StoreError::Io { doing: "reading", path: path.display().to_string(), source })?;
    Ok(FileEvidence { path: file.path.clone(), sha256: sha256(&bytes), rows: file.rows, bytes: bytes.len() as u64 })
}

/// Some columns of a run of files, batch by batch, in the shape of `schema`; columns that a file has not are null.
pub(crate) struct RunReader {
    folder: PathBuf,
    files: std::vec::IntoIter<DataFile>,
    schema: SchemaRef,
    /// Only pages that may hold one of these devices, sorted; all without.
    devices: Option<Arc<Vec<[u8; 16]>>>,
    open: Option<OpenReader>,
}

struct OpenReader {
    path: String,
    reader: ParquetRecordBatchReader,
    /// Rows that are still to come.
    rows: u64,
}

/// Sorted rows, batch by batch.
pub(crate) trait Rows: Send {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>, StoreError>;
}

/// Rows that are in memory already.
pub(crate) struct InMemory(pub(crate) Option<RecordBatch>);

impl Rows for InMemory {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>, StoreError> {
        Ok(self.0.take().filter(|batch| batch.num_rows() > 0))
    }
}

impl RunReader {
    pub(crate) fn new(folder: PathBuf, files: Vec<DataFile>, schema: SchemaRef) -> Self {
        Self { folder, files: files.into_iter(), schema, devices: None, open: None }
    }

    pub(crate) fn of_devices(mut self, devices: Arc<Vec<[u8; 16]>>) -> Self {
        self.devices = Some(devices);
        self
    }

    fn next_rows(&mut self) -> Result<Option<RecordBatch>, StoreError> {
        loop {
            if self.open.is_none() {
                let Some(file) = self.files.next() else { return Ok(None) };
                self.open = self.open_file(&file)?;
                continue;
            }
            let Some(open) = self.open.as_mut() else { continue };
            match open.reader.next() {
                Some(batch) => {
                    let batch = batch.map_err(|error| StoreError::File { path: open.path.clone(), what: error.to_string() })?;
                    open.rows = open.rows.saturating_sub(batch.num_rows() as u64);
                    let adapted = adapt(&batch, &self.schema, &open.path)?;
                    // Closed at once: a month may have thousands of small runs.
                    if open.rows == 0 {
                        self.open = None;
                    }
                    if adapted.num_rows() > 0 {
                        return Ok(Some(adapted));
                    }
                }
                None => self.open = None,
            }
        }
    }

    /// `None` when no page of the file can hold one of the devices.
    fn open_file(&self, file: &DataFile) -> Result<Option<OpenReader>, StoreError> {
        let path = self.folder.join(&file.path);
        let opened = File::open(&path).map_err(|source| StoreError::Io { doing: "opening", path: path.display().to_string(), source })?;
        let policy = if self.devices.is_some() { PageIndexPolicy::Optional } else { PageIndexPolicy::Skip };
        let builder =
            ParquetRecordBatchReaderBuilder::try_new_with_options(opened, ArrowReaderOptions::new().with_page_index_policy(policy))?;
        let wanted = builder.schema().fields().iter().enumerate().filter(|(_, field)| self.schema.field_with_name(field.name()).is_ok());
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.map(|(at, _)| at));
        let mut rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or_default();
        let mut builder = builder.with_projection(mask).with_batch_size(READ_ROWS);
        if let Some(devices) = &self.devices {
            let Some(column) = builder.schema().fields().iter().position(|field| field.name() == "device") else {
                return Err(StoreError::File { path: file.path.clone(), what: "it has no device column".into() });
            };
            let selection = pages_of(builder.metadata(), column, devices);
            if !selection.selects_any() {
                return Ok(None);
            }
            rows = selection.row_count() as u64;
            builder = builder.with_row_selection(selection);
        }
        Ok(Some(OpenReader { path: file.path.clone(), reader: builder.build()?, rows }))
    }
}

impl Rows for RunReader {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>, StoreError> {
        self.next_rows()
    }
}

/// The rows of pages whose range of devices holds one of `devices` (sorted). The columns before it are flat, so that its place among leaves is its place in the schema.
fn pages_of(metadata: &ParquetMetaData, column: usize, devices: &[[u8; 16]]) -> RowSelection {
    let hit = |min: &[u8], max: &[u8]| {
        let at = devices.partition_point(|device| device.as_slice() < min);
        devices.get(at).is_some_and(|device| device.as_slice() <= max)
    };
    let mut selectors = Vec::new();
    for (group, row_group) in metadata.row_groups().iter().enumerate() {
        let rows = usize::try_from(row_group.num_rows()).unwrap_or_default();
        let index = metadata.column_index().and_then(|index| index.get(group)?.get(column));
        let pages = metadata.offset_index().and_then(|index| index.get(group)?.get(column)).map(|index| index.page_locations());
        let (Some(ColumnIndexMetaData::BYTE_ARRAY(index)), Some(pages)) = (index, pages) else {
            selectors.push(RowSelector::select(rows));
            continue;
        };
        let start = |page: usize| pages.get(page).map_or(rows, |page| usize::try_from(page.first_row_index).unwrap_or_default());
        for page in 0..pages.len() {
            let count = start(page + 1) - start(page);
            let wanted = match (index.min_value(page), index.max_value(page)) {
                (Some(min), Some(max)) => hit(min, max),
                _ => true,
            };
            selectors.push(if wanted { RowSelector::select(count) } else { RowSelector::skip(count) });
        }
    }
    RowSelection::from(selectors)
}

/// Puts a file's columns into the wanted shape; what an older file lacks is null, a measure that it lacks is zero on each active day.
fn adapt(batch: &RecordBatch, schema: &SchemaRef, path: &str) -> Result<RecordBatch, StoreError> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let column = match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
            Some(column) => compute::cast(column, field.data_type())?,
            None if field.is_nullable() => new_null_array(field.data_type(), batch.num_rows()),
            None => zeros(batch, field.data_type())
                .ok_or_else(|| StoreError::File { path: path.to_owned(), what: format!("it has no column {}", field.name()) })?,
        };
        columns.push(column);
    }
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

fn zeros(batch: &RecordBatch, data_type: &DataType) -> Option<ArrayRef> {
    let DataType::List(element) = data_type else { return None };
    let days = batch.column_by_name("days")?.as_primitive_opt::<Int32Type>()?;
    let lengths: Vec<usize> = days.values().iter().map(|days| days.count_ones() as usize).collect();
    let values = Int32Array::from(vec![0; lengths.iter().sum()]);
    Some(Arc::new(ListArray::try_new(Arc::clone(element), OffsetBuffer::from_lengths(lengths), Arc::new(values), None).ok()?))
}

/// The 16 bytes of each row of a pseudonym column as a number whose order is theirs; an error for other lengths.
pub(crate) fn pseudonyms(column: &ArrayRef, what: &str) -> Result<Vec<u128>, StoreError> {
    let bad = || StoreError::Batch(format!("column {what} must hold 16 bytes in each row"));
    let column = column.as_binary_opt::<i32>().ok_or_else(bad)?;
    (0..column.len()).map(|row| if column.is_null(row) { Err(bad()) } else { to_u128(column.value(row)).ok_or_else(bad) }).collect()
}

/// The same without a copy: big-endian bytes, whose order is the order of the numbers.
pub(crate) fn pseudonym_bytes<'a>(column: &'a ArrayRef, what: &str) -> Result<&'a [[u8; 16]], StoreError> {
    let bad = || StoreError::Batch(format!("column {what} must hold 16 bytes in each row"));
    let column = column.as_binary_opt::<i32>().ok_or_else(bad)?;
    let offsets = column.value_offsets();
    if column.null_count() > 0 || offsets.windows(2).any(|pair| pair[1] - pair[0] != 16) {
        return Err(bad());
    }
    let bounds = offsets.first().zip(offsets.last()).map_or(0..0, |(first, last)| *first as usize..*last as usize);
    Ok(column.value_data().get(bounds).ok_or_else(bad)?.as_chunks().0)
}

/// The same where a row may have none.
pub(crate) fn optional_pseudonyms(column: &ArrayRef, what: &str) -> Result<Vec<Option<u128>>, StoreError> {
    let bad = || StoreError::Batch(format!("column {what} must hold 16 bytes or null in each row"));
    let column = column.as_binary_opt::<i32>().ok_or_else(bad)?;
    (0..column.len()).map(|row| if column.is_null(row) { Ok(None) } else { to_u128(column.value(row)).map(Some).ok_or_else(bad) }).collect()
}

pub(crate) fn to_u128(bytes: &[u8]) -> Option<u128> {
    <[u8; 16]>::try_from(bytes).ok().map(u128::from_be_bytes)
}

/// A column by its name.
pub(crate) fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, StoreError> {
    batch.column_by_name(name).ok_or_else(|| StoreError::Batch(format!("column {name} is missing")))
}
