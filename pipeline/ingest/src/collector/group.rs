//! The committing task: a group at a time, answered once it is durable.

use std::sync::{Arc, Mutex};

use ameles_core::{Tally, Timestamp};
use ameles_schemas::Contract;
use tokio::sync::mpsc;

use super::gather::{Admitted, fail};
use super::{CollectorOptions, LineError, Reply, lock, recent};
use crate::admission::Ordered;
use crate::batch::Part;
use crate::commit::{Batch, Committer};
use crate::repeats::LookedUp;
use crate::{DuplicateMemory, IngestEnv, IngestError};

/// How far this process' clock may have gone back when it looks for a commit of its own, in seconds.
const CLOCK_SLACK_SECS: i64 = 60;

/// Owns what only one task may touch: the lease, the order, the memory.
pub(super) struct Group {
    env: Arc<IngestEnv>,
    committer: Committer,
    ordered: Ordered,
    /// Out while a thread works with it; gone if that panicked.
    memory: Option<DuplicateMemory>,
    memory_bytes_max: usize,
    tally: Arc<Mutex<Tally>>,
    /// When the last commit began, if it failed: it may have landed, and nothing is written under its lease any more.
    unsure_since: Option<Timestamp>,
}

impl Group {
    pub(super) async fn new(
        env: Arc<IngestEnv>,
        options: &CollectorOptions,
        memory: DuplicateMemory,
        tally: Arc<Mutex<Tally>>,
    ) -> Result<Self, IngestError> {
        let lease = env.warehouse.lease(env.random.as_ref()).await.map_err(IngestError::store)?;
        let suppressions = env.ledger.suppressions().await.map_err(IngestError::ledger)?;
        let consents = env.ledger.consents().await.map_err(IngestError::ledger)?;
        Ok(Self {
            committer: Committer::new(lease, &env),
            ordered: Ordered::new(env.ledger.clone(), suppressions, consents),
            memory: Some(memory),
            memory_bytes_max: options.duplicates_bytes_max,
            env,
            tally,
            unsure_since: None,
        })
    }

    /// Commits groups until no more come.
    pub(super) async fn run(mut self, mut groups: mpsc::Receiver<Admitted>) {
        while let Some(group) = groups.recv().await {
            self.commit(group).await;
        }
        if let Err(error) = self.committer.finish().await {
            tracing::warn!(%error, "the last counts of rejected events could not be stored");
        }
    }

    async fn commit(&mut self, group: Admitted) {
        let Admitted { parts, answers, consents_sequence, turn } = group;
        let (parts, looked_up) = match self.store(parts, consents_sequence).await {
            Ok(stored) => stored,
            Err(error) => return fail(answers, error),
        };
        let accepted = looked_up.accepted(&parts);
        for (mut part, answer) in parts.into_iter().zip(answers) {
            lock(&self.tally).add(&part.tally);
            answer.send(Ok(reply(&mut part, &self.env.contract)));
        }
        let now = self.env.clock.now();
        let remembered = self.with_memory(move |memory| Ok(looked_up.remember(&accepted, memory, now)?)).await;
        if let Err(error) = remembered {
            // They are remembered all the same, and the next group is refused as long as it is so.
            tracing::error!(error = &error as &dyn std::error::Error, "recent events are kept in memory over its bound");
        }
        drop(turn);
    }

    async fn store(&mut self, mut parts: Vec<Part>, consents_sequence: u64) -> Result<(Vec<Part>, LookedUp), IngestError> {
        self.ordered.refresh().await?;
        self.ordered.forget_recorded(consents_sequence);
        for part in &mut parts {
            self.ordered.part(part).await?;
        }
        if let Some(began) = self.unsure_since {
            self.take_stock(began).await?;
        }
        let (parts, looked_up) = self.without_repeats(parts).await?;
        self.ordered.record().await?;
        let now = self.env.clock.now();
        self.ordered.note_drops(now).await?;
        self.unsure_since = Some(now);
        let committed = self.committer.commit(Batch { parts, txns: Vec::new() }).await?;
        self.unsure_since = None;
        Ok((committed.parts, looked_up))
    }

    /// Reads what the failed commit may have left in the table: what is sent again is a repeat of that.
    async fn take_stock(&mut self, began: Timestamp) -> Result<(), IngestError> {
        if let Some(memory) = &mut self.memory {
            memory.read_until = Some(began.plus_secs(-CLOCK_SLACK_SECS));
            recent::catch_up(&self.env, memory, None).await?;
        }
        self.committer.renew(self.env.warehouse.lease(self.env.random.as_ref()).await.map_err(IngestError::store)?);
        self.unsure_since = None;
        Ok(())
    }

    /// Takes out what was accepted before, or earlier in the group.
    async fn without_repeats(&mut self, mut parts: Vec<Part>) -> Result<(Vec<Part>, LookedUp), IngestError> {
        if self.env.contract.roles().event_id.is_none() {
            return Ok((parts, LookedUp::default()));
        }
        self.with_memory(move |memory| {
            let looked_up = LookedUp::new(&mut parts, memory)?;
            Ok((parts, looked_up))
        })
        .await
    }

    /// Works with the memory in a thread that may wait for a disk.
    async fn with_memory<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut DuplicateMemory) -> Result<T, IngestError> + Send + 'static,
    ) -> Result<T, IngestError> {
        let mut memory = match self.memory.take() {
            Some(memory) => memory,
            None => recent::remember(&self.env, self.memory_bytes_max).await?,
        };
        let worked = tokio::task::spawn_blocking(move || {
            let done = work(&mut memory);
            (memory, done)
        });
        let (memory, done) = worked.await.map_err(|error| IngestError::Worker(error.to_string()))?;
        self.memory = Some(memory);
        done
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
