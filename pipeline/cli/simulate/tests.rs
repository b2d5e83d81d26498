#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Read;

use ameles_core::Timestamp;
use clap::Parser;
use serde_json::Value;

use super::*;

fn small() -> FleetSpec {
    FleetSpec { seed: 42, ..FleetSpec::of(1_500) }
}

fn lines_of(spec: &FleetSpec) -> (Summary, Vec<Vec<u8>>) {
    let mut bytes = Vec::new();
    let summary = write(spec, &mut bytes).unwrap();
    assert_eq!(summary.bytes, bytes.len() as u64);
    assert!(bytes.is_empty() || bytes.ends_with(b"\n"));
    let mut lines: Vec<_> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    lines.pop();
    assert_eq!(summary.lines, lines.len() as u64);
    (summary, lines)
}

fn events_of(spec: &FleetSpec) -> (Summary, Vec<Value>) {
    let (summary, lines) = lines_of(spec);
    let events = lines.iter().map(|line| serde_json::from_slice(line).unwrap()).collect();
    (summary, events)
}

fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap()
}

fn at(event: &Value) -> Timestamp {
    text(event, "ts").parse().unwrap()
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_others() {
    let spec = FleetSpec { bad_line_rate: 0.01, ..small() };
    assert_eq!(lines_of(&spec), lines_of(&spec));
    assert_ne!(lines_of(&spec).1, lines_of(&FleetSpec { seed: 43, ..spec }).1);
}

#[test]
fn each_good_line_has_the_form_of_the_contract() {
    let (summary, events) = events_of(&small());
    assert!(summary.bad.is_empty());
    let types = ["activate", "wake", "heartbeat", "control", "consent_granted", "consent_withdrawn"];
    for event in &events {
        assert_eq!(text(event, "event_id").len(), 36);
        assert!(text(event, "device_id").len() == 12 && text(event, "device_id").bytes().all(|byte| byte.is_ascii_digit()));
        if let Some(user) = event.get("user_id").filter(|user| !user.is_null()) {
            let digits = user.as_str().unwrap().strip_prefix('u').unwrap();
            assert!(digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit()));
        }
        assert!(types.contains(&text(event, "type")));
        assert!(text(event, "ts").len() == 24 && at(event).to_string().ends_with('Z'));
        assert_eq!(text(event, "mac").split(':').count(), 6);
        assert!(text(event, "ip").parse::<std::net::Ipv4Addr>().is_ok());
        let country = event.get("country").map_or("DE", |country| country.as_str().unwrap());
        assert!(country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_uppercase()));
    }
    let seen: BTreeSet<_> = events.iter().map(|event| text(event, "type")).collect();
    assert_eq!(seen.len(), types.len(), "{seen:?}");
    let bytes = summary.bytes / summary.lines;
    assert!((340..420).contains(&bytes), "{bytes} bytes an event");
}

#[test]
fn an_event_id_comes_again_only_with_the_same_bytes() {
    let (summary, lines) = lines_of(&FleetSpec { duplicate_rate: 0.02, ..small() });
    let mut by_id: HashMap<String, &Vec<u8>> = HashMap::new();
    let mut repeats = 0;
    for line in &lines {
        let event: Value = serde_json::from_slice(line).unwrap();
        if let Some(first) = by_id.insert(text(&event, "event_id").to_owned(), line) {
            assert_eq!(first, line);
            repeats += 1;
        }
    }
    assert!(repeats > 0);
    assert_eq!(summary.duplicates, repeats);
    assert_eq!(summary.events, by_id.len() as u64);
}

