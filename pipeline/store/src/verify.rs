//! Looks for subjects in every byte that the warehouse keeps.

use std::path::Path;

use ameles_core::Subject;
use serde::{Deserialize, Serialize};

use crate::StoreError;

/// What a scan found, and where it looked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanReport {
    /// Parquet files decoded, value by value.
    pub files_decoded: u64,
    /// Other files searched byte by byte.
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

/// Told the bytes of each file that has been scanned.
pub type ScanProgress<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// Decodes every Parquet file found on disk, referenced or not, and searches the bytes of every file for the subjects' pseudonyms, binary, in hex and in base64.
///
/// # Errors
/// When a file cannot be read or decoded: then nothing is certain.
pub async fn scan_for(root: &Path, subjects: &[Subject], progress: ScanProgress<'_>) -> Result<ScanReport, StoreError> {
    unimplemented!()
}
