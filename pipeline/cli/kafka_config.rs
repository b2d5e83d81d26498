//! `[kafka]` of `ameles.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ameles_ingest::{KafkaOptions, Property};
use anyhow::Context;
use serde::{Deserialize, Deserializer};

use crate::config_fault::Fault;
use crate::environment::printed_by;

/// Where events come from Kafka; without brokers there is no such source.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// `host:port,…`
    pub brokers: String,
    /// The topics; as text, separated by commas.
    #[serde(deserialize_with = "topics")]
    pub topics: Vec<String>,
    /// The consumer group that all processes of this home share.
    pub group: String,
    /// What quarantine calls the topics; a keyed hash otherwise.
    pub alias: Option<String>,
    /// The most events in a commit.
    pub batch_rows_max: usize,
    /// How long a commit waits for company, in milliseconds.
    pub batch_ms: u64,
    /// librdkafka's debug contexts, comma-separated.
    pub debug: Option<String>,
    /// More librdkafka properties.
    pub client: ClientProperties,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        let KafkaOptions { group, batch_rows_max, batch_ms, .. } = KafkaOptions::default();
        let (brokers, topics) = (String::new(), Vec::new());
        Self { brokers, topics, group, alias: None, batch_rows_max, batch_ms, debug: None, client: ClientProperties::default() }
    }
}

/// A property as written, or where it is found.
#[derive(Clone, PartialEq, Eq)]
enum Value {
    Given(Property),
    File(PathBuf),
    Env(String),
    Command(Vec<String>),
}

/// `[kafka.client]`: librdkafka's names, quoted or not. Shows no values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClientProperties(BTreeMap<String, Value>);

impl std::fmt::Debug for ClientProperties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<'de> Deserialize<'de> for ClientProperties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = toml::Table::deserialize(deserializer)?;
        let mut properties = BTreeMap::new();
        flatten("", &table, &mut properties).map_err(serde::de::Error::custom)?;
        Ok(Self(properties))
    }
}

/// `security.protocol = "SSL"` is nested tables to TOML where the key is not quoted.
fn flatten(prefix: &str, table: &toml::Table, into: &mut BTreeMap<String, Value>) -> Result<(), String> {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let value = match value {
            toml::Value::String(text) => Value::Given(Property::new(text.clone())),
            toml::Value::Integer(number) => Value::Given(Property::new(number.to_string())),
            toml::Value::Float(number) => Value::Given(Property::new(number.to_string())),
            toml::Value::Boolean(truth) => Value::Given(Property::new(truth.to_string())),
            toml::Value::Table(inner) => match (inner.len(), inner.get("file"), inner.get("env")) {
                (1, Some(toml::Value::String(file)), _) => Value::File(PathBuf::from(file)),
                (1, _, Some(toml::Value::String(name))) => Value::Env(name.clone()),
                (1, None, None) if inner.get("command").is_some_and(toml::Value::is_array) => {
                    let words = inner.get("command").and_then(toml::Value::as_array).into_iter().flatten();
                    let words = words.map(|word| word.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
                    Value::Command(words.filter(|words| !words.is_empty()).ok_or_else(|| format!("{key}: command is a list of words"))?)
                }
                _ => {
                    flatten(&key, inner, into)?;
                    continue;
                }
            },
            _ => {
                return Err(format!(
                    "{key}: write text, a number, a boolean, {{ file = \"…\" }}, {{ env = \"…\" }} or {{ command = [\"…\"] }}"
                ));
            }
        };
        into.insert(key, value);
    }
    Ok(())
}

fn topics<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Topics {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Topics::deserialize(deserializer)? {
        Topics::List(topics) => topics,
        Topics::Text(text) => text.split(',').map(|topic| topic.trim().to_owned()).filter(|topic| !topic.is_empty()).collect(),
    })
}

/// Whether a property of librdkafka's is a password, a client's secret or a private key.
fn is_secret(key: &str) -> bool {
    key.ends_with("password") || key.ends_with("secret") || key == "ssl.key.pem" || key == "sasl.oauthbearer.config"
}

impl KafkaConfig {
    /// Whether events come from Kafka.
    pub fn is_on(&self) -> bool {
        !self.brokers.trim().is_empty()
    }

    /// What can be said without reading secrets or asking a broker.
    pub fn check(&self) -> Result<(), Fault> {
        if !self.is_on() {
            if !self.topics.is_empty() {
                return Err(Fault::new("kafka.topics", "is given and kafka.brokers is not; write brokers = \"host:9092\""));
            }
            return Ok(());
        }
        if self.batch_rows_max < 1_000 {
            return Err(Fault::new("kafka.batch_rows_max", format!("is {}; the least is 1000", self.batch_rows_max)));
        }
        if !(10..=60_000).contains(&self.batch_ms) {
            return Err(Fault::new("kafka.batch_ms", format!("is {}; 10 to 60000 is right", self.batch_ms)));
        }
        Ok(())
    }

