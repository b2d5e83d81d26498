//! OpenDSR's messages, and that no identifier comes back out of them.

use ameles_schemas::Contract;

use crate::opendsr::*;

fn body(identity: &str) -> String {
    format!(
        r#"{{"regulation":"gdpr","subject_request_id":"a7551968-d5d6-44b2-9831-815ac9017798","subject_request_type":"erasure",
            "submitted_time":"2026-10-02T15:00:00Z","subject_identities":[{identity}],"api_version":"2.0","status_callback_urls":["https://x.example"]}}"#
    )
}

#[test]
fn a_request_is_read_and_its_echo_is_blank() {
    let contract = Contract::default_contract();
    let body = body(
        r#"{"identity_type":"device_id","identity_value":"800000002492","identity_format":"raw"},{"identity_type":"controller_customer_id","identity_value":"u0900399398","identity_format":"raw"}"#,
    );
    let request = parse_request(body.as_bytes(), &contract).unwrap();
    assert_eq!(request.subject_identities.len(), 2);
    assert_eq!(request.subject_identities[0].identity_value.expose(), "800000002492");
    assert!(!format!("{request:?}").contains("800000002492"));
    let echo = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encode_blanked(&request)).unwrap();
    let echo = String::from_utf8(echo).unwrap();
    assert!(echo.contains("a7551968") && !echo.contains("800000002492") && !echo.contains("u0900399398"), "{echo}");
}

#[test]
fn refusals_name_the_rule_and_never_the_value() {
    let contract = Contract::default_contract();
    let secret = "jane.doe@example.com";
    for (identity, field) in [
        (r#"{"identity_type":"email","identity_value":"jane.doe@example.com","identity_format":"raw"}"#, "identity_type"),
        (r#"{"identity_type":"jane.doe@example.com","identity_value":"x","identity_format":"raw"}"#, "identity_type"),
        (r#"{"identity_type":"user_id","identity_value":"jane.doe@example.com","identity_format":"sha256"}"#, "identity_format"),
        ("", "subject_identities"),
        (r#"{"identity_type":"user_id","identity_value":["jane.doe@example.com"],"identity_format":"raw"}"#, "line"),
        (r#"{"identity_type":"user_id","identity_value":"jane.doe@example.com""#, "line"),
    ] {
        let error = parse_request(body(identity).as_bytes(), &contract).unwrap_err();
        let shown = format!("{error} {error:?} {:?}", error.body());
        assert!(shown.contains(field), "{shown}");
        assert!(!shown.contains(secret), "{shown}");
    }
    let access = body(r#"{"identity_type":"user_id","identity_value":"x","identity_format":"raw"}"#).replace("\"erasure\"", "\"access\"");
    assert!(parse_request(access.as_bytes(), &contract).unwrap_err().to_string().contains("subject_request_type"));
}

#[test]
fn discovery_lists_what_the_contract_has() {
    let discovery = Discovery::new(&Contract::default_contract(), &[7; 32]);
    let types: Vec<_> = discovery.supported_identities.iter().map(|identity| identity.identity_type.as_str()).collect();
    assert_eq!(types, ["device_id", "user_id", "controller_customer_id"]);
    assert_eq!(discovery.supported_subject_request_types, ["erasure"]);
}
