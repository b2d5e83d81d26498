//! Looks for subjects in every byte that the warehouse keeps.
//!
//! Values in Parquet are compressed and split by their encoding, so each file is
//! decoded, referenced or not; and the bytes of every file are searched as they
//! are, for pseudonyms in binary, in hex and in base64.

use std::fs;
use std::path::{Path, PathBuf};

use ameles_core::Subject;
use ameles_schemas::Table;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use base64_text::encodings;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hashbrown::{HashMap, HashSet};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::PageIndexPolicy;
use serde::{Deserialize, Serialize};

use crate::locked::Locked;
use crate::progress::{Counter, counted};
use crate::splice::Stop;
use crate::splice::file::ParquetFile;
use crate::splice::find::within;
use crate::splice::leaf::Values;
use crate::splice::month::parallel;
use crate::splice::page::Codec;
use crate::splice::runs::Runs;
use crate::splice::stats::PageRange;
use crate::{Snapshot, StoreError, Warehouse};

/// What a scan found, and where it looked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanReport {
    /// Parquet files decoded, value by value.
    pub files_decoded: u64,
    /// Files searched byte by byte: all of them.
    pub files_searched: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Rows decoded.
    pub rows: u64,
    /// Pages decoded.
    pub pages: u64,
    /// Data files of which no page was decoded, because the ranges of all showed that they hold none of the subjects.
    #[serde(default)]
    pub files_excluded: u64,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// A trace of a subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Relative to the warehouse.
    pub path: String,
    /// Where in the file, without any identifier: "column device, 3 values", "raw bytes".
    pub what: String,
}

/// Told how many bytes have been scanned since it was told last.
pub type ScanProgress<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// Decodes every Parquet file found on disk, referenced or not, and searches the bytes of every file for the subjects' pseudonyms, binary, in hex and in base64.
/// `locked` names a database below `root` that this process has open.
///
/// # Errors
/// When a file cannot be read or decoded: then nothing is certain.
pub fn scan_for<'a>(
    root: &'a Path,
    locked: &'a Locked,
    subjects: &'a [Subject],
    progress: ScanProgress<'a>,
) -> BoxFuture<'a, Result<ScanReport, StoreError>> {
    async move {
        let (root, locked, needles) = (root.to_owned(), locked.clone(), Needles::new(subjects));
        let scan = move |scanned: Counter| {
            let mut report = ScanReport::default();
            let mut files = Vec::new();
            walk(&root, &mut files)?;
            for path in files {
                let before = report.bytes;
                scan_file(&root, &path, &locked, &needles, &mut report)?;
                scanned.add(report.bytes - before);
            }
            Ok(report)
        };
        counted(scan, progress).await
    }
    .boxed()
}

/// The same, but of the data files that `snapshot` names only the pages are decoded that may hold a subject: those of the
/// device columns whose range covers one, and those of the user columns where a user is looked for. Indexes and footers are
/// searched byte by byte. All other files below `root` are decoded and searched as by [`scan_for`].
///
/// # Errors
/// As [`scan_for`].
pub fn scan_by_index<'a>(
    root: &'a Path,
    locked: &'a Locked,
    warehouse: &'a Warehouse,
    snapshot: &'a Snapshot,
    subjects: &'a [Subject],
    progress: ScanProgress<'a>,
) -> BoxFuture<'a, Result<ScanReport, StoreError>> {
    async move {
        let mut live: HashMap<PathBuf, Table> = HashMap::new();
        for table in [Table::Events, Table::Activity, Table::Links, Table::Devices] {
            live.extend(snapshot.files(table).iter().map(|file| (warehouse.table_folder(table).join(&file.path), table)));
        }
        let (root, locked, wanted) = (root.to_owned(), locked.clone(), Wanted::new(subjects));
        let scan = move |scanned: Counter| {
            let mut files = Vec::new();
            walk(&root, &mut files)?;
            let work = |codec: &mut Codec, path: PathBuf| {
                let mut report = ScanReport::default();
                let indexed = match live.get(&path) {
                    Some(table) => scan_candidates(&root, &path, *table, codec, &wanted),
                    None => Err(Stop::Unsupported("no table names it")),
                };
                match indexed {
                    Ok(found) => report = found,
                    Err(Stop::Failed(error)) => return Err(error.into()),
                    // Of another shape, or damaged: decoding all of it tells.
                    Err(_) => scan_file(&root, &path, &locked, &wanted.needles, &mut report)?,
                }
                scanned.add(report.bytes);
                Ok(report)
            };
            let parts = parallel(files.into(), work).map_err(|stop| stop.into_error("the warehouse"))?;
            Ok(parts.into_iter().fold(ScanReport::default(), ScanReport::and))
        };
        counted(scan, progress).await
    }
    .boxed()
}

