//! Puts parts in order, decides what depends on order, and closes batches; one is committed while the next one grows.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, mpsc as blocking};
use std::time::Duration;

use ameles_core::{Month, Timestamp};
use ameles_store::Txn;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::committing::{Order, Outcome as Committed};
use super::control::{Control, ReadAgain, Work};
use super::lane::LaneId;
use super::settings::KafkaOptions;
use super::status::Status;
use super::workers::{Decoded, Done, Outcome, Shared};
use crate::admission::{Ordered, View};
use crate::commit::Batch;
use crate::{IngestEnv, IngestError, Watermark, closed_before};

/// Bytes of messages in one commit.
const BATCH_BYTES_MAX: usize = 512 << 20;
/// Rejected rows in one commit.
const REJECTED_MAX: usize = 1 << 20;
/// How often the watermark is worked out when nothing comes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Assembler {
    pub(super) env: Arc<IngestEnv>,
    options: KafkaOptions,
    shared: Arc<Shared>,
    control: Arc<Control>,
    status: Arc<Status>,
    ordered: Ordered,
    watermark: Watermark,
    /// Partitions that are in the watermark or may come to be.
    lanes: BTreeMap<u32, Arc<LaneId>>,
    batch: Batch,
    positions: BTreeMap<u32, (Arc<LaneId>, i64)>,
    bytes: usize,
    rows: usize,
    rejected: usize,
    /// When the batch's first part came.
    since: Option<Instant>,
    committing: bool,
    /// Something failed: what comes is void until the reader begins anew.
    void: bool,
    /// Who waits for all before to be committed.
    flushes: Vec<blocking::SyncSender<bool>>,
    /// Other processes may have committed what this one must recognise.
    remember: bool,
}

impl Assembler {
    pub(super) async fn new(
        env: Arc<IngestEnv>,
        options: KafkaOptions,
        shared: Arc<Shared>,
        control: Arc<Control>,
        status: Arc<Status>,
    ) -> Result<Self, IngestError> {
        let ordered = new_order(&env).await?;
        Ok(Self {
            env,
            options,
            shared,
            control,
            status,
            ordered,
            watermark: Watermark::default(),
            lanes: BTreeMap::new(),
            batch: Batch::default(),
            positions: BTreeMap::new(),
            bytes: 0,
            rows: 0,
            rejected: 0,
            since: None,
            committing: false,
            void: false,
            flushes: Vec::new(),
            remember: false,
        })
    }

    /// Works until the workers are gone and all is committed.
    pub(super) async fn run(
        mut self,
        mut done: mpsc::Receiver<Done>,
        to_commit: mpsc::Sender<Order>,
        mut committed: mpsc::Receiver<Committed>,
    ) {
        let mut waiting: BTreeMap<u64, Outcome> = BTreeMap::new();
        let mut next = 0;
        let mut open = true;
        let mut look_at = Instant::now();
        while open || self.committing {
            let due = self.due();
            let room = !(self.is_full() && self.committing);
            tokio::select! {
                part = done.recv(), if open && room => match part {
                    None => open = false,
                    Some(Done { at, outcome }) => {
                        waiting.insert(at, outcome);
                        while let Some(outcome) = waiting.remove(&next) {
                            next += 1;
                            self.take(outcome).await;
                        }
                    }
                },
                outcome = committed.recv(), if self.committing => self.committed(outcome),
                () = sleep_until(due.unwrap_or(look_at)), if due.is_some() => {}
                () = sleep_until(look_at) => {
                    look_at = Instant::now() + LOOK_EVERY;
                    self.publish();
                }
            }
            if !self.committing && (self.is_full() || self.due().is_some_and(|due| due <= Instant::now()) || !open) {
                self.flush(&to_commit).await;
            }
            self.answer_flushes();
        }
    }

    /// When the batch is to be committed.
    fn due(&self) -> Option<Instant> {
        if self.committing || self.batch.txns.is_empty() {
            return None;
        }
        let wait = if self.flushes.is_empty() { Duration::from_millis(self.options.batch_ms) } else { Duration::ZERO };
        self.since.map(|since| since + wait)
    }

    fn is_full(&self) -> bool {
        let rows_max = self.options.batch_rows_max.min(self.env.limits.batch_rows_max);
        self.rows >= rows_max || self.bytes >= BATCH_BYTES_MAX || self.rejected >= REJECTED_MAX
    }

