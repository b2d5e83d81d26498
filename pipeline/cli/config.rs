//! `ameles.toml`, and the same keys from the environment.
//!
//! Unknown keys and bad values are refused with file, line and what would be
//! right. Every key is also `AMELES__SECTION__KEY`. No secret stands in here:
//! only where it is found.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Deserializer};

use crate::config_fault::Fault;
use crate::kafka_config::KafkaConfig;

/// The whole configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[warehouse]`
    pub warehouse: WarehouseConfig,
    /// `[keys]`
    pub keys: KeysConfig,
    /// `[privacy]`
    pub privacy: PrivacyConfig,
    /// `[ingest]`
    pub ingest: IngestConfig,
    /// `[erasure]`
    pub erasure: ErasureConfig,
    /// `[server]`
    pub server: ServerConfig,
    /// `[maintenance]`
    pub maintenance: MaintenanceConfig,
    /// `[retention]`
    pub retention: RetentionConfig,
    /// `[kafka]`
    pub kafka: KafkaConfig,
    /// `[[report]]`
    #[serde(rename = "report")]
    pub reports: Vec<ReportConfig>,
}

/// Where the Delta tables are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WarehouseConfig {
    /// A folder, relative to the home.
    pub location: String,
}

/// Where the key-encryption key is found: one of three.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysConfig {
    /// A file (default `<home>.key`, mode 0600).
    pub file: Option<PathBuf>,
    /// An environment variable with base64.
    pub env: Option<String>,
    /// A command that prints base64.
    pub command: Option<Vec<String>>,
}

/// The smallest group.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrivacyConfig {
    /// No answer to an analyst rests on fewer devices or users.
    pub k: u32,
    /// MiB that the answers issued about closed months may take; a question that needs more is refused.
    pub issued_mb_max: u64,
}

/// Bounds of ingest.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngestConfig {
    /// The longest line, in bytes.
    pub line_bytes_max: usize,
    /// The largest HTTP body, in bytes.
    pub body_bytes_max: usize,
    /// The most events in a commit.
    pub batch_rows_max: usize,
    /// What an ingest may take of the memory, in MiB.
    pub memory_limit_mb: usize,
}

/// How erasure works.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ErasureConfig {
    /// Seconds that replaced files stay for readers that still have them open.
    pub purge_grace_s: u64,
    /// Days for which an erased subject stays suppressed, from its last dropped event on.
    pub suppression_horizon_days: u32,
    /// The journal outside the home (default `<home>.journal`).
    pub journal: Option<PathBuf>,
    /// Seconds between runs of `serve`.
    pub interval_s: u64,
    /// MiB a second that a run may read and write in the files that it splices; 0 for no limit.
    pub io_limit_mb_s: u64,
}

/// Where `serve` listens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Address and port.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// Certificate chain (PEM); required where the address is not loopback.
    pub tls_certificate: Option<PathBuf>,
    /// Private key (PEM).
    pub tls_key: Option<PathBuf>,
    /// The longest query, in seconds.
    pub query_timeout_s: u64,
    /// Answers of metrics that are kept in memory, in MiB; none with 0.
    pub kept_mb: usize,
}

/// How `serve` looks after the tables.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaintenanceConfig {
    /// Seconds between looks.
    pub interval_s: u64,
    /// Runs of one tier of a month beyond which they are merged into one.
    pub runs_max: usize,
}

/// Retention deletes nothing until it is enforced.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// Whether expired months are deleted.
    pub enforce: bool,
}

/// A scheduled report.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportConfig {
    /// The report's name.
    pub name: String,
    /// When, as cron in UTC.
    pub schedule: String,
}

impl Default for WarehouseConfig {
    fn default() -> Self {
        Self { location: "warehouse".to_owned() }
    }
}
impl Default for PrivacyConfig {
    fn default() -> Self {
        Self { k: 10, issued_mb_max: 256 }
    }
}
impl Default for IngestConfig {
    fn default() -> Self {
        let limits = ameles_core::Limits::default();
        Self {
            line_bytes_max: limits.line_bytes_max,
            body_bytes_max: limits.body_bytes_max,
            batch_rows_max: limits.batch_rows_max,
            memory_limit_mb: 2048,
        }
    }
}
impl Default for ErasureConfig {
    fn default() -> Self {
        Self { purge_grace_s: 60, suppression_horizon_days: 400, journal: None, interval_s: 900, io_limit_mb_s: 0 }
    }
}
impl Default for ServerConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8080)), tls_certificate: None, tls_key: None, query_timeout_s: 60, kept_mb: 64 }
    }
}
impl Default for MaintenanceConfig {
    fn default() -> Self {
        Self { interval_s: 10, runs_max: 16 }
    }
}

