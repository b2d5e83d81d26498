#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! The rule on single dates, and by brute force: whatever is asked between erasures, no two answers differ by fewer than `k`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ameles_core::{DeviceId, Grain, ManualClock, Month, SeededRandom, SuppressedSubject, SuppressionEntry, SuppressionSet, Timestamp};
use ameles_ledger::{Issue, Ledger, LedgerError, LedgerKeys};
use ameles_store::{ReadView, Warehouse};
use arrow::record_batch::RecordBatch;

use super::rule::{Cell, Date, Label, Proof, Verdict, compare, delta, hold_more, merged};
use super::{HELD_BACK, Issues, running};
use crate::tests::fleet::{Dice, Event, Fleet, id};
use crate::tests::reference::Reference;
use crate::tests::warehouse::store;
use crate::tests::{Row, block_on, rows};
use crate::{Completeness, Guard, KeptAnswers, MetricRequest, Metrics, QueryError, Unit};

fn label(name: &str) -> Label {
    (name != "(other)").then(|| name.split('/').map(|part| Some(part.to_owned())).collect())
}

fn date(cells: &[(&str, i64)], hidden: i64) -> Date {
    let cell = |devices: i64| Cell { shown: BTreeMap::from([(0, vec![devices])]), behind: vec![devices] };
    Date { cells: cells.iter().map(|(name, devices)| (label(name), cell(*devices))).collect(), hidden: vec![hidden], ..Date::default() }
}

fn told(old: &Date, new: &Date, k: u32) -> Date {
    let mut units = compare(Proof::Count, old, new, k);
    hold_more(&mut units, k);
    merged(Proof::Count, old, new, &units)
}

#[test]
fn a_label_changes_by_k_or_stays() {
    let old = date(&[("DE", 100), ("FR", 50), ("IT", 30)], 0);
    assert_eq!(told(&old, &date(&[("DE", 100), ("FR", 50), ("IT", 30)], 0), 10), old);
    assert_eq!(told(&old, &date(&[("DE", 91), ("FR", 50), ("IT", 30)], 0), 10), old);
    let all = date(&[("DE", 90), ("FR", 40), ("IT", 20)], 0);
    assert_eq!(told(&old, &all, 10), all);
    // What is held back together must not follow from a total either: the smallest of the others waits with it.
    assert_eq!(told(&old, &date(&[("DE", 60), ("FR", 38), ("IT", 27)], 0), 10), date(&[("DE", 60), ("FR", 50), ("IT", 30)], 0));
}

#[test]
fn other_is_compared_with_the_labels_that_came_and_went() {
    let old = date(&[("DE", 100), ("FR", 12), ("(other)", 20)], 0);
    // FR is folded now: both together have lost three.
    assert_eq!(told(&old, &date(&[("DE", 100), ("(other)", 29)], 0), 10), old);
    let enough = told(&old, &date(&[("DE", 100), ("(other)", 22)], 0), 10);
    assert_eq!(enough.cells, date(&[("DE", 100), ("(other)", 22)], 0).cells);
    // FR, told as 12 once, would come back as 11; what it was is not forgotten.
    assert_eq!(told(&enough, &date(&[("DE", 100), ("FR", 11)], 0), 10).cells, enough.cells);
    // A period that falls below k as a whole has lost two, whatever is shown.
    let alone = date(&[("DE", 11)], 0);
    assert_eq!(told(&alone, &date(&[], 9), 10), alone);
    assert_eq!(told(&alone, &date(&[], 0), 10).cells, BTreeMap::new());
}

#[test]
fn margins_of_what_is_issued_anew_are_none_or_k() {
    let old = date(&[("DE/tv", 100), ("DE/phone", 100), ("FR/tv", 100)], 0);
    // Twelve fewer, ten more: two of DE are gone.
    assert_eq!(told(&old, &date(&[("DE/tv", 88), ("DE/phone", 110), ("FR/tv", 100)], 0), 10), old);
    let new = date(&[("DE/tv", 88), ("DE/phone", 122), ("FR/tv", 80)], 0);
    assert_eq!(told(&old, &new, 10), new);
}

