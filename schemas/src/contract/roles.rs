//! `x-roles`: which field Ameles reads for what.

use serde_json::{Map, Value};

use super::error::{Faults, Rule};
use super::schema::Draft;
use super::{FieldKind, Role, Roles, Transform};
use crate::nearest::nearest;
use crate::tables::column;

const KEYS: [&str; 10] = ["device", "user", "event_id", "time", "type", "country", "consent", "dimensions", "measures", "activation_type"];
/// Columns of every answer, beside which a dimension would be ambiguous.
const ANSWER_COLUMNS: [&str; 8] = ["date", "value", "complete", "cohort", "offset", "devices", "rate", "kind"];
/// Columns that the tables with dimensions have of their own.
const TABLE_COLUMNS: [&str; 12] = [
    column::DEVICE,
    column::TS,
    column::USER,
    column::TYPE,
    column::EVENT_KEY,
    column::MONTH,
    column::DAYS,
    column::FIRST_TS,
    column::LAST_TS,
    column::LAST_KEY,
    column::ACTIVATED_TS,
    column::ACTIVATED_KEY,
];
const METRICS: [&str; 9] = ["activations", "installed_base", "dau", "wau", "mau28", "mau", "stickiness", "retention", "growth"];
const CONSENT_TYPES: [&str; 2] = ["consent_granted", "consent_withdrawn"];
const DIMENSIONS_MAX: usize = 32;
const MEASURES_MAX: usize = 32;

impl Role {
    /// All roles, in the order of PRODUCT.
    pub const ALL: [Self; 7] = [Self::Device, Self::User, Self::EventId, Self::Time, Self::Type, Self::Country, Self::Consent];

    /// Key in `x-roles`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::User => "user",
            Self::EventId => "event_id",
            Self::Time => "time",
            Self::Type => "type",
            Self::Country => "country",
            Self::Consent => "consent",
        }
    }

    /// Whether a contract cannot do without it.
    pub const fn is_required(self) -> bool {
        matches!(self, Self::Device | Self::Time | Self::Type)
    }

    /// Column of the role's own, whatever the field is called.
    pub(super) const fn column(self) -> Option<&'static str> {
        match self {
            Self::Device => Some(column::DEVICE),
            Self::User => Some(column::USER),
            Self::EventId => Some(column::EVENT_KEY),
            Self::Time => Some(column::TS),
            Self::Type => Some(column::TYPE),
            Self::Country | Self::Consent => None,
        }
    }
}

/// Gives the fields their roles, before the rules look at them.
pub(super) fn assign(roles: Option<&Value>, drafts: &mut [Draft], faults: &mut Faults) {
    let Some(roles) = roles.and_then(Value::as_object) else {
        let remedy = "add x-roles with at least device, time, type and dimensions";
        faults.add("x-roles", Rule::Role, "is missing", remedy);
        return;
    };
    for key in roles.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        let remedy = match nearest(key, &KEYS) {
            Some(known) => format!("did you mean `{known}`"),
            None => format!("known are {}", KEYS.join(", ")),
        };
        faults.add(&format!("x-roles.{key}"), Rule::Role, "is no role", remedy);
    }
    for role in Role::ALL {
        let at = format!("x-roles.{}", role.as_str());
        match roles.get(role.as_str()) {
            None if role.is_required() => {
                faults.add(&at, Rule::Role, "is missing", "name the field that plays this role");
            }
            None => {}
            Some(Value::String(name)) => {
                let Some(index) = find(name, &at, Rule::Role, drafts, faults) else { continue };
                if let Some(other) = drafts[index].field.role {
                    let reason = format!("`{name}` has the role {} already", other.as_str());
                    faults.add(&at, Rule::Role, reason, "name another field: one field, one role");
                    continue;
                }
                drafts[index].field.role = Some(role);
                if role.is_required() {
                    demand(&drafts[index].field.path.clone(), drafts);
                }
            }
            Some(_) => faults.add(&at, Rule::Role, "is not the name of a field", "write a field's name as a string"),
        }
    }
}