    /// The first secret among the properties that is written out; for what a file says, not the environment.
    pub fn secret_in_clear(&self) -> Option<Fault> {
        let given = self.client.0.iter().filter(|(_, value)| matches!(value, Value::Given(_)));
        let (key, _) = given.into_iter().find(|(key, _)| is_secret(key))?;
        let what = "is a secret and stands in clear; write { file = \"…\" }, { env = \"…\" } or { command = [\"…\"] }";
        Some(Fault::new(format!("kafka.client.{key}"), what))
    }

    /// What the source is started with; secrets are read here. Files are relative to the home.
    pub fn options(&self, home: &Path) -> anyhow::Result<KafkaOptions> {
        let mut client = BTreeMap::new();
        for (key, value) in &self.client.0 {
            let property = match value {
                Value::Given(property) => property.clone(),
                Value::File(file) => {
                    let path = home.join(file);
                    let text =
                        std::fs::read_to_string(&path).with_context(|| format!("kafka.client: {key}: cannot read {}", path.display()))?;
                    Property::new(text.trim_end_matches(['\n', '\r']))
                }
                Value::Env(name) => {
                    let text = std::env::var(name).with_context(|| format!("kafka.client: {key}: the variable {name} cannot be read"))?;
                    Property::new(text)
                }
                Value::Command(words) => {
                    let text = printed_by(words).with_context(|| format!("kafka.client: {key}: command"))?;
                    Property::new(text.trim_end_matches(['\n', '\r']))
                }
            };
            client.insert(key.clone(), property);
        }
        let options = KafkaOptions {
            brokers: self.brokers.clone(),
            topics: self.topics.clone(),
            group: self.group.clone(),
            alias: self.alias.clone(),
            client,
            debug: self.debug.clone(),
            batch_rows_max: self.batch_rows_max,
            batch_ms: self.batch_ms,
            ..KafkaOptions::default()
        };
        options.check()?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<KafkaConfig, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn properties_are_named_as_librdkafka_names_them_quoted_or_not() {
        let config = parse(
            "brokers = \"b:1\"\ntopics = [\"t\"]\n[client]\nsecurity.protocol = \"plaintext\"\n\"sasl.username\" = \"u\"\n\
             session.timeout.ms = 6000\nsasl.password = { env = \"AMELES_NO_SUCH\" }\nssl.key.password.file = \"p\"\n",
        )
        .unwrap();
        let given = |text: &str| Value::Given(Property::new(text));
        let expected = [
            ("sasl.password", Value::Env("AMELES_NO_SUCH".to_owned())),
            ("sasl.username", given("u")),
            ("security.protocol", given("plaintext")),
            ("session.timeout.ms", given("6000")),
            ("ssl.key.password", Value::File("p".into())),
        ];
        // Not `assert_eq`: a value may be a secret and has no `Debug`.
        assert!(config.client.0 == expected.map(|(key, value)| (key.to_owned(), value)).into());
        let error = config.options(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("sasl.password") && error.contains("AMELES_NO_SUCH"), "{error}");
        assert!(parse("[client]\na = [1]").unwrap_err().contains("a: write text"));
    }

    #[test]
    fn a_secret_comes_from_a_file_and_is_shown_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "hunter2\n").unwrap();
        let text = "brokers = \"b:1\"\ntopics = \"t, u\"\n[client]\nsasl.username = \"hunter1\"\nsasl.password = { file = \"secret\" }\n";
        let config = parse(text).unwrap();
        assert_eq!(config.topics, ["t", "u"]);
        let options = config.options(folder.path()).unwrap();
        assert_eq!(options.client["sasl.password"], Property::new("hunter2"));
        let printed = parse(&text.replace("file = \"secret\"", "command = [\"echo\", \"hunter3\"]")).unwrap();
        assert_eq!(printed.options(folder.path()).unwrap().client["sasl.password"], Property::new("hunter3"));
        assert_eq!((config.secret_in_clear(), printed.secret_in_clear()), (None, None));
        let shown = format!("{config:?} {options:?}");
        assert!(!shown.contains("hunter"), "{shown}");
    }

    #[test]
    fn settings_are_checked() {
        assert!(parse("topics = [\"t\"]").unwrap().check().unwrap_err().to_string().contains("kafka.brokers"));
        assert!(parse("brokers = \"b:1\"\nbatch_ms = 1").unwrap().check().unwrap_err().to_string().contains("batch_ms"));
        assert!(parse("").unwrap().check().is_ok());
        let owned = parse("brokers = \"b:1\"\ntopics = \"t\"\n[client]\ngroup.id = \"x\"\n").unwrap();
        assert!(owned.options(Path::new("/")).unwrap_err().to_string().contains("kafka.group"));
    }
}
