//! Recording and reading consents, and forgetting those of the erased.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use ameles_core::{Subject, SuppressedSubject, Timestamp};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::json;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

use crate::act::{Act, Op};
use crate::error::Doing as _;
use crate::keys::{Keys, Lookup};
use crate::ledger::locked;
use crate::requests::lookup_of;
use crate::suppressions::push_lookups;
use crate::write::Write;
use crate::{
    ConsentBook, ConsentEvent, ConsentState, ConsentTerms, ConsentsRecorded, Ledger, LedgerError, RequestId, RequestState, validate,
};

/// How many rows one statement handles.
const ROWS_PER_STATEMENT: usize = 500;

/// A book, and up to where it was read.
#[derive(Clone)]
pub(crate) struct KeptBook {
    book: Arc<ConsentBook>,
    removed: i64,
    last_id: i64,
}

struct StoredConsent {
    lookup: Lookup,
    sealed: Vec<u8>,
    at: Timestamp,
    granted: bool,
    policy: Option<String>,
    purposes: String,
}

/// One suppression of a subject that consents are recorded for.
struct Covering {
    request: RequestId,
    state: RequestState,
    received: Timestamp,
    lifted_from: Option<Timestamp>,
}

impl Ledger {
    /// Records explicit grants and withdrawals, all or none; what is known already is not recorded again.
    ///
    /// A grant that is later than a request for its subject was received, and not in the future,
    /// lifts that request's suppression for events from then on. Of a subject that is erased, or
    /// just being erased, nothing else is recorded.
    ///
    /// # Errors
    /// When policy or purposes are too long, or the ledger cannot be written.
    pub fn record_consents<'a>(&'a self, events: &'a [ConsentEvent]) -> BoxFuture<'a, Result<ConsentsRecorded, LedgerError>> {
        async move {
            let mut recorded = ConsentsRecorded::default();
            if events.is_empty() {
                return Ok(recorded);
            }
            let mut keyed = Vec::with_capacity(events.len());
            for event in events {
                validate::terms(event.policy.as_deref(), &event.purposes)?;
                keyed.push((self.inner.keys.lookup_subject(event.subject), event));
            }
            let mut write = Write::begin_plain(&self.inner).await?;
            let now = write.now;
            let mut covering = read_covering(&mut write.tx, &keyed).await?;
            if !lifts(&covering, &keyed, now).is_empty() {
                // A lift goes to the journal, which may know more requests than the ledger did a moment ago.
                write.open_journal().await?;
                covering = read_covering(&mut write.tx, &keyed).await?;
                let found = lifts(&covering, &keyed, now);
                let acts = found
                    .iter()
                    .map(|((request, lookup), at)| {
                        let op = Op::Lift { lookup: *lookup, at: *at };
                        Act::new("consent", "suppression_lifted", Some(*request), &json!({"from": at}), op)
                    })
                    .collect();
                recorded.lifted = found.len() as u64;
                write.perform(acts).await?;
                covering = read_covering(&mut write.tx, &keyed).await?;
            }
            let mut rows = Vec::with_capacity(keyed.len());
            for (lookup, event) in &keyed {
                if covering.get(lookup).is_some_and(|list| list.iter().any(|one| one.forbids(event.at))) {
                    recorded.suppressed += 1;
                    continue;
                }
                let sealed = self.inner.keys.seal_subject(event.subject.into(), &consent_place(lookup), &*self.inner.random)?;
                let purposes =
                    serde_json::to_string(&event.purposes).map_err(|_| LedgerError::Damaged("purposes cannot be written as JSON"))?;
                rows.push((*lookup, *event, sealed, purposes));
            }
            for chunk in rows.chunks(ROWS_PER_STATEMENT) {
                let mut insert =
                    QueryBuilder::<Sqlite>::new("INSERT OR IGNORE INTO consents (lookup, sealed, at, granted, policy, purposes, source) ");
                insert.push_values(chunk, |mut values, (lookup, event, sealed, purposes)| {
                    values
                        .push_bind(lookup.to_vec())
                        .push_bind(sealed.clone())
                        .push_bind(event.at.micros())
                        .push_bind(i64::from(event.granted))
                        .push_bind(event.policy.clone())
                        .push_bind(purposes.clone())
                        .push_bind(event.source.as_str());
                });
                recorded.stored += insert.build().execute(&mut *write.tx).await.doing("record consents")?.rows_affected();
            }
            recorded.repeated = rows.len() as u64 - recorded.stored;
            write.changes.consents |= recorded.stored > 0;
            write.commit().await?;
            Ok(recorded)
        }
        .boxed()
    }