/// What `ameles init` writes: every key with its default, explained.
pub const TEMPLATE: &str = include_str!("ameles.toml");

const PREFIX: &str = "AMELES__";
/// A ledger is copied whole into each backup.
const ISSUED_MB_MOST: u64 = 65_536;

impl Config {
    /// Reads the file, then lays the environment's keys over it.
    pub fn load(file: &Path, environment: impl IntoIterator<Item = (String, String)>) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}; `ameles init` makes a home", file.display()))?;
        // The file alone first: its errors then carry its lines.
        let alone: Self = toml::from_str(&text).map_err(|error| anyhow!("{}: {error}", file.display()))?;
        // What the environment gives stands in no file.
        let kafka_secrets = alone.kafka.secret_in_clear();
        let overrides: Vec<_> = environment.into_iter().filter(|(key, _)| key.starts_with(PREFIX)).collect();
        let config = if overrides.is_empty() {
            alone
        } else {
            let mut table: toml::Table = toml::from_str(&text)?;
            for (key, value) in &overrides {
                lay_over(&mut table, key, value)?;
            }
            let names: Vec<_> = overrides.iter().map(|(key, _)| key.as_str()).collect();
            table.try_into().map_err(|error| anyhow!("environment ({}): {error}", names.join(", ")))?
        };
        config.check().and_then(|()| kafka_secrets.map_or(Ok(()), Err)).map_err(|fault| fault.at(file, &text, &overrides))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Fault> {
        let fault = |key: &str, what: String| Err(Fault::new(key, what));
        if self.privacy.k == 0 {
            return fault("privacy.k", "is 0; the smallest group is 1 or more (10 unless there is a reason)".to_owned());
        }
        if self.privacy.issued_mb_max == 0 || self.privacy.issued_mb_max > ISSUED_MB_MOST {
            return fault("privacy.issued_mb_max", format!("is {}; give 1 to {ISSUED_MB_MOST}", self.privacy.issued_mb_max));
        }
        if let Some(what) = location_fault(&self.warehouse.location) {
            return fault("warehouse.location", what.to_owned());
        }
        let secrets = [self.keys.file.is_some(), self.keys.env.is_some(), self.keys.command.is_some()];
        if secrets.into_iter().filter(|given| *given).count() > 1 {
            return fault("keys", "has several of file, env and command; give one of them".to_owned());
        }
        match (&self.server.tls_certificate, &self.server.tls_key) {
            (Some(_), None) => return fault("server.tls_certificate", "is given and server.tls_key is not; they go together".to_owned()),
            (None, Some(_)) => return fault("server.tls_key", "is given and server.tls_certificate is not; they go together".to_owned()),
            _ => {}
        }
        for (name, value, least) in [
            ("ingest.line_bytes_max", self.ingest.line_bytes_max, 1_024),
            ("ingest.body_bytes_max", self.ingest.body_bytes_max, 1_024),
            ("ingest.batch_rows_max", self.ingest.batch_rows_max, 1_000),
            ("ingest.memory_limit_mb", self.ingest.memory_limit_mb, 256),
            ("erasure.suppression_horizon_days", self.erasure.suppression_horizon_days as usize, 1),
            ("maintenance.runs_max", self.maintenance.runs_max, 2),
        ] {
            if value < least {
                return fault(name, format!("is {value}; the least is {least}"));
            }
        }
        if self.retention.enforce {
            return fault("retention.enforce", "is true: deleting expired months is not built yet; leave it false".to_owned());
        }
        self.kafka.check()?;
        for report in &self.reports {
            if report.name != "monthly-activity" {
                return fault("report.name", format!("is {:?}, which is not known; there is monthly-activity", report.name));
            }
            if let Err(error) = crate::maintenance::parse_schedule(&report.schedule) {
                return fault("report.schedule", format!("cannot be read: {error}"));
            }
        }
        Ok(())
    }

    /// The bounds that the crates below hold.
    pub fn limits(&self) -> ameles_core::Limits {
        ameles_core::Limits {
            line_bytes_max: self.ingest.line_bytes_max,
            body_bytes_max: self.ingest.body_bytes_max,
            batch_rows_max: self.ingest.batch_rows_max,
            batch_bytes_max: ameles_core::Limits::batch_bytes_of(self.ingest.memory_limit_mb.saturating_mul(1 << 20)),
            ..ameles_core::Limits::default()
        }
    }
}

