//! Tokens' public types: roles, the secret that is shown once, and the principal that only verification makes.

use std::fmt;
use std::str::FromStr;

use ameles_core::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::LedgerError;

/// What a token may do; each token has one role.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sends events and consents.
    Ingest,
    /// Reads metrics, reports and SQL above the smallest group.
    Analyst,
    /// Handles requests, consents and the audit log.
    Compliance,
    /// Runs the server.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Ingest, Self::Analyst, Self::Compliance, Self::Admin];
    /// The name that users see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Analyst => "analyst",
            Self::Compliance => "compliance",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = LedgerError;
    fn from_str(text: &str) -> Result<Self, LedgerError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(LedgerError::Invalid { what: "the role", rule: "ingest, analyst, compliance or admin" })
    }
}

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// `[A-Za-z0-9._-]{1,64}`, never used before.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The one partner whose subjects it may touch.
    pub partner: Option<String>,
    /// When it stops working.
    pub expires: Timestamp,
    /// Who makes it: a token's name or `cli`.
    pub actor: String,
}

/// A token as it is listed: without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenInfo {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The one partner whose subjects it may touch.
    pub partner: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it stops working.
    pub expires: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

/// A token's secret, `ameles_` and 43 characters of base64url. Shown once and wiped.
pub struct TokenSecret(pub(crate) Zeroizing<String>);

impl TokenSecret {
    /// The secret in clear: to be shown to whoever asked for the token, and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ameles_…")
    }
}

/// The holder of a token that was verified. Nothing but verification makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) partner: Option<String>,
    pub(crate) expires: Timestamp,
}

impl Principal {
    /// The token's name: the actor of what it does.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// What it may do.
    pub const fn role(&self) -> Role {
        self.role
    }
    /// The one partner whose subjects it may touch.
    pub fn partner(&self) -> Option<&str> {
        self.partner.as_deref()
    }
    /// When the token stops working; a session must not outlive it.
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }
}
