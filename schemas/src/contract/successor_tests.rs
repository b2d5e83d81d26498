#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};

use super::*;

/// The second version of the default contract, changed so.
fn second(change: impl FnOnce(&mut Value)) -> Contract {
    let mut document: Value = serde_json::from_str(Contract::default_contract().json()).unwrap();
    document["x-contract"]["version"] = json!(2);
    change(&mut document);
    Contract::parse(&document.to_string()).expect("a contract that is fine by itself")
}

fn broken(change: impl FnOnce(&mut Value)) -> Vec<String> {
    match Contract::default_contract().check_successor(&second(change)) {
        Ok(()) => Vec::new(),
        Err(error) => {
            assert!(error.faults.iter().all(|fault| fault.rule == Rule::Successor));
            error.faults.into_iter().map(|fault| fault.field).collect()
        }
    }
}

fn remove(value: &mut Value, key: &str) {
    value.as_object_mut().unwrap().shift_remove(key).unwrap();
}

fn kept_text() -> Value {
    json!({"type": "string", "maxLength": 20, "x-privacy": {"class": "operational", "transform": "keep"}})
}

#[test]
fn what_adds_or_loosens_may_follow() {
    assert!(broken(|_| {}).is_empty());
    assert!(broken(|next| next["properties"]["carrier"] = kept_text()).is_empty());
    assert!(
        broken(|next| {
            next["properties"]["carrier"] = kept_text();
            next["x-roles"]["dimensions"].as_array_mut().unwrap().push(json!("carrier"));
        })
        .is_empty()
    );
    assert!(broken(|next| next["x-roles"]["dimensions"].as_array_mut().unwrap().push(json!("props.room"))).is_empty());
    assert!(broken(|next| next["properties"]["type"]["enum"].as_array_mut().unwrap().push(json!("sleep"))).is_empty());
    assert!(broken(|next| next["required"] = json!(["device_id", "type", "ts"])).is_empty());
    assert!(broken(|next| remove(&mut next["properties"], "mac")).is_empty(), "it was never stored");
    assert!(
        broken(|next| {
            next["properties"]["radio"] = json!({"type": "object", "required": ["band"],
                "x-privacy": {"class": "operational", "transform": "keep"}, "properties": {"band": kept_text()}});
        })
        .is_empty(),
        "required only below an object that is optional itself"
    );
}

#[test]
fn a_stored_column_stays() {
    assert_eq!(broken(|next| remove(&mut next["properties"]["props"]["properties"], "room")), ["props.room"]);
    assert_eq!(broken(|next| next["properties"]["props"]["properties"]["room"]["x-privacy"]["transform"] = json!("drop")), ["props.room"]);
}

#[test]
fn a_stored_column_keeps_its_type_and_meaning() {
    assert_eq!(
        broken(|next| next["properties"]["props"]["properties"]["latency_ms"]["type"] = json!(["number", "null"])),
        ["props.latency_ms"]
    );
    assert_eq!(
        broken(|next| {
            next["properties"]["props"]["properties"]["latency_ms"]["x-privacy"] =
                json!({"class": "operational", "transform": "generalize", "step": 100});
        }),
        ["props.latency_ms"]
    );
    assert_eq!(
        broken(|next| next["properties"]["device_id"]["x-privacy"]["fold_case"] = json!(true)),
        ["device_id"],
        "the same device would get another pseudonym"
    );
}

#[test]
fn roles_stay_with_their_fields() {
    assert_eq!(
        broken(|next| {
            next["properties"]["serial"] = next["properties"]["device_id"].clone();
            remove(&mut next["properties"], "device_id");
            next["x-roles"]["device"] = json!("serial");
            next["required"] = json!(["type", "ts"]);
        }),
        ["serial", "serial"],
        "read from elsewhere, and required anew"
    );
    assert_eq!(
        broken(|next| {
            remove(&mut next["x-roles"], "user");
            next["properties"]["user_id"]["x-privacy"]["transform"] = json!("drop");
            remove(&mut next["properties"]["user_id"]["x-privacy"], "domain");
        }),
        ["user_id"]
    );
}

#[test]
fn nothing_is_asked_that_past_events_lack() {
    assert_eq!(broken(|next| next["required"].as_array_mut().unwrap().push(json!("model"))), ["model"]);
    assert_eq!(broken(|next| next["properties"]["model"]["type"] = json!("string")), ["model"]);
    assert_eq!(
        broken(|next| {
            next["properties"]["carrier"] = kept_text();
            next["required"].as_array_mut().unwrap().push(json!("carrier"));
        }),
        ["carrier"]
    );
}

#[test]
fn dimensions_measures_and_activation_stay() {
    assert_eq!(broken(|next| next["x-roles"]["dimensions"] = json!(["product"])), vec!["x-roles.dimensions"; 4]);
    assert_eq!(
        broken(|next| next["x-roles"]["measures"] = json!({"beats": "heartbeat"})),
        ["x-roles.measures.wakes", "x-roles.measures.beats"]
    );
    assert_eq!(broken(|next| next["x-roles"]["measures"]["wakes"] = json!("control")), ["x-roles.measures.wakes"]);
    assert_eq!(broken(|next| remove(&mut next["x-roles"], "activation_type")), ["x-roles.activation_type"]);
}

#[test]
fn versions_count_up_by_one_under_one_name() {
    assert_eq!(broken(|next| next["x-contract"]["version"] = json!(1)), ["x-contract.version"]);
    assert_eq!(broken(|next| next["x-contract"]["version"] = json!(3)), ["x-contract.version"]);
    assert_eq!(broken(|next| next["x-contract"]["name"] = json!("shop")), ["x-contract.name"]);
}
