//! What each stage of an ingest costs per event, and the floors beside them.
//!
//! `AMELES_BENCH_FLEET` names a folder that `tests/python/fleet.py` has filled;
//! `make bench` makes one. `benchmarks/tables.py` makes the table of it.

mod data;
mod floors;

use std::time::Duration;

use ameles_core::{Random, SystemRandom, Timestamp};
use ameles_ingest::DuplicateMemory;
use ameles_ingest::bench::{Admitted, Stages};
use ameles_pseudonym::{DomainHasher, LANES, Waiting};
use ameles_schemas::Table;
use ameles_store::Append;
use ameles_store::bench::encode;
use ameles_store::rollup::roll_up;
use anyhow::{Context, Result, ensure};
use arrow::array::RecordBatch;
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput};

use data::{Events, Home};

/// Lines that are decoded, hashed, sorted and encoded.
const EVENTS: usize = 400_000;
/// Events of a batch that is looked up in the duplicate memory, and those that it knows.
const LOOKED_UP: usize = 100_000;
const REMEMBERED: u128 = 2_000_000;
/// Memory of the duplicate memory: enough for all, and so little that most is spilled.
const ROOMY_BYTES: usize = 256 << 20;
const TIGHT_BYTES: usize = 8 << 20;
/// Events of a small commit, as a group of HTTP requests makes one.
const COMMITTED: usize = 500;

fn main() -> Result<()> {
    let folder = std::env::var_os("AMELES_BENCH_FLEET").context("AMELES_BENCH_FLEET must name a folder of events: see `make bench`")?;
    let events = Events::read(&std::path::Path::new(&folder).join("part-0.ndjson"), EVENTS)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let home = runtime.block_on(Home::create())?;
    let mut criterion = Criterion::default()
        .configure_from_args()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .sample_size(10)
        .nresamples(2_000)
        .without_plots();
    workers(&mut criterion, &events, &home)?;
    hashes(&mut criterion, &events, &home)?;
    duplicates(&mut criterion, &home)?;
    let month = batches(&mut criterion, &events, &home)?;
    commits(&mut criterion, &runtime, &home, &month)?;
    criterion.final_summary();
    Ok(())
}

fn group<'a>(criterion: &'a mut Criterion, name: &str, events: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(events as u64));
    group
}

/// What a worker does with a chunk: each stage holds those before it.
fn workers(criterion: &mut Criterion, events: &Events, home: &Home) -> Result<()> {
    let mut stages = Stages::new(&home.env);
    let mut chunk_of = vec![0; events.chunks.iter().map(|(chunk, _)| chunk.len()).max().unwrap_or_default()];
    ensure!(floors::read(&events.path, events.bytes, &mut chunk_of)? == events.bytes, "the file has become shorter");
    let mut group = group(criterion, "worker", events.count);
    group.bench_function("floor: read from the page cache", |bench| {
        bench.iter(|| floors::read(&events.path, events.bytes, &mut chunk_of).is_ok());
    });
    group.bench_function("floor: copy in memory", |bench| {
        bench.iter(|| events.chunks.iter().for_each(|(chunk, _)| floors::copy(chunk, &mut chunk_of[..chunk.len()])));
    });
    group.bench_function("lines, text", |bench| {
        bench.iter(|| events.chunks.iter().map(|(chunk, _)| Stages::lines(chunk)).sum::<usize>());
    });
    group.bench_function("+ decode, validate", |bench| {
        bench.iter(|| events.chunks.iter().map(|(chunk, _)| stages.decode(chunk)).sum::<usize>());
    });
    group.bench_function("+ three keyed hashes", |bench| {
        bench.iter(|| events.chunks.iter().map(|(chunk, _)| stages.decode_and_hash(chunk)).sum::<usize>());
    });
    group.bench_function("+ admission, columns", |bench| {
        bench.iter(|| {
            for (chunk, _) in &events.chunks {
                drop(stages.admit(chunk));
            }
        });
    });
    group.finish();
    Ok(())
}

/// HMACs of a device, a user and an event id.
fn hashes(criterion: &mut Criterion, events: &Events, home: &Home) -> Result<()> {
    let [device, user, event] = [home.keyring.hasher("device")?, home.keyring.hasher("user")?, home.keyring.hasher("event")?];
    let mut group = group(criterion, "three hashes", events.identifiers.len());
    group.bench_function("floor: six compressions", |bench| bench.iter(|| floors::compressions(3 * events.identifiers.len())));
    group.bench_function("one after the other", |bench| {
        bench.iter(|| {
            let sum = |sum: u8, [one, two, three]: &[String; 3]| {
                sum ^ device.bytes16(one.as_bytes())[0] ^ user.bytes16(two.as_bytes())[0] ^ event.bytes16(three.as_bytes())[0]
            };
            events.identifiers.iter().fold(0, sum)
        });
    });
    group.bench_function("side by side", |bench| {
        bench.iter(|| {
            let sum = |sum: u8, [one, two, three]: &[String; 3]| {
                let each = [(&device, one.as_bytes()), (&user, two.as_bytes()), (&event, three.as_bytes())];
                DomainHasher::bytes16_each(each).iter().fold(sum, |sum, key| sum ^ key[0])
            };
            events.identifiers.iter().fold(0, sum)
        });
    });
    group.bench_function("sixteen events at once", |bench| {
        let hashers = [&device, &user, &event];
        let mut waiting = [Waiting::default(), Waiting::default(), Waiting::default()];
        bench.iter(|| {
            let mut sum = 0;
            for identifiers in events.identifiers.chunks(LANES) {
                for (lane, texts) in identifiers.iter().enumerate() {
                    for (waiting, text) in waiting.iter_mut().zip(texts) {
                        waiting.put(lane, text.as_bytes());
                    }
                }
                for (hasher, waiting) in hashers.iter().zip(&waiting) {
                    sum ^= hasher.numbers(waiting, identifiers.len())[0];
                }
            }
            sum
        });
    });
    group.finish();
    Ok(())
}

