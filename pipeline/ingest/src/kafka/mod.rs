//! Events from Kafka, each exactly once.
//!
//! ```text
//! librdkafka ─ reader ─▶ chunks per partition ─▶ workers: decode, admit ─▶ assembler ─▶ Keeper ─▶ Append ─▶ lease
//!    (prefetch)  (thread)   (bounded in bytes)       (threads)               (order,       (duplicates, commit;
//!                                                                            batches)       one at a time)
//! ```
//!
//! A partition's position is the Delta transaction `kafka:{cluster id}:{topic}:{partition}`: the next offset to read. It
//! moves in the very commit that holds the events, and that commit fails where the position is not the one at which
//! the batch began. So whatever two processes believe of who owns a partition, its messages are committed once; the
//! group only spreads the work. After any failure everything that is not committed is void, and read again from what a
//! fresh snapshot says.

mod assembler;
mod committing;
mod context;
mod control;
mod lane;
mod place;
mod queue;
mod reader;
mod reset;
mod settings;
mod status;
#[cfg(test)]
mod tests;
mod workers;

use std::sync::{Arc, Mutex, RwLock};

use ameles_core::Timestamp;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use reset::{ResetPartition, reset_kafka};
pub use settings::{KafkaOptions, KafkaSettingsError, Property, TopicInfo};
pub use status::{KafkaErrors, KafkaStatus, PartitionStatus};

use crate::admission::View;
use crate::undeclared::UndeclaredCounter;
use crate::{IngestEnv, IngestError, UndeclaredReport, closed_before};
use assembler::Assembler;
use committing::Keeper;
use control::Control;
use queue::Queue;
use reader::Reader;
use status::Status;
use workers::Shared;

/// Parts that wait for the assembler, per worker.
const WAITING_PER_WORKER: usize = 4;

/// Reads topics into the warehouse until it is stopped. Cheap to clone.
#[derive(Clone)]
pub struct KafkaSource {
    inner: Arc<Inner>,
}

struct Inner {
    control: Arc<Control>,
    status: Arc<Status>,
    shared: Arc<Shared>,
    running: tokio::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Inner {
    /// Threads end with the source, stopped or not.
    fn drop(&mut self) {
        self.control.stop();
    }
}

impl KafkaSource {
    /// Starts reading. Brokers that are down are waited for.
    ///
    /// # Errors
    /// When the settings are wrong, or the ledger cannot be read.
    pub fn start(env: Arc<IngestEnv>, options: KafkaOptions) -> BoxFuture<'static, Result<Self, IngestError>> {
        async move {
            options.check().map_err(|error| IngestError::Setup(error.to_string()))?;
            let (control, status) = (Arc::new(Control::default()), Arc::new(Status::default()));
            let arrival = env.clock.now();
            let suppressions = env.ledger.suppressions().await.map_err(IngestError::ledger)?;
            let consents = env.ledger.consents().await.map_err(IngestError::ledger)?;
            let shared = Arc::new(Shared {
                view: RwLock::new(View::new(suppressions, consents, arrival, Some(closed_before(arrival)))),
                undeclared: Mutex::new(UndeclaredCounter::new(env.k)),
            });
            let queue = Arc::new(Queue::new(options.queue_bytes_max));
            let workers = options.workers.max(1);
            let (to_assembler, done) = mpsc::channel(workers * WAITING_PER_WORKER);
            let (to_commit, orders) = mpsc::channel(1);
            let (to_tell, committed) = mpsc::channel(1);
            let assembler =
                Assembler::new(Arc::clone(&env), options.clone(), Arc::clone(&shared), Arc::clone(&control), Arc::clone(&status)).await?;
            let keeper = Keeper::new(Arc::clone(&env), options.duplicates_bytes_max);
            let mut running = Vec::new();
            for _ in 0..workers {
                let (env, queue, shared, to_assembler) = (Arc::clone(&env), Arc::clone(&queue), Arc::clone(&shared), to_assembler.clone());
                running.push(tokio::task::spawn_blocking(move || workers::work(&env, &queue, &shared, &to_assembler)));
            }
            running.push(tokio::spawn(assembler.run(done, to_commit, committed)));
            running.push(tokio::spawn(keeper.run(orders, to_tell)));
            let reader = Reader::new(env, options, Handle::current(), Arc::clone(&control), Arc::clone(&status), queue);
            running.push(tokio::task::spawn_blocking(move || reader.run()));
            Ok(Self { inner: Arc::new(Inner { control, status, shared, running: tokio::sync::Mutex::new(running) }) })
        }
        .boxed()
    }

    /// The source at this moment, for Prometheus and for whoever asks how far the data can be relied on.
    pub fn status(&self) -> KafkaStatus {
        self.inner.status.get()
    }

    /// The slowest partition's event time; `None` while this process reads no partition.
    pub fn watermark(&self) -> Option<Timestamp> {
        self.inner.status.get_watermark()
    }

    /// Undeclared fields since the start.
    pub fn undeclared(&self) -> UndeclaredReport {
        self.inner.shared.undeclared().report()
    }

    /// Commits what is in flight, leaves the group, and returns when all is done.
    pub fn stop<'a>(&'a self) -> BoxFuture<'a, ()> {
        async move {
            self.inner.control.stop();
            for task in self.inner.running.lock().await.drain(..) {
                if let Err(error) = task.await {
                    tracing::error!(%error, "a task of the kafka source failed");
                }
            }
        }
        .boxed()
    }
}
