//! Runs a report.

use std::path::Path;
use std::sync::Arc;

use ameles_core::Month;
use ameles_queries::Completeness;
use ameles_store::ReadView;

use crate::{Manifest, ReportError};

/// The one report that there is.
pub const MONTHLY_ACTIVITY: &str = "monthly-activity";

/// What to make.
#[derive(Clone, Debug)]
pub struct ReportSpec {
    /// The report's name.
    pub name: String,
    /// Its month.
    pub month: Month,
    /// The smallest group; 1 for the local operator who wants all.
    pub k: u32,
    /// The contract's name and version, such as `device_event v1`.
    pub contract: String,
    /// The policy's version, such as a hash of its text.
    pub policy: String,
    /// How far the data can be relied on.
    pub completeness: Completeness,
}

/// The folder of a report among others.
pub fn folder_name(name: &str, month: Month) -> String {
    format!("{name}-{month}")
}

/// Makes a report in the folder `out`, which it replaces whole when it holds an older report.
///
/// # Errors
/// When there is no such report, no data in its month, or something cannot be read or written.
pub async fn run(view: Arc<ReadView>, spec: ReportSpec, out: &Path) -> Result<Manifest, ReportError> {
    let _ = (view, spec, out);
    unimplemented!()
}