#[test]
fn a_spread_tells_how_many_have_changed_where_nobody_came_or_went() {
    let mut old = vec![0; super::SPREAD];
    old[0] = 30;
    let mut new = old.clone();
    (new[0], new[1]) = (18, 12);
    assert_eq!(delta(Proof::Spread { days: 1 }, &old, &new), [12]);
    // Of a week the same twelve may have changed each day.
    assert_eq!(delta(Proof::Spread { days: 7 }, &old, &new), [1]);
    assert!(delta(Proof::Spread { days: 1 }, &[], &[]).is_empty());
    let unknown = |value| Date {
        cells: BTreeMap::from([(label("DE"), Cell { shown: BTreeMap::from([(0, vec![value])]), behind: Vec::new() })]),
        ..Date::default()
    };
    let units = compare(Proof::Spread { days: 1 }, &unknown(5), &unknown(500), 2);
    assert_eq!(units[0].verdict, Verdict::Held, "what cannot be told is held back");
}

#[test]
fn a_running_total_changes_over_once_and_goes_on_from_where_it_stands() {
    let days = |values: &[i64]| -> BTreeMap<ameles_core::Day, Date> {
        values.iter().enumerate().map(|(at, value)| (ameles_core::Day::from_epoch_days(at as i32), date(&[("DE", *value)], 0))).collect()
    };
    let old = days(&[100, 120, 140]);
    // Too few have gone: a new day moves by what it adds.
    assert_eq!(running::settle(Proof::Count, &old, &days(&[97, 117, 137, 157]), 10, false), days(&[100, 120, 140, 160]));
    // From the second day on there are enough.
    assert_eq!(running::settle(Proof::Count, &old, &days(&[95, 85, 105, 125]), 10, false), days(&[100, 85, 105, 125]));
    // The step to the second day would be seven: one later.
    assert_eq!(
        running::settle(Proof::Count, &old, &days(&[95, 107, 125, 145]), 10, false),
        days(&[100, 120, 140, 160])
            .into_iter()
            .map(|(day, date_)| {
                if day.epoch_days() < 2 { (day, date_) } else { (day, date(&[("DE", if day.epoch_days() == 2 { 140 } else { 160 })], 0)) }
            })
            .collect()
    );
    assert_eq!(running::settle(Proof::Count, &old, &days(&[50, 50, 50]), 10, true), old);
}

/// Twelve were told of the first day and stay; the new rows' thirteen of the third day were told beside them.
#[test]
fn a_running_total_that_begins_later_takes_no_step_of_one() {
    let days = |values: &[Option<i64>]| -> BTreeMap<ameles_core::Day, Date> {
        let label = |value: &Option<i64>| value.map(|value| ("DE", value));
        let all = values.iter().enumerate();
        all.map(|(at, value)| (ameles_core::Day::from_epoch_days(at as i32), date(&Vec::from_iter(label(value)), 0))).collect()
    };
    let old = days(&[Some(12), Some(12), Some(30), Some(30)]);
    let settled = running::settle(Proof::Count, &old, &days(&[Some(9), None, Some(13), Some(13), Some(40)]), 10, false);
    let told: Vec<Option<i64>> = settled.values().map(|date| date.cells.values().next().map(|cell| cell.shown[&0][0])).collect();
    assert_eq!(told, [Some(12), Some(12), Some(30), Some(13), Some(40)]);
    // All of it has gone.
    let settled = running::settle(Proof::Count, &old, &days(&[None, None, None, None]), 10, false);
    assert!(settled.values().all(|date| date.cells.is_empty()));
}

struct World {
    _folder: tempfile::TempDir,
    warehouse: Warehouse,
    ledger: Ledger,
    erased: BTreeSet<u64>,
}

const K: u32 = 4;

