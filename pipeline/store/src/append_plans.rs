//! The three commits of a batch, as the commit loop decides on them.

use std::sync::Arc;

use ameles_core::{Month, SuppressionSet, SuppressionSource};
use ameles_schemas::Table;
use arrow::array::RecordBatch;
use async_trait::async_trait;

use crate::append::{Files, Txn, covered_rejections};
use crate::commit::{Decision, Plan};
use crate::lease::Gate;
use crate::log::{Change, LogState, NewFile};
use crate::pieces::SortedEvents;
use crate::rewrite::round_app;
use crate::{StoreError, WriterLease};

fn writer_app(lease: &WriterLease) -> String {
    format!("writer:{}", lease.id)
}

/// The events of a batch, with the positions of its sources.
pub(crate) struct EventsPlan<'a> {
    pub(crate) lease: &'a WriterLease,
    pub(crate) txns: &'a [Txn],
    pub(crate) suppressions: &'a dyn SuppressionSource,
    pub(crate) seen: Arc<SuppressionSet>,
    pub(crate) source: &'a dyn SortedEvents,
    pub(crate) add: Vec<NewFile>,
    /// Months that the batch settles, and their rounds.
    pub(crate) rounds: &'a [(Month, i64)],
    pub(crate) gate: Option<Gate>,
    pub(crate) changed: Option<Arc<SuppressionSet>>,
}

#[async_trait]
impl Plan for EventsPlan<'_> {
    async fn decide(&mut self, state: &Arc<LogState>) -> Result<Decision, StoreError> {
        self.gate = None;
        let lease = self.lease;
        let writer = writer_app(lease);
        let batch = i64::try_from(lease.batch).unwrap_or(i64::MAX);
        if state.txns.get(&writer) == Some(&batch) {
            return Ok(Decision::Done);
        }
        for txn in self.txns {
            let found = state.txns.get(&txn.app).copied();
            if found != txn.before {
                return Err(StoreError::TxnMoved { app: txn.app.clone(), expected: txn.before, found });
            }
        }
        if self.add.is_empty() && self.txns.is_empty() {
            return Ok(Decision::Done);
        }
        // From this look on until the commit an erasure waits at the gate.
        let gate = lease.warehouse.gate().await?;
        let set = self.suppressions.current().await?;
        if set.sequence() != self.seen.sequence() {
            if self.source.is_covered(&set)? {
                self.changed = Some(set);
                return Ok(Decision::Done);
            }
            self.seen = set;
        }
        self.gate = Some(gate);
        let mut txns = vec![(writer, batch)];
        txns.extend(self.txns.iter().map(|txn| (txn.app.clone(), txn.after)));
        txns.extend(self.rounds.iter().map(|(month, round)| (round_app(*month), *round)));
        Ok(Decision::Commit(Change { operation: "append", data_change: true, add: self.add.clone(), txns, ..Change::default() }))
    }
}

/// The quarantine of a batch; skipped when a replay brings it again.
pub(crate) struct QuarantinePlan<'a> {
    pub(crate) lease: &'a WriterLease,
    pub(crate) txns: &'a [Txn],
    pub(crate) suppressions: &'a dyn SuppressionSource,
    pub(crate) seen: Arc<SuppressionSet>,
    pub(crate) rows: &'a RecordBatch,
    pub(crate) add: Vec<NewFile>,
    pub(crate) gate: Option<Gate>,
    pub(crate) changed: Option<Arc<SuppressionSet>>,
    pub(crate) committed: bool,
}

#[async_trait]
impl Plan for QuarantinePlan<'_> {
    async fn decide(&mut self, state: &Arc<LogState>) -> Result<Decision, StoreError> {
        (self.gate, self.committed) = (None, false);
        let writer = writer_app(self.lease);
        let batch = i64::try_from(self.lease.batch).unwrap_or(i64::MAX);
        if state.txns.get(&writer) == Some(&batch) {
            self.committed = true;
            return Ok(Decision::Done);
        }
        let passed = |txn: &Txn| state.txns.get(&txn.app).is_some_and(|at| *at >= txn.after);
        if !self.txns.is_empty() && self.txns.iter().all(passed) {
            return Ok(Decision::Done);
        }
        let gate = self.lease.warehouse.gate().await?;
        let set = self.suppressions.current().await?;
        if set.sequence() != self.seen.sequence() {
            if covered_rejections(self.rows, &set)?.true_count() > 0 {
                self.changed = Some(set);
                return Ok(Decision::Done);
            }
            self.seen = set;
        }
        self.gate = Some(gate);
        self.committed = true;
        let mut txns = vec![(writer, batch)];
        txns.extend(self.txns.iter().map(|txn| (txn.app.clone(), txn.after)));
        Ok(Decision::Commit(Change { operation: "append", data_change: true, add: self.add.clone(), txns, ..Change::default() }))
    }
}

/// The roll-up of a batch, of the months whose events are still the batch's own run: a rewrite has rolled up the others.
pub(crate) struct RollUpPlan<'a> {
    pub(crate) lease: &'a WriterLease,
    pub(crate) files: &'a Files,
    pub(crate) table: Table,
    /// Months that the batch settles, and their rounds.
    pub(crate) rounds: &'a [(Month, i64)],
    pub(crate) kept: Vec<String>,
}

#[async_trait]
impl Plan for RollUpPlan<'_> {
    async fn decide(&mut self, state: &Arc<LogState>) -> Result<Decision, StoreError> {
        let app = format!("rollup:{}", self.lease.id);
        let batch = i64::try_from(self.lease.batch).unwrap_or(i64::MAX);
        if state.txns.get(&app) == Some(&batch) {
            return Ok(Decision::Done);
        }
        // Read after `state`: a rewrite that replaced the run after this has not committed to this table before it, so the entry is taken and this tries again.
        let events = self.lease.warehouse.refresh(Table::Events).await?;
        let live =
            |month: Month| self.files.get(&(Table::Events, month)).is_some_and(|files| files.iter().all(|file| events.is_live(&file.path)));
        let mut add: Vec<NewFile> = Vec::new();
        for ((table, month), files) in self.files {
            if *table == self.table && live(*month) {
                add.extend(files.iter().cloned());
            }
        }
        self.kept = add.iter().map(|file| file.path.clone()).collect();
        if add.is_empty() && self.rounds.is_empty() {
            return Ok(Decision::Done);
        }
        let mut txns = vec![(app, batch)];
        txns.extend(self.rounds.iter().map(|(month, round)| (round_app(*month), *round)));
        Ok(Decision::Commit(Change { operation: "roll-up", data_change: true, add, txns, ..Change::default() }))
    }
}