impl ScanReport {
    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.files_decoded += other.files_decoded;
        self.files_searched += other.files_searched;
        self.bytes += other.bytes;
        self.rows += other.rows;
        self.pages += other.pages;
        self.files_excluded += other.files_excluded;
        self.findings.extend(other.findings);
        self
    }
}

/// Who is looked for.
struct Wanted {
    needles: Needles,
    /// Sorted.
    devices: Vec<[u8; 16]>,
    users: HashSet<[u8; 16]>,
}

impl Wanted {
    fn new(subjects: &[Subject]) -> Self {
        let (mut devices, mut users) = (Vec::new(), HashSet::new());
        for subject in subjects {
            match subject {
                Subject::Device(id) => devices.push(*id.as_bytes()),
                Subject::User(id) => {
                    users.insert(*id.as_bytes());
                }
            }
        }
        devices.sort_unstable();
        Self { needles: Needles::new(subjects), devices, users }
    }
}

/// Decodes the pages of a data file that may hold somebody who is looked for.
fn scan_candidates(root: &Path, path: &Path, table: Table, codec: &mut Codec, wanted: &Wanted) -> Result<ScanReport, Stop> {
    let shown = path.strip_prefix(root).unwrap_or(path).display().to_string();
    let file = ParquetFile::open(path)?;
    let mut report = ScanReport::default();
    let length = fs::metadata(path).map_err(|source| StoreError::Io { doing: "looking at", path: shown.clone(), source })?.len();
    let chunks = file.metadata.row_groups().iter().flat_map(|group| group.columns());
    // Indexes and footer come after the last chunk.
    let tail = chunks.map(|chunk| chunk.byte_range()).map(|(start, length)| start + length).max().unwrap_or(0).min(length);
    let footer = file.source.bytes(tail as usize, (length - tail) as usize)?;
    report.bytes += footer.len() as u64;
    let raw = wanted.needles.raw_hits(&footer);
    if raw > 0 {
        report.findings.push(Finding { path: shown.clone(), what: format!("raw bytes of the footer, {raw} places") });
    }
    let columns: &[&str] = match table {
        Table::Events | Table::Links if !wanted.users.is_empty() => &["device", "user"],
        _ => &["device"],
    };
    let mut runs = Runs::default();
    for name in columns {
        let Some(leaf) = file.leaf_of(name) else { continue };
        let mut hits = 0_u64;
        for group in 0..file.metadata.num_row_groups() {
            let chunk = file.chunk(group, leaf)?;
            if chunk.metadata.dictionary_page_offset().is_some() {
                return Err(Stop::Unsupported("a pseudonym column has a dictionary"));
            }
            for page in 0..chunk.page_count() {
                let range = chunk.index.and_then(|index| PageRange::of_index(index, page)).and_then(|page| page.range);
                let is_candidate = |(min, max): (Vec<u8>, Vec<u8>)| !within(&wanted.devices, &min, &max).is_empty();
                let needed = if *name == "device" { !wanted.devices.is_empty() && range.is_none_or(is_candidate) } else { true };
                if !needed {
                    continue;
                }
                report.pages += 1;
                report.rows += chunk.page_rows(page)?.len() as u64;
                report.bytes += chunk.page_size(page)?;
                if *name == "device" {
                    let found = runs.of(&chunk, codec, page)?.iter().filter(|run| wanted.devices.binary_search(&run.id).is_ok());
                    hits += found.map(|run| run.rows.len() as u64).sum::<u64>();
                    continue;
                }
                let (_, values) = chunk.page(codec, page)?;
                let Values::Texts(texts) = &values.values else { return Err(Stop::Unsupported("a pseudonym column holds codes")) };
                let is_user = |value: &[u8]| value.try_into().is_ok_and(|id: &[u8; 16]| wanted.users.contains(id));
                hits += (0..texts.ends.len()).filter(|at| is_user(texts.get(*at))).count() as u64;
            }
        }
        if hits > 0 {
            report.findings.push(Finding { path: shown.clone(), what: format!("column {name}, {hits} values") });
        }
    }
    if report.pages > 0 {
        report.files_decoded = 1
    } else {
        report.files_excluded = 1
    }
    Ok(report)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), StoreError> {
    let io = |source| StoreError::Io { doing: "listing", path: folder.display().to_string(), source };
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).map_err(io)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(io)?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn scan_file(root: &Path, path: &Path, locked: &Locked, needles: &Needles, report: &mut ScanReport) -> Result<(), StoreError> {
    let shown = path.strip_prefix(root).unwrap_or(path).display().to_string();
    let bytes = match locked.read(path) {
        Ok(bytes) => Bytes::from(bytes),
        // A writer or a purge has deleted it since it was listed.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(StoreError::Io { doing: "reading", path: shown, source }),
    };
    report.files_searched += 1;
    report.bytes += bytes.len() as u64;
    let mut finding = |what: String| report.findings.push(Finding { path: shown.clone(), what });
    let raw = needles.raw_hits(&bytes);
    if raw > 0 {
        finding(format!("raw bytes, {raw} places"));
    }
    // By its content, not its name: a staged or renamed file is decoded too. One that was cut short by a crash has raw bytes only.
    if bytes.len() >= 12 && bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1") {
        let damaged = |error: parquet::errors::ParquetError| StoreError::File { path: shown.clone(), what: error.to_string() };
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options).map_err(damaged)?;
        let metadata = builder.metadata();
        let pages =
            metadata.offset_index().map_or(0, |index| index.iter().flatten().map(|column| column.page_locations().len() as u64).sum());
        let schema = builder.schema().clone();
        let mut hits = vec![0_u64; schema.fields().len()];
        for batch in builder.with_batch_size(32 << 10).build().map_err(damaged)? {
            let batch = batch?;
            report.rows += batch.num_rows() as u64;
            for (hits, column) in hits.iter_mut().zip(batch.columns()) {
                *hits += needles.value_hits(column);
            }
        }
        report.files_decoded += 1;
        report.pages += pages;
        for (field, hits) in schema.fields().iter().zip(hits).filter(|(_, hits)| *hits > 0) {
            report.findings.push(Finding { path: shown.clone(), what: format!("column {}, {hits} values", field.name()) });
        }
    }
    Ok(())
}

