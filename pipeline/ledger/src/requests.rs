//! Requests: entering, listing, extending, cancelling.

use ameles_core::{Subject, SubjectKind, Timestamp};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::json;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

use crate::act::{Act, Op, SealedSubject, Submit};
use crate::apply::id_list;
use crate::error::Doing as _;
use crate::keys::Lookup;
use crate::write::Write;
use crate::{Ledger, LedgerError, NewRequest, Request, RequestFilter, RequestId, RequestState, validate};

/// How many pseudonyms one request may name: one an epoch.
const SUBJECTS_MAX: usize = 1_000;
pub(crate) const COLUMNS: &str = "SELECT id, kind, regulation, state, received, submitted, due, due_before_extension, extension_reason, \
                       started, closed, reference, actor, COALESCE((SELECT l.step FROM requests l WHERE l.id = requests.leader \
                       AND l.state = 'in_progress'), step), step_detail FROM requests";

impl Ledger {
    /// Whether one of these requests names one of these subjects, as far as can still be told: after a request's suppressions
    /// have expired nothing says whom it named.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn may_name(&self, ids: &[RequestId], subjects: &[Subject]) -> Result<bool, LedgerError> {
        const DOING: &str = "read whom requests name";
        let named: Vec<Vec<u8>> = sqlx::query_scalar("SELECT lookup FROM suppressions WHERE request IN (SELECT value FROM json_each(?))")
            .bind(id_list(ids))
            .fetch_all(&self.inner.pool)
            .await
            .doing(DOING)?;
        let lookups: Vec<Lookup> = subjects.iter().map(|subject| self.inner.keys.lookup_subject(*subject)).collect();
        Ok(named.is_empty() || named.iter().any(|named| lookups.iter().any(|lookup| lookup.as_slice() == named.as_slice())))
    }

    /// Enters a request. When it returns, the subject is suppressed in every process, and the
    /// request is in the journal.
    ///
    /// # Errors
    /// When an argument breaks its rule, or journal or ledger cannot be written.
    pub async fn submit(&self, request: NewRequest) -> Result<RequestId, LedgerError> {
        let ids = self.submit_all(vec![request]).await?;
        ids.first().copied().ok_or(LedgerError::Damaged("a request was entered without an id"))
    }

    /// Enters many requests, all or none, with one sync of the journal.
    ///
    /// # Errors
    /// As [`Ledger::submit`]; none has been entered then.
    pub fn submit_all<'a>(&'a self, requests: Vec<NewRequest>) -> BoxFuture<'a, Result<Vec<RequestId>, LedgerError>> {
        async move {
            let now = self.inner.clock.now();
            let mut acts = Vec::with_capacity(requests.len());
            let mut ids = Vec::with_capacity(requests.len());
            for request in requests {
                check_new(&request, now)?;
                let id = RequestId::new(&*self.inner.random)?;
                ids.push(id);
                let detail =
                    json!({"kind": request.kind, "regulation": request.regulation, "received": request.received, "due": request.due});
                let subjects = request.subjects.into_iter().map(|(epoch, subject)| (epoch, SealedSubject(subject.into()))).collect();
                let submit = Submit {
                    kind: request.kind,
                    regulation: request.regulation,
                    received: request.received,
                    due: request.due,
                    submitted_micros: None,
                    reference: request.reference,
                    subjects,
                };
                acts.push(Act::new(&request.actor, "request_submitted", Some(id), &detail, Op::Submit(submit)));
            }
            if acts.is_empty() {
                return Ok(ids);
            }
            let mut write = Write::begin(&self.inner).await?;
            write.perform(acts).await?;
            write.commit().await?;
            Ok(ids)
        }
        .boxed()
    }

    /// The requests that the filter names, newest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn requests(&self, filter: &RequestFilter) -> Result<Vec<Request>, LedgerError> {
        let mut select = QueryBuilder::<Sqlite>::new(COLUMNS);
        select.push(" WHERE 1 = 1");
        if let Some(state) = filter.state {
            select.push(" AND state = ").push_bind(state.as_str());
        }
        if let Some(reference) = &filter.reference {
            select.push(" AND reference = ").push_bind(reference.clone());
        }
        if filter.overdue {
            select.push(" AND state IN ('pending', 'in_progress') AND due < ").push_bind(self.inner.clock.now().micros());
        }
        select.push(" ORDER BY submitted DESC, id");
        if let Some(limit) = filter.limit {
            select.push(" LIMIT ").push_bind(i64::from(limit));
        }
        let rows = select.build().fetch_all(&self.inner.pool).await.doing("list requests")?;
        rows.iter().map(request_of).collect()
    }

    /// One request.
    ///
    /// # Errors
    /// When there is none of that id.
    pub async fn request(&self, id: RequestId) -> Result<Request, LedgerError> {
        let mut connection = self.inner.pool.acquire().await.doing("read a request")?;
        read_request(&mut connection, id).await
    }

    /// Moves the deadline to `due`: once, before it has passed, and for a reason, which must name nobody.
    ///
    /// # Errors
    /// When one of these does not hold.
    pub async fn extend(&self, id: RequestId, due: Timestamp, reason: &str, actor: &str) -> Result<(), LedgerError> {
        validate::reason(reason)?;
        validate::actor(actor)?;
        let mut write = Write::begin(&self.inner).await?;
        let request = read_request(&mut write.tx, id).await?;
        if !request.state.is_open() {
            return Err(LedgerError::WrongState { id, state: request.state, act: "extend" });
        }
        let refuse = |why| Err(LedgerError::NotExtendable { id, why });
        if request.due_before_extension.is_some() {
            return refuse("it has been extended once already");
        }
        if write.now > request.due {
            return refuse("its due date has passed");
        }
        if due <= request.due {
            return refuse("the new due date is not later");
        }
        // The reason stays out of the audit log: free text may name somebody.
        let detail = json!({"due_before": request.due, "due": due});
        write.perform(vec![Act::new(actor, "request_extended", Some(id), &detail, Op::Extend { due, reason: reason.to_owned() })]).await?;
        write.commit().await
    }

    /// Withdraws a request that no run has taken up; its subject is no longer suppressed, unless by another request.
    ///
    /// # Errors
    /// When a run has taken it up or it is closed.
    pub async fn cancel(&self, id: RequestId, actor: &str) -> Result<(), LedgerError> {
        validate::actor(actor)?;
        let mut write = Write::begin(&self.inner).await?;
        let request = read_request(&mut write.tx, id).await?;
        if request.state != RequestState::Pending {
            return Err(LedgerError::WrongState { id, state: request.state, act: "cancel" });
        }
        write.perform(vec![Act::new(actor, "request_cancelled", Some(id), &json!({}), Op::Cancel)]).await?;
        write.commit().await
    }
}