/// The memory of recent events, looked up by the batch.
fn duplicates(criterion: &mut Criterion, home: &Home) -> Result<()> {
    let now = Timestamp::from_micros(1_531_224_000_000_000);
    let event = |number: u128| (number % 500_000, number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) | 1, now);
    let batch = |first: u128| (first..first + LOOKED_UP as u128).map(event);
    let mut group = group(criterion, "duplicates", LOOKED_UP);
    for (name, bytes) in [("in memory", ROOMY_BYTES), ("mostly spilled", TIGHT_BYTES)] {
        let mut memory = DuplicateMemory::new(bytes, &home.folder.path().join(name), &SystemRandom)?;
        for first in (0..REMEMBERED).step_by(LOOKED_UP) {
            let checked = memory.check(batch(first))?;
            memory.remember(&checked, |_| true, now)?;
        }
        ensure!(memory.check(batch(0))?.is_repeat(0) && !memory.check(batch(REMEMBERED))?.is_repeat(0), "the memory is wrong");
        group.bench_function(format!("new, {name}"), |bench| bench.iter(|| memory.check(batch(REMEMBERED)).is_ok()));
        group.bench_function(format!("repeats, {name}"), |bench| bench.iter(|| memory.check(batch(REMEMBERED / 2)).is_ok()));
    }
    group.finish();
    Ok(())
}

/// From admitted rows to files; gives the rows of the first month.
fn batches(criterion: &mut Criterion, events: &Events, home: &Home) -> Result<(ameles_core::Month, RecordBatch)> {
    let mut stages = Stages::new(&home.env);
    let mut admit = || -> Vec<Admitted> { events.chunks.iter().map(|(chunk, _)| stages.admit(chunk)).collect() };
    let sorter = Stages::new(&home.env);
    let pieces = sorter.sort(admit())?;
    let rows = pieces.iter().map(|(_, rows)| rows.num_rows()).sum();
    let mut of_batch = group(criterion, "batch", rows);
    of_batch.bench_function("sort, gather", |bench| {
        bench.iter_batched(&mut admit, |admitted| sorter.sort(admitted).is_ok(), BatchSize::PerIteration);
    });
    let tables = home.env.contract().tables();
    of_batch.bench_function("roll up", |bench| {
        bench.iter(|| pieces.iter().all(|(month, rows)| roll_up(&tables, *month, rows).is_ok()));
    });
    let mut unpacked = Vec::new();
    for (_, rows) in &pieces {
        unpacked.extend(floors::pages(encode(&tables, Table::Events, rows)?)?);
    }
    let (mut compressor, mut into) = (zstd::bulk::Compressor::new(1)?, Vec::new());
    of_batch.bench_function("floor: zstd of the same pages", |bench| {
        bench.iter(|| floors::compress(&unpacked, &mut compressor, &mut into).is_ok());
    });
    of_batch.bench_function("encode", |bench| {
        bench.iter(|| pieces.iter().all(|(_, rows)| encode(&tables, Table::Events, rows).is_ok()));
    });
    of_batch.finish();
    pieces.into_iter().next().context("the file has no event that is admitted")
}

/// A small batch until it is durable: four files, four entries of logs.
fn commits(
    criterion: &mut Criterion,
    runtime: &tokio::runtime::Runtime,
    home: &Home,
    month: &(ameles_core::Month, RecordBatch),
) -> Result<()> {
    let (month, rows) = (month.0, month.1.slice(0, COMMITTED.min(month.1.num_rows())));
    let mut lease = runtime.block_on(home.warehouse.lease(&SystemRandom as &dyn Random))?;
    let mut group = group(criterion, "commit", 1);
    let folder = tempfile::tempdir()?;
    let mut files = 0;
    group.bench_function("floor: one file made durable", |bench| {
        bench.iter(|| {
            files += 1;
            floors::durable_file(folder.path(), files).is_ok()
        });
    });
    group.bench_function(format!("append of {} events", rows.num_rows()), |bench| {
        bench.iter(|| {
            let events = vec![(month, rows.clone())];
            runtime.block_on(lease.append(Append { events, ..Append::default() }, &home.ledger)).is_ok()
        });
    });
    group.finish();
    Ok(())
}
