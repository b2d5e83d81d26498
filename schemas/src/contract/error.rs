//! What is wrong with a contract: every fault at once, each with its field.

use std::fmt;

/// The rule that a contract broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// Not JSON, or a key stands twice in one object.
    Json,
    /// Not JSON Schema 2020-12.
    JsonSchema,
    /// A keyword that Ameles would not enforce.
    Keyword,
    /// Larger than Ameles reads.
    Limit,
    /// `x-contract`: name or version.
    Identity,
    /// `x-privacy` is missing or unreadable.
    Privacy,
    /// A property without a type, or of several.
    Type,
    /// An identifier, or a device's or user's role, that would be stored as it is.
    IdentifierExposed,
    /// A kept object that does not say what is in it.
    ObjectOpen,
    /// A kept string of any content and length.
    TextUnbounded,
    /// A transform that does not fit the field.
    TransformUnfit,
    /// A pseudonymisation domain that is not this field's to use.
    Domain,
    /// `x-roles`: a role's field is missing or of the wrong kind.
    Role,
    /// `x-roles`: a dimension.
    Dimension,
    /// `x-roles`: a measure or the activation type.
    Measure,
    /// Two columns of one name, or a name that is taken.
    Column,
    /// Events are collected without consent, and the contract does not say on what basis.
    LegalBasis,
    /// A version that breaks the readers of the one before.
    Successor,
}

impl Rule {
    /// Name of the rule, for messages and tests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::JsonSchema => "json_schema",
            Self::Keyword => "keyword",
            Self::Limit => "limit",
            Self::Identity => "identity",
            Self::Privacy => "privacy",
            Self::Type => "type",
            Self::IdentifierExposed => "identifier_exposed",
            Self::ObjectOpen => "object_open",
            Self::TextUnbounded => "text_unbounded",
            Self::TransformUnfit => "transform_unfit",
            Self::Domain => "domain",
            Self::Role => "role",
            Self::Dimension => "dimension",
            Self::Measure => "measure",
            Self::Column => "column",
            Self::LegalBasis => "legal_basis",
            Self::Successor => "successor",
        }
    }
}

/// One thing wrong with a contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractFault {
    /// Dotted path of the field (`props.room`), or the keyword (`x-roles.time`).
    pub field: String,
    /// The rule.
    pub rule: Rule,
    /// What is wrong.
    pub reason: String,
    /// What would be right.
    pub remedy: String,
}

impl fmt::Display for ContractFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}); {}", self.field, self.reason, self.rule.as_str(), self.remedy)
    }
}

/// All that is wrong with a contract, in the order of its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractError {
    /// At least one.
    pub faults: Vec<ContractFault>,
}

impl fmt::Display for ContractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.faults.len() == 1 { "fault" } else { "faults" };
        write!(f, "contract refused, {} {plural}", self.faults.len())?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for ContractError {}

/// Collects faults, so that one run tells all.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<ContractFault>);

impl Faults {
    pub(super) fn add(&mut self, field: &str, rule: Rule, reason: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(ContractFault { field: field.to_owned(), rule, reason: reason.into(), remedy: remedy.into() });
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_inner(self) -> Vec<ContractFault> {
        self.0
    }

    pub(super) fn or<T>(self, value: T) -> Result<T, ContractError> {
        if self.0.is_empty() { Ok(value) } else { Err(ContractError { faults: self.0 }) }
    }
}
