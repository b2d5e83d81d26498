//! The rules that make a contract safe, field by field: PRODUCT's refusals.

use super::error::{Faults, Rule};
use super::schema::Draft;
use super::{FieldKind, PrivacyClass, Role, Transform};
use crate::Generalization;

/// A kept string of any content may be no longer than this.
pub(super) const TEXT_CHARS_MAX: usize = 64;

/// Keys of the keyring that are no domain of identifiers.
const RESERVED_DOMAINS: [&str; 5] = ["suppression", "alias", "journal", "audit", "certificate"];

/// Checks one field. Its role is known by now.
pub(super) fn check_field(draft: &Draft, faults: &mut Faults) {
    if !draft.sound {
        return;
    }
    let field = &draft.field;
    let at = field.name.as_str();
    let hidden = matches!(field.transform, Transform::Pseudonymize { .. } | Transform::Drop);
    if field.class == PrivacyClass::Identifier && !hidden {
        faults.add(
            at,
            Rule::IdentifierExposed,
            "is an identifier and would be stored as it is",
            "pseudonymize or drop it, or give it the class it has",
        );
    }
    check_role(draft, faults);
    match (&field.transform, field.kind) {
        (Transform::Drop, _) => {}
        (_, FieldKind::Any) => faults.add(at, Rule::Type, "has no type", "give it a type or drop it"),
        (Transform::Keep, FieldKind::Object) => {
            if !draft.has_properties {
                let remedy = "declare its properties, each with x-privacy, or drop it";
                faults.add(at, Rule::ObjectOpen, "is a kept object without declared properties", remedy);
            }
        }
        (_, FieldKind::Object) => {
            let remedy = "keep it, and give its properties their own transforms, or drop it";
            faults.add(at, Rule::TransformUnfit, "is an object: it can only be kept or dropped", remedy);
        }
        (_, FieldKind::Array) => {
            faults.add(at, Rule::TransformUnfit, "is an array: arrays are not stored", "drop it");
        }
        (Transform::Keep, FieldKind::String) => {
            let bounded = field.checks.choices.is_some()
                || field.checks.pattern.is_some()
                || field.checks.max_length.is_some_and(|chars| chars <= TEXT_CHARS_MAX);
            // These have been told of an exposed identifier or a missing format; a limit would not mend that.
            let told = field.class == PrivacyClass::Identifier
                || matches!(field.role, Some(Role::Device | Role::User | Role::EventId | Role::Time));
            if !bounded && !told {
                let reason = "is a kept string that could hold anything: neither enum, pattern nor maxLength ≤ 64";
                faults.add(at, Rule::TextUnbounded, reason, "add one of them, or drop it");
            }
        }
        (Transform::Keep, _) => {}
        (Transform::Pseudonymize { domain }, FieldKind::String) => check_domain(at, domain, field.role, faults),
        (Transform::TruncateIp, FieldKind::String)
        | (Transform::Generalize(Generalization::Prefix(_)), FieldKind::String)
        | (Transform::Generalize(Generalization::Step(_)), FieldKind::Number) => {}
        (Transform::Generalize(Generalization::Step(step)), FieldKind::Integer) => {
            // Above 2^53 not every whole number is a float.
            if step.fract() != 0.0 || *step > 9e15 {
                let remedy = "write a whole step from 1 on, or make the field a number";
                faults.add(at, Rule::TransformUnfit, "is an integer with a step that is not whole", remedy);
            }
        }
        (Transform::Pseudonymize { .. } | Transform::TruncateIp, _) => {
            let remedy = "make it a string without format date-time, or drop it";
            faults.add(at, Rule::TransformUnfit, "is not a string, which this transform needs", remedy);
        }
        (Transform::Generalize(_), _) => {
            let remedy = "give step for integers and numbers, prefix for strings";
            faults.add(at, Rule::TransformUnfit, "is generalized in a way that its type does not know", remedy);
        }
    }
}

fn check_domain(at: &str, domain: &str, role: Option<Role>, faults: &mut Faults) {
    let plain = domain.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_');
    if !plain || domain.len() > 40 || !domain.starts_with(|first: char| first.is_ascii_lowercase()) {
        let remedy = "use lower-case letters, digits and _, at most 40, a letter first";
        faults.add(at, Rule::Domain, format!("`{domain}` is no name for a domain"), remedy);
    } else if RESERVED_DOMAINS.contains(&domain) {
        let reason = format!("`{domain}` is a key of Ameles's own");
        faults.add(at, Rule::Domain, reason, "use a domain of the field's own, such as its name");
    }
    let owner = match domain {
        "device" => Role::Device,
        "user" => Role::User,
        "event" => Role::EventId,
        _ => return,
    };
    // Another column with pseudonyms of that domain would be searched by no
    // erasure: it would leave the erased one's in other subjects' rows.
    if role != Some(owner) {
        let reason = format!("domain `{domain}` belongs to the field with that role");
        faults.add(at, Rule::Domain, reason, "use a domain of the field's own, such as its name");
    }
}

/// What a role asks of its field.
fn check_role(draft: &Draft, faults: &mut Faults) {
    let field = &draft.field;
    let at = field.name.as_str();
    let Some(role) = field.role else { return };
    let wanted = match role {
        Role::Device | Role::User | Role::EventId | Role::Type | Role::Country => FieldKind::String,
        Role::Time => FieldKind::Timestamp,
        Role::Consent => FieldKind::Object,
    };
    if field.kind != wanted {
        let remedy = match role {
            Role::Time => "declare {\"type\": \"string\", \"format\": \"date-time\"}",
            Role::Consent => "declare an object with `policy` (a string) and `purposes` (an array of strings)",
            _ => "declare {\"type\": \"string\"} without format date-time",
        };
        faults.add(at, Rule::Role, format!("has the role {} but not its type", role.as_str()), remedy);
    }
    match role {
        Role::Device | Role::User => {
            let own = role.as_str();
            if !matches!(&field.transform, Transform::Pseudonymize { domain } if domain == own) {
                faults.add(
                    at,
                    Rule::IdentifierExposed,
                    format!("has the role {own} but is not pseudonymized in domain `{own}`"),
                    format!("{{\"transform\": \"pseudonymize\", \"domain\": \"{own}\"}}"),
                );
            }
        }
        Role::EventId => {
            if !matches!(field.transform, Transform::Pseudonymize { .. }) {
                faults.add(
                    at,
                    Rule::IdentifierExposed,
                    "has the role event_id but is not pseudonymized",
                    "{\"transform\": \"pseudonymize\", \"domain\": \"event\"}",
                );
            }
        }
        Role::Time | Role::Type => {
            if field.transform != Transform::Keep {
                let reason = format!("has the role {} but is not kept", role.as_str());
                faults.add(at, Rule::Role, reason, "{\"transform\": \"keep\"}");
            }
        }
        Role::Country => {
            if !matches!(field.transform, Transform::Keep | Transform::Drop) {
                let remedy = "keep or drop it: the policy needs the country as it is";
                faults.add(at, Rule::Role, "has the role country but is neither kept nor dropped", remedy);
            }
        }
        Role::Consent => {}
    }
}
