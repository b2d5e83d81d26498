//! What is refused, and that all of it is told at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// The default contract with one place changed; `Value::Null` removes it.
fn changed(changes: &[(&str, Value)]) -> String {
    let mut document: Value = serde_json::from_str(Contract::default_contract().json()).unwrap();
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = document.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            parent.shift_remove(key);
        } else {
            parent.insert(key.to_owned(), value.clone());
        }
    }
    document.to_string()
}

fn faults(changes: &[(&str, Value)]) -> Vec<(String, Rule)> {
    match Contract::parse(&changed(changes)) {
        Ok(_) => Vec::new(),
        Err(error) => error.faults.into_iter().map(|fault| (fault.field, fault.rule)).collect(),
    }
}

#[track_caller]
fn refused(pointer: &str, value: Value, field: &str, rule: Rule) {
    assert_eq!(faults(&[(pointer, value)]), [(field.to_owned(), rule)], "{pointer}");
}

#[track_caller]
fn accepted(changes: &[(&str, Value)]) {
    if let Err(error) = Contract::parse(&changed(changes)) {
        panic!("{error}");
    }
}

#[test]
fn an_identifier_that_would_be_stored_is_refused() {
    refused("/properties/ip/x-privacy/transform", json!("keep"), "ip", Rule::IdentifierExposed);
    refused("/properties/ip/x-privacy/transform", json!("truncate_ip"), "ip", Rule::IdentifierExposed);
    let quasi = json!({"class": "quasi_identifier", "transform": "truncate_ip"});
    accepted(&[("/properties/ip/x-privacy", quasi)]);
}

#[test]
fn device_and_user_are_pseudonymized_in_their_domains_whatever_their_class() {
    let kept = json!({"class": "operational", "transform": "keep"});
    let found = faults(&[("/properties/device_id/x-privacy", kept)]);
    assert!(found.contains(&("device_id".into(), Rule::IdentifierExposed)), "{found:?}");
    let dropped = json!({"class": "identifier", "transform": "drop"});
    refused("/properties/device_id/x-privacy", dropped, "device_id", Rule::IdentifierExposed);
    let found = faults(&[("/properties/user_id/x-privacy/domain", json!("device"))]);
    assert!(found.contains(&("user_id".into(), Rule::IdentifierExposed)), "{found:?}");
    refused("/properties/event_id/x-privacy", json!({"class": "operational", "transform": "keep"}), "event_id", Rule::IdentifierExposed);
}

#[test]
fn another_field_may_not_use_the_domain_of_a_role() {
    let privacy = |domain: &str| json!({"class": "identifier", "transform": "pseudonymize", "domain": domain});
    refused("/properties/mac/x-privacy", privacy("device"), "mac", Rule::Domain);
    refused("/properties/mac/x-privacy", privacy("journal"), "mac", Rule::Domain);
    refused("/properties/mac/x-privacy", privacy("Mac!"), "mac", Rule::Domain);
    refused("/properties/mac/x-privacy/transform", json!("pseudonymize"), "mac", Rule::Domain);
    accepted(&[("/properties/mac/x-privacy", privacy("mac"))]);
}

#[test]
fn a_kept_object_says_what_is_in_it() {
    refused("/properties/props/properties", Value::Null, "props", Rule::ObjectOpen);
    refused("/properties/props/properties", json!({}), "props", Rule::ObjectOpen);
    let dropped = json!({"type": "object", "x-privacy": {"class": "personal", "transform": "drop"}});
    accepted(&[("/properties/props", dropped)]);
}

#[test]
fn properties_of_a_dropped_object_are_dropped_with_it() {
    let consent = json!({"type": "object", "x-privacy": {"class": "operational", "transform": "drop"},
        "properties": {"policy": {"type": "string"}, "purposes": {"type": "array", "items": {"type": "string"}}}});
    let contract = Contract::parse(&changed(&[("/properties/consent", consent)])).unwrap();
    assert!(contract.roles().consent_policy.is_some() && contract.roles().consent_purposes.is_some());
    assert_eq!(contract.field("consent.policy").unwrap().column, None);
    refused("/properties/consent/x-privacy/transform", json!("drop"), "consent.policy", Rule::TransformUnfit);
}

