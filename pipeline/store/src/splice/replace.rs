//! A file replaced by one without the rows that go: its pieces are written,
//! read back, and compared, before it gets a name.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ameles_core::{Timestamp, sha256_pair};
use ameles_schemas::Table;
use bytes::Bytes;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::page_index::column_index::ColumnIndexMetaData;

use super::check::check;
use super::file::{ParquetFile, splice};
use super::month::{Replacements, Splicing};
use super::page::Codec;
use super::{Counts, Edit, Stop};
use crate::durable::{IfThere, Staged};
use crate::files::{Written, sha256};
use crate::log::NewFile;
use crate::names::{self, Origin};
use crate::rewrite::FileEvidence;
use crate::{DataFile, StoreError};

/// One file replaced, or gone where nothing takes its place.
pub(crate) struct Replaced {
    pub(crate) table: Table,
    pub(crate) old: DataFile,
    pub(crate) evidence: FileEvidence,
    pub(crate) new: Option<Written>,
}

const LOST: Stop = Stop::Mismatch("a spliced file has another number of rows than were to stay");

impl Splicing {
    /// Splices a file, writes what it is put together from, and compares what is read back, before it is one of the `named`.
    /// `metadata` is the old file's footer, which was read to find the rows.
    pub(super) fn replace(
        &self,
        codec: &mut Codec,
        (table, file, metadata): (Table, DataFile, Arc<ParquetMetaData>),
        edits: &[Vec<Edit>],
        replacements: Option<&Replacements>,
        named: &Mutex<Vec<PathBuf>>,
    ) -> Result<(Replaced, Counts), Stop> {
        let path = self.path(table, &file);
        let io = |doing: &'static str, path: &Path, source| StoreError::Io { doing, path: path.display().to_string(), source };
        let mut buffer = codec.buffer();
        std::fs::File::open(&path).and_then(|mut file| file.read_to_end(&mut buffer)).map_err(|source| io("reading", &path, source))?;
        let bytes = Bytes::from(buffer);
        let evidence = |sha256| FileEvidence { path: file.path.clone(), sha256, rows: file.rows, bytes: bytes.len() as u64 };
        let old = ParquetFile::read_whole(bytes.clone(), metadata);
        let mut counts = Counts::default();
        let spliced = splice(&old, edits, replacements.map(|rows| &rows.file), codec, &mut counts)?;
        let deleted = edits.iter().flatten().filter(|edit| edit.with.is_none()).count() as u64;
        let Some(spliced) = spliced else {
            let evidence = evidence(sha256(&bytes));
            return if deleted == file.rows { Ok((Replaced { table, old: file, evidence, new: None }, counts)) } else { Err(LOST) };
        };
        let Origin::Settled { generation, part, keys } = &file.origin else {
            return Err(Stop::Unsupported("the file is not settled"));
        };
        let to = names::spliced_path(self.month, generation, *part, *keys, &self.revision);
        let at = self.warehouse.table_folder(table).join(&to);
        let staged = Staged::write(&at, spliced.bytes()).map_err(|source| io("writing", &at, source))?;
        let mut buffer = codec.buffer();
        buffer.reserve(spliced.len());
        staged.read(&mut buffer).map_err(|source| io("reading", &at, source))?;
        let written = Bytes::from(buffer);
        // What was copied is compared with the file that it comes from.
        if !spliced.are_new_in(&written) {
            return Err(Stop::Mismatch("a file that was written reads back as another"));
        }
        codec.give_back(spliced.into_encoded());
        let parsed = ParquetFile::of_bytes(written.clone())?;
        check(&old, &parsed, edits, replacements.map(|rows| &rows.rows), codec)?;
        let rows = u64::try_from(parsed.metadata.file_metadata().num_rows()).unwrap_or_default();
        if rows + deleted != file.rows {
            return Err(LOST);
        }
        named.lock().unwrap_or_else(PoisonError::into_inner).push(at.clone());
        staged.put(IfThere::Fail).map_err(|source| io("writing", &at, source))?;
        self.throttle.spend(old.bytes()?.len() as u64 + written.len() as u64);
        let ts = if table == Table::Events { range_of::<i64>(&parsed, "ts", ints) } else { None };
        let range = if table.sort_columns()[0] == "device" { range_of(&parsed, "device", buckets) } else { None };
        let bounds = |(first, last)| (Timestamp::from_micros(first), Timestamp::from_micros(last));
        let size = written.len() as u64;
        let [before, after] = sha256_pair(&bytes, &written).map(hex::encode);
        let evidence = evidence(before);
        let new = Some(Written::new(NewFile { path: to, size, rows, ts: ts.map(bounds), range }, after));
        drop((old, parsed));
        codec.give_back(bytes);
        codec.give_back(written);
        Ok((Replaced { table, old: file, evidence, new }, counts))
    }
}

/// Least and greatest of a column, by its pages' ranges.
fn range_of<T: Ord + Copy>(file: &ParquetFile, name: &str, of: impl Fn(&ColumnIndexMetaData, usize) -> Option<(T, T)>) -> Option<(T, T)> {
    let leaf = file.leaf_of(name)?;
    let groups = file.metadata.column_index()?.iter().filter_map(|group| group.get(leaf));
    let ranges = groups.flat_map(|index| (0..usize::try_from(index.num_pages()).unwrap_or_default()).filter_map(|page| of(index, page)));
    ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

fn ints(index: &ColumnIndexMetaData, page: usize) -> Option<(i64, i64)> {
    match index {
        ColumnIndexMetaData::INT64(index) => Some((*index.min_value(page)?, *index.max_value(page)?)),
        _ => None,
    }
}

fn buckets(index: &ColumnIndexMetaData, page: usize) -> Option<(u16, u16)> {
    let bucket = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
    match index {
        ColumnIndexMetaData::BYTE_ARRAY(index) => Some((bucket(index.min_value(page)?)?, bucket(index.max_value(page)?)?)),
        _ => None,
    }
}
