//! Setting a source's position back, when the source itself was made anew.
//!
//! Positions are Delta transactions, which can be overwritten and not removed: what begins anew gets a value that
//! the source understands as its beginning. `quarantine` goes first: were it the other way round, a crash in
//! between would leave rejections unexplained that are read again.

use std::sync::Arc;

use ameles_schemas::Table;
use async_trait::async_trait;

use crate::commit::{Decision, Plan};
use crate::log::{Change, LogState};
use crate::{StoreError, Warehouse};

impl Warehouse {
    /// Sets the positions of sources, whatever they are now. A writer that is at work on one of them fails with
    /// `TxnMoved` at its next commit, and reads the source again from here.
    ///
    /// # Errors
    /// When storage fails; positions may be set in part then, and setting them again is harmless.
    pub async fn set_positions(&self, apps: &[String], to: i64) -> Result<(), StoreError> {
        for table in [Table::Quarantine, Table::Events] {
            self.commit(table, &mut PositionsPlan { apps, to }).await?;
        }
        Ok(())
    }

    /// The position of a source in `events`, which is set to `value` where there is none or it was set back (is negative).
    ///
    /// # Errors
    /// When storage fails.
    pub async fn position_or_set(&self, app: &str, value: i64) -> Result<i64, StoreError> {
        let mut plan = NotePlan { app, value, stands: value };
        self.commit(Table::Events, &mut plan).await?;
        Ok(plan.stands)
    }
}

struct NotePlan<'a> {
    app: &'a str,
    value: i64,
    stands: i64,
}

#[async_trait]
impl Plan for NotePlan<'_> {
    async fn decide(&mut self, state: &Arc<LogState>) -> Result<Decision, StoreError> {
        if let Some(stands) = state.txns.get(self.app).copied().filter(|stands| *stands >= 0) {
            self.stands = stands;
            return Ok(Decision::Done);
        }
        self.stands = self.value;
        let txns = vec![(self.app.to_owned(), self.value)];
        Ok(Decision::Commit(Change { operation: "note position", data_change: false, txns, ..Change::default() }))
    }
}

struct PositionsPlan<'a> {
    apps: &'a [String],
    to: i64,
}

#[async_trait]
impl Plan for PositionsPlan<'_> {
    async fn decide(&mut self, state: &Arc<LogState>) -> Result<Decision, StoreError> {
        let txns: Vec<(String, i64)> =
            self.apps.iter().filter(|app| state.txns.get(*app) != Some(&self.to)).map(|app| (app.clone(), self.to)).collect();
        if txns.is_empty() {
            return Ok(Decision::Done);
        }
        Ok(Decision::Commit(Change { operation: "set positions", data_change: false, txns, ..Change::default() }))
    }
}
