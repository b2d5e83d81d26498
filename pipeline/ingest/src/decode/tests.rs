#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agreement;

use super::*;
use serde_json::{Value, json};

const LINE_BYTES_MAX: usize = 4096;

fn decoder() -> Decoder {
    Decoder::new(Arc::new(Contract::default_contract()), LINE_BYTES_MAX)
}

fn event() -> Value {
    json!({
        "event_id": "2e634af2", "device_id": "800000002492", "user_id": "u0900399398", "type": "wake",
        "ts": "2018-07-01T00:33:35.580Z", "product": "speaker", "model": "m0794", "partner": "p179",
        "country": "DE", "firmware": "1.1.16", "consent": {"policy": "2018-05-25", "purposes": ["analytics"]},
        "ip": "203.0.193.24", "mac": "38:a7:51:11:30:0e", "props": {"latency_ms": 668, "room": "kitchen"}
    })
}

fn with(path: &[&str], value: Option<Value>) -> String {
    let mut whole = event();
    let (last, parents) = path.split_last().unwrap();
    let mut at = whole.as_object_mut().unwrap();
    for key in parents {
        at = at.get_mut(*key).unwrap().as_object_mut().unwrap();
    }
    match value {
        Some(value) => at.insert((*last).to_owned(), value),
        None => at.remove(*last),
    };
    whole.to_string()
}

/// The rejection of a line, by names.
fn rejected(decoder: &Decoder, line: &[u8]) -> Option<(&'static str, String)> {
    let mut scratch = Scratch::default();
    let rejection = decoder.decode(&mut scratch, line).err()?;
    let field = rejection.field.map(|at| decoder.contract().fields()[at].name.clone()).unwrap_or_default();
    Some((rejection.reason.as_str(), field))
}

