//! Events from a real Apache Kafka, each once, whatever dies.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ameles_core::{Clock, SystemClock};

use crate::support::kafka::{Kafka, Messages, Reader, SCRAM, Settings, say, wait_until, warehouse};
use crate::support::{Home, event, python, script};

const PARTITIONS: i32 = 12;

fn number_from(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Numbered events of the last day: event n comes n ms after the first.
#[derive(Clone, Copy)]
struct Numbered {
    first_ms: u64,
    devices: u64,
}

impl Numbered {
    fn new(count: u64, devices: u64) -> Self {
        let now = SystemClock.now().micros() as u64 / 1000;
        Self { first_ms: now - count, devices }
    }

    fn device(self, n: u64) -> String {
        format!("8{:011}", n % self.devices)
    }

    fn payload(self, n: u64) -> String {
        let at = self.first_ms + n;
        let (seconds, ms) = (at / 1000, at % 1000);
        let (day, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, date) = civil(day);
        let ts = format!("{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}.{ms:03}Z", second / 3600, second / 60 % 60, second % 60);
        event(n, &self.device(n), None, "wake", &ts)
    }

    /// A device's events are all in one partition.
    fn send(self, messages: &Messages, topic: &str, n: u64) {
        let partition = (n % self.devices % PARTITIONS as u64) as i32;
        messages.send(topic, partition, Some(self.payload(n).trim_end().as_bytes()));
    }

    /// Every event below `count` is stored once, but those of erased devices, which are not stored at all.
    fn assert_each_once(self, home: &Home, count: u64, erased: &[u64]) {
        let Some(python) = python() else { return };
        let table = warehouse(home).join("events");
        let erased: Vec<String> = erased.iter().map(u64::to_string).collect();
        let arguments = [self.first_ms.to_string(), count.to_string(), self.devices.to_string(), erased.join(",")];
        let arguments: Vec<&str> = std::iter::once(table.to_str().unwrap()).chain(arguments.iter().map(String::as_str)).collect();
        say(&format!("stored,missing,foreign,repeated: {}", script(&python, "count_numbered.py", &arguments).trim()));
    }
}

/// Year, month and day of a day since 1970.
fn civil(day: u64) -> (u64, u64, u64) {
    let z = day + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

fn stored(home: &Home) -> u64 {
    let out = home.ok(&["sql", "SELECT count(*) FROM events", "--k", "1", "--format", "csv"]);
    out.lines().nth(1).unwrap().parse().unwrap()
}

/// Consumers are killed again and again, a second one comes and goes, a device is erased, months are compacted: every
/// event is stored once. `AMELES_TEST_KAFKA_EVENTS` and `AMELES_TEST_KAFKA_KILLS` make it larger.
#[test]
fn each_event_is_stored_once_whoever_is_killed() {
    let Some(kafka) = Kafka::start() else { return };
    let (count, kills) = (number_from("AMELES_TEST_KAFKA_EVENTS", 300_000), number_from("AMELES_TEST_KAFKA_KILLS", 8));
    let numbered = Numbered::new(count, 5_000);
    let home = Home::new();
    let topic = "numbered";
    kafka.create_topic(topic, PARTITIONS);
    let more = [("AMELES__MAINTENANCE__INTERVAL_S", "1"), ("AMELES__MAINTENANCE__RUNS_MAX", "5"), ("AMELES__ERASURE__INTERVAL_S", "3")];
    let settings = Settings { brokers: &kafka.address, topic, more: &more };
    let (sent, killing) = (AtomicU64::new(0), AtomicBool::new(true));
    let mut moments = moments(17);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // As fast as the killing goes on, so that there is always something in flight.
            let messages = kafka.producer();
            let step = (count / (kills * 12)).max(1);
            for n in 0..count {
                numbered.send(&messages, topic, n);
                if n % 50 == 7 {
                    numbered.send(&messages, topic, n - n % 7); // some come twice
                }
                sent.store(n, Ordering::Relaxed);
                if n % step == 0 && killing.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(250));
                }
            }
            messages.flush();
        });
        for kill in 0..kills {
            let first = Reader::start(&home, &settings);
            std::thread::sleep(Duration::from_millis(1_200 + moments(1_500)));
            let second = Reader::start(&home, &settings);
            std::thread::sleep(Duration::from_millis(800 + moments(1_500)));
            if kill == kills / 2 {
                home.ok_with(&["erase", "submit", "--device", "-"], &numbered.device(3));
            }
            // One is killed and the other one leaves, or is killed as well.
            if moments(2) == 0 {
                first.kill();
                std::thread::sleep(Duration::from_millis(moments(2_000)));
                if moments(2) == 0 {
                    second.wait_until_up();
                    second.stop();
                } else {
                    second.kill();
                }
            } else {
                second.kill();
                std::thread::sleep(Duration::from_millis(moments(2_000)));
                first.kill();
            }
        }
        killing.store(false, Ordering::Relaxed);
        say(&format!("{kills} rounds over after {} events", sent.load(Ordering::Relaxed)));
    });
    let last = Reader::start(&home, &settings);
    last.wait_until_read(PARTITIONS as usize);
    last.assert_nothing_uncounted();
    last.stop();
    home.ok(&["erase", "run"]);
    numbered.assert_each_once(&home, count, &[3]);
    // What is rolled up agrees with the events.
    let expected = (0..count).filter(|n| n % numbered.devices != 3).count() as u64;
    assert_eq!(stored(&home), expected);
    let wakes: u64 = home.metric_rows(&["wakes"]).iter().map(|row| row[1].parse::<u64>().unwrap()).sum();
    assert_eq!(wakes, expected);
    let verified = home.json(&["erase", "verify"]);
    assert_eq!(verified["clean"], true, "{verified}");
}

