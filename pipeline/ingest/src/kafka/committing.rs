//! The committing task: owns the lease and the memory of recent events.

use std::sync::Arc;

use ameles_core::Tally;
use tokio::sync::mpsc;

use super::lane::LaneId;
use crate::collector::recent;
use crate::commit::{Batch, Committer};
use crate::repeats::LookedUp;
use crate::{DuplicateMemory, IngestEnv, IngestError};

/// A batch to be committed.
pub(super) struct Order {
    pub(super) batch: Batch,
    /// Where its partitions stand after it.
    pub(super) positions: Vec<(Arc<LaneId>, i64)>,
    /// Other processes may have committed what the memory must know.
    pub(super) remember: bool,
}

/// What became of it.
pub(super) enum Outcome {
    Landed { tally: Tally, positions: Vec<(Arc<LaneId>, i64)> },
    Failed(IngestError),
}

pub(super) struct Keeper {
    env: Arc<IngestEnv>,
    duplicates_bytes_max: usize,
    committer: Option<Committer>,
    memory: Option<DuplicateMemory>,
    /// The last commit failed: nothing is written under its lease any more.
    needs_lease: bool,
}

impl Keeper {
    pub(super) fn new(env: Arc<IngestEnv>, duplicates_bytes_max: usize) -> Self {
        Self { env, duplicates_bytes_max, committer: None, memory: None, needs_lease: true }
    }

    /// Commits until no more orders come.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>, told: mpsc::Sender<Outcome>) {
        while let Some(Order { batch, positions, remember }) = orders.recv().await {
            let outcome = match self.commit(batch, remember).await {
                Ok(tally) => Outcome::Landed { tally, positions },
                Err(error) => {
                    // It may have landed or not, and another process may have committed: the memory is made anew.
                    (self.needs_lease, self.memory) = (true, None);
                    Outcome::Failed(error)
                }
            };
            if told.send(outcome).await.is_err() {
                return;
            }
        }
        if let Some(committer) = &mut self.committer
            && !self.needs_lease
            && let Err(error) = committer.finish().await
        {
            tracing::warn!(%error, "the last counts of rejected events could not be stored");
        }
    }

    async fn commit(&mut self, mut batch: Batch, remember: bool) -> Result<Tally, IngestError> {
        let env = Arc::clone(&self.env);
        let mut memory = match self.memory.take().filter(|_| !remember) {
            Some(memory) => memory,
            None => recent::remember(&env, self.duplicates_bytes_max).await?,
        };
        let looked_up = blocking(move || {
            let looked_up = LookedUp::new(&mut batch.parts, &mut memory)?;
            Ok::<_, IngestError>((batch, memory, looked_up))
        })
        .await??;
        let (batch, mut memory, looked_up) = looked_up;
        let mut committer = self.committer(&env).await?;
        self.needs_lease = true;
        let committed = committer.commit(batch).await;
        self.committer = Some(committer);
        let committed = committed?;
        self.needs_lease = false;
        let now = env.clock.now();
        let (tally, memory, remembered) = blocking(move || {
            let mut tally = Tally::default();
            committed.parts.iter().for_each(|part| tally.add(&part.tally));
            let remembered = looked_up.remember(&looked_up.accepted(&committed.parts), &mut memory, now);
            (tally, memory, remembered)
        })
        .await?;
        if let Err(error) = remembered {
            // They are remembered all the same, and the next batch waits as long as it is so.
            tracing::error!(error = &error as &dyn std::error::Error, "recent events are kept in memory over its bound");
        }
        self.memory = Some(memory);
        Ok(tally)
    }

    async fn committer(&mut self, env: &IngestEnv) -> Result<Committer, IngestError> {
        match self.committer.take() {
            Some(committer) if !self.needs_lease => Ok(committer),
            kept => {
                let lease = env.warehouse.lease(env.random.as_ref()).await.map_err(IngestError::store)?;
                Ok(match kept {
                    Some(mut committer) => {
                        committer.renew(lease);
                        committer
                    }
                    None => Committer::new(lease, env),
                })
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, IngestError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| IngestError::Worker(error.to_string()))
}
