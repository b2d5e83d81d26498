//! What taking subjects out of months would take, told by the pages that hold their rows. Nothing is written.

use std::collections::BTreeSet;
use std::sync::Arc;

use ameles_core::{Month, SuppressionSet};
use ameles_schemas::Table;
use parquet::file::metadata::ParquetMetaData;

use super::{Splicing, parallel};
use crate::affected::sorted;
use crate::progress::counted;
use crate::rewrite::is_as_wanted;
use crate::splice::file::ParquetFile;
use crate::splice::page::Codec;
use crate::splice::throttle::Throttle;
use crate::splice::{Edit, Stop};
use crate::{DataFile, Snapshot, StoreError, Warehouse};

/// What an erasure would take, about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RewriteEstimate {
    /// Files that would be replaced.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of them, the bytes that would be decoded and encoded again; the others are copied.
    pub bytes_encoded: u64,
}

impl RewriteEstimate {
    fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.bytes_encoded += other.bytes_encoded;
    }
}

/// What [`crate::Maintainer::rewrite_month`] would take for all of `months`. Of a settled month it reads what that would read to find
/// the rows; any other month is written whole.
///
/// # Errors
/// When a file cannot be read.
pub async fn estimate_rewrite(
    warehouse: &Warehouse,
    snapshot: &Arc<Snapshot>,
    months: &BTreeSet<Month>,
    suppressed: &Arc<SuppressionSet>,
) -> Result<RewriteEstimate, StoreError> {
    let mut total = RewriteEstimate::default();
    for month in months.iter().copied() {
        let mut spliced = None;
        if is_as_wanted(snapshot, warehouse, month, false) && !snapshot.month_files(Table::Events, month).is_empty() {
            let (warehouse, snapshot, suppressed) = (warehouse.clone(), Arc::clone(snapshot), Arc::clone(suppressed));
            let throttle = Arc::new(Throttle::new(None));
            let work = move |progress| {
                let splicing = Splicing { warehouse, snapshot, month, revision: String::new(), suppressed, throttle, progress };
                match splicing.estimate() {
                    Ok(estimate) => Ok(Some(estimate)),
                    Err(Stop::Failed(error)) => Err(error),
                    Err(_) => Ok(None),
                }
            };
            spliced = counted(work, &|_| {}).await?;
        }
        total.add(spliced.unwrap_or_else(|| whole(warehouse, snapshot, month)));
    }
    Ok(total)
}

fn whole(warehouse: &Warehouse, snapshot: &Snapshot, month: Month) -> RewriteEstimate {
    let tables = warehouse.tables().tables().into_iter().filter(|table| *table != Table::Quarantine);
    let mut estimate = RewriteEstimate::default();
    for file in tables.flat_map(|table| snapshot.month_files(table, month)) {
        estimate.add(RewriteEstimate { files: 1, bytes: file.size, bytes_encoded: file.size });
    }
    estimate
}

impl Splicing {
    fn estimate(&self) -> Result<RewriteEstimate, Stop> {
        let erased = self.find()?;
        let mut total = RewriteEstimate::default();
        if erased.rows == 0 {
            return Ok(total);
        }
        let devices: Vec<[u8; 16]> = sorted(erased.devices.iter().copied()).to_vec();
        // A row of the roll-up that would be replaced counts as one that would go: its pages are the same.
        let work = |codec: &mut Codec, (table, file): (Table, DataFile)| {
            let (edits, footer) = match table {
                Table::Events => self.edits_of_events(&file, &erased)?,
                Table::Links => self.edits_of_links(codec, &file, &erased.devices, None)?,
                _ => self.edits_by_device(codec, table, &file, &devices, None)?,
            };
            self.pages(&file, footer, &edits)
        };
        for estimate in parallel(self.jobs(&erased).into(), work)? {
            total.add(estimate);
        }
        Ok(total)
    }

    /// What the pages come to that hold the rows of `edits`.
    fn pages(&self, file: &DataFile, footer: Arc<ParquetMetaData>, edits: &[Vec<(Option<Edit>, bool)>]) -> Result<RewriteEstimate, Stop> {
        if edits.iter().all(Vec::is_empty) {
            return Ok(RewriteEstimate::default());
        }
        let opened = ParquetFile::of_footer(footer);
        let mut estimate = RewriteEstimate { files: 1, bytes: file.size, bytes_encoded: 0 };
        for (group, edits) in edits.iter().enumerate() {
            let rows: Vec<usize> = edits.iter().filter_map(|(edit, _)| Some(edit.as_ref()?.row as usize)).collect();
            let leaves = if rows.is_empty() { 0 } else { opened.metadata.file_metadata().schema_descr().num_columns() };
            for leaf in 0..leaves {
                let chunk = opened.chunk(group, leaf)?;
                let mut left = rows.as_slice();
                for (page, location) in chunk.offsets.page_locations().iter().enumerate() {
                    let end = chunk.page_rows(page)?.end;
                    let (mine, others) = left.split_at(left.partition_point(|row| *row < end));
                    left = others;
                    if !mine.is_empty() {
                        estimate.bytes_encoded += u64::try_from(location.compressed_page_size).unwrap_or_default();
                    }
                }
            }
        }
        Ok(estimate)
    }
}
