//! How an act changes the tables: the same code for an act that is being made and for one
//! that is replayed from the journal.

use std::collections::HashSet;

use ameles_core::{Random, SuppressedSubject, Timestamp};
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

use crate::act::{Act, Op, SealedSubject, Submit};
use crate::error::Doing as _;
use crate::keys::{Keys, Lookup};
use crate::ledger::Inner;
use crate::{LedgerError, ReplayReport, RequestId};

/// How many rows one statement inserts.
const ROWS_PER_INSERT: usize = 500;

/// What readers must read anew.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changes {
    pub suppressions: bool,
    pub consents: bool,
    pub consents_removed: bool,
}

impl Changes {
    /// Moves the counters on, in the transaction that made the changes.
    pub async fn store(self, connection: &mut SqliteConnection) -> Result<(), LedgerError> {
        if !(self.suppressions || self.consents || self.consents_removed) {
            return Ok(());
        }
        sqlx::query(
            "UPDATE sequences SET suppressions = suppressions + ?, consents = consents + ?, consents_removed = consents_removed + ?",
        )
        .bind(i64::from(self.suppressions))
        .bind(i64::from(self.consents || self.consents_removed))
        .bind(i64::from(self.consents_removed))
        .execute(connection)
        .await
        .doing("move the sequence on")?;
        Ok(())
    }
}

pub(crate) struct Applier<'a> {
    keys: &'a Keys,
    random: &'a dyn Random,
    horizon_days: u32,
    at: Timestamp,
    /// The act is being made, or else replayed.
    live: bool,
}

impl<'a> Applier<'a> {
    pub fn new(inner: &'a Inner, at: Timestamp, live: bool) -> Self {
        Self { keys: &inner.keys, random: &*inner.random, horizon_days: inner.horizon_days, at, live }
    }

    pub async fn apply(
        &self,
        connection: &mut SqliteConnection,
        acts: &[Act],
        changes: &mut Changes,
        report: &mut ReplayReport,
    ) -> Result<(), LedgerError> {
        let mut rest = acts;
        while let Some(act) = rest.first() {
            // What a run does to ten thousand requests, it does in a statement for all of them.
            let done = match &act.op {
                Op::Submit(_) => {
                    let submits: Vec<_> = rest.iter().map_while(submit_of).collect();
                    self.submit(connection, &submits, report).await?;
                    changes.suppressions = true;
                    submits.len()
                }
                Op::Begin => {
                    let same = |next: &&Act| matches!(next.op, Op::Begin) && next.actor == act.actor;
                    let ids = rest.iter().take_while(same).map(of_request).collect::<Result<Vec<_>, _>>()?;
                    self.begin(connection, &ids, &act.actor).await?;
                    ids.len()
                }
                Op::Complete { .. } if self.live => {
                    let same = |next: &&Act| matches!(next.op, Op::Complete { .. });
                    let ids = rest.iter().take_while(same).map(of_request).collect::<Result<Vec<_>, _>>()?;
                    changes.suppressions = true;
                    changes.consents_removed |= self.complete(connection, &ids).await?;
                    ids.len()
                }
                _ => {
                    self.apply_one(connection, act, changes, report).await?;
                    1
                }
            };
            rest = rest.get(done..).unwrap_or_default();
        }
        Ok(())
    }

