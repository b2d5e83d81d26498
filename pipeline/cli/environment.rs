//! An opened home: keys, ledger, contract and warehouse, ready for a command.

use std::sync::Arc;

use ameles_core::{Clock, SharedClock, SharedRandom, SystemClock, SystemRandom};
use ameles_erasure::{Eraser, FaultPoints, Layout, Settings};
use ameles_ingest::{EnvParts, IngestEnv};
use ameles_ledger::{JournalCheck, Ledger, LedgerKeys, LedgerOptions};
use ameles_pseudonym::{KeyEncryptionKey, Keyring};
use ameles_queries::{Completeness, Guard, Issues, Metrics, SqlLimits};
use ameles_schemas::{Contract, Policy};
use ameles_store::{ReadView, Warehouse};
use anyhow::{Context, anyhow, bail};

use crate::config::{Config, KeysConfig};
use crate::failure::Failure;
use crate::home::Location;

/// Everything that a command works with.
pub struct Environment {
    /// Where it lies.
    pub home: Location,
    /// The configuration.
    pub config: Config,
    /// The data contract, latest version.
    pub contract: Arc<Contract>,
    /// The policy by country.
    pub policy: Arc<Policy>,
    /// A hash of the policy's text, for manifests.
    pub policy_version: String,
    /// The keys.
    pub keyring: Arc<Keyring>,
    /// Requests, suppressions, consents, tokens.
    pub ledger: Ledger,
    /// The tables.
    pub warehouse: Warehouse,
    /// The machine's clock.
    pub clock: SharedClock,
    /// The machine's randomness.
    pub random: SharedRandom,
}

impl Environment {
    /// Opens a home.
    ///
    /// # Errors
    /// A usage failure where configuration, policy, contract or key are wrong.
    pub async fn open(home: &Location) -> Result<Self, Failure> {
        let config = home.load_config()?;
        let (policy, policy_version) = home.load_policy()?;
        let contract = home.load_contract()?;
        let (clock, random) = system();
        let kek = load_key(home, &config.keys).map_err(Failure::usage)?;
        let mut keyring = Keyring::open(&home.keyring(), &kek).map_err(Failure::usage)?;
        keyring.ensure_domains(&domains(&contract), &*clock, &*random)?;
        let options = ledger_options(home, &config);
        let ledger = Ledger::open_with(options, ledger_keys(&keyring)?, clock.clone(), random.clone()).await?;
        let warehouse = Warehouse::create(&home.warehouse(&config), contract.tables()).await?.with_clock(clock.clone());
        Ok(Self {
            home: home.clone(),
            config,
            contract,
            policy,
            policy_version,
            keyring: Arc::new(keyring),
            ledger,
            warehouse,
            clock,
            random,
        })
    }

