//! The suppression list as one set, kept until its sequence number moves.

use std::collections::BTreeSet;
use std::sync::Arc;

use ameles_core::{Subject, SuppressedSubject, SuppressionEntry, SuppressionSet, Timestamp};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::json;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use crate::act::{Act, Op};
use crate::apply::{horizon, suppression_place};
use crate::error::Doing as _;
use crate::keys::{Keys, Lookup};
use crate::ledger::locked;
use crate::requests::lookup_of;
use crate::write::Write;
use crate::{Ledger, LedgerError, RequestId};

/// How many subjects one statement looks for.
const LOOKUPS_PER_QUERY: usize = 500;
const DAY_MICROS: i64 = 86_400_000_000;

struct StoredEntry {
    request: RequestId,
    lookup: Lookup,
    sealed: Vec<u8>,
    received: Timestamp,
    lifted_from: Option<Timestamp>,
    pending: bool,
}

impl Ledger {
    /// The sequence number of the suppression list; it moves whenever the list changes.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn suppression_sequence(&self) -> Result<u64, LedgerError> {
        let sequence: i64 = sqlx::query_scalar("SELECT suppressions FROM sequences")
            .fetch_one(&self.inner.pool)
            .await
            .doing("read the suppressions' sequence")?;
        Ok(sequence.max(0) as u64)
    }

    /// All suppressions at the present sequence number; one short read when nothing has changed.
    ///
    /// # Errors
    /// When the ledger cannot be read: nothing may be admitted or counted then.
    pub fn suppressions<'a>(&'a self) -> BoxFuture<'a, Result<Arc<SuppressionSet>, LedgerError>> {
        async move {
            if let Some(kept) = self.kept_suppressions(self.suppression_sequence().await?) {
                return Ok(kept);
            }
            let _loading = self.inner.loading.lock().await;
            if let Some(kept) = self.kept_suppressions(self.suppression_sequence().await?) {
                return Ok(kept);
            }
            let (sequence, stored) = self.read_suppressions().await?;
            let keys = Arc::clone(&self.inner.keys);
            let set = tokio::task::spawn_blocking(move || open_entries(&keys, sequence, stored)).await.map_err(LedgerError::Worker)??;
            let set = Arc::new(set);
            *locked(&self.inner.kept_suppressions) = Some(Arc::clone(&set));
            Ok(set)
        }
        .boxed()
    }

    fn kept_suppressions(&self, sequence: u64) -> Option<Arc<SuppressionSet>> {
        locked(&self.inner.kept_suppressions).as_ref().filter(|set| set.sequence() == sequence).map(Arc::clone)
    }

    /// Sequence and entries of one instant.
    async fn read_suppressions(&self) -> Result<(u64, Vec<StoredEntry>), LedgerError> {
        const DOING: &str = "read the suppressions";
        let mut tx = self.inner.pool.begin().await.doing(DOING)?;
        let sequence: i64 = sqlx::query_scalar("SELECT suppressions FROM sequences").fetch_one(&mut *tx).await.doing(DOING)?;
        let rows = sqlx::query(
            "SELECT s.request, s.lookup, s.sealed, s.received, s.lifted_from, r.state <> 'completed' \
             FROM suppressions s JOIN requests r ON r.id = s.request",
        )
        .fetch_all(&mut *tx)
        .await
        .doing(DOING)?;
        let mut stored = Vec::with_capacity(rows.len());
        for row in rows {
            stored.push(StoredEntry {
                request: row.try_get::<&str, _>(0).doing(DOING)?.parse()?,
                lookup: lookup_of(row.try_get(1).doing(DOING)?)?,
                sealed: row.try_get(2).doing(DOING)?,
                received: Timestamp::from_micros(row.try_get(3).doing(DOING)?),
                lifted_from: row.try_get::<Option<i64>, _>(4).doing(DOING)?.map(Timestamp::from_micros),
                pending: row.try_get::<i64, _>(5).doing(DOING)? != 0,
            });
        }
        Ok((sequence.max(0) as u64, stored))
    }

    /// Notes that events of these subjects were dropped at `at`: their suppressions' horizon starts
    /// again. Cheap when that has been noted within a day. Returns how many were moved.
    ///
    /// # Errors
    /// When the ledger cannot be read or written.
    pub fn note_drops<'a>(&'a self, subjects: &'a [Subject], at: Timestamp) -> BoxFuture<'a, Result<u64, LedgerError>> {
        async move {
            const DOING: &str = "note dropped events";
            let mut lookups = BTreeSet::new();
            for subject in subjects {
                lookups.insert(self.inner.keys.lookup_subject(*subject));
                if let Subject::Device(device) = subject {
                    lookups.insert(self.inner.keys.lookup(SuppressedSubject::UserlessOn(*device)));
                }
            }
            let lookups: Vec<Lookup> = lookups.into_iter().collect();
            let expires = horizon(at, self.inner.horizon_days);
            let mut stale = Vec::new();
            for chunk in lookups.chunks(LOOKUPS_PER_QUERY) {
                let mut select = QueryBuilder::<Sqlite>::new("SELECT id FROM suppressions WHERE expires < ");
                select.push_bind(expires - DAY_MICROS);
                push_lookups(&mut select, chunk);
                stale.extend(select.build_query_scalar::<i64>().fetch_all(&self.inner.pool).await.doing(DOING)?);
            }
            if stale.is_empty() {
                return Ok(0);
            }
            let mut write = Write::begin_plain(&self.inner).await?;
            let mut moved = 0;
            for chunk in stale.chunks(LOOKUPS_PER_QUERY) {
                let mut update = QueryBuilder::<Sqlite>::new("UPDATE suppressions SET expires = ");
                update.push_bind(expires).push(" WHERE expires < ").push_bind(expires).push(" AND id IN (");
                let mut ids = update.separated(", ");
                for id in chunk {
                    ids.push_bind(*id);
                }
                update.push(")");
                moved += update.build().execute(&mut *write.tx).await.doing(DOING)?.rows_affected();
            }
            write.commit().await?;
            Ok(moved)
        }
        .boxed()
    }

    /// Forgets suppressions of completed requests whose horizon has passed, and says how many.
    ///
    /// # Errors
    /// When journal or ledger cannot be written.
    pub async fn expire_suppressions(&self) -> Result<u64, LedgerError> {
        let mut write = Write::begin(&self.inner).await?;
        let done =
            sqlx::query("DELETE FROM suppressions WHERE expires < ? AND request IN (SELECT id FROM requests WHERE state = 'completed')")
                .bind(write.now.micros())
                .execute(&mut *write.tx)
                .await
                .doing("forget expired suppressions")?;
        let expired = done.rows_affected();
        if expired > 0 {
            write.changes.suppressions = true;
            write.perform(vec![Act::new("ameles", "suppressions_expired", None, &json!({"count": expired}), Op::Note)]).await?;
        }
        write.commit().await?;
        Ok(expired)
    }
}

pub(crate) fn push_lookups(query: &mut QueryBuilder<Sqlite>, lookups: &[Lookup]) {
    query.push(" AND lookup IN (");
    let mut list = query.separated(", ");
    for lookup in lookups {
        list.push_bind(lookup.to_vec());
    }
    query.push(")");
}

fn open_entries(keys: &Keys, sequence: u64, stored: Vec<StoredEntry>) -> Result<SuppressionSet, LedgerError> {
    let mut entries = Vec::with_capacity(stored.len());
    for entry in stored {
        let subject = keys.open_subject(&entry.sealed, &suppression_place(entry.request, &entry.lookup))?;
        entries.push(SuppressionEntry { subject, received: entry.received, pending: entry.pending, lifted_from: entry.lifted_from });
    }
    Ok(SuppressionSet::new(sequence, entries))
}
