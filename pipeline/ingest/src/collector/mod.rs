//! Events over HTTP: a bounded queue, group commit, an answer once durable.

mod gather;
mod group;
pub(crate) mod recent;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ameles_core::Tally;
use ameles_ledger::Principal;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::admission::{Intake, View, Worker};
use crate::batch::Part;
use crate::decode::{Elements, without_mark};
use crate::lines::{Line, Lines};
use crate::undeclared::UndeclaredCounter;
use crate::{IngestEnv, IngestError, UndeclaredReport, closed_before};
use gather::{Answer, Gatherer, Waiting};
use group::Group;

/// Bytes that one permit of the queue stands for.
const UNIT_BYTES: usize = 1024;
/// Requests that wait for a commit.
const REQUESTS_WAITING_MAX: usize = 4096;
/// Bytes that an event is thought to have, to make room for rows.
const EVENT_BYTES: usize = 256;

/// How a body is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyFormat {
    /// One JSON object a line.
    Ndjson,
    /// One JSON array of objects.
    JsonArray,
    /// An array where the first character that is no blank is `[`.
    #[default]
    Auto,
}

/// Bounds of the collector.
#[derive(Debug, Clone)]
pub struct CollectorOptions {
    /// Bytes of bodies that may wait; more is answered with [`SubmitError::Busy`].
    pub queue_bytes_max: usize,
    /// How long a request waits for company at most before its commit may begin, in milliseconds.
    pub group_ms: u64,
    /// How long no request must have come for the wait to end, in milliseconds.
    pub quiet_ms: u64,
    /// What quarantine calls this source.
    pub source: String,
    /// Bytes of memory for what recognises a repeated event; the rest of it is spilled.
    pub duplicates_bytes_max: usize,
}

impl Default for CollectorOptions {
    fn default() -> Self {
        Self { queue_bytes_max: 64 << 20, group_ms: 100, quiet_ms: 5, source: "http".to_owned(), duplicates_bytes_max: 256 << 20 }
    }
}

/// The answer to one request: its events are durable.
#[derive(Debug, Clone, Serialize)]
pub struct Reply {
    /// `received`, `accepted`, `rejected`.
    #[serde(flatten)]
    pub tally: Tally,
    /// The first errors, up to `Limits::errors_listed_max`.
    pub errors: Vec<LineError>,
}

/// One rejected line of a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LineError {
    /// The line, or the place in the array, from 1.
    pub line: u64,
    /// Why.
    pub reason: &'static str,
    /// The declared field, where one is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// Why a request was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitError {
    /// Too much is waiting: 429, try again in a moment.
    #[error("too many events are waiting; try again in a moment")]
    Busy,
    /// The body is longer than `Limits::body_bytes_max`: 413.
    #[error("the body has {bytes} bytes, more than {max}; send it in smaller pieces")]
    TooLarge {
        /// The body's length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The server is stopping: 503.
    #[error("the server is stopping; send the events again")]
    Stopping,
    /// The events could not be stored: 503; none of them counts as received.
    #[error("the events could not be stored; send them again: {0}")]
    Failed(Arc<IngestError>),
}

/// A body's place in the queue, given back when it is dropped.
#[derive(Debug)]
pub struct Room {
    held: OwnedSemaphorePermit,
    all: Arc<Semaphore>,
    units_max: usize,
}

impl Room {
    /// Makes it a place for a body of so many bytes.
    ///
    /// # Errors
    /// [`SubmitError::Busy`] when too much is waiting.
    pub fn grow(&mut self, bytes: usize) -> Result<(), SubmitError> {
        // A body that is larger than the queue takes all of it.
        let wanted = (bytes / UNIT_BYTES + 1).min(self.units_max);
        let more = wanted.saturating_sub(self.held.num_permits());
        if more > 0 {
            let more = u32::try_from(more).map_err(|_| SubmitError::Busy)?;
            self.held.merge(Arc::clone(&self.all).try_acquire_many_owned(more).map_err(|_| SubmitError::Busy)?);
        }
        Ok(())
    }
}

/// Takes events over HTTP. Cheap to clone.
#[derive(Clone)]
pub struct Collector {
    inner: Arc<Inner>,
    tasks: Arc<tokio::sync::Mutex<Vec<JoinHandle<()>>>>,
}

struct Inner {
    env: Arc<IngestEnv>,
    source: Arc<str>,
    /// Bytes that may wait, in units.
    room: Arc<Semaphore>,
    room_units: usize,
    queue: Mutex<Option<mpsc::Sender<Waiting>>>,
    workers: Mutex<Vec<Worker>>,
    tally: Arc<Mutex<Tally>>,
}

