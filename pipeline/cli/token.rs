//! `ameles token`

use std::fmt;
use std::process::ExitCode;

use ameles_ledger::{NewToken, Role, TokenInfo};

use crate::args::{RoleArg, TokenArgs, TokenCommand};
use crate::environment::Environment;
use crate::failure::{Failure, Usage};
use crate::home::Location;
use crate::output;

/// Creates, lists and revokes tokens.
pub async fn run(home: &Location, args: &TokenArgs) -> Result<ExitCode, Failure> {
    let environment = Environment::open(home).await?;
    match &args.command {
        TokenCommand::Create { name, role, partner, expires, json } => {
            let secret = create(&environment, name, (*role).into(), partner.clone(), *expires).await?;
            let shown = serde_json::json!({ "name": name, "role": Role::from(*role), "partner": partner, "token": secret });
            output::summary(*json, &shown, &secret)?;
            tracing::info!("this is shown once: keep it");
        }
        TokenCommand::List { json } => {
            let tokens = environment.ledger.list_tokens().await?;
            output::summary(*json, &serde_json::json!({ "tokens": tokens }), Tokens(&tokens))?;
        }
        TokenCommand::Revoke { name, json } => {
            environment.ledger.revoke_token(name, "cli").await.map_err(Usage::into_failure)?;
            output::summary(*json, &serde_json::json!({ "revoked": name }), format!("revoked {name}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Creates a token and returns its secret.
pub async fn create(environment: &Environment, name: &str, role: Role, partner: Option<String>, days: u32) -> Result<String, Failure> {
    let expires = environment.clock.now().plus_days(i64::from(days));
    let token = NewToken { name: name.to_owned(), role, partner, expires, actor: "cli".to_owned() };
    Ok(environment.ledger.create_token(token).await.map_err(Usage::into_failure)?.expose().to_owned())
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Ingest => Self::Ingest,
            RoleArg::Analyst => Self::Analyst,
            RoleArg::Compliance => Self::Compliance,
            RoleArg::Admin => Self::Admin,
        }
    }
}

struct Tokens<'a>(&'a [TokenInfo]);

impl fmt::Display for Tokens<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<24} {:<10} {:<12} {:<22} revoked", "name", "role", "partner", "expires")?;
        for token in self.0 {
            let revoked = token.revoked.map(|at| at.to_string()).unwrap_or_default();
            let partner = token.partner.as_deref().unwrap_or("");
            write!(f, "\n{:<24} {:<10} {:<12} {:<22} {revoked}", token.name, token.role.as_str(), partner, token.expires.to_string())?;
        }
        Ok(())
    }
}
