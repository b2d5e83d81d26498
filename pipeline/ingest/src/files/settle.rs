//! After a backfill: the months that it touched become one sorted run each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ameles_core::Month;
use ameles_schemas::Table;
use ameles_store::{Maintainer, MonthRewrite, Rewrite, StoreError};
use tokio::task::JoinSet;

use super::FileOptions;
use crate::{IngestEnv, IngestError, Progress, is_closed};

/// Months settled at once.
const AT_ONCE: usize = 2;
/// Between two looks at the maintainer lock.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// After so many looks the wait is told.
const LOOKS_UNTOLD: u32 = 4;

#[derive(Default)]
pub(super) struct Settled {
    pub(super) months: Vec<Month>,
    /// Rows of this lease that turned out to be repeats, by partner.
    pub(super) duplicates: BTreeMap<Option<String>, u64>,
}

/// Settles `touched` and what an interrupted ingest has left unsettled.
pub(super) async fn settle(
    env: &IngestEnv,
    touched: BTreeSet<Month>,
    lease_id: &str,
    options: &FileOptions,
    progress: &dyn Progress,
) -> Result<Settled, IngestError> {
    let snapshot = env.warehouse.snapshot().await.map_err(IngestError::store)?;
    let mut months = touched;
    months.extend(snapshot.months(Table::Events).into_iter().filter(|month| !snapshot.is_settled(*month)));
    drop(snapshot);
    if months.is_empty() {
        return Ok(Settled::default());
    }
    let maintainer = Arc::new(maintainer(env, &months, options, progress).await?);
    progress.message("settling months");
    // Rows whose erasure is pending stay for the erasure's own run, which counts and attests them: until then no
    // query sees them, and a request that is cancelled gets them back.
    let erased = Arc::new(env.ledger.suppressions().await.map_err(IngestError::ledger)?.carried_out());
    let mut settled = Settled::default();
    let mut waiting = months.into_iter();
    let mut running: JoinSet<(Month, Result<MonthRewrite, StoreError>)> = JoinSet::new();
    let now = env.clock.now();
    loop {
        while running.len() < AT_ONCE
            && let Some(month) = waiting.next()
        {
            let maintainer = Arc::clone(&maintainer);
            let spec = Rewrite { suppressed: Arc::clone(&erased), closed: is_closed(month, now) };
            running.spawn(async move { (month, maintainer.rewrite_month(month, &spec, &|_| {}).await) });
        }
        let Some(done) = running.join_next().await else {
            break;
        };
        let (month, rewritten) = done.map_err(|error| IngestError::Worker(error.to_string()))?;
        let rewritten = rewritten.map_err(IngestError::store)?;
        for repeats in rewritten.duplicates_by.into_iter().filter(|repeats| repeats.lease.as_deref() == Some(lease_id)) {
            *settled.duplicates.entry(repeats.partner).or_default() += repeats.rows;
        }
        settled.months.push(month);
        progress.message(&format!("settled {month}"));
    }
    // What another process left half done in other months. Last, so that repeats of ours are counted above.
    if let Some(mut maintainer) = Arc::into_inner(maintainer) {
        maintainer.recover().await.map_err(IngestError::store)?;
    }
    settled.months.sort_unstable();
    Ok(settled)
}

async fn maintainer(
    env: &IngestEnv,
    months: &BTreeSet<Month>,
    options: &FileOptions,
    progress: &dyn Progress,
) -> Result<Maintainer, IngestError> {
    let looks_max = u64::from(LOOKS_UNTOLD) * options.maintainer_wait_s;
    let mut looks = 0;
    loop {
        if let Some(maintainer) = env.warehouse.try_maintainer(env.random.as_ref()).await.map_err(IngestError::store)? {
            return Ok(maintainer);
        }
        if looks >= looks_max {
            let months = months.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(IngestError::MaintainerBusy { waited_s: options.maintainer_wait_s, months });
        }
        if looks == u64::from(LOOKS_UNTOLD) {
            progress.message("the events are stored; waiting for another process to finish its maintenance");
        }
        looks += 1;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
