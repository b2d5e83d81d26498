//! Looks for subjects in every byte that the warehouse keeps.
//!
//! Values in Parquet are compressed and split by their encoding, so each file is
//! decoded, referenced or not; and the bytes of every file are searched as they
//! are, for pseudonyms in binary, in hex and in base64.

use std::fs;
use std::path::{Path, PathBuf};

use ameles_core::Subject;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use base64_text::encodings;
use bytes::Bytes;
use hashbrown::HashSet;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::PageIndexPolicy;
use serde::{Deserialize, Serialize};

use crate::StoreError;
use crate::progress::{Counter, counted};

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
///
/// # Errors
/// When a file cannot be read or decoded: then nothing is certain.
pub async fn scan_for(root: &Path, subjects: &[Subject], progress: ScanProgress<'_>) -> Result<ScanReport, StoreError> {
    let (root, needles) = (root.to_owned(), Needles::new(subjects));
    let scan = move |scanned: Counter| {
        let mut report = ScanReport::default();
        let mut files = Vec::new();
        walk(&root, &mut files)?;
        for path in files {
            let before = report.bytes;
            scan_file(&root, &path, &needles, &mut report)?;
            scanned.add(report.bytes - before);
        }
        Ok(report)
    };
    counted(scan, progress).await
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

fn scan_file(root: &Path, path: &Path, needles: &Needles, report: &mut ScanReport) -> Result<(), StoreError> {
    let shown = path.strip_prefix(root).unwrap_or(path).display().to_string();
    let bytes = match fs::read(path) {
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