/// The subjects' pseudonyms in every form that is looked for.
struct Needles {
    /// One bit for each first two bytes that a form begins with: it fits the innermost cache, and lets few others through.
    first: Vec<u64>,
    /// One bit for each first three bytes.
    second: Vec<u64>,
    all: HashSet<Vec<u8>>,
    lengths: Vec<usize>,
}

impl Needles {
    fn new(subjects: &[Subject]) -> Self {
        let all: HashSet<Vec<u8>> = subjects.iter().flat_map(|subject| encodings(subject.as_bytes())).collect();
        let mut lengths: Vec<usize> = all.iter().map(Vec::len).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let (mut first, mut second) = (vec![0_u64; 1 << 10], vec![0_u64; 1 << 18]);
        for needle in &all {
            let (two, three) = Self::buckets(needle[0], needle[1], needle[2]);
            first[two >> 6] |= 1 << (two & 63);
            second[three >> 6] |= 1 << (three & 63);
        }
        Self { first, second, all, lengths }
    }

    const fn buckets(a: u8, b: u8, c: u8) -> (usize, usize) {
        let two = (a as usize) << 8 | b as usize;
        (two, two << 8 | c as usize)
    }

    fn raw_hits(&self, bytes: &[u8]) -> u64 {
        let mut hits = 0;
        for (at, window) in bytes.windows(3).enumerate() {
            let (two, three) = Self::buckets(window[0], window[1], window[2]);
            if self.first[two >> 6] >> (two & 63) & 1 == 1 && self.second[three >> 6] >> (three & 63) & 1 == 1 {
                let found = self.lengths.iter().filter(|length| bytes.get(at..at + **length).is_some_and(|form| self.all.contains(form)));
                hits += found.count() as u64;
            }
        }
        hits
    }