#[test]
fn a_kept_string_is_bounded() {
    refused("/properties/model/maxLength", Value::Null, "model", Rule::TextUnbounded);
    refused("/properties/model/maxLength", json!(65), "model", Rule::TextUnbounded);
    accepted(&[("/properties/model/maxLength", Value::Null), ("/properties/model/enum", json!(["a", null]))]);
    accepted(&[("/properties/model/maxLength", Value::Null), ("/properties/model/pattern", json!("^m[0-9]{4}$"))]);
    accepted(&[
        ("/properties/model/maxLength", Value::Null),
        ("/properties/model/x-privacy", json!({"class": "operational", "transform": "generalize", "prefix": 2})),
    ]);
}

#[test]
fn privacy_is_declared_on_each_property_and_readable() {
    refused("/properties/model/x-privacy", Value::Null, "model", Rule::Privacy);
    refused("/properties/props/properties/room", json!(true), "props.room", Rule::Privacy);
    refused("/properties/model/x-privacy/class", json!("public"), "model", Rule::Privacy);
    refused("/properties/model/x-privacy/transform", json!("hash"), "model", Rule::Privacy);
    refused("/properties/model/x-privacy/domain", json!("model"), "model", Rule::Privacy);
    refused("/properties/device_id/x-privacy/fold_case", json!("yes"), "device_id", Rule::Privacy);
    refused("/properties/model/x-privacy/clas", json!("x"), "model", Rule::Privacy);
}

#[test]
fn transforms_fit_their_types() {
    let latency = "/properties/props/properties/latency_ms/x-privacy";
    let step = |step: Value| json!({"class": "operational", "transform": "generalize", "step": step});
    accepted(&[(latency, step(json!(100)))]);
    for bad in [json!(0), json!(-5), json!("100"), json!(0.5)] {
        refused(latency, step(bad), "props.latency_ms", Rule::TransformUnfit);
    }
    let prefix = json!({"class": "operational", "transform": "generalize", "prefix": 3});
    refused(latency, prefix, "props.latency_ms", Rule::TransformUnfit);
    let ip = json!({"class": "operational", "transform": "truncate_ip"});
    refused(latency, ip, "props.latency_ms", Rule::TransformUnfit);
    refused("/properties/consent/properties/purposes/x-privacy/transform", json!("keep"), "consent.purposes", Rule::TransformUnfit);
}

#[test]
fn roles_name_declared_fields_of_the_right_type() {
    // Without the role, its domain is nobody's: no erasure would search that column.
    for bad in [json!("user"), json!(5)] {
        let both = [("x-roles.user".to_owned(), Rule::Role), ("user_id".to_owned(), Rule::Domain)];
        assert_eq!(faults(&[("/x-roles/user", bad)]), both);
    }
    refused("/x-roles/usr", json!("user_id"), "x-roles.usr", Rule::Role);
    refused("/properties/ts/format", Value::Null, "ts", Rule::Role);
    refused("/x-roles/time", Value::Null, "x-roles.time", Rule::Role);
    let twice = faults(&[("/x-roles/country", json!("device_id"))]);
    assert!(twice.contains(&("x-roles.country".into(), Rule::Role)), "{twice:?}");
    let lists = faults(&[(
        "/properties/consent/properties/purposes",
        json!({"type": "string",
        "x-privacy": {"class": "operational", "transform": "drop"}}),
    )]);
    assert_eq!(lists, [("consent.purposes".to_owned(), Rule::Role)]);
}

#[test]
fn role_fields_are_required_even_where_the_contract_forgets() {
    let contract = Contract::parse(&changed(&[("/required", Value::Null)])).unwrap();
    let required: Vec<&str> = contract.fields().iter().filter(|field| field.required).map(|field| field.name.as_str()).collect();
    assert_eq!(required, ["device_id", "type", "ts"], "the event's id is not one of them");
}

