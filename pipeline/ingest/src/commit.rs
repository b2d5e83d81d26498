//! From decided parts to a commit: used by files and HTTP alike.

use std::sync::Arc;

use ameles_core::{Month, Reason, SuppressionSource, Timestamp};
use ameles_ledger::Ledger;
use ameles_schemas::Contract;
use ameles_store::{Appended, Settling, SortedEvents, Txn, WriterLease};

use crate::batch::{ColumnSet, HourlyCounts, Part, SortedBatch};
use crate::{IngestEnv, IngestError};

/// Parts that are committed together, in their order, and the positions that they move.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) parts: Vec<Part>,
    pub(crate) txns: Vec<Txn>,
}

impl Batch {
    /// Adds a source's move; one that follows another in the same batch prolongs it.
    pub(crate) fn advance(&mut self, moves: Vec<Txn>) {
        for next in moves {
            match self.txns.iter_mut().rev().find(|txn| txn.app == next.app) {
                Some(txn) => txn.after = next.after,
                None => self.txns.push(next),
            }
        }
    }
}

/// Takes batches to the warehouse; owns the lease.
pub(crate) struct Committer {
    lease: WriterLease,
    ledger: Ledger,
    contract: Arc<Contract>,
    columns: Arc<ColumnSet>,
    /// Counts found out after their batch was committed; they go with the next.
    carried: HourlyCounts,
}

/// A committed batch: its parts with their final tallies.
pub(crate) struct Committed {
    pub(crate) parts: Vec<Part>,
    pub(crate) months: Vec<Month>,
    /// Those of them that the batch has settled.
    pub(crate) settled: Vec<Month>,
}

impl Committer {
    pub(crate) fn new(lease: WriterLease, env: &IngestEnv) -> Self {
        let columns = Arc::clone(&env.admission.columns);
        Self { lease, ledger: env.ledger.clone(), contract: Arc::clone(&env.contract), columns, carried: HourlyCounts::default() }
    }

    /// Goes on with another lease: what became of the last batch is unknown, and its number is taken.
    pub(crate) fn renew(&mut self, lease: WriterLease) {
        self.lease = lease;
    }

    /// The lease's id.
    pub(crate) fn lease_id(&self) -> &str {
        self.lease.id()
    }

    /// Counts that go with the next batch.
    pub(crate) fn carry(&mut self, at: Timestamp, source: &Arc<str>, reason: Reason, partner: Option<&str>, events: u64) {
        self.carried.add(at, source, reason, partner, events);
    }

    /// Sorts, drops repeats, and commits; returns once durable.
    pub(crate) async fn commit(&mut self, batch: Batch) -> Result<Committed, IngestError> {
        self.commit_settling(batch, None).await
    }

    /// The same; months that have nothing but this batch are settled by it where `settling` is given.
    pub(crate) async fn commit_settling(&mut self, batch: Batch, settling: Option<Settling<'_>>) -> Result<Committed, IngestError> {
        let Batch { parts, txns } = batch;
        let (contract, columns) = (Arc::clone(&self.contract), Arc::clone(&self.columns));
        let counts = std::mem::take(&mut self.carried);
        let sorted = tokio::task::spawn_blocking(move || SortedBatch::new(&contract, &columns, parts, counts)).await;
        let sorted = Arc::new(sorted.map_err(|error| IngestError::Worker(error.to_string()))?);
        let months = sorted.month_list();
        let mut appended = Appended::default();
        if !sorted.is_empty() || !txns.is_empty() {
            let ledger: &dyn SuppressionSource = &self.ledger;
            let source: Arc<dyn SortedEvents> = Arc::clone(&sorted) as Arc<dyn SortedEvents>;
            appended = self.lease.append_sorted(source, &txns, settling, ledger).await.map_err(IngestError::store)?;
        }
        let sorted = Arc::into_inner(sorted).ok_or_else(|| IngestError::Worker("a batch is still being written".to_owned()))?;
        let mut parts = sorted.into_parts();
        if appended.suppressed > 0 {
            self.reclassify_suppressed(&mut parts, appended.suppressed).await?;
        }
        Ok(Committed { parts, months, settled: appended.settled })
    }

    /// Commits what is left to be told.
    pub(crate) async fn finish(&mut self) -> Result<(), IngestError> {
        if !self.carried.is_empty() {
            self.commit(Batch::default()).await?;
        }
        Ok(())
    }

    /// A suppression came between admission and commit: finds the rows that the commit dropped.
    async fn reclassify_suppressed(&mut self, parts: &mut [Part], dropped: u64) -> Result<(), IngestError> {
        let set = self.ledger.suppressions().await.map_err(IngestError::ledger)?;
        let mut left = dropped;
        for part in parts {
            for at in 0..part.rows.len() {
                let row = part.rows[at];
                let covered = set.covers(row.device_id(), row.user_id(), Timestamp::from_micros(row.ts));
                if left > 0 && covered && !part.is_dropped(at) {
                    part.drop_row(at, Reason::Suppressed);
                    left -= 1;
                }
            }
            self.carried.merge(std::mem::take(&mut part.counted));
        }
        Ok(())
    }
}