    /// All consents at the present sequence number; one short read when nothing has changed, and
    /// only what is new when nothing was removed.
    ///
    /// # Errors
    /// When the ledger cannot be read: nothing that needs a consent may be admitted then.
    pub fn consents<'a>(&'a self) -> BoxFuture<'a, Result<Arc<ConsentBook>, LedgerError>> {
        async move {
            const DOING: &str = "read the consents' sequence";
            let sequence: i64 = sqlx::query_scalar("SELECT consents FROM sequences").fetch_one(&self.inner.pool).await.doing(DOING)?;
            if let Some(book) = self.kept_book(sequence) {
                return Ok(book);
            }
            let _loading = self.inner.loading.lock().await;
            let mut tx = self.inner.pool.begin().await.doing(DOING)?;
            let row = sqlx::query("SELECT consents, consents_removed FROM sequences").fetch_one(&mut *tx).await.doing(DOING)?;
            let (sequence, removed): (i64, i64) = (row.try_get(0).doing(DOING)?, row.try_get(1).doing(DOING)?);
            if let Some(book) = self.kept_book(sequence) {
                return Ok(book);
            }
            let before = locked(&self.inner.kept_consents).clone().filter(|kept| kept.removed == removed);
            let after_id = before.as_ref().map_or(0, |kept| kept.last_id);
            let (stored, last_id) = read_consents(&mut tx, after_id).await?;
            drop(tx);
            let book = before.map_or_else(ConsentBook::default, |kept| ConsentBook::clone(&kept.book));
            let keys = Arc::clone(&self.inner.keys);
            let book = tokio::task::spawn_blocking(move || {
                open_consents(&keys, stored).map(|events| book.extended(sequence.max(0) as u64, events))
            })
            .await
            .map_err(LedgerError::Worker)??;
            let book = Arc::new(book);
            *locked(&self.inner.kept_consents) = Some(KeptBook { book: Arc::clone(&book), removed, last_id });
            Ok(book)
        }
        .boxed()
    }

    fn kept_book(&self, sequence: i64) -> Option<Arc<ConsentBook>> {
        let kept = locked(&self.inner.kept_consents);
        kept.as_ref().filter(|kept| kept.book.sequence() == sequence.max(0) as u64).map(|kept| Arc::clone(&kept.book))
    }

    /// Removes the consents of erased subjects, up to the grant that lifts their suppression, and
    /// empties the write-ahead log, so that no page of the file keeps them. Returns how many there were.
    ///
    /// # Errors
    /// [`LedgerError::WalBusy`] when other readers hold on to the log; call again then.
    pub async fn forget_subject(&self, subjects: &[Subject]) -> Result<u64, LedgerError> {
        const DOING: &str = "forget consents";
        let mut write = Write::begin_plain(&self.inner).await?;
        let mut removed = 0;
        let lookups: Vec<Lookup> = subjects.iter().map(|subject| self.inner.keys.lookup_subject(*subject)).collect();
        for chunk in lookups.chunks(ROWS_PER_STATEMENT) {
            let mut delete = QueryBuilder::<Sqlite>::new(
                "DELETE FROM consents WHERE at < COALESCE((SELECT MAX(COALESCE(s.lifted_from, 9223372036854775807)) \
                 FROM suppressions s WHERE s.lookup = consents.lookup), 9223372036854775807)",
            );
            push_lookups(&mut delete, chunk);
            removed += delete.build().execute(&mut *write.tx).await.doing(DOING)?.rows_affected();
        }
        write.changes.consents_removed |= removed > 0;
        write.commit().await?;
        self.empty_wal().await?;
        Ok(removed)
    }

    pub(crate) async fn empty_wal(&self) -> Result<(), LedgerError> {
        const DOING: &str = "empty the write-ahead log";
        let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&self.inner.pool).await.doing(DOING)?;
        if row.try_get::<i64, _>(0).doing(DOING)? == 0 { Ok(()) } else { Err(LedgerError::WalBusy) }
    }
}

impl Covering {
    /// Whether a consent of that time must not be recorded: its subject is erased, or being so.
    fn forbids(&self, at: Timestamp) -> bool {
        let begun = matches!(self.state, RequestState::InProgress | RequestState::Completed);
        begun && self.lifted_from.is_none_or(|from| at < from)
    }
}

/// What a consent's seal is bound to.
fn consent_place(lookup: &Lookup) -> Vec<u8> {
    [b"consent".as_slice(), lookup].concat()
}