impl World {
    fn new(fleet: &Fleet) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let warehouse = block_on(store(fleet, &folder.path().join("warehouse")));
        std::fs::create_dir(folder.path().join("home")).unwrap();
        let keys = LedgerKeys::new([1; 32], [2; 32], [3; 32]);
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_800_000_000)));
        let ledger = block_on(Ledger::create(&folder.path().join("home/ledger.db"), keys, clock, Arc::new(SeededRandom::new(3)))).unwrap();
        Self { _folder: folder, warehouse, ledger, erased: BTreeSet::new() }
    }
    fn engine(&self) -> Metrics {
        let entry = |device: &u64| SuppressionEntry {
            subject: SuppressedSubject::Device(DeviceId::from_bytes(id(*device))),
            received: Timestamp::MAX,
            pending: true,
            lifted_from: None,
        };
        let suppressions = SuppressionSet::new(self.erased.len() as u64, self.erased.iter().map(entry));
        let view = block_on(ReadView::open(&self.warehouse, Arc::new(suppressions))).unwrap();
        Metrics::new(view, Completeness { watermark: Timestamp::MAX, closed_before: closed_before() })
    }
    fn batch(&self, request: &MetricRequest, k: u32) -> RecordBatch {
        let engine = self.engine().with_issues(Issues::new(self.ledger.clone(), 1 << 30));
        block_on(engine.run_metric(request, Guard::K(k))).unwrap_or_else(|error| panic!("{request:?}: {error}"))
    }
    fn ask(&self, request: &MetricRequest) -> Vec<Row> {
        rows(&self.batch(request, K))
    }
    /// What the tables give, under the guard, whatever was issued.
    fn fresh(&self, request: &MetricRequest) -> Vec<Row> {
        rows(&block_on(self.engine().run_metric(request, Guard::K(K))).unwrap())
    }
}

fn closed_before() -> Month {
    "2018-10".parse().unwrap()
}

fn variants() -> Vec<MetricRequest> {
    let mut requests = Vec::new();
    for name in ["activations", "installed_base", "dau", "wau", "mau28", "mau", "stickiness", "wakes", "retention", "growth"] {
        for by in [vec![], vec!["country"], vec!["country", "product"]] {
            let plain = MetricRequest::named(name).by(by);
            match name {
                "mau" | "dau" | "stickiness" => requests.push(MetricRequest { unit: Unit::User, ..plain.clone() }),
                "activations" => requests.push(MetricRequest { grain: Some(Grain::Week), ..plain.clone() }),
                "wakes" => {
                    requests.push(MetricRequest { grain: Some(Grain::Month), ..plain.clone() });
                    requests.push(MetricRequest { cumulative: true, ..plain.clone() });
                }
                "installed_base" => requests.push(MetricRequest { active_in: Some(40), ..plain.clone() }),
                _ => {}
            }
            requests.push(plain);
        }
    }
    requests
}

/// One number of an answer: date, texts (with the offset of retention).
type Place = (i32, Vec<Option<String>>);

fn numbers(request: &MetricRequest, rows: &[Row]) -> BTreeMap<Place, f64> {
    let mut numbers = BTreeMap::new();
    for (date, texts, values, _) in rows {
        let (mut texts, mut value) = (texts.clone(), values[0]);
        let mut month = ameles_core::Day::from_epoch_days(*date).month();
        if request.name == "retention" {
            texts.push(Some(values[0].to_string()));
            value = values[1];
            month = month.plus(values[0] as i32);
        }
        let ends = match request.grain {
            Some(Grain::Week) => ameles_core::Day::from_epoch_days(date + 6).month(),
            _ => month,
        };
        if ends < closed_before() {
            numbers.insert((*date, texts), value);
        }
    }
    numbers
}

fn is_safe(difference: f64) -> bool {
    difference.abs() < 1e-9 || difference.abs() > f64::from(K) - 1e-9
}

