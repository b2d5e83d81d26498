//! Reads `x-privacy`: how private a field is and what is done to it.

use serde_json::{Map, Value};

use super::error::{Faults, Rule};
use super::{PrivacyClass, Transform};
use crate::Generalization;
use crate::nearest::nearest;

const PRIVACY_KEYS: [&str; 6] = ["class", "transform", "domain", "step", "prefix", "fold_case"];
const CLASSES: [&str; 4] = ["identifier", "quasi_identifier", "personal", "operational"];
const TRANSFORMS: [&str; 5] = ["pseudonymize", "drop", "keep", "truncate_ip", "generalize"];

/// What `x-privacy` says of a field.
pub(super) struct Privacy {
    pub(super) class: PrivacyClass,
    pub(super) transform: Transform,
    pub(super) fold_case: bool,
}

impl Privacy {
    /// Stands in for one that could not be read: the most careful.
    pub(super) const UNKNOWN: Self = Self { class: PrivacyClass::Identifier, transform: Transform::Drop, fold_case: false };
}

/// Reads `x-privacy`; `None` where a fault has been told.
pub(super) fn read_privacy(
    name: &str,
    privacy: Option<&Value>,
    parent_dropped: Option<PrivacyClass>,
    faults: &mut Faults,
) -> Option<Privacy> {
    let Some(privacy) = privacy.and_then(Value::as_object) else {
        if let (Some(class), None) = (parent_dropped, privacy) {
            return Some(Privacy { class, transform: Transform::Drop, fold_case: false });
        }
        faults.add(
            name,
            Rule::Privacy,
            "has no `x-privacy`",
            "add {\"class\": one of identifier, quasi_identifier, personal, operational, \"transform\": one of pseudonymize, drop, keep, truncate_ip, generalize}",
        );
        return None;
    };
    let mut told = false;
    let mut fault = |rule: Rule, reason: String, remedy: String| {
        told = true;
        faults.add(name, rule, reason, remedy);
    };
    for key in privacy.keys().filter(|key| !PRIVACY_KEYS.contains(&key.as_str())) {
        fault(Rule::Privacy, format!("`x-privacy` has the unknown key `{key}`"), meant(key, &PRIVACY_KEYS));
    }
    let choice = |key: &str| privacy.get(key).and_then(Value::as_str);
    let class = match choice("class") {
        Some("identifier") => Some(PrivacyClass::Identifier),
        Some("quasi_identifier") => Some(PrivacyClass::QuasiIdentifier),
        Some("personal") => Some(PrivacyClass::Personal),
        Some("operational") => Some(PrivacyClass::Operational),
        Some(other) => {
            fault(Rule::Privacy, format!("unknown class `{other}`"), meant(other, &CLASSES));
            None
        }
        None => {
            fault(Rule::Privacy, "`x-privacy` has no `class`".into(), format!("one of {}", CLASSES.join(", ")));
            None
        }
    };
    let (transform, own_keys): (_, &[&str]) = match choice("transform") {
        Some("pseudonymize") => (
            choice("domain").map(|domain| Transform::Pseudonymize { domain: domain.to_owned() }).or_else(|| {
                let remedy = "name the domain, such as \"domain\": \"device\"".to_owned();
                fault(Rule::Domain, "is pseudonymized in no domain".into(), remedy);
                None
            }),
            &["domain", "fold_case"],
        ),
        Some("drop") => (Some(Transform::Drop), &[]),
        Some("keep") => (Some(Transform::Keep), &[]),
        Some("truncate_ip") => (Some(Transform::TruncateIp), &[]),
        Some("generalize") => (
            read_generalization(privacy).map(Transform::Generalize).or_else(|| {
                let remedy = "give \"step\" (a number above 0) for numbers, or \"prefix\" (1 to 64 characters) for strings";
                fault(Rule::TransformUnfit, "`generalize` does not say how".into(), remedy.to_owned());
                None
            }),
            &["step", "prefix"],
        ),
        Some(other) => {
            fault(Rule::Privacy, format!("unknown transform `{other}`"), meant(other, &TRANSFORMS));
            (None, &PRIVACY_KEYS)
        }
        None => {
            let remedy = format!("one of {}", TRANSFORMS.join(", "));
            fault(Rule::Privacy, "`x-privacy` has no `transform`".into(), remedy);
            (None, &PRIVACY_KEYS)
        }
    };
    for key in &PRIVACY_KEYS[2..] {
        if privacy.contains_key(*key) && !own_keys.contains(key) {
            let reason = format!("`{key}` says nothing for this transform");
            fault(Rule::Privacy, reason, "leave it out, or change the transform".into());
        }
    }
    let fold_case = match privacy.get("fold_case") {
        None => false,
        Some(Value::Bool(fold)) => *fold,
        Some(_) => {
            fault(Rule::Privacy, "`fold_case` is not true or false".into(), "write true or false".into());
            false
        }
    };
    if parent_dropped.is_some() && transform.as_ref().is_some_and(|transform| *transform != Transform::Drop) {
        let remedy = "drop it too, or keep the object and drop its other properties";
        fault(Rule::TransformUnfit, "stands in an object that is dropped".into(), remedy.into());
    }
    if told {
        return None;
    }
    Some(Privacy { class: class?, transform: transform?, fold_case })
}

fn meant(word: &str, known: &[&'static str]) -> String {
    match nearest(word, known) {
        Some(known) => format!("did you mean `{known}`"),
        None => format!("one of {}", known.join(", ")),
    }
}

fn read_generalization(privacy: &Map<String, Value>) -> Option<Generalization> {
    match (privacy.get("step"), privacy.get("prefix")) {
        (Some(step), None) => step.as_f64().filter(|step| step.is_finite() && *step > 0.0).map(Generalization::Step),
        (None, Some(prefix)) => {
            let chars = prefix.as_u64().and_then(|chars| usize::try_from(chars).ok())?;
            (1..=64).contains(&chars).then_some(Generalization::Prefix(chars))
        }
        _ => None,
    }
}
