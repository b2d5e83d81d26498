//! Measurements, not tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::io::Write;
use std::time::Duration;

use super::*;
use crate::NoProgress;
use crate::testing::{Home, at, lines};
use std::sync::Arc;

/// `cargo test --release -p ameles-ingest measure -- --ignored --nocapture`; `AMELES_MEASURE_EVENTS` says how many.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
#[allow(clippy::print_stderr)]
async fn measure_events_per_second() {
    let events: u64 = std::env::var("AMELES_MEASURE_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000_000);
    let home = Home::new().await;
    home.clock.set(at("2026-01-01T00:00:00Z"));
    let path = home.path("measured.ndjson");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let start = at("2018-07-01T00:00:00Z").micros();
    for number in 0..events {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let device = mixed % (events / 40 + 1);
        let ts = ameles_core::Timestamp::from_micros(start + (number * 7_900_000_000 / events * 1000) as i64);
        writeln!(
            out,
            r#"{{"event_id":"2e634af2-cfd4-73f5-8163-{number:012x}","device_id":"8000{device:08}","user_id":"u09{:08}","type":"{}","ts":"{ts}","product":"{}","model":"m{:04}","partner":"p{:03}","country":"DE","firmware":"1.{}.16","consent":{{"policy":"2018-05-25","purposes":["analytics"]}},"ip":"203.0.193.24","mac":"38:a7:51:11:30:0e","props":{{"latency_ms":{},"room":"kitchen"}}}}"#,
            device / 2,
            if number % 3 == 0 { "wake" } else { "heartbeat" },
            ["speaker", "phone", "laptop"][device as usize % 3],
            device % 900,
            device % 180,
            device % 9,
            mixed % 1000,
        )
        .unwrap();
    }
    out.flush().unwrap();
    drop(out);
    let began = std::time::Instant::now();
    let lease = home.warehouse.lease(&ameles_core::SystemRandom).await.unwrap();
    let committer = Committer::new(lease, &home.env);
    let inputs = discover::discover(&[path]).unwrap();
    let options = FileOptions::default();
    let (report, touched, committer) = pipeline::run(&home.env, inputs, &options, &NoProgress, committer).await.unwrap();
    let stored = began.elapsed();
    settle::settle(&home.env, touched, committer.lease_id(), &options, &NoProgress).await.unwrap();
    let settled = began.elapsed();
    assert_eq!(report.tally.accepted(), events);
    let rate = |time: Duration| events as f64 / time.as_secs_f64() / 1e6;
    eprintln!("{events} events: stored in {stored:?} ({:.2} M/s), settled in {settled:?} ({:.2} M/s)", rate(stored), rate(settled));
}

/// Decoding and admission alone, one thread.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
#[allow(clippy::print_stderr)]
async fn measure_one_worker() {
    let home = Home::new().await;
    let text = lines(0, 200_000);
    let view =
        crate::admission::View::new(Arc::default(), Arc::new(ameles_ledger::ConsentBook::default()), at("2026-01-01T00:00:00Z"), None);
    let admission = &home.env.admission;
    let mut scratch = crate::decode::Scratch::default();
    let began = std::time::Instant::now();
    for line in crate::lines::Lines::new(text.as_bytes()) {
        assert!(admission.decoder.decode(&mut scratch, line).is_ok());
    }
    let decoded = began.elapsed();
    let mut worker = crate::admission::Worker::new(10);
    let began = std::time::Instant::now();
    let mut part = crate::batch::Part::new("x".into(), view.arrival, 1, &admission.columns, None, 200_000, 0);
    for (line, number) in crate::lines::Lines::new(text.as_bytes()).zip(1..) {
        admission.line(&mut worker, &view, None, line, number, &mut part);
    }
    part.finish();
    let admitted = began.elapsed();
    let began = std::time::Instant::now();
    let columns = &admission.columns;
    let sorted = crate::batch::SortedBatch::new(&home.env.contract, columns, vec![part], crate::batch::HourlyCounts::default());
    for (month, (_, pieces)) in ameles_store::SortedEvents::months(&sorted).into_iter().enumerate() {
        for piece in 0..pieces {
            ameles_store::SortedEvents::piece(&sorted, month, piece).unwrap();
        }
    }
    let per = |time: Duration| time.as_nanos() / 200_000;
    eprintln!(
        "ns per event of {} bytes: decode {}, decode and admit {}, build {}",
        text.len() / 200_000,
        per(decoded),
        per(admitted),
        per(began.elapsed())
    );
}

/// Bytes of one timed piece: small enough for a cache, and for most pieces to pass undisturbed.
const PIECE_BYTES: usize = 128 << 10;
/// Events read from the file.
const MEASURED_EVENTS: usize = 500_000;

/// Each step of one worker by itself, one thread: `AMELES_MEASURE_FILE` names a file of events.
/// Medians over pieces, which neither other processes nor a slow first piece disturb.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
#[allow(clippy::print_stderr)]
async fn measure_steps_of_a_worker() {
    let Some(path) = std::env::var_os("AMELES_MEASURE_FILE") else { return };
    let home = Home::new().await;
    let pieces = pieces(std::path::Path::new(&path));
    let view =
        crate::admission::View::new(Arc::default(), Arc::new(ameles_ledger::ConsentBook::default()), at("2026-01-01T00:00:00Z"), None);
    let admission = &home.env.admission;
    let mut scratch = crate::decode::Scratch::default();
    let mut worker = crate::admission::Worker::new(10);
    let mut steps = [
        "lines",
        "lines, utf8",
        "decode",
        "decode, three hashes",
        "admission",
        "lines known to be text",
        "their decode",
        "their admission",
    ]
    .map(|name| (name, Vec::new()));
    for _ in 0..3 {
        for (text, events) in &pieces {
            let mut seen = 0;
            let mut note = |step: usize, began: std::time::Instant| steps[step].1.push(began.elapsed().as_nanos() as f64 / *events as f64);
            // Into the cache, as a piece comes from the reader.
            let text = text.clone();
            let began = std::time::Instant::now();
            seen += crate::lines::Lines::new(&text).map(<[u8]>::len).sum::<usize>();
            note(0, began);
            let began = std::time::Instant::now();
            seen += crate::lines::Lines::new(&text).filter(|line| std::str::from_utf8(line).is_ok()).count();
            note(1, began);
            let began = std::time::Instant::now();
            for line in crate::lines::Lines::new(&text) {
                seen += usize::from(admission.decoder.decode(&mut scratch, line).is_ok());
            }
            note(2, began);
            let began = std::time::Instant::now();
            for line in crate::lines::Lines::new(&text) {
                let Ok(event) = admission.decoder.decode(&mut scratch, line) else { continue };
                seen += usize::from(admission.keys(&event).is_ok_and(|keys| keys.event_id.is_some()));
            }
            note(3, began);
            let mut part = crate::batch::Part::new("x".into(), view.arrival, 1, &admission.columns, None, *events, 0);
            let began = std::time::Instant::now();
            for (line, number) in crate::lines::Lines::new(&text).zip(1..) {
                admission.line(&mut worker, &view, None, line, number, &mut part);
            }
            note(4, began);
            let began = std::time::Instant::now();
            seen += crate::lines::TextLines::new(&text).count();
            note(5, began);
            let began = std::time::Instant::now();
            for line in crate::lines::TextLines::new(&text) {
                let crate::lines::Line::Text(line) = line else { continue };
                seen += usize::from(admission.decoder.decode_text(&mut scratch, line).is_ok());
            }
            note(6, began);
            let mut part = crate::batch::Part::new("x".into(), view.arrival, 1, &admission.columns, None, *events, 0);
            let began = std::time::Instant::now();
            for (line, number) in crate::lines::TextLines::new(&text).zip(1..) {
                admission.checked_line(&mut worker, &view, None, line, number, &mut part);
            }
            note(7, began);
            assert!(seen > *events && part.rows.len() > events / 2);
        }
    }
    for (name, times) in &mut steps {
        times.sort_by(f64::total_cmp);
        eprintln!("{name}: {:.0} ns per event (a tenth of the pieces under {:.0})", times[times.len() / 2], times[times.len() / 10]);
    }
}

/// Whole lines, and how many.
fn pieces(path: &std::path::Path) -> Vec<(Vec<u8>, usize)> {
    use std::io::BufRead;
    let mut reader = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let mut pieces = vec![(Vec::with_capacity(PIECE_BYTES), 0)];
    for _ in 0..MEASURED_EVENTS {
        let (piece, events) = pieces.last_mut().unwrap();
        if reader.read_until(b'\n', piece).unwrap() == 0 {
            break;
        }
        *events += 1;
        if piece.len() > PIECE_BYTES {
            pieces.push((Vec::with_capacity(PIECE_BYTES), 0));
        }
    }
    pieces.retain(|(_, events)| *events > 100);
    pieces
}
