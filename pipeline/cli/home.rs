//! The home: where everything lies, and how it is made and opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ameles_schemas::{Contract, Policy};
use anyhow::{Context, bail};

use crate::config::{Config, KeysConfig};
use crate::failure::Failure;

/// The names inside a home.
#[derive(Debug, Clone)]
pub struct Location {
    root: PathBuf,
}

impl Location {
    /// A home at `root`, there or not.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }
    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// `ameles.toml`
    pub fn config(&self) -> PathBuf {
        self.root.join("ameles.toml")
    }
    /// `policy.toml`
    pub fn policy(&self) -> PathBuf {
        self.root.join("policy.toml")
    }
    /// The sealed keys.
    pub fn keyring(&self) -> PathBuf {
        self.root.join("keyring.json")
    }
    /// The ledger's database.
    pub fn ledger(&self) -> PathBuf {
        self.root.join("ledger.db")
    }
    /// The versions of the data contract.
    pub fn contracts(&self) -> PathBuf {
        self.root.join("contracts")
    }
    /// Where reports that `serve` writes go.
    pub fn reports(&self) -> PathBuf {
        self.root.join("reports")
    }
    /// Where the journal is, outside the home.
    pub fn journal(&self, config: &Config) -> PathBuf {
        match &config.erasure.journal {
            Some(path) => self.root.join(path),
            None => self.beside("journal"),
        }
    }
    /// The folder of the Delta tables.
    pub fn warehouse(&self, config: &Config) -> PathBuf {
        let location = config.warehouse.location.as_str();
        self.root.join(location.strip_prefix("file://").unwrap_or(location))
    }
    /// Where the key-encryption key is by default, outside the home.
    pub fn key_file(&self, keys: &KeysConfig) -> PathBuf {
        match &keys.file {
            Some(path) => self.root.join(path),
            None => self.beside("key"),
        }
    }

    /// `<home>.extension`, whatever way the home is written.
    fn beside(&self, extension: &str) -> PathBuf {
        let root = std::path::absolute(&self.root).unwrap_or_else(|_| self.root.clone());
        let mut name = root.components().as_path().as_os_str().to_owned();
        name.push(".");
        name.push(extension);
        PathBuf::from(name)
    }

    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// A usage failure with file and line.
    pub fn load_config(&self) -> Result<Config, Failure> {
        if !self.config().exists() {
            return Err(Failure::misuse(format!(
                "there is no home at {}: `ameles init` makes one, --home or AMELES_HOME names another",
                self.root.display()
            )));
        }
        Config::load(&self.config(), std::env::vars()).map_err(Failure::usage)
    }

    /// Reads the policy, with a hash of its text.
    ///
    /// # Errors
    /// A usage failure with file and line.
    pub fn load_policy(&self) -> Result<(Arc<Policy>, String), Failure> {
        let file = self.policy();
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display())).map_err(Failure::usage)?;
        let policy = Policy::parse(&text).map_err(|error| Failure::usage(error).context(file.display().to_string()))?;
        let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        Ok((Arc::new(policy), format!("sha256:{}", hex::encode(hash))))
    }

    /// Reads the latest version of the contract, checking that the versions follow on each other.
    ///
    /// # Errors
    /// A usage failure that names the file.
    pub fn load_contract(&self) -> Result<Arc<Contract>, Failure> {
        let mut latest: Option<Contract> = None;
        for version in 1.. {
            let file = self.contract_file(version);
            if !file.exists() {
                break;
            }
            let contract = read_contract(&file)?;
            if let Some(before) = &latest {
                before
                    .check_successor(&contract)
                    .map_err(|error| Failure::usage(error).context(format!("{} breaks readers", file.display())))?;
            }
            latest = Some(contract);
        }
        latest.map(Arc::new).ok_or_else(|| Failure::misuse(format!("there is no contract at {}", self.contract_file(1).display())))
    }

    /// The file of one version of the contract.
    pub fn contract_file(&self, version: u32) -> PathBuf {
        self.contracts().join(format!("v{version}.json"))
    }
}

/// Reads a contract from a file.
///
/// # Errors
/// A usage failure that lists each fault with field and reason.
pub fn read_contract(file: &Path) -> Result<Contract, Failure> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display())).map_err(Failure::usage)?;
    Contract::parse(&text).map_err(|error| Failure::usage(error).context(format!("{} is refused", file.display())))
}

/// Writes a file and its folder entry durably; refuses to replace one.
pub fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create_new(path).with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(|| format!("cannot write {}", path.display()))?;
    let Some(folder) = path.parent() else { bail!("{} has no folder", path.display()) };
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).with_context(|| format!("cannot sync {}", folder.display()))
}
