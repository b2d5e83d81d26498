//! The committing task: requests that come close together share a commit.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ameles_core::{Reason, SharedClock, SharedRandom, Tally, Timestamp};
use ameles_schemas::Contract;
use ameles_store::Warehouse;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::{CollectorOptions, LineError, Reply, SubmitError, lock};
use crate::admission::Ordered;
use crate::batch::Part;
use crate::commit::{Batch, Committer};
use crate::{DuplicateMemory, IngestEnv, IngestError};

/// A request that waits for its commit.
pub(super) struct Waiting {
    pub(super) part: Part,
    /// The consents' sequence number that it was admitted under.
    pub(super) consents_sequence: u64,
    pub(super) answer: oneshot::Sender<Result<Reply, SubmitError>>,
    /// Its bytes' place in the queue, given back with the answer.
    pub(super) room: OwnedSemaphorePermit,
}

/// Owns what only one task may touch: the lease, the order, the memory.
pub(super) struct Group {
    committer: Committer,
    ordered: Ordered,
    memory: DuplicateMemory,
    contract: Arc<Contract>,
    clock: SharedClock,
    tally: Arc<Mutex<Tally>>,
    wait: Duration,
    rows_max: usize,
    warehouse: Warehouse,
    random: SharedRandom,
    /// The last commit failed: nothing is written under its lease any more.
    needs_lease: bool,
}

type Answer = (oneshot::Sender<Result<Reply, SubmitError>>, OwnedSemaphorePermit);

impl Group {
    pub(super) async fn new(
        env: &IngestEnv,
        options: &CollectorOptions,
        memory: DuplicateMemory,
        tally: Arc<Mutex<Tally>>,
    ) -> Result<Self, IngestError> {
        let lease = env.warehouse.lease(env.random.as_ref()).await.map_err(IngestError::store)?;
        let suppressions = env.ledger.suppressions().await.map_err(IngestError::ledger)?;
        let consents = env.ledger.consents().await.map_err(IngestError::ledger)?;
        Ok(Self {
            committer: Committer::new(lease, env),
            ordered: Ordered::new(env.ledger.clone(), suppressions, consents),
            memory,
            contract: Arc::clone(&env.contract),
            clock: Arc::clone(&env.clock),
            tally,
            wait: Duration::from_millis(options.group_ms),
            rows_max: env.limits.batch_rows_max,
            warehouse: env.warehouse.clone(),
            random: Arc::clone(&env.random),
            needs_lease: false,
        })
    }

    /// Commits groups until the queue is closed and empty.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        while let Some(first) = queue.recv().await {
            let until = Instant::now() + self.wait;
            let mut rows = first.part.rows.len();
            let mut group = vec![first];
            while rows < self.rows_max
                && let Ok(Some(next)) = timeout_at(until, queue.recv()).await
            {
                rows += next.part.rows.len();
                group.push(next);
            }
            self.commit(group).await;
        }
        if let Err(error) = self.committer.finish().await {
            tracing::warn!(%error, "the last counts of rejected events could not be stored");
        }
    }

    async fn commit(&mut self, group: Vec<Waiting>) {
        let sequence = group.iter().map(|waiting| waiting.consents_sequence).min().unwrap_or(0);
        let (parts, answers): (Vec<Part>, Vec<Answer>) =
            group.into_iter().map(|waiting| (waiting.part, (waiting.answer, waiting.room))).unzip();
        match self.store(parts, sequence).await {
            Ok(parts) => {
                for (mut part, (answer, _room)) in parts.into_iter().zip(answers) {
                    lock(&self.tally).add(&part.tally);
                    // Whoever asked may have gone; the events are stored all the same.
                    let _ = answer.send(Ok(reply(&mut part, &self.contract)));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                tracing::error!(error = error.as_ref() as &dyn std::error::Error, "events could not be stored");
                for (answer, _room) in answers {
                    let _ = answer.send(Err(SubmitError::Failed(Arc::clone(&error))));
                }
            }
        }
    }

    async fn store(&mut self, mut parts: Vec<Part>, sequence: u64) -> Result<Vec<Part>, IngestError> {
        self.ordered.refresh().await?;
        self.ordered.forget_recorded(sequence);
        for part in &mut parts {
            self.ordered.part(part).await?;
            for at in 0..part.rows.len() {
                let row = part.rows[at];
                if self.memory.contains(row.device, row.event_key, Timestamp::from_micros(row.ts)) {
                    part.drop_row(at, Reason::Duplicate);
                }
            }
        }
        self.ordered.record().await?;
        let now = self.clock.now();
        self.ordered.note_drops(now).await?;
        if self.needs_lease {
            self.committer.renew(self.warehouse.lease(self.random.as_ref()).await.map_err(IngestError::store)?);
        }
        self.needs_lease = true;
        let committed = self.committer.commit(Batch { parts, txns: Vec::new() }).await?;
        self.needs_lease = false;
        for part in &committed.parts {
            for (_, row) in part.rows.iter().enumerate().filter(|(at, _)| !part.is_dropped(*at)) {
                self.memory.insert(row.device, row.event_key, Timestamp::from_micros(row.ts), now);
            }
        }
        Ok(committed.parts)
    }
}

fn reply(part: &mut Part, contract: &Contract) -> Reply {
    part.errors.sort_by_key(|(line, _)| *line);
    let error = |(line, rejection): &(u64, crate::decode::Rejection)| LineError {
        line: *line,
        reason: rejection.reason.as_str(),
        field: rejection.field.and_then(|at| contract.fields().get(at)).map(|field| field.name.clone()),
    };
    Reply { tally: part.tally, errors: part.errors.iter().map(error).collect() }
}