    async fn apply_one(
        &self,
        connection: &mut SqliteConnection,
        act: &Act,
        changes: &mut Changes,
        report: &mut ReplayReport,
    ) -> Result<(), LedgerError> {
        match &act.op {
            Op::Note | Op::Submit(_) | Op::Begin => Ok(()),
            Op::Userless { devices } => {
                changes.suppressions |= self.userless(connection, of_request(act)?, devices).await?;
                Ok(())
            }
            Op::Extend { due, reason } => self.extend(connection, of_request(act)?, *due, reason).await,
            Op::Cancel => {
                if self.cancel(connection, of_request(act)?).await? {
                    changes.suppressions = true;
                    report.cancelled.extend(act.request);
                }
                Ok(())
            }
            Op::Complete { .. } => {
                if self.reopen(connection, of_request(act)?).await? {
                    changes.suppressions = true;
                    report.reopened.extend(act.request);
                }
                Ok(())
            }
            Op::Lift { lookup, at } => {
                let lifted = lift(connection, lookup, *at).await?;
                changes.suppressions |= lifted > 0;
                report.lifted += lifted;
                Ok(())
            }
            Op::Token { name, role, partner, expires, hash } => {
                sqlx::query(
                    "INSERT INTO tokens (name, hash, role, partner, created, expires) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                )
                .bind(name.as_str())
                .bind(hex::decode(hash).map_err(|_| LedgerError::Damaged("a token's hash is no hash"))?)
                .bind(role.as_str())
                .bind(partner.as_deref())
                .bind(self.at.micros())
                .bind(expires.micros())
                .execute(connection)
                .await
                .doing("enter a token")?;
                Ok(())
            }
            Op::Revoke { name } => {
                sqlx::query("UPDATE tokens SET revoked = ? WHERE name = ? AND revoked IS NULL")
                    .bind(self.at.micros())
                    .bind(name.as_str())
                    .execute(connection)
                    .await
                    .doing("revoke a token")?;
                Ok(())
            }
        }
    }

    async fn submit(
        &self,
        connection: &mut SqliteConnection,
        submits: &[(RequestId, &str, &Submit)],
        report: &mut ReplayReport,
    ) -> Result<(), LedgerError> {
        const DOING: &str = "enter requests";
        let last: i64 =
            sqlx::query_scalar("SELECT COALESCE(MAX(id), 0) FROM suppressions").fetch_one(&mut *connection).await.doing(DOING)?;
        for chunk in submits.chunks(ROWS_PER_INSERT) {
            let known = if self.live { HashSet::new() } else { known_requests(connection, chunk).await? };
            let new: Vec<_> = chunk.iter().filter(|(id, ..)| !known.contains(&id.to_string())).collect();
            if new.is_empty() {
                continue;
            }
            let mut insert = QueryBuilder::<Sqlite>::new(
                "INSERT INTO requests (id, kind, regulation, state, received, submitted, due, reference, actor) ",
            );
            insert.push_values(&new, |mut values, (id, actor, submit)| {
                values
                    .push_bind(id.to_string())
                    .push_bind(submit.kind.as_str())
                    .push_bind(submit.regulation.clone())
                    .push_bind("pending")
                    .push_bind(submit.received.micros())
                    .push_bind(submit.submitted_micros.unwrap_or(self.at.micros()))
                    .push_bind(submit.due.micros())
                    .push_bind(submit.reference.clone())
                    .push_bind((*actor).to_owned());
            });
            insert.build().execute(&mut *connection).await.doing(DOING)?;
            let subjects: Vec<_> = new
                .iter()
                .flat_map(|(id, _, submit)| submit.subjects.iter().map(move |(epoch, subject)| (*id, *epoch, subject.0, submit.received)))
                .collect();
            self.suppress(connection, &subjects).await?;
            if !self.live {
                report.requests.extend(new.iter().map(|(id, ..)| *id));
            }
        }
        // A grant that came after the request was received, but before it was entered here, lifts it too.
        sqlx::query(
            "UPDATE suppressions SET lifted_from = (SELECT MIN(c.at) FROM consents c WHERE c.lookup = suppressions.lookup \
             AND c.granted = 1 AND c.at > suppressions.received AND c.at <= ?) WHERE id > ? AND lifted_from IS NULL",
        )
        .bind(self.at.micros())
        .bind(last)
        .execute(connection)
        .await
        .doing(DOING)?;
        Ok(())
    }

    /// Enters suppressions that are not there yet, and says how many there are.
    async fn suppress(
        &self,
        connection: &mut SqliteConnection,
        subjects: &[(RequestId, u32, SuppressedSubject, Timestamp)],
    ) -> Result<u64, LedgerError> {
        let mut entered = 0;
        for chunk in subjects.chunks(ROWS_PER_INSERT) {
            let mut rows = Vec::with_capacity(chunk.len());
            for (id, epoch, subject, received) in chunk {
                let lookup = self.keys.lookup(*subject);
                let sealed = self.keys.seal_subject(*subject, &suppression_place(*id, &lookup), self.random)?;
                rows.push((id.to_string(), *epoch, lookup, sealed, *received));
            }
            let mut insert =
                QueryBuilder::<Sqlite>::new("INSERT OR IGNORE INTO suppressions (request, epoch, lookup, sealed, received, expires) ");
            insert.push_values(rows, |mut values, (id, epoch, lookup, sealed, received)| {
                values
                    .push_bind(id)
                    .push_bind(i64::from(epoch))
                    .push_bind(lookup.to_vec())
                    .push_bind(sealed)
                    .push_bind(received.micros())
                    .push_bind(self.horizon(received.max(self.at)));
            });
            entered += insert.build().execute(&mut *connection).await.doing("enter suppressions")?.rows_affected();
        }
        Ok(entered)
    }

    async fn begin(&self, connection: &mut SqliteConnection, ids: &[RequestId], actor: &str) -> Result<(), LedgerError> {
        sqlx::query(
            "UPDATE requests SET state = 'in_progress', started = COALESCE(started, ?), run_actor = ? WHERE state = 'pending' \
             AND id IN (SELECT value FROM json_each(?))",
        )
        .bind(self.at.micros())
        .bind(actor)
        .bind(id_list(ids))
        .execute(connection)
        .await
        .doing("take requests up")?;
        Ok(())
    }

    async fn userless(&self, connection: &mut SqliteConnection, id: RequestId, devices: &[SealedSubject]) -> Result<bool, LedgerError> {
        const DOING: &str = "enter devices without a user";
        let row = sqlx::query("SELECT received FROM requests WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(&mut *connection)
            .await
            .doing(DOING)?;
        let Some(row) = row else { return Ok(false) };
        let received = Timestamp::from_micros(row.try_get(0).doing(DOING)?);
        let subjects: Vec<_> = devices.iter().map(|device| (id, 0, device.0, received)).collect();
        Ok(self.suppress(connection, &subjects).await? > 0)
    }

    async fn extend(&self, connection: &mut SqliteConnection, id: RequestId, due: Timestamp, reason: &str) -> Result<(), LedgerError> {
        sqlx::query(
            "UPDATE requests SET due_before_extension = due, due = ?, extension_reason = ? WHERE id = ? AND due_before_extension IS NULL",
        )
        .bind(due.micros())
        .bind(reason)
        .bind(id.to_string())
        .execute(connection)
        .await
        .doing("extend a request")?;
        Ok(())
    }

    /// Only the request's own entries go: another request for the same subject has its own.
    async fn cancel(&self, connection: &mut SqliteConnection, id: RequestId) -> Result<bool, LedgerError> {
        const DOING: &str = "cancel a request";
        let done = sqlx::query("UPDATE requests SET state = 'cancelled', closed = ? WHERE id = ? AND state = 'pending'")
            .bind(self.at.micros())
            .bind(id.to_string())
            .execute(&mut *connection)
            .await
            .doing(DOING)?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("DELETE FROM suppressions WHERE request = ?").bind(id.to_string()).execute(connection).await.doing(DOING)?;
        Ok(true)
    }

    /// Returns whether consents were removed.
    async fn complete(&self, connection: &mut SqliteConnection, ids: &[RequestId]) -> Result<bool, LedgerError> {
        const DOING: &str = "complete requests";
        let list = id_list(ids);
        sqlx::query(
            "UPDATE requests SET state = 'completed', closed = ?, step = NULL, step_detail = NULL, leader = NULL WHERE id IN (SELECT value FROM json_each(?))",
        )
        .bind(self.at.micros())
        .bind(list.as_str())
        .execute(&mut *connection)
        .await
        .doing(DOING)?;
        sqlx::query("UPDATE suppressions SET expires = MAX(expires, ?) WHERE request IN (SELECT value FROM json_each(?))")
            .bind(self.horizon(self.at))
            .bind(list.as_str())
            .execute(&mut *connection)
            .await
            .doing(DOING)?;
        // Consents that arrived after the run had removed them, before the grant that lifts the suppression.
        let removed = sqlx::query(
            "DELETE FROM consents WHERE lookup IN (SELECT lookup FROM suppressions WHERE request IN (SELECT value FROM json_each(?))) \
             AND at < (SELECT MAX(COALESCE(s.lifted_from, 9223372036854775807)) FROM suppressions s WHERE s.lookup = consents.lookup)",
        )
        .bind(list.as_str())
        .execute(connection)
        .await
        .doing(DOING)?;
        Ok(removed.rows_affected() > 0)
    }

    /// A completion that this ledger does not know was made after the backup it comes from. The
    /// warehouse may have come from that backup too: the request is carried out once more.
    async fn reopen(&self, connection: &mut SqliteConnection, id: RequestId) -> Result<bool, LedgerError> {
        let done = sqlx::query(
            "UPDATE requests SET state = 'in_progress', started = COALESCE(started, ?), step = NULL, step_detail = NULL, leader = NULL \
             WHERE id = ? AND state IN ('pending', 'in_progress')",
        )
        .bind(self.at.micros())
        .bind(id.to_string())
        .execute(connection)
        .await
        .doing("reopen a request")?;
        Ok(done.rows_affected() > 0)
    }

    fn horizon(&self, from: Timestamp) -> i64 {
        horizon(from, self.horizon_days)
    }
}

/// When a suppression ends that was last needed at `from`. A day is added, because it is moved on once a day at most.
pub(crate) fn horizon(from: Timestamp, days: u32) -> i64 {
    from.plus_days(i64::from(days) + 1).micros()
}

/// What a suppression's seal is bound to.
pub(crate) fn suppression_place(id: RequestId, lookup: &Lookup) -> Vec<u8> {
    [b"suppression", id.0.as_bytes().as_slice(), lookup].concat()
}

/// What a statement over many requests reads with `json_each`.
pub(crate) fn id_list(ids: &[RequestId]) -> String {
    serde_json::json!(ids.iter().map(RequestId::to_string).collect::<Vec<_>>()).to_string()
}

fn submit_of(act: &Act) -> Option<(RequestId, &str, &Submit)> {
    match &act.op {
        Op::Submit(submit) => act.request.map(|id| (id, act.actor.as_str(), submit)),
        _ => None,
    }
}

fn of_request(act: &Act) -> Result<RequestId, LedgerError> {
    act.request.ok_or(LedgerError::Damaged("an act on a request names none"))
}

async fn known_requests(connection: &mut SqliteConnection, submits: &[(RequestId, &str, &Submit)]) -> Result<HashSet<String>, LedgerError> {
    let mut select = QueryBuilder::<Sqlite>::new("SELECT id FROM requests WHERE id IN (");
    let mut ids = select.separated(", ");
    for (id, ..) in submits {
        ids.push_bind(id.to_string());
    }
    select.push(")");
    let known: Vec<String> = select.build_query_scalar().fetch_all(connection).await.doing("look for known requests")?;
    Ok(known.into_iter().collect())
}

/// Lifts the subject's suppressions whose request was received before the grant.
async fn lift(connection: &mut SqliteConnection, lookup: &Lookup, at: Timestamp) -> Result<u64, LedgerError> {
    let done = sqlx::query(
        "UPDATE suppressions SET lifted_from = ?1 WHERE lookup = ?2 AND received < ?1 AND (lifted_from IS NULL OR lifted_from > ?1)",
    )
    .bind(at.micros())
    .bind(&lookup[..])
    .execute(connection)
    .await
    .doing("lift a suppression")?;
    Ok(done.rows_affected())
}
