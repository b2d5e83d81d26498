//! The reading thread: polls the consumer, cuts what comes into chunks, and answers rebalances.
//!
//! It owns the consumer and the lanes, so that nothing has to be locked per message. Whatever goes wrong ends in one
//! of two ways: *again* (all lanes are placed anew from a fresh snapshot, by a seek), or a new *session* (a new
//! consumer, which joins the group again). Both start from what the log says; neither knows more.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use tokio::runtime::Handle;

use super::context::{Context, Noted, Rebalance, is_out_of_range};
use super::control::{Control, ReadAgain, Told, Work, backoff};
use super::lane::{Lane, Stopped};
use super::place::list;
use super::queue::Queue;
use super::settings::{KafkaOptions, describe};
use super::status::Status;
use crate::IngestEnv;

/// How long a poll waits for a message.
const POLL: Duration = Duration::from_millis(50);
/// A message waits no longer for company in its chunk.
const CHUNK_AGE: Duration = Duration::from_millis(100);
/// Messages between two looks at everything else, and between two looks at the clock, where they come slowly.
const MESSAGES_PER_LOOK: u32 = 256;
const MESSAGES_PER_CLOCK: u32 = 8;
/// How long the workers may be behind before partitions are paused, which costs fetching again what was fetched ahead.
const STALL: Duration = Duration::from_secs(2);
/// How long a rebalance or the end waits for what is on its way to be committed.
const FLUSH_WAIT: Duration = Duration::from_secs(30);
/// How often positions are compared with what the broker has.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// How often the log is asked whether a stopped partition was reset.
const RESET_EVERY: Duration = Duration::from_secs(3);
/// How long one question to the brokers may take.
pub(super) const ASK_WAIT: Duration = Duration::from_secs(5);
/// Attempts after an error wait from so long to so long.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

pub(super) type Client = BaseConsumer<Context>;

/// Why a session ends.
pub(super) enum End {
    /// The source was asked to stop.
    Stopped,
    /// The consumer is of no more use.
    Failed(String),
}

impl From<KafkaError> for End {
    fn from(error: KafkaError) -> Self {
        Self::Failed(describe(&error))
    }
}

pub(super) struct Reader {
    pub(super) env: Arc<IngestEnv>,
    pub(super) options: KafkaOptions,
    pub(super) handle: Handle,
    pub(super) control: Arc<Control>,
    pub(super) status: Arc<Status>,
    pub(super) queue: Arc<Queue<Work>>,
    pub(super) cluster: String,
    pub(super) lanes: Vec<Lane>,
    /// What the brokers say the topics' ids are.
    pub(super) topic_ids: HashMap<String, i64>,
    /// The number of the next lane.
    pub(super) lanes_made: u32,
    /// The lane of the last message: messages of one partition come together.
    last: usize,
    /// Work that found no room.
    held: VecDeque<Work>,
    stalled_since: Option<Instant>,
    paused: bool,
    /// When everything is read again after an error.
    pub(super) again_at: Option<Instant>,
    /// Attempts since the last one that went well.
    attempts: u32,
    now: Instant,
    next_check: Instant,
    next_reset: Instant,
}

impl Reader {
    pub(super) fn new(
        env: Arc<IngestEnv>,
        options: KafkaOptions,
        handle: Handle,
        control: Arc<Control>,
        status: Arc<Status>,
        queue: Arc<Queue<Work>>,
    ) -> Self {
        let now = Instant::now();
        Self {
            env,
            options,
            handle,
            control,
            status,
            queue,
            cluster: String::new(),
            lanes: Vec::new(),
            topic_ids: HashMap::new(),
            lanes_made: 0,
            last: 0,
            held: VecDeque::new(),
            stalled_since: None,
            paused: false,
            again_at: None,
            attempts: 0,
            now,
            next_check: now + CHECK_EVERY,
            next_reset: now + RESET_EVERY,
        }
    }

