//! Retention by kept cohorts against the statement, and what becomes of them when months change.

use std::path::PathBuf;
use std::sync::Arc;

use ameles_core::{ManualClock, Month, SeededRandom, SharedClock, SuppressionSet, Timestamp};
use ameles_store::{Maintainer, ReadView, Warehouse};

use super::differential::variants;
use super::direct::{MONTHS, settle, suppressed};
use super::fleet::Fleet;
use super::warehouse::store;
use super::{Row, block_on, rows};
use crate::count::{Sizes, keep_cohorts};
use crate::{Completeness, Guard, MetricRequest, Metrics};

/// So few rows that samples do not suffice, and so many that they do.
const SIZES: [Sizes; 2] =
    [Sizes { bucket_rows: 4, sample: (8, 16), kept_rows: 8 }, Sizes { bucket_rows: 64, sample: (1 << 20, 1 << 20), kept_rows: 1 << 20 }];

fn requests() -> Vec<MetricRequest> {
    let day = |text: &str| Some(text.parse().unwrap());
    let mut requests = variants("retention");
    requests.push(MetricRequest { from: day("2018-08-01"), ..MetricRequest::named("retention") });
    requests.push(MetricRequest { to: day("2018-08-31"), ..MetricRequest::named("retention") });
    requests.push(MetricRequest { from: day("2018-08-01"), to: day("2018-08-31"), ..MetricRequest::named("retention") });
    requests
}

fn answers(warehouse: &Warehouse, suppressions: SuppressionSet, sizes: Option<Sizes>) -> Vec<Vec<Row>> {
    let view = block_on(ReadView::open(warehouse, Arc::new(suppressions))).unwrap();
    let completeness = Completeness { watermark: Timestamp::MAX, closed_before: Month::from_epoch_months(600) };
    let engine = Metrics::new(view, completeness);
    let engine = match sizes {
        Some(sizes) => engine.with_sizes(sizes),
        None => engine.by_statements(),
    };
    let guards = [Guard::None, Guard::K(2), Guard::K(9)];
    let requests = requests();
    let asked = requests.iter().flat_map(|request| guards.map(|guard| (request, guard)));
    asked.map(|(request, guard)| rows(&block_on(engine.run_metric(request, guard)).unwrap())).collect()
}

fn check(warehouse: &Warehouse, suppressions: &SuppressionSet, state: &str) {
    let expected = answers(warehouse, suppressions.clone(), None);
    for sizes in SIZES {
        assert_eq!(answers(warehouse, suppressions.clone(), Some(sizes)), expected, "{state}");
    }
}

fn maintained<T>(warehouse: &Warehouse, work: impl AsyncFnOnce(&mut Maintainer) -> T) -> T {
    block_on(async { work(&mut warehouse.try_maintainer(&SeededRandom::new(99)).await.unwrap().unwrap()).await })
}

fn keep(warehouse: &Warehouse) -> Vec<String> {
    let months = maintained(warehouse, async |maintainer| keep_cohorts(maintainer, 0).await.unwrap());
    months.iter().map(ToString::to_string).collect()
}

fn files(warehouse: &Warehouse) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(warehouse.root().join("_ameles/cohorts")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn kept_cohorts_give_what_the_statement_gives() {
    for (seed, devices) in [(91, 60), (92, 700)] {
        let fleet = Fleet::random(seed, devices, true);
        let folder = tempfile::tempdir().unwrap();
        let warehouse = block_on(store(&fleet, folder.path()));
        let nothing = SuppressionSet::default();
        settle(&warehouse, 5, &MONTHS[1..3], nothing.clone());
        assert!(keep(&warehouse).is_empty(), "July is not settled, and activations before a month count");
        settle(&warehouse, 6, &MONTHS[..1], nothing.clone());
        assert_eq!(keep(&warehouse), MONTHS[..3]);
        assert!(keep(&warehouse).is_empty(), "they are kept");
        check(&warehouse, &nothing, "October is open");
        settle(&warehouse, 7, &MONTHS[3..], nothing.clone());
        check(&warehouse, &nothing, "October has no codes");
        assert_eq!(keep(&warehouse), MONTHS[3..]);
        check(&warehouse, &nothing, "all settled");
        check(&warehouse, &suppressed(true, &[3, 11], &[8]), "erasures pending");

        // August's activations are others, and so is what is kept of the months after it; those before stay.
        let gone: Vec<u64> = (0..30).collect();
        let erased = suppressed(false, &gone, &[]);
        settle(&warehouse, 8, &MONTHS[1..2], erased.clone());
        check(&warehouse, &erased, "August has changed");
        assert_eq!(keep(&warehouse), MONTHS[1..]);
        check(&warehouse, &erased, "kept anew");
    }
}

#[test]
fn codes_of_files_that_are_gone_go_with_the_purge() {
    let fleet = Fleet::random(93, 80, true);
    let folder = tempfile::tempdir().unwrap();
    let warehouse = block_on(store(&fleet, folder.path()));
    settle(&warehouse, 5, &MONTHS, SuppressionSet::default());
    keep(&warehouse);
    let before = files(&warehouse);
    let gone: Vec<u64> = (0..30).collect();
    settle(&warehouse, 6, &MONTHS[2..3], suppressed(false, &gone, &[]));
    std::fs::write(before[0].with_extension("codes#123000000001"), b"staged by a process that crashed").unwrap();
    let clock: SharedClock = Arc::new(ManualClock::new(Timestamp::MAX));
    maintained(&warehouse, async |maintainer| maintainer.purge(0, &clock).await.unwrap());
    assert_eq!(files(&warehouse), before[..2], "July and August are as they were");
}

#[test]
fn damaged_codes_are_not_believed_and_others_are_made_use_of() {
    let fleet = Fleet::random(94, 500, true);
    let folder = tempfile::tempdir().unwrap();
    let warehouse = block_on(store(&fleet, folder.path()));
    let nothing = SuppressionSet::default();
    settle(&warehouse, 5, &MONTHS, nothing.clone());
    keep(&warehouse);
    let august = files(&warehouse)[1].clone();
    let codes = std::fs::read(&august).unwrap();

    std::fs::write(&august, &codes[..codes.len() - 1]).unwrap();
    check(&warehouse, &nothing, "cut short");
    assert_eq!(keep(&warehouse), ["2018-08"]);
    assert_eq!(std::fs::read(&august).unwrap(), codes, "made anew, and the same");

    let mut others = codes.clone();
    others[16..].fill(0);
    std::fs::write(&august, &others).unwrap();
    check(&warehouse, &nothing, "more active than were activated");

    // The counts are those of the codes: a wrong one that could be right makes a wrong answer.
    let mut wrong = codes;
    let place = wrong.iter().skip(16).position(|code| *code == 1).unwrap() + 16;
    wrong[place] = ameles_store::NEVER;
    std::fs::write(&august, &wrong).unwrap();
    assert_ne!(answers(&warehouse, nothing.clone(), Some(SIZES[1])), answers(&warehouse, nothing, None));
}
