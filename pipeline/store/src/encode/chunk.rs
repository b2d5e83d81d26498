//! A column chunk: its pages, one after the other, and what the footer says of them.

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, PageType, ZstdLevel};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, LevelHistogram, OffsetIndexBuilder, PageEncodingStats};
use parquet::schema::types::ColumnDescPtr;
use zstd::bulk::Compressor;

use super::bits::put_zigzag;
use super::ranges::{Bound, Ranges};

/// Compression must save an eighth of a column's first page; a chunk whose bytes are random is stored as it is.
const fn pays(compressed: usize, plain: usize) -> bool {
    // A short page, of nulls or of one run, says nothing of those after it.
    const TELLING_BYTES_MIN: usize = 512;
    plain < TELLING_BYTES_MIN || compressed <= plain - plain / 8
}

/// What a page holds beside its bytes.
pub(crate) struct Page<B> {
    pub(crate) encoding: Encoding,
    pub(crate) rows: usize,
    pub(crate) nulls: usize,
    /// Least and greatest value; none where all are null.
    pub(crate) range: Option<(B, B)>,
    /// Bytes of the values before they are encoded, of columns of variable length.
    pub(crate) value_bytes: Option<usize>,
}

/// What every chunk of a file is made with.
pub(crate) struct Tools {
    zstd: Compressor<'static>,
    compressed: Vec<u8>,
}

impl Tools {
    pub(crate) fn new() -> Result<Self> {
        let level = ZstdLevel::default().compression_level();
        Ok(Self { zstd: Compressor::new(level).map_err(|error| ParquetError::External(error.into()))?, compressed: Vec::new() })
    }

    fn compress(&mut self, payload: &[u8]) -> Result<()> {
        self.compressed.clear();
        self.compressed.reserve(zstd::zstd_safe::compress_bound(payload.len()));
        self.zstd.compress_to_buffer(payload, &mut self.compressed).map_err(|error| ParquetError::External(error.into()))?;
        Ok(())
    }
}

/// A column chunk in the making; offsets count from its beginning.
pub(crate) struct Chunk<'a, B> {
    column: ColumnDescPtr,
    tools: &'a mut Tools,
    /// Known from the first page on.
    compression: Option<Compression>,
    bytes: Vec<u8>,
    plain_bytes: usize,
    dictionary_bytes: usize,
    rows: usize,
    nulls: usize,
    value_bytes: Option<usize>,
    pages: Vec<PageEncodingStats>,
    offsets: OffsetIndexBuilder,
    ranges: Option<Ranges<B>>,
}

impl<'a, B: Bound> Chunk<'a, B> {
    pub(crate) fn new(column: ColumnDescPtr, tools: &'a mut Tools, statistics: bool) -> Self {
        Self {
            column,
            tools,
            compression: None,
            bytes: Vec::new(),
            plain_bytes: 0,
            dictionary_bytes: 0,
            rows: 0,
            nulls: 0,
            value_bytes: None,
            pages: Vec::new(),
            offsets: OffsetIndexBuilder::new(),
            ranges: statistics.then(Ranges::new),
        }
    }

    /// The dictionary, which comes first: values in ascending order, encoded plain; `sample` is the first data page.
    pub(crate) fn dictionary(&mut self, payload: &[u8], values: usize, sample: &[u8]) -> Result<()> {
        self.tools.compress(sample)?;
        self.decide(sample.len());
        self.dictionary_bytes = self.put(payload, |header| {
            // DictionaryPageHeader, field 7: number of values, encoding, sorted.
            header.push(0x4c);
            put_i32(header, values)?;
            put_i32(header, 0)?;
            header.extend([0x11, 0]);
            Ok(2)
        })?;
        self.count(PageType::DICTIONARY_PAGE, Encoding::PLAIN);
        Ok(())
    }

    /// A data page of version 1: levels and values.
    pub(crate) fn page(&mut self, payload: &[u8], page: &Page<B>) -> Result<()> {
        let offset = self.bytes.len();
        let length = self.put(payload, |header| {
            // DataPageHeader, field 5: number of values, encoding of the values, of the definition and of the repetition levels.
            header.push(0x2c);
            put_i32(header, page.rows)?;
            put_i32(header, page.encoding as usize)?;
            put_i32(header, Encoding::RLE as usize)?;
            put_i32(header, Encoding::RLE as usize)?;
            header.push(0);
            Ok(0)
        })?;
        self.count(PageType::DATA_PAGE, page.encoding);
        self.offsets.append_row_count(page.rows as i64);
        self.offsets.append_offset_and_size(offset as i64, i32::try_from(length).map_err(|_| too_large())?);
        self.offsets.append_unencoded_byte_array_data_bytes(page.value_bytes.map(|bytes| bytes as i64));
        let levels = self.levels(page.rows, page.nulls);
        if let Some(ranges) = &mut self.ranges {
            ranges.page(page.range, page.nulls, levels);
        }
        self.rows += page.rows;
        self.nulls += page.nulls;
        self.value_bytes = page.value_bytes.map(|bytes| bytes + self.value_bytes.unwrap_or_default()).or(self.value_bytes);
        Ok(())
    }

