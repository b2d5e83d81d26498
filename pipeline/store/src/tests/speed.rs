//! Not run by default: `cargo test --release -p ameles-store speed -- --ignored --nocapture`.
//! `AMELES_KEEP=DIR` leaves the warehouse there for other readers.
#![allow(clippy::print_stderr)]

use std::sync::Arc;
use std::time::Instant;

use ameles_core::{SeededRandom, Subject};
use ameles_schemas::Table;
use arrow::array::{BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use futures::TryStreamExt;

use super::support::*;
use crate::{Append, Locked, ReadView, Rewrite, Warehouse, affected, verify};

const DEVICES: u64 = 253_000;

const fn scramble(number: u64) -> u64 {
    let mixed = (number ^ number >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ mixed >> 32
}

fn many(month: ameles_core::Month, rows: u64, first: u64) -> RecordBatch {
    let start = month.first_day().start().micros();
    let mut events: Vec<(u128, i64, u64)> = (first..first + rows)
        .map(|number| {
            let device = scramble(number) % DEVICES;
            let id = u128::from(scramble(device + 1)) << 64 | u128::from(scramble(device + 7));
            (id, start + (scramble(number + 5) % 2_600_000_000_000) as i64, number)
        })
        .collect();
    events.sort_unstable();
    let text = |texts: &'static [&'static str], salt: u64| {
        let values = events.iter().map(move |event| texts[(scramble(event.2 + salt) % texts.len() as u64) as usize]);
        Arc::new(StringArray::from_iter_values(values))
    };
    let key = |number: u64| (u128::from(scramble(number)) << 64 | u128::from(number)).to_be_bytes();
    RecordBatch::try_new(
        tables().file_schema(Table::Events),
        vec![
            Arc::new(BinaryArray::from_iter_values(events.iter().map(|event| event.0.to_be_bytes()))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(events.iter().map(|event| event.1)).with_timezone("UTC")),
            Arc::new(events.iter().map(|event| (event.2 % 3 > 0).then(|| key(event.0 as u64 >> 8))).collect::<BinaryArray>()),
            text(&["activate", "wake", "wake", "heartbeat", "control"], 1),
            Arc::new(BinaryArray::from_iter_values(events.iter().map(|event| key(event.2)))),
            text(&["speaker", "phone", "laptop", "tv"], 2),
            text(&["DE", "FR", "PL", "IT", "ES"], 3),
            Arc::new(events.iter().map(|event| Some((event.2 % 900) as i64)).collect::<Int64Array>()),
        ],
    )
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute"]
async fn speed_of_a_month_of_3_million_events() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = std::env::var("AMELES_KEEP").map_or_else(|_| temporary.path().to_owned(), std::path::PathBuf::from);
    let warehouse = Warehouse::create(&folder, tables()).await.unwrap();
    let random = SeededRandom::new(1);
    let mut lease = warehouse.lease(&random).await.unwrap();
    let july = month("2018-07");
    let suppressed = Suppressed::default();
    let mut appending = 0.0;
    for part in 0..10 {
        let events = vec![(july, many(july, 333_333, part * 330_000))];
        let at = Instant::now();
        lease.append(Append { events, ..Append::default() }, &suppressed).await.unwrap();
        appending += at.elapsed().as_secs_f64();
    }
    eprintln!("append 10 x 333,333: {appending:.2} s");
    let read = |what: &'static str, set: ameles_core::SuppressionSet| {
        let warehouse = warehouse.clone();
        async move {
            let at = Instant::now();
            let view = ReadView::open(&warehouse, Arc::new(set)).await.unwrap();
            let rows: Vec<RecordBatch> = view.month_stream(Table::Activity, july, None).unwrap().try_collect().await.unwrap();
            eprintln!("{what}: {:.3} s, {} rows", at.elapsed().as_secs_f64(), rows.iter().map(RecordBatch::num_rows).sum::<usize>());
        }
    };
    read("read activity of 10 runs", Default::default()).await;
    let maintainer = warehouse.try_maintainer(&random).await.unwrap().unwrap();
    let at = Instant::now();
    let done = maintainer.rewrite_month(july, &Rewrite::default(), &|_| {}).await.unwrap();
    eprintln!("settle: {:.2} s, {} rows, {} repeats", at.elapsed().as_secs_f64(), done.rows_after, done.duplicates);
    read("read settled activity", Default::default()).await;

    let sample = many(july, 100, 50);
    let ids: Vec<ameles_core::DeviceId> = sample
        .column(0)
        .as_any()
        .downcast_ref::<BinaryArray>()
        .unwrap()
        .iter()
        .flatten()
        .map(|id| ameles_core::DeviceId::from_slice(id).unwrap())
        .collect();
    let entry = |id: &ameles_core::DeviceId| ameles_core::SuppressionEntry {
        subject: ameles_core::SuppressedSubject::Device(*id),
        received: ameles_core::Timestamp::MAX,
        pending: true,
        lifted_from: None,
    };
    let set = ameles_core::SuppressionSet::new(1, ids.iter().map(entry));
    read("read activity with 100 devices pending", set.clone()).await;
    let at = Instant::now();
    let found = affected(&warehouse, &set).await.unwrap();
    eprintln!("affected: {:.2} s, {} rows", at.elapsed().as_secs_f64(), found.rows);
    let at = Instant::now();
    let done = maintainer.rewrite_month(july, &Rewrite { suppressed: Arc::new(set), closed: false }, &|_| {}).await.unwrap();
    eprintln!("erase 100 devices: {:.2} s, {} rows gone", at.elapsed().as_secs_f64(), done.erased_rows);
    let mut maintainer = maintainer;
    maintainer.purge(0, &(Arc::new(ameles_core::SystemClock) as ameles_core::SharedClock)).await.unwrap();
    let subjects: Vec<Subject> = ids.into_iter().map(Subject::Device).collect();
    let at = Instant::now();
    let report = verify::scan_for(&folder, &Locked::default(), &subjects, &|_| {}).await.unwrap();
    eprintln!(
        "scan {} MB, {} files: {:.2} s, {} findings",
        report.bytes >> 20,
        report.files_decoded,
        at.elapsed().as_secs_f64(),
        report.findings.len()
    );
}

