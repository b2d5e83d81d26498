//! `quarantine`: nothing is rolled up from it, so its files are replaced by themselves.

use std::path::Path;
use std::sync::Arc;

use ameles_core::{DeviceId, Month, SuppressionSet, SuppressionSource};
use ameles_schemas::Table;
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use async_trait::async_trait;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hashbrown::HashSet;

use crate::append::covered_rejections;
use crate::commit::{Decision, Landed, Plan};
use crate::compact::{self, Compacted, MERGES_MAX};
use crate::files::{Rows, RunReader, RunWriter, Written, column, evidence, optional_pseudonyms};
use crate::log::{Change, LogState};
use crate::merge::{Key, Merger, Place};
use crate::names::{self, Keys, Origin};
use crate::rewrite::{FileEvidence, TableChange};
use crate::settle::in_order;
use crate::{DataFile, Maintainer, StoreError};

/// Rows gathered before they are written.
const BATCH_ROWS: usize = 64 << 10;

impl Maintainer {
    /// Removes the devices' rows from `quarantine`.
    ///
    /// # Errors
    /// When storage fails.
    pub fn erase_quarantine<'a>(&'a self, devices: &'a HashSet<DeviceId>) -> BoxFuture<'a, Result<TableChange, StoreError>> {
        async move {
            let warehouse = &self.warehouse;
            warehouse.barrier().await?;
            let state = warehouse.refresh(Table::Quarantine).await?;
            let mut wanted: Vec<[u8; 16]> = devices.iter().map(|device| *device.as_bytes()).collect();
            wanted.sort_unstable();
            let wanted = Arc::new(wanted);
            let (folder, schema) = (warehouse.table_folder(Table::Quarantine), warehouse.tables().file_schema(Table::Quarantine));
            let (generation, files) = (self.next_generation(), Arc::clone(&state));
            let erased = tokio::task::spawn_blocking(move || erase_devices(&folder, &schema, &files.files, &wanted, &generation)).await??;
            let mut plan = ReplacePlan { replaced: &erased, data_change: true };
            let landed = warehouse.commit(Table::Quarantine, &mut plan).await?;
            Ok(TableChange::new(Table::Quarantine, landed, erased.removed, erased.written.iter().map(Written::evidence).collect()))
        }
        .boxed()
    }

    /// Merges files of `quarantine`, month by month, while any month has more than `runs_max` of one tier (at least 2).
    /// Rows that completed erasures cover are dropped.
    ///
    /// # Errors
    /// When storage fails; what was merged stays merged.
    pub fn compact_quarantine<'a>(
        &'a self,
        runs_max: usize,
        suppressions: &'a dyn SuppressionSource,
    ) -> BoxFuture<'a, Result<Compacted, StoreError>> {
        async move {
            let warehouse = &self.warehouse;
            let mut compacted = Compacted::default();
            for _ in 0..MERGES_MAX {
                let state = warehouse.refresh(Table::Quarantine).await?;
                let Some((files, tier)) = due_files(&state.files, runs_max) else { break };
                let (folder, schema) = (warehouse.table_folder(Table::Quarantine), warehouse.tables().file_schema(Table::Quarantine));
                let (generation, suppressed) = (self.next_generation(), suppressions.current().await?.carried_out());
                let merging = tokio::task::spawn_blocking(move || merge_files(&folder, &schema, files, &suppressed, &generation, tier));
                let merged = merging.await??;
                let rows = |files: &[FileEvidence]| files.iter().map(|file| file.rows).sum::<u64>();
                let (read, written) = (rows(&merged.removed), merged.written.iter().map(|written| written.file.rows).sum::<u64>());
                let mut plan = ReplacePlan { replaced: &merged, data_change: read != written };
                let _: Landed = warehouse.commit(Table::Quarantine, &mut plan).await?;
                compacted.add(merged.removed.len() as u64, written, 0);
            }
            Ok(compacted)
        }
        .boxed()
    }
}

/// The files of some month that are to be merged next, and the tier of what they become.
fn due_files(files: &[DataFile], runs_max: usize) -> Option<(Vec<DataFile>, u32)> {
    files.chunk_by(|a, b| a.month == b.month).find_map(|month| {
        // No order of commits is to be kept here.
        let mut month: Vec<&DataFile> = month.iter().collect();
        month.sort_by_key(|file| std::cmp::Reverse(tier_of(file)));
        let tiers: Vec<u32> = month.iter().map(|file| tier_of(file)).collect();
        let (range, tier) = compact::due(&tiers, runs_max)?;
        Some((month[range].iter().map(|file| (*file).clone()).collect(), tier))
    })
}

/// What an erasure has written is mostly what a merge had written before.
fn tier_of(file: &DataFile) -> u32 {
    match file.origin {
        Origin::Run { .. } => 0,
        Origin::Settled { .. } => 1,
        Origin::Merged { tier, .. } => tier,
    }
}

