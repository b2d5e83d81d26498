//! Opening and making a ledger: the file, its format, its keys.

use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ameles_core::{SharedClock, SharedRandom, SuppressionSet, SuppressionSource, SuppressionUnavailable};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row as _, SqliteConnection, SqlitePool};

use crate::act::{Act, Op};
use crate::consents::KeptBook;
use crate::error::Doing as _;
use crate::journal::{Journal, Position, sync_folder};
use crate::keys::Keys;
use crate::write::Write;
use crate::{JournalError, LedgerError, LedgerKeys, ReplayReport};

/// How long a writer waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);
/// Readers beside the one writer.
const CONNECTIONS_MAX: u32 = 4;
/// Rows that a connection's thread reads ahead of whoever takes them.
const ROWS_AHEAD: usize = 4_096;
/// Each format's change from the one before, in order.
const MIGRATIONS: [&str; 3] = [
    include_str!("../migrations/0001_ledger.sql"),
    include_str!("../migrations/0002_issued.sql"),
    include_str!("../migrations/0003_runs.sql"),
];
/// The format that this version writes.
const KNOWN: i64 = MIGRATIONS.len() as i64;
/// How long a suppression outlasts the last event it dropped, unless configured.
const HORIZON_DAYS: u32 = 3 * 366;

/// Where a ledger and its journal lie.
#[derive(Clone, Debug)]
pub struct LedgerOptions {
    /// The SQLite file, in the home.
    pub path: PathBuf,
    /// The journal, outside the home.
    pub journal: PathBuf,
    /// How many days a suppression outlasts the request and the last event it dropped;
    /// longer than any source's or backup's retention.
    pub horizon_days: u32,
}

impl LedgerOptions {
    /// The journal beside the folder that `path` lies in, as `<home>.journal`.
    pub fn new(path: &Path) -> Self {
        let home = path.parent().filter(|home| !home.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        // `.` and `..` have no name to which a suffix could be added.
        let home =
            if home.file_name().is_some() { home.to_path_buf() } else { std::fs::canonicalize(home).unwrap_or_else(|_| home.into()) };
        let mut journal = home.into_os_string();
        journal.push(".journal");
        Self { path: path.to_path_buf(), journal: journal.into(), horizon_days: HORIZON_DAYS }
    }
}

/// A handle on a home's ledger; clones share connections and caches.
/// Any number of processes may hold one on the same file.
#[derive(Clone)]
pub struct Ledger {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub pool: SqlitePool,
    pub keys: Arc<Keys>,
    pub journal: Journal,
    pub clock: SharedClock,
    pub random: SharedRandom,
    pub horizon_days: u32,
    /// Writers of this process queue here, so that they leave the connections to readers.
    pub turn: Arc<tokio::sync::Mutex<()>>,
    /// One loads, the others wait for what it has loaded.
    pub loading: tokio::sync::Mutex<()>,
    pub kept_suppressions: Mutex<Option<Arc<SuppressionSet>>>,
    pub kept_consents: Mutex<Option<KeptBook>>,
    /// What was replayed and has not been reported yet.
    pub replayed: Mutex<ReplayReport>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ledger(…)")
    }
}

impl Ledger {
    /// Makes a ledger where there is none; see [`Ledger::create_with`].
    ///
    /// # Errors
    /// As [`Ledger::create_with`].
    pub async fn create(path: &Path, keys: LedgerKeys, clock: SharedClock, random: SharedRandom) -> Result<Self, LedgerError> {
        Self::create_with(LedgerOptions::new(path), keys, clock, random).await
    }

