//! What operators see of the source: counters, lag, what is wrong.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ameles_core::{Tally, Timestamp};
use rdkafka::error::RDKafkaErrorCode;

use super::lane::{LaneId, Stopped};

/// The same problem is told again after so long.
const TELL_AGAIN: Duration = Duration::from_secs(30);
/// Problems remembered as told.
const TOLD_MAX: usize = 256;

/// One partition that this process reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset to be read after what is committed; `None` where nothing is yet.
    pub position: Option<i64>,
    /// The next offset that the broker will write, as far as known.
    pub end: Option<i64>,
    /// Why it is not read any further.
    pub stopped: Option<String>,
}

impl PartitionStatus {
    /// Messages written and not yet committed here, as far as known.
    pub fn lag(&self) -> Option<u64> {
        u64::try_from(self.end?.saturating_sub(self.position.unwrap_or(0))).ok()
    }
}

/// What became of errors, by who reported them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KafkaErrors {
    /// The brokers, or the way to them.
    pub broker: u64,
    /// The warehouse or the ledger: the batch is read again.
    pub storage: u64,
    /// Another process had committed the same partition: the batch is read again from there.
    pub moved: u64,
}

/// The source at one moment.
#[derive(Debug, Clone, Default)]
pub struct KafkaStatus {
    /// Messages in committed batches, and what became of them.
    pub tally: Tally,
    /// Bytes of messages taken from the brokers, those that are read again included.
    pub bytes: u64,
    /// Batches committed.
    pub commits: u64,
    /// When the last one was.
    pub last_commit: Option<Timestamp>,
    /// Rebalances of the group that this process took part in.
    pub rebalances: u64,
    /// Errors since the start.
    pub errors: KafkaErrors,
    /// What keeps the source from committing at the moment.
    pub failing: Option<String>,
    /// The partitions that this process reads.
    pub partitions: Vec<PartitionStatus>,
    /// The slowest partition's event time; `None` while no partition is read.
    pub watermark: Option<Timestamp>,
}

#[derive(Default)]
struct Inner {
    status: KafkaStatus,
    partitions: BTreeMap<(String, i32), PartitionStatus>,
    told: BTreeMap<String, Instant>,
}

/// Shared by the source's threads and tasks.
#[derive(Default)]
pub(super) struct Status(Mutex<Inner>);

impl Status {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self) -> KafkaStatus {
        let inner = self.lock();
        KafkaStatus { partitions: inner.partitions.values().cloned().collect(), ..inner.status.clone() }
    }

    pub(super) fn get_watermark(&self) -> Option<Timestamp> {
        self.lock().status.watermark
    }

    pub(super) fn error(&self, _code: Option<RDKafkaErrorCode>) {
        self.lock().status.errors.broker += 1;
    }

    /// Whether a problem was not told lately.
    pub(super) fn worth_telling(&self, problem: &str) -> bool {
        let told = &mut self.lock().told;
        let now = Instant::now();
        if told.get(problem).is_some_and(|at| now.duration_since(*at) < TELL_AGAIN) {
            return false;
        }
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        told.insert(problem.to_owned(), now);
        true
    }

    pub(super) fn failed(&self, moved: bool, problem: String) {
        let status = &mut self.lock().status;
        if moved {
            status.errors.moved += 1;
        } else {
            status.errors.storage += 1;
            status.failing = Some(problem);
        }
    }

    /// The brokers cannot be reached, or can again.
    pub(super) fn unreachable(&self, problem: Option<String>) {
        self.lock().status.failing = problem;
    }

    pub(super) fn committed<'a>(&self, tally: &Tally, positions: impl Iterator<Item = (&'a LaneId, i64)>, at: Timestamp) {
        let inner = &mut *self.lock();
        inner.status.tally.add(tally);
        inner.status.commits += 1;
        inner.status.last_commit = Some(at);
        inner.status.failing = None;
        for (lane, position) in positions {
            if let Some(partition) = inner.partitions.get_mut(&(lane.topic.to_string(), lane.partition)) {
                partition.position = Some(position);
            }
        }
    }

    pub(super) fn received(&self, bytes: u64) {
        self.lock().status.bytes += bytes;
    }

    pub(super) fn rebalanced(&self) {
        self.lock().status.rebalances += 1;
    }

    pub(super) fn watermark(&self, watermark: Option<Timestamp>) {
        self.lock().status.watermark = watermark;
    }

    /// A partition is read from here on.
    pub(super) fn placed(&self, lane: &LaneId, position: Option<i64>, end: Option<i64>, stopped: Option<Stopped>) {
        let key = (lane.topic.to_string(), lane.partition);
        let status = PartitionStatus {
            topic: key.0.clone(),
            partition: key.1,
            position,
            end,
            stopped: stopped.map(|stopped| stopped.explain(lane)),
        };
        self.lock().partitions.insert(key, status);
    }

    pub(super) fn stopped(&self, lane: &LaneId, stopped: Stopped) {
        if let Some(partition) = self.lock().partitions.get_mut(&(lane.topic.to_string(), lane.partition)) {
            partition.stopped = Some(stopped.explain(lane));
        }
    }

    pub(super) fn gone(&self, lane: &LaneId) {
        self.lock().partitions.remove(&(lane.topic.to_string(), lane.partition));
    }

    pub(super) fn ends(&self, ends: Vec<(String, i32, i64)>) {
        let inner = &mut *self.lock();
        for (topic, number, end) in ends {
            if let Some(partition) = inner.partitions.get_mut(&(topic, number)) {
                partition.end = Some(end);
            }
        }
    }
}