/// Neither a number, nor a total, nor `(other)` with the labels that moved, differs by fewer than `k` devices.
fn check_pair(request: &MetricRequest, one: &BTreeMap<Place, f64>, other: &BTreeMap<Place, f64>) {
    let counts_devices = request.unit == Unit::Device && !matches!(request.name.as_str(), "stickiness" | "wakes");
    if !counts_devices {
        return;
    }
    let is_other = |place: &Place| place.1.iter().any(|text| text.as_deref() == Some("(other)"));
    let mut blocks: BTreeMap<i32, [f64; 2]> = BTreeMap::new();
    let places: BTreeSet<&Place> = one.keys().chain(other.keys()).collect();
    for place in places {
        let values = [one.get(place), other.get(place)].map(|value| value.copied().unwrap_or(0.0));
        if one.contains_key(place) && other.contains_key(place) && !is_other(place) {
            assert!(is_safe(values[1] - values[0]), "{request:?} {place:?}: {values:?}");
        } else {
            let block = blocks.entry(place.0).or_default();
            block[0] += values[0];
            block[1] += values[1];
        }
    }
    // Where kinds and offsets may be left out, or running totals begin later, sums are not of the same people.
    if matches!(request.name.as_str(), "mau" | "dau" | "activations") {
        for (date, block) in blocks {
            let shown = |numbers: &BTreeMap<Place, f64>| numbers.keys().any(|place| place.0 == date);
            if shown(one) && shown(other) {
                assert!(is_safe(block[1] - block[0]), "{request:?} {date}: (other) and moved {block:?}");
            }
        }
    }
}

#[test]
fn no_two_answers_differ_by_fewer_than_k_devices() {
    let mut moved = 0;
    let mut held = 0;
    for seed in 201..203 {
        let fleet = Fleet::random(seed, 90, true);
        let mut world = World::new(&fleet);
        let mut dice = Dice::new(seed);
        let requests = variants();
        // What each series showed, and how many had been erased when a number was first shown.
        let mut history: Vec<Vec<BTreeMap<Place, f64>>> = vec![Vec::new(); requests.len()];
        let mut since: Vec<BTreeMap<Place, (f64, BTreeSet<u64>)>> = vec![BTreeMap::new(); requests.len()];
        // Totals of the states that series of one metric were issued in as a whole.
        let mut states: Vec<BTreeMap<i32, f64>> = Vec::new();
        for round in 0..7 {
            for (at, request) in requests.iter().enumerate() {
                if dice.below(3) == 0 {
                    continue;
                }
                let answer = world.ask(request);
                assert_eq!(answer, world.ask(request), "asked again at once: {request:?}");
                let shown = numbers(request, &answer);
                let is_fresh = shown == numbers(request, &world.fresh(request));
                held += usize::from(!is_fresh);
                if is_fresh && request.name == "mau" && request.unit == Unit::Device {
                    let mut sums: BTreeMap<i32, f64> = BTreeMap::new();
                    shown.iter().for_each(|((date, _), value)| *sums.entry(*date).or_default() += value);
                    states.push(sums);
                }
                // A running total moves in steps: what two answers far apart show may be close although their devices are not.
                let far = if request.name == "installed_base" { 1 } else { usize::MAX };
                for before in history[at].iter().rev().take(far) {
                    check_pair(request, before, &shown);
                }
                for (place, value) in &shown {
                    match since[at].get(place) {
                        Some((known, erased)) if known != value => {
                            moved += 1;
                            let gone: BTreeSet<u64> = world.erased.difference(erased).copied().collect();
                            assert!(gone.len() >= K as usize, "{request:?} {place:?}: {known} became {value} by {gone:?}");
                        }
                        Some(_) => continue,
                        None => {}
                    }
                    since[at].insert(place.clone(), (*value, world.erased.clone()));
                }
                history[at].push(shown);
            }
            check_across(&states);
            let count = [1, 2, 3, 12, 1, 20, 2][round];
            for _ in 0..count {
                world.erased.insert(dice.below(90));
            }
        }
        // The operator sees all of it at once.
        for request in &requests {
            let all = rows(&block_on(world.engine().run_metric(request, Guard::None)).unwrap());
            assert_eq!(all, rows(&world.batch(request, 1)), "{request:?}");
        }
    }
    assert!(moved > 100 && held > 100, "a test in which nothing is issued anew, or nothing held back: {moved} {held}");
}

