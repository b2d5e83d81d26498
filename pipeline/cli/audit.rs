//! `ameles audit`

use std::fmt;
use std::process::ExitCode;

use ameles_ledger::{AuditFilter, AuditRow, AuditVerdict, Ledger};
use ameles_pseudonym::Keyring;

use crate::args::{AuditArgs, AuditCommand};
use crate::environment::{Environment, ledger_keys, ledger_options, load_key, system};
use crate::failure::{DONE, FAILED, Failure};
use crate::home::Location;
use crate::output;

/// Lists the audit log, checks its chain, begins its journal anew, or makes the ledger anew from the journal.
pub async fn run(home: &Location, args: &AuditArgs) -> Result<ExitCode, Failure> {
    match &args.command {
        AuditCommand::List { json } => {
            let environment = Environment::open(home).await?;
            let rows = all_rows(&environment).await?;
            output::summary(*json, &serde_json::json!({ "audit": rows }), Rows(&rows))?;
            Ok(ExitCode::SUCCESS)
        }
        AuditCommand::Verify { json } => {
            let environment = Environment::open(home).await?;
            let verdict = environment.ledger.audit_verify().await?;
            output::summary(*json, &verdict, sentence(&verdict))?;
            Ok(ExitCode::from(if verdict.is_intact() { DONE } else { FAILED }))
        }
        AuditCommand::RestartJournal { json } => {
            let environment = Environment::open(home).await?;
            environment.ledger.restart_journal("cli").await?;
            let journal = environment.home.journal(&environment.config).display().to_string();
            output::summary(*json, &serde_json::json!({ "journal": journal }), format!("began a new journal at {journal}"))?;
            Ok(ExitCode::SUCCESS)
        }
        AuditCommand::RestoreLedger { json } => restore_ledger(home, *json).await,
    }
}

async fn restore_ledger(home: &Location, json: bool) -> Result<ExitCode, Failure> {
    let config = home.load_config()?;
    let journal = home.journal(&config);
    if !journal.exists() && !home.ledger().exists() {
        return Err(Failure::misuse(format!(
            "neither the ledger {} nor the journal {} is there, and nothing else knows who was erased: bring one of them back first",
            home.ledger().display(),
            journal.display()
        )));
    }
    let kek = load_key(home, &config.keys).map_err(Failure::usage)?;
    let keyring = Keyring::open(&home.keyring(), &kek).map_err(Failure::usage)?;
    let (clock, random) = system();
    let (ledger, report) = Ledger::restore(ledger_options(home, &config), ledger_keys(&keyring)?, clock, random).await?;
    let detail = serde_json::json!({
        "entries": report.entries,
        "requests": report.requests.len(),
        "reopened": report.reopened.len(),
        "cancelled": report.cancelled.len(),
        "lifted": report.lifted,
    });
    ledger.audit("cli", "ledger_restored", None, detail.clone()).await?;
    let told = format!(
        "took up {} entries of {}: {} requests, {} of them completed before and open again; {} cancelled\n\
         what it does not hold are consents (withdrawals among them), saved queries, report runs, and what was issued about closed months",
        report.entries,
        journal.display(),
        report.requests.len(),
        report.reopened.len(),
        report.cancelled.len(),
    );
    output::summary(json, &detail, told)?;
    Ok(ExitCode::SUCCESS)
}

async fn all_rows(environment: &Environment) -> Result<Vec<AuditRow>, Failure> {
    let mut rows: Vec<AuditRow> = Vec::new();
    loop {
        let filter = AuditFilter { after: rows.last().map_or(0, |row| row.seq), ..AuditFilter::default() };
        let page = environment.ledger.audit_list(&filter).await?;
        if page.is_empty() {
            return Ok(rows);
        }
        rows.extend(page);
    }
}

fn sentence(verdict: &AuditVerdict) -> String {
    match verdict {
        AuditVerdict::Intact { rows } => format!("intact: {rows} rows, and the last is the one that the journal names"),
        AuditVerdict::Changed { seq } => format!("changed: row {seq} is not what was written"),
        AuditVerdict::Removed { seq } => format!("removed: row {seq} is not there"),
        AuditVerdict::Rewritten { seq } => format!("rewritten: from row {seq} on, the chain is not the one that the journal knows"),
        AuditVerdict::Added { seq } => format!("added: the journal does not know row {seq}"),
        AuditVerdict::Unanchored { why } => format!("unanchored: the chain holds in itself, but the journal cannot be read: {why}"),
    }
}

struct Rows<'a>(&'a [AuditRow]);

impl fmt::Display for Rows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>5} {:<28} {:<12} {:<24} request", "seq", "at", "actor", "action")?;
        for row in self.0 {
            let request = row.request.map(|id| id.to_string()).unwrap_or_default();
            write!(f, "\n{:>5} {:<28} {:<12} {:<24} {request}", row.seq, row.at.to_string(), row.actor, row.action)?;
        }
        Ok(())
    }
}
