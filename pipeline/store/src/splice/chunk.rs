//! A column chunk with some rows deleted or replaced: only the pages that hold
//! them are decoded, the others are copied as bytes.

use bytes::Bytes;
use hashbrown::HashSet;
use parquet::basic::{Compression, PageType};
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::{ColumnChunkMetaData, LevelHistogram, OffsetIndexBuilder};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::offset_index::OffsetIndexMetaData;

use super::dictionary::Dictionary;
use super::file::Source;
use super::leaf::{Leaf, Rows, Shape, Values};
use super::page::{Codec, Header, Kind, read_header};
use super::pieces::PiecesBuilder;
use super::stats::{PageRange, chunk_statistics, column_index};
use super::{Counts, Edit, Stop};

/// A chunk as it lies in a file.
#[derive(Clone, Copy)]
pub(crate) struct Chunk<'a> {
    pub(crate) source: &'a Source,
    pub(crate) metadata: &'a ColumnChunkMetaData,
    pub(crate) offsets: &'a OffsetIndexMetaData,
    pub(crate) index: Option<&'a ColumnIndexMetaData>,
    /// Rows of the row group.
    pub(crate) rows: usize,
    pub(crate) shape: Shape,
}

/// A page of the new chunk.
enum NewPage {
    Copied(usize),
    Encoded { header: Header, leaf: Leaf, rows: usize },
}

fn size(number: i64) -> Result<usize, Stop> {
    usize::try_from(number).map_err(|_| Stop::Damaged("an offset is negative"))
}

