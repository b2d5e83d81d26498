//! Reads the properties of a contract into fields: types and limits.
//! What JSON Schema's own meta-schema finds wrong is left to it.

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::error::{Faults, Rule};
use super::privacy::{Privacy, read_privacy};
use super::{Checks, Field, FieldKind, PrivacyClass, Transform};
use crate::nearest::nearest;

/// More fields than any event needs; each costs a column or a check.
pub(super) const FIELDS_MAX: usize = 512;
/// Objects within objects.
pub(super) const DEPTH_MAX: usize = 8;
/// Compiled size of a pattern, bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

const ANNOTATIONS: [&str; 8] = ["title", "description", "$comment", "examples", "default", "deprecated", "readOnly", "writeOnly"];
const ENFORCED: [&str; 19] = [
    "type",
    "enum",
    "const",
    "pattern",
    "format",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "items",
    "minItems",
    "maxItems",
    "properties",
    "required",
    "x-privacy",
    "x-unit",
    // Undeclared fields are dropped and counted, whatever this says.
    "additionalProperties",
];
/// A field as read. Where `sound` is false, a fault has been told already, and
/// the rules that would follow from it stay silent.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) field: Field,
    pub(super) sound: bool,
    /// Whether an object declares what is in it.
    pub(super) has_properties: bool,
}

/// Keywords that a schema object may carry, besides those of its place.
pub(super) fn check_keywords(at: &str, schema: &Map<String, Value>, own: &[&'static str], faults: &mut Faults) {
    for key in schema.keys() {
        let key = key.as_str();
        if own.contains(&key) || ANNOTATIONS.contains(&key) {
            continue;
        }
        let known: Vec<&'static str> = own.iter().copied().chain(ANNOTATIONS).collect();
        let remedy = match nearest(key, &known) {
            Some(known) => format!("did you mean `{known}`"),
            None => format!("leave it out; known are {}", own.join(", ")),
        };
        faults.add(at, Rule::Keyword, format!("`{key}` is not a keyword that Ameles enforces"), remedy);
    }
}

/// What properties stand in.
#[derive(Clone, Copy)]
pub(super) struct Within<'a> {
    pub(super) path: &'a [String],
    /// Class of the dropped object around, if it is dropped.
    pub(super) dropped: Option<PrivacyClass>,
}

/// Reads `properties` and `required` of an object, and what is below.
pub(super) fn read_properties(schema: &Map<String, Value>, within: Within<'_>, drafts: &mut Vec<Draft>, faults: &mut Faults) {
    let empty = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let required: Vec<&str> = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let container = if within.path.is_empty() { "required".to_owned() } else { within.path.join(".") };
    for name in required.iter().filter(|name| !properties.contains_key(**name)) {
        faults.add(
            &container,
            Rule::Keyword,
            format!("`required` names `{name}`, which is not declared"),
            "declare it under `properties`, or leave it out of `required`",
        );
    }
    for (name, property) in properties {
        let mut path = within.path.to_vec();
        path.push(name.clone());
        let dotted = path.join(".");
        if drafts.len() >= FIELDS_MAX || path.len() > DEPTH_MAX {
            let reason = format!("more than {FIELDS_MAX} fields, or objects nested deeper than {DEPTH_MAX}");
            faults.add(&dotted, Rule::Limit, reason, "leave fields out: what is not declared is dropped");
            return;
        }
        let Some(property) = property.as_object() else {
            faults.add(&dotted, Rule::Privacy, "has no `x-privacy`", "declare it as an object with `x-privacy`");
            continue;
        };
        read_property(property, &path, required.contains(&name.as_str()), within.dropped, drafts, faults);
    }
}

fn read_property(
    schema: &Map<String, Value>,
    path: &[String],
    required: bool,
    parent_dropped: Option<PrivacyClass>,
    drafts: &mut Vec<Draft>,
    faults: &mut Faults,
) {
    let name = path.join(".");
    let privacy = read_privacy(&name, schema.get("x-privacy"), parent_dropped, faults);
    let mut sound = privacy.is_some();
    let privacy = privacy.unwrap_or(Privacy::UNKNOWN);
    let dropped = privacy.transform == Transform::Drop;
    if !dropped {
        check_keywords(&name, schema, &ENFORCED, faults);
    }
    let (kind, nullable) = match read_type(schema) {
        Ok(read) => read,
        // What is dropped needs no type: nobody looks at it.
        Err(_) if dropped => (FieldKind::Any, true),
        Err(reason) => {
            sound = false;
            let remedy = "give it one `type` of string, integer, number, boolean, object or array, with \"null\" or without";
            faults.add(&name, Rule::Type, reason, remedy);
            (FieldKind::Any, true)
        }
    };
    let faults_before = faults.len();
    let checks = read_checks(&name, schema, kind, dropped, faults);
    sound &= faults.len() == faults_before;
    let text = |key: &str| schema.get(key).and_then(Value::as_str).map(str::to_owned);
    drafts.push(Draft {
        field: Field {
            path: path.to_vec(),
            name,
            column: None,
            kind,
            required,
            nullable,
            checks,
            class: privacy.class,
            transform: privacy.transform,
            role: None,
            fold_case: privacy.fold_case,
            description: text("description").or_else(|| text("title")),
        },
        sound,
        has_properties: schema.get("properties").and_then(Value::as_object).is_some_and(|map| !map.is_empty()),
    });
    if kind == FieldKind::Object {
        let within = Within { path, dropped: dropped.then_some(privacy.class) };
        read_properties(schema, within, drafts, faults);
    }
}

