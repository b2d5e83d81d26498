//! Batch reports: tables by polars from the Parquet of one snapshot, charts as
//! inline SVG, a manifest that says what they were made from.
//!
//! The charts and the figures' sections are shared with the dashboard.

pub mod chart;
mod error;
pub mod figures;
mod frames;
mod manifest;
mod page;
pub mod rows;
mod run;
pub mod sections;
mod settle;
mod sheets;

pub use error::ReportError;
pub use manifest::{FileEntry, MANIFEST, Manifest, StoredReport, is_plain_name, stored_file, stored_reports};
pub use run::{MONTHLY_ACTIVITY, ReportSpec, folder_name, run};

#[cfg(test)]
mod tests;
