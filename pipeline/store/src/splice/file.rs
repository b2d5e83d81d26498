//! A whole file: its footer and indexes, row groups, and the new file.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::writer::SerializedFileWriter;

use super::chunk::Chunk;
use super::leaf::{Leaf, Rows, Shape, Values};
use super::page::Codec;
use super::pieces::{Pieces, PiecesBuilder};
use super::{Counts, Edit, Stop};
use crate::StoreError;

/// What a file begins with.
const MAGIC: &[u8] = b"PAR1";

/// Where a file's bytes are.
#[derive(Debug)]
pub(crate) enum Source {
    Memory(Bytes),
    /// A file, and its length when it was opened.
    Disk(File, u64),
}

impl Source {
    pub(crate) fn bytes(&self, start: usize, length: usize) -> Result<Bytes, Stop> {
        const OUTSIDE: Stop = Stop::Damaged("a page lies outside of its file");
        match self {
            Self::Memory(bytes) => {
                let end = start.checked_add(length).filter(|end| *end <= bytes.len()).ok_or(OUTSIDE)?;
                Ok(bytes.slice(start..end))
            }
            Self::Disk(file, size) => {
                if *size < start.saturating_add(length) as u64 {
                    return Err(OUTSIDE);
                }
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, start as u64).map_err(|error| parquet::errors::ParquetError::External(error.into()))?;
                Ok(Bytes::from(bytes))
            }
        }
    }
}

/// A Parquet file, its footer and its page indexes.
#[derive(Debug)]
pub(crate) struct ParquetFile {
    pub(crate) source: Source,
    pub(crate) metadata: Arc<ParquetMetaData>,
}

fn reader() -> ParquetMetaDataReader {
    let options = ParquetMetaDataOptions::new().with_encoding_stats_as_mask(false);
    ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional).with_metadata_options(Some(options))
}

impl ParquetFile {
    /// A file whose bytes are in memory.
    pub(crate) fn of_bytes(bytes: Bytes) -> Result<Self, Stop> {
        let metadata = Arc::new(reader().parse_and_finish(&bytes)?);
        Ok(Self::read_whole(bytes, metadata))
    }

    /// A file whose footer has been read already, and now its bytes.
    pub(crate) fn read_whole(bytes: Bytes, metadata: Arc<ParquetMetaData>) -> Self {
        Self { source: Source::Memory(bytes), metadata }
    }

    /// A file of which no page will be read: where they are is all that is asked.
    pub(crate) fn of_footer(metadata: Arc<ParquetMetaData>) -> Self {
        Self::read_whole(Bytes::new(), metadata)
    }

    /// A file of which some pages will be read.
    pub(crate) fn open(path: &Path) -> Result<Self, Stop> {
        let io = |source| StoreError::Io { doing: "opening", path: path.display().to_string(), source };
        let file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let metadata = Arc::new(reader().parse_and_finish(&file)?);
        Ok(Self { source: Source::Disk(file, size), metadata })
    }

    /// The file's bytes, where they are in memory.
    pub(crate) fn bytes(&self) -> Result<&Bytes, Stop> {
        match &self.source {
            Source::Memory(bytes) => Ok(bytes),
            Source::Disk(..) => Err(Stop::Unsupported("the file has not been read whole")),
        }
    }

    pub(crate) fn group_rows(&self, group: usize) -> usize {
        self.metadata.row_groups().get(group).map_or(0, |group| usize::try_from(group.num_rows()).unwrap_or_default())
    }

    /// The place of a column among the leaves.
    pub(crate) fn leaf_of(&self, name: &str) -> Option<usize> {
        self.metadata.file_metadata().schema_descr().columns().iter().position(|column| column.path().string() == name)
    }

    pub(crate) fn chunk(&self, group: usize, leaf: usize) -> Result<Chunk<'_>, Stop> {
        let row_group = self.metadata.row_groups().get(group).ok_or(Stop::Damaged("there is no such row group"))?;
        let metadata = row_group.columns().get(leaf).ok_or(Stop::Damaged("there is no such column"))?;
        let offsets = self.metadata.offset_index().and_then(|index| index.get(group)?.get(leaf));
        let offsets =
            offsets.filter(|index| !index.page_locations().is_empty()).ok_or(Stop::Unsupported("a column has no offset index"))?;
        let index = self.metadata.column_index().and_then(|index| index.get(group)?.get(leaf));
        let index = index.filter(|index| !matches!(index, parquet::file::page_index::column_index::ColumnIndexMetaData::NONE));
        let chunk = Chunk {
            source: &self.source,
            metadata,
            offsets,
            index,
            rows: self.group_rows(group),
            shape: Shape::of(metadata.column_descr())?,
        };
        if !chunk.is_readable() {
            return Err(Stop::Unsupported("a column is compressed in another way, or has a bloom filter"));
        }
        Ok(chunk)
    }

    /// All rows of a column, codes resolved.
    fn column(&self, codec: &mut Codec, leaf: usize) -> Result<Leaf, Stop> {
        let mut all: Option<Leaf> = None;
        for group in 0..self.metadata.num_row_groups() {
            let chunk = self.chunk(group, leaf)?;
            let dictionary = chunk.dictionary(codec)?;
            for page in 0..chunk.page_count() {
                let (_, mut rows) = chunk.page(codec, page)?;
                if let (Values::Codes(codes), Some(dictionary)) = (&rows.values, &dictionary) {
                    let mut values = Values::empty(&chunk.shape);
                    codes.iter().for_each(|code| values.push(dictionary.entries.get(*code as usize)));
                    rows.values = values;
                }
                let rows = Rows::new(&rows, &chunk.shape);
                rows.copy_to(all.get_or_insert_with(|| Leaf::empty(Values::empty(&chunk.shape))), 0..rows.count())?;
            }
        }
        all.ok_or(Stop::Damaged("the replacements have no rows"))
    }
}