    /// Reads until asked to stop.
    pub(super) fn run(mut self) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            match self.session() {
                End::Stopped => break,
                End::Failed(problem) => {
                    if began.elapsed() > RETRY.1 {
                        failures = 0;
                    }
                    let wait = backoff(failures, RETRY.0, RETRY.1);
                    failures += 1;
                    tracing::error!("kafka: {problem}; joining the group anew in {} ms", wait.as_millis());
                    self.status.unreachable(Some(problem));
                    self.forget_lanes();
                    self.sleep(wait);
                }
            }
        }
        self.queue.close();
    }

    /// One consumer, from its joining the group to its end.
    fn session(&mut self) -> End {
        let context = Context::new(Arc::clone(&self.status), self.options.debug.is_some());
        let consumer: Client = match self.options.client_config().create_with_context(context) {
            Ok(consumer) => consumer,
            Err(error) => return End::Failed(super::settings::refused(error).to_string()),
        };
        let end = self.with_consumer(&consumer).err().unwrap_or(End::Stopped);
        if matches!(end, End::Stopped) {
            if !self.flush() {
                tracing::warn!("kafka: what was read last could not be committed before the end; it is read again at the next start");
            }
            if let Some(told) = self.control.take() {
                self.store_offsets(&consumer, told);
            }
        }
        consumer.context().close();
        drop(consumer); // leaves the group
        end
    }

    fn with_consumer(&mut self, consumer: &Client) -> Result<(), End> {
        self.find_cluster(consumer)?;
        let topics: Vec<&str> = self.options.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics)?;
        tracing::info!("kafka: reading {} in the group {}", self.options.topics.join(", "), self.options.group);
        let mut since_look = 0;
        loop {
            let polled = consumer.poll(if self.held.is_empty() { POLL } else { Duration::ZERO });
            let idle = !matches!(polled, Some(Ok(_)));
            if !idle && consumer.context().has_news() {
                self.look(consumer)?; // what was told before this message concerns it
            }
            match polled {
                Some(Ok(message)) => self.message(&message),
                Some(Err(error)) => self.error(consumer, &error)?,
                None => {}
            }
            since_look += 1;
            let slow = || since_look % MESSAGES_PER_CLOCK == 0 && self.now.elapsed() >= POLL;
            if idle || since_look >= MESSAGES_PER_LOOK || slow() {
                since_look = 0;
                self.look(consumer)?;
            }
        }
    }

    /// The cluster's id is part of every position's.
    fn find_cluster(&mut self, consumer: &Client) -> Result<(), End> {
        let mut attempt = 0;
        loop {
            if self.control.stopping() {
                return Err(End::Stopped);
            }
            if let Some(cluster) = consumer.client().fetch_cluster_id(ASK_WAIT) {
                if !self.cluster.is_empty() && self.cluster != cluster {
                    tracing::warn!("kafka: the brokers belong to another cluster than before");
                }
                self.cluster = cluster;
                self.status.unreachable(None);
                return Ok(());
            }
            // Log lines and errors wait in the consumer's queue.
            let _told_by_the_context = consumer.poll(Duration::ZERO);
            let problem = format!("no broker of {} answers", self.options.brokers);
            if self.status.worth_telling(&problem) {
                tracing::warn!("kafka: {problem}; trying on");
            }
            self.status.unreachable(Some(problem));
            self.sleep(backoff(attempt, RETRY.0, Duration::from_secs(5)));
            attempt += 1;
        }
    }

    fn message(&mut self, message: &BorrowedMessage<'_>) {
        if self.again_at.is_some() {
            return; // it is read again
        }
        let (topic, partition) = (message.topic(), message.partition());
        let is_it = |lane: &Lane| lane.id.partition == partition && *lane.id.topic == *topic;
        if !self.lanes.get(self.last).is_some_and(is_it) {
            let Some(place) = self.lanes.iter().position(is_it) else { return };
            self.last = place;
        }
        let lane = &mut self.lanes[self.last];
        if lane.stopped.is_some() {
            return;
        }
        let queue = &self.queue;
        let payload = message.payload().unwrap_or_default();
        let full = lane.push(message.offset(), payload, self.env.limits.line_bytes_max, self.now, || queue.buffer());
        if let Some(chunk) = full {
            self.send(Work::Chunk(chunk));
        }
    }

    /// Everything that is not a message.
    fn look(&mut self, consumer: &Client) -> Result<(), End> {
        self.now = Instant::now();
        if let Some(told) = self.control.take() {
            if let Some(why) = told.read_again {
                self.again_later(consumer, why)?;
            }
            if !told.committed.is_empty() {
                self.attempts = 0;
            }
            let stop = told.stop;
            self.store_offsets(consumer, told);
            if stop {
                return Err(End::Stopped);
            }
        }
        let Noted { rebalances, topic_ids } = consumer.context().take();
        for (topic, id) in topic_ids {
            self.topic_id(consumer, &topic, id)?;
        }
        for rebalance in rebalances {
            match rebalance {
                Rebalance::Assign(partitions) => self.assign(consumer, &partitions)?,
                Rebalance::Revoke(partitions) => self.revoke(consumer, &partitions)?,
            }
        }
        self.send_aged();
        self.make_room(consumer)?;
        if self.again_at.is_some_and(|at| self.now >= at) {
            self.again(consumer)?;
        }
        if self.now >= self.next_check {
            self.next_check = self.now + CHECK_EVERY;
            self.check(consumer, false)?;
        }
        if self.now >= self.next_reset {
            self.next_reset = self.now + RESET_EVERY;
            self.look_for_resets(consumer)?;
        }
        Ok(())
    }

    fn error(&mut self, consumer: &Client, error: &KafkaError) -> Result<(), End> {
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            return Err(End::Failed(describe(error)));
        }
        if is_out_of_range(error.rdkafka_error_code()) {
            self.check(consumer, true)?;
        }
        Ok(()) // librdkafka tries on; the context has counted and told it
    }

    /// Positions in the group are for operators' tools: they follow the log and are never read.
    fn store_offsets(&self, consumer: &Client, told: Told) {
        if told.committed.is_empty() {
            return;
        }
        let committed = told.committed.iter().map(|(lane, position)| (&**lane, Some(*position)));
        if let Err(error) = list(committed).and_then(|positions| consumer.commit(&positions, CommitMode::Async)) {
            tracing::debug!(%error, "the group's offsets were not stored");
        }
    }

    /// Puts work on its way, behind what found no room before.
    pub(super) fn send(&mut self, work: Work) {
        if let Work::Chunk(chunk) = &work {
            self.status.received(chunk.bytes.len() as u64);
        }
        if !self.held.is_empty() {
            self.held.push_back(work);
            return;
        }
        let bytes = work.bytes();
        if let Err(work) = self.queue.push(work, bytes, POLL) {
            self.held.push_back(work);
        }
    }

    /// Sends what was held back, for as long as `wait`; tells whether all is gone.
    fn send_held(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        while let Some(work) = self.held.pop_front() {
            let bytes = work.bytes();
            if let Err(work) = self.queue.push(work, bytes, until.saturating_duration_since(Instant::now())) {
                self.held.push_front(work);
                return false;
            }
        }
        true
    }

    fn send_aged(&mut self) {
        for at in 0..self.lanes.len() {
            if self.lanes[at].opened.is_some_and(|opened| self.now.duration_since(opened) >= CHUNK_AGE) {
                self.send_open(at);
            }
        }
    }

    pub(super) fn send_open(&mut self, at: usize) {
        if let Some(chunk) = self.lanes[at].close() {
            self.send(Work::Chunk(chunk));
        }
    }

    /// Where the workers are behind: waits a moment, then pauses the partitions, so that the consumer can still be
    /// polled and memory does not grow.
    fn make_room(&mut self, consumer: &Client) -> Result<(), End> {
        if self.send_held(POLL) {
            self.stalled_since = None;
            if self.paused && self.again_at.is_none() {
                self.paused = false;
                consumer.resume(&self.readable()?)?;
            }
            return Ok(());
        }
        let since = *self.stalled_since.get_or_insert(self.now);
        if !self.paused && self.now.duration_since(since) >= STALL {
            self.pause(consumer)?;
        }
        Ok(())
    }

    pub(super) fn pause(&mut self, consumer: &Client) -> Result<(), End> {
        self.paused = true;
        Ok(consumer.pause(&self.readable()?)?)
    }

    pub(super) const fn is_paused(&self) -> bool {
        self.paused
    }

    /// All lanes that are not stopped.
    pub(super) fn readable(&self) -> Result<TopicPartitionList, KafkaError> {
        list(self.lanes.iter().filter(|lane| lane.stopped.is_none()).map(|lane| (&*lane.id, None)))
    }

    /// Sends all that was read and waits until it is committed.
    pub(super) fn flush(&mut self) -> bool {
        if self.again_at.is_some() {
            return false; // void already
        }
        let until = Instant::now() + FLUSH_WAIT;
        for at in 0..self.lanes.len() {
            self.send_open(at);
        }
        let (answer, answered) = mpsc::sync_channel(1);
        self.held.push_back(Work::Flush(answer));
        let sent = self.send_held(FLUSH_WAIT);
        sent && answered.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap_or(false)
    }

    /// A batch failed: nothing more is read until the next attempt.
    fn again_later(&mut self, consumer: &Client, why: ReadAgain) -> Result<(), End> {
        let wait = if why.moved { Duration::from_millis(50) } else { RETRY.0 };
        let wait = backoff(self.attempts, wait, if why.moved { Duration::from_secs(5) } else { RETRY.1 });
        self.attempts += 1;
        self.void_later(consumer, wait)
    }

    /// All that was read and is not committed is void, and read again after a while.
    pub(super) fn void_later(&mut self, consumer: &Client, wait: Duration) -> Result<(), End> {
        self.held.retain(|work| !matches!(work, Work::Chunk(_)));
        self.lanes.iter_mut().for_each(|lane| drop(lane.close()));
        self.again_at = Some(Instant::now() + wait);
        self.pause(consumer)
    }

    /// Places all lanes anew.
    fn again(&mut self, consumer: &Client) -> Result<(), End> {
        let placed = self.place_all(consumer)?;
        if !placed {
            let wait = backoff(self.attempts, RETRY.0, RETRY.1);
            self.attempts += 1;
            self.again_at = Some(Instant::now() + wait);
            return Ok(());
        }
        self.again_at = None;
        self.paused = false;
        Ok(consumer.resume(&self.readable()?)?)
    }

    /// The consumer is gone, and the partitions with it.
    pub(super) fn forget_lanes(&mut self) {
        self.held.retain(|work| !matches!(work, Work::Chunk(_)));
        let gone: Vec<_> = self.lanes.drain(..).map(|lane| lane.id).collect();
        gone.iter().for_each(|lane| self.status.gone(lane));
        self.again_at = None;
        self.paused = false;
        self.send(Work::Anew);
        self.send(Work::Gone(gone));
        self.send_held(FLUSH_WAIT);
    }

    /// Stops reading a partition whose position the broker does not have.
    pub(super) fn stop_lane(&mut self, consumer: &Client, at: usize, why: Stopped) -> Result<(), End> {
        let lane = &mut self.lanes[at];
        if lane.stopped.is_none() {
            tracing::error!("kafka: {}", why.explain(&lane.id));
            drop(lane.close());
            lane.stopped = Some(why);
            self.status.stopped(&lane.id, why);
        }
        Ok(consumer.pause(&list(std::iter::once((&*self.lanes[at].id, None)))?)?)
    }

    pub(super) fn sleep(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until && !self.control.stopping() {
            std::thread::sleep(POLL.min(until.saturating_duration_since(Instant::now())));
        }
    }
}
