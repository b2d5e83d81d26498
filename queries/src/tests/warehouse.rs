//! The metrics over a real warehouse: appended in batches that overlap, partly
//! settled, with erasures pending.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use ameles_core::{
    DeviceId, Month, SeededRandom, SuppressedSubject, SuppressionEntry, SuppressionSet, SuppressionSource, SuppressionUnavailable,
    Timestamp, UserId,
};
use ameles_store::{Append, ReadView, Rewrite, Warehouse};
use arrow::record_batch::RecordBatch;

use super::differential::METRICS;
use super::fleet::{Dice, Event, Fleet, id};
use super::reference::Reference;
use super::{block_on, rows};
use crate::{Completeness, Guard, KeptAnswers, MetricRequest, Metrics, Unit};

struct Nothing;

impl SuppressionSource for Nothing {
    fn current(&self) -> Pin<Box<dyn Future<Output = Result<Arc<SuppressionSet>, SuppressionUnavailable>> + Send + '_>> {
        Box::pin(async { Ok(Arc::new(SuppressionSet::default())) })
    }
}

/// One month's events as the store takes them.
fn sorted(events: &[Event], month: Month) -> RecordBatch {
    let mut events: Vec<Event> = events.iter().filter(|event| event.month() == month).cloned().collect();
    events.sort_by_key(|event| (id(event.device), event.ts));
    let batch = Fleet { events, has_user: true }.events_table();
    let columns: Vec<usize> = (0..batch.num_columns() - 1).collect();
    batch.project(&columns).unwrap()
}

pub async fn store(fleet: &Fleet, root: &std::path::Path) -> Warehouse {
    let random = SeededRandom::new(1);
    let warehouse = Warehouse::create(root, fleet.schemas()).await.unwrap();
    let mut dice = Dice::new(77);
    let mut batches: Vec<Vec<Event>> = vec![Vec::new(); 4];
    for event in &fleet.events {
        batches[dice.below(4) as usize].push(event.clone());
    }
    let mut lease = warehouse.lease(&random).await.unwrap();
    for (at, batch) in batches.iter().enumerate() {
        let months: BTreeSet<Month> = batch.iter().map(Event::month).collect();
        let events = months.iter().map(|month| (*month, sorted(batch, *month))).collect();
        lease.append(Append { events, quarantine: None, txns: Vec::new() }, &Nothing).await.unwrap();
        if at == 2 {
            let maintainer = warehouse.try_maintainer(&random).await.unwrap().unwrap();
            let spec = Rewrite { suppressed: Arc::new(SuppressionSet::default()), closed: false };
            maintainer.rewrite_month("2018-07".parse().unwrap(), &spec, &|_| {}).await.unwrap();
        }
    }
    warehouse
}

fn check(warehouse: &Warehouse, left: &Fleet, suppressions: SuppressionSet) {
    let view = block_on(ReadView::open(warehouse, Arc::new(suppressions))).unwrap();
    let completeness = Completeness { watermark: Timestamp::MAX, closed_before: Month::from_epoch_months(600) };
    let engine = Metrics::new(view, completeness);
    for name in METRICS {
        for unit in [Unit::Device, Unit::User] {
            if unit == Unit::User && !matches!(name, "dau" | "wau" | "mau28" | "mau" | "stickiness") {
                continue;
            }
            let request = MetricRequest { unit, ..MetricRequest::named(name).by(["country", "product"]) };
            let expected = Reference::new(left, &request).answer();
            let got = rows(&block_on(engine.run_metric(&request, Guard::None)).unwrap());
            let expected: Vec<f64> = expected.values().map(|values| values[0]).collect();
            let value = usize::from(name == "retention");
            let got: Vec<f64> = got.iter().map(|row| row.2[value]).collect();
            let (mut left, mut right) = (expected, got);
            left.sort_by(f64::total_cmp);
            right.sort_by(f64::total_cmp);
            assert_eq!(left, right, "{request:?}");
            block_on(engine.run_metric(&request, Guard::K(5))).unwrap();
        }
    }
    let counted = block_on(
        engine
            .run_sql("SELECT month, country, count(DISTINCT device), sum(total(wakes)) FROM activity GROUP BY month, country", Guard::K(3)),
    );
    assert!(counted.unwrap().iter().any(|batch| batch.num_rows() > 0));
    let events = block_on(engine.run_sql("SELECT count(*) FROM events", Guard::None)).unwrap();
    let count = arrow::util::display::array_value_to_string(events[0].column(0), 0).unwrap();
    assert_eq!(count, left.events.len().to_string());
}

#[test]
fn a_warehouse_gives_what_its_events_say() {
    let fleet = Fleet::random(71, 40, true);
    let folder = tempfile::tempdir().unwrap();
    let warehouse = block_on(store(&fleet, folder.path()));
    check(&warehouse, &fleet, SuppressionSet::default());

    // A device and a user whose erasure is pending are counted no more.
    let (device, user) = (4, 8);
    let entry = |subject| SuppressionEntry { subject, received: Timestamp::MAX, pending: true, lifted_from: None };
    let subjects =
        [entry(SuppressedSubject::Device(DeviceId::from_bytes(id(device)))), entry(SuppressedSubject::User(UserId::from_bytes(id(user))))];
    let others: BTreeSet<u64> =
        fleet.events.iter().filter(|event| event.user.is_some_and(|seen| seen != user)).map(|event| event.device).collect();
    let theirs: BTreeSet<u64> = fleet.events.iter().filter(|event| event.user == Some(user)).map(|event| event.device).collect();
    let goes = |event: &Event| match event.user {
        _ if event.device == device => true,
        Some(seen) => seen == user,
        None => theirs.contains(&event.device) && !others.contains(&event.device),
    };
    let left = Fleet { events: fleet.events.iter().filter(|event| !goes(event)).cloned().collect(), has_user: true };
    assert!(left.events.len() < fleet.events.len());
    check(&warehouse, &left, SuppressionSet::new(1, subjects));
}

/// What was kept from before a device's erasure was asked for is not given after.
#[test]
fn kept_answers_end_with_the_next_suppression_and_hold_no_answer_without_guard() {
    let fleet = Fleet::random(72, 40, true);
    let folder = tempfile::tempdir().unwrap();
    let warehouse = block_on(store(&fleet, folder.path()));
    let kept = Arc::new(KeptAnswers::new(1 << 20));
    let completeness = Completeness { watermark: Timestamp::MAX, closed_before: Month::from_epoch_months(600) };
    let ask = |suppressions: &SuppressionSet, keep: bool, guard: Guard| {
        let view = block_on(ReadView::open(&warehouse, Arc::new(suppressions.clone()))).unwrap();
        let engine = Metrics::new(view, completeness);
        let engine = if keep { engine.with_kept(Arc::clone(&kept)) } else { engine };
        block_on(engine.run_metric(&MetricRequest::named("mau"), guard)).unwrap()
    };
    let none = SuppressionSet::default();
    ask(&none, true, Guard::None);
    assert_eq!(kept.bytes(), 0);
    let before = ask(&none, true, Guard::K(3));
    assert!(kept.bytes() > 0);
    assert_eq!(before, ask(&none, false, Guard::K(3)));
    let entry = |subject| SuppressionEntry { subject, received: Timestamp::MAX, pending: true, lifted_from: None };
    let erased = SuppressionSet::new(1, [entry(SuppressedSubject::Device(DeviceId::from_bytes(id(4))))]);
    let after = ask(&erased, true, Guard::K(3));
    assert_eq!(after, ask(&erased, false, Guard::K(3)));
    assert_ne!(after, before);
}
