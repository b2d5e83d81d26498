//! A write transaction: SQLite's write lock, then the journal's; the acts are applied, then
//! appended to the journal and synced, then committed.
//!
//! A crash between the last two leaves lines in the journal that the ledger does not know. The
//! next writer, or the next to open the ledger, finds them after its anchor and applies them
//! first: a crash and a restored backup are one case.

use std::sync::Arc;

use ameles_core::Timestamp;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection, Transaction};
use tokio::sync::OwnedMutexGuard;

use crate::act::Act;
use crate::apply::{Applier, Changes};
use crate::audit::{ChainRow, Head, chain};
use crate::error::Doing as _;
use crate::journal::{Locked, Position};
use crate::ledger::{Inner, Ledger, locked};
use crate::{JournalCheck, JournalError, LedgerError, ReplayReport};

/// How many audit rows one statement inserts.
const ROWS_PER_INSERT: usize = 500;

pub(crate) struct Write {
    pub tx: Transaction<'static, Sqlite>,
    pub now: Timestamp,
    pub changes: Changes,
    inner: Arc<Inner>,
    journal: Option<Locked>,
    acts: Vec<Act>,
    replayed: ReplayReport,
    _turn: OwnedMutexGuard<()>,
}

impl Write {
    /// Takes the write lock alone, for what needs no journal.
    pub fn begin_plain<'a>(inner: &'a Arc<Inner>) -> BoxFuture<'a, Result<Self, LedgerError>> {
        async move {
            let turn = Arc::clone(&inner.turn).lock_owned().await;
            let tx = inner.pool.begin_with("BEGIN IMMEDIATE").await.doing("begin a change")?;
            Ok(Self {
                tx,
                now: inner.clock.now(),
                changes: Changes::default(),
                inner: Arc::clone(inner),
                journal: None,
                acts: Vec::new(),
                replayed: ReplayReport::default(),
                _turn: turn,
            })
        }
        .boxed()
    }

    /// Takes both locks and applies what only the journal knows.
    pub fn begin<'a>(inner: &'a Arc<Inner>) -> BoxFuture<'a, Result<Self, LedgerError>> {
        async move {
            let mut write = Self::begin_plain(inner).await?;
            write.open_journal().await?;
            Ok(write)
        }
        .boxed()
    }

    /// Takes the journal's lock too and applies what only it knows: what was read before may be stale then.
    pub async fn open_journal(&mut self) -> Result<(), LedgerError> {
        let anchor = anchor(&mut self.tx).await?;
        let journal = self.inner.journal.clone();
        let (mut opened, lines) = tokio::task::spawn_blocking(move || journal.lock(anchor)).await.map_err(LedgerError::Worker)??;
        if anchor.seq == 0 && opened.end.seq == 0 {
            // A new journal for a ledger that has an audit chain already goes on where the chain stands.
            opened.head = last_head(&mut self.tx).await?;
        }
        for line in &lines {
            let (heads, rows) = chain(&self.inner.keys.audit, line.from, line.at, &line.acts);
            if heads.last().is_some_and(|head| *head != line.head) {
                return Err(LedgerError::Damaged("the journal's acts do not lead to the audit head that it names"));
            }
            insert_audit(&mut self.tx, &rows, line.at).await?;
            let applier = Applier::new(&self.inner, line.at, false);
            applier.apply(&mut self.tx, &line.acts, &mut self.changes, &mut self.replayed).await?;
            self.replayed.entries += 1;
        }
        if let Some(last) = lines.last() {
            set_anchor(&mut self.tx, last.position).await?;
        }
        self.journal = Some(opened);
        Ok(())
    }

    /// Applies the acts; they count once committed.
    pub fn perform<'a>(&'a mut self, acts: Vec<Act>) -> BoxFuture<'a, Result<(), LedgerError>> {
        async move {
            if self.journal.is_none() {
                self.open_journal().await?;
            }
            let applier = Applier::new(&self.inner, self.now, true);
            applier.apply(&mut self.tx, &acts, &mut self.changes, &mut ReplayReport::default()).await?;
            self.acts.extend(acts);
            Ok(())
        }
        .boxed()
    }

    /// Only journals the acts: the tables hold what they say already.
    pub fn append_only(&mut self, acts: Vec<Act>) {
        self.acts.extend(acts);
    }

    /// Appends the acts to the journal, syncs it, then commits.
    pub fn commit(self) -> BoxFuture<'static, Result<(), LedgerError>> {
        self.finish().boxed()
    }

    /// Keeps all of `self` to its end: the locks among it are for what it does.
    async fn finish(mut self) -> Result<(), LedgerError> {
        if let (Some(mut journal), false) = (self.journal.take(), self.acts.is_empty()) {
            let (heads, rows) = chain(&self.inner.keys.audit, journal.head, self.now, &self.acts);
            insert_audit(&mut self.tx, &rows, self.now).await?;
            drop(rows);
            let (at, acts, random) = (self.now, std::mem::take(&mut self.acts), Arc::clone(&self.inner.random));
            let (kept, position) = tokio::task::spawn_blocking(move || {
                let position = journal.append(at, acts, &heads, &*random);
                (journal, position)
            })
            .await
            .map_err(LedgerError::Worker)?;
            // The journal stays locked until the ledger has committed, so that both grow in one order.
            self.journal = Some(kept);
            set_anchor(&mut self.tx, position?).await?;
        }
        self.changes.store(&mut self.tx).await?;
        self.tx.commit().await.doing("commit a change")?;
        if self.replayed.entries > 0 {
            let mut total = locked(&self.inner.replayed);
            total.entries += self.replayed.entries;
            total.lifted += self.replayed.lifted;
            total.requests.append(&mut self.replayed.requests);
            total.reopened.append(&mut self.replayed.reopened);
            total.cancelled.append(&mut self.replayed.cancelled);
        }
        Ok(())
    }
}

