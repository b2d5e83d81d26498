//! Counting from columns against the statements of `queries/`, in every state that months and erasures can be in.

use std::sync::Arc;

use ameles_core::{DeviceId, Month, SeededRandom, SuppressedSubject, SuppressionEntry, SuppressionSet, Timestamp, UserId};
use ameles_store::{ReadView, Rewrite, Warehouse};

use super::differential::{METRICS, variants};
use super::fleet::{Fleet, id};
use super::warehouse::store;
use super::{block_on, rows};
use crate::count::Sizes;
use crate::{Completeness, Guard, Metrics};

pub const MONTHS: [&str; 4] = ["2018-07", "2018-08", "2018-09", "2018-10"];

pub fn suppressed(pending: bool, devices: &[u64], users: &[u64]) -> SuppressionSet {
    let devices = devices.iter().map(|device| SuppressedSubject::Device(DeviceId::from_bytes(id(*device))));
    let users = users.iter().map(|user| SuppressedSubject::User(UserId::from_bytes(id(*user))));
    let entry = |subject| SuppressionEntry { subject, received: Timestamp::MAX, pending, lifted_from: None };
    SuppressionSet::new(1, devices.chain(users).map(entry))
}

pub fn settle(warehouse: &Warehouse, seed: u64, months: &[&str], suppressions: SuppressionSet) {
    // A generation's name is drawn, and no name is used twice.
    let random = SeededRandom::new(seed);
    block_on(async {
        let maintainer = warehouse.try_maintainer(&random).await.unwrap().unwrap();
        let spec = Rewrite { suppressed: Arc::new(suppressions), closed: false };
        for month in months {
            maintainer.rewrite_month(month.parse().unwrap(), &spec, &|_| {}).await.unwrap();
        }
    });
}

/// All metrics, each with all its options, for the operator and for analysts.
fn check(warehouse: &Warehouse, suppressions: SuppressionSet, state: &str) {
    let view = block_on(ReadView::open(warehouse, Arc::new(suppressions))).unwrap();
    let completeness = Completeness { watermark: Timestamp::MAX, closed_before: Month::from_epoch_months(600) };
    // So small that there are many buckets, and samples are not all.
    let sizes = Sizes { bucket_rows: 4, sample: (8, 16), kept_rows: 8 };
    let direct = Metrics::new(view, completeness).with_sizes(sizes);
    let by_statements = direct.clone().by_statements();
    let mut dice = state.len() % 3;
    for name in METRICS {
        for request in variants(name) {
            dice = dice % 3 + 1;
            for guard in [Guard::None, Guard::K([2, 5, 9][dice - 1])] {
                let ask = |engine: &Metrics| rows(&block_on(engine.run_metric(&request, guard)).unwrap());
                assert_eq!(ask(&direct), ask(&by_statements), "{state}: {request:?} {guard:?}");
            }
        }
    }
}

#[test]
fn columns_give_what_the_statements_give() {
    let fleet = Fleet::random(81, 90, true);
    let folder = tempfile::tempdir().unwrap();
    let warehouse = block_on(store(&fleet, folder.path()));
    let pending = || suppressed(true, &[3, 11], &[8]);
    check(&warehouse, SuppressionSet::default(), "runs that overlap");
    check(&warehouse, pending(), "runs that overlap, erasures pending");
    settle(&warehouse, 5, &MONTHS[..2], SuppressionSet::default());
    check(&warehouse, SuppressionSet::default(), "partly settled");
    settle(&warehouse, 6, &MONTHS, SuppressionSet::default());
    check(&warehouse, SuppressionSet::default(), "settled");
    check(&warehouse, pending(), "settled, erasures pending");
    settle(&warehouse, 7, &MONTHS, suppressed(false, &[3, 11, 17], &[]));
    check(&warehouse, suppressed(false, &[3, 11, 17], &[]), "erased");
}

#[test]
fn columns_give_what_the_statements_give_of_few_and_of_many_devices() {
    for (seed, devices) in [(82, 9), (83, 40), (84, 400)] {
        let fleet = Fleet::random(seed, devices, true);
        let folder = tempfile::tempdir().unwrap();
        let warehouse = block_on(store(&fleet, folder.path()));
        settle(&warehouse, 5, &MONTHS, SuppressionSet::default());
        check(&warehouse, SuppressionSet::default(), "settled");
    }
}

#[test]
fn the_first_and_last_day_of_the_data_are_those_of_what_is_left() {
    let fleet = Fleet::random(83, 12, true);
    let folder = tempfile::tempdir().unwrap();
    let warehouse = block_on(store(&fleet, folder.path()));
    for settled in [false, true] {
        if settled {
            settle(&warehouse, 5, &MONTHS, SuppressionSet::default());
        }
        // All but one device after the other go.
        for left in 0..12 {
            let gone: Vec<u64> = (0..12).filter(|device| *device != left).collect();
            let view = block_on(ReadView::open(&warehouse, Arc::new(suppressed(true, &gone, &[])))).unwrap();
            let days = || fleet.events.iter().filter(|event| event.device == left).map(super::fleet::Event::day);
            assert_eq!(view.active_days().unwrap(), days().min().zip(days().max()), "{left} {settled}");
        }
    }
}
