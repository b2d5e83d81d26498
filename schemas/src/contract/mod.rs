//! Data contracts: what an event looks like, how private each field is, and
//! what is done to it before it is stored.

mod error;
#[cfg(test)]
mod fixture_tests;
mod parse;
mod privacy;
mod roles;
mod rules;
mod schema;
mod strict;
mod successor;
#[cfg(test)]
mod successor_tests;
#[cfg(test)]
mod tests;

use arrow::datatypes::DataType;
use regex::Regex;

use crate::{Generalization, Measure, TableSchemas, tables};
pub use error::{ContractError, ContractFault, Rule};

/// A data contract, parsed and found safe.
#[derive(Debug, Clone)]
pub struct Contract {
    name: String,
    version: u32,
    json: String,
    legal_basis: Option<String>,
    fields: Vec<Field>,
    roles: Roles,
}

/// One declared property, at whatever depth.
#[derive(Debug, Clone)]
pub struct Field {
    /// JSON path: `["props", "room"]`.
    pub path: Vec<String>,
    /// The path with dots, for messages: `props.room`.
    pub name: String,
    /// Column that stores it; `None`: not stored. The path joined by `_`, or
    /// `device`, `user`, `ts`, `type`, `event_key` by role.
    pub column: Option<String>,
    /// JSON type.
    pub kind: FieldKind,
    /// Whether an event without it is refused (`missing_field`). Below an
    /// object: only where the object itself is there. Always true for the
    /// roles device, time and type.
    pub required: bool,
    /// Whether `null` is as good as absent. Never true for the roles device, time and type.
    pub nullable: bool,
    /// What a value must fulfil (`invalid_value`).
    pub checks: Checks,
    /// How private it is.
    pub class: PrivacyClass,
    /// What is done before it is stored.
    pub transform: Transform,
    /// Role, if it plays one. Being a dimension is not a role.
    pub role: Option<Role>,
    /// Whether an identifier's case is folded before hashing.
    pub fold_case: bool,
    /// What the contract says about it, for people.
    pub description: Option<String>,
}

/// JSON type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldKind {
    /// Text.
    String,
    /// A whole number that fits 64 bits.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// Text with `format: date-time` (RFC 3339), stored in UTC.
    Timestamp,
    /// An object; its properties follow as fields of their own.
    Object,
    /// An array of strings; never stored, but consent purposes are one.
    Array,
    /// Dropped whatever it is: no type is checked.
    Any,
}

/// Limits on a value. Absent ones hold for every value.
#[derive(Debug, Clone, Default)]
pub struct Checks {
    /// `enum` or `const` of strings (`null` aside, which is `nullable`).
    pub choices: Option<Vec<String>>,
    /// `enum` or `const` of numbers.
    pub numbers: Option<Vec<f64>>,
    /// `pattern`: found anywhere in the text unless anchored, as in JSON Schema.
    pub pattern: Option<Regex>,
    /// `minLength`, in characters.
    pub min_length: Option<usize>,
    /// `maxLength`, in characters.
    pub max_length: Option<usize>,
    /// `minimum`, inclusive.
    pub minimum: Option<f64>,
    /// `maximum`, inclusive.
    pub maximum: Option<f64>,
    /// `exclusiveMinimum`.
    pub above: Option<f64>,
    /// `exclusiveMaximum`.
    pub below: Option<f64>,
    /// `minItems`.
    pub min_items: Option<usize>,
    /// `maxItems`.
    pub max_items: Option<usize>,
    /// What each element of an array must fulfil.
    pub items: Option<Box<Checks>>,
}

impl Checks {
    /// Whether a text (or an array's element, on `items`) passes.
    pub fn text_ok(&self, value: &str) -> bool {
        self.choices.as_ref().is_none_or(|choices| choices.iter().any(|choice| choice == value))
            && self.length_ok(value)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(value))
    }

    /// Whether a number passes.
    pub fn number_ok(&self, value: f64) -> bool {
        self.minimum.is_none_or(|minimum| value >= minimum)
            && self.maximum.is_none_or(|maximum| value <= maximum)
            && self.above.is_none_or(|above| value > above)
            && self.below.is_none_or(|below| value < below)
            && self.numbers.as_ref().is_none_or(|numbers| numbers.contains(&value))
    }

    /// Whether an array of so many elements passes.
    pub fn items_ok(&self, items: usize) -> bool {
        self.min_items.is_none_or(|min| items >= min) && self.max_items.is_none_or(|max| items <= max)
    }

    fn length_ok(&self, value: &str) -> bool {
        // A text has no more characters than bytes, and at least a quarter as
        // many: most need no counting.
        let max_ok = self.max_length.is_none_or(|max| value.len() <= max || value.chars().count() <= max);
        max_ok && self.min_length.is_none_or(|min| value.len() / 4 >= min || value.chars().count() >= min)
    }
}

/// How private a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrivacyClass {
    /// Names a device or person on its own.
    Identifier,
    /// Names one together with others.
    QuasiIdentifier,
    /// About a person.
    Personal,
    /// About the machine.
    Operational,
}

