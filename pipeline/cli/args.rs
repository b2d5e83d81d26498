//! The command line.

mod erase;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::erase::{EraseArgs, EraseCommand};
use crate::simulate::SimulateArgs;

/// Device telemetry that can forget.
#[derive(Debug, Parser)]
#[command(name = "ameles", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// The folder with ameles.toml, keyring and ledger.
    #[arg(long, global = true, env = "AMELES_HOME", default_value = "./ameles-home", value_name = "DIR")]
    pub home: PathBuf,
    /// Log errors only.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Log more; twice for all.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Log as JSON lines.
    #[arg(long, global = true)]
    pub log_json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a home: configuration, keys, ledger and an empty warehouse.
    Init(InitArgs),
    /// Ingest events from files, folders, globs or standard input (-).
    Ingest(IngestArgs),
    /// Print a metric.
    Metric(MetricArgs),
    /// Run a SQL query over events, activity and devices.
    Sql(SqlArgs),
    /// Erase devices and users: submit, run, status, certificates, verification.
    Erase(EraseArgs),
    /// Run sources, maintenance, schedules, API and dashboard.
    Serve(ServeArgs),
    /// Do all of it on a synthetic fleet, in a fresh folder.
    Demo(DemoArgs),
    /// Write a seeded synthetic fleet's events.
    Simulate(SimulateArgs),
    /// Write a report.
    Report(ReportArgs),
    /// Create, list and revoke access tokens.
    Token(TokenArgs),
    /// Validate the configuration.
    Config(ConfigArgs),
    /// Set a Kafka topic back to its beginning, after it was made anew.
    Kafka(KafkaArgs),
    /// Read and verify the audit log.
    Audit(AuditArgs),
    /// Make activity, links and devices anew from the events, where they differ.
    Rebuild(RebuildArgs),
}

/// `ameles init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The data contract of the events, instead of the default one.
    #[arg(long, value_name = "FILE")]
    pub contract: Option<PathBuf>,
    /// The policy by country, instead of the default one.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Where the Delta tables go: a folder (default: warehouse in the home).
    #[arg(long, value_name = "DIR")]
    pub warehouse: Option<String>,
}

/// `ameles ingest`.
#[derive(Debug, Args)]
pub struct IngestArgs {
    /// NDJSON files (plain, .gz, .zst), folders, globs, or - for standard input.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The source's alias in quarantine and metrics, instead of a keyed hash.
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Exit with 3 when events were rejected.
    #[arg(long)]
    pub strict: bool,
    /// Print the summary as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Formats of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// Aligned columns.
    Table,
    /// Comma-separated values with a header.
    Csv,
    /// An array of objects.
    Json,
    /// A Parquet file.
    Parquet,
    /// An Arrow IPC stream.
    Arrow,
}

/// What a metric counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UnitArg {
    /// Devices.
    Device,
    /// Users.
    User,
}