/// Numbers that look random and are the same in each run.
fn moments(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

/// `AMELES_TEST_KAFKA_GONE_S` says how long it is gone.
#[test]
fn a_broker_that_dies_and_comes_back_loses_and_repeats_nothing() {
    let Some(mut kafka) = Kafka::start() else { return };
    if !kafka.is_own() {
        return;
    }
    let numbered = Numbered::new(40_000, 500);
    let home = Home::new();
    kafka.create_topic("events", PARTITIONS);
    let messages = kafka.producer();
    (0..20_000).for_each(|n| numbered.send(&messages, "events", n));
    messages.flush();
    let address = kafka.address.clone();
    let reader = Reader::start(&home, &Settings { brokers: &address, topic: "events", more: &[] });
    wait_until("a commit", || reader.metric("ameles_kafka_commits_total").0 > 0.0, || reader.told());
    kafka.crash_and_restart(Duration::from_secs(number_from("AMELES_TEST_KAFKA_GONE_S", 3)));
    (20_000..40_000).for_each(|n| numbered.send(&messages, "events", n));
    messages.flush();
    reader.wait_for("ameles_kafka_events_accepted_total", 40_000.0);
    assert!(reader.metric("ameles_kafka_errors_total{kind=\"broker\"}").0 > 0.0);
    reader.assert_nothing_uncounted();
    reader.stop();
    numbered.assert_each_once(&home, 40_000, &[]);
}

#[test]
fn a_full_disk_stops_nothing_for_good_and_loses_nothing() {
    let Some(kafka) = Kafka::start() else { return };
    let Some((home, disk)) = Home::on_small_disk(48) else { return };
    let numbered = Numbered::new(30_000, 500);
    kafka.create_topic("events", PARTITIONS);
    let messages = kafka.producer();
    let send = |range: std::ops::Range<u64>| {
        range.for_each(|n| numbered.send(&messages, "events", n));
        messages.flush();
    };
    send(0..10_000);
    let reader = Reader::start(&home, &Settings { brokers: &kafka.address, topic: "events", more: &[] });
    reader.wait_for("ameles_kafka_events_accepted_total", 10_000.0);
    disk.fill();
    send(10_000..20_000);
    reader.wait_for("ameles_kafka_failing", 1.0);
    assert_eq!(reader.metric("ameles_kafka_events_accepted_total").0, 10_000.0);
    assert!(reader.told().contains("No space left"), "{}", reader.told());
    send(20_000..30_000);
    disk.free();
    reader.wait_for("ameles_kafka_events_accepted_total", 30_000.0);
    reader.wait_for("ameles_kafka_failing", 0.0);
    reader.assert_nothing_uncounted();
    reader.stop();
    numbered.assert_each_once(&home, 30_000, &[]);
}

#[test]
fn poison_goes_to_quarantine_by_partition_and_offset_and_stops_nothing() {
    let Some(kafka) = Kafka::start() else { return };
    let numbered = Numbered::new(100, 10);
    let home = Home::new();
    kafka.create_topic("poison", 3);
    let messages = kafka.producer();
    let good = |n| numbered.payload(n);
    let deep = "[".repeat(100_000);
    let large = format!("{{\"event_id\":\"{}\"}}", "x".repeat(5_000));
    let poison: [(Option<&[u8]>, &str); 9] = [
        (None, "malformed_json"),
        (Some(b""), "malformed_json"),
        (Some(b" \n "), "malformed_json"),
        (Some(b"{\"event_id\":"), "malformed_json"),
        (Some(b"[1,2]"), "malformed_json"),
        (Some(b"\xff\xfe\x00"), "malformed_json"),
        (Some(large.as_bytes()), "too_large"),
        (Some(deep.as_bytes()), "too_large"),
        (Some(b"{\"event_id\":\"e\",\"device_id\":\"d\",\"type\":\"wake\"}"), "missing_field"),
    ];
    for (n, (payload, _)) in (0..).zip(poison) {
        messages.send("poison", 2, Some(good(2 * n).as_bytes()));
        messages.send("poison", 2, payload);
        messages.send("poison", 1, Some(good(2 * n + 1).as_bytes()));
    }
    messages.flush();
    let limit = [("AMELES__INGEST__LINE_BYTES_MAX", "2048"), ("AMELES__KAFKA__ALIAS", "fleet")];
    let reader = Reader::start(&home, &Settings { brokers: &kafka.address, topic: "poison", more: &limit });
    reader.wait_for("ameles_kafka_messages_total", 27.0);
    reader.wait_until_read(3);
    reader.assert_nothing_uncounted();
    reader.stop();
    assert_eq!(stored(&home), 18);
    let query = "SELECT \"offset\", reason, partition, source, line FROM quarantine ORDER BY \"offset\"";
    let found = home.ok(&["sql", query, "--k", "1", "--format", "csv"]);
    let expected: Vec<String> = (0..).zip(poison).map(|(n, (_, reason))| format!("{},{reason},2,fleet,", 2 * n + 1)).collect();
    assert_eq!(found.lines().skip(1).collect::<Vec<_>>(), expected);
}

#[test]
fn a_topic_made_anew_stops_with_a_word_on_what_to_do_and_goes_on_after_a_reset() {
    let Some(kafka) = Kafka::start() else { return };
    let numbered = Numbered::new(10_000, 50);
    let home = Home::new();
    let topic = "again";
    kafka.create_topic(topic, 2);
    let messages = kafka.producer();
    let send = |range: std::ops::Range<u64>| {
        range.for_each(|n| messages.send(topic, (n % 2) as i32, Some(numbered.payload(n).as_bytes())));
        messages.flush();
    };
    send(0..1_000);
    let settings = Settings {
        brokers: &kafka.address,
        topic,
        more: &[(
            "AMELES__KAFKA__CLIENT",
            "{ \"session.timeout.ms\" = 1500, \"heartbeat.interval.ms\" = 300, \"topic.metadata.refresh.interval.ms\" = 1000 }",
        )],
    };
    let reader = Reader::start(&home, &settings);
    reader.wait_for("ameles_kafka_events_accepted_total", 1_000.0);
    // Under a reader at work.
    kafka.delete_topic(topic);
    kafka.create_topic(topic, 2);
    send(1_000..1_100);
    reader.wait_for("ameles_kafka_partition_stopped", 2.0);
    assert!(reader.told().contains("ameles kafka reset again"), "{}", reader.told());
    assert_eq!(stored(&home), 1_000);
    let reset = home.json(&["kafka", "reset", topic]);
    assert_eq!(reset["partitions"][1]["was"], 500, "{reset}");
    reader.wait_for("ameles_kafka_events_accepted_total", 1_100.0);
    assert_eq!(reader.metric("ameles_kafka_partition_stopped").0, 0.0);
    reader.stop();
    assert_eq!(stored(&home), 1_100);
    // While nobody reads, and with more in it than before: only the topic's id tells.
    kafka.delete_topic(topic);
    kafka.create_topic(topic, 2);
    send(2_000..4_000);
    let reader = Reader::start(&home, &settings);
    reader.wait_for("ameles_kafka_partition_stopped", 2.0);
    assert!(reader.told().contains("made anew"), "{}", reader.told());
    home.ok(&["kafka", "reset", topic]);
    reader.wait_for("ameles_kafka_events_accepted_total", 2_000.0);
    reader.stop();
    assert_eq!(stored(&home), 3_100);
    assert!(home.ok(&["audit", "list"]).contains("kafka_reset"));
    let unknown = home.run(&["kafka", "reset", "nonsense"]);
    assert!(!unknown.status.success() && String::from_utf8_lossy(&unknown.stderr).contains("nonsense"));
}

#[test]
fn the_configuration_is_checked_against_the_brokers() {
    let Some(kafka) = Kafka::start() else { return };
    let home = Home::new();
    kafka.create_topic("events", 4);
    let check = |brokers: &str, topics: &str, client: &str| {
        let mut command = home.command(&["config", "check"]);
        command.env("AMELES__KAFKA__BROKERS", brokers).env("AMELES__KAFKA__TOPICS", topics).env("AMELES__KAFKA__CLIENT", client);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    };
    let (code, text) = check(&kafka.address, "events", "{}");
    assert!(code == Some(0) && text.contains("events with 4 partitions"), "{text}");
    let (code, text) = check(&kafka.address, "events,missing", "{}");
    assert!(code == Some(2) && text.contains("missing"), "{text}");
    let (code, text) = check("127.0.0.1:9", "events", "{}");
    assert!(code == Some(2) && text.contains("127.0.0.1:9"), "{text}");
    let secret =
        "{ security.protocol = \"SASL_PLAINTEXT\", sasl.mechanisms = \"PLAIN\", sasl.username = \"u\", sasl.password = \"hunter2\" }";
    let (code, text) = check(&kafka.address, "events", secret);
    assert!(code == Some(2) && !text.contains("hunter2"), "{text}");
}

/// Over TLS and with a password: needs `--features kafka-tls`, so it runs where `AMELES_TEST_KAFKA_TLS` is set.
#[test]
fn a_broker_is_read_over_tls_with_a_password() {
    if std::env::var_os("AMELES_TEST_KAFKA_TLS").is_none() {
        return;
    }
    let (kafka, address, certificate) = Kafka::start_with_tls().expect("a broker");
    let home = Home::new();
    kafka.create_topic("events", 3);
    let numbered = Numbered::new(3_000, 60);
    let messages = kafka.producer();
    (0..3_000).for_each(|n| messages.send("events", (n % 3) as i32, Some(numbered.payload(n).trim_end().as_bytes())));
    messages.flush();
    let client = |password: &str, trusted: &str| {
        format!(
            "{{ security.protocol = \"SASL_SSL\", sasl.mechanisms = \"SCRAM-SHA-512\", sasl.username = \"{}\", sasl.password = \"{password}\"{trusted} }}",
            SCRAM.0
        )
    };
    let trusted = format!(", ssl.ca.location = \"{}\"", certificate.display());
    let right = client(SCRAM.1, &trusted);
    let reader = Reader::start(&home, &Settings { brokers: &address, topic: "events", more: &[("AMELES__KAFKA__CLIENT", right.as_str())] });
    reader.wait_for("ameles_kafka_events_accepted_total", 3_000.0);
    reader.stop();
    numbered.assert_each_once(&home, 3_000, &[]);
    for wrong in [client("another-secret", &trusted), client(SCRAM.1, "")] {
        let mut check = home.command(&["config", "check"]);
        check.env("AMELES__KAFKA__BROKERS", &address).env("AMELES__KAFKA__TOPICS", "events").env("AMELES__KAFKA__CLIENT", wrong);
        let output = check.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && told.contains(&address) && !told.contains("secret"), "{told}");
    }
}

