//! What `serve` does on its own: compaction, settling, erasure runs, purge, scheduled reports.

use std::sync::Arc;
use std::time::Duration;

use ameles_core::{Month, Timestamp};
use ameles_erasure::{Eraser, Silent};
use ameles_ingest::{KafkaSource, is_closed};
use ameles_queries::COHORT_ROWS_MIN;
use ameles_schemas::Table;
use ameles_store::{Maintainer, Rewrite, Snapshot};
use anyhow::{Context, anyhow};
use chrono::DateTime;
use croner::Cron;
use tokio::sync::watch;

use crate::environment::Environment;
use crate::failure::Failure;

/// A closed month without a commit for so long is not being backfilled.
const QUIET_S: i64 = 60;

/// Reads a cron schedule.
///
/// # Errors
/// When it is none, saying what one looks like.
pub fn parse_schedule(text: &str) -> anyhow::Result<Cron> {
    text.parse::<Cron>()
        .map_err(|error| anyhow!("schedule {text:?}: {error}; write cron such as \"0 6 1 * *\" (minute hour day month weekday)"))
}

/// Works until told to stop. A failure is logged and tried again at the next look: nothing of it is lost,
/// since every step starts from the tables and the ledger.
pub async fn work(environment: Arc<Environment>, eraser: Arc<Eraser>, kafka: Option<KafkaSource>, mut stop: watch::Receiver<bool>) {
    let every = i64::try_from(environment.config.erasure.interval_s).unwrap_or(i64::MAX);
    // A run that was interrupted is resumed at once; a new request waits for its turn.
    let interrupted = environment.ledger.counts().await.is_ok_and(|counts| counts.in_progress > 0);
    let mut next_erasure = environment.clock.now().plus_secs(if interrupted { 0 } else { every });
    let mut next_expiry = environment.clock.now();
    let interval = Duration::from_secs(environment.config.maintenance.interval_s.max(1));
    loop {
        if let Err(error) = look_after_tables(&environment, kafka.as_ref()).await {
            tracing::error!("maintenance: {error:#}");
        }
        let now = environment.clock.now();
        let due = now >= next_erasure;
        if due {
            next_erasure = now.plus_secs(every);
        }
        if let Err(error) = erase(&environment, &eraser, due).await {
            tracing::error!("erasure run: {error:#}");
        }
        if now >= next_expiry {
            next_expiry = now.plus_days(1);
            if let Err(error) = environment.ledger.expire_suppressions().await {
                tracing::error!("expiry of suppressions: {error:#}");
            }
        }
        if let Err(error) = reports(&environment).await {
            tracing::error!("scheduled report: {error:#}");
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = stop.changed() => return,
        }
    }
}

/// Merges the runs of open months and quarantine's files, settles months that have closed, and purges.
///
/// Ingest waits for none of it: only the maintainer's lock is held.
async fn look_after_tables(environment: &Environment, kafka: Option<&KafkaSource>) -> anyhow::Result<()> {
    let Some(mut maintainer) = environment.warehouse.try_maintainer(&*environment.random).await? else { return Ok(()) };
    maintainer.recover().await?;
    let snapshot = environment.warehouse.snapshot().await?;
    // A month closes by the slowest source: files and HTTP are never behind.
    let now = environment.clock.now();
    let watermark = kafka.and_then(KafkaSource::watermark).map_or(now, |watermark| watermark.min(now));
    let runs_max = environment.config.maintenance.runs_max;
    for month in snapshot.months(Table::Events) {
        if is_to_settle(&snapshot, month, watermark) {
            settle(environment, &maintainer, month).await?;
        } else {
            let done = maintainer.compact_month(month, runs_max, &environment.ledger, &|_| {}).await?;
            if done.merges > 0 {
                tracing::info!("{month}: merged {} files, {} rows, {} duplicates removed", done.files, done.rows, done.duplicates);
            }
        }
    }
    maintainer.compact_quarantine(runs_max, &environment.ledger).await?;
    maintainer.purge(environment.config.erasure.purge_grace_s, &environment.clock).await?;
    keep_cohorts(&maintainer).await
}

/// What a command that has changed months does at its end, unless another process maintains the warehouse and will.
pub async fn after_changes(environment: &Environment) -> anyhow::Result<()> {
    match environment.warehouse.try_maintainer(&*environment.random).await? {
        Some(maintainer) => keep_cohorts(&maintainer).await,
        None => Ok(()),
    }
}