#[test]
fn dimensions_are_stored_strings_with_names_of_their_own() {
    let at = "/x-roles/dimensions";
    for bad in [
        json!(["props.latency_ms"]),
        json!(["ip"]),
        json!(["device_id"]),
        json!(["model", "model"]),
        json!([1]),
        json!("model"),
        json!(["modle"]),
    ] {
        refused(at, bad, "x-roles.dimensions", Rule::Dimension);
    }
    let date = json!({"type": "string", "maxLength": 10, "x-privacy": {"class": "operational", "transform": "keep"}});
    let found = faults(&[("/properties/Date", date), (at, json!(["Date"]))]);
    assert_eq!(found, [("x-roles.dimensions".to_owned(), Rule::Column)]);
    accepted(&[(at, json!(["props.room"]))]);
}

#[test]
fn measures_count_event_types_under_new_names() {
    let at = "/x-roles/measures";
    refused(at, json!({"wakes": "wakeup"}), "x-roles.measures.wakes", Rule::Measure);
    refused(at, json!({"wakes": "consent_granted"}), "x-roles.measures.wakes", Rule::Measure);
    refused(at, json!({"Wakes": "wake"}), "x-roles.measures.Wakes", Rule::Measure);
    refused(at, json!({"dau": "wake"}), "x-roles.measures.dau", Rule::Column);
    refused(at, json!({"model": "wake"}), "x-roles.measures.model", Rule::Column);
    refused(at, json!(["wake"]), "x-roles.measures", Rule::Measure);
    refused("/x-roles/activation_type", json!("activated"), "x-roles.activation_type", Rule::Measure);
}

#[test]
fn two_columns_of_one_name_are_refused() {
    let room = json!({"type": "string", "maxLength": 9, "x-privacy": {"class": "operational", "transform": "keep"}});
    refused("/properties/Props_Room", room.clone(), "Props_Room", Rule::Column);
    refused("/properties/month", room.clone(), "month", Rule::Column);
    refused("/properties/device", room.clone(), "device", Rule::Column);
    let odd = Contract::parse(&changed(&[("/properties/2nd page-url", room)])).unwrap();
    assert_eq!(odd.field("2nd page-url").unwrap().column.as_deref(), Some("_2nd_page_url"));
}

#[test]
fn keywords_that_would_not_be_enforced_are_refused() {
    refused("/properties/model/maxLenght", json!(9), "model", Rule::Keyword);
    refused("/properties/model/anyOf", json!([{}]), "model", Rule::Keyword);
    refused("/properties/country/pattern", json!("^(?=x)$"), "country", Rule::Keyword);
    refused("/patternProperties", json!({}), "contract", Rule::Keyword);
    refused("/required", json!(["device_id", "nothing"]), "required", Rule::Keyword);
    accepted(&[("/additionalProperties", json!(false)), ("/properties/ip/format", json!("ipv4"))]);
}

#[test]
fn what_is_not_json_schema_is_refused_with_its_place() {
    let found = faults(&[("/properties/props/properties/room/maxLength", json!("64"))]);
    assert!(found.contains(&("props.room".into(), Rule::JsonSchema)), "{found:?}");
    let error = Contract::parse(&changed(&[("/properties/props/properties/room/maxLength", json!(-1))])).unwrap_err();
    assert!(error.to_string().contains("props.room: `maxLength`"), "{error}");
    refused("/$schema", json!("http://json-schema.org/draft-07/schema#"), "$schema", Rule::JsonSchema);
    for (text, rule) in [("", Rule::Json), ("{", Rule::Json), ("[]", Rule::JsonSchema), ("{\"a\":1,\"a\":2}", Rule::Json)] {
        assert_eq!(Contract::parse(text).unwrap_err().faults[0].rule, rule, "{text}");
    }
}

#[test]
fn without_consent_the_contract_says_on_what_basis() {
    refused("/x-roles/consent", Value::Null, "x-legal-basis", Rule::LegalBasis);
    refused("/x-legal-basis", json!(""), "x-legal-basis", Rule::LegalBasis);
    accepted(&[("/x-roles/consent", Value::Null), ("/x-legal-basis", json!("contract, Art. 6(1)(b)"))]);
}