    fn value_hits(&self, column: &ArrayRef) -> u64 {
        // A pseudonym's column holds it and nothing else; texts and other binaries may hold it within.
        let hits = |bytes: &[u8]| u64::from(if bytes.len() == 16 { self.all.contains(bytes) } else { self.raw_hits(bytes) > 0 });
        match column.data_type() {
            DataType::Binary => column.as_binary::<i32>().iter().flatten().map(hits).sum(),
            DataType::Utf8 => column.as_string::<i32>().iter().flatten().map(|text| hits(text.as_bytes())).sum(),
            DataType::LargeBinary => column.as_binary::<i64>().iter().flatten().map(hits).sum(),
            DataType::LargeUtf8 => column.as_string::<i64>().iter().flatten().map(|text| hits(text.as_bytes())).sum(),
            DataType::FixedSizeBinary(_) => column.as_fixed_size_binary().iter().flatten().map(hits).sum(),
            DataType::List(_) => self.value_hits(column.as_list::<i32>().values()),
            DataType::Map(..) => column.as_map().entries().columns().iter().map(|child| self.value_hits(child)).sum(),
            DataType::Struct(_) => column.as_struct().columns().iter().map(|child| self.value_hits(child)).sum(),
            // Numbers, times and truth values hold no 16 bytes.
            _ => 0,
        }
    }
}

mod base64_text {
    /// The bytes, their hex in both cases, and their base64 in both alphabets without padding.
    pub(super) fn encodings(bytes: &[u8; 16]) -> Vec<Vec<u8>> {
        let hex = hex::encode(bytes);
        let standard = base64(bytes, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
        let url = base64(bytes, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");
        vec![bytes.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes(), standard, url]
    }

    fn base64(bytes: &[u8; 16], alphabet: &[u8; 64]) -> Vec<u8> {
        let number = u128::from_be_bytes(*bytes);
        // 21 characters of 6 bits, and one of the last 2 bits with zeros behind.
        let mut text: Vec<u8> = (0..21).map(|at| alphabet[(number >> (122 - 6 * at)) as usize & 63]).collect();
        text.push(alphabet[((number & 3) << 4) as usize]);
        text
    }

    #[cfg(test)]
    mod tests {
        use super::encodings;

        #[test]
        fn encodings_are_those_of_rfc_4648() {
            let mut bytes = [0_u8; 16];
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = 0xf0 + at as u8;
            }
            let forms = encodings(&bytes);
            assert_eq!(forms[2], b"f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
            assert_eq!(forms[3], b"8PHy8/T19vf4+fr7/P3+/w");
            assert_eq!(forms[4], b"8PHy8_T19vf4-fr7_P3-_w");
        }
    }
}