/// An event without device, time or type is none: the field and the objects
/// around it must be there, whatever `required` says.
fn demand(path: &[String], drafts: &mut [Draft]) {
    for draft in drafts.iter_mut().filter(|draft| path.starts_with(&draft.field.path)) {
        draft.field.required = true;
        draft.field.nullable = false;
    }
}

fn find(name: &str, at: &str, rule: Rule, drafts: &[Draft], faults: &mut Faults) -> Option<usize> {
    let found = drafts.iter().position(|draft| draft.field.name == name);
    if found.is_none() {
        let names: Vec<&str> = drafts.iter().map(|draft| draft.field.name.as_str()).collect();
        let remedy = match nearest(name, &names) {
            Some(known) => format!("did you mean `{known}`"),
            None => "declare it under `properties` (a nested field by its dotted path)".to_owned(),
        };
        faults.add(at, rule, format!("`{name}` is not a declared field"), remedy);
    }
    found
}

/// Reads the roles once the columns are named. `None` where a fault has been told.
pub(super) fn read(roles: Option<&Value>, drafts: &[Draft], faults: &mut Faults) -> Option<Roles> {
    let roles = roles.and_then(Value::as_object)?;
    let at = |role: Role| drafts.iter().position(|draft| draft.field.role == Some(role));
    let dimensions = read_dimensions(roles, drafts, faults);
    let event_type = at(Role::Type);
    let types = event_type.and_then(|index| drafts[index].field.checks.choices.as_deref());
    let measures = read_measures(roles, types, &dimensions, drafts, faults);
    let activation_type = match roles.get("activation_type") {
        None => None,
        Some(Value::String(name)) => {
            check_event_type("x-roles.activation_type", name, types, faults);
            Some(name.clone())
        }
        Some(_) => {
            faults.add("x-roles.activation_type", Rule::Measure, "is not a string", "write an event type");
            None
        }
    };
    let (consent_policy, consent_purposes) = read_consent(at(Role::Consent), drafts, faults);
    let partner = dimensions.iter().copied().find(|index| drafts[*index].field.column.as_deref() == Some(column::PARTNER));
    Some(Roles {
        device: at(Role::Device)?,
        time: at(Role::Time)?,
        event_type: event_type?,
        user: at(Role::User),
        event_id: at(Role::EventId),
        country: at(Role::Country),
        consent: at(Role::Consent),
        consent_policy,
        consent_purposes,
        dimensions,
        measures,
        activation_type,
        partner,
    })
}

fn read_consent(consent: Option<usize>, drafts: &[Draft], faults: &mut Faults) -> (Option<usize>, Option<usize>) {
    let Some(consent) = consent.map(|index| &drafts[index].field) else { return (None, None) };
    if consent.kind != FieldKind::Object {
        return (None, None);
    }
    let mut child = |name: &str, kind: FieldKind, said: &str| {
        let mut path = consent.path.clone();
        path.push(name.to_owned());
        let index = drafts.iter().position(|draft| draft.field.path == path)?;
        if drafts[index].sound && drafts[index].field.kind != kind {
            faults.add(&drafts[index].field.name, Rule::Role, format!("is part of the consent but not {said}"), said);
        }
        Some(index)
    };
    let policy = child("policy", FieldKind::String, "a string");
    let purposes = child("purposes", FieldKind::Array, "an array of strings");
    if policy.is_none() && purposes.is_none() {
        let reason = "has the role consent but neither `policy` nor `purposes`";
        faults.add(&consent.name, Rule::Role, reason, "declare at least one of them");
    }
    (policy, purposes)
}

