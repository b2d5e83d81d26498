//! Decoding beside `serde_json`, and the ways that a line may go beside each other.

use ameles_schemas::FieldKind;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::*;
use super::{decoder, event, rejected, with};

/// The first fault by the same contract, with `serde_json` and no cleverness.
fn reference(contract: &Contract, line: &str) -> Result<Map<String, Value>, (Reason, Option<usize>)> {
    let whole: Value = serde_json::from_str(line).map_err(|_| (Reason::MalformedJson, None))?;
    let Value::Object(object) = whole else { return Err((Reason::MalformedJson, None)) };
    for (at, field) in contract.fields().iter().enumerate() {
        let mut value = Some(&Value::Object(object.clone())).cloned();
        let mut around = true;
        for (depth, key) in field.path.iter().enumerate() {
            around = depth == 0 || value.as_ref().is_some_and(Value::is_object);
            value = value.and_then(|value| value.get(key).cloned());
        }
        let fail = |reason| Err((reason, Some(at)));
        match (value, field.kind) {
            (_, FieldKind::Any) => {}
            (None, _) if field.required && around => return fail(Reason::MissingField),
            (None, _) => {}
            (Some(Value::Null), _) if field.nullable => {}
            (Some(Value::Null), _) => return fail(if field.required { Reason::MissingField } else { Reason::WrongType }),
            (Some(Value::String(text)), FieldKind::String) => {
                if !field.checks.text_ok(&text) {
                    return fail(if field.name == "type" { Reason::UnknownType } else { Reason::InvalidValue });
                }
            }
            (Some(Value::String(text)), FieldKind::Timestamp) => {
                if !text.parse::<Timestamp>().is_ok_and(|time| time.micros() >= 0) {
                    return fail(Reason::InvalidValue);
                }
            }
            (Some(Value::Number(number)), FieldKind::Integer) => {
                let value = number.as_f64().unwrap();
                if value.fract() != 0.0 {
                    return fail(Reason::WrongType);
                }
                if !field.checks.number_ok(value) || (number.as_i64().is_none() && value.abs() >= 9_007_199_254_740_992.0) {
                    return fail(Reason::InvalidValue);
                }
            }
            (Some(Value::Object(_)), FieldKind::Object) => {}
            (Some(Value::Array(items)), FieldKind::Array) => {
                if !items.iter().all(Value::is_string) {
                    return fail(Reason::WrongType);
                }
                let item_ok = |item: &Value| field.checks.items.as_ref().is_none_or(|checks| checks.text_ok(item.as_str().unwrap()));
                if !field.checks.items_ok(items.len()) || !items.iter().all(item_ok) {
                    return fail(Reason::InvalidValue);
                }
            }
            _ => return fail(Reason::WrongType),
        }
    }
    Ok(object)
}

/// All that can be asked of a decoded line.
fn told(decoder: &Decoder, scratch: &mut Scratch, line: &[u8]) -> Result<String, Rejection> {
    let event = decoder.decode(scratch, line)?;
    told_of(decoder, &event)
}

/// The same of a line with others behind it.
fn told_ahead(decoder: &Decoder, scratch: &mut Scratch, line: &str, behind: &str) -> Result<String, Rejection> {
    let ahead = format!("{line}\n{behind}");
    let event = decoder.decode_text(scratch, line, &ahead)?;
    told_of(decoder, &event)
}

fn told_of(decoder: &Decoder, event: &Decoded<'_>) -> Result<String, Rejection> {
    let field = |at| {
        let list: Vec<&str> = event.list(at).collect();
        let (number, identifier) = (event.number(at).map(f64::to_bits), event.identifier(at));
        (event.text(at), event.integer(at), number, event.boolean(at), event.time(at), event.is_object(at), list, identifier)
    };
    for at in 0..decoder.contract().fields().len() {
        if let Some(id) = event.memo_id(at) {
            assert_eq!(scratch_text(event, at, id), event.text(at));
        }
    }
    let fields: Vec<String> = (0..decoder.contract().fields().len()).map(|at| format!("{:?}", field(at))).collect();
    Ok(format!("{fields:?} {} {:?}", event.undeclared_count(), event.undeclared().collect::<Vec<_>>()))
}

