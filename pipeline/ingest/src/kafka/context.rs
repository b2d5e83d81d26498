//! What librdkafka tells besides messages: rebalances, errors, log lines, statistics.
//!
//! Nothing is done here but noting it: the reading thread acts on it after the poll that brought it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use serde::Deserialize;

use super::status::Status;

/// A rebalance that waits for its answer.
pub(super) enum Rebalance {
    Assign(TopicPartitionList),
    Revoke(TopicPartitionList),
}

/// Notes what librdkafka tells.
pub(super) struct Context {
    status: Arc<Status>,
    /// The consumer is being closed: nobody is there to answer a rebalance.
    closing: AtomicBool,
    /// Debug lines are wanted in the log.
    debug: bool,
    noted: Mutex<Noted>,
    /// Told and taken by the reading thread alone.
    news: AtomicBool,
}

/// What was told since it was last taken.
#[derive(Default)]
pub(super) struct Noted {
    pub(super) rebalances: Vec<Rebalance>,
    /// Ids of topics that were seen for the first time, or have become others.
    pub(super) topic_ids: Vec<(String, i64)>,
}

impl Context {
    pub(super) fn new(status: Arc<Status>, debug: bool) -> Self {
        Self { status, closing: AtomicBool::new(false), debug, noted: Mutex::default(), news: AtomicBool::new(false) }
    }

    /// From here on a rebalance is answered at once, by giving up what is asked for.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether something was told since it was last taken.
    pub(super) fn has_news(&self) -> bool {
        self.news.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self) -> Noted {
        self.news.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.noted())
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let assign = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Relaxed) {
            if !assign && let Err(error) = consumer.incremental_unassign(partitions) {
                tracing::debug!(%error, "partitions could not be given up while closing");
            }
            return;
        }
        self.news.store(true, Ordering::Relaxed);
        let partitions = partitions.clone();
        self.noted().rebalances.push(if assign { Rebalance::Assign(partitions) } else { Rebalance::Revoke(partitions) });
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", "{facility}: {text}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(target: "librdkafka", "{facility}: {text}"),
            RDKafkaLogLevel::Debug => {
                if let Some((topic, id)) = topic_id(text) {
                    self.news.store(true, Ordering::Relaxed);
                    self.noted().topic_ids.push((topic.to_owned(), id));
                }
                if self.debug {
                    tracing::info!(target: "librdkafka", "{facility}: {text}");
                }
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        self.status.error(code);
        // The reading thread gets the partition's own errors as well, and acts on them.
        let code = code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
        if self.status.worth_telling(&code) {
            tracing::warn!(error = %code, "kafka: {reason}; trying on");
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice::<Statistics>(statistics) {
            Ok(statistics) => self.status.ends(statistics.ends()),
            Err(error) => tracing::debug!(%error, "librdkafka's statistics cannot be read"),
        }
    }
}

/// Says nothing: for a look at the brokers.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Quiet {}

/// Whether an error says that a position is not there.
pub(super) fn is_out_of_range(code: Option<RDKafkaErrorCode>) -> bool {
    matches!(code, Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::NoOffset))
}

/// The topic and its id (63 bits of it) from librdkafka's line on it, which is the one place where it tells the id to a
/// program without `unsafe` code: `Topic events changed id from AAAAAAAAAAAAAAAAAAAAAA to PWr9kFhwSNGJcd9S5fcmVg`.
/// A test holds the line to that form.
fn topic_id(line: &str) -> Option<(&str, i64)> {
    let (topic, ids) = line.rsplit_once("Topic ")?.1.split_once(" changed id from ")?;
    let id = ids.split_once(" to ")?.1.trim_end_matches(|c: char| c.is_ascii_whitespace() || c == '=');
    if id.is_empty() || id.bytes().all(|byte| byte == b'A') {
        return None; // a broker that knows no ids
    }
    // FNV-1a: no secret is in it, and two ids of one topic must differ.
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    Some((topic, (hash >> 1) as i64))
}

/// What is read of librdkafka's statistics.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    topics: HashMap<String, Topic>,
}

#[derive(Deserialize)]
struct Topic {
    #[serde(default)]
    partitions: HashMap<String, Partition>,
}

#[derive(Deserialize)]
struct Partition {
    partition: i32,
    #[serde(default = "unknown")]
    hi_offset: i64,
    #[serde(default = "unknown")]
    ls_offset: i64,
}

const fn unknown() -> i64 {
    -1
}

impl Statistics {
    /// Each partition's end: the next offset that will be written, as far as known.
    fn ends(self) -> Vec<(String, i32, i64)> {
        let mut ends = Vec::new();
        for (name, topic) in self.topics {
            for partition in topic.partitions.into_values() {
                // What an open transaction holds back cannot be read yet.
                let end = if partition.ls_offset >= 0 { partition.ls_offset } else { partition.hi_offset };
                if partition.partition >= 0 && end >= 0 {
                    ends.push((name.clone(), partition.partition, end));
                }
            }
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_topics_id_is_read_from_the_line_on_it() {
        let line = |id: &str| format!("[thrd:main]: Topic a.b changed id from AAAAAAAAAAAAAAAAAAAAAA to {id}");
        let (first, second) = (line("PWr9kFhwSNGJcd9S5fcmVg"), line("PWr9kFhwSNGJcd9S5fcmVw"));
        let (first, second) = (topic_id(&first).unwrap(), topic_id(&second).unwrap());
        assert_eq!((first.0, second.0), ("a.b", "a.b"));
        assert!(first.1 >= 0 && second.1 >= 0 && first.1 != second.1);
        assert_eq!(topic_id(&line("AAAAAAAAAAAAAAAAAAAAAA")), None);
        assert_eq!(topic_id("[thrd:main]: Topic a.b [0] changed leader from 1 to 2"), None);
    }

    #[test]
    fn ends_are_read_from_the_statistics() {
        let text = br#"{"name":"x","topics":{"t":{"topic":"t","partitions":{"0":{"partition":0,"hi_offset":7,"ls_offset":5},
            "1":{"partition":1,"hi_offset":-1001},"-1":{"partition":-1,"hi_offset":3},"2":{"partition":2,"hi_offset":9,"ls_offset":-1001}}}}}"#;
        let mut ends = serde_json::from_slice::<Statistics>(text).unwrap().ends();
        ends.sort();
        assert_eq!(ends, [("t".to_owned(), 0, 5), ("t".to_owned(), 2, 9)]);
    }
}
