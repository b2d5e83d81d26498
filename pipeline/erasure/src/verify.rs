//! Searches all that is kept for erased subjects, by hand or as a step of a run.

use std::path::PathBuf;
use std::sync::Arc;

use ameles_core::{Subject, SubjectKind, Timestamp};
use ameles_pseudonym::RawIdentifier;
use ameles_schemas::Table;
use ameles_store::Locked;
use ameles_store::verify::{Finding, ScanReport, scan_by_index, scan_for};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::census::{Of, Targets, count_rows};
use crate::resolve::lifted_from;
use crate::{Eraser, ErasureError, Progress, Step};

/// How often a search begins anew because a file went away under it.
const SEARCH_ATTEMPTS: u32 = 5;

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// When it ended.
    pub at: Timestamp,
    /// Nothing remains of any subject whose erasure is completed, or of the one that was asked for.
    pub clean: bool,
    /// Pseudonyms (one a key epoch) of subjects whose erasure is completed that were looked for.
    pub subjects_completed: u64,
    /// Pseudonyms of subjects whose erasure is pending.
    pub subjects_pending: u64,
    /// Pseudonyms of erased subjects that have consented again since: their rows from then on are theirs to have.
    pub subjects_lifted: u64,
    /// Pseudonyms of the subject that was asked for.
    pub subjects_asked: u64,
    /// Parquet files decoded, value by value.
    pub files_decoded: u64,
    /// Other files, read byte by byte.
    pub files_searched: u64,
    /// Rows decoded.
    pub rows_decoded: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// What remains although it should not.
    pub remains: Vec<Finding>,
    /// What remains of subjects whose erasure is pending, as it must until it is run.
    pub pending: Vec<Finding>,
    /// Rows of `events` that fall under a completed erasure.
    pub rows_remaining: u64,
    /// Rows of `events` that fall under a pending one.
    pub rows_pending: u64,
}

impl Eraser {
    /// Decodes everything that the warehouse and the home keep, and reports what remains of the
    /// subject asked for or, without one, of all whose erasure is completed or pending.
    ///
    /// # Errors
    /// When an identifier is refused, or a file cannot be decoded: then nothing is certain.
    pub fn verify<'a>(
        &'a self,
        asked: Option<(SubjectKind, RawIdentifier)>,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<VerifyReport, ErasureError>> {
        async move {
            match asked {
                Some((kind, identifier)) => {
                    let subjects = self.subjects(kind, &identifier)?.into_iter().map(|(_, subject)| subject).collect();
                    self.verify_asked(subjects, progress).await
                }
                None => self.verify_all(progress).await,
            }
        }
        .boxed()
    }

    async fn verify_asked(&self, subjects: Vec<Subject>, progress: &dyn Progress) -> Result<VerifyReport, ErasureError> {
        let scan = search(self, &subjects, false, progress).await?;
        let mut report = VerifyReport { subjects_asked: subjects.len() as u64, ..VerifyReport::default() };
        report.add(&scan);
        report.remains = scan.findings;
        report.clean = report.remains.is_empty();
        report.at = self.clock.now();
        Ok(report)
    }

    async fn verify_all(&self, progress: &dyn Progress) -> Result<VerifyReport, ErasureError> {
        let everything = self.ledger.suppressions().await?;
        let pending = everything.pending();
        let subjects = everything.devices().map(Subject::Device).chain(everything.users().map(Subject::User));
        let pending_devices: hashbrown::HashSet<_> = pending.devices().collect();
        let is_pending = |subject: &Subject| match subject {
            Subject::Device(id) => pending_devices.contains(id),
            Subject::User(id) => pending.names_user(*id),
        };
        let (mut completed, mut open, mut lifted) = (Vec::new(), Vec::new(), 0);
        for subject in subjects {
            if is_pending(&subject) {
                open.push(subject);
            } else if lifted_from(&everything, subject).is_some() {
                lifted += 1;
            } else {
                completed.push(subject);
            }
        }
        let mut report = VerifyReport {
            subjects_completed: completed.len() as u64,
            subjects_pending: open.len() as u64,
            subjects_lifted: lifted,
            ..VerifyReport::default()
        };
        // One pass with nobody to look for still decodes everything: damage shows.
        let scan = search(self, &completed, false, progress).await?;
        report.add(&scan);
        report.remains = scan.findings;
        if !open.is_empty() {
            // The same files once more.
            report.pending = search(self, &open, false, progress).await?.findings;
        }
        let covered = Arc::new(pending);
        report.rows_pending = rows_left(self, Arc::new(Targets { covered: covered.clone(), ..Targets::default() }), None).await?;
        let all = rows_left(self, Arc::new(Targets { covered: everything, ..Targets::default() }), None).await?;
        report.rows_remaining = all.saturating_sub(report.rows_pending);
        report.clean = report.remains.is_empty() && report.rows_remaining == 0;
        report.at = self.clock.now();
        Ok(report)
    }

    /// The folders that are searched: the warehouse, and the home where it is not within.
    fn searched_folders(&self) -> Vec<PathBuf> {
        let warehouse = self.warehouse.root().to_path_buf();
        let absolute = |path: &std::path::Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let (inner, home) = (absolute(&warehouse), absolute(&self.layout.home));
        if inner.starts_with(&home) {
            vec![home]
        } else if home.starts_with(&inner) || !home.is_dir() {
            vec![warehouse]
        } else {
            vec![warehouse, home]
        }
    }
}

impl VerifyReport {
    fn add(&mut self, scan: &ScanReport) {
        self.files_decoded += scan.files_decoded;
        self.files_searched += scan.files_searched;
        self.rows_decoded += scan.rows;
        self.bytes_read += scan.bytes;
    }
}

/// Looks for `subjects` in all that is kept; `by_index` decodes of the tables' data files only the pages that may hold one.
pub(crate) async fn search(
    eraser: &Eraser,
    subjects: &[Subject],
    by_index: bool,
    progress: &dyn Progress,
) -> Result<ScanReport, ErasureError> {
    progress.begin(Step::Verify, "searching all that is kept", 0);
    let advance = |bytes: u64| progress.advance(bytes);
    let mut total = ScanReport::default();
    let locked = Locked::database(&eraser.ledger.path());
    for folder in eraser.searched_folders() {
        let mut attempt = 1;
        let scan = loop {
            let scanned = if by_index {
                let snapshot = eraser.warehouse.snapshot().await?;
                scan_by_index(&folder, &locked, &eraser.warehouse, &snapshot, subjects, &advance).await
            } else {
                scan_for(&folder, &locked, subjects, &advance).await
            };
            match scanned {
                Ok(scan) => break scan,
                // A commit, a purge or the ledger's write-ahead log may take a file away between listing and reading.
                Err(error) if error.is_vanished_file() && attempt < SEARCH_ATTEMPTS => attempt += 1,
                Err(error) => return Err(error.into()),
            }
        };
        total = total.and(scan);
    }
    Ok(total)
}

/// Rows of `events` that are covered in the present snapshot: among those of `devices` (sorted), or among all.
pub(crate) async fn rows_left(eraser: &Eraser, targets: Arc<Targets>, devices: Option<Arc<Vec<[u8; 16]>>>) -> Result<u64, ErasureError> {
    if targets.covered.is_empty() {
        return Ok(0);
    }
    let snapshot = eraser.warehouse.snapshot().await?;
    let census =
        count_rows(&eraser.warehouse, snapshot.files(Table::Events), targets, devices.map(|devices| (devices, Of::Subjects))).await?;
    Ok(census.rows)
}
