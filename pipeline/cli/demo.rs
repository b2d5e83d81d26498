//! `ameles demo`: everything on a synthetic fleet, in a fresh folder.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use ameles_core::{Day, Month};
use ameles_ingest::FileOptions;
use ameles_ledger::Role;
use ameles_queries::{Filter, Guard, MetricRequest, Metrics};
use anyhow::Context;
use arrow::array::AsArray;
use arrow::datatypes::{DataType, Float64Type, Int64Type};

use crate::args::{DemoArgs, InitArgs};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::home::Location;
use crate::simulate::FleetSpec;
use crate::{ingest, init, output, serve, simulate, token};

const DAYS: u32 = 92;
/// The last full month of the fleet.
const MONTH: &str = "2018-09";

/// Builds the demo's home, ingests its fleet, prints the report card, and serves.
pub async fn run(args: &DemoArgs) -> Result<ExitCode, Failure> {
    let folder = match &args.dir {
        Some(folder) => folder.clone(),
        None => std::env::temp_dir().join(format!("ameles-demo-{}", std::process::id())),
    };
    if folder.exists() && std::fs::read_dir(&folder)?.next().is_some() {
        return Err(Failure::misuse(format!("{} is not empty; the demo wants a fresh folder", folder.display())));
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let home = Location::new(folder.join("home"));
    init::run(&home, &InitArgs { contract: None, policy: None, warehouse: None }).await?;

    let started = Instant::now();
    let events = folder.join("events.ndjson");
    let spec = FleetSpec { days: DAYS, seed: args.seed, ..FleetSpec::of(args.devices) };
    let mut out = BufWriter::new(File::create_new(&events)?);
    let bytes = simulate::write(&spec, &mut out)?.bytes;
    out.flush()?;
    let environment = Arc::new(Environment::open(&home).await?);
    let simulated = started.elapsed();
    let started = Instant::now();
    let report = ingest::ingest(&environment, std::slice::from_ref(&events), &FileOptions::default()).await?;
    let ingested = started.elapsed();

    let (_, metrics) = environment.metrics().await?;
    let card = card(&metrics, Guard::K(environment.k())).await?;
    let mut tokens = Vec::new();
    for role in [Role::Analyst, Role::Compliance, Role::Ingest, Role::Admin] {
        tokens.push((role, token::create(&environment, &format!("demo-{role}"), role, None, 30).await?));
    }
    output::to(None, |out| {
        writeln!(out, "A synthetic fleet of {} devices over {DAYS} days: {} MB of NDJSON in {simulated:.1?}", args.devices, bytes >> 20)?;
        writeln!(out, "{} events received, {} accepted, in {ingested:.1?}\n", report.tally.received(), report.tally.accepted())?;
        writeln!(out, "Report card {MONTH}")?;
        for (name, value) in &card {
            writeln!(out, "  {name:<44} {value:>14}")?;
        }
        writeln!(out, "\nHome       {}", home.root().display())?;
        writeln!(out, "Dashboard  http://{}/   (log in with the analyst's token)", args.listen)?;
        for (role, secret) in &tokens {
            writeln!(out, "{:<10} {secret}", role.as_str())?;
        }
        Ok(())
    })?;
    if args.no_serve {
        return Ok(ExitCode::SUCCESS);
    }
    serve::serve(environment, Some(args.listen)).await?;
    Ok(ExitCode::SUCCESS)
}

/// The report card: name and value, as an analyst sees them.
async fn card(metrics: &Metrics, guard: Guard) -> anyhow::Result<Vec<(&'static str, String)>> {
    let month: Month = MONTH.parse()?;
    let filter: Filter = "product!=phone,laptop".parse()?;
    let on = |name: &str, from: Day, to: Day| MetricRequest { from: Some(from), to: Some(to), ..MetricRequest::named(name) };
    let (first, last) = (month.first_day(), month.last_day());
    let base = on("installed_base", last, last);
    let devices_only = MetricRequest { filters: vec![filter], ..base.clone() };
    let by_month = |name: &str| MetricRequest { grain: Some(ameles_core::Grain::Month), ..on(name, first, first) };
    let mut to_date = on("wakes", last, last);
    to_date.cumulative = true;
    let mut card = Vec::new();
    for (name, request) in [
        ("Installed base", base),
        ("Installed base without phones and laptops", devices_only),
        ("Activations", MetricRequest { to: Some(last), ..by_month("activations") }),
        ("Monthly active devices", on("mau", first, first)),
        ("Daily active devices on the last day", on("dau", last, last)),
        ("Stickiness on the last day", on("stickiness", last, last)),
        ("Wake-ups in the month", MetricRequest { to: Some(last), ..by_month("wakes") }),
        ("Wake-ups to date", to_date),
    ] {
        let answer = metrics.run_metric(&request, guard).await?;
        let value = answer.column_by_name("value").context("a metric without a value")?;
        let text = match value.data_type() {
            _ if answer.num_rows() == 0 => "–".to_owned(),
            DataType::Float64 => format!("{:.1} %", value.as_primitive::<Float64Type>().value(answer.num_rows() - 1) * 100.0),
            _ => grouped(value.as_primitive::<Int64Type>().value(answer.num_rows() - 1)),
        };
        card.push((name, text));
    }
    Ok(card)
}

/// 1,234,567
fn grouped(value: i64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