#[test]
fn every_kind_of_bad_line_has_its_reason_and_field() {
    let decoder = decoder();
    let line = event().to_string();
    let set = |path: &[&str], value: Value| with(path, Some(value)).into_bytes();
    let raw = |text: &str| text.as_bytes().to_vec();
    let cases: Vec<(Vec<u8>, &str, &str)> = vec![
        (raw(&line[..line.len() / 2]), "malformed_json", ""),
        (raw(&line[..line.len() - 1]), "malformed_json", ""),
        (raw(&format!("{line}}}")), "malformed_json", ""),
        (raw(&format!("{line} {line}")), "malformed_json", ""),
        (raw("[1,2]"), "malformed_json", ""),
        (raw("\"text\""), "malformed_json", ""),
        (raw("null"), "malformed_json", ""),
        (raw("{'a':1}"), "malformed_json", ""),
        (raw("{\"a\":1,}"), "malformed_json", ""),
        (raw("{\"a\":01}"), "malformed_json", ""),
        (raw("{\"a\":1.}"), "malformed_json", ""),
        (raw("{\"a\":-}"), "malformed_json", ""),
        (raw("{\"a\":+1}"), "malformed_json", ""),
        (raw("{\"a\":NaN}"), "malformed_json", ""),
        (raw("{\"a\":truth}"), "malformed_json", ""),
        (raw("{\"a\":\"\t\"}"), "malformed_json", ""),
        (raw("{\"a\":\"\\x\"}"), "malformed_json", ""),
        (raw("{\"a\":\"\\ud800\"}"), "malformed_json", ""),
        (raw("{\"a\":\"\\ud800\\u0041\"}"), "malformed_json", ""),
        (raw("{\"a\":\"\\udc00\"}"), "malformed_json", ""),
        (raw("{\"a\":\"\\u12g4\"}"), "malformed_json", ""),
        (b"{\"a\":\"\xff\"}".to_vec(), "malformed_json", ""),
        (b"{\"a\":\"\xc0\x80\"}".to_vec(), "malformed_json", ""),
        (b"{\"a\":\"\xed\xa0\x80\"}".to_vec(), "malformed_json", ""),
        (raw(&format!("{{\"a\":{}1{}}}", "[".repeat(127), "]".repeat(127))), "malformed_json", ""),
        (raw(&format!("{line}{}", " ".repeat(LINE_BYTES_MAX))), "too_large", ""),
        (with(&["device_id"], None).into(), "missing_field", "device_id"),
        (set(&["device_id"], Value::Null), "missing_field", "device_id"),
        (with(&["ts"], None).into(), "missing_field", "ts"),
        (with(&["type"], None).into(), "missing_field", "type"),
        (with(&["event_id"], None).into(), "missing_field", "event_id"),
        (set(&["device_id"], json!(800)), "wrong_type", "device_id"),
        (set(&["ts"], json!(1_530_405_215)), "wrong_type", "ts"),
        (set(&["product"], json!(["speaker"])), "wrong_type", "product"),
        (set(&["product"], json!({"name": "speaker"})), "wrong_type", "product"),
        (set(&["consent"], json!("yes")), "wrong_type", "consent"),
        (set(&["consent", "purposes"], json!("analytics")), "wrong_type", "consent.purposes"),
        (set(&["consent", "purposes"], json!(["analytics", 1])), "wrong_type", "consent.purposes"),
        (set(&["props"], json!([])), "wrong_type", "props"),
        (set(&["props", "latency_ms"], json!("668")), "wrong_type", "props.latency_ms"),
        (set(&["props", "latency_ms"], json!(668.5)), "wrong_type", "props.latency_ms"),
        (set(&["props", "latency_ms"], json!(-1)), "invalid_value", "props.latency_ms"),
        (set(&["props", "latency_ms"], json!(1e30)), "invalid_value", "props.latency_ms"),
        (set(&["props", "room"], json!("x".repeat(65))), "invalid_value", "props.room"),
        (set(&["device_id"], json!("")), "invalid_value", "device_id"),
        (set(&["country"], json!("Germany")), "invalid_value", "country"),
        (set(&["country"], json!("de")), "invalid_value", "country"),
        (set(&["model"], json!("é".repeat(65))), "invalid_value", "model"),
        (set(&["ts"], json!("2018-07-01T00:33:35")), "invalid_value", "ts"),
        (set(&["ts"], json!("yesterday")), "invalid_value", "ts"),
        (set(&["ts"], json!("1969-12-31T23:59:59Z")), "invalid_value", "ts"),
        (set(&["type"], json!("explode")), "unknown_type", "type"),
        (set(&["type"], json!("")), "unknown_type", "type"),
        (set(&["type"], json!(7)), "wrong_type", "type"),
    ];
    for (line, reason, field) in cases {
        let shown = String::from_utf8_lossy(&line).chars().take(300).collect::<String>();
        assert_eq!(rejected(&decoder, &line), Some((reason, field.to_owned())), "{shown}");
    }
}

#[test]
fn odd_but_valid_lines_are_read() {
    let decoder = decoder();
    let good = [
        event().to_string(),
        format!(" \t{}\r", event()),
        with(&["user_id"], Some(Value::Null)),
        with(&["consent"], Some(Value::Null)),
        with(&["ip"], Some(json!("not an address"))),
        with(&["props"], None),
        with(&["props", "latency_ms"], Some(json!(668.0))),
        with(&["model"], Some(json!("é".repeat(64)))),
        with(&["ts"], Some(json!("1970-01-01T00:00:00Z"))),
        with(&["ts"], Some(json!("9999-12-31T23:59:59.999999+00:00"))),
        with(&["unknown"], Some(json!({"deep": [1, {"er": null}]}))),
        event().to_string().replace("\"type\"", "\"t\\u0079pe\""),
    ];
    for line in good {
        assert_eq!(rejected(&decoder, line.as_bytes()), None, "{line}");
    }
}

