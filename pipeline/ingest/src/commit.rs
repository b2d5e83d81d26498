//! From decided parts to a commit: used by files and HTTP alike.

use std::sync::Arc;

use ameles_core::{Month, Reason, SuppressionSource, Timestamp};
use ameles_ledger::Ledger;
use ameles_schemas::Contract;
use ameles_store::{Append, Txn, WriterLease};
use arrow::array::RecordBatch;

use crate::IngestError;
use crate::batch::{HourlyCounts, Part, build, quarantine_batch};

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
    /// Counts found out after their batch was committed; they go with the next.
    carried: HourlyCounts,
}

/// A committed batch: its parts with their final tallies.
pub(crate) struct Committed {
    pub(crate) parts: Vec<Part>,
    pub(crate) months: Vec<Month>,
}

impl Committer {
    pub(crate) fn new(lease: WriterLease, ledger: Ledger, contract: Arc<Contract>) -> Self {
        Self { lease, ledger, contract, carried: HourlyCounts::default() }
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
    pub(crate) fn carry(&mut self, at: Timestamp, source: &Arc<str>, reason: Reason, events: u64) {
        self.carried.add(at, source, reason, None, events);
    }

    /// Sorts, drops repeats, and commits; returns once durable.
    pub(crate) async fn commit(&mut self, batch: Batch) -> Result<Committed, IngestError> {
        let Batch { mut parts, txns } = batch;
        let contract = Arc::clone(&self.contract);
        let mut counts = std::mem::take(&mut self.carried);
        type Columns = (Vec<(Month, RecordBatch)>, Option<RecordBatch>);
        let prepared = tokio::task::spawn_blocking(move || -> Result<(Vec<Part>, Columns), IngestError> {
            let built = build(&contract, &mut parts)?;
            let mut rejected = Vec::new();
            for part in &mut parts {
                rejected.append(&mut part.rejected);
                counts.merge(std::mem::take(&mut part.counted));
            }
            Ok((parts, (built.events, quarantine_batch(&contract, &rejected, &counts)?)))
        });
        let (mut parts, (events, quarantine)) = prepared.await.map_err(|error| IngestError::Worker(error.to_string()))??;
        let months = events.iter().map(|(month, _)| *month).collect();
        if events.is_empty() && quarantine.is_none() && txns.is_empty() {
            return Ok(Committed { parts, months });
        }
        let ledger: &dyn SuppressionSource = &self.ledger;
        let appended = self.lease.append(Append { events, quarantine, txns }, ledger).await.map_err(IngestError::store)?;
        if appended.suppressed > 0 {
            self.reclassify_suppressed(&mut parts, appended.suppressed).await?;
        }
        Ok(Committed { parts, months })
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