    /// Appends header and bytes of a page; returns the length of both.
    fn put(&mut self, payload: &[u8], rest: impl FnOnce(&mut Vec<u8>) -> Result<usize>) -> Result<usize> {
        if self.compression != Some(Compression::UNCOMPRESSED) {
            self.tools.compress(payload)?;
        }
        let compression = self.decide(payload.len());
        let stored = if compression == Compression::UNCOMPRESSED { payload } else { self.tools.compressed.as_slice() };
        // PageHeader in Thrift's compact protocol: type, size before and after compression, then the header of that type of page.
        let mut tail = Vec::with_capacity(24);
        let page_type = rest(&mut tail)?;
        let start = self.bytes.len();
        put_i32(&mut self.bytes, page_type)?;
        put_i32(&mut self.bytes, payload.len())?;
        put_i32(&mut self.bytes, stored.len())?;
        self.bytes.extend_from_slice(&tail);
        self.bytes.push(0);
        self.plain_bytes += self.bytes.len() - start + payload.len();
        self.bytes.extend_from_slice(stored);
        Ok(self.bytes.len() - start)
    }

    /// The compression of the whole chunk, after that of a first page of so many bytes.
    fn decide(&mut self, plain: usize) -> Compression {
        let pays = pays(self.tools.compressed.len(), plain);
        *self.compression.get_or_insert(if pays { Compression::ZSTD(ZstdLevel::default()) } else { Compression::UNCOMPRESSED })
    }

    fn count(&mut self, page_type: PageType, encoding: Encoding) {
        match self.pages.last_mut().filter(|last| last.page_type == page_type && last.encoding == encoding) {
            Some(last) => last.count += 1,
            None => self.pages.push(PageEncodingStats { page_type, encoding, count: 1 }),
        }
    }

    /// How many rows have no value and how many have one, of an optional column.
    fn levels(&self, rows: usize, nulls: usize) -> Option<LevelHistogram> {
        (self.column.max_def_level() == 1).then(|| LevelHistogram::from(vec![nulls as i64, (rows - nulls) as i64]))
    }

    pub(crate) fn finish(mut self) -> Result<(Bytes, ColumnCloseResult)> {
        let levels = self.levels(self.rows, self.nulls);
        let ranges = self.ranges.take().map(|ranges| ranges.finish(self.nulls as u64)).transpose()?;
        let mut encodings: Vec<Encoding> = self.pages.iter().map(|pages| pages.encoding).chain([Encoding::RLE]).collect();
        encodings.sort_unstable();
        encodings.dedup();
        let mut metadata = ColumnChunkMetaData::builder(self.column)
            .set_compression(self.compression.unwrap_or(Compression::UNCOMPRESSED))
            .set_encodings(encodings)
            .set_page_encoding_stats(self.pages)
            .set_total_compressed_size(self.bytes.len() as i64)
            .set_total_uncompressed_size(self.plain_bytes as i64)
            .set_num_values(self.rows as i64)
            .set_data_page_offset(self.dictionary_bytes as i64)
            .set_dictionary_page_offset((self.dictionary_bytes > 0).then_some(0));
        let (index, statistics) = ranges.unzip();
        if let Some(statistics) = statistics {
            metadata = metadata
                .set_statistics(statistics)
                .set_unencoded_byte_array_data_bytes(self.value_bytes.map(|bytes| bytes as i64))
                .set_definition_level_histogram(levels);
        }
        let close = ColumnCloseResult {
            bytes_written: self.bytes.len() as u64,
            rows_written: self.rows as u64,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: index,
            offset_index: Some(self.offsets.build()),
        };
        Ok((Bytes::from(self.bytes), close))
    }
}

/// The next field of a Thrift struct, an i32.
fn put_i32(out: &mut Vec<u8>, value: usize) -> Result<()> {
    out.push(0x15);
    put_zigzag(out, i64::from(i32::try_from(value).map_err(|_| too_large())?));
    Ok(())
}

fn too_large() -> ParquetError {
    ParquetError::General("a page is larger than 2 GiB".into())
}
