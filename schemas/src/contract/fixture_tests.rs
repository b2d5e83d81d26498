//! Contracts that exist: the default one, every past version, other shapes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arrow::datatypes::{DataType, Schema, TimeUnit};

use super::*;
use crate::Table;

const DEVICE_EVENT_V1: &str = include_str!("../../fixtures/contracts/device_event.v1.json");
const CLICKSTREAM_V1: &str = include_str!("../../fixtures/contracts/clickstream.v1.json");

fn names(schema: &Schema) -> Vec<&str> {
    schema.fields().iter().map(|field| field.name().as_str()).collect()
}

fn required_names(schema: &Schema) -> Vec<&str> {
    schema.fields().iter().filter(|field| !field.is_nullable()).map(|field| field.name().as_str()).collect()
}

#[test]
fn the_default_contract_describes_the_events_of_the_product_page() {
    let contract = Contract::default_contract();
    assert_eq!((contract.name(), contract.version()), ("device_event", 1));
    assert_eq!(contract.legal_basis(), None);
    let roles = contract.roles();
    let name = |at: usize| contract.fields()[at].name.as_str();
    assert_eq!([name(roles.device), name(roles.time), name(roles.event_type)], ["device_id", "ts", "type"]);
    assert_eq!(roles.user.map(name), Some("user_id"));
    assert_eq!(roles.event_id.map(name), Some("event_id"));
    assert_eq!(roles.country.map(name), Some("country"));
    assert_eq!(roles.consent.map(name), Some("consent"));
    assert_eq!(roles.consent_policy.map(name), Some("consent.policy"));
    assert_eq!(roles.consent_purposes.map(name), Some("consent.purposes"));
    assert_eq!(roles.partner.map(name), Some("partner"));
    let dimensions: Vec<&str> = roles.dimensions.iter().map(|at| name(*at)).collect();
    assert_eq!(dimensions, ["product", "model", "partner", "country", "firmware"]);
    assert_eq!(roles.measures, [("wakes".to_owned(), "wake".to_owned())]);
    assert_eq!(roles.activation_type.as_deref(), Some("activate"));
    assert_eq!(contract.event_types().unwrap(), ["activate", "wake", "heartbeat", "control", "consent_granted", "consent_withdrawn"]);
    assert_eq!(contract.domains(), ["event", "device", "user"]);
    let required: Vec<&str> = contract.fields().iter().filter(|field| field.required).map(|field| field.name.as_str()).collect();
    assert_eq!(required, ["event_id", "device_id", "type", "ts"]);
    for dropped in ["ip", "mac", "consent.purposes"] {
        let field = contract.field(dropped).unwrap();
        assert_eq!((&field.transform, &field.column), (&Transform::Drop, &None), "{dropped}");
    }
    assert_eq!(contract.json(), include_str!("../../contracts/device_event.v1.json"));
}

/// `Contract::parse` does not ask the meta-schema about this one.
#[test]
fn the_default_contract_is_json_schema() {
    let document: serde_json::Value = serde_json::from_str(Contract::DEVICE_EVENT_V1).unwrap();
    jsonschema::draft202012::meta::validate(&document).unwrap();
    // Another text is asked about, however little it differs.
    let broken = Contract::DEVICE_EVENT_V1.replacen("\"maxLength\": ", "\"maxLength\": -", 1);
    assert_ne!(broken, Contract::DEVICE_EVENT_V1);
    assert!(Contract::parse(&broken).unwrap_err().faults.iter().any(|fault| fault.rule == Rule::JsonSchema));
}