/// The one type besides `null`, and whether `null` is among them.
fn read_type(schema: &Map<String, Value>) -> Result<(FieldKind, bool), String> {
    let names: Vec<&str> = match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        Some(_) => return Err("has a `type` that is no name".into()),
        None => inferred_type(schema).ok_or("has no `type`")?,
    };
    let nullable = names.contains(&"null");
    let mut others = names.iter().filter(|name| **name != "null");
    let (Some(only), None) = (others.next(), others.next()) else {
        return Err("has not exactly one `type` besides null".into());
    };
    let kind = match *only {
        "string" if schema.get("format").and_then(Value::as_str) == Some("date-time") => FieldKind::Timestamp,
        "string" => FieldKind::String,
        "integer" => FieldKind::Integer,
        "number" => FieldKind::Number,
        "boolean" => FieldKind::Boolean,
        "object" => FieldKind::Object,
        "array" => match schema.get("items").and_then(|items| items.get("type")).and_then(Value::as_str) {
            Some("string") => FieldKind::Array,
            _ => return Err("is an array whose `items` are not strings".into()),
        },
        other => return Err(format!("has the unknown type `{other}`")),
    };
    Ok((kind, nullable))
}

/// `{"enum": ["ios", "android"]}` needs no `type` to be one of strings.
fn inferred_type(schema: &Map<String, Value>) -> Option<Vec<&'static str>> {
    let choices = match (schema.get("enum"), schema.get("const")) {
        (Some(Value::Array(choices)), _) => choices.as_slice(),
        (None, Some(only)) => std::slice::from_ref(only),
        _ => return None,
    };
    let mut names = vec!["string"];
    if choices.iter().any(Value::is_null) {
        names.push("null");
    }
    let texts = choices.iter().filter(|choice| choice.is_string()).count();
    (texts > 0 && choices.iter().all(|choice| choice.is_string() || choice.is_null())).then_some(names)
}

fn read_checks(name: &str, schema: &Map<String, Value>, kind: FieldKind, dropped: bool, faults: &mut Faults) -> Checks {
    let count = |key: &str| schema.get(key).and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
    let number = |key: &str| schema.get(key).and_then(Value::as_f64);
    let mut checks = Checks {
        min_length: count("minLength"),
        max_length: count("maxLength"),
        minimum: number("minimum"),
        maximum: number("maximum"),
        above: number("exclusiveMinimum"),
        below: number("exclusiveMaximum"),
        min_items: count("minItems"),
        max_items: count("maxItems"),
        ..Checks::default()
    };
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
        match compile(pattern) {
            Ok(pattern) => checks.pattern = Some(pattern),
            Err(error) => faults.add(
                name,
                Rule::Keyword,
                format!("`pattern` does not compile: {}", last_line(&error.to_string())),
                "write it without look-around and back-references (syntax of the Rust crate regex)",
            ),
        }
    }
    let choices = match (schema.get("enum"), schema.get("const")) {
        (Some(Value::Array(choices)), _) => Some(choices.as_slice()),
        (None, Some(only)) => Some(std::slice::from_ref(only)),
        _ => None,
    };
    if let Some(choices) = choices {
        read_choices(name, choices, kind, dropped, &mut checks, faults);
    }
    if kind == FieldKind::Array
        && let Some(items) = schema.get("items").and_then(Value::as_object)
    {
        if !dropped {
            check_keywords(name, items, &ENFORCED, faults);
        }
        checks.items = Some(Box::new(read_checks(name, items, FieldKind::String, dropped, faults)));
    }
    checks
}

fn read_choices(name: &str, choices: &[Value], kind: FieldKind, dropped: bool, checks: &mut Checks, faults: &mut Faults) {
    let usable = match kind {
        FieldKind::String | FieldKind::Timestamp => {
            let texts: Vec<String> = choices.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            let any = !texts.is_empty();
            checks.choices = Some(texts);
            any
        }
        FieldKind::Integer | FieldKind::Number => {
            let numbers: Vec<f64> = choices.iter().filter_map(Value::as_f64).collect();
            let any = !numbers.is_empty();
            checks.numbers = Some(numbers);
            any
        }
        FieldKind::Boolean | FieldKind::Object | FieldKind::Array | FieldKind::Any => dropped,
    };
    if !usable {
        let reason = "`enum` or `const` holds nothing of the field's type, or is not enforced for it";
        faults.add(name, Rule::Keyword, reason, "list strings for a string, numbers for a number, or leave it out");
    }
}

/// JSON Schema's patterns are ECMAScript's, whose `\d` and `\w` are ASCII; the
/// regex crate's are Unicode.
fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    let mut ours = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            ours.push(char);
            continue;
        }
        match chars.next() {
            Some('d') => ours.push_str("[0-9]"),
            Some('D') => ours.push_str("[^0-9]"),
            Some('w') => ours.push_str("[A-Za-z0-9_]"),
            Some('W') => ours.push_str("[^A-Za-z0-9_]"),
            Some(escaped) => ours.extend(['\\', escaped]),
            None => ours.push('\\'),
        }
    }
    RegexBuilder::new(&ours).size_limit(PATTERN_BYTES_MAX).build()
}

/// The crate draws the pattern with a caret below; its last line says what is wrong.
fn last_line(message: &str) -> &str {
    message.lines().last().unwrap_or_default().trim().trim_start_matches("error: ")
}
