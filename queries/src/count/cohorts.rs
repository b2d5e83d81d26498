//! Retention by how long ago each active device was activated, where that is kept ([`ameles_store::Cohorts`]); and keeping it.
//!
//! The codes are counted: a month's active devices by their cohorts, which leaves of each cohort's devices those that were not active.
//! Months without codes, such as the one that is open, are met with the activations as ever. Who is behind the counts is seen from a
//! sample of the rows; where that has too few of a cell, all of them are gone through, as if there were no codes.

use std::sync::Arc;

use ameles_core::{Month, SuppressionSet};
use ameles_schemas::Table;
use ameles_store::scan::Wanted;
use ameles_store::{Cohorts, DataFile, Maintainer, NEVER, ReadView, StoreError};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::sink::{Counting, KEPT_FACTOR, Kept};
use super::sweep::{Devices, Lane, Sweep};
use super::tally::bits;
use super::work::Work;
use super::{Sizes, Slots, gather, in_threads};

/// Months of fewer active devices are met within milliseconds, and no codes are kept of them.
pub const ROWS_MIN: u64 = 1 << 20;

/// Codes read at once: they stay in the core's cache.
const READ_CODES: usize = 128 << 10;
/// Codes that a thread counts before it takes the next part.
const PART_CODES: u64 = 4 << 20;

/// Where a larger part of the rows would have to be looked at, all are counted at once.
const SAMPLE_SHARE_MAX: u64 = 4;

type Histogram = [u64; 256];

/// The counts, and some of the rows behind them; `None` where no codes are kept or they do not suffice.
pub(super) fn count(work: &Work<'_>, threads: usize) -> Result<Option<(Slots, Vec<Kept>)>, StoreError> {
    if !work.has_cohorts() {
        return Ok(None);
    }
    let series = work.scope.months.len();
    let wanted = work.scope.wanted.clone();
    let later = wanted.start + work.cohorts.len();
    let (mut slots, _) = match &work.later {
        None => gather(series, std::iter::empty()),
        Some(sweep) => {
            let parts: Vec<_> = sweep.parts(1 << sweep.bucket_bits, threads * 4).collect();
            let counted = in_threads(threads, &parts, |buckets, sink: &mut Option<Counting>| {
                work.run_retention(sweep, later, buckets.clone(), sink.get_or_insert_with(|| Counting::new(series, None)))
            })?;
            gather(series, counted.into_iter().flatten())
        }
    };
    let group = work.whole_group() as usize;
    let histograms = histograms(&work.cohorts, threads)?;
    for cohort in wanted.start..wanted.end.min(later) {
        let of_month = work.cohorts.get(cohort - wanted.start..).unwrap_or_default();
        let activated = of_month.first().map_or(0, Cohorts::activated);
        if activated == 0 {
            continue;
        }
        let Some(slot) = slots.slot(cohort, group) else { continue };
        for (ago, histogram) in histograms.iter().skip(cohort - wanted.start).enumerate().take(slot.first.len()) {
            // More of them than there are: these codes are of something else.
            let Some(lost) = activated.checked_sub(histogram[ago]) else { return Ok(None) };
            slot.first[ago] += histogram[ago];
            slot.second[ago] += lost;
        }
    }
    let mut kept = Vec::new();
    if let Some(k) = work.k {
        let enough = u64::from(k) * u64::from(KEPT_FACTOR);
        // Twice as many rows as it takes to meet enough of the smallest cell.
        let smallest = slots.list.iter().flat_map(|slot| slot.first.iter().chain(&slot.second)).copied().filter(|count| *count > 0).min();
        let rows = work.rows_max().saturating_mul(2 * enough) / smallest.unwrap_or(1);
        if rows > work.rows_max() / SAMPLE_SHARE_MAX && rows > work.sizes.sample.0 as u64 {
            return Ok(None);
        }
        let (units, _) = work.sample(work.sizes.sample.0.max(rows as usize), threads);
        let sinks = in_threads(threads, &units, |unit, sink: &mut Option<Counting>| {
            work.run(unit, false, sink.get_or_insert_with(|| Counting::new(series, Some(k))))
        })?;
        kept = sinks.into_iter().flatten().flat_map(|sink| sink.kept).collect();
        if !are_enough(&slots, &kept, enough) {
            return Ok(None);
        }
    }
    Ok(Some((slots, kept)))
}

/// Whether there are as many rows of each cell as are wanted, or all.
fn are_enough(slots: &Slots, kept: &[Kept], wanted: u64) -> bool {
    let mut found = vec![[0_u64; 128]; slots.list.len()];
    for row in kept {
        let Some(found) = slots.at(row.series as usize, row.group).and_then(|at| found.get_mut(at)) else { continue };
        bits(row.mark.first).for_each(|bit| found[bit] += 1);
        bits(row.mark.second).for_each(|bit| found[64 + bit] += 1);
    }
    slots
        .list
        .iter()
        .zip(&found)
        .all(|(slot, found)| slot.first.iter().chain(&slot.second).zip(found).all(|(count, found)| *found >= (*count).min(wanted)))
}

