//! Files: a backfill, which goes on where an earlier ingest of the same content
//! ended, and settles the months that it touched.

#[cfg(test)]
mod crash;
mod discover;
mod identity;
mod pipeline;
mod reader;
mod settle;
mod stream;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use ameles_core::{Month, Reason, Tally};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::commit::Committer;
use crate::{IngestEnv, IngestError, Progress, UndeclaredReport};

/// What quarantine calls a repeat that was found when a month settled, where several files were read.
const MANY_FILES: &str = "files";

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

/// Ingests files: `paths` may be files (plain, gzip, zstd), folders, patterns, or `-`.
///
/// When it returns, every accepted event is durable, repeats among all that was
/// read and in the months touched are gone, and those months are settled. Run
/// again after a crash it goes on where the last commit ended.
///
/// # Errors
/// Before anything is ingested: a path that cannot be read. Later: warehouse or ledger.
pub fn ingest_files<'a>(
    env: &'a IngestEnv,
    paths: &'a [PathBuf],
    options: &'a FileOptions,
    progress: &'a dyn Progress,
) -> BoxFuture<'a, Result<FileReport, IngestError>> {
    async move {
        let inputs = discover::discover(paths)?;
        progress.total(inputs.iter().map(|input| input.bytes).sum());
        let lease = env.warehouse.lease(env.random.as_ref()).await.map_err(IngestError::store)?;
        let committer = Committer::new(lease, env);
        let (mut report, touched, mut committer) = pipeline::run(env, inputs, options, progress, committer).await?;
        let settled = settle::settle(env, touched, committer.lease_id(), options, progress).await?;
        report.months.extend(settled.months);
        report.months.sort_unstable();
        report.months.dedup();
        report.tally.reclassify(Reason::Duplicate, settled.duplicates.values().sum());
        if !settled.duplicates.is_empty() {
            let mut sources: Vec<&str> = report.files.iter().map(|file| file.source.as_str()).collect();
            sources.dedup();
            let source: Arc<str> = if let [one] = sources[..] { one } else { MANY_FILES }.into();
            let now = env.clock.now();
            for (partner, events) in &settled.duplicates {
                committer.carry(now, &source, Reason::Duplicate, partner.as_deref(), *events);
            }
        }
        committer.finish().await?;
        Ok(report)
    }
    .boxed()
}
