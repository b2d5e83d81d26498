#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ameles_core::{Day, DayBits, Month, SeededRandom, SuppressionSet, Timestamp};
use ameles_queries::{Completeness, Guard, MetricRequest, Metrics, Unit};
use ameles_schemas::{Contract, Table, TableSchemas};
use ameles_store::{ReadView, SettledRows, Warehouse};
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Int32Type, Int64Type, TimestampMicrosecondType};

use super::rows::FleetRows;
use super::shape::FleetShape;

fn tables() -> TableSchemas {
    Contract::default_contract().tables()
}

fn small() -> FleetShape {
    FleetShape { devices: 20_000, from: "2018-07".parse().unwrap(), months: 12, device_months: 40_000, last_month_actives: 5_150, seed: 3 }
}

/// All rows of a table's month.
fn rows_of(rows: &FleetRows, table: Table, month: usize) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    for range in 0..rows.ranges(table, month) {
        let mut keep = |batch: &RecordBatch| {
            batches.push(batch.clone());
            Ok(())
        };
        rows.rows(table, month, range, &mut keep).unwrap();
    }
    batches
}

#[test]
fn the_same_seed_gives_the_same_rows_and_another_one_others() {
    let of = |seed: u64| FleetRows::new(&tables(), FleetShape { seed, ..small() }).unwrap();
    for table in [Table::Activity, Table::Links, Table::Devices] {
        assert_eq!(rows_of(&of(3), table, 5), rows_of(&of(3), table, 5), "{table}");
        assert_ne!(rows_of(&of(3), table, 5), rows_of(&of(4), table, 5), "{table}");
    }
}

#[test]
fn the_totals_are_those_asked_for() {
    let shape = small();
    let rows = FleetRows::new(&tables(), shape).unwrap();
    let count = |table: Table, month: usize| rows_of(&rows, table, month).iter().map(RecordBatch::num_rows).sum::<usize>() as f64;
    let near = |found: f64, wanted: f64| assert!((found / wanted - 1.0).abs() < 0.04, "{found} for {wanted}");
    let activated: f64 = (0..12).map(|month| count(Table::Devices, month)).sum();
    assert_eq!(activated, shape.devices as f64);
    near((0..12).map(|month| count(Table::Activity, month)).sum(), shape.device_months as f64);
    near(count(Table::Activity, 11), shape.last_month_actives as f64);
    // Days that a device is active in a month, as in the fleet that the targets speak of.
    let days: u32 = rows_of(&rows, Table::Activity, 11)
        .iter()
        .flat_map(|batch| batch["days"].as_primitive::<Int32Type>().values().to_vec())
        .map(i32::count_ones)
        .sum();
    near(f64::from(days) / count(Table::Activity, 11), 8.0);
    let users: Vec<u8> =
        rows_of(&rows, Table::Links, 11).iter().flat_map(|batch| batch["user"].as_binary::<i32>().value_data().to_vec()).collect();
    let pairs = users.len() / 16;
    let users: HashSet<&[u8]> = users.chunks(16).collect();
    assert!(users.len() < pairs, "some have two devices");
    let devices = count(Table::Activity, 11) as usize;
    assert!(pairs > devices * 5 / 10 && pairs < devices, "{pairs} links of {devices} devices");
}

#[test]
fn totals_that_no_fleet_has_are_refused() {
    let refused = |shape: FleetShape| FleetRows::new(&tables(), shape).err().unwrap();
    assert!(refused(FleetShape { device_months: 19_999, ..small() }).contains("ask for more device-months"));
    assert!(refused(FleetShape { device_months: 13 * 20_000, ..small() }).contains("12 months have no room"));
    assert!(refused(FleetShape { last_month_actives: 5, ..small() }).contains("at the nearest"));
}

/// What the rows say, device by device, without any of the engine's means.
struct Naive {
    months: Vec<Month>,
    /// Active days, and wakes on each.
    active: HashMap<Vec<u8>, BTreeMap<Day, i64>>,
    countries: HashMap<(Month, Vec<u8>), Option<String>>,
    activated: HashMap<Vec<u8>, (Day, Option<String>)>,
    links: Vec<(Month, Vec<u8>, Vec<u8>)>,
}