fn merge_files(
    folder: &Path,
    schema: &SchemaRef,
    files: Vec<DataFile>,
    suppressed: &SuppressionSet,
    generation: &str,
    tier: u32,
) -> Result<Replaced, StoreError> {
    let month = files.first().map_or_else(Month::default, |file| file.month);
    let name = |part: u32| names::merged_path(month, generation, tier, part);
    let mut writer = RunWriter::new(Table::Quarantine, folder.to_owned(), Arc::clone(schema), false, name);
    let sources =
        files.iter().map(|file| Box::new(RunReader::new(folder.to_owned(), vec![file.clone()], Arc::clone(schema))) as Box<dyn Rows>);
    let mut merger: Merger<'_, ()> = Merger::new(sources.collect(), Box::new(|_, batch: &RecordBatch| Ok((keys(batch)?, ()))));
    let mut places: Vec<Place> = Vec::new();
    loop {
        let next = merger.next()?;
        places.extend(next.map(|next| next.place));
        if places.len() >= BATCH_ROWS || next.is_none() {
            let rows = merger.gather(schema, &places)?;
            writer.write(&filter_record_batch(&rows, &not(&covered_rejections(&rows, suppressed)?)?)?)?;
            places.clear();
            merger.release();
        }
        if next.is_none() {
            break;
        }
    }
    drop(merger);
    let removed =
        files.iter().map(|file| FileEvidence { path: file.path.clone(), sha256: String::new(), rows: file.rows, bytes: file.size });
    Ok(Replaced { removed: removed.collect(), written: writer.finish()? })
}

/// The order of quarantine's files: by device, those without first, then by time.
fn keys(batch: &RecordBatch) -> Result<Vec<Key>, StoreError> {
    let devices = optional_pseudonyms(column(batch, "device")?, "device")?;
    let at = column(batch, "at")?
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| StoreError::Batch("column at is no timestamp".into()))?;
    Ok(devices.into_iter().zip(at.values()).map(|(device, at)| (device.unwrap_or_default(), in_order(*at))).collect())
}

/// Files and what takes their place.
struct Replaced {
    removed: Vec<FileEvidence>,
    written: Vec<Written>,
}

fn erase_devices(
    folder: &Path,
    schema: &SchemaRef,
    files: &[DataFile],
    devices: &Arc<Vec<[u8; 16]>>,
    generation: &str,
) -> Result<Replaced, StoreError> {
    let mut erased = Replaced { removed: Vec::new(), written: Vec::new() };
    let is_hit = |batch: &RecordBatch| -> Result<Vec<bool>, StoreError> {
        let found =
            column(batch, "device")?.as_binary_opt::<i32>().ok_or_else(|| StoreError::Batch("column device is not binary".into()))?;
        Ok(found
            .iter()
            .map(|device| {
                device.and_then(|device| <[u8; 16]>::try_from(device).ok()).is_some_and(|device| devices.binary_search(&device).is_ok())
            })
            .collect())
    };
    for file in files {
        let mut pages = RunReader::new(folder.to_owned(), vec![file.clone()], Arc::clone(schema)).of_devices(Arc::clone(devices));
        let mut touched = false;
        while let Some(batch) = pages.next_batch()? {
            touched |= is_hit(&batch)?.contains(&true);
        }
        if !touched {
            continue;
        }
        let first = u32::try_from(erased.written.len()).unwrap_or(u32::MAX);
        let name = |part: u32| names::settled_path(file.month, generation, first + part, Keys::Kept);
        let mut writer = RunWriter::new(Table::Quarantine, folder.to_owned(), Arc::clone(schema), false, name);
        let mut all = RunReader::new(folder.to_owned(), vec![file.clone()], Arc::clone(schema));
        while let Some(batch) = all.next_batch()? {
            let kept: BooleanArray = is_hit(&batch)?.into_iter().map(|hit| Some(!hit)).collect();
            writer.write(&filter_record_batch(&batch, &kept)?)?;
        }
        erased.written.extend(writer.finish()?);
        erased.removed.push(evidence(folder, file)?);
    }
    Ok(erased)
}

/// Replaces some files by others, or finds that it has.
struct ReplacePlan<'a> {
    replaced: &'a Replaced,
    data_change: bool,
}

#[async_trait]
impl Plan for ReplacePlan<'_> {
    async fn decide(&mut self, state: &Arc<LogState>) -> Result<Decision, StoreError> {
        let Replaced { removed, written } = self.replaced;
        let landed = !written.is_empty() && written.iter().all(|written| state.is_live(&written.file.path));
        if removed.is_empty() || landed {
            return Ok(Decision::Done);
        }
        Ok(Decision::Commit(Change {
            operation: "rewrite",
            data_change: self.data_change,
            add: written.iter().map(|written| written.file.clone()).collect(),
            remove: removed.iter().map(|file| file.path.clone()).collect(),
            ..Change::default()
        }))
    }
}
