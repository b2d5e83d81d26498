//! From JSON to a contract: the order of the checks.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::error::{ContractError, Faults, Rule};
use super::schema::{self, Draft, Within};
use super::{Contract, FieldKind, Role, Transform, roles, rules, strict};
use crate::tables::column;

/// A contract is written by hand; more than this is none.
const JSON_BYTES_MAX: usize = 1 << 20;
/// Longest column name.
const COLUMN_CHARS_MAX: usize = 64;

/// Longest message of the meta-schema's that is shown.
const MESSAGE_CHARS_MAX: usize = 200;

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
const TOP_KEYWORDS: [&str; 9] =
    ["$schema", "$id", "x-contract", "x-roles", "x-legal-basis", "type", "required", "properties", "additionalProperties"];

impl Contract {
    /// Parses a contract and checks it.
    ///
    /// # Errors
    /// All faults at once, each with the field, the rule and what would be right.
    pub fn parse(json: &str) -> Result<Self, ContractError> {
        let mut faults = Faults::default();
        let Some(document) = read_document(json, &mut faults) else { return faults.or_never() };
        let Some(schema) = document.as_object() else { return faults.or_never() };
        // Ours has been checked (by a test): making the meta-schema's validator takes longer than all else that opens a home.
        if json != Self::DEVICE_EVENT_V1 {
            check_against_meta_schema(&document, &mut faults);
        }
        check_top(schema, &mut faults);
        let identity = read_identity(schema.get("x-contract"), &mut faults);

        let mut drafts = Vec::new();
        schema::read_properties(schema, Within { path: &[], dropped: None }, &mut drafts, &mut faults);
        roles::assign(schema.get("x-roles"), &mut drafts, &mut faults);
        for draft in &drafts {
            rules::check_field(draft, &mut faults);
        }
        name_columns(&mut drafts, &mut faults);
        let read_roles = roles::read(schema.get("x-roles"), &drafts, &mut faults);

        let legal_basis = read_legal_basis(schema, &mut faults);
        match (identity, read_roles) {
            (Some((name, version)), Some(roles)) => faults.or(Self {
                name,
                version,
                json: json.to_owned(),
                legal_basis,
                fields: drafts.into_iter().map(|draft| draft.field).collect(),
                roles,
            }),
            _ => faults.or_never(),
        }
    }
}

impl Faults {
    /// For where a fault has been told for certain.
    fn or_never(mut self) -> Result<Contract, ContractError> {
        if self.is_empty() {
            self.add("contract", Rule::JsonSchema, "cannot be read", "compare it with the default contract");
        }
        Err(ContractError { faults: self.into_inner() })
    }
}

fn read_document(json: &str, faults: &mut Faults) -> Option<Value> {
    if json.len() > JSON_BYTES_MAX {
        let reason = format!("is larger than {JSON_BYTES_MAX} bytes");
        faults.add("contract", Rule::Limit, reason, "leave fields out: what is not declared is dropped");
        return None;
    }
    match strict::parse(json.trim_start_matches('\u{feff}')) {
        Ok(document @ Value::Object(_)) => Some(document),
        Ok(_) => {
            faults.add("contract", Rule::JsonSchema, "is not a JSON object", "write a JSON Schema 2020-12 object");
            None
        }
        Err(error) => {
            faults.add("contract", Rule::Json, format!("is not JSON: {error}"), "correct it there");
            None
        }
    }
}

fn check_against_meta_schema(document: &Value, faults: &mut Faults) {
    for error in jsonschema::draft202012::meta::validator().iter_errors(document) {
        let (field, keyword) = locate(error.instance_path().as_str());
        let place = if keyword.is_empty() { String::new() } else { format!("`{keyword}`: ") };
        // The message shows the value, which may be a whole object.
        let message: String = error.to_string().chars().take(MESSAGE_CHARS_MAX).collect();
        faults.add(&field, Rule::JsonSchema, format!("{place}{message}"), "write it as JSON Schema 2020-12 does");
    }
}

/// From `/properties/props/properties/room/maxLength` to (`props.room`, `maxLength`).
fn locate(pointer: &str) -> (String, String) {
    let mut names = Vec::new();
    let mut segments = pointer.split('/').skip(1).peekable();
    while segments.peek() == Some(&"properties") {
        segments.next();
        match segments.next() {
            Some(name) => names.push(name.replace("~1", "/").replace("~0", "~")),
            None => return (field_or_contract(&names), "properties".to_owned()),
        }
    }
    (field_or_contract(&names), segments.collect::<Vec<_>>().join("/"))
}