/// Series of one month against each other: what they show as a whole is of one state, or of states that are far enough apart.
fn check_across(states: &[BTreeMap<i32, f64>]) {
    for one in states {
        for other in states {
            for (date, total) in one {
                let difference = total - other.get(date).copied().unwrap_or(*total);
                assert!(is_safe(difference), "{date}: {total} and {other:?}");
            }
        }
    }
}

/// Devices of two countries that do the same on the same days.
fn alike(devices: u64) -> Fleet {
    let mut events = Vec::new();
    for device in 0..devices {
        for (at, day) in ["2018-07-04", "2018-07-11", "2018-08-03", "2018-08-20", "2018-09-05", "2018-10-02"].iter().enumerate() {
            // A quarter stays away in August, and comes back; another does not.
            if (at / 2 == 1 && device % 4 == 1) || (at >= 4 && device % 4 == 2) {
                continue;
            }
            for kind in ["activate", "wake", "wake"] {
                let ts = day.parse::<ameles_core::Day>().unwrap().start().plus_secs(3_600);
                let dims = [Some("tv".to_owned()), Some(if device % 8 < 4 { "DE" } else { "FR" }.to_owned())];
                let key = events.len() as u64 + 1;
                events.push(Event { device, user: Some(device), ts, key, kind, dims });
            }
        }
    }
    Fleet { events, has_user: true }
}

#[test]
fn what_has_changed_by_enough_in_every_respect_is_issued_anew() {
    let fleet = alike(160);
    let mut world = World::new(&fleet);
    let requests: Vec<MetricRequest> = variants().into_iter().filter(|request| request.active_in.is_none()).collect();
    let before: Vec<Vec<Row>> = requests.iter().map(|request| world.ask(request)).collect();
    world.erased.extend([0, 1, 2]);
    for (request, before) in requests.iter().zip(&before) {
        let closed = |rows: &[Row]| numbers(request, rows);
        assert_eq!(closed(&world.ask(request)), closed(before), "{request:?}");
        assert_ne!(closed(&world.fresh(request)), closed(before), "{request:?}: a test in which nothing changes");
    }
    // Eight of each kind in each country.
    world.erased.extend(0..64);
    for request in &requests {
        assert_eq!(world.ask(request), world.fresh(request), "{request:?}");
    }
}

#[test]
fn a_first_question_is_answered_from_the_tables_unless_others_have_been_told() {
    let fleet = alike(80);
    let mut world = World::new(&fleet);
    world.erased.extend([0, 1]);
    let (mau, by_country) = (MetricRequest::named("mau"), MetricRequest::named("mau").by(["country"]));
    assert_eq!(world.ask(&by_country), world.fresh(&by_country));
    world.erased.insert(2);
    // One device, which was in it until now: its number would follow.
    let batch = world.batch(&mau, K);
    assert_eq!(batch.schema_ref().metadata().get(HELD_BACK).map(String::as_str), Some("2018-07,2018-08"));
    let told: Vec<i32> = rows(&batch).into_iter().map(|row| row.0).collect();
    let months = |from: usize| world.fresh(&mau).into_iter().skip(from).map(|row| row.0).collect::<Vec<_>>();
    assert_eq!(told, months(2), "device 2 was not seen in September, which nothing was erased of");
    world.erased.extend(3..20);
    let batch = world.batch(&mau, K);
    assert!(batch.schema_ref().metadata().is_empty());
    assert_eq!(rows(&batch), world.fresh(&mau));
}