impl Chunk<'_> {
    pub(crate) fn page_count(&self) -> usize {
        self.offsets.page_locations().len()
    }

    /// The rows of a page, counted from the beginning of the row group.
    pub(crate) fn page_rows(&self, page: usize) -> Result<std::ops::Range<usize>, Stop> {
        let first = |page: usize| self.offsets.page_locations().get(page).map_or(Ok(self.rows), |at| size(at.first_row_index));
        let rows = first(page)?..first(page + 1)?;
        if rows.is_empty() || rows.end > self.rows { Err(Stop::Damaged("the offset index has a page without rows")) } else { Ok(rows) }
    }

    /// Where header and bytes of a page begin, and how many they are.
    fn page_place(&self, page: usize) -> Result<(usize, usize), Stop> {
        let at = self.offsets.page_locations().get(page).ok_or(Stop::Damaged("there is no such page"))?;
        Ok((size(at.offset)?, size(i64::from(at.compressed_page_size))?))
    }

    /// How many bytes a page is, its header among them; it is not read.
    pub(crate) fn page_size(&self, page: usize) -> Result<u64, Stop> {
        Ok(self.page_place(page)?.1 as u64)
    }

    /// Header and bytes of a page, as they are stored.
    pub(crate) fn page_bytes(&self, page: usize) -> Result<Bytes, Stop> {
        let (start, length) = self.page_place(page)?;
        self.source.bytes(start, length)
    }

    /// Where the dictionary page begins, and how many bytes it is.
    fn dictionary_place(&self) -> Result<Option<(usize, usize)>, Stop> {
        let Some(start) = self.metadata.dictionary_page_offset() else { return Ok(None) };
        let first = self.offsets.page_locations().first().ok_or(Stop::Damaged("a chunk has no page"))?;
        Ok(Some((size(start)?, size(first.offset - start)?)))
    }

    /// The dictionary page as it is stored.
    pub(crate) fn dictionary_bytes(&self) -> Result<Option<Bytes>, Stop> {
        self.dictionary_place()?.map(|(start, length)| self.source.bytes(start, length)).transpose()
    }

    pub(crate) fn dictionary(&self, codec: &mut Codec) -> Result<Option<Dictionary>, Stop> {
        let Some(bytes) = self.dictionary_bytes()? else { return Ok(None) };
        let (header, payload) = codec.read(&bytes, self.metadata.compression())?;
        Dictionary::decode(&self.shape, header, &payload).map(Some)
    }

    /// A page's header and rows.
    pub(crate) fn page(&self, codec: &mut Codec, page: usize) -> Result<(Header, Leaf), Stop> {
        let mut payload = codec.page_buffer();
        let header = codec.read_into(&self.page_bytes(page)?, self.metadata.compression(), 0, &mut payload)?;
        if header.kind != Kind::Data {
            return Err(Stop::Damaged("a data page is none"));
        }
        let leaf = Leaf::decode(&self.shape, &payload, header.values, header.encoding)?;
        codec.give_back_page(payload);
        if Rows::new(&leaf, &self.shape).count() != self.page_rows(page)?.len() {
            return Err(Stop::Damaged("a page has another number of rows than its index says"));
        }
        Ok((header, leaf))
    }

    /// Puts the chunk without the deleted rows, and with the replaced ones as they stand in `replacements`, behind `bytes`;
    /// at least one row stays.
    pub(crate) fn splice(
        &self,
        codec: &mut Codec,
        edits: &[Edit],
        replacements: Option<&Leaf>,
        counts: &mut Counts,
        bytes: &mut PiecesBuilder,
    ) -> Result<ColumnCloseResult, Stop> {
        let mut dictionary = self.dictionary(codec)?;
        let mut pages = Vec::with_capacity(self.page_count());
        let mut removed: HashSet<u32> = HashSet::new();
        let mut stale: Vec<Header> = Vec::new();
        let mut left = edits;
        for page in 0..self.page_count() {
            let rows = self.page_rows(page)?;
            let (mine, others) = left.split_at(left.partition_point(|edit| (edit.row as usize) < rows.end));
            left = others;
            if mine.is_empty() {
                pages.push(NewPage::Copied(page));
                continue;
            }
            let (header, old) = self.page(codec, page)?;
            let new = with_edits(&self.shape, &old, rows.start, mine, replacements, dictionary.as_mut(), &mut removed)?;
            stale.push(header);
            let rows = rows.len() - mine.iter().filter(|edit| edit.with.is_none()).count();
            if rows > 0 {
                pages.push(NewPage::Encoded { header, leaf: new, rows });
            }
        }
        if !left.is_empty() || pages.is_empty() {
            return Err(Stop::Damaged("a row group has fewer rows than were found in it"));
        }
        if let Some(dictionary) = &mut dictionary {
            dictionary.forget(&self.orphans(codec, removed, &pages)?);
        }
        self.assemble(codec, dictionary.as_ref(), &pages, &stale, counts, bytes)
    }

    /// Codes among `removed` that no row has any more.
    fn orphans(&self, codec: &mut Codec, mut removed: HashSet<u32>, pages: &[NewPage]) -> Result<HashSet<u32>, Stop> {
        let mut see = |values: &Values| {
            if let Values::Codes(codes) = values {
                let mut last = None;
                for code in codes.iter().filter(|code| last.replace(**code) != Some(**code)) {
                    removed.remove(code);
                }
            }
            removed.is_empty()
        };
        if see(&Values::Codes(Vec::new())) {
            return Ok(removed);
        }
        for page in pages {
            if let NewPage::Encoded { leaf, .. } = page
                && see(&leaf.values)
            {
                return Ok(removed);
            }
        }
        for page in pages {
            if let NewPage::Copied(page) = page
                && see(&self.page(codec, *page)?.1.values)
            {
                return Ok(removed);
            }
        }
        Ok(removed)
    }

    fn assemble(
        &self,
        codec: &mut Codec,
        dictionary: Option<&Dictionary>,
        pages: &[NewPage],
        stale: &[Header],
        counts: &mut Counts,
        bytes: &mut PiecesBuilder,
    ) -> Result<ColumnCloseResult, Stop> {
        let (compression, shape) = (self.metadata.compression(), &self.shape);
        let beginning = bytes.len();
        let mut plain = self.metadata.uncompressed_size() - stale.iter().map(|header| (header.length + header.plain) as i64).sum::<i64>();
        if let (Some(dictionary), Some(old)) = (dictionary, self.dictionary_bytes()?) {
            if dictionary.changed {
                let header = read_header(&old)?;
                let written = bytes.encode(|out| dictionary.write(codec, out, compression))?;
                plain += written as i64 - (header.length + header.plain) as i64;
                counts.dictionaries += 1;
                counts.bytes_encoded += (bytes.len() - beginning) as u64;
            } else if let Some((start, length)) = self.dictionary_place()? {
                bytes.copy(start..start + length)?;
                counts.bytes_copied += length as u64;
            }
        }
        let first_page = bytes.len() - beginning;
        let entries = dictionary.map(|dictionary| &dictionary.entries);
        let lengths = entries.map(lengths_of).unwrap_or_default();
        let (mut offsets, mut ranges, mut payload) = (OffsetIndexBuilder::new(), Some(Vec::new()), Vec::new());
        let (mut rows_written, mut values, mut text_bytes) = (0, 0, 0_i64);
        for page in pages {
            let start = bytes.len();
            let (rows, slots, texts) = match page {
                NewPage::Copied(page) => {
                    let rows = self.page_rows(*page)?.len();
                    let slots = if shape.max_rep == 0 { rows } else { read_header(&self.page_bytes(*page)?)?.values };
                    let (place, length) = self.page_place(*page)?;
                    bytes.copy(place..place + length)?;
                    counts.pages_copied += 1;
                    counts.bytes_copied += length as u64;
                    (rows, slots, self.offsets.unencoded_byte_array_data_bytes().and_then(|bytes| bytes.get(*page)).copied())
                }
                NewPage::Encoded { header, leaf, rows } => {
                    payload.clear();
                    leaf.encode(shape, header.encoding, entries.map_or(0, Values::len), &mut payload)?;
                    let head = bytes.encode(|out| codec.write(out, &payload, leaf.slots, header, compression))?;
                    plain += (head + payload.len()) as i64;
                    counts.pages_encoded += 1;
                    counts.bytes_encoded += (bytes.len() - start) as u64;
                    (*rows, leaf.slots, Some(text_bytes_of(&leaf.values, &lengths)))
                }
            };
            offsets.append_row_count(rows as i64);
            let length = i32::try_from(bytes.len() - start).map_err(|_| Stop::Damaged("a page is too large"))?;
            offsets.append_offset_and_size((start - beginning) as i64, length);
            offsets.append_unencoded_byte_array_data_bytes(texts.filter(|_| self.offsets.unencoded_byte_array_data_bytes().is_some()));
            text_bytes += texts.unwrap_or_default();
            rows_written += rows;
            values += slots;
            if let Some(index) = self.index {
                let like = PageRange::of_index(index, 0).ok_or(Stop::Unsupported("a page's range is not known"))?;
                let range = match page {
                    NewPage::Copied(page) => PageRange::of_index(index, *page),
                    NewPage::Encoded { leaf, .. } => PageRange::of_rows(shape, leaf, entries, &like),
                };
                match (range, &mut ranges) {
                    (Some(range), Some(ranges)) => ranges.push(range),
                    _ => ranges = None,
                }
            }
        }
        let ranges = ranges.filter(|_| self.index.is_some());
        let mut metadata = ColumnChunkMetaData::builder(self.metadata.column_descr_ptr())
            .set_compression(compression)
            .set_encodings_mask(*self.metadata.encodings_mask())
            .set_total_compressed_size((bytes.len() - beginning) as i64)
            .set_total_uncompressed_size(plain)
            .set_num_values(values as i64)
            .set_data_page_offset(first_page as i64)
            .set_dictionary_page_offset((first_page > 0).then_some(0))
            .set_unencoded_byte_array_data_bytes(self.metadata.unencoded_byte_array_data_bytes().map(|_| text_bytes));
        if let Some(stats) = self.page_stats(pages, stale) {
            metadata = metadata.set_page_encoding_stats(stats);
        }
        if let Some(ranges) = &ranges {
            let sum = |pick: fn(&PageRange) -> Option<&Vec<i64>>| {
                ranges.iter().map(pick).collect::<Option<Vec<_>>>().map(|pages| {
                    let levels = pages.first().map_or(0, |page| page.len());
                    LevelHistogram::from(
                        (0..levels).map(|level| pages.iter().filter_map(|page| page.get(level)).sum()).collect::<Vec<i64>>(),
                    )
                })
            };
            metadata = metadata
                .set_repetition_level_histogram(self.metadata.repetition_level_histogram().and_then(|_| sum(|page| page.rep.as_ref())))
                .set_definition_level_histogram(self.metadata.definition_level_histogram().and_then(|_| sum(|page| page.def.as_ref())));
            if let Some(statistics) = self.metadata.statistics().and_then(|old| chunk_statistics(shape, ranges, old)) {
                metadata = metadata.set_statistics(statistics);
            }
        }
        Ok(ColumnCloseResult {
            bytes_written: (bytes.len() - beginning) as u64,
            rows_written: rows_written as u64,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: ranges.map(|ranges| column_index(shape, &ranges)).transpose()?,
            offset_index: Some(offsets.build()),
        })
    }

    /// How many pages there are of each encoding.
    fn page_stats(&self, pages: &[NewPage], stale: &[Header]) -> Option<Vec<parquet::file::metadata::PageEncodingStats>> {
        let mut stats = self.metadata.page_encoding_stats()?.clone();
        for stat in stats.iter_mut().filter(|stat| stat.page_type == PageType::DATA_PAGE) {
            let same = |header: &Header| header.encoding == stat.encoding as i32;
            let before = stale.iter().filter(|header| same(header)).count();
            let after = pages.iter().filter(|page| matches!(page, NewPage::Encoded { header, .. } if same(header))).count();
            stat.count -= i32::try_from(before - after).unwrap_or_default();
        }
        stats.retain(|stat| stat.count > 0);
        Some(stats)
    }

    /// The chunk as it is, copied whole.
    pub(crate) fn copied(&self, counts: &mut Counts, bytes: &mut PiecesBuilder) -> Result<ColumnCloseResult, Stop> {
        let start = size(self.metadata.dictionary_page_offset().unwrap_or_else(|| self.metadata.data_page_offset()))?;
        let length = size(self.metadata.compressed_size())?;
        bytes.copy(start..start.saturating_add(length))?;
        counts.pages_copied += self.page_count() as u64;
        counts.bytes_copied += length as u64;
        Ok(ColumnCloseResult {
            bytes_written: length as u64,
            rows_written: self.rows as u64,
            metadata: self.metadata.clone(),
            bloom_filter: None,
            column_index: self.index.cloned(),
            offset_index: Some(self.offsets.clone()),
        })
    }

    /// Whether its compression is one that is written here.
    pub(crate) fn is_readable(&self) -> bool {
        matches!(self.metadata.compression(), Compression::UNCOMPRESSED | Compression::ZSTD(_))
            && self.metadata.bloom_filter_offset().is_none()
    }
}

