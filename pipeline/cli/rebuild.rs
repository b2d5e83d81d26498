//! `ameles rebuild`

use std::collections::BTreeSet;
use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ameles_core::Month;
use ameles_schemas::Table;
use ameles_store::{MonthRebuild, Snapshot};
use serde::Serialize;

use crate::args::{RebuildArgs, RebuildCommand};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::home::Location;
use crate::maintenance::keep_cohorts;
use crate::output::{self, Progress};

#[derive(Serialize)]
struct Report {
    months: Vec<OfMonth>,
    /// Months that were replaced.
    replaced: usize,
}

#[derive(Serialize)]
struct OfMonth {
    month: String,
    #[serde(flatten)]
    found: MonthRebuild,
}

/// Makes activity, links and devices anew from the events.
pub async fn run(home: &Location, args: &RebuildArgs) -> Result<ExitCode, Failure> {
    let RebuildCommand::Activity { month, json } = &args.command;
    let month = month.as_ref().map(|text| text.parse::<Month>()).transpose().map_err(Failure::usage)?;
    let environment = Environment::open(home).await?;
    let Some(maintainer) = environment.warehouse.try_maintainer(&*environment.random).await? else {
        return Err(Failure::failed(anyhow::anyhow!("another process is rewriting months; try again when it is done")));
    };
    let snapshot = environment.warehouse.snapshot().await?;
    let months = months(&snapshot, month)?;
    // Under the maintainer's lock: no erasure ends while this goes on.
    let suppressed = Arc::new(environment.ledger.suppressions().await?.carried_out());
    let progress = Progress::start("rebuild", false);
    let total = months.iter().flat_map(|month| snapshot.month_files(Table::Events, *month)).map(|file| file.rows).sum();
    let done = AtomicU64::new(0);
    let tell = |rows: u64| {
        let done = done.fetch_add(rows, Ordering::Relaxed) + rows;
        progress.update(done, total, &|| format!("{done} events"));
    };
    let mut report = Report { months: Vec::new(), replaced: 0 };
    for month in months {
        let found = maintainer.rebuild_month(month, Arc::clone(&suppressed), &tell).await?;
        report.replaced += usize::from(found.replaced);
        report.months.push(OfMonth { month: month.to_string(), found });
    }
    progress.finish();
    keep_cohorts(&maintainer).await?;
    if report.replaced > 0 {
        let replaced: Vec<&str> = report.months.iter().filter(|of| of.found.replaced).map(|of| of.month.as_str()).collect();
        environment.ledger.audit("cli", "activity_rebuilt", None, serde_json::json!({ "months": replaced })).await?;
    }
    output::summary(*json, &report, &report)?;
    Ok(ExitCode::SUCCESS)
}

/// The month asked for, or all; refused before anything is touched where a month has no events.
fn months(snapshot: &Snapshot, month: Option<Month>) -> Result<BTreeSet<Month>, Failure> {
    let derived = [Table::Activity, Table::Links, Table::Devices];
    let all: BTreeSet<Month> = derived.into_iter().chain([Table::Events]).flat_map(|table| snapshot.months(table)).collect();
    let months = match month {
        None => all,
        Some(month) if all.contains(&month) => BTreeSet::from([month]),
        Some(month) => return Err(Failure::misuse(format!("there is nothing in {month}"))),
    };
    if let Some(month) = months.iter().find(|month| snapshot.month_files(Table::Events, **month).is_empty()) {
        return Err(Failure::failed(anyhow::anyhow!(
            "{month} has activity but no events, from which alone it could be made anew; nothing was changed; --month names one that has"
        )));
    }
    Ok(months)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, OfMonth { month, found }) in self.months.iter().enumerate() {
            let line = if at == 0 { "" } else { "\n" };
            let verdict = if found.replaced { "replaced" } else { "as its events say" };
            write!(f, "{line}{month}: {} events, {verdict}", found.events)?;
            if found.duplicates > 0 {
                write!(f, ", {} repeats dropped", found.duplicates)?;
            }
            for table in found.tables.iter().filter(|table| !table.is_same()) {
                write!(
                    f,
                    "\n  {}: of {} rows {} were missing, {} had other values; {} more should not have been there",
                    table.table, table.rows, table.missing, table.changed, table.surplus
                )?;
                if let Some(why) = &table.unreadable {
                    write!(f, "; {why}")?;
                }
            }
        }
        if self.months.is_empty() { write!(f, "there are no events") } else { Ok(()) }
    }
}
