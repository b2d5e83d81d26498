//! Small fleets whose devices move, change hands, and send twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ameles_core::{Day, DayBits, Month, Timestamp};
use ameles_schemas::{Measure, Table, TableSchemas};
use arrow::array::{ArrayRef, BinaryArray, Date32Array, Int32Array, Int32Builder, ListBuilder, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;

use crate::MemSource;

pub const DIMENSIONS: [&str; 2] = ["product", "country"];

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub device: u64,
    pub user: Option<u64>,
    pub ts: Timestamp,
    pub key: u64,
    pub kind: &'static str,
    /// As [`DIMENSIONS`].
    pub dims: [Option<String>; 2],
}

impl Event {
    pub fn day(&self) -> Day {
        self.ts.day()
    }
    pub fn month(&self) -> Month {
        self.ts.month()
    }
    pub fn order(&self) -> (Timestamp, u64) {
        (self.ts, self.key)
    }
}

/// xorshift64*.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

pub struct Fleet {
    pub events: Vec<Event>,
    pub has_user: bool,
}

const PRODUCTS: [&str; 4] = ["phone", "speaker", "tv", "o'clock"];
const COUNTRIES: [&str; 5] = ["DE", "FR", "IT", "US", "CH"];

impl Fleet {
    /// From 2018-07-03 on, over four months.
    pub fn random(seed: u64, devices: u64, has_user: bool) -> Self {
        let mut dice = Dice::new(seed);
        let first = Day::from_ymd(2018, 7, 3).unwrap();
        let mut events = Vec::new();
        let mut key = 0_u64;
        for device in 0..devices {
            let product = Some((*dice.pick(&PRODUCTS[..(2 + (seed % 3) as usize)])).to_owned());
            // Skewed, so that there are large groups and small ones.
            let skewed = dice.below(COUNTRIES.len() as u64 * 2).min(dice.below(COUNTRIES.len() as u64)) as usize;
            let mut country = Some(COUNTRIES[skewed]);
            let start = dice.below(70);
            let mut activations = if dice.below(10) == 0 { 0 } else { 1 + dice.below(4) / 3 };
            let mut day = start;
            while day < 115 {
                if dice.below(9) == 0 {
                    country = if dice.below(4) == 0 { None } else { Some(*dice.pick(&COUNTRIES)) };
                }
                for _ in 0..=dice.below(3) {
                    let kind = if activations > 0 && dice.below(2) == 0 {
                        activations -= 1;
                        "activate"
                    } else {
                        *dice.pick(&["wake", "wake", "heartbeat"])
                    };
                    let user = (has_user && dice.below(5) != 0).then(|| if dice.below(6) == 0 { dice.below(devices) } else { device / 2 });
                    // Few instants, so that ties are broken by the event key.
                    let ts = first.plus(day as i32).start().plus_secs(3_600 * dice.below(8) as i64);
                    let dims = [product.clone().filter(|_| dice.below(30) != 0), country.map(str::to_owned)];
                    key += 1;
                    let event = Event { device, user, ts, key: key.wrapping_mul(0x9E37_79B9), kind, dims };
                    if dice.below(12) == 0 {
                        events.push(event.clone());
                    }
                    events.push(event);
                }
                day += 1 + dice.below([2, 9, 45][(device % 3) as usize]);
            }
        }
        Self { events, has_user }.deduplicated()
    }

    fn deduplicated(mut self) -> Self {
        let mut seen = BTreeSet::new();
        self.events.retain(|event| seen.insert((event.device, event.key)));
        self
    }

    pub fn schemas(&self) -> TableSchemas {
        TableSchemas {
            dimensions: DIMENSIONS.iter().map(|name| (*name).to_owned()).collect(),
            measures: vec![Measure { name: "wakes".to_owned(), event_type: "wake".to_owned() }],
            has_user: self.has_user,
            has_event_key: true,
            activation_type: Some("activate".to_owned()),
            extra: vec![("props_latency_ms".to_owned(), DataType::Int64)],
            descriptions: Vec::new(),
        }
    }

    pub fn source(&self) -> MemSource {
        let mut tables = vec![(Table::Events, self.events_table()), (Table::Activity, self.activity()), (Table::Devices, self.devices())];
        if self.has_user {
            tables.push((Table::Links, self.links()));
        }
        MemSource::new(self.schemas(), tables)
    }

    /// Events by device and month.
    pub fn by_month(&self) -> BTreeMap<(Month, u64), Vec<&Event>> {
        let mut by_month: BTreeMap<(Month, u64), Vec<&Event>> = BTreeMap::new();
        for event in &self.events {
            by_month.entry((event.month(), event.device)).or_default().push(event);
        }
        by_month
    }

    fn batch(&self, table: Table, columns: Vec<ArrayRef>) -> RecordBatch {
        RecordBatch::try_new(self.schemas().schema(table), columns).unwrap()
    }

