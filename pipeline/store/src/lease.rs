//! Who may write: leases of writers, the maintainer's lock, the gate of commits.
//!
//! All are `flock`s under `<warehouse>/_ameles/`: they end with the process,
//! however it ends. A lease whose lock can be taken is dead.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ameles_core::{Month, Random};
use hashbrown::HashSet;
use rustix::fs::FlockOperation;

use crate::durable;
use crate::splice::throttle::Throttle;
use crate::{StoreError, Warehouse};

/// A writer's right to append; dropped, it ends.
#[derive(Debug)]
pub struct WriterLease {
    pub(crate) warehouse: Warehouse,
    pub(crate) id: String,
    /// The last batch's number; the first has 1.
    pub(crate) batch: u64,
    lock: File,
}

/// The one process that may settle, compact, erase and purge; dropped, the right ends.
#[derive(Debug)]
pub struct Maintainer {
    pub(crate) warehouse: Warehouse,
    id: String,
    generations: AtomicU64,
    rewriting: Mutex<HashSet<Month>>,
    pub(crate) throttle: Arc<Throttle>,
    _lock: File,
}

/// Holds back or waits for commits of batches: see `Warehouse::barrier`.
#[derive(Debug)]
pub(crate) struct Gate(#[allow(dead_code, reason = "its drop opens the gate")] File);

fn folder(warehouse: &Warehouse) -> PathBuf {
    warehouse.root().join("_ameles")
}

fn lease_path(warehouse: &Warehouse, id: &str) -> PathBuf {
    folder(warehouse).join("leases").join(format!("{id}.lock"))
}

fn open_lock(path: &Path) -> Result<File, StoreError> {
    let lock = |source| StoreError::Lock { path: path.display().to_string(), source };
    if let Some(directory) = path.parent() {
        durable::make_directory(directory).map_err(lock)?;
    }
    OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(lock)
}

/// Takes a lock at once, or not at all.
fn try_lock(file: &File, path: &Path) -> Result<bool, StoreError> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(StoreError::Lock { path: path.display().to_string(), source: io::Error::from(errno) }),
    }
}

fn random_id(random: &dyn Random) -> Result<String, StoreError> {
    let mut bytes = [0; 6];
    random.fill(&mut bytes)?;
    Ok(hex::encode(bytes))
}

impl WriterLease {
    /// The lease's id, part of the names of its files: 12 hex characters.
    pub fn id(&self) -> &str {
        &self.id
    }
    /// The warehouse.
    pub fn warehouse(&self) -> &Warehouse {
        &self.warehouse
    }
}

impl Drop for WriterLease {
    fn drop(&mut self) {
        // Unlinked while it is locked: whoever asks later finds no file, and that too means dead.
        let _ = fs::remove_file(lease_path(&self.warehouse, &self.id));
        let _ = rustix::fs::flock(&self.lock, FlockOperation::Unlock);
    }
}

impl Maintainer {
    /// The warehouse.
    pub fn warehouse(&self) -> &Warehouse {
        &self.warehouse
    }
    /// From now on an erasure reads and writes no more than so many bytes a second in files that it splices; `None` lifts the limit.
    pub fn limit_io(&mut self, bytes_per_s: Option<u64>) {
        self.throttle = Arc::new(Throttle::new(bytes_per_s));
    }
    /// An id for a settled generation, never used before.
    pub(crate) fn next_generation(&self) -> String {
        format!("{}{:06x}", self.id, self.generations.fetch_add(1, Ordering::Relaxed))
    }
    /// Claims a month, so that two rewrites of one month cannot run at once.
    pub(crate) fn claim(&self, month: Month) -> Result<Claim<'_>, StoreError> {
        if self.rewriting.lock().unwrap_or_else(PoisonError::into_inner).insert(month) {
            Ok(Claim { maintainer: self, month })
        } else {
            Err(StoreError::Batch(format!("month {month} is being rewritten already")))
        }
    }
}

/// A month that is being rewritten.
pub(crate) struct Claim<'a> {
    maintainer: &'a Maintainer,
    month: Month,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.maintainer.rewriting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.month);
    }
}

impl Warehouse {
    /// Takes a writer's lease: its id names the files that it writes.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub async fn lease(&self, random: &dyn Random) -> Result<WriterLease, StoreError> {
        let id = random_id(random)?;
        let path = lease_path(self, &id);
        let lock = open_lock(&path)?;
        if !try_lock(&lock, &path)? {
            return Err(StoreError::Lock { path: path.display().to_string(), source: io::ErrorKind::AlreadyExists.into() });
        }
        Ok(WriterLease { warehouse: self.clone(), id, batch: 0, lock })
    }

    /// Becomes the maintainer, if no process is.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub async fn try_maintainer(&self, random: &dyn Random) -> Result<Option<Maintainer>, StoreError> {
        let path = folder(self).join("maintainer.lock");
        let lock = open_lock(&path)?;
        if !try_lock(&lock, &path)? {
            return Ok(None);
        }
        let id = random_id(random)?;
        Ok(Some(Maintainer {
            warehouse: self.clone(),
            id,
            generations: AtomicU64::new(0),
            rewriting: Mutex::default(),
            throttle: Arc::new(Throttle::new(None)),
            _lock: lock,
        }))
    }

    /// Whether no process holds the lease any more.
    pub(crate) fn is_dead(&self, lease: &str) -> Result<bool, StoreError> {
        let path = lease_path(self, lease);
        match File::open(&path) {
            Ok(file) => {
                let dead = try_lock(&file, &path)?;
                if dead {
                    let _ = fs::remove_file(&path);
                }
                Ok(dead)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(source) => Err(StoreError::Lock { path: path.display().to_string(), source }),
        }
    }

    /// Held by a batch from its last look at the suppressions until its commit.
    pub(crate) async fn gate(&self) -> Result<Gate, StoreError> {
        self.flock_gate(FlockOperation::LockShared).await
    }

    /// Returns when every batch that looked at the suppressions before this call has committed or failed.
    ///
    /// An erasure calls it before it takes its snapshot: a batch that had looked
    /// before the request came in is then in the snapshot, and any other sees the
    /// request. Without it a stalled batch could bring the subject back.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub async fn barrier(&self) -> Result<(), StoreError> {
        self.flock_gate(FlockOperation::LockExclusive).await.map(drop)
    }

    async fn flock_gate(&self, operation: FlockOperation) -> Result<Gate, StoreError> {
        let path = folder(self).join("commits.lock");
        tokio::task::spawn_blocking(move || {
            let file = open_lock(&path)?;
            rustix::fs::flock(&file, operation)
                .map_err(|errno| StoreError::Lock { path: path.display().to_string(), source: errno.into() })?;
            Ok(Gate(file))
        })
        .await?
    }
}