#[test]
fn order_of_dimensions_period_and_repeated_filters_are_one_series() {
    let fleet = alike(80);
    let mut world = World::new(&fleet);
    let one =
        MetricRequest { filters: vec!["product=tv,phone".parse().unwrap()], ..MetricRequest::named("mau").by(["country", "product"]) };
    let day = |text: &str| Some(text.parse().unwrap());
    world.ask(&one);
    world.erased.extend([0, 1, 2]);
    let other = MetricRequest {
        filters: vec!["product=phone,tv,tv".parse().unwrap(), "product=tv,phone".parse().unwrap()],
        from: day("2018-08-01"),
        to: day("2018-08-31"),
        grain: Some(Grain::Month),
        ..MetricRequest::named("mau").by(["product", "country"])
    };
    let rows = world.ask(&other);
    assert_eq!(rows.iter().map(|row| (row.1[1].as_deref().unwrap(), row.2[0])).collect::<Vec<_>>(), [("DE", 30.0), ("FR", 30.0)]);
}

#[test]
fn a_kept_answer_and_a_table_in_sql_are_what_was_issued() {
    let fleet = alike(80);
    let mut world = World::new(&fleet);
    let mau = MetricRequest::named("mau");
    let before = world.ask(&mau);
    world.erased.extend([0, 1, 2]);
    let kept = Arc::new(KeptAnswers::new(1 << 20));
    let engine = world.engine().with_kept(Arc::clone(&kept)).with_issues(Issues::new(world.ledger.clone(), 1 << 30));
    for _ in 0..2 {
        assert_eq!(rows(&block_on(engine.run_metric(&mau, Guard::K(K))).unwrap())[..3], before[..3]);
    }
    assert!(kept.bytes() > 0);
    let sum = block_on(engine.run_sql("SELECT sum(value) AS v FROM mau WHERE date < DATE '2018-10-01'", Guard::K(K))).unwrap();
    let sum = arrow::util::display::array_value_to_string(sum[0].column(0), 0).unwrap();
    assert_eq!(sum.parse::<f64>().unwrap(), before[..3].iter().map(|row| row.2[0]).sum::<f64>());
}

#[test]
fn what_has_no_room_is_refused_and_not_told() {
    let fleet = alike(80);
    let world = World::new(&fleet);
    let engine = world.engine().with_issues(Issues::new(world.ledger.clone(), 100));
    let refused = block_on(engine.run_metric(&MetricRequest::named("dau"), Guard::K(K))).unwrap_err();
    assert!(matches!(refused, QueryError::Issued(LedgerError::IssuedFull { .. })) && refused.is_callers_fault(), "{refused}");
    assert!(refused.to_string().contains("privacy.issued_mb_max"), "{refused}");
    block_on(engine.run_metric(&MetricRequest::named("dau"), Guard::None)).unwrap();
    let issued = block_on(world.ledger.issued("anything", (Month::from_epoch_months(0), closed_before()))).unwrap();
    assert_eq!((issued.turn, issued.marks.len()), (0, 0));
}

/// Somebody else issues between the look and the write: the second decides again.
#[test]
fn two_who_issue_at_once_do_not_overlook_each_other() {
    let fleet = alike(80);
    let mut world = World::new(&fleet);
    let before = world.engine().with_issues(Issues::new(world.ledger.clone(), 1 << 30));
    world.erased.extend([0, 1, 2]);
    let after = world.engine().with_issues(Issues::new(world.ledger.clone(), 1 << 30));
    let mau = MetricRequest::named("mau");
    let (one, other) = block_on(async { futures::join!(before.run_metric(&mau, Guard::K(K)), after.run_metric(&mau, Guard::K(K))) });
    let closed = |batch: RecordBatch| numbers(&mau, &rows(&batch));
    assert_eq!(closed(one.unwrap()), closed(other.unwrap()));
    let stale = Issue { turn: 0, ..Issue::default() };
    assert!(!block_on(world.ledger.issue("x", &stale, 1 << 20)).unwrap());
}

/// The reference and the tables agree on the fleet that the tests above rest on.
#[test]
fn the_fleet_of_two_countries_is_what_it_is_taken_for() {
    let fleet = alike(80);
    let sets = Reference::new(&fleet, &MetricRequest::named("mau")).sets().unwrap();
    assert_eq!(sets.values().map(BTreeSet::len).collect::<Vec<_>>(), [80, 60, 60, 60]);
}