/// Commits a second into one month while it is looked after as `serve` does: `AMELES_APPENDS` of them, 3,600 unless told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn files_and_write_amplification_of_an_hour_of_commits() {
    const ROWS: u64 = 500;
    let appends: u64 = std::env::var("AMELES_APPENDS").map_or(3_600, |text| text.parse().unwrap());
    let temporary = tempfile::tempdir().unwrap();
    let warehouse = Warehouse::create(temporary.path(), tables()).await.unwrap();
    let random = SeededRandom::new(1);
    let july = month("2018-07");
    let writing = {
        let (warehouse, random) = (warehouse.clone(), SeededRandom::new(2));
        tokio::spawn(async move {
            let mut lease = warehouse.lease(&random).await.unwrap();
            let suppressed = Suppressed::default();
            let (mut slowest, began) = (0.0_f64, Instant::now());
            for number in 0..appends {
                let events = vec![(july, many(july, ROWS, number * ROWS))];
                let at = Instant::now();
                lease.append(Append { events, ..Append::default() }, &suppressed).await.unwrap();
                slowest = slowest.max(at.elapsed().as_secs_f64());
            }
            (began.elapsed().as_secs_f64(), slowest)
        })
    };
    let mut maintainer = warehouse.try_maintainer(&random).await.unwrap().unwrap();
    let clock = Arc::new(ameles_core::SystemClock) as ameles_core::SharedClock;
    let suppressed = Suppressed::default();
    let (mut most, mut merges, mut rewritten, mut merging) = ([0; Table::ALL.len()], 0, 0, 0.0);
    loop {
        let ended = writing.is_finished();
        let files = |snapshot: &crate::Snapshot| Table::ALL.map(|table| snapshot.files(table).len());
        let before = files(&warehouse.snapshot().await.unwrap());
        most.iter_mut().zip(before).for_each(|(most, now)| *most = now.max(*most));
        let at = Instant::now();
        let done = maintainer.compact_month(july, 16, &suppressed, &|_| {}).await.unwrap();
        merging += at.elapsed().as_secs_f64();
        (merges, rewritten) = (merges + done.merges, rewritten + done.rows);
        maintainer.purge(0, &clock).await.unwrap();
        if ended {
            let (seconds, slowest) = writing.await.unwrap();
            eprintln!("{appends} appends of {ROWS} rows: {seconds:.1} s, the slowest {slowest:.3} s");
            eprintln!(
                "{merges} merges in {merging:.1} s, {rewritten} rows rewritten: {:.2} per row",
                rewritten as f64 / (appends * ROWS) as f64
            );
            eprintln!("files at most {most:?}, at the end {:?} of {:?}", files(&warehouse.snapshot().await.unwrap()), Table::ALL);
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}