impl Collector {
    /// Takes a lease, rebuilds the memory of recent events, and starts the committing task.
    ///
    /// # Errors
    /// When the warehouse or the ledger cannot be read.
    pub fn start(env: Arc<IngestEnv>, options: CollectorOptions) -> BoxFuture<'static, Result<Self, IngestError>> {
        async move {
            let memory = recent::remember(&env, options.duplicates_bytes_max).await?;
            let (to_gather, waiting) = mpsc::channel(REQUESTS_WAITING_MAX);
            // One that is being committed, and one that is decoded meanwhile.
            let (to_commit, groups) = mpsc::channel(1);
            let tally = Arc::new(Mutex::new(Tally::default()));
            let group = Group::new(Arc::clone(&env), &options, memory, Arc::clone(&tally)).await?;
            let room_units = (options.queue_bytes_max / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
            let inner = Arc::new(Inner {
                env,
                source: options.source.as_str().into(),
                room: Arc::new(Semaphore::new(room_units)),
                room_units,
                queue: Mutex::new(Some(to_gather)),
                workers: Mutex::default(),
                tally,
            });
            let gatherer = Gatherer::new(Arc::clone(&inner), to_commit, &options);
            let tasks = vec![tokio::spawn(gatherer.run(waiting)), tokio::spawn(group.run(groups))];
            Ok(Self { inner, tasks: Arc::new(tokio::sync::Mutex::new(tasks)) })
        }
        .boxed()
    }

    /// A place for a body, before its first byte is read.
    ///
    /// # Errors
    /// [`SubmitError::Busy`] when too much is waiting, [`SubmitError::Stopping`].
    pub fn room(&self) -> Result<Room, SubmitError> {
        if lock(&self.inner.queue).is_none() {
            return Err(SubmitError::Stopping);
        }
        let held = Arc::clone(&self.inner.room).try_acquire_owned().map_err(|_| SubmitError::Busy)?;
        Ok(Room { held, all: Arc::clone(&self.inner.room), units_max: self.inner.room_units })
    }

    /// Decodes, admits and stores a body, which has its `room`; returns once its events are durable.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit(&self, body: Bytes, format: BodyFormat, principal: &Principal, room: Room) -> Result<Reply, SubmitError> {
        self.submit_in(body, format, principal.partner(), room).await
    }

    /// As [`Self::submit`], for whoever may speak for `only_partner`, or for all, without room yet.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit_for(&self, body: Bytes, format: BodyFormat, only_partner: Option<&str>) -> Result<Reply, SubmitError> {
        let room = self.room()?;
        self.submit_in(body, format, only_partner, room).await
    }

    async fn submit_in(&self, body: Bytes, format: BodyFormat, only_partner: Option<&str>, mut room: Room) -> Result<Reply, SubmitError> {
        let max = self.inner.env.limits.body_bytes_max;
        if body.len() > max {
            return Err(SubmitError::TooLarge { bytes: body.len(), max });
        }
        room.grow(body.len())?;
        let queue = lock(&self.inner.queue).clone().ok_or(SubmitError::Stopping)?;
        let (sender, answered) = oneshot::channel();
        let answer = Answer { sender, room };
        let waiting = Waiting { body, format, only_partner: only_partner.map(Box::from), answer };
        queue.try_send(waiting).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SubmitError::Busy,
            mpsc::error::TrySendError::Closed(_) => SubmitError::Stopping,
        })?;
        drop(queue);
        answered.await.map_err(|_| SubmitError::Stopping)?
    }

    /// All that was counted since the start, for Prometheus.
    pub fn tally(&self) -> Tally {
        *lock(&self.inner.tally)
    }

    /// Undeclared fields since the start.
    pub fn undeclared(&self) -> UndeclaredReport {
        let workers = lock(&self.inner.workers);
        let mut all = UndeclaredCounter::new(self.inner.env.k);
        workers.iter().for_each(|worker| all.merge(worker.undeclared.clone()));
        all.report()
    }

    /// Takes nothing more, stores what is waiting and gives up the lease.
    pub async fn stop(&self) {
        lock(&self.inner.queue).take();
        for task in self.tasks.lock().await.drain(..) {
            // They answer each request themselves, failures included.
            let _ended = task.await;
        }
    }
}

impl Inner {
    async fn view(&self) -> Result<View, IngestError> {
        let arrival = self.env.clock.now();
        let suppressions = self.env.ledger.suppressions().await.map_err(IngestError::ledger)?;
        let consents = self.env.ledger.consents().await.map_err(IngestError::ledger)?;
        // A request is never behind: the watermark of this source is now.
        Ok(View::new(suppressions, consents, arrival, Some(closed_before(arrival))))
    }

    fn decode(&self, body: &[u8], format: BodyFormat, only_partner: Option<&str>, view: &View) -> Part {
        let admission = &self.env.admission;
        let mut part = Part::new(
            Arc::clone(&self.source),
            view.arrival,
            1,
            &admission.columns,
            self.env.contract.roles().partner,
            body.len() / EVENT_BYTES,
            self.env.limits.errors_listed_max,
        );
        let mut worker = lock(&self.workers).pop().unwrap_or_else(|| Worker::new(self.env.k));
        let body = without_mark(body);
        let is_array = match format {
            BodyFormat::Ndjson => false,
            BodyFormat::JsonArray => true,
            BodyFormat::Auto => body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'['),
        };
        let mut intake = Intake::new(admission, &mut worker, view, only_partner, &mut part);
        if is_array {
            for (element, number) in Elements::new(body).zip(1..) {
                match element {
                    Ok(event) => intake.line(Line::Bytes(event), number),
                    Err(rejection) => intake.reject(rejection, number),
                }
            }
        } else {
            for (line, number) in Lines::new(body).zip(1..) {
                intake.line(Line::Bytes(line), number);
            }
        }
        drop(intake);
        lock(&self.workers).push(worker);
        part.finish();
        part
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
