//! Writing, listing and checking the audit log.

use std::collections::HashMap;

use ameles_core::Timestamp;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

use crate::act::{Act, Op, SealedSubject, Submit};
use crate::apply::suppression_place;
use crate::audit::{ChainRow, Head};
use crate::error::Doing as _;
use crate::journal::Position;
use crate::keys::Keys;
use crate::requests::lookup_of;
use crate::write::{Write, set_anchor};
use crate::{AuditFilter, AuditRow, AuditVerdict, Ledger, LedgerError, RequestFilter, RequestId, RequestState, validate};

const COLUMNS: &str = "SELECT seq, at, actor, action, request, detail, prev, hash FROM audit";
const LIST_MAX: u32 = 1_000;
/// How many rows are checked at a time.
const ROWS_PER_READ: i64 = 10_000;

impl Ledger {
    /// Writes an act that is none of the ledger's own into the audit log. `detail` must name no subject.
    ///
    /// # Errors
    /// When an argument breaks its rule, or journal or ledger cannot be written.
    pub async fn audit(&self, actor: &str, action: &str, request: Option<RequestId>, detail: Value) -> Result<(), LedgerError> {
        validate::actor(actor)?;
        validate::action(action)?;
        let act = Act::new(actor, action, request, &detail, Op::Note);
        validate::detail(&act.detail)?;
        let mut write = Write::begin(&self.inner).await?;
        write.perform(vec![act]).await?;
        write.commit().await
    }

    /// The rows that the filter names, oldest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn audit_list(&self, filter: &AuditFilter) -> Result<Vec<AuditRow>, LedgerError> {
        let mut select = QueryBuilder::<Sqlite>::new(COLUMNS);
        select.push(" WHERE seq > ").push_bind(i64::try_from(filter.after).unwrap_or(i64::MAX));
        if let Some(request) = filter.request {
            select.push(" AND request = ").push_bind(request.to_string());
        }
        select.push(" ORDER BY seq LIMIT ").push_bind(i64::from(filter.limit.unwrap_or(LIST_MAX)));
        let rows = select.build().fetch_all(&self.inner.pool).await.doing("list the audit log")?;
        rows.iter().map(|row| StoredRow::read(row)?.public()).collect()
    }

    /// Checks every row against the one before and against the journal, after replaying what only the journal knows.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn audit_verify<'a>(&'a self) -> BoxFuture<'a, Result<AuditVerdict, LedgerError>> {
        async move {
            let mut write = match Write::begin(&self.inner).await {
                Ok(write) => write,
                Err(LedgerError::Journal(error)) => {
                    let mut tx = self.inner.pool.begin().await.doing("check the audit log")?;
                    let verdict = walk(&mut tx, &self.inner.keys, &HashMap::new()).await?.0;
                    return Ok(if verdict.is_intact() { AuditVerdict::Unanchored { why: error.to_string() } } else { verdict });
                }
                Err(error) => return Err(error),
            };
            // The write lock keeps rows and journal still meanwhile.
            let journal = self.inner.journal.clone();
            let read = tokio::task::spawn_blocking(move || {
                let mut heads = HashMap::new();
                let tail = journal.read(Position::default(), &mut |line| {
                    heads.insert(line.head.seq, line.head.hash);
                });
                tail.map(|tail| (tail.head, heads))
            })
            .await
            .map_err(LedgerError::Worker)?;
            let (head, heads) = match read {
                Ok(read) => read,
                Err(error) => {
                    let verdict = walk(&mut write.tx, &self.inner.keys, &HashMap::new()).await?.0;
                    return Ok(if verdict.is_intact() { AuditVerdict::Unanchored { why: error.to_string() } } else { verdict });
                }
            };
            let (verdict, last) = walk(&mut write.tx, &self.inner.keys, &heads).await?;
            write.commit().await?;
            Ok(match verdict {
                AuditVerdict::Intact { .. } if last.seq < head.seq => AuditVerdict::Removed { seq: last.seq + 1 },
                AuditVerdict::Intact { .. } if last.seq > head.seq => AuditVerdict::Added { seq: head.seq + 1 },
                verdict => verdict,
            })
        }
        .boxed()
    }

    /// Begins a new journal where the old one is lost for good, with all requests that are not
    /// cancelled, so that a later restore gets them from it.
    ///
    /// # Errors
    /// When there is a journal: it must be moved away first.
    pub fn restart_journal<'a>(&'a self, actor: &'a str) -> BoxFuture<'a, Result<(), LedgerError>> {
        async move {
            validate::actor(actor)?;
            if self.inner.journal.length()?.unwrap_or_default() > 0 {
                return Err(LedgerError::Invalid { what: "the journal", rule: "missing or empty; move a damaged one away first" });
            }
            let mut write = Write::begin_plain(&self.inner).await?;
            set_anchor(&mut write.tx, Position::default()).await?;
            let mut acts = self.all_requests_as_acts(&mut write.tx).await?;
            let detail = serde_json::json!({"entries": acts.len()});
            acts.push(Act::new(actor, "journal_restarted", None, &detail, Op::Note));
            write.open_journal().await?;
            write.append_only(acts);
            write.commit().await
        }
        .boxed()
    }

    async fn all_requests_as_acts(&self, connection: &mut SqliteConnection) -> Result<Vec<Act>, LedgerError> {
        const DOING: &str = "read all requests";
        let mut acts = Vec::new();
        let silent = |actor: &str, id, op| Act { actor: actor.to_owned(), action: None, request: Some(id), detail: "{}".to_owned(), op };
        for request in self.requests(&RequestFilter::default()).await? {
            if request.state == RequestState::Cancelled {
                continue;
            }
            let rows = sqlx::query("SELECT epoch, lookup, sealed, lifted_from FROM suppressions WHERE request = ? ORDER BY id")
                .bind(request.id.to_string())
                .fetch_all(&mut *connection)
                .await
                .doing(DOING)?;
            let (mut subjects, mut userless, mut after) = (Vec::new(), Vec::new(), Vec::new());
            for row in &rows {
                let lookup = lookup_of(row.try_get(1).doing(DOING)?)?;
                let subject = self.inner.keys.open_subject(row.try_get(2).doing(DOING)?, &suppression_place(request.id, &lookup))?;
                let epoch = u32::try_from(row.try_get::<i64, _>(0).doing(DOING)?).unwrap_or_default();
                match subject {
                    ameles_core::SuppressedSubject::UserlessOn(_) => userless.push(SealedSubject(subject)),
                    _ => subjects.push((epoch, SealedSubject(subject))),
                }
                if let Some(from) = row.try_get::<Option<i64>, _>(3).doing(DOING)? {
                    let op = Op::Lift { lookup, at: Timestamp::from_micros(from) };
                    after.push(silent("consent", request.id, op));
                }
            }
            let submit = Submit {
                kind: request.kind,
                regulation: request.regulation,
                received: request.received,
                due: request.due,
                submitted_micros: Some(request.submitted.micros()),
                reference: request.reference,
                subjects,
            };
            acts.push(silent(&request.actor, request.id, Op::Submit(submit)));
            if !userless.is_empty() {
                acts.push(silent(&request.actor, request.id, Op::Userless { devices: userless }));
            }
            acts.append(&mut after);
            match request.state {
                RequestState::InProgress => acts.push(silent(&request.actor, request.id, Op::Begin)),
                RequestState::Completed => {
                    acts.push(silent(&request.actor, request.id, Op::Complete { certificate_sha256: String::new() }));
                }
                RequestState::Pending | RequestState::Cancelled => {}
            }
        }
        Ok(acts)
    }
}