#[test]
fn the_last_of_equal_keys_counts_and_escapes_are_undone() {
    let decoder = decoder();
    let fields = decoder.contract().fields();
    let at = |name: &str| fields.iter().position(|field| field.name == name).unwrap();
    let line =
        r#"{"device_id":"first","device_id":"s\u0065cond \ud83d\ude00\n","event_id":"e","type":"wake","ts":"2018-07-01T01:00:00+01:00",
        "props":{"latency_ms":1,"room":"a"},"props":{"room":"b\"c"},"model":"m","x_1":1,"__":2,"no name":3,"1x":4}"#
            .replace('\n', " ");
    let mut scratch = Scratch::default();
    let event = decoder.decode(&mut scratch, line.as_bytes()).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(event.text(at("device_id")), Some("second 😀\n"));
    assert_eq!(event.integer(at("props.latency_ms")), None);
    assert_eq!(event.text(at("props.room")), Some("b\"c"));
    assert_eq!(event.time(at("ts")).unwrap().to_string(), "2018-07-01T00:00:00Z");
    assert_eq!(event.undeclared_count(), 4);
    assert_eq!(event.undeclared().collect::<Vec<_>>(), [("", "x_1"), ("", "__")]);
}

#[test]
fn a_text_of_any_length_at_any_distance_from_the_end_is_read_whole() {
    let decoder = decoder();
    let device = decoder.contract().roles().device;
    let mut scratch = Scratch::default();
    for escape in ["", "\\n"] {
        for (len, blanks) in (1..100).flat_map(|len| (0..40).map(move |blanks| (len, blanks))) {
            let line = format!(
                "{{\"event_id\":\"e\",\"type\":\"wake\",\"ts\":\"2018-07-01T00:33:35Z\",\"device_id\":\"{}{escape}\"}}{}",
                "x".repeat(len),
                " ".repeat(blanks)
            );
            let found = decoder.decode(&mut scratch, line.as_bytes()).ok().and_then(|event| event.text(device).map(str::len));
            assert_eq!(found, Some(len + escape.len() / 2), "{line}");
        }
    }
}

#[test]
fn an_object_overwritten_by_something_else_leaves_nothing_behind() {
    let decoder = decoder();
    let room = decoder.contract().fields().iter().position(|field| field.name == "props.room").unwrap();
    let mut scratch = Scratch::default();
    let line = event().to_string();
    for other in ["\"text\"", "\"esc\\n\"", "1", "-1.5", "true", "[]", "[\"x\"]"] {
        for line in [line.clone(), format!("{},\"props\":{other}}}", &line[..line.len() - 1])] {
            let rejected = decoder.decode(&mut scratch, line.as_bytes()).is_err();
            let room = decoder.salvage(&mut scratch, line.as_bytes()).unwrap().text(room);
            assert_eq!((rejected, room.is_none()), (line.len() > event().to_string().len(), rejected), "{other}");
        }
    }
    let nulled = format!("{},\"props\":null}}", &line[..line.len() - 1]);
    assert_eq!(decoder.decode(&mut scratch, nulled.as_bytes()).ok().and_then(|event| event.text(room)), None);
}

#[test]
fn a_rejected_line_still_tells_its_valid_fields() {
    let decoder = decoder();
    let roles = decoder.contract().roles().clone();
    let mut scratch = Scratch::default();
    let line = with(&["ts"], Some(json!("never")));
    assert!(decoder.decode(&mut scratch, line.as_bytes()).is_err());
    assert!(decoder.field_ok(&mut scratch, line.as_bytes(), roles.device));
    assert!(!decoder.field_ok(&mut scratch, line.as_bytes(), roles.time));
    let event = decoder.salvage(&mut scratch, line.as_bytes()).unwrap();
    assert_eq!(event.text(roles.partner.unwrap()), Some("p179"));
    assert!(decoder.decode(&mut scratch, b"{").is_err());
    assert!(!decoder.field_ok(&mut scratch, b"{", roles.device));
    assert!(decoder.salvage(&mut scratch, b"{").is_none());
}