/// The bytes of each entry of a dictionary of texts.
fn lengths_of(entries: &Values) -> Vec<u32> {
    match entries {
        Values::Texts(texts) => (0..texts.ends.len()).map(|at| texts.get(at).len() as u32).collect(),
        _ => Vec::new(),
    }
}

fn text_bytes_of(values: &Values, lengths: &[u32]) -> i64 {
    match values {
        Values::Texts(texts) => texts.bytes.len() as i64,
        Values::Codes(codes) => codes.iter().filter_map(|code| lengths.get(*code as usize)).map(|length| i64::from(*length)).sum(),
        Values::Fixed { .. } => 0,
    }
}

/// A page's rows after its edits; the codes of rows that go are put into `removed`.
fn with_edits(
    shape: &Shape,
    old: &Leaf,
    first_row: usize,
    edits: &[Edit],
    replacements: Option<&Leaf>,
    dictionary: Option<&mut Dictionary>,
    removed: &mut HashSet<u32>,
) -> Result<Leaf, Stop> {
    let rows = Rows::new(old, shape);
    let mut new = rows.like();
    let mut mine = Leaf::empty(Values::empty(shape));
    for with in edits.iter().filter_map(|edit| edit.with) {
        let replacements = replacements.ok_or(Stop::Damaged("a row is to be replaced by none"))?;
        Rows::new(replacements, shape).copy_to(&mut mine, with as usize..with as usize + 1)?;
    }
    if let (Values::Codes(_), Some(dictionary)) = (&old.values, dictionary) {
        mine = dictionary.code(&mine);
    }
    let mine = Rows::new(&mine, shape);
    let (mut done, mut replaced) = (0, 0);
    let mut left = edits;
    while let Some(edit) = left.first() {
        // A device's rows are neighbours: those that go together are passed over together.
        let follows = |pair: &[Edit]| matches!(pair, [a, b] if a.with.is_none() && b.with.is_none() && b.row == a.row + 1);
        let together = 1 + left.windows(2).take_while(|pair| follows(pair)).count();
        left = left.get(together..).unwrap_or_default();
        let row = edit.row as usize - first_row;
        rows.copy_to(&mut new, done..row)?;
        if let Values::Codes(codes) = &old.values {
            let codes = rows.values(row..row + together).and_then(|range| codes.get(range)).unwrap_or_default();
            removed.extend(codes.chunk_by(|a, b| a == b).filter_map(<[u32]>::first));
        }
        if edit.with.is_some() {
            mine.copy_to(&mut new, replaced..replaced + 1)?;
            replaced += 1;
        }
        done = row + together;
    }
    rows.copy_to(&mut new, done..rows.count())?;
    Ok(new)
}