#[test]
fn lines_come_in_order_of_arrival() {
    let punctual = FleetSpec { duplicate_rate: 0.0, late_rate: 0.0, ..small() };
    let (_, events) = events_of(&punctual);
    let mut latest = Timestamp::MIN;
    for event in &events {
        // Arrival is at most 1.55 s after the event.
        assert!(at(event).micros() + 1_550_000 >= latest.micros());
        latest = latest.max(at(event));
    }
    let neighbours = events.windows(2).filter(|pair| pair[0]["device_id"] == pair[1]["device_id"]).count();
    assert!(neighbours * 10 < events.len(), "devices are not interleaved");
    let (summary, events) = events_of(&small());
    let mut late = 0;
    latest = Timestamp::MIN;
    for event in &events {
        assert!(at(event).plus_days(4) > latest);
        late += u64::from(at(event).plus_secs(3_590) < latest);
        latest = latest.max(at(event));
    }
    assert!(late > 0 && late <= summary.late, "{late} of {}", summary.late);
}

#[test]
fn events_lie_within_the_fleets_days() {
    let spec = small();
    let (_, events) = events_of(&spec);
    let days: BTreeSet<_> = events.iter().map(|event| at(event).day()).collect();
    assert_eq!(days.first(), Some(&spec.from));
    assert_eq!(days.last(), Some(&spec.from.plus(spec.days as i32 - 1)));
    assert_eq!(days.len() as u32, spec.days);
}

#[test]
fn a_device_starts_with_its_activation_and_some_give_up() {
    let (_, events) = events_of(&small());
    let mut by_device: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for event in &events {
        by_device.entry(text(event, "device_id")).or_default().push(event);
    }
    let (mut unactivated, mut again, mut gone) = (0, 0, 0);
    for of_device in by_device.values_mut() {
        of_device.sort_by_key(|event| at(event));
        let ids: HashSet<_> = of_device.iter().filter(|event| event["type"] == "activate").map(|event| text(event, "event_id")).collect();
        match ids.len() {
            0 => unactivated += 1,
            1 => {}
            _ => again += 1,
        }
        if !ids.is_empty() && !["activate", "consent_granted"].contains(&text(of_device[0], "type")) {
            // Only a second activation can stand alone, where the first was lost.
            unactivated += 1;
        }
        gone += usize::from(at(of_device[of_device.len() - 1]).day() < Day::from_ymd(2018, 9, 1).unwrap());
    }
    let devices = by_device.len();
    assert!(devices > 1_450 && unactivated > 0 && unactivated < devices / 20, "{unactivated} of {devices}");
    assert!(again > 0 && again < devices / 20, "{again}");
    assert!(gone > devices / 20 && gone < devices / 2, "{gone} of {devices}");
}

#[test]
fn some_devices_move_are_shared_have_no_user_or_no_valid_consent() {
    let (_, events) = events_of(&small());
    let (mut countries, mut users) = (HashMap::<_, BTreeSet<_>>::new(), HashMap::<_, BTreeSet<_>>::new());
    let (mut devices_of, mut without_consent, mut undeclared) = (HashMap::<_, BTreeSet<_>>::new(), 0, 0);
    for event in &events {
        let device = text(event, "device_id");
        if let Some(country) = event.get("country") {
            countries.entry((device, &text(event, "ts")[..7])).or_default().insert(country.as_str().unwrap());
        }
        let of_device = users.entry(device).or_default();
        if let Some(user) = event.get("user_id").and_then(Value::as_str) {
            of_device.insert(user);
            devices_of.entry(user).or_default().insert(device);
        }
        without_consent += usize::from(event["consent"]["policy"].as_str().unwrap_or_default() < "2018-05-25");
        undeclared += usize::from(event.get("battery").is_some());
    }
    assert!(countries.values().any(|of| of.len() == 2));
    assert!(users.values().any(|of| of.len() > 2));
    assert!(users.values().any(BTreeSet::is_empty));
    assert!(devices_of.values().any(|of| of.len() > 1));
    assert!(undeclared > 0);
    assert!(without_consent * 100 > events.len() && without_consent * 10 < events.len(), "{without_consent}");
}

