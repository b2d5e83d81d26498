//! What the operator configures, and the librdkafka properties made of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

/// Properties that exactly-once rests on, or that are set otherwise: what to do instead.
const OWNED: [(&str, &str); 18] = [
    ("bootstrap.servers", "set kafka.brokers"),
    ("metadata.broker.list", "set kafka.brokers"),
    ("group.id", "set kafka.group"),
    ("enable.auto.commit", "positions are committed with the events"),
    ("auto.commit.enable", "positions are committed with the events"),
    ("auto.commit.interval.ms", "positions are committed with the events"),
    ("enable.auto.offset.store", "positions are committed with the events"),
    ("auto.offset.reset", "a position that the broker does not have stops its partition; see `ameles kafka reset`"),
    ("partition.assignment.strategy", "partitions are assigned cooperatively"),
    ("group.protocol", "partitions are assigned cooperatively"),
    ("group.remote.assignor", "partitions are assigned cooperatively"),
    ("isolation.level", "aborted transactions are never events"),
    ("enable.partition.eof", "it is of no use here"),
    ("statistics.interval.ms", "lag is on /metrics"),
    ("allow.auto.create.topics", "make the topic first"),
    ("log_level", "set RUST_LOG"),
    ("plugin.library.paths", "no code is loaded at run time"),
    ("debug", "set kafka.debug"),
];

/// Longest wait for an answer when the connection is checked.
const CHECK_WAIT: Duration = Duration::from_secs(10);

/// A property's value, which may be a password. Shows nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Property(String);

impl Property {
    /// A value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// How events come from Kafka.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// `host:port,…`
    pub brokers: String,
    /// Topics to read, each with one JSON object a message.
    pub topics: Vec<String>,
    /// The consumer group; processes of one home share it.
    pub group: String,
    /// What quarantine calls the topics; a keyed hash otherwise.
    pub alias: Option<String>,
    /// More librdkafka properties.
    pub client: BTreeMap<String, Property>,
    /// librdkafka's debug contexts, comma-separated.
    pub debug: Option<String>,
    /// Decoding threads.
    pub workers: usize,
    /// The most events in one commit; no more than `Limits::batch_rows_max` either.
    pub batch_rows_max: usize,
    /// How long a commit waits for company, in milliseconds.
    pub batch_ms: u64,
    /// Bytes of messages on their way to a worker.
    pub queue_bytes_max: usize,
    /// Memory for fingerprints of recent events, in bytes; what is more spills.
    pub duplicates_bytes_max: usize,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            topics: Vec::new(),
            group: "ameles".to_owned(),
            alias: None,
            client: BTreeMap::new(),
            debug: None,
            workers: 2,
            batch_rows_max: 512 << 10,
            batch_ms: 1_000,
            queue_bytes_max: 32 << 20,
            duplicates_bytes_max: 512 << 20,
        }
    }
}

/// Settings that cannot be used. Names the key, never its value.
#[derive(Debug, thiserror::Error)]
pub enum KafkaSettingsError {
    /// A key that is not the operator's to set.
    #[error("kafka.client: {key} cannot be set: {instead}")]
    Owned {
        /// The librdkafka property.
        key: String,
        /// What to do.
        instead: &'static str,
    },
    /// This build speaks no TLS or not that kind of SASL.
    #[error("kafka.client: {key} asks for {what}, which this build does not have; build with `--features kafka-tls`")]
    NoTls {
        /// The librdkafka property.
        key: &'static str,
        /// What it asks for.
        what: String,
    },
    /// librdkafka does not take a property.
    #[error("kafka.client: {key}: {problem}")]
    Refused {
        /// The librdkafka property.
        key: String,
        /// Why, without the value.
        problem: String,
    },
    /// Something else about the configuration.
    #[error("kafka: {0}")]
    Invalid(String),
    /// The brokers do not answer, or a topic is not there.
    #[error("kafka: {0}")]
    Unreachable(String),
}

/// A topic as the brokers describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: usize,
}

