#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]
use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::PermissionsExt;

use ameles_core::{SeededRandom, SystemRandom};
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn memory(bytes_max: usize) -> (DuplicateMemory, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (DuplicateMemory::new(bytes_max, &folder.path().join("spill"), &SystemRandom).unwrap(), folder)
}

#[test]
fn remembers_two_days_of_event_time() {
    let (mut memory, _folder) = memory(1 << 20);
    let now = at("2018-07-10T12:00:00Z");
    memory.insert(1, 1, at("2018-07-08T23:00:00Z"), now).unwrap();
    assert!(memory.contains(1, 1, at("2018-07-08T01:00:00Z")).unwrap(), "by day");
    assert!(!memory.contains(1, 2, at("2018-07-08T23:00:00Z")).unwrap());
    assert!(!memory.contains(2, 1, at("2018-07-08T23:00:00Z")).unwrap());
    memory.insert(1, 2, at("2018-07-11T01:00:00Z"), now).unwrap(); // a fast clock pushes nothing out
    assert!(memory.contains(1, 1, at("2018-07-08T23:00:00Z")).unwrap());
    memory.insert(1, 3, at("2018-07-11T01:00:00Z"), at("2018-07-11T02:00:00Z")).unwrap();
    assert!(!memory.contains(1, 1, at("2018-07-08T23:00:00Z")).unwrap());
    assert!(memory.contains(1, 2, at("2018-07-11T01:00:00Z")).unwrap());
    assert_eq!(memory.len(), 2);
}

#[test]
fn a_repeat_with_another_days_time_is_one_within_its_month() {
    let (mut memory, _folder) = memory(1 << 20);
    let now = at("2018-08-02T12:00:00Z");
    let days = ["2018-07-31T23:59:59Z", "2018-08-01T00:00:01Z", "2018-08-02T00:00:01Z"].map(at);
    let checked = memory.check(days.map(|ts| (1, 1, ts))).unwrap();
    assert_eq!([0, 1, 2].map(|place| checked.is_repeat(place)), [false, false, true], "July's is another event");
    memory.remember(&checked, |_| true, now).unwrap();
    memory.insert(1, 2, days[1], now).unwrap();
    let checked = memory.check([(1, 2, days[2]), (1, 2, days[0]), (1, 1, at("2018-08-03T00:00:00Z"))]).unwrap();
    assert_eq!([0, 1, 2].map(|place| checked.is_repeat(place)), [true, false, true]);
    assert_eq!((memory.contains(1, 2, days[2]).unwrap(), memory.contains(1, 2, days[0]).unwrap()), (true, false));
}

#[test]
fn events_without_an_id_have_no_repeats() {
    let (mut memory, _folder) = memory(1 << 20);
    let now = at("2018-07-10T12:00:00Z");
    memory.insert(3, 0, now, now).unwrap();
    assert!(!memory.contains(3, 0, now).unwrap());
    let checked = memory.check([(3, 0, now), (3, 0, now)]).unwrap();
    assert!(!checked.is_repeat(0) && !checked.is_repeat(1));
    memory.remember(&checked, |_| true, now).unwrap();
    assert!(memory.is_empty());
}

#[test]
fn what_memory_has_no_room_for_is_spilled_and_found() {
    let (mut memory, folder) = memory(64 << 10);
    let now = at("2018-07-10T12:00:00Z");
    for key in 1..=100_000 {
        memory.insert(1, key, now, now).unwrap();
    }
    assert_eq!(memory.len(), 100_000);
    assert!(memory.bytes() <= 64 << 10, "{} bytes", memory.bytes());
    assert!(memory.runs().count() > 1 && memory.runs().count() < 3 * FAN_IN, "{} runs", memory.runs().count());
    let checked = memory.check((1..=200_000).map(|key| (1, key, now))).unwrap();
    assert!((0..200_000).all(|at| checked.is_repeat(at) == (at < 100_000)));
    let spill = folder.path().join("spill");
    assert_eq!(std::fs::metadata(&spill).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::read_dir(&spill).unwrap().count(), 0, "a spilled file has no name");
    memory.insert(1, 1, at("2018-07-14T00:00:00Z"), at("2018-07-14T00:00:00Z")).unwrap();
    assert_eq!((memory.len(), memory.runs().count()), (1, 0), "a day's runs end with it");
}

