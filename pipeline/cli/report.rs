//! `ameles report`

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use ameles_core::{Month, Timestamp};
use ameles_ledger::{NewReportRun, ReportRun};
use ameles_reports::{Manifest, ReportSpec};

use crate::args::{ReportArgs, ReportCommand};
use crate::environment::{Environment, completeness};
use crate::failure::{Failure, Usage};
use crate::home::Location;
use crate::output;

const RUNS_LISTED_MAX: u32 = 1_000;
/// How often a report is begun anew because subjects were suppressed, or files replaced, while it was made.
const ATTEMPTS_MAX: u32 = 5;

/// Writes a report, or lists the runs.
pub async fn run(home: &Location, args: &ReportArgs) -> Result<ExitCode, Failure> {
    let environment = Environment::open(home).await?;
    match &args.command {
        ReportCommand::Run { name, month, output: folder, k, json } => {
            let month = match month {
                Some(text) => text.parse::<Month>().map_err(Failure::usage)?,
                None => environment.clock.now().month().plus(-1),
            };
            let started = environment.clock.now();
            let manifest = write(&environment, name, month, *k, folder).await?;
            record(&environment, name, month, None, started, Ok((folder, &manifest)), "cli").await?;
            output::summary(*json, &manifest, format!("wrote {}", folder.display()))?;
        }
        ReportCommand::List { json } => {
            let runs = environment.ledger.report_runs(None, RUNS_LISTED_MAX).await?;
            output::summary(*json, &serde_json::json!({ "reports": [ameles_reports::MONTHLY_ACTIVITY], "runs": runs }), Runs(&runs))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a report into the home's reports and records the run, failed ones included.
pub async fn run_recorded(
    environment: &Environment,
    name: &str,
    month: Month,
    scheduled: Option<Timestamp>,
    actor: &str,
) -> Result<Manifest, Failure> {
    let started = environment.clock.now();
    let folder = environment.home.reports().join(ameles_reports::folder_name(name, month));
    let written = write(environment, name, month, None, &folder).await;
    let outcome = written.as_ref().map(|manifest| (folder.as_path(), manifest)).map_err(|failure| format!("{:#}", failure.error()));
    record(environment, name, month, scheduled, started, outcome, actor).await?;
    written
}

async fn write(environment: &Environment, name: &str, month: Month, k: Option<u32>, folder: &Path) -> Result<Manifest, Failure> {
    let spec = ReportSpec {
        name: name.to_owned(),
        month,
        k: environment.guard(k)?.k().unwrap_or(1),
        contract: format!("{} v{}", environment.contract.name(), environment.contract.version()),
        policy: environment.policy_version.clone(),
        completeness: completeness(&*environment.clock),
    };
    for _ in 1..ATTEMPTS_MAX {
        let (view, _) = environment.metrics().await?;
        match ameles_reports::run(view, &environment.ledger, spec.clone(), folder).await {
            Err(error) if error.is_outdated() => {}
            outcome => return outcome.map_err(Usage::into_failure),
        }
    }
    let (view, _) = environment.metrics().await?;
    ameles_reports::run(view, &environment.ledger, spec, folder).await.map_err(Usage::into_failure)
}

async fn record(
    environment: &Environment,
    name: &str,
    month: Month,
    scheduled: Option<Timestamp>,
    started: Timestamp,
    outcome: Result<(&Path, &Manifest), String>,
    actor: &str,
) -> Result<(), Failure> {
    let run = NewReportRun {
        name: name.to_owned(),
        period: month.to_string(),
        scheduled,
        started,
        finished: environment.clock.now(),
        folder: outcome.as_ref().ok().map(|(folder, _)| folder.display().to_string()),
        error: outcome.as_ref().err().cloned(),
        detail: match outcome {
            Ok((_, manifest)) => serde_json::to_value(manifest)?,
            Err(_) => serde_json::Value::Null,
        },
        actor: actor.to_owned(),
    };
    environment.ledger.record_report_run(run).await?;
    Ok(())
}

struct Runs<'a>(&'a [ReportRun]);

impl fmt::Display for Runs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<20} {:<8} {:<28} outcome", "report", "month", "finished")?;
        for ReportRun { run, .. } in self.0 {
            let outcome = run.error.as_deref().or(run.folder.as_deref()).unwrap_or("");
            write!(f, "\n{:<20} {:<8} {:<28} {outcome}", run.name, run.period, run.finished.to_string())?;
        }
        Ok(())
    }
}
