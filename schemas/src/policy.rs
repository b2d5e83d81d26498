//! Policies: which country's events are admitted on which terms.
//!
//! `policy.toml` names regimes and maps countries to them. The regime `gdpr`
//! must be there: it holds for a country that is missing or not listed.

use std::collections::BTreeMap;
use std::fmt;

mod read;

/// The regime that holds for a country that is missing or not listed.
pub(crate) const DEFAULT_REGIME: &str = "gdpr";

/// When events are collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Collection {
    /// Only with a consent that is valid at the event's time and at its arrival.
    OptIn,
    /// Until consent is withdrawn.
    OptOut,
}

impl Collection {
    /// As written in `policy.toml`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OptIn => "opt_in",
            Self::OptOut => "opt_out",
        }
    }
}

/// What a withdrawal of consent does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnWithdrawal {
    /// New events are dropped; history stays counted.
    Stop,
    /// Erased as well.
    Erase,
}

impl OnWithdrawal {
    /// As written in `policy.toml`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Erase => "erase",
        }
    }
}

/// The terms on which a country's events are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regime {
    /// Its name in `policy.toml`.
    pub name: String,
    /// When events are collected.
    pub collection: Collection,
    /// On what basis, in words.
    pub legal_basis: String,
    /// Earliest version of the privacy policy whose consent counts, compared as
    /// text; `None`: any.
    pub min_policy: Option<String>,
    /// Purposes that a consent must all hold.
    pub purposes: Vec<String>,
    /// How long events are kept; `None`: until erased.
    pub retention_days: Option<u32>,
    /// Months from a request's receipt to its due date.
    pub erasure_months: u32,
    /// Months by which that date can be moved once; 0: not at all.
    pub extension_months: u32,
    /// What a withdrawal does.
    pub on_withdrawal: OnWithdrawal,
    /// Smallest group, where this regime asks for more than the policy's.
    pub k: Option<u32>,
}

/// Which regime holds where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    k: Option<u32>,
    default: Regime,
    /// All but the default one.
    others: Vec<Regime>,
    /// Places among the others, by code; events are looked up by it.
    countries: BTreeMap<u16, usize>,
}

/// One thing wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFault {
    /// Line in the file, from 1.
    pub line: usize,
    /// Dotted key: `regimes.gdpr.collection`.
    pub key: String,
    /// What is wrong.
    pub reason: String,
    /// What would be right.
    pub remedy: String,
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}; {}", self.line, self.key, self.reason, self.remedy)
    }
}

/// All that is wrong with a policy, in the order of its lines. Whoever read the
/// file puts its name before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// At least one.
    pub faults: Vec<PolicyFault>,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.faults.len() == 1 { "fault" } else { "faults" };
        write!(f, "policy refused, {} {plural}", self.faults.len())?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for PolicyError {}

/// A country's two letters as a number.
fn code_of(country: &str) -> Option<u16> {
    country.as_bytes().try_into().ok().map(u16::from_be_bytes)
}

impl Policy {
    /// Parses a `policy.toml`.
    ///
    /// # Errors
    /// All faults at once, each with its line and what would be right.
    pub fn parse(toml: &str) -> Result<Self, PolicyError> {
        read::policy(toml)
    }

    /// The policy that `ameles init` writes: `schemas/policies/default.toml`.
    pub fn default_policy() -> Self {
        match Self::parse(Self::text_default()) {
            Ok(policy) => policy,
            Err(error) => unreachable!("the embedded policy is parsed by a test: {error}"),
        }
    }

    /// Its text, comments included.
    pub const fn text_default() -> &'static str {
        include_str!("../policies/default.toml")
    }

    /// The regime of a country (ISO 3166-1 alpha-2, capitals): `gdpr` where it
    /// is missing or not listed.
    pub fn regime(&self, country: Option<&str>) -> &Regime {
        country.and_then(code_of).and_then(|code| self.countries.get(&code)).and_then(|at| self.others.get(*at)).unwrap_or(&self.default)
    }

    /// The regime of that name, for `--regulation`.
    pub fn regime_named(&self, name: &str) -> Option<&Regime> {
        self.regimes().find(|regime| regime.name == name)
    }

    /// Every regime, the default first.
    pub fn regimes(&self) -> impl Iterator<Item = &Regime> {
        std::iter::once(&self.default).chain(&self.others)
    }

    /// Smallest group that an answer to an analyst may rest on, where the policy says one: the largest `k`
    /// of all, because an answer mixes countries.
    pub fn k(&self) -> Option<u32> {
        self.regimes().filter_map(|regime| regime.k).chain(self.k).max()
    }
}

#[cfg(test)]
mod tests;