fn field_or_contract(names: &[String]) -> String {
    if names.is_empty() { "contract".to_owned() } else { names.join(".") }
}

fn check_top(schema: &Map<String, Value>, faults: &mut Faults) {
    schema::check_keywords("contract", schema, &TOP_KEYWORDS, faults);
    if let Some(draft) = schema.get("$schema")
        && draft.as_str().map(|draft| draft.trim_end_matches('#')) != Some(DRAFT)
    {
        faults.add("$schema", Rule::JsonSchema, "is not JSON Schema 2020-12", format!("write \"{DRAFT}\""));
    }
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        faults.add("type", Rule::Type, "an event is an object", "write \"type\": \"object\"");
    }
    if schema.get("properties").and_then(Value::as_object).is_none_or(Map::is_empty) {
        faults.add("properties", Rule::ObjectOpen, "declares no field", "declare the fields of an event");
    }
}

fn read_identity(identity: Option<&Value>, faults: &mut Faults) -> Option<(String, u32)> {
    let at = "x-contract";
    let Some(identity) = identity.and_then(Value::as_object) else {
        faults.add(at, Rule::Identity, "is missing", "add {\"name\": \"shop\", \"version\": 1}");
        return None;
    };
    for key in identity.keys().filter(|key| !["name", "version"].contains(&key.as_str())) {
        faults.add(at, Rule::Identity, format!("has the unknown key `{key}`"), "known are name and version");
    }
    let name = identity.get("name").and_then(Value::as_str).filter(|name| {
        name.len() <= 64
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_')
    });
    if name.is_none() {
        let remedy = "use lower-case letters, digits and _, at most 64, a letter first";
        faults.add("x-contract.name", Rule::Identity, "is missing or no name", remedy);
    }
    // Stored in a 32-bit signed column.
    let version = identity
        .get("version")
        .and_then(Value::as_u64)
        .and_then(|version| u32::try_from(version).ok())
        .filter(|version| (1..=i32::MAX.unsigned_abs()).contains(version));
    if version.is_none() {
        faults.add("x-contract.version", Rule::Identity, "is missing or no version", "write a whole number from 1 on");
    }
    Some((name?.to_owned(), version?))
}

fn read_legal_basis(schema: &Map<String, Value>, faults: &mut Faults) -> Option<String> {
    let has_consent = schema.get("x-roles").and_then(|roles| roles.get("consent")).is_some();
    let basis = schema.get("x-legal-basis");
    let text = basis.and_then(Value::as_str).map(str::trim).filter(|basis| !basis.is_empty());
    if text.is_none() && (basis.is_some() || !has_consent) {
        faults.add(
            "x-legal-basis",
            Rule::LegalBasis,
            "events carry no consent stamp, and the contract does not say on what basis they are collected",
            "add \"x-legal-basis\": \"…\" in words, or the role consent",
        );
    }
    text.map(str::to_owned)
}

/// Names the columns: those of the roles, and the path joined by `_` for what
/// is stored besides. Delta's names are case-insensitive.
fn name_columns(drafts: &mut [Draft], faults: &mut Faults) {
    let mut owners: HashMap<String, String> = HashMap::new();
    owners.insert(column::MONTH.to_owned(), "the partition of every table".to_owned());
    for draft in drafts.iter_mut() {
        let field = &mut draft.field;
        let stored = match field.role {
            Some(Role::Consent) => false,
            _ => field.transform != Transform::Drop,
        } && !matches!(field.kind, FieldKind::Object | FieldKind::Array | FieldKind::Any);
        if !stored {
            continue;
        }
        let name = match field.role.and_then(Role::column) {
            Some(name) => name.to_owned(),
            None => column_name(&field.path),
        };
        if name.len() > COLUMN_CHARS_MAX {
            let reason = format!("its column's name would be longer than {COLUMN_CHARS_MAX} characters");
            faults.add(&field.name, Rule::Column, reason, "send it under a shorter name, or drop it");
        }
        if let Some(owner) = owners.insert(name.to_ascii_lowercase(), format!("`{}`", field.name)) {
            let reason = format!("its column `{name}` is also that of {owner}");
            faults.add(&field.name, Rule::Column, reason, "send one of them under another name, or drop it");
        }
        field.column = Some(name);
    }
}

/// The path joined by `_`, with what no column may hold replaced by `_`.
fn column_name(path: &[String]) -> String {
    let mut name: String = path.join("_").chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '_' }).collect();
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}
