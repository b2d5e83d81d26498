//! A certificate is detected when anything in it was changed, stays readable, and
//! keeps to its published schema.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::Value;

use crate::certificate::*;
use crate::{check_certificate, parse_public_key, sign_certificate};

const SCHEMA: &str = include_str!("../../../../schemas/certificate/v1.json");
const FROZEN: &str = include_str!("../../../../schemas/certificate/fixtures/v1.json");
const FROZEN_KEY: &str = include_str!("../../../../schemas/certificate/fixtures/v1.public-key");

pub(crate) fn sample() -> Certificate {
    let at = |text: &str| text.parse::<ameles_core::Timestamp>().unwrap();
    let file = |path: &str, sha256: Option<&str>| FileEvidence {
        path: path.to_owned(),
        sha256: sha256.map(str::to_owned),
        rows: 41_250,
        bytes: 1_204_331,
    };
    Certificate {
        format_version: FORMAT_VERSION,
        issued_by: "ameles 0.1.0".to_owned(),
        request: CertifiedRequest {
            id: "0b9a3f4e-6c4d-4f0e-9a57-2f6f1f0c9d11".to_owned(),
            subject_kind: ameles_core::SubjectKind::User,
            regulation: "gdpr".to_owned(),
            reference: Some("DSR-2026-00017".to_owned()),
        },
        clock: CertifiedClock {
            received: at("2026-01-31T10:00:00Z"),
            suppressed: at("2026-01-31T10:02:11.000125Z"),
            erased: at("2026-02-01T03:00:07Z"),
            purged: at("2026-02-01T03:01:08Z"),
            certified: at("2026-02-01T03:01:12Z"),
            due: at("2026-02-28T10:00:00Z"),
            in_time: true,
        },
        found: Found {
            event_rows: 812,
            quarantine_rows: 2,
            months: vec!["2025-12".parse().unwrap(), "2026-01".parse().unwrap()],
            key_epochs: 2,
        },
        tables: vec![TableEvidence {
            table: "events".to_owned(),
            version_before: 117,
            version_after: 119,
            rows_before: 42_062,
            rows_after: 41_250,
            rows_deleted: Some(812),
            files_removed: vec![file("month=2025-12-01/e-1.parquet", None)],
            files_written: vec![file("month=2025-12-01/e-2.parquet", Some(&"5d".repeat(32)))],
        }],
        verification: Verification {
            at: at("2026-02-01T03:01:11Z"),
            searched: vec!["every Parquet file".to_owned()],
            files_decoded: 77,
            rows_decoded: 1_234_567,
            bytes_read: 98_765_432,
            files_excluded_by_index: 0,
            residues: Vec::new(),
        },
        remains_elsewhere: vec![RemainsElsewhere {
            place: "backups".to_owned(),
            until: Some(at("2026-05-01T00:00:00Z")),
            note: "rotated".to_owned(),
        }],
        suppression: SuppressionHorizon { at_least_until: at("2029-02-01T00:00:00Z"), note: "encrypted".to_owned() },
        warnings: vec!["resumed \"twice\" – ok".to_owned()],
    }
}

fn key() -> (Vec<u8>, Vec<u8>) {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let public = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap().public_key().as_ref().to_vec();
    (pkcs8.as_ref().to_vec(), public)
}

pub(crate) fn assert_keeps_to_schema(json: &str) {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let document: Value = serde_json::from_str(json).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let faults: Vec<String> = validator.iter_errors(&document).map(|fault| format!("{} at {}", fault, fault.instance_path())).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_signed_certificate_is_genuine_and_keeps_to_its_schema() {
    let (pkcs8, public) = key();
    let json = sign_certificate(&sample(), &pkcs8).unwrap();
    assert_keeps_to_schema(&json);
    let verdict = check_certificate(&json, &public).unwrap();
    assert!(verdict.genuine, "{:?}", verdict.problems);
    assert_eq!(verdict.certificate, Some(sample()));
    // White space and the order of keys are not content.
    let pretty = serde_json::to_string_pretty(&serde_json::from_str::<Value>(&json).unwrap()).unwrap();
    assert!(check_certificate(&pretty, &public).unwrap().genuine);
}

#[test]
fn the_key_is_read_in_every_form_it_is_handed_around_in() {
    let (_, public) = key();
    let mut der = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    der.extend_from_slice(&public);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&der));
    for form in
        [public.clone(), der, pem.into_bytes(), format!("{}\n", STANDARD.encode(&public)).into_bytes(), hex::encode(&public).into_bytes()]
    {
        assert_eq!(parse_public_key(&form).unwrap().to_vec(), public);
    }
    for bad in ["", "abc", "ssh-ed25519 AAAA"] {
        assert!(parse_public_key(bad.as_bytes()).is_err(), "{bad}");
    }
}