fn scratch_text<'a>(event: &Decoded<'a>, field: usize, id: u32) -> Option<&'a str> {
    event.scratch.memo_text(field, id)
}

/// Lines of other shapes, after which an ordinary one is read with wrong expectations.
fn shapes() -> Vec<String> {
    let one = event();
    let mut reversed: Vec<(String, Value)> = one.as_object().unwrap().clone().into_iter().collect();
    reversed.reverse();
    vec![
        one.to_string(),
        Value::Object(reversed.into_iter().collect()).to_string(),
        with(&["user_id"], None),
        with(&["consent"], Some(Value::Null)),
        with(&["undeclared"], Some(json!({"a": [1, "x"]}))),
        with(&["model"], Some(json!("a model with a name longer than sixteen bytes"))),
        one.to_string().replace(':', " : ").replace(',', " ,\t"),
        one.to_string().replace("kitchen", "k\\u0069tchen"),
        one.to_string().replace("\"wake\"", "\"activate\""),
        "{}".to_owned(),
    ]
}

/// A reader that has met other lines finds the same as one that expects nothing.
fn same_as_general(lines: &[Vec<u8>]) -> Result<(), TestCaseError> {
    let decoder = decoder();
    let mut practised = Scratch::default();
    let mut general = Scratch::default();
    general.general = true;
    for line in lines {
        // Twice: what was learnt from the line itself may not change what is told of it.
        for _ in 0..2 {
            prop_assert_eq!(told(&decoder, &mut practised, line), told(&decoder, &mut general, line), "{}", String::from_utf8_lossy(line));
        }
        for at in 0..decoder.contract().fields().len() {
            prop_assert_eq!(decoder.field_ok(&mut practised, line, at), decoder.field_ok(&mut general, line, at));
        }
        // What comes behind a line is not part of it, though it may be looked at.
        for behind in ["", "\"}}\n", &shapes()[0], "kitchen\"}}"] {
            if let Ok(line) = std::str::from_utf8(line).as_ref() {
                prop_assert_eq!(
                    told_ahead(&decoder, &mut practised, line, behind),
                    told(&decoder, &mut general, line.as_bytes()),
                    "{}",
                    line
                );
            }
        }
    }
    Ok(())
}

fn agree(line: &str) -> Result<(), TestCaseError> {
    let decoder = decoder();
    let mut scratch = Scratch::default();
    let expected = reference(decoder.contract(), line);
    match (decoder.decode(&mut scratch, line.as_bytes()), expected) {
        (Ok(event), Ok(object)) => {
            for (at, field) in decoder.contract().fields().iter().enumerate() {
                let value = field.path.iter().skip(1).fold(object.get(&field.path[0]), |value, key| value.and_then(|value| value.get(key)));
                match field.kind {
                    FieldKind::String => prop_assert_eq!(event.text(at), value.and_then(Value::as_str)),
                    FieldKind::Timestamp => {
                        prop_assert_eq!(event.time(at), value.and_then(Value::as_str).and_then(|text| text.parse().ok()))
                    }
                    FieldKind::Integer => prop_assert_eq!(event.number(at), value.and_then(Value::as_f64)),
                    FieldKind::Array => {
                        let items: Vec<&str> = value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
                        prop_assert_eq!(event.list(at).collect::<Vec<_>>(), items);
                    }
                    _ => {}
                }
            }
        }
        (Err(rejection), Err(expected)) => prop_assert_eq!((rejection.reason, rejection.field), expected),
        (Ok(_), Err(expected)) => return Err(TestCaseError::fail(format!("accepted, reference: {expected:?}"))),
        (Err(rejection), Ok(_)) => return Err(TestCaseError::fail(format!("{rejection:?}, reference accepts"))),
    }
    Ok(())
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-1000_i64..2000).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1000.0_f64..1000.0).prop_map(Value::from),
        "[A-Z]{2}|wake|activate|analytics|2018-0[1-9]-0[1-9]T0[0-9]:00:00(\\.[0-9]{1,9})?(Z|\\+02:00)|\\PC{0,70}|[\\x00-\\x7f]{0,20}"
            .prop_map(Value::from),
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..4).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "event_id", "device_id", "user_id", "type", "ts", "product", "country", "consent", "policy", "purposes", "props", "latency_ms",
            "room", "ip", "firmware",
        ])
        .prop_map(str::to_owned),
        1 => "\\PC{0,8}",
    ]
}

