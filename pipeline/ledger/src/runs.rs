//! What a run does to requests: takes them up, notes its steps, completes them.

use std::collections::HashMap;

use ameles_core::{DeviceId, Subject, SuppressedSubject, sha256, sha256_pair};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::json;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

use crate::act::{Act, Op, SealedSubject};
use crate::apply::{id_list, suppression_place};
use crate::error::Doing as _;
use crate::pack::{Packed, pack, unpack};
use crate::requests::{COLUMNS, lookup_of, request_of, state_of};
use crate::write::Write;
use crate::{Ledger, LedgerError, RequestId, RequestState, RequestWithSubjects, validate};

/// How many devices one journal entry names.
const USERLESS_PER_ACT: usize = 10_000;
/// How many certificates one statement keeps.
const CERTIFICATES_PER_UPDATE: usize = 200;

impl Ledger {
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

    fn read_open<'a>(&'a self, connection: &'a mut SqliteConnection) -> BoxFuture<'a, Result<Vec<RequestWithSubjects>, LedgerError>> {
        async move {
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
        .boxed()
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
        self.set_steps(ids, None, step, detail_json).await
    }

    /// Notes that the requests are carried out together with `leader`, whose steps are theirs from now on.
    ///
    /// # Errors
    /// When one of them is not in progress; none has been changed then.
    pub async fn follow(&self, ids: &[RequestId], leader: RequestId, step: &str, detail_json: &str) -> Result<(), LedgerError> {
        self.set_steps(ids, Some(leader), step, detail_json).await
    }

    fn set_steps<'a>(
        &'a self,
        ids: &'a [RequestId],
        leader: Option<RequestId>,
        step: &'a str,
        detail_json: &'a str,
    ) -> BoxFuture<'a, Result<(), LedgerError>> {
        async move {
        validate::step(step)?;
        validate::stored_json(detail_json)?;
        let mut write = Write::begin_plain(&self.inner).await?;
        // One statement for all of them: a run may have ten thousand requests.
        let done = sqlx::query(
            "UPDATE requests SET step = ?, step_detail = ?, leader = ? WHERE state = 'in_progress' AND id IN (SELECT value FROM json_each(?))",
        )
        .bind(step)
        .bind(detail_json)
        .bind(leader.map(|leader| leader.to_string()))
        .bind(id_list(ids))
        .execute(&mut *write.tx)
        .await
        .doing("note a step")?;
        if done.rows_affected() < ids.len() as u64 {
            for id in ids {
                let (state, _) = state_and_actor(&mut write.tx, *id).await?;
                if state != RequestState::InProgress {
                    return Err(LedgerError::WrongState { id: *id, state, act: "work on" });
                }
            }
        }
        write.commit().await
        }
        .boxed()
    }

    /// Ends a request with its certificate. The same certificate once more does nothing.
    ///
    /// # Errors
    /// When the request is not in progress.
    pub async fn complete(&self, id: RequestId, certificate_json: &str) -> Result<(), LedgerError> {
        self.complete_all(vec![(id, certificate_json.to_owned())]).await
    }

    /// Ends many requests, all or none, with one sync of the journal.
    ///
    /// # Errors
    /// When one of them is not in progress; none has been changed then.
    pub fn complete_all<'a>(&'a self, certificates: Vec<(RequestId, String)>) -> BoxFuture<'a, Result<(), LedgerError>> {
        async move {
            let mut write = Write::begin(&self.inner).await?;
            let ids: Vec<RequestId> = certificates.iter().map(|(id, _)| *id).collect();
            let mut known = standings(&mut write.tx, &ids).await?;
            let mut new = Vec::with_capacity(certificates.len());
            for (id, certificate) in certificates {
                validate::stored_json(&certificate)?;
                let Standing { state, actor } = known.remove(&id).ok_or(LedgerError::NoSuchRequest(id))?;
                if state == RequestState::Completed && certificate_of(&mut write.tx, id).await?.as_deref() == Some(certificate.as_str()) {
                    continue;
                }
                if state != RequestState::InProgress {
                    return Err(LedgerError::WrongState { id, state, act: "complete" });
                }
                new.push((id, actor, certificate));
            }
            if !new.is_empty() {
                let (new, hashes, packed) = tokio::task::spawn_blocking(move || {
                    let texts: Vec<&str> = new.iter().map(|(.., certificate)| certificate.as_str()).collect();
                    let (hashes, packed) = std::thread::scope(|scope| {
                        let hashing = scope.spawn(|| hashes_of(&texts));
                        let packed = pack(&texts);
                        (hashing.join().unwrap_or_else(|_| hashes_of(&texts)), packed)
                    });
                    (new, hashes, packed)
                })
                .await
                .map_err(LedgerError::Worker)?;
                let mut acts = Vec::with_capacity(new.len());
                for ((id, actor, _), hash) in new.iter().zip(hashes) {
                    let certificate_sha256 = hex::encode(hash);
                    let detail = json!({"certificate_sha256": certificate_sha256});
                    acts.push(Act::new(actor, "request_completed", Some(*id), &detail, Op::Complete { certificate_sha256 }));
                }
                write.perform(acts).await?;
                // After the states: a row that has grown is moved once.
                let ids: Vec<RequestId> = new.iter().map(|(id, ..)| *id).collect();
                keep_certificates(&mut write.tx, &ids, packed?).await?;
            }
            let forgot = write.changes.consents_removed;
            write.commit().await?;
            if forgot && let Err(error) = self.empty_wal().await {
                // The requests are completed; the next checkpoint overwrites what the log still holds.
                tracing::warn!(%error, "consents that came in late may stand sealed in the write-ahead log for a while");
            }
            Ok(())
        }
        .boxed()
    }

    /// A completed request's certificate.
    ///
    /// # Errors
    /// When there is no such request.
    pub async fn certificate(&self, id: RequestId) -> Result<Option<String>, LedgerError> {
        let mut connection = self.inner.pool.acquire().await.doing("read a certificate")?;
        certificate_of(&mut connection, id).await
    }
}

