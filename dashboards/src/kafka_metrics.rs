//! The Kafka source in Prometheus' text format. Labels are topics, partitions and reasons: never a key or a payload.

use std::fmt::Write as _;

use ameles_core::Reason;
use ameles_ingest::{KafkaStatus, PartitionStatus};

use crate::telemetry::head;

/// Appends the source's counters.
pub(crate) fn render(text: &mut String, kafka: &KafkaStatus) {
    let tally = &kafka.tally;
    head(text, "ameles_kafka_messages_total", "counter", "Messages from Kafka in committed batches since the start.");
    let _ = writeln!(text, "ameles_kafka_messages_total {}", tally.received());
    head(text, "ameles_kafka_events_accepted_total", "counter", "Events from Kafka accepted and committed since the start.");
    let _ = writeln!(text, "ameles_kafka_events_accepted_total {}", tally.accepted());
    head(text, "ameles_kafka_events_rejected_total", "counter", "Messages from Kafka rejected since the start, by reason.");
    for reason in Reason::ALL {
        let _ = writeln!(text, "ameles_kafka_events_rejected_total{{reason=\"{reason}\"}} {}", tally.rejected(reason));
    }
    head(text, "ameles_kafka_received_bytes_total", "counter", "Bytes of messages taken from the brokers, those read again included.");
    let _ = writeln!(text, "ameles_kafka_received_bytes_total {}", kafka.bytes);
    head(text, "ameles_kafka_commits_total", "counter", "Batches committed since the start.");
    let _ = writeln!(text, "ameles_kafka_commits_total {}", kafka.commits);
    if let Some(at) = kafka.last_commit {
        head(text, "ameles_kafka_last_commit_timestamp_seconds", "gauge", "When the last batch was committed.");
        let _ = writeln!(text, "ameles_kafka_last_commit_timestamp_seconds {}", at.micros() as f64 / 1e6);
    }
    if let Some(at) = kafka.watermark {
        head(text, "ameles_kafka_watermark_timestamp_seconds", "gauge", "Event time of the slowest partition that this process reads.");
        let _ = writeln!(text, "ameles_kafka_watermark_timestamp_seconds {}", at.micros() as f64 / 1e6);
    }
    head(text, "ameles_kafka_rebalances_total", "counter", "Rebalances of the consumer group that this process took part in.");
    let _ = writeln!(text, "ameles_kafka_rebalances_total {}", kafka.rebalances);
    head(
        text,
        "ameles_kafka_errors_total",
        "counter",
        "Errors: of the brokers or the way to them, of the storage, of a partition committed elsewhere.",
    );
    for (kind, count) in [("broker", kafka.errors.broker), ("storage", kafka.errors.storage), ("moved", kafka.errors.moved)] {
        let _ = writeln!(text, "ameles_kafka_errors_total{{kind=\"{kind}\"}} {count}");
    }
    head(text, "ameles_kafka_failing", "gauge", "1 while nothing can be read or committed; the log says why.");
    let _ = writeln!(text, "ameles_kafka_failing {}", u8::from(kafka.failing.is_some()));
    head(text, "ameles_kafka_lag", "gauge", "Messages written to a partition of this process and not yet committed.");
    for of in &kafka.partitions {
        if let Some(lag) = of.lag() {
            let _ = writeln!(text, "ameles_kafka_lag{} {lag}", labels(of));
        }
    }
    head(text, "ameles_kafka_partition_stopped", "gauge", "1 where a partition is not read until it is reset; the log says why.");
    for of in &kafka.partitions {
        let _ = writeln!(text, "ameles_kafka_partition_stopped{} {}", labels(of), u8::from(of.stopped.is_some()));
    }
}

/// A topic's name has no character that would need an escape.
fn labels(of: &PartitionStatus) -> String {
    format!("{{topic=\"{}\",partition=\"{}\"}}", of.topic, of.partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_shown_by_the_conventions() {
        let mut kafka = KafkaStatus { commits: 4, failing: Some("no disk".to_owned()), ..KafkaStatus::default() };
        kafka.tally.accept(5);
        kafka.tally.reject(Reason::Duplicate, 2);
        kafka.partitions = vec![
            PartitionStatus { topic: "t".to_owned(), partition: 0, position: Some(3), end: Some(10), stopped: None },
            PartitionStatus { topic: "t".to_owned(), partition: 1, position: None, end: None, stopped: Some("gone".to_owned()) },
        ];
        let mut text = String::new();
        render(&mut text, &kafka);
        for line in [
            "ameles_kafka_messages_total 7",
            "ameles_kafka_events_accepted_total 5",
            "ameles_kafka_events_rejected_total{reason=\"duplicate\"} 2",
            "ameles_kafka_commits_total 4",
            "ameles_kafka_failing 1",
            "ameles_kafka_lag{topic=\"t\",partition=\"0\"} 7",
            "ameles_kafka_partition_stopped{topic=\"t\",partition=\"1\"} 1",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
        assert!(!text.contains("ameles_kafka_lag{topic=\"t\",partition=\"1\"}"), "unknown is not zero");
        let types = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        assert_eq!(types, text.lines().filter(|line| line.starts_with("# HELP")).count());
    }
}