    /// All events, with `month`.
    pub fn events_table(&self) -> RecordBatch {
        let events = &self.events;
        let mut columns = vec![ids(events.iter().map(|event| Some(event.device))), instants(events.iter().map(|event| event.ts))];
        if self.has_user {
            columns.push(ids(events.iter().map(|event| event.user)));
        }
        columns.push(Arc::new(events.iter().map(|event| Some(event.kind)).collect::<StringArray>()));
        columns.push(keys(events.iter()));
        columns.extend(dims(events.iter()));
        columns.push(Arc::new(events.iter().map(|event| Some((event.key % 900) as i64)).collect::<arrow::array::Int64Array>()));
        columns.push(months(events.iter().map(Event::month)));
        self.batch(Table::Events, columns)
    }

    fn activity(&self) -> RecordBatch {
        let rows = self.by_month();
        let latest: Vec<&Event> = rows.values().map(|events| *events.iter().max_by_key(|event| event.order()).unwrap()).collect();
        let days: Vec<DayBits> = rows.values().map(|events| bits(events)).collect();
        let mut wakes = ListBuilder::new(Int32Builder::new()).with_field(Field::new("element", DataType::Int32, false));
        for ((month, _), events) in &rows {
            for day in bits(events).days(*month) {
                let count = events.iter().filter(|event| event.kind == "wake" && event.day() == day).count();
                wakes.values().append_value(count as i32);
            }
            wakes.append(true);
        }
        let mut columns = vec![
            ids(rows.keys().map(|(_, device)| Some(*device))),
            Arc::new(days.iter().map(|days| Some(days.0 as i32)).collect::<Int32Array>()) as ArrayRef,
            instants(rows.values().map(|events| events.iter().map(|event| event.ts).min().unwrap())),
            instants(latest.iter().map(|event| event.ts)),
            keys(latest.iter().copied()),
        ];
        columns.extend(dims(latest.iter().copied()));
        columns.push(Arc::new(wakes.finish()));
        columns.push(months(rows.keys().map(|(month, _)| *month)));
        self.batch(Table::Activity, columns)
    }

    fn links(&self) -> RecordBatch {
        let mut rows: BTreeMap<(Month, u64, u64), DayBits> = BTreeMap::new();
        for event in &self.events {
            if let Some(user) = event.user {
                let days = rows.entry((event.month(), user, event.device)).or_default();
                *days = days.with(event.day());
            }
        }
        self.batch(
            Table::Links,
            vec![
                ids(rows.keys().map(|(_, user, _)| Some(*user))),
                ids(rows.keys().map(|(_, _, device)| Some(*device))),
                Arc::new(rows.values().map(|days| Some(days.0 as i32)).collect::<Int32Array>()),
                months(rows.keys().map(|(month, ..)| *month)),
            ],
        )
    }

    fn devices(&self) -> RecordBatch {
        let rows = self.by_month();
        let activated: Vec<&Event> = rows
            .values()
            .filter_map(|events| events.iter().filter(|event| event.kind == "activate").min_by_key(|event| event.order()).copied())
            .collect();
        let mut columns = vec![
            ids(activated.iter().map(|event| Some(event.device))),
            instants(activated.iter().map(|event| event.ts)),
            keys(activated.iter().copied()),
        ];
        columns.extend(dims(activated.iter().copied()));
        columns.push(months(activated.iter().map(|event| event.month())));
        self.batch(Table::Devices, columns)
    }
}

fn bits(events: &[&Event]) -> DayBits {
    events.iter().fold(DayBits::default(), |days, event| days.with(event.day()))
}

/// A device's or user's pseudonym.
pub fn id(number: u64) -> [u8; 16] {
    (u128::from(number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15)) << 64).to_be_bytes()
}

fn ids(values: impl Iterator<Item = Option<u64>>) -> ArrayRef {
    binary(values.map(|value| value.map(id)))
}

/// Event keys, in the order of their numbers.
fn keys<'a>(events: impl Iterator<Item = &'a Event>) -> ArrayRef {
    binary(events.map(|event| Some(u128::from(event.key).to_be_bytes())))
}

fn binary(values: impl Iterator<Item = Option<[u8; 16]>>) -> ArrayRef {
    let values: Vec<Option<[u8; 16]>> = values.collect();
    Arc::new(values.iter().map(|bytes| bytes.as_ref().map(<[u8; 16]>::as_slice)).collect::<BinaryArray>())
}

fn instants(values: impl Iterator<Item = Timestamp>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values.map(Timestamp::micros)).with_timezone("UTC"))
}

fn months(values: impl Iterator<Item = Month>) -> ArrayRef {
    Arc::new(Date32Array::from_iter_values(values.map(|month| month.first_day().epoch_days())))
}

fn dims<'a>(events: impl Iterator<Item = &'a Event> + Clone) -> Vec<ArrayRef> {
    let column = |at: usize| -> ArrayRef { Arc::new(events.clone().map(|event| event.dims[at].clone()).collect::<StringArray>()) };
    (0..DIMENSIONS.len()).map(column).collect()
}