/// What is done to a value before it is stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Transform {
    /// Replaced by its keyed pseudonym.
    Pseudonymize {
        /// Whose key: no two domains can be joined.
        domain: String,
    },
    /// Not stored.
    Drop,
    /// Stored as it is.
    Keep,
    /// The /24 or /48 of an address: [`crate::truncate_ip`].
    TruncateIp,
    /// Made coarser.
    Generalize(Generalization),
}

/// What Ameles reads a field for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The device.
    Device,
    /// The user.
    User,
    /// The event's id.
    EventId,
    /// The time of the event.
    Time,
    /// The type of the event.
    Type,
    /// The country, which chooses the regime.
    Country,
    /// The consent stamp.
    Consent,
}

/// Which field plays which role: indices into [`Contract::fields`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    /// The device.
    pub device: usize,
    /// The time.
    pub time: usize,
    /// The type.
    pub event_type: usize,
    /// The user.
    pub user: Option<usize>,
    /// The event's id.
    pub event_id: Option<usize>,
    /// The country.
    pub country: Option<usize>,
    /// The consent stamp, an object.
    pub consent: Option<usize>,
    /// Its property `policy`: the version consented to.
    pub consent_policy: Option<usize>,
    /// Its property `purposes`: an array of strings.
    pub consent_purposes: Option<usize>,
    /// The dimensions, in order.
    pub dimensions: Vec<usize>,
    /// Name and event type of each measure, in order.
    pub measures: Vec<(String, String)>,
    /// Type of the event that activates a device.
    pub activation_type: Option<String>,
    /// The dimension named `partner`.
    pub partner: Option<usize>,
}

impl Contract {
    /// The text of [`Self::default_contract`].
    pub(crate) const DEVICE_EVENT_V1: &str = include_str!("../../contracts/device_event.v1.json");

    /// The contract that `ameles init` uses unless told otherwise:
    /// `schemas/contracts/device_event.v1.json`.
    pub fn default_contract() -> Self {
        match Self::parse(Self::DEVICE_EVENT_V1) {
            Ok(contract) => contract,
            Err(error) => unreachable!("the embedded contract is parsed by a test: {error}"),
        }
    }

    /// Name, the same in all versions.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Version, from 1.
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The JSON text it was parsed from, unchanged.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// On what basis events are collected without a consent stamp (`x-legal-basis`).
    pub fn legal_basis(&self) -> Option<&str> {
        self.legal_basis.as_deref()
    }

    /// Who plays which role.
    pub const fn roles(&self) -> &Roles {
        &self.roles
    }

    /// Every declared property, each object before its own.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The field of that dotted name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The event types declared; `None`: any is admitted.
    pub fn event_types(&self) -> Option<&[String]> {
        self.fields[self.roles.event_type].checks.choices.as_deref()
    }

    /// Pseudonymisation domains in use, each once, in the order of the fields.
    pub fn domains(&self) -> Vec<&str> {
        let mut domains: Vec<&str> = Vec::new();
        for field in &self.fields {
            if let Transform::Pseudonymize { domain } = &field.transform
                && !domains.contains(&domain.as_str())
            {
                domains.push(domain);
            }
        }
        domains
    }

    /// Indices of the stored columns beyond the roles', in the order of the
    /// `events` table: dimensions, then the others.
    pub fn stored(&self) -> Vec<usize> {
        let mut stored = self.roles.dimensions.clone();
        stored.extend((0..self.fields.len()).filter(|at| self.is_extra(*at)));
        stored
    }

    /// The tables that follow from this contract.
    pub fn tables(&self) -> TableSchemas {
        let column = |at: &usize| self.fields[*at].column.clone();
        let extra = (0..self.fields.len())
            .filter(|at| self.is_extra(*at))
            .filter_map(|at| Some((column(&at)?, self.fields[at].stored_type()?)))
            .collect();
        let descriptions = self.fields.iter().filter_map(|field| Some((field.column.clone()?, field.description.clone()?))).collect();
        TableSchemas {
            dimensions: self.roles.dimensions.iter().filter_map(column).collect(),
            measures: self
                .roles
                .measures
                .iter()
                .map(|(name, event_type)| Measure { name: name.clone(), event_type: event_type.clone() })
                .collect(),
            has_user: self.roles.user.is_some(),
            has_event_key: self.roles.event_id.is_some(),
            activation_type: self.roles.activation_type.clone(),
            extra,
            descriptions,
        }
    }

    fn is_extra(&self, at: usize) -> bool {
        let field = &self.fields[at];
        let of_its_own = matches!(field.role, None | Some(Role::Country));
        field.column.is_some() && of_its_own && !self.roles.dimensions.contains(&at)
    }
}

impl Field {
    /// Arrow type of the stored column; `None` where nothing is stored.
    pub fn stored_type(&self) -> Option<DataType> {
        self.column.as_ref()?;
        match (&self.transform, self.kind) {
            (Transform::Pseudonymize { .. }, _) => Some(DataType::Binary),
            (_, FieldKind::String) => Some(DataType::Utf8),
            (_, FieldKind::Integer) => Some(DataType::Int64),
            (_, FieldKind::Number) => Some(DataType::Float64),
            (_, FieldKind::Boolean) => Some(DataType::Boolean),
            (_, FieldKind::Timestamp) => Some(tables::timestamp_type()),
            (_, FieldKind::Object | FieldKind::Array | FieldKind::Any) => None,
        }
    }
}
