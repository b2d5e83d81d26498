//! `ameles metric`

use std::process::ExitCode;

use ameles_core::Day;
use ameles_queries::{Filter, Format, HELD_BACK, MetricRequest, Unit, format_batches, list_metrics};
use anyhow::anyhow;

use crate::args::{FormatArg, MetricArgs, UnitArg};
use crate::environment::Environment;
use crate::failure::{Failure, Usage};
use crate::home::Location;
use crate::output;

/// Prints a metric.
pub async fn run(home: &Location, args: &MetricArgs) -> Result<ExitCode, Failure> {
    let environment = Environment::open(home).await?;
    if args.list {
        output::to(args.output.as_deref(), |out| {
            for metric in list_metrics(environment.warehouse.tables()) {
                writeln!(out, "{:<16} {}", metric.name, metric.definition)?;
            }
            Ok(())
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let request = request(args)?;
    let guard = environment.guard(args.k)?;
    let (_, metrics) = environment.metrics().await?;
    let answer = metrics.run_metric(&request, guard).await.map_err(Usage::into_failure)?;
    if let Some(months) = answer.schema_ref().metadata().get(HELD_BACK) {
        tracing::warn!("{months}: held back until at least k of its devices have gone since answers about it were issued; --k 1 shows it");
    }
    output::to(args.output.as_deref(), |out| Ok(format_batches(&[answer], args.format.into(), out)?))?;
    Ok(ExitCode::SUCCESS)
}

fn request(args: &MetricArgs) -> Result<MetricRequest, Failure> {
    let day = |option: &str, text: &Option<String>| -> Result<Option<Day>, Failure> {
        text.as_ref().map(|text| text.parse::<Day>()).transpose().map_err(|error| Failure::usage(anyhow!("--{option}: {error}")))
    };
    Ok(MetricRequest {
        name: args.name.clone().unwrap_or_default(),
        from: day("from", &args.from)?,
        to: day("to", &args.to)?,
        by: args.by.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect(),
        filters: args.filter.iter().map(|text| text.parse::<Filter>()).collect::<Result<_, _>>().map_err(Failure::usage)?,
        grain: args.grain.as_ref().map(|text| text.parse()).transpose().map_err(Failure::usage)?,
        unit: match args.unit {
            UnitArg::Device => Unit::Device,
            UnitArg::User => Unit::User,
        },
        active_in: args.active_in,
        cumulative: args.cumulative,
    })
}

impl From<FormatArg> for Format {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Table => Self::Table,
            FormatArg::Csv => Self::Csv,
            FormatArg::Json => Self::Json,
            FormatArg::Parquet => Self::Parquet,
            FormatArg::Arrow => Self::Arrow,
        }
    }
}