/// The SHA-256 of each text.
fn hashes_of(texts: &[&str]) -> Vec<[u8; 32]> {
    let mut hashes = Vec::with_capacity(texts.len());
    let (pairs, rest) = texts.as_chunks::<2>();
    for [first, second] in pairs {
        hashes.extend(sha256_pair(first.as_bytes(), second.as_bytes()));
    }
    hashes.extend(rest.iter().map(|text| sha256(text.as_bytes())));
    hashes
}

/// A request's certificate as it was signed, packed or not.
async fn certificate_of(connection: &mut SqliteConnection, id: RequestId) -> Result<Option<String>, LedgerError> {
    const DOING: &str = "read a certificate";
    let row = sqlx::query(
        "SELECT r.certificate, r.certificate_packed, b.text FROM requests r \
         LEFT JOIN certificate_bases b ON b.id = r.certificate_base WHERE r.id = ?",
    )
    .bind(id.to_string())
    .fetch_optional(connection)
    .await
    .doing(DOING)?
    .ok_or(LedgerError::NoSuchRequest(id))?;
    let packed: Option<&[u8]> = row.try_get(1).doing(DOING)?;
    let base: Option<&[u8]> = row.try_get(2).doing(DOING)?;
    match packed {
        Some(packed) => unpack(base.unwrap_or_default(), packed).map(Some),
        None => row.try_get(0).doing(DOING),
    }
}

async fn keep_certificates(connection: &mut SqliteConnection, ids: &[RequestId], packed: Packed) -> Result<(), LedgerError> {
    const DOING: &str = "keep certificates";
    let base: Option<i64> = if packed.base.is_empty() {
        None
    } else {
        let insert = sqlx::query("INSERT INTO certificate_bases (text) VALUES (?)").bind(packed.base);
        Some(insert.execute(&mut *connection).await.doing(DOING)?.last_insert_rowid())
    };
    let kept: Vec<(&RequestId, Vec<u8>)> = ids.iter().zip(packed.texts).collect();
    for chunk in kept.chunks(CERTIFICATES_PER_UPDATE) {
        let mut update = QueryBuilder::<Sqlite>::new("UPDATE requests SET certificate = NULL, certificate_base = ");
        update.push_bind(base).push(", certificate_packed = kept.column2 FROM (");
        update.push_values(chunk, |mut values, (id, packed)| {
            values.push_bind(id.to_string()).push_bind(packed.as_slice());
        });
        update.push(") AS kept WHERE requests.id = kept.column1");
        update.build().execute(&mut *connection).await.doing(DOING)?;
    }
    Ok(())
}

/// Where a request stands.
struct Standing {
    state: RequestState,
    actor: String,
}

async fn standings(connection: &mut SqliteConnection, ids: &[RequestId]) -> Result<HashMap<RequestId, Standing>, LedgerError> {
    const DOING: &str = "read requests' states";
    let rows = sqlx::query("SELECT id, state, COALESCE(run_actor, actor) FROM requests WHERE id IN (SELECT value FROM json_each(?))")
        .bind(id_list(ids))
        .fetch_all(connection)
        .await
        .doing(DOING)?;
    let standing = |row: &SqliteRow| {
        let id = row.try_get::<&str, _>(0).doing(DOING)?.parse()?;
        let state = state_of(row.try_get(1).doing(DOING)?)?;
        Ok((id, Standing { state, actor: row.try_get(2).doing(DOING)? }))
    };
    rows.iter().map(standing).collect()
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