    async fn take(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Part(_) if self.void => {}
            Outcome::Part(decoded) => {
                if let Err(error) = self.part(decoded).await {
                    self.fail(&error);
                }
            }
            Outcome::Passed(Work::Flush(answer)) => self.flushes.push(answer),
            Outcome::Passed(Work::Anew) => self.begin_anew().await,
            Outcome::Passed(Work::Gained(lanes)) => {
                let now = self.env.clock.now();
                for (lane, is_behind) in lanes {
                    if is_behind {
                        // What it holds is not known yet: until it is, no month closes.
                        self.watermark.observe(lane.number, Timestamp::from_micros(0), now);
                    }
                    self.lanes.insert(lane.number, lane);
                }
                self.remember = true;
                self.publish();
            }
            Outcome::Passed(Work::Gone(lanes)) => {
                for lane in lanes {
                    self.watermark.forget(lane.number);
                    self.lanes.remove(&lane.number);
                }
                self.publish();
            }
            Outcome::Passed(Work::Chunk(_)) => {} // workers make parts of them
        }
    }

    async fn part(&mut self, decoded: Decoded) -> Result<(), IngestError> {
        let Decoded { lane, mut part, before, after, bytes, consents_sequence, latest } = decoded;
        // A part must go on where the one before ended: anything else would skip messages or take them twice.
        if let Some(txn) = self.batch.txns.iter().find(|txn| txn.app == lane.app)
            && before != Some(txn.after)
        {
            return Err(IngestError::Worker(format!("partition {} of {} came out of order", lane.partition, lane.topic)));
        }
        self.ordered.forget_recorded(consents_sequence);
        self.ordered.part(&mut part).await?;
        if let Some(latest) = latest {
            self.watermark.observe(lane.number, latest, part.arrival);
        }
        self.bytes += bytes;
        self.rows += part.kept();
        self.rejected += part.rejected.len();
        self.since.get_or_insert_with(Instant::now);
        self.batch.advance(vec![Txn { app: lane.app.clone(), before, after }]);
        self.batch.parts.push(*part);
        self.positions.insert(lane.number, (lane, after));
        Ok(())
    }

    /// Hands the batch to the committing task.
    async fn flush(&mut self, to_commit: &mpsc::Sender<Order>) {
        if self.batch.txns.is_empty() {
            return;
        }
        if let Err(error) = self.record().await {
            self.fail(&error);
            return;
        }
        let positions = std::mem::take(&mut self.positions).into_values().collect();
        let order = Order { batch: std::mem::take(&mut self.batch), positions, remember: std::mem::take(&mut self.remember) };
        self.clear();
        self.committing = true;
        if to_commit.send(order).await.is_err() {
            self.committing = false;
            self.fail(&IngestError::Worker("the committing task has gone".to_owned()));
        }
    }

    /// Grants and withdrawals first: if the commit fails they are recorded again, which changes nothing.
    async fn record(&mut self) -> Result<(), IngestError> {
        self.ordered.record().await?;
        self.ordered.note_drops(self.env.clock.now()).await?;
        self.ordered.refresh().await?;
        self.publish();
        Ok(())
    }

    fn clear(&mut self) {
        self.batch = Batch::default();
        self.positions.clear();
        (self.bytes, self.rows, self.rejected) = (0, 0, 0);
        self.since = None;
    }

    fn committed(&mut self, outcome: Option<Committed>) {
        self.committing = false;
        match outcome {
            None => self.fail(&IngestError::Worker("the committing task has gone".to_owned())),
            Some(Committed::Landed { tally, positions }) => {
                let at = self.env.clock.now();
                self.status.committed(&tally, positions.iter().map(|(lane, position)| (&**lane, *position)), at);
                self.control.committed(positions.into_iter());
            }
            Some(Committed::Failed(error)) => self.fail(&error),
        }
    }

    /// Nothing of what is here can be committed: the reader goes back to where the log stands.
    fn fail(&mut self, error: &IngestError) {
        let moved = is_moved(error);
        let problem = chain(error);
        if moved {
            tracing::warn!("kafka: {problem}");
        } else if self.status.worth_telling(&problem) {
            tracing::error!("kafka: a batch could not be stored: {problem}; nothing is lost, it is read again");
        }
        self.status.failed(moved, problem);
        self.clear();
        self.void = true;
        self.control.read_again(ReadAgain { moved });
    }

    async fn begin_anew(&mut self) {
        self.clear();
        self.void = false;
        self.remember = true;
        match new_order(&self.env).await {
            Ok(ordered) => {
                self.ordered = ordered;
                self.publish();
            }
            Err(error) => self.fail(&error),
        }
    }

    fn answer_flushes(&mut self) {
        if self.flushes.is_empty() || self.committing || !self.batch.txns.is_empty() {
            return;
        }
        for answer in self.flushes.drain(..) {
            // Who asked may have stopped waiting.
            let _ = answer.try_send(!self.void);
        }
    }

    /// Lets the workers know what the ledger says now and which months have closed.
    fn publish(&self) {
        let (suppressions, consents) = self.ordered.view();
        let watermark = self.watermark.at(self.env.clock.now());
        self.status.watermark(Some(watermark).filter(|_| !self.lanes.is_empty()));
        let open: Option<Month> = Some(closed_before(watermark));
        let mut view = self.shared.view.write().unwrap_or_else(PoisonError::into_inner);
        let same = view.suppressions.sequence() == suppressions.sequence() && view.consents.sequence() == consents.sequence();
        if !same || view.closed_before != open {
            *view = View::new(suppressions, consents, view.arrival, open);
        }
    }
}

async fn new_order(env: &IngestEnv) -> Result<Ordered, IngestError> {
    let suppressions = env.ledger.suppressions().await.map_err(IngestError::ledger)?;
    let consents = env.ledger.consents().await.map_err(IngestError::ledger)?;
    Ok(Ordered::new(env.ledger.clone(), suppressions, consents))
}

/// Whether another process had committed the source meanwhile.
fn is_moved(error: &IngestError) -> bool {
    let IngestError::Store(cause) = error else { return false };
    matches!(cause.downcast_ref(), Some(ameles_store::StoreError::TxnMoved { .. }))
}

/// An error with its causes.
fn chain(error: &IngestError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        text.push_str(": ");
        text.push_str(&deeper.to_string());
        cause = deeper.source();
    }
    text
}