fn check_new(request: &NewRequest, now: Timestamp) -> Result<(), LedgerError> {
    validate::actor(&request.actor)?;
    validate::regulation(&request.regulation)?;
    request.reference.as_deref().map_or(Ok(()), validate::reference)?;
    let count = request.subjects.len();
    validate::that((1..=SUBJECTS_MAX).contains(&count), "the request", "at least one pseudonym of its subject")?;
    let one_kind = request.subjects.iter().all(|(_, subject)| subject.kind() == request.kind);
    validate::that(one_kind, "the request's kind", "the kind of the subject that it names")?;
    validate::that(request.received <= now, "the date of receipt", "not in the future")?;
    validate::that(request.due > request.received, "the due date", "later than the date of receipt")
}

async fn read_request(connection: &mut SqliteConnection, id: RequestId) -> Result<Request, LedgerError> {
    let mut select = QueryBuilder::<Sqlite>::new(COLUMNS);
    select.push(" WHERE id = ").push_bind(id.to_string());
    let row = select.build().fetch_optional(connection).await.doing("read a request")?;
    request_of(&row.ok_or(LedgerError::NoSuchRequest(id))?)
}

pub(crate) fn state_of(text: &str) -> Result<RequestState, LedgerError> {
    RequestState::parse(text).ok_or(LedgerError::Damaged("a request's state is unknown"))
}

pub(crate) fn lookup_of(bytes: &[u8]) -> Result<Lookup, LedgerError> {
    Lookup::try_from(bytes).map_err(|_| LedgerError::Damaged("a lookup hash has the wrong length"))
}

pub(crate) fn request_of(row: &SqliteRow) -> Result<Request, LedgerError> {
    const DOING: &str = "read a request";
    let at = |index: usize| row.try_get::<i64, _>(index).doing(DOING).map(Timestamp::from_micros);
    let maybe_at = |index: usize| row.try_get::<Option<i64>, _>(index).doing(DOING).map(|at| at.map(Timestamp::from_micros));
    let text = |index: usize| row.try_get::<Option<String>, _>(index).doing(DOING);
    Ok(Request {
        id: row.try_get::<&str, _>(0).doing(DOING)?.parse()?,
        kind: match row.try_get::<&str, _>(1).doing(DOING)? {
            "device" => SubjectKind::Device,
            _ => SubjectKind::User,
        },
        regulation: row.try_get(2).doing(DOING)?,
        state: state_of(row.try_get(3).doing(DOING)?)?,
        received: at(4)?,
        submitted: at(5)?,
        due: at(6)?,
        due_before_extension: maybe_at(7)?,
        extension_reason: text(8)?,
        started: maybe_at(9)?,
        closed: maybe_at(10)?,
        reference: text(11)?,
        actor: row.try_get(12).doing(DOING)?,
        step: text(13)?,
        step_detail: text(14)?,
    })
}