fn read_dimensions(roles: &Map<String, Value>, drafts: &[Draft], faults: &mut Faults) -> Vec<usize> {
    let at = "x-roles.dimensions";
    let names = match roles.get("dimensions") {
        Some(Value::Array(names)) if names.len() <= DIMENSIONS_MAX => names,
        Some(Value::Array(_)) => {
            faults.add(at, Rule::Limit, format!("more than {DIMENSIONS_MAX} dimensions"), "leave some out");
            return Vec::new();
        }
        _ => {
            faults.add(at, Rule::Dimension, "is not a list", "list fields; [] where there is none");
            return Vec::new();
        }
    };
    let mut dimensions = Vec::with_capacity(names.len());
    for name in names {
        let Some(name) = name.as_str() else {
            faults.add(at, Rule::Dimension, "holds something that is not the name of a field", "write strings");
            continue;
        };
        let Some(index) = find(name, at, Rule::Dimension, drafts, faults) else { continue };
        if !drafts[index].sound {
            continue;
        }
        let field = &drafts[index].field;
        let stored = matches!(field.transform, Transform::Keep | Transform::Generalize(_) | Transform::TruncateIp);
        if field.kind != FieldKind::String || !stored || !matches!(field.role, None | Some(Role::Country)) {
            let reason = format!("`{name}` is a dimension but not a stored string, or has a role of its own");
            faults.add(at, Rule::Dimension, reason, "name a string that is kept, generalized or truncate_ip");
        } else if dimensions.contains(&index) {
            faults.add(at, Rule::Dimension, format!("`{name}` stands twice"), "name it once");
        } else if let Some(taken) = field.column.as_deref().filter(|own| is_taken(own)) {
            let reason = format!("`{name}` would be a column `{taken}`, which tables or answers have already");
            faults.add(at, Rule::Column, reason, "send it under another name, or leave it out of the dimensions");
        } else {
            dimensions.push(index);
        }
    }
    dimensions
}

fn is_taken(name: &str) -> bool {
    TABLE_COLUMNS.iter().chain(&ANSWER_COLUMNS).any(|taken| taken.eq_ignore_ascii_case(name))
}

fn read_measures(
    roles: &Map<String, Value>,
    types: Option<&[String]>,
    dimensions: &[usize],
    drafts: &[Draft],
    faults: &mut Faults,
) -> Vec<(String, String)> {
    let measures = match roles.get("measures") {
        None => return Vec::new(),
        Some(Value::Object(measures)) if measures.len() <= MEASURES_MAX => measures,
        Some(_) => {
            let remedy = format!("write at most {MEASURES_MAX}, as {{\"wakes\": \"wake\"}}");
            faults.add("x-roles.measures", Rule::Measure, "is not an object from name to event type", remedy);
            return Vec::new();
        }
    };
    let mut read = Vec::with_capacity(measures.len());
    for (name, event_type) in measures {
        let at = format!("x-roles.measures.{name}");
        let plain = name.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_');
        if !plain || name.len() > 40 || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
            let remedy = "use lower-case letters, digits and _, at most 40, a letter first";
            faults.add(&at, Rule::Measure, "is no name for a measure", remedy);
        }
        let dimension = dimensions
            .iter()
            .filter_map(|index| drafts[*index].field.column.as_deref())
            .any(|dimension| dimension.eq_ignore_ascii_case(name));
        if dimension || is_taken(name) || METRICS.contains(&name.as_str()) {
            let reason = "is the name of a dimension, a column or a metric already";
            faults.add(&at, Rule::Column, reason, "give the measure another name");
        }
        match event_type.as_str() {
            Some(event_type) => {
                check_event_type(&at, event_type, types, faults);
                read.push((name.clone(), event_type.to_owned()));
            }
            None => faults.add(&at, Rule::Measure, "names no event type", "write an event type as a string"),
        }
    }
    read
}

fn check_event_type(at: &str, name: &str, types: Option<&[String]>, faults: &mut Faults) {
    if CONSENT_TYPES.contains(&name) {
        let reason = format!("`{name}` goes to the ledger and is not activity");
        faults.add(at, Rule::Measure, reason, "name another event type");
        return;
    }
    let Some(types) = types else { return };
    if !types.iter().any(|known| known == name) {
        let known: Vec<&str> = types.iter().map(String::as_str).collect();
        let remedy = match nearest(name, &known) {
            Some(known) => format!("did you mean `{known}`"),
            None => format!("known are {}", known.join(", ")),
        };
        faults.add(at, Rule::Measure, format!("`{name}` is not among the event types"), remedy);
    }
}
