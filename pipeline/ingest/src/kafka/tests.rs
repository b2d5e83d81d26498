//! Against librdkafka's own mock cluster, a real wire server in the process, which can be told to fail. What needs a
//! real broker (deleting topics, crashes) is in the end-to-end tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use ameles_core::Reason;
use ameles_schemas::Table;
use ameles_store::{Append, Txn};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::json;

use super::*;
use crate::testing::{Home, at, line};

const TOPIC: &str = "events";

struct Broker {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
    sent: usize,
}

impl Broker {
    fn new(partitions: i32) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, partitions, 1).unwrap();
        let producer = ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).set("log_level", "2").create().unwrap();
        Self { cluster, producer, sent: 0 }
    }

    fn send_to(&self, partition: i32, payload: Option<&str>) {
        let mut record = BaseRecord::<(), str>::to(TOPIC).partition(partition);
        record.payload = payload;
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }

    /// Numbered events, round the partitions.
    fn send(&mut self, count: usize, partitions: usize) {
        for n in self.sent..self.sent + count {
            self.send_to((n % partitions) as i32, Some(&numbered(n)));
        }
        self.sent += count;
        self.flush();
    }

    fn flush(&self) {
        self.producer.flush(Duration::from_secs(30)).unwrap();
    }

    fn options(&self) -> KafkaOptions {
        // No shorter: the mock waits three seconds for more members, and counts the session from the first request on.
        let client = [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "200"), ("reconnect.backoff.max.ms", "300")];
        KafkaOptions {
            brokers: self.cluster.bootstrap_servers(),
            topics: vec![TOPIC.to_owned()],
            client: client.iter().map(|(key, value)| ((*key).to_owned(), Property::new(*value))).collect(),
            batch_ms: 30,
            ..KafkaOptions::default()
        }
    }
}

fn numbered(n: usize) -> String {
    let ts = format!("2018-07-20T{:02}:{:02}:{:02}Z", n / 3600 % 12, n / 60 % 60, n % 60);
    line(&format!("device-{}", n % 97), &format!("event-{n}"), &ts, "wake", json!({}))
}

async fn start(home: &Home, broker: &Broker) -> KafkaSource {
    KafkaSource::start(Arc::clone(&home.env), broker.options()).await.unwrap()
}