#[test]
fn few_events_follow_a_withdrawal_until_a_grant() {
    let (_, events) = events_of(&FleetSpec { late_rate: 0.0, duplicate_rate: 0.0, ..FleetSpec::of(8_000) });
    let mut withdrawn = HashMap::new();
    let (mut after, mut granted) = (0, 0);
    for event in &events {
        let device = text(event, "device_id");
        match text(event, "type") {
            "consent_withdrawn" => {
                withdrawn.insert(device, at(event));
            }
            "consent_granted" => {
                granted += usize::from(withdrawn.remove(device).is_some());
            }
            _ => {
                if let Some(since) = withdrawn.get(device) {
                    after += 1;
                    assert!(at(event).day() <= since.day().plus(1) || at(event) < since.plus_secs(2));
                }
            }
        }
    }
    assert!(withdrawn.len() > 10 && granted > 2 && after > 10, "{} {granted} {after}", withdrawn.len());
}

#[test]
fn every_kind_of_bad_line_comes_on_request() {
    let spec = FleetSpec { bad_line_rate: 0.05, huge_line: true, events_limit: Some(20_000), ..small() };
    let (summary, lines) = lines_of(&spec);
    assert_eq!(lines.len(), 20_000);
    assert_eq!(summary.bad.keys().copied().collect::<Vec<_>>(), BadLine::ALL);
    assert_eq!(summary.bad[&BadLine::Huge], 1);
    assert_eq!(summary.events + summary.duplicates + summary.bad.values().sum::<u64>(), summary.lines);
    let of = |kind: BadLine| summary.bad[&kind];
    let unparsable = lines.iter().filter(|line| serde_json::from_slice::<Value>(line).is_err()).count() as u64;
    let expected = [BadLine::Truncated, BadLine::InvalidUtf8, BadLine::Trailing, BadLine::Empty].map(of).iter().sum::<u64>();
    assert_eq!(unparsable, expected);
    assert_eq!(lines.iter().filter(|line| line.is_empty()).count() as u64, of(BadLine::Empty));
    assert_eq!(lines.iter().filter(|line| line.len() > 10 << 20).count(), 1);
    let objects: Vec<Value> = lines.iter().filter_map(|line| serde_json::from_slice(line).ok()).filter(Value::is_object).collect();
    let count = |holds: fn(&Value) -> bool| objects.iter().filter(|event| holds(event)).count() as u64;
    assert_eq!(count(|event| event["device_id"].is_number()), of(BadLine::WrongType));
    assert_eq!(count(|event| event["type"] == "reboot"), of(BadLine::UnknownType));
    assert_eq!(count(|event| event.get("ts").is_none()), of(BadLine::MissingTime));
    assert_eq!(count(|event| event.get("device_id").is_none()), of(BadLine::MissingDevice));
    let starts = |event: &Value, text: &str| event["ts"].as_str().is_some_and(|ts| ts.starts_with(text));
    assert_eq!(objects.iter().filter(|event| starts(event, "1970")).count() as u64, of(BadLine::In1970));
    assert_eq!(objects.iter().filter(|event| starts(event, "9999")).count() as u64, of(BadLine::In9999));
    assert_eq!(count(|event| event["ts"].as_str().is_some_and(|ts| !ts.ends_with('Z'))), of(BadLine::TimeWithoutZone));
    assert_eq!(count(|event| event["country"] == "de"), of(BadLine::SmallCountry));
    assert_eq!(count(|event| event["device_id"].as_str().is_some_and(|id| id.len() == 300)), of(BadLine::LongIdentifier));
    assert_eq!(count(|event| event["props"]["latency_ms"] == -1), of(BadLine::NegativeLatency));
    let ids: HashSet<_> = objects.iter().filter_map(|event| event["event_id"].as_str()).filter(|id| id.starts_with("bad")).collect();
    assert!(ids.len() > 10 && BadLine::ALL.iter().all(|kind| !kind.name().is_empty()));
}

