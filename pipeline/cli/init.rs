//! `ameles init`

use std::process::ExitCode;

use ameles_ledger::Ledger;
use ameles_pseudonym::{KeyEncryptionKey, Keyring};
use ameles_schemas::{Contract, Policy};
use ameles_store::Warehouse;
use anyhow::Context;

use crate::args::InitArgs;
use crate::config::{Config, TEMPLATE, location_fault};
use crate::environment::{domains, ledger_keys, ledger_options, load_key, system};
use crate::failure::Failure;
use crate::home::{Location, read_contract, write_new};

/// Makes a home, or adds the next version of the contract to one.
pub async fn run(home: &Location, args: &InitArgs) -> Result<ExitCode, Failure> {
    if home.config().exists() {
        return next_contract(home, args).await;
    }
    // All that the user gave is checked before anything is written.
    let contract = match &args.contract {
        Some(file) => read_contract(file)?,
        None => Contract::default_contract(),
    };
    if contract.version() != 1 {
        return Err(Failure::misuse(format!("the contract is version {}; a new home starts with version 1", contract.version())));
    }
    let policy = match &args.policy {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display())).map_err(Failure::usage)?,
        None => Policy::text_default().to_owned(),
    };
    Policy::parse(&policy).map_err(Failure::usage)?;
    let template = match &args.warehouse {
        Some(location) => {
            if let Some(fault) = location_fault(location) {
                return Err(Failure::misuse(format!("--warehouse {fault}")));
            }
            let is_url = location.starts_with("file://");
            let place = if is_url { location.clone() } else { std::path::absolute(location)?.display().to_string() };
            let value = toml::Value::String(place).to_string();
            TEMPLATE.replace("location = \"warehouse\" ", &format!("location = {value} "))
        }
        None => TEMPLATE.to_owned(),
    };
    let config: Config = toml::from_str(&template)?;

    let root = home.root();
    std::fs::create_dir_all(root).with_context(|| format!("cannot create {}", root.display()))?;
    if std::fs::read_dir(root)?.next().is_some() {
        return Err(Failure::misuse(format!("{} is not empty; name a new folder with --home", root.display())));
    }
    let journal = home.journal(&config);
    if journal.exists() {
        let what = "belongs to another home, or to one that was here: move it away, it brings that home's erasures back after a restore";
        return Err(Failure::misuse(format!("{} is there already and {what}", journal.display())));
    }
    let (clock, random) = system();
    let key_file = home.key_file(&config.keys);
    let kek = if key_file.exists() { load_key(home, &config.keys)? } else { KeyEncryptionKey::create(&key_file, &*random)? };
    let keyring = Keyring::create(&home.keyring(), &kek, &domains(&contract), &*clock, &*random)?;
    std::fs::create_dir(home.contracts())?;
    write_new(&home.contract_file(1), contract.json())?;
    write_new(&home.policy(), &policy)?;
    let ledger = Ledger::create_with(ledger_options(home, &config), ledger_keys(&keyring)?, clock.clone(), random.clone()).await?;
    ledger.audit("cli", "home_created", None, serde_json::json!({ "contract": contract.name(), "version": 1 })).await?;
    Warehouse::create(&home.warehouse(&config), contract.tables()).await?;
    // The configuration last: a home that has one is whole.
    write_new(&home.config(), &template)?;
    tracing::info!("made a home at {}; its key is {}: keep it safe, and apart from the home's backups", root.display(), key_file.display());
    Ok(ExitCode::SUCCESS)
}

async fn next_contract(home: &Location, args: &InitArgs) -> Result<ExitCode, Failure> {
    let Some(file) = &args.contract else {
        return Err(Failure::misuse(format!("there is a home at {} already; --home names another", home.root().display())));
    };
    let current = home.load_contract()?;
    let next = read_contract(file)?;
    current.check_successor(&next).map_err(|error| Failure::usage(error).context(format!("{} is refused", file.display())))?;
    write_new(&home.contract_file(next.version()), next.json())?;
    let environment = crate::environment::Environment::open(home).await?;
    let detail = serde_json::json!({ "contract": next.name(), "version": next.version() });
    environment.ledger.audit("cli", "contract_added", None, detail).await?;
    tracing::info!("the contract is version {} now", next.version());
    Ok(ExitCode::SUCCESS)
}