/// The file without the deleted rows, and with the replaced ones as they stand in `replacements` (a file of the same schema);
/// `edits` are by row group, each in order. None where no row is left.
pub(crate) fn splice(
    old: &ParquetFile,
    edits: &[Vec<Edit>],
    replacements: Option<&ParquetFile>,
    codec: &mut Codec,
    counts: &mut Counts,
) -> Result<Option<Pieces>, Stop> {
    let bytes = old.bytes()?;
    let about = old.metadata.file_metadata();
    let leaves = about.schema_descr().num_columns();
    if replacements.is_some_and(|file| file.metadata.file_metadata().schema_descr().columns() != about.schema_descr().columns()) {
        return Err(Stop::Unsupported("the file has other columns than its table has now"));
    }
    let mut columns = Vec::new();
    if let Some(file) = replacements {
        for leaf in 0..leaves {
            columns.push(file.column(codec, leaf)?);
        }
    }
    let mut pieces = PiecesBuilder::new(bytes.clone(), codec.buffer());
    pieces.encode(|out| {
        out.extend_from_slice(MAGIC);
        Ok(())
    })?;
    counts.files += 1;
    let mut groups = Vec::new();
    for group in 0..old.metadata.num_row_groups() {
        let mine = edits.get(group).map_or(&[][..], Vec::as_slice);
        let deleted = mine.iter().filter(|edit| edit.with.is_none()).count();
        if deleted == old.group_rows(group) {
            continue;
        }
        let mut chunks = Vec::with_capacity(leaves);
        for leaf in 0..leaves {
            let chunk = old.chunk(group, leaf)?;
            chunks.push(match mine {
                [] => chunk.copied(counts, &mut pieces)?,
                mine => chunk.splice(codec, mine, columns.get(leaf), counts, &mut pieces)?,
            });
        }
        groups.push(chunks);
    }
    if groups.is_empty() {
        return Ok(None);
    }
    let tail = indexes_and_footer(old, groups, pieces.len())?;
    pieces.encode(|out| {
        out.extend_from_slice(&tail);
        Ok(())
    })?;
    Ok(Some(pieces.build()))
}

/// What comes after the chunks, which take all bytes before `place` but the first four; parquet's writer lays the file out.
fn indexes_and_footer(old: &ParquetFile, groups: Vec<Vec<ColumnCloseResult>>, place: usize) -> Result<Vec<u8>, Stop> {
    let about = old.metadata.file_metadata();
    let created_by = about.created_by().unwrap_or_default().to_owned();
    let properties =
        WriterProperties::builder().set_created_by(created_by).set_key_value_metadata(about.key_value_metadata().cloned()).build();
    let mut writer =
        SerializedFileWriter::new(Behind { place, bytes: Vec::new() }, about.schema_descr().root_schema_ptr(), Arc::new(properties))?;
    for chunks in groups {
        let mut row_group = writer.next_row_group()?;
        for close in chunks {
            row_group.append_column(&Elsewhere(close.bytes_written), close)?;
        }
        row_group.close()?;
    }
    Ok(writer.into_inner()?.bytes)
}

/// Keeps what is written from a place on.
struct Behind {
    place: usize,
    bytes: Vec<u8>,
}

impl Write for Behind {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let passed = self.place.min(bytes.len());
        self.place -= passed;
        self.bytes.extend_from_slice(bytes.get(passed..).unwrap_or_default());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Stands for a chunk whose bytes go another way: so many zeros.
struct Elsewhere(u64);

impl Length for Elsewhere {
    fn len(&self) -> u64 {
        self.0
    }
}

impl ChunkReader for Elsewhere {
    type T = io::Repeat;

    fn get_read(&self, _start: u64) -> parquet::errors::Result<io::Repeat> {
        Ok(io::repeat(0))
    }

    fn get_bytes(&self, _start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        Ok(Bytes::from(vec![0; length]))
    }
}