/// Why tables cannot lie there; `None` where they can.
pub fn location_fault(location: &str) -> Option<&'static str> {
    if location.trim().is_empty() {
        return Some("is empty; name a folder, such as \"warehouse\"");
    }
    let elsewhere = location.contains("://") && !location.starts_with("file://");
    elsewhere.then_some("is no folder: this build keeps tables in folders; give a path or file:// URL")
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| serde::de::Error::custom("is no address with a port; write one such as \"127.0.0.1:8080\" or \"[::1]:8080\""))
}

fn lay_over(table: &mut toml::Table, key: &str, value: &str) -> anyhow::Result<()> {
    let path: Vec<String> = key[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
    let [section, name] = path.as_slice() else { bail!("{key}: write AMELES__SECTION__KEY") };
    let section = table.entry(section.clone()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    let toml::Value::Table(section) = section else { bail!("{key}: {} is no section with keys", path[0]) };
    // A number, a boolean or an array as in TOML; anything else is text.
    let parsed = toml::from_str::<toml::Table>(&format!("v = {value}")).ok().and_then(|mut table| table.remove("v"));
    section.insert(name.clone(), parsed.unwrap_or_else(|| toml::Value::String(value.to_owned())));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ameles.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(&file, env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_template_is_the_default() {
        let config = load(TEMPLATE, &[]).unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn an_unknown_key_is_refused_with_file_line_and_what_would_be_right() {
        let error = load("[server]\nlisten = \"127.0.0.1:1\"\n[privacy]\nkk = 3\n", &[]).unwrap_err();
        assert!(error.contains("ameles.toml") && error.contains("line 4") && error.contains("expected `k`"), "{error}");
    }

    #[test]
    fn the_environment_lays_over_the_file() {
        let config = load("[privacy]\nk = 3\n", &[("AMELES__PRIVACY__K", "7"), ("AMELES__SERVER__LISTEN", "127.0.0.1:9")]).unwrap();
        assert_eq!((config.privacy.k, config.server.listen.port()), (7, 9));
        assert!(load("", &[("AMELES__PRIVACY__KK", "7")]).unwrap_err().contains("AMELES__PRIVACY__KK"));
    }

    #[test]
    fn a_bad_value_of_the_environment_names_its_variable() {
        let error = load("[privacy]\nk = 3\n", &[("AMELES__PRIVACY__K", "0")]).unwrap_err();
        assert!(error.contains("AMELES__PRIVACY__K") && !error.contains("line"), "{error}");
    }

    #[test]
    fn bad_values_are_refused() {
        for (text, word) in [
            ("[server]\n\n[privacy]\nk = 0", "ameles.toml, line 4: privacy.k is 0"),
            ("[server]\nlisten = \"localhost:8080\"", "127.0.0.1:8080"),
            ("[server]\ntls_key = \"k.pem\"", "line 2"),
            ("[erasure]\nsuppression_horizon_days = 0", "line 2: erasure.suppression_horizon_days"),
            ("[warehouse]\nlocation = \"\"", "line 2: warehouse.location is empty"),
            ("[kafka]\nbrokers = \"b:1\"\ntopics = \"t\"\n[kafka.client]\nsasl.password = \"x\"", "line 5: kafka.client.sasl.password"),
            ("[kafka]\nbrokers = \"b:1\"\n[kafka.client]\n\"ssl.key.pem\" = \"x\"", "line 4: kafka.client.ssl.key.pem"),
            ("[kafka]\ntopics = \"t\"", "line 2: kafka.topics"),
            ("[privacy]\nk = \"x\"", "line 2"),
            ("[privacy]\nissued_mb_max = 0", "privacy.issued_mb_max"),
            ("[keys]\nfile = \"a\"\nenv = \"B\"", "line 1: keys has several"),
            ("[warehouse]\nlocation = \"s3://b\"", "warehouse.location"),
            ("[[report]]\nname = \"monthly-activity\"\nschedule = \"whenever\"", "schedule"),
        ] {
            let error = load(text, &[]).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