/// For retention: see `ameles_queries::keep_cohorts`.
pub async fn keep_cohorts(maintainer: &Maintainer) -> anyhow::Result<()> {
    for month in ameles_queries::keep_cohorts(maintainer, COHORT_ROWS_MIN).await? {
        tracing::info!("{month}: cohorts of its active devices noted");
    }
    Ok(())
}

async fn settle(environment: &Environment, maintainer: &Maintainer, month: Month) -> anyhow::Result<()> {
    let suppressed = Arc::new(environment.ledger.suppressions().await?.carried_out());
    let done = maintainer.rewrite_month(month, &Rewrite { suppressed, closed: true }, &|_| {}).await?;
    tracing::info!("{month}: {} rows, {} duplicates removed, settled", done.rows_after, done.duplicates);
    Ok(())
}

/// Whether a month has closed and was not settled since. A backfill settles what it touches when it ends:
/// while its batches come in their runs are merged like an open month's, or each look would rewrite the month.
fn is_to_settle(snapshot: &Snapshot, month: Month, now: Timestamp) -> bool {
    let latest = snapshot.month_files(Table::Events, month).iter().map(|file| file.modified).max();
    is_closed(month, now) && !snapshot.is_closed(month) && latest.is_some_and(|latest| latest.plus_secs(QUIET_S) <= now)
}

/// Carries out what another process wished for and, when it is time, all that is pending.
async fn erase(environment: &Environment, eraser: &Eraser, due: bool) -> anyhow::Result<()> {
    let Some(mut maintainer) = environment.warehouse.try_maintainer(&*environment.random).await? else { return Ok(()) };
    let done = eraser.run_if_requested(&mut maintainer, &Silent).await?;
    if due && done.is_none() && !environment.ledger.open_requests().await?.is_empty() {
        eraser.run_with(&mut maintainer, "schedule", &Silent).await?;
    }
    Ok(())
}

/// Runs each report whose latest scheduled instant has no run yet: once, however many were missed.
async fn reports(environment: &Environment) -> anyhow::Result<()> {
    for report in &environment.config.reports {
        let now = chrono_time(environment.clock.now())?;
        let scheduled =
            parse_schedule(&report.schedule)?.find_previous_occurrence(&now, true).context("the schedule has no instant before now")?;
        let scheduled = Timestamp::from_micros(scheduled.timestamp_micros());
        let last = environment.ledger.last_report_run(&report.name).await?;
        // The first look at a schedule does not run what was due before there was a server.
        let Some(since) = last.and_then(|last| last.run.scheduled) else {
            let known = environment.ledger.setting(&format!("report.{}.since", report.name)).await?;
            match known.and_then(|text| text.parse::<Timestamp>().ok()) {
                Some(since) if since < scheduled => run_report(environment, &report.name, scheduled).await?,
                Some(_) => {}
                None => {
                    let since = environment.clock.now().to_string();
                    environment.ledger.set_setting(&format!("report.{}.since", report.name), Some(&since), "schedule").await?;
                }
            }
            continue;
        };
        if since < scheduled {
            run_report(environment, &report.name, scheduled).await?;
        }
    }
    Ok(())
}

async fn run_report(environment: &Environment, name: &str, scheduled: Timestamp) -> anyhow::Result<()> {
    let month = scheduled.month().plus(-1);
    crate::report::run_recorded(environment, name, month, Some(scheduled), "schedule").await.map_err(Failure::into_error)?;
    tracing::info!("wrote the report {name} for {month}");
    Ok(())
}

fn chrono_time(at: Timestamp) -> anyhow::Result<DateTime<chrono::Utc>> {
    DateTime::from_timestamp_micros(at.micros()).context("the clock shows a time that no calendar has")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_cron_in_utc() {
        let cron = parse_schedule("0 6 1 * *").unwrap();
        let at = chrono_time("2018-10-02T00:00:00Z".parse().unwrap()).unwrap();
        let before = cron.find_previous_occurrence(&at, true).unwrap();
        assert_eq!(Timestamp::from_micros(before.timestamp_micros()).to_string(), "2018-10-01T06:00:00Z");
        assert!(parse_schedule("whenever").unwrap_err().to_string().contains("schedule"));
    }
}