/// How many rows of each month have which code.
fn histograms(cohorts: &[Cohorts], threads: usize) -> Result<Vec<Histogram>, StoreError> {
    let parts: Vec<(usize, u64, u64)> = cohorts
        .iter()
        .enumerate()
        .flat_map(|(at, cohorts)| {
            let rows = cohorts.rows();
            (0..rows.div_ceil(PART_CODES)).map(move |part| (at, part * PART_CODES, rows.min((part + 1) * PART_CODES)))
        })
        .collect();
    let found = in_threads(threads, &parts, |(at, start, end), found: &mut Vec<Histogram>| {
        found.resize(cohorts.len(), [0; 256]);
        let (Some(cohorts), Some(found)) = (cohorts.get(*at), found.get_mut(*at)) else { return Ok(()) };
        let (mut codes, mut row) = (vec![0; READ_CODES], *start);
        while row < *end {
            let now = (*end - row).min(READ_CODES as u64);
            let read = codes.get_mut(..now as usize).unwrap_or_default();
            cohorts.read_at(row, read)?;
            add(read, found);
            row += now;
        }
        Ok(())
    })?;
    let mut all = vec![[0; 256]; cohorts.len()];
    for found in found {
        for (all, found) in all.iter_mut().zip(found) {
            all.iter_mut().zip(found).for_each(|(all, found)| *all += found);
        }
    }
    Ok(all)
}

/// Neighbours often have the same code, and would wait for each other's count: each has a table of its own.
fn add(codes: &[u8], histogram: &mut Histogram) {
    let mut tables = [[0_u32; 256]; 8];
    let (eights, rest) = codes.as_chunks::<8>();
    for eight in eights {
        for (table, code) in tables.iter_mut().zip(eight) {
            table[usize::from(*code)] += 1;
        }
    }
    for code in rest {
        tables[0][usize::from(*code)] += 1;
    }
    for table in &tables {
        histogram.iter_mut().zip(table).for_each(|(sum, count)| *sum += u64::from(*count));
    }
}

/// Keeps the codes of settled months of at least so many active devices ([`ROWS_MIN`]) that have none for the files as they are now.
///
/// Gives those months. A pass over the pseudonyms of each and of all activations up to it; a byte of memory for each of its rows.
///
/// # Errors
/// When a file cannot be read or written.
pub fn keep_cohorts<'a>(maintainer: &'a Maintainer, rows_min: u64) -> BoxFuture<'a, Result<Vec<Month>, StoreError>> {
    async move {
        let snapshot = maintainer.warehouse().snapshot().await?;
        let large = |files: &[DataFile]| files.iter().map(|file| file.rows).sum::<u64>() >= rows_min;
        if !snapshot.files(Table::Activity).chunk_by(|a, b| a.month == b.month).any(large) {
            return Ok(Vec::new());
        }
        // Of what is stored: something pending keeps codes from being used, not from being made.
        let view = ReadView::open(maintainer.warehouse(), Arc::new(SuppressionSet::default())).await?;
        let months = view.months_without_cohorts(rows_min);
        for month in &months {
            let (view_of_codes, month) = (Arc::clone(&view), *month);
            let (activated, codes) = tokio::task::spawn_blocking(move || codes_of(&view_of_codes, month)).await??;
            maintainer.keep_cohorts(&view, month, activated, codes).await?;
        }
        Ok(months)
    }
    .boxed()
}

/// How many devices a month activated first, and the code of each row of its activity, in the order of devices, in pieces.
fn codes_of(view: &ReadView, month: Month) -> Result<(u64, Vec<Vec<u8>>), StoreError> {
    let wanted = Wanted { devices: true, ..Wanted::default() };
    let mut lanes = Vec::new();
    for activated in view.months(Table::Devices).into_iter().filter(|activated| *activated <= month) {
        let ago = usize::try_from(month.epoch_months() - activated.epoch_months()).unwrap_or(usize::MAX);
        lanes.extend(Lane::open(view, Table::Devices, (activated, ago), &wanted)?);
    }
    lanes.extend(Lane::open(view, Table::Activity, (month, 0), &wanted)?);
    let sweep = Sweep::new(view, Sizes::default(), lanes);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let parts: Vec<_> = sweep.parts(1 << sweep.bucket_bits, threads * 16).collect();
    let found = in_threads(threads, &parts, |buckets, found: &mut Vec<(u64, u64, Vec<u8>)>| {
        let (mut devices, mut agos, mut activated, mut codes) = (Devices::default(), Vec::new(), 0, Vec::new());
        sweep.run(buckets.clone(), |lanes| {
            let of = |table: Table| lanes.iter().zip(&sweep.lanes).filter(move |(_, lane)| lane.table == table);
            devices.reset(&sweep, of(Table::Devices).map(|(rows, _)| rows.devices.len()).sum());
            agos.clear();
            // Lanes are in the order of months: what is known was activated earlier.
            for (rows, lane) in of(Table::Devices) {
                for device in rows.devices {
                    if devices.insert(*device).1 {
                        agos.push(u8::try_from(lane.month).unwrap_or(NEVER));
                        activated += u64::from(lane.month == 0);
                    }
                }
            }
            for (rows, _) in of(Table::Activity) {
                let ago = |device: &u128| devices.get(*device).and_then(|number| agos.get(number)).copied().unwrap_or(NEVER);
                codes.extend(rows.devices.iter().map(ago));
            }
            Ok::<_, StoreError>(())
        })?;
        found.push((buckets.start, activated, codes));
        Ok(())
    })?;
    let mut found: Vec<_> = found.into_iter().flatten().collect();
    found.sort_unstable_by_key(|(start, ..)| *start);
    let activated = found.iter().map(|(_, activated, _)| activated).sum();
    Ok((activated, found.into_iter().map(|(.., codes)| codes).collect()))
}
