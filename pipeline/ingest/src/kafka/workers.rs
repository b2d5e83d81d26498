//! The decoding threads: a chunk becomes a part.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use ameles_core::{Reason, Timestamp};
use tokio::sync::mpsc;

use super::control::Work;
use super::lane::{Chunk, LaneId};
use super::queue::Queue;
use crate::IngestEnv;
use crate::admission::{Admission, Intake, View, Worker};
use crate::batch::Part;
use crate::decode::{Rejection, without_mark};
use crate::lines::Line;
use crate::undeclared::UndeclaredCounter;

/// What the workers share with the assembler.
pub(super) struct Shared {
    /// What admission knows; the assembler brings it up to date.
    pub(super) view: RwLock<View>,
    /// Fields that the contract does not declare, since the start.
    pub(super) undeclared: Mutex<UndeclaredCounter>,
}

impl Shared {
    pub(super) fn view(&self) -> View {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn undeclared(&self) -> MutexGuard<'_, UndeclaredCounter> {
        self.undeclared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A decoded chunk.
pub(super) struct Decoded {
    pub(super) lane: Arc<LaneId>,
    pub(super) part: Box<Part>,
    pub(super) before: Option<i64>,
    pub(super) after: i64,
    pub(super) bytes: usize,
    /// The consents' sequence number that it was admitted under.
    pub(super) consents_sequence: u64,
    /// The latest event's time.
    pub(super) latest: Option<Timestamp>,
}

/// What a worker hands on, with its place in the order read.
pub(super) struct Done {
    pub(super) at: u64,
    pub(super) outcome: Outcome,
}

pub(super) enum Outcome {
    Part(Decoded),
    /// Not for the workers.
    Passed(Work),
}

/// Decodes until the queue is closed and empty.
pub(super) fn work(env: &IngestEnv, queue: &Queue<Work>, shared: &Shared, to_assembler: &mpsc::Sender<Done>) {
    let mut worker = Worker::new(env.k);
    while let Some((at, bytes, work, mut view)) = queue.pop(|| shared.view()) {
        let (outcome, buffer) = match work {
            Work::Chunk(mut chunk) => {
                view.arrival = env.clock.now();
                let decoded = decode(env, &mut worker, &view, &chunk);
                (Outcome::Part(decoded), std::mem::take(&mut chunk.bytes))
            }
            other => (Outcome::Passed(other), Vec::new()),
        };
        // Sent before its room is given back: what waits for the assembler counts as well.
        let sent = to_assembler.blocking_send(Done { at, outcome });
        queue.done(bytes, buffer);
        let counted = std::mem::replace(&mut worker.undeclared, UndeclaredCounter::new(env.k));
        shared.undeclared().merge(counted);
        if sent.is_err() {
            break; // the assembler has gone: the process stops
        }
    }
}

fn decode(env: &IngestEnv, worker: &mut Worker, view: &View, chunk: &Chunk) -> Decoded {
    let admission: &Admission = &env.admission;
    let partner = admission.decoder.contract().roles().partner;
    let first = u64::try_from(chunk.first).unwrap_or(0);
    let mut part = Part::new(Arc::clone(&chunk.lane.source), view.arrival, first, &admission.columns, partner, chunk.messages.len(), 0);
    part.explained = chunk.explained;
    part.partition = Some(chunk.lane.partition);
    let mut start = 0;
    let mut intake = Intake::new(admission, worker, view, None, &mut part);
    for message in &chunk.messages {
        let offset = first + u64::from(message.offset);
        let end = message.end as usize;
        let payload = chunk.bytes.get(start..end).unwrap_or_default();
        start = end;
        if message.too_large {
            intake.reject(Rejection::whole(Reason::TooLarge), offset);
        } else if payload.iter().all(u8::is_ascii_whitespace) {
            // A tombstone, or nothing: a message has to say something.
            intake.reject(Rejection::whole(Reason::MalformedJson), offset);
        } else {
            intake.line(Line::Bytes(without_mark(payload)), offset);
        }
    }
    drop(intake);
    part.finish();
    Decoded {
        lane: Arc::clone(&chunk.lane),
        before: chunk.before,
        after: chunk.after,
        bytes: chunk.bytes.len(),
        consents_sequence: view.consents.sequence(),
        latest: part.rows.iter().map(|row| row.ts).max().map(Timestamp::from_micros),
        part: Box::new(part),
    }
}
