//! `ameles simulate`: a synthetic fleet's events, repeatable from a seed.
//!
//! Devices are activated, used day by day, given up and taken up again; they
//! move, are shared, send late and twice, and withdraw consent. No person or
//! device of the world is in it.

mod bad;
mod files;
mod fleet;
mod generate;
mod plan;
mod render;
mod rng;
mod spec;
pub mod warehouse;

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ameles_core::{Day, Reason};
use clap::Args;

// What the demo, benches and tests use besides the command.
#[allow(unused_imports)]
pub use bad::BadLine;
pub use files::Compression;
#[allow(unused_imports)]
pub use generate::{Sink, Summary, write, write_streams};
pub use spec::FleetSpec;

use files::Files;
use warehouse::FleetArgs;

const FILES_MAX: u64 = 256;

/// `ameles simulate`.
#[derive(Debug, Clone, Args)]
pub struct SimulateArgs {
    /// How many devices (default: enough for --events, or 253000, which give ten million events in 92 days; 132000000 with --fleet).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=spec::DEVICES_MAX))]
    pub devices: Option<u64>,
    /// How many users (default: six for ten devices; 0 for none).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=spec::USERS_MAX))]
    pub users: Option<u64>,
    /// How many days.
    #[arg(long, value_name = "N", default_value_t = 92, value_parser = clap::value_parser!(u32).range(1..=i64::from(spec::DAYS_MAX)))]
    pub days: u32,
    /// The first day.
    #[arg(long, value_name = "DATE", default_value = "2018-07-01")]
    pub from: Day,
    /// The same seed gives the same bytes.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Stop after N lines.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub events: Option<u64>,
    /// Share of events that are sent twice.
    #[arg(long, value_name = "SHARE", default_value_t = 0.005, value_parser = share)]
    pub duplicates: f64,
    /// Share of events that arrive hours to days late.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    pub late: f64,
    /// Bad lines of every kind: so many for each good one.
    #[arg(long, value_name = "SHARE", num_args = 0..=1, default_value_t = 0.0, default_missing_value = "0.001", value_parser = share)]
    pub bad_lines: f64,
    /// One bad line of 10 MB.
    #[arg(long)]
    pub huge_line: bool,
    /// Write N files into the folder that -o names.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=FILES_MAX))]
    pub files: Option<u64>,
    /// How the files of --files are compressed; a single file as its name says.
    #[arg(long, value_enum, value_name = "HOW", default_value = "none")]
    pub compress: Compression,
    /// A file (.gz and .zst are compressed), a folder, or - for standard output.
    #[arg(long, short, value_name = "FILE|DIR|-", default_value = "-")]
    pub output: PathBuf,
    /// A warehouse instead of events.
    #[command(flatten)]
    pub fleet: FleetArgs,
}

impl SimulateArgs {
    /// The fleet that the arguments describe.
    pub fn spec(&self) -> FleetSpec {
        let mut spec = FleetSpec {
            from: self.from,
            days: self.days,
            seed: self.seed,
            events_limit: self.events,
            duplicate_rate: self.duplicates,
            late_rate: self.late,
            bad_line_rate: self.bad_lines,
            huge_line: self.huge_line,
            ..FleetSpec::default()
        };
        spec.devices = match (self.devices, self.events) {
            (Some(devices), _) => devices,
            (None, None) => spec.devices,
            // A little more than it takes by the sample's reckoning; the limit cuts the rest.
            (None, Some(events)) => ((events as f64 / generate::lines_per_device(&spec) * 1.05) as u64 + 20).min(spec::DEVICES_MAX),
        };
        spec.users = self.users.unwrap_or(spec.devices * 6 / 10);
        spec
    }
}

/// Writes the fleet and says on standard error what was written.
///
/// # Errors
/// When the arguments do not go together or the output cannot be written.
pub fn run(args: &SimulateArgs) -> anyhow::Result<()> {
    let spec = args.spec();
    if let Some(fault) = spec.fault() {
        anyhow::bail!(fault);
    }
    let summary = if args.output == Path::new("-") {
        anyhow::ensure!(args.files.is_none(), "--files needs a folder: add -o DIR");
        match write(&spec, &mut io::stdout().lock()) {
            // Whoever reads has had enough, `head` say.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    } else {
        let is_folder = args.files.is_some() || args.output.is_dir();
        let mut files = if is_folder {
            Files::in_folder(&args.output, args.files.unwrap_or(1) as usize, args.compress)?
        } else {
            Files::single(&args.output)?
        };
        let streams = if is_folder { args.files.unwrap_or(1) as usize } else { 1 };
        let summary = write_streams(&spec, streams, &mut files)?;
        files.finish()?;
        summary
    };
    let bad: u64 = summary.bad.values().sum();
    writeln!(
        io::stderr(),
        "{} lines, {} bytes: {} events of {} devices, {} repeats, {} late, {bad} bad lines",
        summary.lines,
        summary.bytes,
        summary.events,
        spec.devices,
        summary.duplicates,
        summary.late,
    )?;
    for (kind, count) in &summary.bad {
        writeln!(io::stderr(), "  {count} {}: {}", kind.name(), kind.reason().map_or("not rejected", Reason::as_str))?;
    }
    Ok(())
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to 1, such as 0.01".to_owned()),
    }
}
