//! The warehouse: Delta tables on durable storage, one commit loop, merge
//! tables, settling of months, erasure by rewriting, purge, and the views that
//! queries read.
//!
//! `events` is the truth; `activity`, `links` and `devices` are functions of
//! it, month by month. A month's rows lie in sorted runs, one per batch, until
//! `rewrite_month` makes one settled run of them.

mod affected;
mod append;
mod append_plans;
#[doc(hidden)]
pub mod bench;
mod cohorts;
mod commit;
mod compact;
mod direct;
mod disk;
mod durable;
mod encode;
mod entry;
mod error;
#[doc(hidden)]
pub mod failpoints;
mod files;
mod fold;
mod lease;
mod locked;
mod log;
mod merge;
mod names;
mod pieces;
mod positions;
mod progress;
mod provider;
mod purge;
mod quarantine;
mod rebuild;
mod recover;
mod rewrite;
pub mod rollup;
mod rows;
pub mod scan;
mod settle;
mod snapshot;
mod splice;
mod syncing;
pub mod verify;
mod view;
mod warehouse;

#[cfg(test)]
mod tests;

pub use affected::{Affected, affected, affected_beyond, takes_whole_devices};
pub use append::{Append, Appended, Settling, Txn};
pub use cohorts::{Cohorts, NEVER};
pub use compact::Compacted;
pub use direct::{RowSink, SettledRows, WrittenTable};
pub use error::{SNAPSHOTS_MAX, StoreError, is_vanished_file};
pub use lease::{Maintainer, WriterLease};
pub use locked::Locked;
pub use names::takes_the_place_of;
pub use pieces::SortedEvents;
pub use purge::PurgeReport;
pub use rebuild::{MonthRebuild, TableRebuild};
pub use rewrite::{FileEvidence, MonthRewrite, Repeats, Rewrite, RowProgress, TableChange};
pub use snapshot::{DataFile, Snapshot};
pub use splice::Counts as SpliceCounts;
pub use splice::find::{DeviceRow, DeviceRows, devices_in, rows_of_devices};
pub use splice::month::estimate::{RewriteEstimate, estimate_rewrite};
pub use view::ReadView;
pub use warehouse::Warehouse;
