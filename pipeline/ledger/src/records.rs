//! Report runs, saved settings, and counts of everything.

use ameles_core::Timestamp;
use serde_json::json;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use crate::act::{Act, Op};
use crate::error::Doing as _;
use crate::write::Write;
use crate::{Ledger, LedgerCounts, LedgerError, NewReportRun, ReportRun, ReportRunId, validate};

const COLUMNS: &str = "SELECT id, name, period, scheduled, started, finished, folder, error, detail, actor FROM report_runs";

impl Ledger {
    /// Records a report's run, failed or not, and returns its id.
    ///
    /// # Errors
    /// When an argument breaks its rule, or journal or ledger cannot be written.
    pub async fn record_report_run(&self, run: NewReportRun) -> Result<ReportRunId, LedgerError> {
        validate::report_name(&run.name)?;
        validate::actor(&run.actor)?;
        let stored_detail = run.detail.to_string();
        validate::stored_json(&stored_detail)?;
        let id = ReportRunId::new(&*self.inner.random)?;
        let mut write = Write::begin(&self.inner).await?;
        sqlx::query(
            "INSERT INTO report_runs (id, name, period, scheduled, started, finished, folder, error, detail, actor) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id.to_string())
        .bind(run.name.as_str())
        .bind(run.period.as_str())
        .bind(run.scheduled.map(Timestamp::micros))
        .bind(run.started.micros())
        .bind(run.finished.micros())
        .bind(run.folder.as_deref())
        .bind(run.error.as_deref())
        .bind(stored_detail)
        .bind(run.actor.as_str())
        .execute(&mut *write.tx)
        .await
        .doing("record a report's run")?;
        let detail = json!({"report": run.name, "period": run.period, "run": id, "failed": run.error.is_some()});
        write.perform(vec![Act::new(&run.actor, "report_run", None, &detail, Op::Note)]).await?;
        write.commit().await?;
        Ok(id)
    }

    /// The latest runs, of one report or of all, newest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn report_runs(&self, name: Option<&str>, limit: u32) -> Result<Vec<ReportRun>, LedgerError> {
        let mut select = QueryBuilder::<Sqlite>::new(COLUMNS);
        if let Some(name) = name {
            select.push(" WHERE name = ").push_bind(name.to_owned());
        }
        select.push(" ORDER BY started DESC, rowid DESC LIMIT ").push_bind(i64::from(limit));
        let rows = select.build().fetch_all(&self.inner.pool).await.doing("list report runs")?;
        rows.iter().map(run_of).collect()
    }

    /// One run.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn report_run(&self, id: ReportRunId) -> Result<Option<ReportRun>, LedgerError> {
        let mut select = QueryBuilder::<Sqlite>::new(COLUMNS);
        select.push(" WHERE id = ").push_bind(id.to_string());
        let row = select.build().fetch_optional(&self.inner.pool).await.doing("read a report run")?;
        row.as_ref().map(run_of).transpose()
    }

    /// A report's latest run, failed or not: its `scheduled` tells what a scheduler has still to catch up.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn last_report_run(&self, name: &str) -> Result<Option<ReportRun>, LedgerError> {
        Ok(self.report_runs(Some(name), 1).await?.pop())
    }

    /// A saved setting.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn setting(&self, key: &str) -> Result<Option<String>, LedgerError> {
        sqlx::query_scalar("SELECT value FROM settings WHERE key = ?")
            .bind(key)
            .fetch_optional(&self.inner.pool)
            .await
            .doing("read a setting")
    }

    /// The saved settings whose key begins with `prefix`, by key.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn settings(&self, prefix: &str) -> Result<Vec<(String, String)>, LedgerError> {
        const DOING: &str = "list settings";
        let rows = sqlx::query("SELECT key, value FROM settings WHERE substr(key, 1, length(?1)) = ?1 ORDER BY key")
            .bind(prefix)
            .fetch_all(&self.inner.pool)
            .await
            .doing(DOING)?;
        rows.iter().map(|row| Ok((row.try_get(0).doing(DOING)?, row.try_get(1).doing(DOING)?))).collect()
    }

    /// Saves a setting, or removes it. The audit log names the key, not the value.
    ///
    /// # Errors
    /// When an argument breaks its rule, or journal or ledger cannot be written.
    pub async fn set_setting(&self, key: &str, value: Option<&str>, actor: &str) -> Result<(), LedgerError> {
        const DOING: &str = "save a setting";
        validate::setting_key(key)?;
        validate::actor(actor)?;
        value.map_or(Ok(()), validate::setting_value)?;
        let mut write = Write::begin(&self.inner).await?;
        let query = match value {
            Some(value) => sqlx::query("INSERT INTO settings (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2")
                .bind(key)
                .bind(value),
            None => sqlx::query("DELETE FROM settings WHERE key = ?").bind(key),
        };
        query.execute(&mut *write.tx).await.doing(DOING)?;
        let action = if value.is_some() { "setting_saved" } else { "setting_removed" };
        write.perform(vec![Act::new(actor, action, None, &json!({"key": key}), Op::Note)]).await?;
        write.commit().await
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

fn run_of(row: &SqliteRow) -> Result<ReportRun, LedgerError> {
    const DOING: &str = "read a report run";
    let at = |index: usize| row.try_get::<i64, _>(index).doing(DOING).map(Timestamp::from_micros);
    Ok(ReportRun {
        id: row.try_get::<&str, _>(0).doing(DOING)?.parse()?,
        run: NewReportRun {
            name: row.try_get(1).doing(DOING)?,
            period: row.try_get(2).doing(DOING)?,
            scheduled: row.try_get::<Option<i64>, _>(3).doing(DOING)?.map(Timestamp::from_micros),
            started: at(4)?,
            finished: at(5)?,
            folder: row.try_get(6).doing(DOING)?,
            error: row.try_get(7).doing(DOING)?,
            detail: serde_json::from_str(row.try_get(8).doing(DOING)?)
                .map_err(|_| LedgerError::Damaged("a report run's detail is no JSON"))?,
            actor: row.try_get(9).doing(DOING)?,
        },
    })
}