fn texts(batch: &RecordBatch, name: &str) -> Vec<Option<String>> {
    let column = cast(&batch[name], &DataType::Utf8).unwrap();
    column.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

fn ids(batch: &RecordBatch, name: &str) -> Vec<Vec<u8>> {
    batch[name].as_binary::<i32>().iter().map(|id| id.unwrap().to_vec()).collect()
}

impl Naive {
    fn new(rows: &FleetRows) -> Self {
        let months = rows.months();
        let mut naive = Self {
            months: months.clone(),
            active: HashMap::new(),
            countries: HashMap::new(),
            activated: HashMap::new(),
            links: Vec::new(),
        };
        for (at, month) in months.into_iter().enumerate() {
            for batch in rows_of(rows, Table::Activity, at) {
                let (days, wakes) = (batch["days"].as_primitive::<Int32Type>(), batch["wakes"].as_list::<i32>());
                let time =
                    |name: &str, row: usize| Timestamp::from_micros(batch[name].as_primitive::<TimestampMicrosecondType>().value(row));
                let countries = texts(&batch, "country");
                for (row, id) in ids(&batch, "device").into_iter().enumerate() {
                    let bits = DayBits(days.value(row) as u32);
                    let wakes = wakes.value(row);
                    let wakes = wakes.as_primitive::<Int32Type>();
                    assert_eq!(wakes.len() as u32, bits.count());
                    let dated: Vec<Day> = bits.days(month).collect();
                    assert!(time("first_ts", row) <= time("last_ts", row));
                    assert_eq!((time("first_ts", row).day(), time("last_ts", row).day()), (dated[0], dated[dated.len() - 1]));
                    assert!(dated[dated.len() - 1] <= month.last_day());
                    naive
                        .active
                        .entry(id.clone())
                        .or_default()
                        .extend(dated.into_iter().zip(wakes.values().iter().map(|count| i64::from(*count))));
                    naive.countries.insert((month, id), countries[row].clone());
                }
            }
            for batch in rows_of(rows, Table::Devices, at) {
                let countries = texts(&batch, "country");
                for (row, id) in ids(&batch, "device").into_iter().enumerate() {
                    let day = Timestamp::from_micros(batch["activated_ts"].as_primitive::<TimestampMicrosecondType>().value(row)).day();
                    assert!(naive.active[&id].keys().next() == Some(&day), "activated on its first active day");
                    assert!(naive.activated.insert(id, (day, countries[row].clone())).is_none());
                }
            }
            for batch in rows_of(rows, Table::Links, at) {
                let days = batch["days"].as_primitive::<Int32Type>();
                for (row, (user, device)) in ids(&batch, "user").into_iter().zip(ids(&batch, "device")).enumerate() {
                    let bits = DayBits(days.value(row) as u32);
                    assert!(!bits.is_empty() && bits.days(month).all(|day| naive.active[&device].contains_key(&day)));
                    naive.links.push((month, user, device));
                }
            }
        }
        naive
    }

    fn days(&self) -> impl Iterator<Item = Day> {
        (self.months[0].first_day().epoch_days()..=self.months[self.months.len() - 1].last_day().epoch_days()).map(Day::from_epoch_days)
    }

    /// Values by date and country (or none of it), zeros left out.
    fn answer(&self, name: &str) -> BTreeMap<(i32, Option<String>), i64> {
        let mut answer = BTreeMap::new();
        let mut add = |date: Day, country: Option<String>, value: i64| {
            if value > 0 {
                *answer.entry((date.epoch_days(), country)).or_default() += value;
            }
        };
        match name {
            "mau by country" => self.countries.iter().for_each(|((month, _), country)| add(month.first_day(), country.clone(), 1)),
            "mau of users" => {
                let pairs: BTreeSet<(Month, &[u8])> = self.links.iter().map(|(month, user, _)| (*month, user.as_slice())).collect();
                pairs.into_iter().for_each(|(month, _)| add(month.first_day(), None, 1));
            }
            "activations by country" => self.activated.values().for_each(|(day, country)| add(*day, country.clone(), 1)),
            _ => {
                for active in self.active.values() {
                    for day in self.days() {
                        match name {
                            "dau" => add(day, None, i64::from(active.contains_key(&day))),
                            "wakes" => add(day, None, active.get(&day).copied().unwrap_or_default()),
                            _ => add(day, None, i64::from(active.range(day.plus(-27)..=day).next().is_some())),
                        }
                    }
                }
            }
        }
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_over_the_written_fleet_are_those_of_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = Warehouse::create(folder.path(), tables()).await.unwrap();
    let maintainer = warehouse.try_maintainer(&SeededRandom::new(1)).await.unwrap().unwrap();
    let shape = FleetShape { devices: 4_000, device_months: 8_000, last_month_actives: 1_030, ..small() };
    let naive = Naive::new(&FleetRows::new(&tables(), shape).unwrap());
    let written = maintainer.write_settled(Arc::new(FleetRows::new(&tables(), shape).unwrap()), &|_| {}).await.unwrap();
    assert_eq!(written.iter().find(|table| table.table == Table::Links).unwrap().rows, naive.links.len() as u64);
    drop(maintainer);

    let view = ReadView::open(&warehouse, Arc::new(SuppressionSet::default())).await.unwrap();
    for month in &naive.months {
        let rows = naive.countries.keys().filter(|(of, _)| of == month).count() as u64;
        assert_eq!(view.exact_rows(Table::Activity, *month), Some(rows), "settled and plain");
    }
    let completeness = Completeness { watermark: Timestamp::MAX, closed_before: Month::from_epoch_months(600) };
    let metrics = Metrics::new(view, completeness);
    let users = MetricRequest { unit: Unit::User, ..MetricRequest::named("mau") };
    let requests = [
        ("mau by country", MetricRequest::named("mau").by(["country"])),
        ("mau of users", users),
        ("activations by country", MetricRequest::named("activations").by(["country"])),
        ("dau", MetricRequest::named("dau")),
        ("mau28", MetricRequest::named("mau28")),
        ("wakes", MetricRequest::named("wakes")),
    ];
    for (name, request) in requests {
        let answer = metrics.run_metric(&request, Guard::None).await.unwrap();
        let (dates, values) = (answer["date"].as_primitive::<Date32Type>(), answer["value"].as_primitive::<Int64Type>());
        let countries = if request.by.is_empty() { vec![None; answer.num_rows()] } else { texts(&answer, "country") };
        let found: BTreeMap<_, _> =
            countries.into_iter().enumerate().map(|(row, country)| ((dates.value(row), country), values.value(row))).collect();
        assert_eq!(found.len(), answer.num_rows());
        assert_eq!(found, naive.answer(name), "{name}");
    }
}