impl Ledger {
    /// Whether the journal is whole, and the ledger knows all that it holds.
    ///
    /// # Errors
    /// When the ledger cannot be read, or the journal's file not at all.
    pub fn check_journal<'a>(&'a self) -> BoxFuture<'a, Result<JournalCheck, LedgerError>> {
        async move {
            let mut connection = self.inner.pool.acquire().await.doing("read the journal's anchor")?;
            let anchor = anchor(&mut connection).await?;
            drop(connection);
            let journal = self.inner.journal.clone();
            let (read, entries) = tokio::task::spawn_blocking(move || {
                let mut entries = 0;
                let new = journal.read(anchor, &mut |_| entries += 1);
                // All of it, though the ledger knows it: damage must show before a restored backup needs the journal.
                (new.and_then(|_| journal.read(Position::default(), &mut |_| {})), entries)
            })
            .await
            .map_err(LedgerError::Worker)?;
            match read {
                Ok(_) if entries == 0 => Ok(JournalCheck::UpToDate),
                Ok(_) => Ok(JournalCheck::ReplayNeeded { entries }),
                Err(JournalError::Missing(_)) => Ok(JournalCheck::Missing),
                Err(error @ JournalError::Io { .. }) => Err(error.into()),
                Err(error) => Ok(JournalCheck::Damaged { what: error.to_string() }),
            }
        }
        .boxed()
    }

    /// Applies what the journal knows and the ledger does not. Reports all that was replayed since
    /// the last call, on opening too. Once more does nothing.
    ///
    /// # Errors
    /// When the journal is missing, damaged or somebody else's.
    pub async fn replay_journal(&self) -> Result<ReplayReport, LedgerError> {
        Write::begin(&self.inner).await?.commit().await?;
        Ok(std::mem::take(&mut *locked(&self.inner.replayed)))
    }

    /// Replays where the journal's length alone shows that there is more.
    pub(crate) fn catch_up<'a>(&'a self) -> BoxFuture<'a, Result<(), LedgerError>> {
        async move {
            let mut connection = self.inner.pool.acquire().await.doing("read the journal's anchor")?;
            let anchor = anchor(&mut connection).await?;
            drop(connection);
            let length = self.inner.journal.length()?;
            match length {
                None => Err(JournalError::Missing(self.inner.journal.path().to_path_buf()).into()),
                Some(length) if length < anchor.end => Err(JournalError::Behind(self.inner.journal.path().to_path_buf()).into()),
                Some(length) if length == anchor.end => Ok(()),
                Some(_) => Write::begin(&self.inner).await?.commit().await,
            }
        }
        .boxed()
    }
}

pub(crate) async fn anchor(connection: &mut SqliteConnection) -> Result<Position, LedgerError> {
    const DOING: &str = "read the journal's anchor";
    let row =
        sqlx::query("SELECT journal_line, journal_end, journal_seq, journal_mac FROM ledger").fetch_one(connection).await.doing(DOING)?;
    let number = |row: &SqliteRow, index: usize| row.try_get::<i64, _>(index).doing(DOING).map(|number| number.max(0) as u64);
    let mac: Vec<u8> = row.try_get(3).doing(DOING)?;
    Ok(Position {
        line: number(&row, 0)?,
        end: number(&row, 1)?,
        seq: number(&row, 2)?,
        mac: mac.try_into().map_err(|_| LedgerError::Damaged("the journal's anchor is no signature"))?,
    })
}

pub(crate) async fn set_anchor(connection: &mut SqliteConnection, position: Position) -> Result<(), LedgerError> {
    sqlx::query("UPDATE ledger SET journal_line = ?, journal_end = ?, journal_seq = ?, journal_mac = ?")
        .bind(position.line as i64)
        .bind(position.end as i64)
        .bind(position.seq as i64)
        .bind(&position.mac[..])
        .execute(connection)
        .await
        .doing("move the journal's anchor")?;
    Ok(())
}

async fn last_head(connection: &mut SqliteConnection) -> Result<Head, LedgerError> {
    const DOING: &str = "read the audit chain's head";
    let row = sqlx::query("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetch_optional(connection).await.doing(DOING)?;
    let Some(row) = row else { return Ok(Head::default()) };
    let hash: Vec<u8> = row.try_get(1).doing(DOING)?;
    Ok(Head {
        seq: row.try_get::<i64, _>(0).doing(DOING)?.max(0) as u64,
        hash: hash.try_into().map_err(|_| LedgerError::Damaged("an audit row's hash is no hash"))?,
    })
}

/// Rows that are there already stay as they are: whether they are the same, `audit_verify` tells.
async fn insert_audit(connection: &mut SqliteConnection, rows: &[(ChainRow<'_>, Head, Head)], at: Timestamp) -> Result<(), LedgerError> {
    for chunk in rows.chunks(ROWS_PER_INSERT) {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT OR IGNORE INTO audit (seq, at, actor, action, request, detail, prev, hash) ");
        insert.push_values(chunk, |mut values, (row, before, after)| {
            values
                .push_bind(row.seq as i64)
                .push_bind(at.micros())
                .push_bind(row.actor.to_owned())
                .push_bind(row.action.to_owned())
                .push_bind(row.request.map(|id| id.to_string()))
                .push_bind(row.detail.to_owned())
                .push_bind(before.hash.to_vec())
                .push_bind(after.hash.to_vec());
        });
        insert.build().execute(&mut *connection).await.doing("write the audit log")?;
    }
    Ok(())
}
