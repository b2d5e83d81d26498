//! Requests: entering, listing, extending, cancelling, and what a run does to them.

use std::collections::HashMap;

use ameles_core::{DeviceId, Subject, SubjectKind, SuppressedSubject, Timestamp};
use ring::digest;
use serde_json::json;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

use crate::act::{Act, Op, SealedSubject, Submit};
use crate::apply::suppression_place;
use crate::error::Doing as _;
use crate::keys::Lookup;
use crate::write::Write;
use crate::{
    Ledger, LedgerCounts, LedgerError, NewRequest, Request, RequestFilter, RequestId, RequestState, RequestWithSubjects, validate,
};

/// How many pseudonyms one request may name: one an epoch.
const SUBJECTS_MAX: usize = 1_000;
/// How many devices one journal entry names.
const USERLESS_PER_ACT: usize = 10_000;
const COLUMNS: &str = "SELECT id, kind, regulation, state, received, submitted, due, due_before_extension, extension_reason, \
                       started, closed, reference, actor, step, step_detail FROM requests";

impl Ledger {
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
    pub async fn submit_all(&self, requests: Vec<NewRequest>) -> Result<Vec<RequestId>, LedgerError> {
        let now = self.inner.clock.now();
        let mut acts = Vec::with_capacity(requests.len());
        let mut ids = Vec::with_capacity(requests.len());
        for request in requests {
            check_new(&request, now)?;
            let id = RequestId::new(&*self.inner.random)?;
            ids.push(id);
            let detail = json!({"kind": request.kind, "regulation": request.regulation, "received": request.received, "due": request.due});
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

    /// Takes up all that is pending, and returns it together with what an earlier run has left in
    /// progress, oldest first.
    ///
    /// # Errors
    /// When journal or ledger cannot be written.
    pub async fn begin_run(&self, actor: &str) -> Result<Vec<RequestWithSubjects>, LedgerError> {
        validate::actor(actor)?;
        let mut write = Write::begin(&self.inner).await?;
        let pending: Vec<String> = sqlx::query_scalar("SELECT id FROM requests WHERE state = 'pending' ORDER BY submitted, id")
            .fetch_all(&mut *write.tx)
            .await
            .doing("list pending requests")?;
        let mut acts = Vec::with_capacity(pending.len());
        for id in pending {
            acts.push(Act::new(actor, "request_begun", Some(id.parse()?), &json!({}), Op::Begin));
        }
        if !acts.is_empty() {
            write.perform(acts).await?;
        }
        let open = self.read_open(&mut write.tx).await?;
        write.commit().await?;
        Ok(open)
    }

    /// Pending and in progress, oldest first, without taking anything up: for a preview.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn open_requests(&self) -> Result<Vec<RequestWithSubjects>, LedgerError> {
        let mut tx = self.inner.pool.begin().await.doing("list open requests")?;
        self.read_open(&mut tx).await
    }

    async fn read_open(&self, connection: &mut SqliteConnection) -> Result<Vec<RequestWithSubjects>, LedgerError> {
        const DOING: &str = "list open requests";
        let mut select = QueryBuilder::<Sqlite>::new(COLUMNS);
        select.push(" WHERE state IN ('pending', 'in_progress') ORDER BY submitted, id");
        let rows = select.build().fetch_all(&mut *connection).await.doing(DOING)?;
        let mut open = Vec::with_capacity(rows.len());
        let mut places = HashMap::with_capacity(rows.len());
        for row in &rows {
            let request = request_of(row)?;
            places.insert(request.id, open.len());
            open.push(RequestWithSubjects { request, subjects: Vec::new(), userless: Vec::new() });
        }
        let rows = sqlx::query(
            "SELECT s.request, s.epoch, s.lookup, s.sealed FROM suppressions s JOIN requests r ON r.id = s.request \
             WHERE r.state IN ('pending', 'in_progress') ORDER BY s.id",
        )
        .fetch_all(connection)
        .await
        .doing(DOING)?;
        for row in &rows {
            let id: RequestId = row.try_get::<&str, _>(0).doing(DOING)?.parse()?;
            let lookup = lookup_of(row.try_get(2).doing(DOING)?)?;
            let subject = self.inner.keys.open_subject(row.try_get(3).doing(DOING)?, &suppression_place(id, &lookup))?;
            let Some(entry) = places.get(&id).and_then(|place| open.get_mut(*place)) else { continue };
            let epoch = u32::try_from(row.try_get::<i64, _>(1).doing(DOING)?).unwrap_or_default();
            match subject {
                SuppressedSubject::Device(device) => entry.subjects.push((epoch, Subject::Device(device))),
                SuppressedSubject::User(user) => entry.subjects.push((epoch, Subject::User(user))),
                SuppressedSubject::UserlessOn(device) => entry.userless.push(device),
            }
        }
        Ok(open)
    }

    /// Suppresses events without a user on `devices`, which a run found to fall under the request. Once more does nothing.
    ///
    /// # Errors
    /// When the request is not in progress.
    pub async fn add_userless(&self, id: RequestId, devices: &[DeviceId]) -> Result<(), LedgerError> {
        if devices.is_empty() {
            return Ok(());
        }
        let mut write = Write::begin(&self.inner).await?;
        let (state, actor) = state_and_actor(&mut write.tx, id).await?;
        if state != RequestState::InProgress {
            return Err(LedgerError::WrongState { id, state, act: "name devices for" });
        }
        let mut acts = Vec::new();
        for chunk in devices.chunks(USERLESS_PER_ACT) {
            let op = Op::Userless { devices: chunk.iter().map(|device| SealedSubject(SuppressedSubject::UserlessOn(*device))).collect() };
            acts.push(Act::new(&actor, "devices_without_user_added", Some(id), &json!({"devices": chunk.len()}), op));
        }
        write.perform(acts).await?;
        write.commit().await
    }

    /// Notes the step that a run has reached and what it needs to go on from there, without a pseudonym in clear.
    ///
    /// # Errors
    /// When the request is not in progress.
    pub async fn set_step(&self, id: RequestId, step: &str, detail_json: &str) -> Result<(), LedgerError> {
        self.set_step_all(&[id], step, detail_json).await
    }

    /// Notes the same step for many requests at once.
    ///
    /// # Errors
    /// When one of them is not in progress; none has been changed then.
    pub async fn set_step_all(&self, ids: &[RequestId], step: &str, detail_json: &str) -> Result<(), LedgerError> {
        validate::step(step)?;
        validate::stored_json(detail_json)?;
        let mut write = Write::begin_plain(&self.inner).await?;
        for id in ids {
            let done = sqlx::query("UPDATE requests SET step = ?, step_detail = ? WHERE id = ? AND state = 'in_progress'")
                .bind(step)
                .bind(detail_json)
                .bind(id.to_string())
                .execute(&mut *write.tx)
                .await
                .doing("note a step")?;
            if done.rows_affected() == 0 {
                let (state, _) = state_and_actor(&mut write.tx, *id).await?;
                return Err(LedgerError::WrongState { id: *id, state, act: "work on" });
            }
        }
        write.commit().await
    }

    /// Ends a request with its certificate. The same certificate once more does nothing.
    ///
    /// # Errors
    /// When the request is not in progress.
    pub async fn complete(&self, id: RequestId, certificate_json: &str) -> Result<(), LedgerError> {
        self.complete_all(&[(id, certificate_json.to_owned())]).await
    }

    /// Ends many requests, all or none, with one sync of the journal.
    ///
    /// # Errors
    /// When one of them is not in progress; none has been changed then.
    pub async fn complete_all(&self, certificates: &[(RequestId, String)]) -> Result<(), LedgerError> {
        const DOING: &str = "keep a certificate";
        let mut write = Write::begin(&self.inner).await?;
        let mut acts = Vec::with_capacity(certificates.len());
        for (id, certificate) in certificates {
            validate::stored_json(certificate)?;
            let (state, actor) = state_and_actor(&mut write.tx, *id).await?;
            if state == RequestState::Completed {
                let kept: Option<String> = sqlx::query_scalar("SELECT certificate FROM requests WHERE id = ?")
                    .bind(id.to_string())
                    .fetch_one(&mut *write.tx)
                    .await
                    .doing(DOING)?;
                if kept.as_deref() == Some(certificate) {
                    continue;
                }
            }
            if state != RequestState::InProgress {
                return Err(LedgerError::WrongState { id: *id, state, act: "complete" });
            }
            sqlx::query("UPDATE requests SET certificate = ? WHERE id = ?")
                .bind(certificate.as_str())
                .bind(id.to_string())
                .execute(&mut *write.tx)
                .await
                .doing(DOING)?;
            let certificate_sha256 = hex::encode(digest::digest(&digest::SHA256, certificate.as_bytes()));
            let detail = json!({"certificate_sha256": certificate_sha256});
            acts.push(Act::new(&actor, "request_completed", Some(*id), &detail, Op::Complete { certificate_sha256 }));
        }
        if !acts.is_empty() {
            write.perform(acts).await?;
        }
        let forgot = write.changes.consents_removed;
        write.commit().await?;
        if forgot && let Err(error) = self.empty_wal().await {
            // The requests are completed; the next checkpoint overwrites what the log still holds.
            tracing::warn!(%error, "consents that came in late may stand sealed in the write-ahead log for a while");
        }
        Ok(())
    }

    /// A completed request's certificate.
    ///
    /// # Errors
    /// When there is no such request.
    pub async fn certificate(&self, id: RequestId) -> Result<Option<String>, LedgerError> {
        sqlx::query_scalar::<_, Option<String>>("SELECT certificate FROM requests WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(&self.inner.pool)
            .await
            .doing("read a certificate")?
            .ok_or(LedgerError::NoSuchRequest(id))
    }

    /// How many requests, suppressions, consents and tokens there are.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn counts(&self) -> Result<LedgerCounts, LedgerError> {
        const DOING: &str = "count";
        let row = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM requests WHERE state = 'pending'), (SELECT COUNT(*) FROM requests WHERE state = 'in_progress'), \
             (SELECT COUNT(*) FROM requests WHERE state = 'completed'), (SELECT COUNT(*) FROM requests WHERE state = 'cancelled'), \
             (SELECT COUNT(*) FROM requests WHERE state IN ('pending', 'in_progress') AND due < ?1), \
             (SELECT COUNT(*) FROM suppressions), (SELECT COUNT(*) FROM consents), \
             (SELECT COUNT(*) FROM tokens WHERE revoked IS NULL AND expires > ?1)",
        )
        .bind(self.inner.clock.now().micros())
        .fetch_one(&self.inner.pool)
        .await
        .doing(DOING)?;
        let count = |index: usize| row.try_get::<i64, _>(index).doing(DOING).map(|count| count.max(0) as u64);
        Ok(LedgerCounts {
            pending: count(0)?,
            in_progress: count(1)?,
            completed: count(2)?,
            cancelled: count(3)?,
            overdue: count(4)?,
            suppressions: count(5)?,
            consents: count(6)?,
            tokens: count(7)?,
        })
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

async fn state_and_actor(connection: &mut SqliteConnection, id: RequestId) -> Result<(RequestState, String), LedgerError> {
    const DOING: &str = "read a request's state";
    let row = sqlx::query("SELECT state, COALESCE(run_actor, actor) FROM requests WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await
        .doing(DOING)?
        .ok_or(LedgerError::NoSuchRequest(id))?;
    Ok((state_of(row.try_get(0).doing(DOING)?)?, row.try_get(1).doing(DOING)?))
}

fn state_of(text: &str) -> Result<RequestState, LedgerError> {
    RequestState::parse(text).ok_or(LedgerError::Damaged("a request's state is unknown"))
}

pub(crate) fn lookup_of(bytes: &[u8]) -> Result<Lookup, LedgerError> {
    Lookup::try_from(bytes).map_err(|_| LedgerError::Damaged("a lookup hash has the wrong length"))
}

fn request_of(row: &SqliteRow) -> Result<Request, LedgerError> {
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