/// How fast a topic is read: `AMELES_TEST_KAFKA_FOLDER=/folder/of/ndjson cargo test --release -p ameles --test main -- --ignored kafka --nocapture`.
#[test]
#[ignore = "a measurement: produces millions of events"]
fn throughput_from_a_topic_that_is_there() {
    let folder = std::env::var("AMELES_TEST_KAFKA_FOLDER").expect("AMELES_TEST_KAFKA_FOLDER names a folder of NDJSON files");
    let limit = number_from("AMELES_TEST_KAFKA_EVENTS", u64::MAX);
    let kafka = Kafka::start_with(1_024).expect("a broker");
    kafka.create_topic("fleet", PARTITIONS);
    let messages = kafka.producer();
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut count, began) = (0_u64, Instant::now());
    'files: for file in files {
        for line in std::io::BufRead::lines(std::io::BufReader::with_capacity(1 << 20, std::fs::File::open(file).unwrap())) {
            let line = line.unwrap();
            // By device, as a producer with keys does.
            let device = line.split("\"device_id\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            let hash = device.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
            messages.send("fleet", (hash % PARTITIONS as u32) as i32, Some(line.as_bytes()));
            count += 1;
            if count == limit {
                break 'files;
            }
        }
    }
    messages.flush();
    say(&format!("{count} events produced in {:.1} s", began.elapsed().as_secs_f64()));
    let home = Home::new();
    let batch = std::env::var("AMELES_TEST_KAFKA_BATCH_MS").unwrap_or("1000".to_owned());
    let began = Instant::now();
    let reader = Reader::start(&home, &Settings { brokers: &kafka.address, topic: "fleet", more: &[("AMELES__KAFKA__BATCH_MS", &batch)] });
    let end = Instant::now() + Duration::from_secs(600);
    while reader.metric("ameles_kafka_messages_total").0 < count as f64 {
        assert!(Instant::now() < end, "{}", reader.told());
        std::thread::sleep(Duration::from_millis(50));
    }
    let took = began.elapsed().as_secs_f64();
    let figures = ["messages_total", "events_accepted_total", "commits_total"].map(|name| reader.metric(&format!("ameles_kafka_{name}")).0);
    say(&format!("{count} events read and committed in {took:.1} s, {:.0} events/s; {figures:?}", count as f64 / took));
    reader.stop();
}