#[test]
fn the_folder_is_wiped_and_fingerprints_are_of_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let spill = folder.path().join("a/spill");
    std::fs::create_dir_all(&spill).unwrap();
    std::fs::write(spill.join("1-1"), "left by a crash").unwrap();
    let memory = |seed| DuplicateMemory::new(1 << 20, &spill, &SeededRandom::new(seed)).unwrap();
    let (one, other) = (memory(1), memory(2));
    assert_eq!(std::fs::read_dir(&spill).unwrap().count(), 0);
    assert_ne!(one.key.of(1, 1), other.key.of(1, 1));
    assert_eq!(one.key.of(1, 1), memory(1).key.of(1, 1));
    assert!(!format!("{one:?}").contains(&format!("{:?}", [0; 4])[1..5]), "the key is not shown");
    assert_ne!(one.key.of(1, 2), one.key.of(2, 1), "device and event are not interchangeable");
}

#[test]
fn a_spill_that_fails_is_told_and_nothing_is_forgotten() {
    let (mut memory, folder) = memory(64 << 10);
    let now = at("2018-07-10T12:00:00Z");
    let spill = folder.path().join("spill");
    std::fs::remove_dir(&spill).unwrap();
    let mut failed = 0;
    for key in 1..=10_000 {
        if let Err(error) = memory.insert(1, key, now, now) {
            assert!(matches!(&error, DuplicateError::Spill { doing: "making a file in", .. }), "{error}");
            failed += 1;
        }
    }
    assert!(failed > 0);
    assert!((1..=10_000).all(|key| memory.contains(1, key, now).unwrap()), "kept in memory, over the bound");
    assert!(memory.check([(1, 1, now)]).is_err(), "and nothing more is taken");
    std::fs::create_dir(&spill).unwrap();
    let checked = memory.check([(1, 1, now), (1, 20_000, now)]).unwrap();
    assert!(checked.is_repeat(0) && !checked.is_repeat(1));
    assert!(memory.bytes() <= 64 << 10);
}

/// What the memory must do, told with sets that know no bound.
#[derive(Default)]
struct Model {
    days: BTreeMap<Day, HashSet<(u128, u128)>>,
    newest: Option<Day>,
}

impl Model {
    fn contains(&self, device: u128, key: u128, at: Timestamp) -> bool {
        self.days.iter().any(|(day, of_day)| day.month() == at.month() && of_day.contains(&(device, key)))
    }
    fn insert(&mut self, device: u128, key: u128, at: Timestamp, now: Timestamp) {
        let newest = self.newest.map_or(at.day(), |newest| newest.max(at.day())).min(now.day());
        self.newest = Some(newest);
        let first = newest.plus(-2);
        self.days.retain(|day, _| *day >= first);
        if key != 0 && at.day() >= first {
            self.days.entry(at.day()).or_default().insert((device, key));
        }
    }
}

/// A device, a key, and the day relative to now.
type Event = (u128, u128, i64);