#[test]
fn several_files_hold_together_what_one_does() {
    let spec = FleetSpec { duplicate_rate: 0.05, ..small() };
    let folder = tempfile::tempdir().unwrap();
    let (_, mut expected) = lines_of(&spec);
    expected.sort();
    for (compression, name) in [(Compression::None, "ndjson"), (Compression::Gz, "ndjson.gz"), (Compression::Zst, "ndjson.zst")] {
        let mut files = Files::in_folder(folder.path(), 4, compression).unwrap();
        let summary = write_streams(&spec, 4, &mut files).unwrap();
        let paths = files.finish().unwrap();
        assert_eq!(paths[3], folder.path().join(format!("events-4.{name}")));
        let (mut found, mut streams_of) = (Vec::new(), HashMap::<String, BTreeSet<usize>>::new());
        for (stream, path) in paths.iter().enumerate() {
            let file = std::fs::File::open(path).unwrap();
            let mut bytes = Vec::new();
            match Compression::of_name(path) {
                Compression::None => { file }.read_to_end(&mut bytes),
                Compression::Gz => flate2::read::GzDecoder::new(file).read_to_end(&mut bytes),
                Compression::Zst => zstd::Decoder::new(file).unwrap().read_to_end(&mut bytes),
            }
            .unwrap();
            assert!(bytes.len() as u64 > summary.bytes / 8);
            for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let event: Value = serde_json::from_slice(line).unwrap();
                streams_of.entry(text(&event, "device_id").to_owned()).or_default().insert(stream);
                found.push(line.to_vec());
            }
        }
        found.sort();
        assert!(found == expected, "{name}");
        let strayed = streams_of.values().filter(|of| of.len() > 1).count();
        assert!(strayed > 0 && strayed * 4 < streams_of.len() * 3, "{strayed} of {}", streams_of.len());
    }
}

#[test]
fn a_limit_is_kept_and_what_precedes_it_is_unchanged() {
    let whole = lines_of(&small()).1;
    let (summary, cut) = lines_of(&FleetSpec { events_limit: Some(1_234), ..small() });
    assert_eq!(summary.lines, 1_234);
    assert_eq!(cut[..], whole[..1_234]);
}

#[test]
fn an_unusable_fleet_is_refused() {
    for spec in [
        FleetSpec { devices: 0, ..small() },
        FleetSpec { days: 0, ..small() },
        FleetSpec { users: u64::MAX, ..small() },
        FleetSpec { from: Day::from_epoch_days(-1), ..small() },
        FleetSpec { from: "9999-12-31".parse().unwrap(), ..small() },
    ] {
        let error = write(&spec, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
    }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    simulate: SimulateArgs,
}

fn arguments(arguments: &[&str]) -> Result<SimulateArgs, clap::Error> {
    Cli::try_parse_from([&["simulate"], arguments].concat()).map(|cli| cli.simulate)
}

#[test]
fn arguments_describe_a_fleet() {
    assert_eq!(arguments(&[]).unwrap().spec(), FleetSpec::default());
    let spec = arguments(&["--devices", "1000", "--from", "2020-02-28", "--days", "3", "--bad-lines", "-o", "x.gz"]).unwrap().spec();
    assert_eq!((spec.devices, spec.users, spec.days, spec.bad_line_rate), (1_000, 600, 3, 0.001));
    assert_eq!(spec.from.to_string(), "2020-02-28");
    for wrong in [&["--devices", "0"][..], &["--from", "2020-02-30"], &["--bad-lines", "2"], &["--files", "0"], &["--days", "9999"]] {
        assert!(arguments(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_number_of_events_makes_a_fleet_that_has_them() {
    let args = arguments(&["--events", "50000", "--seed", "9"]).unwrap();
    let (summary, _) = lines_of(&args.spec());
    assert_eq!(summary.lines, 50_000);
    let (whole, _) = lines_of(&FleetSpec { events_limit: None, ..args.spec() });
    assert!(whole.lines < 60_000, "{}", whole.lines);
}

#[test]
fn the_default_fleet_gives_about_ten_million_events() {
    let spec = FleetSpec::default();
    let lines = generate::lines_per_device(&spec) * spec.devices as f64;
    assert!((9.5e6..10.5e6).contains(&lines), "{lines}");
}