/// Every way to change one value, remove one field or add one, anywhere in `value`.
fn changes(value: &Value) -> Vec<Value> {
    let mut out = match value {
        Value::Null => vec![Value::from(1)],
        Value::Bool(flag) => vec![Value::from(!flag)],
        Value::Number(number) => vec![Value::from(number.as_i64().unwrap() + 1), Value::from(number.to_string())],
        Value::String(text) => vec![Value::from(format!("{text} ")), Value::Null],
        Value::Array(items) => {
            let mut out = vec![Value::Array([items.clone(), vec![Value::Null]].concat())];
            for (at, item) in items.iter().enumerate() {
                let with = |new: Option<Value>| {
                    Value::Array(items.iter().take(at).cloned().chain(new).chain(items.iter().skip(at + 1).cloned()).collect())
                };
                out.push(with(None));
                out.extend(changes(item).into_iter().map(|new| with(Some(new))));
            }
            out
        }
        Value::Object(_) => Vec::new(),
    };
    if let Value::Object(map) = value {
        let mut more = map.clone();
        more.insert("extra".to_owned(), Value::Null);
        out.push(Value::Object(more));
        for (key, inner) in map {
            let mut less = map.clone();
            less.remove(key);
            out.push(Value::Object(less));
            for new in changes(inner) {
                let mut other = map.clone();
                other.insert(key.clone(), new);
                out.push(Value::Object(other));
            }
        }
    }
    out
}

#[test]
fn any_change_is_detected() {
    let (pkcs8, public) = key();
    let document: Value = serde_json::from_str(&sign_certificate(&sample(), &pkcs8).unwrap()).unwrap();
    let all = changes(&document);
    assert!(all.len() > 150);
    for changed in all {
        let text = changed.to_string();
        let genuine = check_certificate(&text, &public).is_ok_and(|verdict| verdict.genuine);
        assert!(!genuine, "accepted: {text}");
    }
}

#[test]
fn a_repeated_key_and_another_signer_are_detected() {
    let (pkcs8, public) = key();
    let json = sign_certificate(&sample(), &pkcs8).unwrap();
    let doubled = json.replacen("\"event_rows\":812", "\"event_rows\":0,\"event_rows\":812", 1);
    assert_ne!(doubled, json);
    assert!(check_certificate(&doubled, &public).is_err());
    let (other_pkcs8, other_public) = key();
    assert!(!check_certificate(&json, &other_public).unwrap().genuine);
    // Signed anew by a stranger whose key the document names: the given key decides.
    let forged = sign_certificate(&sample(), &other_pkcs8).unwrap();
    let verdict = check_certificate(&forged, &public).unwrap();
    assert!(!verdict.genuine && verdict.certificate.is_none());
}

#[test]
fn what_is_no_certificate_is_an_error_that_says_so() {
    let (_, public) = key();
    for text in [
        "",
        "{}",
        "[]",
        "{\"certificate\":{},\"signature\":{}}",
        "{\"certificate\":{\"a\":1.5},\"signature\":{\"algorithm\":\"Ed25519\",\"public_key\":\"\",\"value\":\"\"}}",
    ] {
        assert!(check_certificate(text, &public).is_err(), "{text}");
    }
}

#[test]
fn the_frozen_certificate_of_version_1_stays_readable() {
    assert_keeps_to_schema(FROZEN);
    let verdict = check_certificate(FROZEN, FROZEN_KEY.as_bytes()).unwrap();
    assert!(verdict.genuine, "{:?}", verdict.problems);
    assert_eq!(verdict.certificate, Some(sample()));
}

/// Writes the frozen files; run once for each format version, by hand.
#[test]
#[ignore = "writes the fixture of a new format version"]
fn freeze() {
    let (pkcs8, public) = key();
    let document: Value = serde_json::from_str(&sign_certificate(&sample(), &pkcs8).unwrap()).unwrap();
    let folder = std::path::PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../schemas/certificate/fixtures");
    std::fs::write(folder.join("v1.json"), serde_json::to_string_pretty(&document).unwrap() + "\n").unwrap();
    std::fs::write(folder.join("v1.public-key"), STANDARD.encode(public) + "\n").unwrap();
}