#[derive(Debug, Clone)]
enum Op {
    Insert(Event),
    Batch(Vec<(Event, bool)>),
    Night,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let event = || (0..6_u128, 0..400_u128, prop_oneof![6 => Just(0_i64), 2 => -4..2_i64]);
    let op = prop_oneof![
        4 => event().prop_map(Op::Insert),
        4 => prop::collection::vec((event(), prop::bool::weighted(0.9)), 0..300).prop_map(Op::Batch),
        1 => Just(Op::Night),
    ];
    prop::collection::vec(op, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn as_unbounded_sets_by_day_whatever_the_memory(ops in ops(), bytes_max in prop_oneof![Just(0_usize), 8_000..40_000_usize, Just(1 << 20)]) {
        let (mut memory, _folder) = memory(bytes_max);
        let mut model = Model::default();
        let mut now = at("2018-07-30T12:00:00Z");
        let mut seen = HashSet::new();
        for op in ops {
            match op {
                Op::Insert((device, key, days)) => {
                    let ts = now.plus_days(days);
                    seen.insert((device, key, ts));
                    if key != 0 {
                        memory.insert(device, key, ts, now).unwrap();
                        model.insert(device, key, ts, now);
                    }
                }
                Op::Batch(events) => {
                    let of = |((device, key, days), _): &(Event, bool)| (*device, *key, now.plus_days(*days));
                    let checked = memory.check(events.iter().map(of)).unwrap();
                    let mut in_batch = HashSet::new();
                    for (place, event) in events.iter().enumerate() {
                        let (device, key, ts) = of(event);
                        let first = key == 0 || in_batch.insert((device, key, ts.month()));
                        prop_assert_eq!(checked.is_repeat(place), !first || model.contains(device, key, ts), "{:?}", event);
                        seen.insert((device, key, ts));
                    }
                    memory.remember(&checked, |place| events[place].1, now).unwrap();
                    // The window first: the batch is one moment.
                    let accepted = || events.iter().enumerate().filter(|(place, event)| event.1 && event.0.1 != 0 && !checked.is_repeat(*place));
                    for (_, event) in accepted().filter(|(_, event)| accepted().all(|(_, other)| other.0.2 <= event.0.2)).chain(accepted()) {
                        let (device, key, ts) = of(event);
                        model.insert(device, key, ts, now);
                    }
                }
                Op::Night => now = now.plus_days(1),
            }
            if bytes_max >= 8_000 {
                prop_assert!(memory.bytes() <= bytes_max, "{} of {}", memory.bytes(), bytes_max);
            }
        }
        for (device, key, ts) in seen {
            prop_assert_eq!(memory.contains(device, key, ts).unwrap(), model.contains(device, key, ts));
        }
    }
}

/// A line of the process' or thread's files under `/proc`, in its own unit.
fn proc(file: &str, line: &str, word: usize) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{file}")).unwrap();
    text.lines().find(|have| have.starts_with(line)).unwrap().split_whitespace().nth(word).unwrap().parse().unwrap()
}

/// Nanoseconds that this thread has worked, whoever else is at work.
fn worked_ns() -> u64 {
    proc("thread-self/schedstat", "", 0)
}

/// `cargo test --release … twenty_million -- --ignored --nocapture` prints what it costs.
#[test]
#[ignore = "a measurement: 20 M events"]
fn twenty_million_events_in_64_mib() {
    const ROWS: u64 = 20_000_000;
    const BATCH: u64 = 100_000;
    let (mut memory, _folder) = memory(64 << 20);
    let now = at("2018-07-10T12:00:00Z");
    let event = |at: u64| (u128::from(at % 500_000).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835), u128::from(at + 1), now);
    let per_row = |since: u64, rows: u64| (worked_ns() - since) / rows;
    let started = worked_ns();
    let sum = (0..ROWS / 10).map(event).fold(0, |sum, (device, key, _)| sum ^ memory.key.of(device, key));
    eprintln!("fingerprint: {} ns ({})", per_row(started, ROWS / 10), sum % 10);
    let (mut checking, mut taking, mut slowest, mut peak) = (0, 0, 0, 0);
    for first in (0..ROWS).step_by(BATCH as usize) {
        let started = worked_ns();
        let checked = memory.check((first..first + BATCH).map(event)).unwrap();
        checking += worked_ns() - started;
        assert!((0..BATCH as usize).all(|place| !checked.is_repeat(place)));
        let started = worked_ns();
        memory.remember(&checked, |_| true, now).unwrap();
        taking += worked_ns() - started;
        slowest = slowest.max(worked_ns() - started);
        peak = peak.max(memory.bytes());
    }
    let of_filters: usize = memory.runs().map(Run::filter_bytes).sum();
    eprintln!("new: check {} ns, remember {} ns; slowest batch of {BATCH}: {} ms", checking / ROWS, taking / ROWS, slowest / 1_000_000);
    eprintln!("memory: {peak} bytes at most, {of_filters} of filters, {} runs", memory.runs().count());
    eprintln!("process: {} KiB at most", proc("self/status", "VmHWM", 1));
    assert!(peak <= 64 << 20);
    let started = worked_ns();
    for first in (0..ROWS).step_by(BATCH as usize) {
        let checked = memory.check((first..first + BATCH).map(event)).unwrap();
        assert!((0..BATCH as usize).all(|place| checked.is_repeat(place)));
    }
    eprintln!("repeats: check {} ns", per_row(started, ROWS));
    for (what, first) in [("new", ROWS), ("repeats", ROWS / 2)] {
        let (started, sample) = (worked_ns(), 200_000);
        for (device, key, at) in (first..first + sample).map(event) {
            assert_eq!(memory.contains(device, key, at).unwrap(), what == "repeats");
        }
        eprintln!("one by one: {what} {} ns", per_row(started, sample));
    }
}