#[test]
fn name_and_version_are_there() {
    refused("/x-contract", Value::Null, "x-contract", Rule::Identity);
    refused("/x-contract/name", json!("Device Event"), "x-contract.name", Rule::Identity);
    refused("/x-contract/version", json!(0), "x-contract.version", Rule::Identity);
}

#[test]
fn all_faults_are_told_at_once_with_what_would_be_right() {
    let error = Contract::parse(&changed(&[
        ("/properties/ip/x-privacy/transform", json!("keep")),
        ("/properties/model/maxLength", json!(500)),
        ("/properties/props/properties/room/x-privacy/class", json!("personel")),
        ("/x-roles/measures", json!({"wakes": "wak"})),
    ]))
    .unwrap_err();
    let fields: Vec<&str> = error.faults.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(fields, ["props.room", "model", "ip", "x-roles.measures.wakes"]);
    let told = error.to_string();
    assert!(told.contains("4 faults") && told.contains("did you mean `personal`") && told.contains("did you mean `wake`"));
}

#[test]
fn checks_hold_as_json_schema_means_them() {
    let contract = Contract::default_contract();
    let checks = |name: &str| contract.field(name).unwrap().checks.clone();
    assert!(checks("country").text_ok("DE") && !checks("country").text_ok("de") && !checks("country").text_ok("DEU"));
    assert!(!checks("country").text_ok("DE\n"));
    assert!(checks("props.room").text_ok(&"ü".repeat(64)), "characters, not bytes");
    assert!(!checks("props.room").text_ok(&"ü".repeat(65)));
    assert!(checks("type").text_ok("wake") && !checks("type").text_ok("waken"));
    assert!(!checks("device_id").text_ok("") && checks("device_id").text_ok("d"));
    assert!(checks("props.latency_ms").number_ok(0.0) && !checks("props.latency_ms").number_ok(-1.0));
    assert!(checks("consent.purposes").items_ok(32) && !checks("consent.purposes").items_ok(33));
    assert!(!checks("consent.purposes").items.unwrap().text_ok(&"x".repeat(65)));
    let digits = changed(&[("/properties/model/pattern", json!("^\\d[\\d\\w]$"))]);
    let digits = Contract::parse(&digits).unwrap().field("model").unwrap().checks.clone();
    assert!(digits.text_ok("1a") && !digits.text_ok("١a"), "\\d is ASCII in JSON Schema");
}

proptest! {
    #[test]
    fn parsing_never_panics(text in ".{0,200}") {
        let _ = Contract::parse(&text);
    }

    /// Whatever replaces a place of the contract: what is accepted stores no identifier as it is.
    #[test]
    fn what_is_accepted_exposes_no_identifier(
        field in prop::sample::select(vec!["device_id", "user_id", "event_id", "ip", "mac", "model", "country", "props", "ts"]),
        class in prop::sample::select(vec!["identifier", "quasi_identifier", "personal", "operational", "other"]),
        transform in prop::sample::select(vec!["pseudonymize", "drop", "keep", "truncate_ip", "generalize"]),
        domain in prop::sample::select(vec!["device", "user", "event", "other", ""]),
    ) {
        let mut privacy = json!({"class": class, "transform": transform});
        match transform {
            "pseudonymize" => privacy["domain"] = json!(domain),
            "generalize" => privacy["prefix"] = json!(3),
            _ => {}
        }
        let pointer = format!("/properties/{field}/x-privacy");
        if let Ok(contract) = Contract::parse(&changed(&[(&pointer, privacy)])) {
            for field in contract.fields() {
                let named = field.class == PrivacyClass::Identifier || matches!(field.role, Some(Role::Device | Role::User));
                let hidden = matches!(field.transform, Transform::Pseudonymize { .. } | Transform::Drop);
                prop_assert!(!named || hidden, "{}", field.name);
            }
            let schema = contract.tables().schema(crate::Table::Events);
            let names: std::collections::HashSet<_> = schema.fields().iter().map(|field| field.name()).collect();
            prop_assert_eq!(names.len(), schema.fields().len());
        }
    }
}