#[test]
fn the_default_contracts_tables() {
    let tables = Contract::default_contract().tables();
    assert_eq!(tables.tables(), Table::ALL);
    assert_eq!(
        names(&tables.schema(Table::Events)),
        [
            "device",
            "ts",
            "user",
            "type",
            "event_key",
            "product",
            "model",
            "partner",
            "country",
            "firmware",
            "consent_policy",
            "props_latency_ms",
            "props_room",
            "month"
        ]
    );
    assert_eq!(required_names(&tables.schema(Table::Events)), ["device", "ts", "type", "month"]);
    assert_eq!(
        names(&tables.schema(Table::Activity)),
        ["device", "days", "first_ts", "last_ts", "last_key", "product", "model", "partner", "country", "firmware", "wakes", "month"]
    );
    assert_eq!(required_names(&tables.schema(Table::Activity)), ["device", "days", "first_ts", "last_ts", "wakes", "month"]);
    assert_eq!(names(&tables.schema(Table::Links)), ["user", "device", "days", "month"]);
    assert_eq!(
        names(&tables.schema(Table::Devices)),
        ["device", "activated_ts", "activated_key", "product", "model", "partner", "country", "firmware", "month"]
    );
    assert_eq!(
        names(&tables.schema(Table::Quarantine)),
        ["at", "source", "line", "partition", "offset", "reason", "field", "contract_version", "partner", "device", "count", "month"]
    );
    for table in Table::ALL {
        let (whole, file) = (tables.schema(table), tables.file_schema(table));
        assert_eq!(names(&whole)[..file.fields().len()], names(&file)[..]);
        assert_eq!(whole.field(file.fields().len()).data_type(), &DataType::Date32, "{table}");
        for column in table.sort_columns().iter().chain(table.key_columns()) {
            assert!(file.column_with_name(column).is_some(), "{table} has no {column}");
        }
        assert_eq!(Table::parse(table.as_str()), Some(table));
    }
    assert!(tables.activates("activate") && !tables.activates("wake"));
    assert_eq!(tables.measures_of("wake").collect::<Vec<_>>(), [0]);
    assert_eq!((tables.dimension_index("country"), tables.measure_index("wakes")), (Some(3), Some(0)));
}

#[test]
fn columns_have_the_types_that_delta_kernel_maps_to() {
    let tables = Contract::default_contract().tables();
    let events = tables.schema(Table::Events);
    let data_type = |name: &str| events.field_with_name(name).unwrap().data_type().clone();
    assert_eq!(data_type("device"), DataType::Binary);
    assert_eq!(data_type("ts"), DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    assert_eq!(data_type("props_latency_ms"), DataType::Int64);
    assert_eq!(data_type("country"), DataType::Utf8);
    let activity = tables.schema(Table::Activity);
    let DataType::List(element) = activity.field_with_name("wakes").unwrap().data_type().clone() else { panic!("a measure is a list") };
    assert_eq!((element.name().as_str(), element.data_type(), element.is_nullable()), ("element", &DataType::Int32, false));
}

#[test]
fn every_past_version_stays_readable() {
    let frozen = Contract::parse(DEVICE_EVENT_V1).expect("the frozen first version");
    let current = Contract::default_contract();
    // The second version, when it comes, must be a successor of this one.
    assert_eq!(frozen.version(), current.version());
    assert_eq!(frozen.tables(), current.tables());
}

#[test]
fn a_clickstream_comes_in_with_a_contract_of_its_own() {
    let contract = Contract::parse(CLICKSTREAM_V1).expect("the clickstream contract");
    let roles = contract.roles();
    assert_eq!((roles.user, roles.event_id, roles.country, roles.consent), (None, None, None, None));
    assert!(contract.legal_basis().unwrap().starts_with("legitimate interest"));
    let device = &contract.fields()[roles.device];
    assert_eq!((device.name.as_str(), device.column.as_deref(), device.fold_case), ("user", Some("device"), true));
    assert_eq!(device.class, PrivacyClass::Personal, "the role protects it, whatever the class");
    let platform = contract.field("platform").unwrap();
    assert_eq!((platform.kind, platform.nullable), (FieldKind::String, true), "inferred from the enum");
    let tables = contract.tables();
    assert_eq!(tables.tables(), [Table::Events, Table::Activity, Table::Devices, Table::Quarantine]);
    assert_eq!(names(&tables.schema(Table::Events)), ["device", "ts", "type", "platform", "session", "month"]);
    assert_eq!(tables.schema(Table::Events).field(4).data_type(), &DataType::Binary);
    assert!(tables.activates("view"), "without activation_type every event activates");
    assert_eq!(contract.domains(), ["device", "session"]);
}
