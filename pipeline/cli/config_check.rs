//! `ameles config check`

use std::process::ExitCode;

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
    output::to(None, |out| {
        writeln!(out, "configuration {}", home.config().display())?;
        writeln!(out, "contract      {} version {}", environment.contract.name(), environment.contract.version())?;
        for table in environment.warehouse.tables().tables() {
            writeln!(out, "table         {} version {}", table.as_str(), snapshot.version(table))?;
        }
        writeln!(out, "journal       {journal:?}")?;
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
