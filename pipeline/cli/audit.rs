//! `ameles audit`

use std::fmt;
use std::process::ExitCode;

use ameles_ledger::{AuditFilter, AuditRow, AuditVerdict};

use crate::args::{AuditArgs, AuditCommand};
use crate::environment::Environment;
use crate::failure::{DONE, FAILED, Failure};
use crate::home::Location;
use crate::output;

/// Lists the audit log, checks its chain, or begins its journal anew.
pub async fn run(home: &Location, args: &AuditArgs) -> Result<ExitCode, Failure> {
    let environment = Environment::open(home).await?;
    match &args.command {
        AuditCommand::List { json } => {
            let rows = all_rows(&environment).await?;
            output::summary(*json, &serde_json::json!({ "audit": rows }), Rows(&rows))?;
            Ok(ExitCode::SUCCESS)
        }
        AuditCommand::Verify { json } => {
            let verdict = environment.ledger.audit_verify().await?;
            output::summary(*json, &verdict, sentence(&verdict))?;
            Ok(ExitCode::from(if verdict.is_intact() { DONE } else { FAILED }))
        }
        AuditCommand::RestartJournal { json } => {
            environment.ledger.restart_journal("cli").await?;
            let journal = environment.home.journal(&environment.config).display().to_string();
            output::summary(*json, &serde_json::json!({ "journal": journal }), format!("began a new journal at {journal}"))?;
            Ok(ExitCode::SUCCESS)
        }
    }
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
