//! Files.
use std::path::PathBuf;
use ameles_core::{Month, Tally};
use crate::{IngestEnv, IngestError, Progress, UndeclaredReport};

/// How files are ingested.
#[derive(Debug, Clone)]
pub struct FileOptions {
    /// The name under which quarantine shows these files; a keyed hash otherwise.
    pub alias: Option<String>,
    /// Decoding threads.
    pub workers: usize,
    /// How long to wait for another process that holds the maintainer lock, in seconds.
    pub maintainer_wait_s: u64,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self { alias: None, workers: 2, maintainer_wait_s: 600 }
    }
}

/// What an ingest of files did.
#[derive(Debug, Default)]
pub struct FileReport {
    /// Received, accepted, rejected by reason.
    pub tally: Tally,
    /// Each file, in the order read.
    pub files: Vec<FileOutcome>,
    /// Files that could not be read to their end; what was read before is ingested. Exit code 1.
    pub errors: Vec<FileError>,
    /// Fields that the contract does not declare.
    pub undeclared: UndeclaredReport,
    /// Months that were settled.
    pub months: Vec<Month>,
}

/// One file of the report.
#[derive(Debug, Clone)]
pub struct FileOutcome {
    /// The path, for the operator's terminal only; `-` is standard input.
    pub path: PathBuf,
    /// The name in quarantine: alias or keyed hash.
    pub source: String,
    /// Decompressed bytes that an earlier ingest had taken already.
    pub skipped_bytes: u64,
    /// Decompressed bytes read now.
    pub bytes: u64,
    /// This file's own count (before duplicates found by settling).
    pub tally: Tally,
}

/// A file that could not be read to its end.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {message} (after line {line}, byte {offset} of the decompressed text); what came before is ingested")]
pub struct FileError {
    /// The path, for the operator's terminal only.
    pub path: String,
    /// Why, and what to do.
    pub message: String,
    /// The last whole line read.
    pub line: u64,
    /// The decompressed bytes taken.
    pub offset: u64,
}

/// Ingests files.
///
/// # Errors
/// Before anything is ingested: a path that cannot be read. Later: warehouse or ledger.
pub async fn ingest_files(
    env: &IngestEnv,
    paths: &[PathBuf],
    options: &FileOptions,
    progress: &dyn Progress,
) -> Result<FileReport, IngestError> {
    let _ = (env, paths, options, progress);
    unimplemented!()
}