    /// Makes a ledger where there is none. A journal that was written with the same keys is
    /// taken up: the ledger then begins with the requests that it holds.
    ///
    /// # Errors
    /// When there is a ledger, the journal is damaged or somebody else's, or the file cannot be made.
    pub fn create_with(
        options: LedgerOptions,
        keys: LedgerKeys,
        clock: SharedClock,
        random: SharedRandom,
    ) -> BoxFuture<'static, Result<Self, LedgerError>> {
        async move {
            let path = options.path.clone();
            if std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() > 0) {
                return Err(LedgerError::Exists(path));
            }
            // Before there is a ledger that would know of nobody.
            let journal = Journal::new(options.journal.clone(), Arc::new(Keys::derive(&keys)?));
            if journal.length()?.is_some() {
                let whole = move || journal.read(Position::default(), &mut |_| {});
                tokio::task::spawn_blocking(whole).await.map_err(LedgerError::Worker)??;
            }
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .and_then(|_| sync_folder(&path))
                .map_err(|error| LedgerError::Database { doing: "make the file", source: sqlx::Error::Io(error) })?;
            let ledger = Self::connect(options, &keys, clock, random).await?;
            ledger.migrate(true).await?;
            let mut write = Write::begin(&ledger.inner).await?;
            write.perform(vec![Act::new("ameles", "ledger_created", None, &serde_json::json!({}), Op::Note)]).await?;
            write.commit().await?;
            Ok(ledger)
        }
        .boxed()
    }

    /// Makes a ledger that was lost anew from the journal: requests, cancellations, extensions, lifts and tokens come back, and
    /// requests that had been completed are in progress again. Reports what was taken up.
    ///
    /// # Errors
    /// As [`Ledger::create_with`], and when there is no journal.
    pub fn restore(
        options: LedgerOptions,
        keys: LedgerKeys,
        clock: SharedClock,
        random: SharedRandom,
    ) -> BoxFuture<'static, Result<(Self, ReplayReport), LedgerError>> {
        async move {
            if !options.journal.exists() {
                return Err(JournalError::Missing(options.journal).into());
            }
            let ledger = Self::create_with(options, keys, clock, random).await?;
            let report = ledger.replay_journal().await?;
            Ok((ledger, report))
        }
        .boxed()
    }

    /// The SQLite file. Whoever reads its bytes while the ledger is open must not close it: POSIX takes the locks away that
    /// SQLite holds for the process.
    pub fn path(&self) -> PathBuf {
        self.inner.pool.connect_options().get_filename().to_path_buf()
    }

    /// Opens a ledger; see [`Ledger::open_with`].
    ///
    /// # Errors
    /// As [`Ledger::open_with`].
    pub async fn open(path: &Path, keys: LedgerKeys, clock: SharedClock, random: SharedRandom) -> Result<Self, LedgerError> {
        Self::open_with(LedgerOptions::new(path), keys, clock, random).await
    }

    /// Opens a ledger and enters what the journal knows and the ledger does not, so that no
    /// command beside the server counts a subject whose request a restored backup has forgotten.
    ///
    /// A journal that is missing or damaged does not stop reading; `check_journal` tells, and each
    /// write that needs it fails.
    ///
    /// # Errors
    /// When there is no ledger, or its format or keys are others.
    pub fn open_with(
        options: LedgerOptions,
        keys: LedgerKeys,
        clock: SharedClock,
        random: SharedRandom,
    ) -> BoxFuture<'static, Result<Self, LedgerError>> {
        async move {
            if !std::fs::metadata(&options.path).is_ok_and(|metadata| metadata.len() > 0) {
                return Err(LedgerError::Missing(options.path));
            }
            let ledger = Self::connect(options, &keys, clock, random).await?;
            ledger.migrate(false).await?;
            match ledger.catch_up().await {
                Ok(()) => {}
                Err(LedgerError::Journal(error)) => tracing::warn!(%error, "the journal could not be compared with the ledger"),
                Err(error) => return Err(error),
            }
            Ok(ledger)
        }
        .boxed()
    }

    fn connect<'a>(
        options: LedgerOptions,
        keys: &'a LedgerKeys,
        clock: SharedClock,
        random: SharedRandom,
    ) -> BoxFuture<'a, Result<Self, LedgerError>> {
        async move {
            let keys = Arc::new(Keys::derive(keys)?);
            let connect = SqliteConnectOptions::new()
                .filename(&options.path)
                .create_if_missing(false)
                .journal_mode(SqliteJournalMode::Wal)
                // In WAL mode only FULL keeps a committed request through a power cut.
                .synchronous(SqliteSynchronous::Full)
                .foreign_keys(true)
                .busy_timeout(BUSY_TIMEOUT)
                .pragma("secure_delete", "ON")
                .row_buffer_size(ROWS_AHEAD);
            let pool = SqlitePoolOptions::new()
                .max_connections(CONNECTIONS_MAX)
                .acquire_timeout(BUSY_TIMEOUT)
                .connect_with(connect)
                .await
                .doing("open the file")?;
            let inner = Inner {
                pool,
                journal: Journal::new(options.journal, Arc::clone(&keys)),
                keys,
                clock,
                random,
                horizon_days: options.horizon_days,
                turn: Arc::default(),
                loading: tokio::sync::Mutex::default(),
                kept_suppressions: Mutex::default(),
                kept_consents: Mutex::default(),
                replayed: Mutex::default(),
            };
            Ok(Self { inner: Arc::new(inner) })
        }
        .boxed()
    }

    /// Brings the file to the present format and checks the keys; a new file gets its keys' check.
    async fn migrate(&self, new: bool) -> Result<(), LedgerError> {
        const DOING: &str = "bring the format up to date";
        // Without the write lock at first: opening must not wait for a long submission.
        if new || version(&mut *self.inner.pool.acquire().await.doing(DOING)?).await? < KNOWN {
            let now = self.inner.clock.now().micros();
            let mut tx = self.inner.pool.begin_with("BEGIN IMMEDIATE").await.doing(DOING)?;
            sqlx::query("CREATE TABLE IF NOT EXISTS versions (version INTEGER PRIMARY KEY, applied INTEGER NOT NULL) STRICT")
                .execute(&mut *tx)
                .await
                .doing(DOING)?;
            let found = version(&mut tx).await?;
            for (number, sql) in (1_i64..).zip(MIGRATIONS).filter(|(number, _)| *number > found) {
                sqlx::raw_sql(sql).execute(&mut *tx).await.doing(DOING)?;
                sqlx::query("INSERT INTO versions (version, applied) VALUES (?, ?)")
                    .bind(number)
                    .bind(now)
                    .execute(&mut *tx)
                    .await
                    .doing(DOING)?;
            }
            if new {
                sqlx::query("INSERT INTO ledger (one, key_check, created, journal_mac) VALUES (1, ?, ?, ?) ON CONFLICT DO NOTHING")
                    .bind(&self.inner.keys.check()[..])
                    .bind(now)
                    .bind(&[0_u8; 32][..])
                    .execute(&mut *tx)
                    .await
                    .doing(DOING)?;
            }
            tx.commit().await.doing(DOING)?;
        }
        let row = sqlx::query("SELECT key_check FROM ledger").fetch_optional(&self.inner.pool).await.doing("read the keys' check")?;
        let check: Vec<u8> = row.ok_or(LedgerError::Damaged("it was never finished"))?.try_get(0).doing("read the keys' check")?;
        if check == self.inner.keys.check() { Ok(()) } else { Err(LedgerError::WrongKey) }
    }

    /// Ends the connections; a later call on any clone fails.
    pub async fn close(&self) {
        self.inner.pool.close().await;
    }
}

impl SuppressionSource for Ledger {
    fn current(&self) -> std::pin::Pin<Box<dyn Future<Output = Result<Arc<SuppressionSet>, SuppressionUnavailable>> + Send + '_>> {
        Box::pin(async move { self.suppressions().await.map_err(|error| SuppressionUnavailable(Box::new(error))) })
    }
}

/// The file's format; refuses one that is newer than this version.
async fn version(connection: &mut SqliteConnection) -> Result<i64, LedgerError> {
    let found =
        sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM versions").fetch_one(connection).await.doing("read the format")?;
    if found > KNOWN { Err(LedgerError::Newer { found, known: KNOWN }) } else { Ok(found) }
}

/// A lock whose holder cannot leave it half done: what is kept is replaced whole.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