/// `ameles metric`.
#[derive(Debug, Args)]
pub struct MetricArgs {
    /// The metric's name (see --list).
    #[arg(required_unless_present = "list")]
    pub name: Option<String>,
    /// List the metrics that this home's contract supports.
    #[arg(long)]
    pub list: bool,
    /// First date, inclusive.
    #[arg(long, value_name = "DATE")]
    pub from: Option<String>,
    /// Last date, inclusive.
    #[arg(long, value_name = "DATE")]
    pub to: Option<String>,
    /// Dimensions, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "DIM,…")]
    pub by: Vec<String>,
    /// `DIM=a,b` or `DIM!=a,b`; repeats.
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Sum by day, week or month, where values add up.
    #[arg(long, value_name = "GRAIN")]
    pub grain: Option<String>,
    /// Count devices or users.
    #[arg(long, value_enum, default_value = "device")]
    pub unit: UnitArg,
    /// installed_base: only devices seen in the last DAYS days.
    #[arg(long, value_name = "DAYS")]
    pub active_in: Option<u32>,
    /// Running total of a measure.
    #[arg(long)]
    pub cumulative: bool,
    /// The smallest group that is shown (default: privacy.k of the configuration; 1 shows all, for the local operator).
    #[arg(long, value_name = "DEVICES")]
    pub k: Option<u32>,
    /// The output's format.
    #[arg(long, value_enum, default_value = "table")]
    pub format: FormatArg,
    /// Write to FILE instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `ameles sql`.
#[derive(Debug, Args)]
pub struct SqlArgs {
    /// The query, or - to read it from standard input.
    pub query: String,
    /// The smallest group that is shown (1 lifts the guard, for the local operator).
    #[arg(long, value_name = "DEVICES")]
    pub k: Option<u32>,
    /// The output's format.
    #[arg(long, value_enum, default_value = "table")]
    pub format: FormatArg,
    /// Write to FILE instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `ameles serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Listen here instead of server.listen.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<std::net::SocketAddr>,
}

/// `ameles demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The fresh folder to use (default: one under the temporary folder).
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How many devices the fleet has.
    #[arg(long, default_value_t = 20_000)]
    pub devices: u64,
    /// The fleet's seed.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Listen here.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub listen: std::net::SocketAddr,
    /// Do everything but keep serving.
    #[arg(long)]
    pub no_serve: bool,
}

/// `ameles report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ReportCommand,
}

/// `ameles report …`.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// Write a report's files.
    Run {
        /// The report: monthly-activity.
        name: String,
        /// The month it is about (default: the last one that has ended).
        #[arg(long, value_name = "MONTH")]
        month: Option<String>,
        /// The folder to write to.
        #[arg(long, short, value_name = "DIR")]
        output: PathBuf,
        /// The smallest group that is shown.
        #[arg(long, value_name = "DEVICES")]
        k: Option<u32>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// List the reports and their runs.
    List {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// `ameles token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TokenCommand,
}

/// Roles of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Posts events.
    Ingest,
    /// Reads metrics and reports.
    Analyst,
    /// Runs erasures.
    Compliance,
    /// All of it.
    Admin,
}

/// `ameles token …`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token and show its secret, once.
    Create {
        /// A name for it.
        name: String,
        /// What it may do.
        #[arg(long, value_enum)]
        role: RoleArg,
        /// Limit it to one partner.
        #[arg(long)]
        partner: Option<String>,
        /// Days until it expires.
        #[arg(long, default_value_t = 90, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
        expires: u32,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// List tokens, without secrets.
    List {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token.
    Revoke {
        /// Its name.
        name: String,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// `ameles config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// `ameles config …`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Validate everything, connections included.
    Check,
}

/// `ameles kafka`.
#[derive(Debug, Args)]
pub struct KafkaArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: KafkaCommand,
}

/// `ameles kafka …`.
#[derive(Debug, Subcommand)]
pub enum KafkaCommand {
    /// Read a topic from its beginning again: for one that was deleted and made anew, or has lost messages.
    /// Events that are there already are removed as duplicates by their event id when their month settles.
    Reset {
        /// The topic.
        topic: String,
        /// This partition only.
        #[arg(long, value_name = "N")]
        partition: Option<i32>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// `ameles rebuild`.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: RebuildCommand,
}

/// `ameles rebuild …`.
#[derive(Debug, Subcommand)]
pub enum RebuildCommand {
    /// Compare each month's activity, links and devices with what its events give, and replace what differs.
    /// What has been erased stays so. A month without events is refused.
    Activity {
        /// This month only.
        #[arg(long, value_name = "MONTH")]
        month: Option<String>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// `ameles audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: AuditCommand,
}

/// `ameles audit …`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List the acts on the ledger.
    List {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Check the hash chain against the journal.
    Verify {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Begin a new journal where the old one is lost for good, from what the ledger knows. Erasures that only the lost one knew,
    /// since the backup that the ledger comes from, stay unknown.
    RestartJournal {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Make a ledger that is lost for good anew from the journal, with nothing else running on the home. Erased subjects stay
    /// out, and requests that were completed are carried out once more; consents, saved queries and report runs are not in it.
    RestoreLedger {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
