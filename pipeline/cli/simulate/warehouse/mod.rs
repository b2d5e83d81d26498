//! `ameles simulate --fleet`: a whole warehouse of a large fleet, for benchmarks
//! of queries.
//!
//! A year of a hundred million devices is a hundred thousand million events;
//! queries read what they are rolled up into. That is written here directly:
//! `activity`, `links` and `devices` of settled months, and no events. Such a
//! home is for measuring and nothing else, and the command says so.

mod device;
mod rows;
mod shape;
mod words;

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Args;

use super::SimulateArgs;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::home::Location;
use crate::maintenance::keep_cohorts;
use crate::output::Progress;
use rows::FleetRows;
use shape::FleetShape;

const DEVICES: u64 = 132_000_000;
/// Of 132 devices so many are active in the last month.
const ACTIVES_OF_132: u64 = 34;

/// What `--fleet` adds to `ameles simulate`.
#[derive(Debug, Clone, Args)]
pub struct FleetArgs {
    /// Fill the home's empty warehouse with the activity of a large fleet, without events: for benchmarks of queries only.
    #[arg(long, conflicts_with_all = ["events", "users", "files", "bad_lines", "huge_line"])]
    pub fleet: bool,
    /// --fleet: how many months.
    #[arg(long, value_name = "N", default_value_t = 12, requires = "fleet", value_parser = clap::value_parser!(u32).range(2..=i64::from(FleetShape::MONTHS_MAX)))]
    pub months: u32,
    /// --fleet: pairs of a device and a month in which it is active (default: two for each device).
    #[arg(long, value_name = "N", requires = "fleet", value_parser = clap::value_parser!(u64).range(1..))]
    pub device_months: Option<u64>,
    /// --fleet: devices active in the last month (default: 34 of 132).
    #[arg(long, value_name = "N", requires = "fleet", value_parser = clap::value_parser!(u64).range(1..))]
    pub last_month_actives: Option<u64>,
}

impl FleetArgs {
    fn shape(&self, all: &SimulateArgs) -> FleetShape {
        let devices = all.devices.unwrap_or(DEVICES);
        FleetShape {
            devices,
            from: all.from.month(),
            months: self.months,
            device_months: self.device_months.unwrap_or(2 * devices),
            last_month_actives: self.last_month_actives.unwrap_or(devices * ACTIVES_OF_132 / 132),
            seed: all.seed,
        }
    }
}

/// Writes the fleet and says on standard error what was written.
///
/// # Errors
/// When the home's warehouse is not empty or not of the default contract, no fleet has the totals asked for, or storage fails.
pub async fn run(home: &Location, args: &SimulateArgs) -> Result<ExitCode, Failure> {
    let shape = args.fleet.shape(args);
    let environment = Environment::open(home).await?;
    let warehouse = &environment.warehouse;
    let rows = FleetRows::new(warehouse.tables(), shape).map_err(Failure::misuse)?;
    if !warehouse.snapshot().await?.is_empty(warehouse) {
        return Err(Failure::misuse(format!(
            "the warehouse of {} has rows already; --fleet wants a new home, made by ameles init",
            home.root().display()
        )));
    }
    let Some(maintainer) = warehouse.try_maintainer(&*environment.random).await? else {
        return Err(Failure::failed(anyhow::anyhow!("another process maintains the warehouse; try again when it is done")));
    };
    let (started, progress, total) = (Instant::now(), Progress::start("simulate", false), rows.rows_expected());
    let done = AtomicU64::new(0);
    let tell = |rows: u64| {
        let done = done.fetch_add(rows, Ordering::Relaxed) + rows;
        let rate = done as f64 / started.elapsed().as_secs_f64().max(1e-3) / 1e6;
        progress.update(done, total, &|| format!("{done} rows, {rate:.2} M/s"));
    };
    let written = maintainer.write_settled(Arc::new(rows), &tell).await;
    progress.finish();
    let written = written?;
    keep_cohorts(&maintainer).await?;
    let detail = serde_json::json!({ "devices": shape.devices, "months": shape.months, "seed": shape.seed });
    environment.ledger.audit("cli", "benchmark_warehouse_written", None, detail).await?;
    let mut out = io::stderr().lock();
    for table in &written {
        writeln!(out, "{}: {} rows, {} files, {} MB", table.table, table.rows, table.files, table.bytes >> 20)?;
    }
    writeln!(
        out,
        "{} devices, {} to {}, seed {}, in {:.1?}",
        shape.devices,
        shape.from,
        shape.month(shape.months as usize - 1),
        shape.seed,
        started.elapsed()
    )?;
    writeln!(
        out,
        "This is a benchmark warehouse: it has no events, so that nothing can be erased from it or made anew. Do not ingest into this home."
    )?;
    Ok(ExitCode::SUCCESS)
}
