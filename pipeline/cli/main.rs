//! `ameles`: device telemetry that can forget.
//!
//! One file per subcommand; everything else lives in the crates below.

mod args;
mod audit;
mod config;
mod config_check;
mod config_fault;
mod demo;
mod environment;
mod erase;
mod failure;
mod home;
mod identifiers;
mod ingest;
mod init;
mod kafka;
mod kafka_config;
mod maintenance;
mod metric;
mod output;
mod panics;
mod rebuild;
mod report;
mod serve;
mod simulate;
mod sql;
mod token;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    // Two providers of cryptography are linked; rustls must know which one is ours before anything uses it.
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    harden();
    if let Err(failure) = identifiers::refuse_identifiers(std::env::args_os()) {
        return failure.report();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return identifiers::usage_error(&error, std::env::args_os()),
    };
    start_logging(&cli);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(8 << 20).build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::failed(anyhow::Error::new(error).context("cannot start the runtime")).report(),
    };
    match runtime.block_on(run(cli)) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let home = home::Location::new(cli.home);
    match cli.command {
        Command::Init(args) => init::run(&home, &args).await,
        Command::Ingest(args) => ingest::run(&home, &args).await,
        Command::Metric(args) => metric::run(&home, &args).await,
        Command::Sql(args) => sql::run(&home, &args).await,
        Command::Erase(args) => erase::run(&home, args).await,
        Command::Serve(args) => serve::run(&home, &args).await,
        Command::Demo(args) => demo::run(&args).await,
        Command::Simulate(args) if args.fleet.fleet => simulate::warehouse::run(&home, &args).await,
        Command::Simulate(args) => simulate::run(&args).map(|()| ExitCode::SUCCESS).map_err(Failure::failed),
        Command::Report(args) => report::run(&home, &args).await,
        Command::Token(args) => token::run(&home, &args).await,
        Command::Config(args) => config_check::run(&home, &args).await,
        Command::Kafka(args) => kafka::run(&home, &args).await,
        Command::Audit(args) => audit::run(&home, &args).await,
        Command::Rebuild(args) => rebuild::run(&home, &args).await,
    }
}

/// No core dumps, no debugger and no panic with its message: memory holds raw identifiers for an instant, and keys.
fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    // Where the platform refuses, the process is no worse off than without the call.
    let _refused = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _refused = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    panics::withhold_messages();
}

fn start_logging(cli: &Cli) {
    use tracing_subscriber::EnvFilter;
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => "error",
        (false, 0) => "warn,ameles=info",
        (false, 1) => "info,ameles=debug",
        (false, _) => "debug",
    };
    let filter = EnvFilter::try_from_env("AMELES_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    if cli.log_json { builder.json().init() } else { builder.with_ansi(false).init() }
}
