//! A report over a small fleet, against counts made by hand.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use ameles_core::{
    Day, Month, SeededRandom, SuppressedSubject, SuppressionEntry, SuppressionSet, SuppressionSource, SuppressionUnavailable, Timestamp,
};
use ameles_queries::Completeness;
use ameles_schemas::{Contract, Table, column};
use ameles_store::{Append, ReadView, Rewrite, Warehouse};
use arrow::array::{ArrayRef, BinaryArray, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::record_batch::RecordBatch;

use crate::figures::without_small_complements;
use crate::frames::{Frames, Tables};
use crate::rows::Row;
use crate::{MANIFEST, MONTHLY_ACTIVITY, Manifest, ReportError, ReportSpec, run};

struct Nobody;

impl SuppressionSource for Nobody {
    fn current(&self) -> std::pin::Pin<Box<dyn Future<Output = Result<Arc<SuppressionSet>, SuppressionUnavailable>> + Send + '_>> {
        Box::pin(async { Ok(Arc::new(SuppressionSet::default())) })
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    device: u32,
    day: Day,
    hour: i64,
    wake: bool,
    country: Option<&'static str>,
    product: &'static str,
}

const DEVICES: u32 = 120;

fn month(text: &str) -> Month {
    text.parse().unwrap()
}

/// Devices that begin in one of three months, come on some days, stop, return and move.
fn fleet() -> Vec<Event> {
    let mut events = Vec::new();
    for device in 0..DEVICES {
        let begins = device % 3;
        let home = if device < 4 { Some("LI") } else { [Some("DE"), Some("FR"), None][device as usize % 3] };
        let product = ["speaker", "phone", "lamp"][(device / 3) as usize % 3];
        let first = month("2018-07").plus(begins as i32).first_day().plus((device % 20) as i32);
        events.push(Event { device, day: first, hour: 1, wake: false, country: home, product });
        for step in 0..90 {
            let day = first.plus(step);
            // Some skip August, some stay away for good after a while.
            let away = (device % 7 == 3 && day.month() == month("2018-08")) || (device % 5 == 1 && step > 25);
            if day.month() > month("2018-09") || away || !(step as u32 * 7 + device).is_multiple_of(4) {
                continue;
            }
            let country = if device % 11 == 0 && step > 20 { Some("FR") } else { home };
            for wake in 0..1 + device % 3 {
                events.push(Event { device, day, hour: 2 + i64::from(wake), wake: true, country, product });
            }
        }
    }
    events.sort();
    events
}

fn key(device: u32) -> [u8; 16] {
    (u128::from(device) << 96 | 0x5555).to_be_bytes()
}

fn batch(contract: &Contract, events: &[&Event]) -> RecordBatch {
    let schema = contract.tables().file_schema(Table::Events);
    let text = |of: fn(&Event) -> Option<&'static str>| Arc::new(StringArray::from_iter(events.iter().map(|event| of(event)))) as ArrayRef;
    let columns = schema
        .fields()
        .iter()
        .map(|field| match field.name().as_str() {
            column::DEVICE => Arc::new(BinaryArray::from_iter_values(events.iter().map(|event| key(event.device)))) as ArrayRef,
            column::USER => Arc::new(BinaryArray::from_iter_values(events.iter().map(|event| key(event.device)))) as ArrayRef,
            column::TS => {
                let times = events.iter().map(|event| event.day.start().plus_secs(event.hour * 3_600).micros());
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")) as ArrayRef
            }
            column::TYPE => text(|event| Some(if event.wake { "wake" } else { "activate" })),
            column::EVENT_KEY => {
                let keys = events.iter().map(|event| {
                    (u128::from(event.device) << 64 | (event.day.epoch_days() as u128) << 8 | event.hour as u128).to_be_bytes()
                });
                Arc::new(BinaryArray::from_iter_values(keys)) as ArrayRef
            }
            "country" => text(|event| event.country),
            "product" => text(|event| Some(event.product)),
            "partner" => text(|event| Some(if event.device.is_multiple_of(2) { "p1" } else { "p2" })),
            _ => new_null_array(field.data_type(), events.len()),
        })
        .collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

async fn warehouse(root: &Path, events: &[Event], settle: &[&str]) -> Warehouse {
    let contract = Contract::default_contract();
    let random = SeededRandom::new(11);
    let warehouse = Warehouse::create(root, contract.tables()).await.unwrap();
    let mut lease = warehouse.lease(&random).await.unwrap();
    // Two batches, so that months have rows to merge.
    for half in 0..2 {
        let mut months: BTreeMap<Month, Vec<&Event>> = BTreeMap::new();
        for (place, event) in events.iter().enumerate() {
            if place % 2 == half {
                months.entry(event.day.month()).or_default().push(event);
            }
        }
        let events = months.into_iter().map(|(month, events)| (month, batch(&contract, &events))).collect();
        lease.append(Append { events, quarantine: None, txns: Vec::new() }, &Nobody).await.unwrap();
    }
    drop(lease);
    let maintainer = warehouse.try_maintainer(&random).await.unwrap().unwrap();
    for text in settle {
        let spec = Rewrite { suppressed: Arc::new(SuppressionSet::default()), closed: false };
        maintainer.rewrite_month(month(text), &spec, &|_| ()).await.unwrap();
    }
    warehouse
}

fn spec(k: u32) -> ReportSpec {
    let watermark: Timestamp = "2018-12-01T00:00:00Z".parse().unwrap();
    ReportSpec {
        name: MONTHLY_ACTIVITY.to_owned(),
        month: month("2018-09"),
        k,
        contract: "device_event v1".to_owned(),
        policy: "1".to_owned(),
        completeness: Completeness { watermark, closed_before: month("2018-11") },
    }
}

async fn view(warehouse: &Warehouse, erased: &[u32]) -> Arc<ReadView> {
    let received: Timestamp = "2018-11-01T00:00:00Z".parse().unwrap();
    let entries = erased.iter().map(|device| SuppressionEntry {
        subject: SuppressedSubject::Device(ameles_core::DeviceId::from_bytes(key(*device))),
        received,
        pending: true,
        lifted_from: None,
    });
    ReadView::open(warehouse, Arc::new(SuppressionSet::new(u64::from(!erased.is_empty()), entries))).await.unwrap()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

/// The tables counted by hand, event by event.
fn by_hand(events: &[Event]) -> Tables {
    let mut tables = Tables::default();
    let mut months: BTreeMap<u32, BTreeSet<Month>> = BTreeMap::new();
    let mut days: BTreeMap<Day, BTreeSet<u32>> = BTreeMap::new();
    let mut cohort: BTreeMap<u32, &Event> = BTreeMap::new();
    let mut latest: BTreeMap<(u32, Month), &Event> = BTreeMap::new();
    for event in events {
        months.entry(event.device).or_default().insert(event.day.month());
        days.entry(event.day).or_default().insert(event.device);
        let totals = tables.monthly.entry(event.day.month()).or_default();
        totals.measures.resize(1, 0);
        totals.measures[0] += i64::from(event.wake);
        if !event.wake {
            cohort.entry(event.device).or_insert(event);
        }
        latest.insert((event.device, event.day.month()), event);
    }
    for (device, months) in &months {
        for month in months {
            tables.monthly.get_mut(month).unwrap().mau += 1;
            let kind = if months.first() == Some(month) {
                "new"
            } else if months.contains(&month.plus(-1)) {
                "retained"
            } else {
                "resurrected"
            };
            *tables.growth.entry((*month, kind.to_owned())).or_default() += 1;
            let next = month.plus(1);
            if !months.contains(&next) && next <= Month::from_epoch_months(48 * 12 + 8) {
                *tables.growth.entry((next, "churned".to_owned())).or_default() += 1;
            }
            let activated = cohort[device].day.month();
            if *month >= activated {
                *tables.retention.entry((activated, month.epoch_months() - activated.epoch_months())).or_default() += 1;
            }
        }
        tables.monthly.get_mut(&cohort[device].day.month()).unwrap().activations += 1;
    }
    tables.dau = days.into_iter().map(|(day, devices)| (day, devices.len() as i64)).collect();
    let september = month("2018-09");
    for dimension in ["product", "country", "partner"] {
        let value = |event: &Event| match dimension {
            "product" => Some(event.product.to_owned()),
            "country" => event.country.map(str::to_owned),
            _ => Some(if event.device.is_multiple_of(2) { "p1" } else { "p2" }.to_owned()),
        };
        let groups = tables.breakdowns.entry(dimension.to_owned()).or_default();
        for ((device, of), last) in &latest {
            if *of == september {
                let totals = groups.entry(value(last)).or_default();
                totals.measures.resize(1, 0);
                totals.mau += 1;
                totals.measures[0] +=
                    events.iter().filter(|event| event.device == *device && event.wake && event.day.month() == september).count() as i64;
            }
        }
        for activation in cohort.values().filter(|event| event.day.month() == september) {
            let totals = groups.entry(value(activation)).or_default();
            totals.measures.resize(1, 0);
            totals.activations += 1;
        }
    }
    tables
}

async fn computed(view: &Arc<ReadView>) -> Tables {
    let frames = Frames::open(view, month("2018-09")).await.unwrap();
    tokio::task::spawn_blocking(move || frames.compute(month("2018-09"), &["product", "country", "partner"])).await.unwrap().unwrap()
}

fn assert_same(found: &Tables, expected: &Tables) {
    assert_eq!(found.monthly, expected.monthly);
    assert_eq!(found.dau, expected.dau);
    assert_eq!(found.growth, expected.growth);
    assert_eq!(found.retention, expected.retention);
    assert_eq!(found.breakdowns, expected.breakdowns);
}

#[tokio::test(flavor = "multi_thread")]
async fn polars_counts_what_the_events_say_settled_or_not() {
    let home = tempfile::tempdir().unwrap();
    let events = fleet();
    // July lies in files as it is, August and September have to be merged.
    let warehouse = warehouse(home.path(), &events, &["2018-07"]).await;
    assert_same(&computed(&view(&warehouse, &[]).await).await, &by_hand(&events));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_erasure_is_counted_nowhere() {
    let home = tempfile::tempdir().unwrap();
    let events = fleet();
    let warehouse = warehouse(home.path(), &events, &["2018-07", "2018-08", "2018-09"]).await;
    let rest: Vec<Event> = events.into_iter().filter(|event| ![5, 17, 60].contains(&event.device)).collect();
    assert_same(&computed(&view(&warehouse, &[5, 17, 60]).await).await, &by_hand(&rest));
}

/// Suppresses somebody at each look anew: a request that comes in while the report is made.
struct Arriving;

impl SuppressionSource for Arriving {
    fn current(&self) -> std::pin::Pin<Box<dyn Future<Output = Result<Arc<SuppressionSet>, SuppressionUnavailable>> + Send + '_>> {
        let entry = SuppressionEntry {
            subject: SuppressedSubject::Device(ameles_core::DeviceId::from_bytes(key(5))),
            received: "2018-11-01T00:00:00Z".parse().unwrap(),
            pending: true,
            lifted_from: None,
        };
        Box::pin(async move { Ok(Arc::new(SuppressionSet::new(1, [entry]))) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_counts_who_was_suppressed_meanwhile_is_not_published() {
    let home = tempfile::tempdir().unwrap();
    let warehouse = warehouse(&home.path().join("warehouse"), &fleet(), &["2018-07", "2018-08"]).await;
    let out = home.path().join("out");
    let error = run(view(&warehouse, &[]).await, &Arriving, spec(10), &out).await.unwrap_err();
    assert!(matches!(error, ReportError::Superseded) && error.is_outdated(), "{error}");
    assert!(!out.exists());
    // On a view that knows of the request it is, without the subject.
    let manifest = run(view(&warehouse, &[5]).await, &Arriving, spec(10), &out).await.unwrap();
    assert_eq!(manifest.suppression_sequence, 1);
    assert!(out.join(MANIFEST).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_versions_give_the_same_bytes_and_the_manifest_holds() {
    let home = tempfile::tempdir().unwrap();
    let warehouse = warehouse(&home.path().join("warehouse"), &fleet(), &["2018-07", "2018-08"]).await;
    let (one, two) = (home.path().join("one"), home.path().join("two"));
    let manifest = run(view(&warehouse, &[]).await, &Nobody, spec(10), &one).await.unwrap();
    run(view(&warehouse, &[]).await, &Nobody, spec(10), &two).await.unwrap();
    let (first, second) = (files(&one), files(&two));
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    assert!(first.iter().all(|(name, bytes)| second[name] == *bytes));
    let read: Manifest = serde_json::from_slice(&first[MANIFEST]).unwrap();
    assert_eq!(read, manifest);
    assert_eq!(read.files.len() + 1, first.len());
    for entry in &read.files {
        let digest = ring::digest::digest(&ring::digest::SHA256, &first[&entry.name]);
        assert_eq!(entry.sha256, hex::encode(digest.as_ref()), "{}", entry.name);
    }
    for name in [
        "report.html",
        "report_card.csv",
        "daily.csv",
        "monthly.csv",
        "by_product.csv",
        "by_country.csv",
        "by_partner.csv",
        "retention.csv",
        "growth.csv",
    ] {
        assert!(first.contains_key(name), "{name}");
    }
    let html = String::from_utf8(first["report.html"].clone()).unwrap();
    assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("<script"), "self-contained");
    assert!(html.contains("September 2018") && html.contains("<svg"));
}

#[tokio::test(flavor = "multi_thread")]
async fn small_groups_are_folded_in_every_file_and_shown_to_the_operator() {
    let home = tempfile::tempdir().unwrap();
    let warehouse = warehouse(&home.path().join("warehouse"), &fleet(), &[]).await;
    let (guarded, whole) = (home.path().join("guarded"), home.path().join("whole"));
    run(view(&warehouse, &[]).await, &Nobody, spec(10), &guarded).await.unwrap();
    run(view(&warehouse, &[]).await, &Nobody, spec(1), &whole).await.unwrap();
    for (name, bytes) in files(&guarded) {
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains("\nLI,") && !text.contains(">LI<"), "{name}");
    }
    let text = String::from_utf8(files(&whole)["by_country.csv"].clone()).unwrap();
    assert!(text.contains("\nLI,"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_without_data_says_which_have_some() {
    let home = tempfile::tempdir().unwrap();
    let warehouse = warehouse(&home.path().join("warehouse"), &fleet(), &[]).await;
    let view = view(&warehouse, &[]).await;
    let error =
        run(Arc::clone(&view), &Nobody, ReportSpec { month: month("2019-01"), ..spec(10) }, &home.path().join("out")).await.unwrap_err();
    assert!(error.to_string().contains("2018-07") && error.to_string().contains("2018-09"), "{error}");
    let error = run(view, &Nobody, ReportSpec { name: "weekly".to_owned(), ..spec(10) }, &home.path().join("out")).await.unwrap_err();
    assert!(matches!(error, ReportError::UnknownReport(_)));
    assert!(!home.path().join("out").exists());
}

/// The base less the base without phones and laptops is the phones and laptops: three of them were told so.
#[test]
fn a_part_is_not_told_where_the_rest_is_a_few() {
    let rows = |values: &[(u32, i64)]| -> Vec<Row> {
        let row = |(day, value): &(u32, i64)| Row {
            date: format!("2018-07-{day:02}").parse().unwrap(),
            labels: Vec::new(),
            value: *value as f64,
            complete: true,
        };
        values.iter().map(row).collect()
    };
    let whole = rows(&[(1, 60), (2, 63), (3, 80), (4, 84), (5, 100)]);
    let part = rows(&[(1, 60), (2, 60), (3, 60), (4, 60), (5, 70)]);
    let told = |rest: &[(u32, i64)]| -> Vec<i64> {
        without_small_complements(part.clone(), &whole, &rows(rest), 10).iter().map(|row| row.date.epoch_days() as i64 - 17_712).collect()
    };
    // Nothing, then 3, 20, 24 and 30: of these, 20 and 30 can be told after what was told before.
    assert_eq!(told(&[(3, 20), (4, 20), (5, 30)]), [1, 3, 5]);
    // The rest has no row of its own, for it rests on too few users.
    assert_eq!(told(&[]), [1]);
}
