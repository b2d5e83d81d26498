//! Size-tiered compaction: the runs of an open month are merged a few at a time.
//!
//! A batch's own run is of tier 0. As soon as there are more than `runs_max`
//! neighbours of one tier they become one run of the next, so a row is rewritten
//! once per tier, and a month of n batches has no more than `runs_max` runs for
//! each digit of n to the base `runs_max`. Merged are neighbours in the order of
//! commits, always the oldest of their tier, and the merged run stands in their
//! place: tiers fall from the oldest run to the newest, and "the first accepted
//! wins" holds as before, for the repeats that are dropped now and for later ones.
//!
//! What was rolled up from the merged runs is replaced by what the merged events
//! give, in commits that follow the one to `events`, counted as a round of the
//! month like a rewrite: where a crash lets the counts differ, `recover` makes
//! the month anew. Ingest waits for none of it: it commits between any two of
//! these commits, behind the runs that are merged, and a commit that loses its
//! turn decides again.

use std::ops::Range;
use std::sync::Arc;

use ameles_core::{Month, SuppressionSource};
use ameles_schemas::Table;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::names::Origin;
use crate::rewrite::{RowProgress, Scope, committed, in_line};
use crate::{DataFile, Maintainer, Rewrite, StoreError};

/// Runs read at once: each holds a file and a batch of rows.
const FAN_IN_MAX: usize = 64;
/// Merges in one call, so that it ends even where batches come faster than they can be merged.
pub(crate) const MERGES_MAX: usize = 64;

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Merges.
    pub merges: u64,
    /// Files of the table replaced.
    pub files: u64,
    /// Rows of the table written.
    pub rows: u64,
    /// Repeats dropped.
    pub duplicates: u64,
}

impl Compacted {
    pub(crate) const fn add(&mut self, files: u64, rows: u64, duplicates: u64) {
        self.merges += 1;
        self.files += files;
        self.rows += rows;
        self.duplicates += duplicates;
    }
}

impl Maintainer {
    /// Merges runs of a month while it has more than `runs_max` of one tier (at least 2). Repeats among what is merged are dropped,
    /// and what completed erasures cover.
    ///
    /// # Errors
    /// When storage fails. What was merged stays merged; if it failed between the commits of one merge, `recover` or the next call ends it.
    pub fn compact_month<'a>(
        &'a self,
        month: Month,
        runs_max: usize,
        suppressions: &'a dyn SuppressionSource,
        progress: RowProgress<'a>,
    ) -> BoxFuture<'a, Result<Compacted, StoreError>> {
        async move {
            let mut compacted = Compacted::default();
            for _ in 0..MERGES_MAX {
                let claim = self.claim(month)?;
                let snapshot = self.warehouse.snapshot().await?;
                // Read after the snapshot: who has been let in again since an erasure, with rows in the snapshot, is no longer covered here.
                let rewrite = Rewrite { suppressed: Arc::new(suppressions.current().await?.carried_out()), closed: false };
                if !in_line(&snapshot, &self.warehouse, month) {
                    // A rewrite was interrupted: another round on top would hide it.
                    drop(claim);
                    let files = snapshot.month_files(Table::Events, month).len() as u64;
                    let done = self.rewrite_month(month, &rewrite, progress).await?;
                    compacted.add(files, done.rows_after, done.duplicates);
                    continue;
                }
                let Some((inputs, tier)) = due_runs(snapshot.month_files(Table::Events, month), runs_max) else { break };
                let merged = self.merge(month, &inputs, Some(tier), &rewrite, progress).await?;
                for table in Table::ALL.into_iter().filter(|table| merged.files.contains_key(table)) {
                    self.replace(&snapshot, table, month, &inputs, &merged, Scope::Runs).await?;
                    committed(&self.warehouse, table)?;
                }
                compacted.add(inputs.len() as u64, merged.rows_after, merged.duplicates());
            }
            Ok(compacted)
        }
        .boxed()
    }
}

/// The files of the runs that are to be merged next, and the tier of what they become.
fn due_runs(files: &[DataFile], runs_max: usize) -> Option<(Vec<DataFile>, u32)> {
    // What has been settled lies before all others and is merged when the month settles again.
    let files = &files[files.partition_point(|file| file.settled.is_some())..];
    let runs: Vec<&[DataFile]> = files.chunk_by(|a, b| a.origin.source() == b.origin.source()).collect();
    let tier = |run: &&[DataFile]| match run[0].origin {
        Origin::Merged { tier, .. } => tier,
        Origin::Run { .. } | Origin::Settled { .. } => 0,
    };
    let (range, tier) = due(&runs.iter().map(tier).collect::<Vec<_>>(), runs_max)?;
    Some((runs[range].concat(), tier))
}

/// Which of some runs are to be merged, by their tiers from the oldest to the newest, and the tier of what they become.
pub(crate) fn due(tiers: &[u32], runs_max: usize) -> Option<(Range<usize>, u32)> {
    // A run counts as of the tier of the highest behind it: tiers fall, however they came about.
    let mut falling = tiers.to_vec();
    for at in (1..falling.len()).rev() {
        falling[at - 1] = falling[at - 1].max(falling[at]);
    }
    let mut end = falling.len();
    while end > 0 {
        let tier = falling[end - 1];
        let start = falling.partition_point(|other| *other > tier);
        if end - start > runs_max.max(2) {
            return Some((start..end.min(start + FAN_IN_MAX), tier.saturating_add(1)));
        }
        end = start;
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_oldest_of_the_lowest_full_tier_are_merged() {
        assert_eq!(due(&[], 3), None);
        assert_eq!(due(&[2, 1, 1, 0, 0, 0], 3), None);
        assert_eq!(due(&[2, 1, 1, 1, 1, 0, 0, 0, 0], 3), Some((5..9, 1)));
        assert_eq!(due(&[2, 1, 1, 1, 1, 0, 0, 0], 3), Some((1..5, 2)));
        assert_eq!(due(&[0; 100], 16), Some((0..64, 1)));
        // Not how runs lie; still neighbours.
        assert_eq!(due(&[0, 1, 0, 1, 0], 3), Some((0..4, 2)));
    }

    proptest! {
        /// However batches and looks alternate: few runs, in order, each row rewritten once per tier.
        #[test]
        fn runs_stay_few_and_rewrites_are_logarithmic(bursts in proptest::collection::vec(1_usize..90, 1..60), runs_max in 2_usize..20) {
            let (mut runs, mut batches): (Vec<(u32, usize)>, usize) = (Vec::new(), 0);
            for burst in bursts {
                runs.extend((0..burst).map(|_| (0, 1)));
                batches += burst;
                while let Some((range, tier)) = due(&runs.iter().map(|run| run.0).collect::<Vec<_>>(), runs_max) {
                    prop_assert!(range.len() <= FAN_IN_MAX);
                    let stands_for = runs[range.clone()].iter().map(|run| run.1).sum();
                    runs.splice(range, [(tier, stands_for)]);
                }
                prop_assert!(runs.is_sorted_by_key(|run| std::cmp::Reverse(run.0)));
                let tiers = batches.ilog(runs_max + 1) as usize + 1;
                prop_assert!(runs.len() <= runs_max * tiers, "{runs:?}");
                // A row of a run of tier t has been rewritten t times, and the run stands for more than runs_max^t batches.
                prop_assert!(runs.iter().all(|run| (runs_max + 1).pow(run.0) <= run.1), "{runs:?}");
                prop_assert_eq!(runs.iter().map(|run| run.1).sum::<usize>(), batches);
            }
        }
    }
}