/// For each request and subject the earliest grant that lifts its suppression earlier than it is lifted now.
fn lifts(
    covering: &HashMap<Lookup, Vec<Covering>>,
    events: &[(Lookup, &ConsentEvent)],
    now: Timestamp,
) -> BTreeMap<(RequestId, Lookup), Timestamp> {
    let mut found = BTreeMap::new();
    for (lookup, event) in events.iter().filter(|(_, event)| event.granted && event.at <= now) {
        for one in covering.get(lookup).into_iter().flatten() {
            if one.received < event.at && one.lifted_from.is_none_or(|from| event.at < from) {
                let at = found.entry((one.request, *lookup)).or_insert(event.at);
                *at = event.at.min(*at);
            }
        }
    }
    found
}

async fn read_covering(
    connection: &mut SqliteConnection,
    events: &[(Lookup, &ConsentEvent)],
) -> Result<HashMap<Lookup, Vec<Covering>>, LedgerError> {
    const DOING: &str = "look for suppressions";
    let mut covering: HashMap<Lookup, Vec<Covering>> = HashMap::new();
    let distinct: HashSet<Lookup> = events.iter().map(|(lookup, _)| *lookup).collect();
    let distinct: Vec<Lookup> = distinct.into_iter().collect();
    for chunk in distinct.chunks(ROWS_PER_STATEMENT) {
        let mut select = QueryBuilder::<Sqlite>::new(
            "SELECT s.lookup, s.request, r.state, s.received, s.lifted_from FROM suppressions s JOIN requests r ON r.id = s.request WHERE 1 = 1",
        );
        push_lookups(&mut select, chunk);
        for row in select.build().fetch_all(&mut *connection).await.doing(DOING)? {
            let one = Covering {
                request: row.try_get::<&str, _>(1).doing(DOING)?.parse()?,
                state: RequestState::parse(row.try_get(2).doing(DOING)?).ok_or(LedgerError::Damaged("a request's state is unknown"))?,
                received: Timestamp::from_micros(row.try_get(3).doing(DOING)?),
                lifted_from: row.try_get::<Option<i64>, _>(4).doing(DOING)?.map(Timestamp::from_micros),
            };
            covering.entry(lookup_of(row.try_get(0).doing(DOING)?)?).or_default().push(one);
        }
    }
    Ok(covering)
}

async fn read_consents(connection: &mut SqliteConnection, after_id: i64) -> Result<(Vec<StoredConsent>, i64), LedgerError> {
    const DOING: &str = "read the consents";
    let rows = sqlx::query("SELECT id, lookup, sealed, at, granted, policy, purposes FROM consents WHERE id > ? ORDER BY id")
        .bind(after_id)
        .fetch_all(connection)
        .await
        .doing(DOING)?;
    let mut last_id = after_id;
    let mut stored = Vec::with_capacity(rows.len());
    for row in rows {
        last_id = row.try_get(0).doing(DOING)?;
        stored.push(StoredConsent {
            lookup: lookup_of(row.try_get(1).doing(DOING)?)?,
            sealed: row.try_get(2).doing(DOING)?,
            at: Timestamp::from_micros(row.try_get(3).doing(DOING)?),
            granted: row.try_get::<i64, _>(4).doing(DOING)? != 0,
            policy: row.try_get(5).doing(DOING)?,
            purposes: row.try_get(6).doing(DOING)?,
        });
    }
    Ok((stored, last_id))
}

fn open_consents(keys: &Keys, stored: Vec<StoredConsent>) -> Result<Vec<(Subject, ConsentState)>, LedgerError> {
    let mut shared: HashMap<(Option<String>, String), Arc<ConsentTerms>> = HashMap::new();
    let mut events = Vec::with_capacity(stored.len());
    for consent in stored {
        let subject = match keys.open_subject(&consent.sealed, &consent_place(&consent.lookup))? {
            SuppressedSubject::Device(device) => Subject::Device(device),
            SuppressedSubject::User(user) => Subject::User(user),
            SuppressedSubject::UserlessOn(_) => return Err(LedgerError::Damaged("a consent names neither a device nor a user")),
        };
        let key = (consent.policy, consent.purposes);
        let terms = match shared.get(&key) {
            Some(terms) => Arc::clone(terms),
            None => {
                let purposes = serde_json::from_str(&key.1).map_err(|_| LedgerError::Damaged("a consent's purposes are no list"))?;
                let terms = Arc::new(ConsentTerms { policy: key.0.clone(), purposes });
                shared.insert(key, Arc::clone(&terms));
                terms
            }
        };
        events.push((subject, ConsentState { granted: consent.granted, at: consent.at, terms }));
    }
    Ok(events)
}