async fn until(what: &str, source: &KafkaSource, is_so: impl Fn(&KafkaStatus) -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so(&source.status()) {
        assert!(Instant::now() < end, "{what}: {:#?}", source.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_committed_with_their_positions_and_a_restart_goes_on_from_there() {
    let (home, mut broker) = (Home::new().await, Broker::new(3));
    broker.send(300, 3);
    let source = start(&home, &broker).await;
    until("reading", &source, |status| status.tally.accepted() == 300).await;
    source.stop().await;
    assert_eq!(home.events().await.len(), 300);
    let snapshot = home.warehouse.snapshot().await.unwrap();
    let positions: Vec<(&str, i64)> = snapshot.txns(Table::Events).filter(|(app, _)| app.starts_with("kafka:")).collect();
    assert!(positions.len() == 3 && positions.iter().all(|(_, position)| *position == 100), "{positions:?}");
    // librdkafka's line on a topic's id has the form that is read; without it a topic made anew may go unnoticed.
    assert_eq!(snapshot.txns(Table::Events).filter(|(app, _)| app.starts_with("kafka-topic:")).count(), 1);
    broker.send(30, 3);
    let source = start(&home, &broker).await;
    until("the rest", &source, |status| status.tally.accepted() == 30).await;
    source.stop().await;
    assert_eq!((home.events().await.len(), source.status().tally.received()), (330, 30));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_quarantined_by_partition_and_offset() {
    let (home, broker) = (Home::new().await, Broker::new(2));
    broker.send_to(1, Some(&numbered(1)));
    broker.send_to(1, None);
    broker.send_to(1, Some("{"));
    broker.send_to(1, Some(&numbered(1)));
    broker.send_to(1, Some(&line("d", "e", "2018-07-20T10:00:00Z", "wake", json!({"consent": null}))));
    broker.send_to(1, Some(&line("d", "e", "2018-06-20T10:00:00Z", "wake", json!({}))));
    broker.flush();
    let source = start(&home, &broker).await;
    until("reading", &source, |status| status.tally.received() == 6).await;
    source.stop().await;
    let tally = source.status().tally;
    assert_eq!((tally.accepted(), tally.rejected(Reason::MalformedJson), tally.rejected(Reason::Duplicate)), (2, 2, 1));
    home.assert_quarantine(&tally).await;
    let rows = home.quarantine().await;
    assert!(rows.iter().all(|row| row.line.is_none() && row.source.starts_with("kafka-")), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_closed_month_is_too_late_once_its_partition_is_past_it() {
    let (home, broker) = (Home::new().await, Broker::new(1));
    home.clock.set(at("2018-09-20T12:00:00Z"));
    let of = |id: &str, ts: &str| line("d1", id, ts, "wake", json!({}));
    // A backlog from July is no late event: the partition has not got past July yet.
    broker.send_to(0, Some(&of("e1", "2018-07-20T10:00:00Z")));
    broker.flush();
    let source = start(&home, &broker).await;
    until("the backlog", &source, |status| status.tally.accepted() == 1).await;
    broker.send_to(0, Some(&of("e2", "2018-09-19T10:00:00Z")));
    broker.flush();
    until("the present", &source, |status| status.tally.accepted() == 2).await;
    assert_eq!(source.watermark(), Some(at("2018-09-19T10:00:00Z")));
    broker.send_to(0, Some(&of("e3", "2018-07-20T11:00:00Z")));
    broker.flush();
    until("the late one", &source, |status| status.tally.rejected(Reason::TooLate) == 1).await;
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_the_partitions_and_each_event_is_stored_once() {
    let (home, mut broker) = (Home::new().await, Broker::new(4));
    broker.send(200, 4);
    let first = start(&home, &broker).await;
    until("the first alone", &first, |status| status.tally.accepted() == 200).await;
    let second = start(&home, &broker).await;
    until("half of them", &second, |status| status.partitions.len() == 2).await;
    until("the other half", &first, |status| status.partitions.len() == 2).await;
    broker.send(200, 4);
    until("their share", &second, |status| status.tally.accepted() == 100).await;
    until("theirs", &first, |status| status.tally.accepted() == 300).await;
    first.stop().await;
    until("all of them", &second, |status| status.partitions.len() == 4).await;
    // An event that the first one has accepted is known to the second.
    broker.send_to(0, Some(&numbered(0)));
    broker.flush();
    until("a repeat", &second, |status| status.tally.rejected(Reason::Duplicate) == 1).await;
    second.stop().await;
    assert_eq!(home.events().await.len(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_fail_for_a_while_lose_and_repeat_nothing() {
    let (home, mut broker) = (Home::new().await, Broker::new(2));
    broker.send(100, 2);
    let fetch = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT];
    broker.cluster.request_errors(RDKafkaApiKey::Fetch, &fetch);
    broker.cluster.request_errors(RDKafkaApiKey::FindCoordinator, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE]);
    let source = start(&home, &broker).await;
    until("reading", &source, |status| status.tally.accepted() == 100).await;
    broker.cluster.broker_down(1).unwrap();
    until("an error", &source, |status| status.errors.broker > 0).await;
    broker.cluster.broker_up(1).unwrap();
    broker.send(100, 2);
    until("the rest", &source, |status| status.tally.accepted() == 200).await;
    source.stop().await;
    assert_eq!(home.events().await.len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_another_has_committed_is_read_again_from_there() {
    let (home, mut broker) = (Home::new().await, Broker::new(1));
    broker.send(10, 1);
    let source = start(&home, &broker).await;
    until("reading", &source, |status| status.tally.accepted() == 10).await;
    let snapshot = home.warehouse.snapshot().await.unwrap();
    let app = snapshot.txns(Table::Events).find(|(app, _)| app.starts_with("kafka:")).unwrap().0.to_owned();
    // As a member does that the group believes dead: five messages on.
    let mut lease = home.warehouse.lease(home.env.random.as_ref()).await.unwrap();
    let txns = vec![Txn { app, before: Some(10), after: 15 }];
    lease.append(Append { txns, ..Append::default() }, &home.ledger).await.unwrap();
    broker.send(10, 1);
    until("the rest", &source, |status| status.tally.accepted() == 15).await;
    source.stop().await;
    let status = source.status();
    assert_eq!((status.errors.moved, status.errors.storage, home.events().await.len()), (1, 0, 15));
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_fails_for_a_while_loses_and_repeats_nothing() {
    let (home, mut broker) = (Home::new().await, Broker::new(2));
    broker.send(20, 2);
    let source = start(&home, &broker).await;
    until("reading", &source, |status| status.tally.accepted() == 20).await;
    // Where a batch takes its lock there is a folder now.
    let lock = home.path("home/warehouse/_ameles/commits.lock");
    std::fs::remove_file(&lock).unwrap();
    std::fs::create_dir(&lock).unwrap();
    broker.send(20, 2);
    until("a failure", &source, |status| status.errors.storage > 1 && status.failing.is_some()).await;
    assert_eq!(source.status().tally.received(), 20);
    std::fs::remove_dir(&lock).unwrap();
    until("the rest", &source, |status| status.tally.accepted() == 40).await;
    assert_eq!(source.status().failing, None);
    source.stop().await;
    assert_eq!(home.events().await.len(), 40);
    home.assert_quarantine(&source.status().tally).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_beyond_the_end_stops_the_partition_until_it_is_reset() {
    let (home, mut broker) = (Home::new().await, Broker::new(2));
    broker.send(20, 2);
    let source = start(&home, &broker).await;
    until("reading", &source, |status| status.tally.accepted() == 20).await;
    source.stop().await;
    let snapshot = home.warehouse.snapshot().await.unwrap();
    let app = snapshot.txns(Table::Events).find(|(app, _)| app.ends_with(":events:1")).unwrap().0.to_owned();
    home.warehouse.set_positions(std::slice::from_ref(&app), 1_000).await.unwrap();
    let source = start(&home, &broker).await;
    until("a stop", &source, |status| status.partitions.iter().any(|of| of.stopped.is_some())).await;
    broker.send(10, 2);
    until("the sound one", &source, |status| status.tally.accepted() == 5).await;
    let stopped: Vec<_> = source.status().partitions.into_iter().filter_map(|of| of.stopped).collect();
    assert!(stopped.len() == 1 && stopped[0].contains("ameles kafka reset events"), "{stopped:?}");
    let reset = reset_kafka(&home.warehouse, TOPIC, Some(1)).await.unwrap();
    assert_eq!((reset.len(), reset[0].partition, reset[0].was), (1, 1, Some(1_000)));
    // Its first ten are repeats, and known as such.
    until("the other one", &source, |status| status.tally.accepted() == 10 && status.tally.rejected(Reason::Duplicate) == 10).await;
    source.stop().await;
    assert_eq!(home.events().await.len(), 30);
    assert!(reset_kafka(&home.warehouse, "another", None).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_holds_for_what_comes_after_it() {
    let (home, broker) = (Home::new().await, Broker::new(1));
    let of = |id: &str, kind: &str| line("d1", id, "2018-07-20T10:00:00Z", kind, json!({}));
    for message in [of("e1", "wake"), of("e2", "consent_withdrawn"), of("e3", "wake")] {
        broker.send_to(0, Some(&message));
    }
    broker.flush();
    let source = start(&home, &broker).await;
    until("reading", &source, |status| status.tally.received() == 3).await;
    let tally = source.status().tally;
    assert_eq!((tally.accepted(), tally.rejected(Reason::NoConsent)), (2, 1));
    source.stop().await;
    assert_eq!(home.events().await.len(), 1);
}
