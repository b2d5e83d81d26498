//! Brings requests together: those that come close to each other are admitted and committed as one group.
//!
//! A group is closed when no more company comes for a moment, when its first
//! request has waited long enough, or when it is large; and then it waits, still
//! growing, until the commit before it has ended. So the busier the server, the
//! larger the groups, and a request that comes alone hardly waits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::{BodyFormat, CollectorOptions, Inner, Reply, Room, SubmitError};
use crate::IngestError;
use crate::admission::View;
use crate::batch::Part;

/// Bytes of bodies that close a group: it is decoded while the one before it is committed.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Requests that close a group.
const GROUP_REQUESTS_MAX: usize = 16 << 10;
/// Bytes of bodies that are worth a thread of their own.
const THREAD_BYTES: usize = 512 << 10;

/// A request that waits for its commit.
pub(super) struct Waiting {
    pub(super) body: Bytes,
    pub(super) format: BodyFormat,
    pub(super) only_partner: Option<Box<str>>,
    pub(super) answer: Answer,
}

/// Whom to answer; the body's place in the queue is given back with the answer.
pub(super) struct Answer {
    pub(super) sender: oneshot::Sender<Result<Reply, SubmitError>>,
    pub(super) room: Room,
}

impl Answer {
    /// Whoever asked may have gone; what was stored is stored all the same.
    pub(super) fn send(self, reply: Result<Reply, SubmitError>) {
        let _gone = self.sender.send(reply);
        drop(self.room);
    }
}

/// A group that is decoded and admitted, up to what has to be decided in order.
pub(super) struct Admitted {
    pub(super) parts: Vec<Part>,
    /// One for each part.
    pub(super) answers: Vec<Answer>,
    /// The consents' sequence number that it was admitted under.
    pub(super) consents_sequence: u64,
    /// Held until the group is committed.
    pub(super) turn: OwnedSemaphorePermit,
}

/// The gathering task.
pub(super) struct Gatherer {
    pub(super) inner: Arc<Inner>,
    pub(super) to_commit: mpsc::Sender<Admitted>,
    wait: Duration,
    quiet: Duration,
    /// Whose turn it is to commit.
    turns: Arc<Semaphore>,
}

impl Gatherer {
    pub(super) fn new(inner: Arc<Inner>, to_commit: mpsc::Sender<Admitted>, options: &CollectorOptions) -> Self {
        let (wait, quiet) = (Duration::from_millis(options.group_ms), Duration::from_millis(options.quiet_ms));
        Self { inner, to_commit, wait, quiet, turns: Arc::new(Semaphore::new(1)) }
    }

    /// Hands on groups until the queue is closed and empty.
    pub(super) async fn run(self, mut queue: mpsc::Receiver<Waiting>) {
        let mut group = Vec::new();
        while queue.recv_many(&mut group, GROUP_REQUESTS_MAX).await > 0 {
            let turn = self.gather(&mut queue, &mut group).await;
            self.admit(std::mem::take(&mut group), turn).await;
        }
    }

    /// Waits for company; gives the turn if it came meanwhile.
    async fn gather(&self, queue: &mut mpsc::Receiver<Waiting>, group: &mut Vec<Waiting>) -> Option<OwnedSemaphorePermit> {
        let end = Instant::now() + self.wait;
        let mut bytes = bytes_of(group);
        let mut first_new = group.len();
        let is_full = |bytes: usize, group: &[Waiting]| bytes >= GROUP_BYTES_MAX || group.len() >= GROUP_REQUESTS_MAX;
        while !is_full(bytes, group) {
            let until = end.min(Instant::now() + self.quiet);
            let room = GROUP_REQUESTS_MAX - group.len();
            match timeout_at(until, queue.recv_many(group, room)).await {
                Ok(more) if more > 0 => bytes += bytes_of(&group[first_new..]),
                _ => break,
            }
            first_new = group.len();
        }
        while !is_full(bytes, group) {
            let room = GROUP_REQUESTS_MAX - group.len();
            tokio::select! {
                biased;
                turn = Arc::clone(&self.turns).acquire_owned() => return turn.ok(),
                more = queue.recv_many(group, room) => {
                    if more == 0 {
                        break;
                    }
                    bytes += bytes_of(&group[first_new..]);
                    first_new = group.len();
                }
            }
        }
        None
    }

    /// Decodes a group and hands it on.
    async fn admit(&self, group: Vec<Waiting>, turn: Option<OwnedSemaphorePermit>) {
        // Read after all of the group have come: each event meets what was granted, withdrawn and erased before it was sent.
        let view = match self.inner.view().await {
            Ok(view) => view,
            Err(error) => return fail(group.into_iter().map(|waiting| waiting.answer), error),
        };
        let consents_sequence = view.consents.sequence();
        let (mut parts, mut answers) = (Vec::with_capacity(group.len()), Vec::with_capacity(group.len()));
        for thread in self.decode(group, &view) {
            match thread.await {
                Ok(decoded) => {
                    for (part, answer) in decoded {
                        match part {
                            Some(part) => {
                                parts.push(part);
                                answers.push(answer);
                            }
                            None => fail([answer], IngestError::Worker("a body could not be decoded".to_owned())),
                        }
                    }
                }
                // Its answers are gone with it: they are told that the server is stopping.
                Err(error) => tracing::error!(%error, "a group of requests was lost"),
            }
        }
        let turn = match turn {
            Some(turn) => Ok(turn),
            None => Arc::clone(&self.turns).acquire_owned().await,
        };
        if let (Ok(turn), false) = (turn, parts.is_empty()) {
            // The committing task ends after this one.
            let _ended = self.to_commit.send(Admitted { parts, answers, consents_sequence, turn }).await;
        }
    }

    /// Each body's part, in order, in threads by bytes; none where its decoder panicked, so that others do not fail with it.
    fn decode(&self, group: Vec<Waiting>, view: &View) -> Vec<tokio::task::JoinHandle<Vec<(Option<Part>, Answer)>>> {
        let mut threads = Vec::new();
        let mut rest = group.into_iter().peekable();
        while rest.peek().is_some() {
            let mut bytes = 0;
            let mut of_thread = Vec::new();
            while bytes < THREAD_BYTES
                && let Some(waiting) = rest.next()
            {
                bytes += waiting.body.len();
                of_thread.push(waiting);
            }
            let (inner, view) = (Arc::clone(&self.inner), view.clone());
            threads.push(tokio::task::spawn_blocking(move || {
                let decode = |waiting: Waiting| {
                    let Waiting { body, format, only_partner, answer } = waiting;
                    let part = catch_unwind(AssertUnwindSafe(|| inner.decode(&body, format, only_partner.as_deref(), &view)));
                    (part.ok(), answer)
                };
                of_thread.into_iter().map(decode).collect()
            }));
        }
        threads
    }
}

fn bytes_of(group: &[Waiting]) -> usize {
    group.iter().map(|waiting| waiting.body.len()).sum()
}

/// Tells all of them that nothing was stored.
pub(super) fn fail(answers: impl IntoIterator<Item = Answer>, error: IngestError) {
    let error = Arc::new(error);
    tracing::error!(error = error.as_ref() as &dyn std::error::Error, "events could not be stored");
    for answer in answers {
        answer.send(Err(SubmitError::Failed(Arc::clone(&error))));
    }
}
