//! `ameles config check`

use std::process::ExitCode;

use ameles_ledger::JournalCheck;

use crate::args::{ConfigArgs, ConfigCommand};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::home::Location;
use crate::output;

/// Validates configuration, policy, contract, key, ledger, journal and warehouse.
pub async fn run(home: &Location, args: &ConfigArgs) -> Result<ExitCode, Failure> {
    let ConfigCommand::Check = args.command;
    // Opening does it all: each part is read, decrypted and connected to.
    let environment = Environment::open(home).await?;
    let snapshot = environment.warehouse.snapshot().await?;
    let journal = environment.ledger.check_journal().await?;
    for path in [&environment.config.server.tls_certificate, &environment.config.server.tls_key].into_iter().flatten() {
        let path = home.root().join(path);
        std::fs::File::open(&path)
            .map_err(|error| Failure::usage(anyhow::Error::new(error).context(format!("server: cannot read {}", path.display()))))?;
    }
    let faults = beyond_the_file(&environment, &journal);
    if let Some(fault) = faults.first() {
        return Err(Failure::misuse(format!("{}: {fault}", home.config().display())));
    }
    let kafka = match environment.config.kafka.is_on() {
        true => {
            let options = environment.config.kafka.options(home.root()).map_err(Failure::usage)?;
            Some(tokio::task::spawn_blocking(move || options.connect_check()).await?.map_err(Failure::usage)?)
        }
        false => None,
    };
    output::to(None, |out| {
        writeln!(out, "configuration {}", home.config().display())?;
        writeln!(out, "contract      {} version {}", environment.contract.name(), environment.contract.version())?;
        for table in environment.warehouse.tables().tables() {
            writeln!(out, "table         {} version {}", table.as_str(), snapshot.version(table))?;
        }
        writeln!(out, "journal       {journal:?}")?;
        if let Some((cluster, topics)) = &kafka {
            writeln!(out, "kafka         cluster {cluster}")?;
            for topic in topics {
                writeln!(out, "topic         {} with {} partitions", topic.name, topic.partitions)?;
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What `serve` would refuse, or what a restore of the home would lose.
fn beyond_the_file(environment: &Environment, journal: &JournalCheck) -> Vec<String> {
    let mut faults = Vec::new();
    let server = &environment.config.server;
    if server.tls_certificate.is_none() && !server.listen.ip().is_loopback() {
        let listen = server.listen;
        faults.push(format!("server.listen {listen} is not loopback, so TLS is required: set server.tls_certificate and server.tls_key"));
    }
    let path = environment.home.journal(&environment.config);
    match journal {
        JournalCheck::Missing => faults.push(format!("the journal {} is missing; bring it back from where it went", path.display())),
        JournalCheck::Damaged { what } => faults.push(format!("the journal {}: {what}", path.display())),
        JournalCheck::UpToDate | JournalCheck::ReplayNeeded { .. } => {}
    }
    let inside = |path: &std::path::Path| path.canonicalize().ok().zip(environment.home.root().canonicalize().ok());
    if inside(&path).is_some_and(|(path, home)| path.starts_with(home)) {
        faults.push("erasure.journal lies in the home: a restored backup would bring an old one with it; name a place outside".to_owned());
    }
    faults
}