#[test]
fn elements_of_an_array() {
    let all = |text: &str| {
        Elements::new(text.as_bytes())
            .map(|element| element.map_or("!", |bytes| std::str::from_utf8(bytes).unwrap()).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(all(" [ {\"a\":[1]} , 2,\n\"x\" ] "), ["{\"a\":[1]}", "2", "\"x\""]);
    assert_eq!(all("[]"), Vec::<String>::new());
    for (bad, before) in [("{}", 0), ("", 0), ("[1", 1), ("[1,]", 1), ("[1] x", 1), ("[1 2]", 1)] {
        let found = all(bad);
        assert_eq!((found.len(), found.last().map(String::as_str)), (before + 1, Some("!")), "{bad}");
    }
}

#[test]
fn the_number_of_a_text_stays_and_only_valid_texts_have_one() {
    let decoder = decoder();
    let fields = decoder.contract().fields();
    let at = |name: &str| fields.iter().position(|field| field.name == name).unwrap();
    let mut scratch = Scratch::default();
    let mut id = |path: &[&str], value: Value| {
        let line = with(path, Some(value));
        let event = decoder.decode(&mut scratch, line.as_bytes()).ok()?;
        event.memo_id(at(&path.join(".")))
    };
    assert_eq!(id(&["country"], json!("DE")), Some(0));
    assert_eq!(id(&["country"], json!("FR")), Some(1));
    assert_eq!(id(&["country"], json!("DE")), Some(0));
    assert_eq!(id(&["country"], json!("de")), None);
    assert_eq!(id(&["country"], json!("BR")), Some(2));
    assert_eq!(id(&["model"], json!("")), Some(1));
    assert_eq!(id(&["model"], json!("")), Some(1));
    assert_eq!(id(&["props", "room"], json!("x".repeat(64))), Some(1));
    assert_eq!(id(&["props", "room"], json!("x".repeat(65))), None);
    // Identifiers are never remembered, kept or not.
    for name in ["device_id", "user_id", "event_id", "ip", "mac"] {
        assert_eq!(id(&[name], json!("x")), None, "{name}");
    }
    assert_eq!(scratch.memo_text(at("country"), 1), Some("FR"));
    assert_eq!(scratch.memo_text(at("country"), 3), None);
    assert!((0..fields.len()).all(|field| field == at("device_id") || scratch.memo_text(field, 0) != Some("800000002492")));
}

#[test]
fn a_stamp_is_known_again_by_its_bytes_alone() {
    let decoder = decoder();
    let mut scratch = Scratch::default();
    let mut number = |consent: &str| {
        let line = event().to_string().replace(r#"{"policy":"2018-05-25","purposes":["analytics"]}"#, consent);
        decoder.decode(&mut scratch, line.as_bytes()).ok().and_then(|event| event.stamp_number())
    };
    let (one, other) = (r#"{"policy":"2018-05-25","purposes":["analytics"]}"#, r#"{"policy":"2019-01-01","purposes":["a","b"]}"#);
    // The policy has to be found valid once before.
    assert_eq!(number(one), None);
    let first = number(one);
    assert!(first.is_some());
    assert_eq!(number(one), first);
    number(other);
    assert_ne!(number(other), first);
    // What is invalid, escaped, undeclared, short, or comes twice is read anew each time.
    for odd in [
        r#"{"policy":"2018-05-25","purposes":[1]}"#,
        r#"{"policy":"2018\u002d05-25","purposes":["analytics"]}"#,
        r#"{"policy":"2018-05-25","other":["analytics"]}"#,
        "{}",
        "null",
    ] {
        assert_eq!((number(odd), number(odd)), (None, None), "{odd}");
    }
    number(one);
    let again = format!(r#"{one},"consent":null"#);
    assert_eq!((number(one).is_some(), number(&again)), (true, None));
}

/// A stamp that may name somebody is never kept beyond its line.
#[test]
fn a_stamp_with_an_identifier_is_not_remembered() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/contracts/device_event.v1.json")).unwrap();
    let mut contract: Value = serde_json::from_str(&text).unwrap();
    contract["properties"]["consent"]["properties"]["by"] = json!({
        "type": "string", "x-privacy": { "class": "identifier", "transform": "pseudonymize", "domain": "grantor" }
    });
    let decoder = Decoder::new(Arc::new(Contract::parse(&contract.to_string()).unwrap()), LINE_BYTES_MAX);
    let mut scratch = Scratch::default();
    for _ in 0..4 {
        let line = with(&["consent", "by"], Some(json!("somebody")));
        assert_eq!(decoder.decode(&mut scratch, line.as_bytes()).ok().map(|event| event.stamp_number()), Some(None));
    }
}