    /// What ingest works with.
    pub fn ingest(&self) -> Result<Arc<IngestEnv>, Failure> {
        let parts = EnvParts {
            contract: self.contract.clone(),
            policy: self.policy.clone(),
            keyring: &self.keyring,
            ledger: self.ledger.clone(),
            warehouse: self.warehouse.clone(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            limits: self.config.limits(),
            k: self.k(),
        };
        Ok(Arc::new(IngestEnv::new(parts)?))
    }

    /// What erasure works with.
    pub fn eraser(&self) -> Arc<Eraser> {
        let erasure = &self.config.erasure;
        Arc::new(Eraser {
            warehouse: self.warehouse.clone(),
            ledger: self.ledger.clone(),
            keyring: self.keyring.clone(),
            contract: self.contract.clone(),
            policy: self.policy.clone(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            layout: Layout { home: self.home.root().to_owned(), journal: self.home.journal(&self.config) },
            settings: Settings {
                purge_grace_s: erasure.purge_grace_s,
                io_limit_mb_s: (erasure.io_limit_mb_s > 0).then_some(erasure.io_limit_mb_s),
                horizon_days: erasure.suppression_horizon_days,
                limits: self.config.limits(),
                ..Settings::default()
            },
            faults: FaultPoints::default(),
        })
    }

    /// The metrics over the present snapshot and suppressions.
    pub async fn metrics(&self) -> Result<(Arc<ReadView>, Metrics), Failure> {
        let view = ReadView::open(&self.warehouse, self.ledger.suppressions().await?).await?;
        let limits = SqlLimits { timeout: std::time::Duration::from_secs(self.config.server.query_timeout_s), ..SqlLimits::default() };
        let metrics = Metrics::new(view.clone(), completeness(&*self.clock)).with_limits(limits).with_issues(self.issues());
        Ok((view, metrics))
    }

    /// What was issued about closed months, and what room there is for more.
    fn issues(&self) -> Arc<Issues> {
        Issues::new(self.ledger.clone(), self.config.privacy.issued_mb_max << 20)
    }

    /// The smallest group: the configuration's, or the policy's where that asks for more.
    pub fn k(&self) -> u32 {
        self.policy.k().unwrap_or_default().max(self.config.privacy.k)
    }

    /// The guard for the local operator: `--k`, or the configuration's.
    pub fn guard(&self, k: Option<u32>) -> Result<Guard, Failure> {
        match k.unwrap_or(self.k()) {
            0 => Err(Failure::misuse("--k 0: the smallest group is 1 or more")),
            1 => Ok(Guard::None),
            k => Ok(Guard::K(k)),
        }
    }

    /// A ledger that is older than the journal learns from it before anything is served or taken in.
    ///
    /// # Errors
    /// When the journal is missing or damaged: an erasure that only it knows could come back.
    pub async fn take_up_journal(&self) -> Result<(), Failure> {
        match self.ledger.check_journal().await? {
            JournalCheck::UpToDate => Ok(()),
            JournalCheck::ReplayNeeded { entries } => {
                tracing::warn!(
                    "the journal knows {entries} entries more than the ledger, which comes from a backup or a crash: replaying them"
                );
                let replayed = self.ledger.replay_journal().await?;
                tracing::warn!("replayed: {} requests entered again, {} taken up again", replayed.requests.len(), replayed.reopened.len());
                Ok(())
            }
            JournalCheck::Missing => Err(Failure::failed(anyhow::anyhow!(
                "the journal {} is gone: without it an erasure that a backup does not know could come back; restore it first, or begin a new one with `ameles audit restart-journal` where it is lost for good",
                self.home.journal(&self.config).display()
            ))),
            JournalCheck::Damaged { what } => Err(Failure::failed(anyhow::anyhow!(
                "the journal {} is damaged ({what}): restore it first",
                self.home.journal(&self.config).display()
            ))),
        }
    }
}

/// How far answers can be relied on: with files and HTTP alone every source is idle or up to date.
pub fn completeness(clock: &dyn Clock) -> Completeness {
    let watermark = clock.now();
    Completeness { watermark, closed_before: ameles_ingest::closed_before(watermark) }
}

/// The machine's clock and randomness.
pub fn system() -> (SharedClock, SharedRandom) {
    (Arc::new(SystemClock), Arc::new(SystemRandom))
}

/// The pseudonymisation domains of a contract, with the one of event keys.
pub fn domains(contract: &Contract) -> Vec<&str> {
    contract.domains()
}

/// Where the ledger and its journal lie.
pub fn ledger_options(home: &Location, config: &Config) -> LedgerOptions {
    LedgerOptions { path: home.ledger(), journal: home.journal(config), horizon_days: config.erasure.suppression_horizon_days }
}

/// The ledger's own keys.
pub fn ledger_keys(keyring: &Keyring) -> Result<LedgerKeys, Failure> {
    let key = |purpose: &str| keyring.secret(purpose).map(|key| *key.expose());
    Ok(LedgerKeys::new(key("suppression")?, key("journal")?, key("audit")?))
}

/// What a command prints that tells a secret.
pub fn printed_by(command: &[String]) -> anyhow::Result<String> {
    let [program, arguments @ ..] = command else { bail!("it is empty; write [\"program\", \"argument\"]") };
    let output = std::process::Command::new(program)
        .args(arguments)
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} ended with {}", output.status);
    }
    String::from_utf8(output.stdout).map_err(|_| anyhow!("{program} did not print text"))
}

/// Finds the key-encryption key where the configuration says.
pub fn load_key(home: &Location, keys: &KeysConfig) -> anyhow::Result<KeyEncryptionKey> {
    if let Some(name) = &keys.env {
        let text = std::env::var(name).map_err(|_| anyhow!("keys.env: the variable {name} is not set"))?;
        return KeyEncryptionKey::from_base64(&text).with_context(|| format!("keys.env: {name}"));
    }
    if let Some(command) = &keys.command {
        let text = printed_by(command).context("keys.command")?;
        return KeyEncryptionKey::from_base64(text.trim()).context("keys.command");
    }
    Ok(KeyEncryptionKey::load(&home.key_file(keys))?)
}
