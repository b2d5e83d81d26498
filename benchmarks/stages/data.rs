//! The events that the stages are given, and a home for them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ameles_core::{Limits, SharedClock, SharedRandom, SystemClock, SystemRandom};
use ameles_ingest::{EnvParts, IngestEnv};
use ameles_ledger::{Ledger, LedgerKeys};
use ameles_pseudonym::{KeyEncryptionKey, Keyring};
use ameles_schemas::{Contract, Policy};
use ameles_store::Warehouse;
use anyhow::{Context, Result};

/// Bytes of a chunk: what a reader hands to a worker.
const CHUNK_BYTES: usize = 2 << 20;
/// The smallest group of the default configuration.
const K: u32 = 10;

/// Lines of the fleet.
pub struct Events {
    /// Where they come from.
    pub path: PathBuf,
    /// Whole lines, and how many.
    pub chunks: Vec<(Vec<u8>, usize)>,
    /// Lines in all.
    pub count: usize,
    /// Bytes in all.
    pub bytes: usize,
    /// Device, user and event id of those that have all three.
    pub identifiers: Vec<[String; 3]>,
}

impl Events {
    /// At most `count` lines of a file.
    pub fn read(path: &Path, count: usize) -> Result<Self> {
        let mut reader = BufReader::new(std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?);
        let mut chunks = vec![(Vec::with_capacity(CHUNK_BYTES), 0)];
        let mut identifiers = Vec::new();
        let mut lines = 0;
        while lines < count {
            let Some((chunk, of_chunk)) = chunks.last_mut() else { break };
            let start = chunk.len();
            if reader.read_until(b'\n', chunk)? == 0 {
                break;
            }
            lines += 1;
            *of_chunk += 1;
            let event: serde_json::Value = serde_json::from_slice(&chunk[start..])?;
            let text = |field: &str| event[field].as_str().map(str::to_owned);
            if let (Some(device), Some(user), Some(id)) = (text("device_id"), text("user_id"), text("event_id")) {
                identifiers.push([device, user, id]);
            }
            if chunk.len() >= CHUNK_BYTES {
                chunks.push((Vec::with_capacity(CHUNK_BYTES), 0));
            }
        }
        chunks.retain(|(_, lines)| *lines > 0);
        let bytes = chunks.iter().map(|(chunk, _)| chunk.len()).sum();
        Ok(Self { path: path.to_owned(), chunks, count: lines, bytes, identifiers })
    }
}

/// A home in a temporary folder.
pub struct Home {
    /// What ingest works with.
    pub env: IngestEnv,
    /// The ledger.
    pub ledger: Ledger,
    /// The tables.
    pub warehouse: Warehouse,
    /// The keys.
    pub keyring: Keyring,
    /// Where it lies.
    pub folder: tempfile::TempDir,
}

impl Home {
    /// As `ameles init` makes one.
    pub async fn create() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (clock, random): (SharedClock, SharedRandom) = (Arc::new(SystemClock), Arc::new(SystemRandom));
        let contract = Contract::default_contract();
        let kek = KeyEncryptionKey::create(&folder.path().join("key"), random.as_ref())?;
        let mut domains = vec!["device", "user", "event"];
        domains.extend(contract.domains());
        domains.sort_unstable();
        domains.dedup();
        let keyring = Keyring::create(&folder.path().join("keyring.json"), &kek, &domains, clock.as_ref(), random.as_ref())?;
        let (suppression, journal, audit) = (keyring.secret("suppression")?, keyring.secret("journal")?, keyring.secret("audit")?);
        let keys = LedgerKeys::new(*suppression.expose(), *journal.expose(), *audit.expose());
        let ledger = Ledger::create(&folder.path().join("ledger.sqlite"), keys, clock.clone(), random.clone()).await?;
        let warehouse = Warehouse::create(&folder.path().join("warehouse"), contract.tables()).await?;
        let env = IngestEnv::new(EnvParts {
            contract: Arc::new(contract),
            policy: Arc::new(Policy::parse(Policy::text_default())?),
            keyring: &keyring,
            ledger: ledger.clone(),
            warehouse: warehouse.clone(),
            clock,
            random,
            limits: Limits::default(),
            k: K,
        })?;
        Ok(Self { env, ledger, warehouse, keyring, folder })
    }
}