/// A change at a byte: delete, insert, replace.
fn mutation() -> impl Strategy<Value = (usize, u8, char)> {
    (any::<usize>(), 0_u8..3, prop::sample::select("\"\\{}[]:,01-+.eE tfnu\u{7f}é\u{0}/".chars().collect::<Vec<_>>()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn agrees_with_serde_json_on_any_object(pairs in prop::collection::vec((key(), any_value()), 0..12)) {
        let mut object = event().as_object().unwrap().clone();
        object.extend(pairs.clone());
        agree(&Value::Object(object).to_string())?;
        // And with keys that come twice.
        let text: Vec<String> = pairs.iter().map(|(key, value)| format!("{}:{value}", Value::from(key.as_str()))).collect();
        let line = event().to_string();
        agree(&format!("{},{}}}", &line[..line.len() - 1], if text.is_empty() { "\"x\":1".to_owned() } else { text.join(",") }))?;
    }

    #[test]
    fn agrees_with_serde_json_on_damaged_lines(changes in prop::collection::vec(mutation(), 1..4)) {
        let mut characters: Vec<char> = event().to_string().chars().collect();
        for (at, kind, character) in changes {
            let at = at % characters.len().max(1);
            match kind {
                0 => { characters.remove(at); }
                1 => characters.insert(at, character),
                _ => characters[at] = character,
            }
        }
        agree(&characters.into_iter().collect::<String>())?;
    }

    #[test]
    fn what_was_read_before_changes_nothing(
        order in prop::collection::vec(0..shapes().len(), 1..4),
        changes in prop::collection::vec((any::<usize>(), 0_u8..6, any::<u8>(), any::<usize>()), 0..4),
        pairs in prop::collection::vec((key(), any_value()), 0..4),
    ) {
        let shapes = shapes();
        let mut lines: Vec<Vec<u8>> = order.into_iter().map(|shape| shapes[shape].clone().into_bytes()).collect();
        // The last one damaged: bytes flipped, taken, doubled, moved; parts repeated; keys that come twice.
        let mut last = lines.last().cloned().unwrap();
        for (key, value) in pairs {
            last.truncate(last.len().saturating_sub(1));
            last.extend_from_slice(format!(",{}:{value}}}", Value::from(key)).as_bytes());
        }
        for (at, kind, byte, other) in changes {
            let len = last.len().max(1);
            let (at, other) = (at % len, other % len);
            match kind {
                0 if at < last.len() => last[at] = byte & 0x7f,
                1 if at < last.len() => last[at] = byte,
                2 => last.insert(at.min(last.len()), b"\"\\{}[],: \t0-.eEntf\xc3"[usize::from(byte) % 19]),
                3 if at < last.len() => { last.remove(at); }
                4 => last.truncate(at),
                _ => {
                    let part = last[at.min(other)..at.max(other)].to_vec();
                    last.splice(at..at, part);
                }
            }
        }
        lines.push(last);
        lines.push(shapes[0].clone().into_bytes());
        same_as_general(&lines)?;
    }

    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = rejected(&decoder(), &bytes);
        let _ = Elements::new(&bytes).count();
    }
}