impl Stopped {
    /// For the operator: what was found and what to do.
    pub(super) fn explain(self, lane: &LaneId) -> String {
        let (topic, partition) = (&lane.topic, lane.partition);
        let reset = format!("`ameles kafka reset {topic}`");
        match self {
            Self::Beyond { position, high } => format!(
                "topic {topic}, partition {partition}: the events are committed up to offset {position}, and the partition ends at {high}: \
                 the topic was made anew or has lost messages; nothing more of it is read; {reset} reads it from its beginning"
            ),
            Self::Lost { position, low } => format!(
                "topic {topic}, partition {partition}: the events are committed up to offset {position}, and the partition begins at {low}: \
                 the messages in between were deleted before they were read; nothing more of it is read; \
                 {reset} --partition {partition} goes on with what is left"
            ),
            Self::Recreated { position } => format!(
                "topic {topic}, partition {partition}: the events are committed up to offset {position}, and the topic is another one of the \
                 same name: it was deleted and made anew; nothing more of it is read; {reset} reads it from its beginning"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn lane() -> LaneId {
        LaneId { topic: "t".into(), partition: 3, app: "kafka:c:t:3".into(), source: "s".into(), number: 0 }
    }

    #[test]
    fn lag_is_what_is_written_and_not_committed() {
        let status = Status::default();
        status.ends(vec![("t".to_owned(), 3, 100)]);
        assert!(status.get().partitions.is_empty(), "another process reads it");
        status.placed(&lane(), None, None, None);
        assert_eq!(status.get().partitions[0].lag(), None);
        status.ends(vec![("t".to_owned(), 3, 100)]);
        assert_eq!(status.get().partitions[0].lag(), Some(100));
        let mut tally = Tally::default();
        tally.accept(40);
        status.committed(&tally, [(&lane(), 40)].into_iter(), Timestamp::from_micros(5));
        let seen = status.get();
        assert_eq!((seen.partitions[0].lag(), seen.commits, seen.last_commit), (Some(60), 1, Some(Timestamp::from_micros(5))));
        status.gone(&lane());
        assert!(status.get().partitions.is_empty());
    }

    #[test]
    fn a_problem_is_told_once_in_a_while() {
        let status = Status::default();
        assert!(status.worth_telling("a"));
        assert!(!status.worth_telling("a"));
        assert!(status.worth_telling("b"));
    }

    #[test]
    fn a_stopped_partition_names_the_command() {
        for stopped in [Stopped::Beyond { position: 9, high: 3 }, Stopped::Lost { position: 1, low: 4 }, Stopped::Recreated { position: 9 }]
        {
            let text = stopped.explain(&lane());
            assert!(text.contains("ameles kafka reset t") && text.contains("partition 3"), "{text}");
        }
    }
}