struct StoredRow {
    seq: u64,
    at: Timestamp,
    actor: String,
    action: String,
    request: Option<String>,
    detail: String,
    prev: Vec<u8>,
    hash: Vec<u8>,
}

impl StoredRow {
    fn read(row: &SqliteRow) -> Result<Self, LedgerError> {
        const DOING: &str = "read the audit log";
        Ok(Self {
            seq: row.try_get::<i64, _>(0).doing(DOING)?.max(0) as u64,
            at: Timestamp::from_micros(row.try_get(1).doing(DOING)?),
            actor: row.try_get(2).doing(DOING)?,
            action: row.try_get(3).doing(DOING)?,
            request: row.try_get(4).doing(DOING)?,
            detail: row.try_get(5).doing(DOING)?,
            prev: row.try_get(6).doing(DOING)?,
            hash: row.try_get(7).doing(DOING)?,
        })
    }

    /// What the row's hash ought to be; none where its request is not even an id.
    fn expected(&self, keys: &Keys, prev: &[u8; 32]) -> Option<[u8; 32]> {
        let request = self.request.as_deref().map(str::parse::<RequestId>).transpose().ok()?;
        let row = ChainRow { seq: self.seq, at: self.at, actor: &self.actor, action: &self.action, request, detail: &self.detail };
        Some(row.hash(&keys.audit, prev))
    }

    fn public(self) -> Result<AuditRow, LedgerError> {
        Ok(AuditRow {
            seq: self.seq,
            at: self.at,
            actor: self.actor,
            action: self.action,
            request: self.request.as_deref().map(str::parse).transpose()?,
            // A detail that was tampered with is shown as the text that it is.
            detail: serde_json::from_str(&self.detail).unwrap_or(Value::String(self.detail)),
            prev: hex::encode(self.prev),
            hash: hex::encode(self.hash),
        })
    }
}

/// Checks the rows one by one, also against the heads that the journal knows; returns the last row's head too.
async fn walk(connection: &mut SqliteConnection, keys: &Keys, heads: &HashMap<u64, [u8; 32]>) -> Result<(AuditVerdict, Head), LedgerError> {
    let mut head = Head::default();
    loop {
        let mut select = QueryBuilder::<Sqlite>::new(COLUMNS);
        select.push(" WHERE seq > ").push_bind(head.seq as i64).push(" ORDER BY seq LIMIT ").push_bind(ROWS_PER_READ);
        let rows = select.build().fetch_all(&mut *connection).await.doing("check the audit log")?;
        if rows.is_empty() {
            return Ok((AuditVerdict::Intact { rows: head.seq }, head));
        }
        for row in &rows {
            let row = StoredRow::read(row)?;
            let seq = head.seq + 1;
            if row.seq != seq {
                return Ok((AuditVerdict::Removed { seq }, head));
            }
            let expected = row.expected(keys, &head.hash);
            if row.prev != head.hash || expected.is_none_or(|hash| row.hash != hash) {
                return Ok((AuditVerdict::Changed { seq }, head));
            }
            head = Head { seq, hash: expected.unwrap_or_default() };
            if heads.get(&seq).is_some_and(|known| *known != head.hash) {
                return Ok((AuditVerdict::Rewritten { seq }, head));
            }
        }
    }
}