impl KafkaOptions {
    /// Checks the settings as far as that goes without a broker.
    ///
    /// # Errors
    /// See [`KafkaSettingsError`].
    pub fn check(&self) -> Result<(), KafkaSettingsError> {
        let invalid = |text: &str| Err(KafkaSettingsError::Invalid(text.to_owned()));
        if self.brokers.trim().is_empty() {
            return invalid("brokers is empty; write brokers = \"host:9092\"");
        }
        if self.topics.is_empty() {
            return invalid("topics is empty; write topics = [\"events\"]");
        }
        for topic in &self.topics {
            let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if topic.is_empty() || topic.len() > 249 || !topic.chars().all(valid) {
                return Err(KafkaSettingsError::Invalid(format!("{topic:?} is no topic's name (letters, digits, '.', '_', '-')")));
            }
        }
        if self.group.is_empty() {
            return invalid("group is empty; write group = \"ameles\"");
        }
        for key in self.client.keys() {
            if let Some((_, instead)) = OWNED.iter().find(|(owned, _)| owned == key) {
                return Err(KafkaSettingsError::Owned { key: key.clone(), instead });
            }
        }
        if cfg!(not(feature = "kafka-tls")) {
            self.check_without_tls()?;
        }
        self.client_config().create_native_config().map(drop).map_err(refused)
    }

    fn check_without_tls(&self) -> Result<(), KafkaSettingsError> {
        let value = |key: &str| self.client.get(key).map(|value| value.0.to_ascii_uppercase());
        let protocol = value("security.protocol").unwrap_or_default();
        if protocol == "SSL" || protocol == "SASL_SSL" {
            return Err(KafkaSettingsError::NoTls { key: "security.protocol", what: protocol });
        }
        let mechanism = value("sasl.mechanisms").or_else(|| value("sasl.mechanism")).unwrap_or_else(|| "GSSAPI".to_owned());
        if protocol == "SASL_PLAINTEXT" && mechanism != "PLAIN" {
            // The names of mechanisms are few; anything else is not repeated.
            let known = ["GSSAPI", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"].contains(&mechanism.as_str());
            return Err(KafkaSettingsError::NoTls {
                key: "sasl.mechanisms",
                what: if known { mechanism } else { "an unknown mechanism".to_owned() },
            });
        }
        Ok(())
    }

    /// Defaults, then the operator's properties, then those that are ours.
    pub(super) fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (key, value) in [
            ("client.id", "ameles"),
            ("session.timeout.ms", "20000"),
            ("max.poll.interval.ms", "300000"),
            ("socket.keepalive.enable", "true"),
            ("reconnect.backoff.max.ms", "10000"),
            ("topic.metadata.refresh.interval.ms", "60000"),
            // Memory: what is fetched ahead, for all partitions together.
            ("queued.max.messages.kbytes", "65536"),
            ("queued.min.messages", "1000000"),
            ("fetch.message.max.bytes", "2097152"),
            ("fetch.max.bytes", "33554432"),
            ("fetch.wait.max.ms", "100"),
            // A full queue is looked at again soon: the default of a second starves a fast reader.
            ("fetch.queue.backoff.ms", "20"),
        ] {
            config.set(key, value);
        }
        for (key, value) in &self.client {
            config.set(key, &value.0);
        }
        for (key, value) in [
            ("bootstrap.servers", self.brokers.as_str()),
            ("group.id", self.group.as_str()),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("isolation.level", "read_committed"),
            ("allow.auto.create.topics", "false"),
            ("statistics.interval.ms", "2000"),
        ] {
            config.set(key, value);
        }
        // The topics' ids are told in debug lines only: see `context::topic_id`.
        config.set("debug", self.debug.as_ref().map_or("topic".to_owned(), |debug| format!("topic,{debug}")));
        config.set_log_level(RDKafkaLogLevel::Debug);
        config
    }

    /// Asks the brokers for the topics. Blocks for some seconds at most.
    ///
    /// # Errors
    /// When the settings are wrong, no broker answers, or a topic is not there.
    pub fn connect_check(&self) -> Result<(String, Vec<TopicInfo>), KafkaSettingsError> {
        self.check()?;
        let mut config = self.client_config();
        // Nobody joins the group for a look.
        config.remove("group.id").remove("debug").set("statistics.interval.ms", "0").set_log_level(RDKafkaLogLevel::Critical);
        let consumer: BaseConsumer<super::context::Quiet> = config.create_with_context(super::context::Quiet).map_err(refused)?;
        let unreachable = |what: String| KafkaSettingsError::Unreachable(what);
        let brokers = &self.brokers;
        let failed = |error: KafkaError| {
            unreachable(format!(
                "no answer from {brokers} within {} s ({}); is the address right, and does it expect TLS or SASL?",
                CHECK_WAIT.as_secs(),
                describe(&error)
            ))
        };
        let mut topics = Vec::new();
        for name in &self.topics {
            let metadata = consumer.fetch_metadata(Some(name.as_str()), CHECK_WAIT).map_err(failed)?;
            let found = metadata.topics().iter().find(|topic| topic.name() == name);
            match found.map(|topic| (topic.error(), topic.partitions().len())) {
                Some((None, partitions)) if partitions > 0 => topics.push(TopicInfo { name: name.clone(), partitions }),
                Some((Some(error), _)) => {
                    let code: rdkafka::error::RDKafkaErrorCode = error.into();
                    return Err(unreachable(format!("topic {name}: {code}")));
                }
                _ => return Err(unreachable(format!("topic {name} is not there; make it first"))),
            }
        }
        let cluster = consumer.client().fetch_cluster_id(CHECK_WAIT).ok_or_else(|| unreachable(format!("{brokers} told no cluster id")))?;
        Ok((cluster, topics))
    }
}

/// What librdkafka did not like, without the value, which may be a password.
pub(super) fn refused(error: KafkaError) -> KafkaSettingsError {
    match error {
        KafkaError::ClientConfig(_, description, key, value) => {
            // librdkafka repeats the value in its words: `Invalid value "…" for configuration property "…"`.
            let mut problem = description;
            if !value.is_empty() {
                problem = problem.replace(&value, "…");
            }
            KafkaSettingsError::Refused { key, problem }
        }
        // Says which property, such as `ssl.ca.location failed: …`, and never repeats a secret.
        KafkaError::ClientCreation(problem) => KafkaSettingsError::Invalid(problem),
        other => KafkaSettingsError::Invalid(describe(&other)),
    }
}

/// An error in words, without values of properties.
pub(super) fn describe(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, _, key, _) => format!("property {key} cannot be used"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn options(client: &[(&str, &str)]) -> KafkaOptions {
        KafkaOptions {
            brokers: "127.0.0.1:9".to_owned(),
            topics: vec!["events".to_owned()],
            client: client.iter().map(|(key, value)| ((*key).to_owned(), Property::new(*value))).collect(),
            ..KafkaOptions::default()
        }
    }

    fn problem(client: &[(&str, &str)]) -> String {
        options(client).check().unwrap_err().to_string()
    }

    #[test]
    fn what_exactly_once_rests_on_is_not_the_operators_to_set() {
        for (key, _) in OWNED {
            let problem = problem(&[(key, "x")]);
            assert!(problem.contains(key), "{problem}");
        }
        options(&[("session.timeout.ms", "6000"), ("client.rack", "a")]).check().unwrap();
    }

    #[test]
    fn a_value_that_may_be_a_password_is_in_no_message() {
        for client in
            [[("session.timeout.ms", "hunter2")], [("no.such.property", "hunter2")], [("enable.sasl.oauthbearer.unsecure.jwt", "hunter2")]]
        {
            let error = options(&client).check().unwrap_err();
            let text = format!("{error} {error:?} {:?}", options(&client));
            assert!(!text.contains("hunter2"), "{text}");
            assert!(text.contains(client[0].0), "{text}");
        }
    }

    #[test]
    fn tls_needs_a_build_with_tls() {
        let tls = options(&[
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanisms", "SCRAM-SHA-512"),
            ("sasl.password", "hunter2"),
            ("sasl.username", "u"),
        ]);
        if cfg!(feature = "kafka-tls") {
            tls.check().unwrap();
        } else {
            assert!(tls.check().unwrap_err().to_string().contains("kafka-tls"));
            assert!(problem(&[("security.protocol", "SASL_PLAINTEXT")]).contains("GSSAPI"));
        }
        options(&[
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanisms", "PLAIN"),
            ("sasl.username", "u"),
            ("sasl.password", "hunter2"),
        ])
        .check()
        .unwrap();
    }

    #[test]
    fn names_and_addresses_are_looked_at() {
        let check = |change: &dyn Fn(&mut KafkaOptions)| {
            let mut options = options(&[]);
            change(&mut options);
            options.check().unwrap_err().to_string()
        };
        assert!(check(&|options| options.brokers.clear()).contains("brokers"));
        assert!(check(&|options| options.topics.clear()).contains("topics"));
        assert!(check(&|options| options.topics.push("a:b".to_owned())).contains("a:b"));
        assert!(check(&|options| options.group.clear()).contains("group"));
    }
}
