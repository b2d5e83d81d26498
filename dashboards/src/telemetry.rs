//! Counters of the server in Prometheus' text format. Labels are route templates, methods, states and
//! reasons: never a path as asked for, never an identifier.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use ameles_core::{Reason, Tally};
use ameles_ingest::KafkaStatus;

/// Upper bounds of the duration histogram, in milliseconds.
const BUCKETS_MS: [u64; 9] = [5, 10, 25, 50, 100, 250, 1_000, 5_000, 30_000];

#[derive(Clone, Default)]
struct Durations {
    buckets: [u64; BUCKETS_MS.len()],
    count: u64,
    sum_us: u64,
}

#[derive(Default)]
struct Counters {
    requests: BTreeMap<(String, String, u16), u64>,
    durations: BTreeMap<String, Durations>,
}

/// Counts requests. Its size is bounded by the number of routes.
#[derive(Default)]
pub struct Telemetry {
    counters: Mutex<Counters>,
}

impl Telemetry {
    /// Counts one answered request.
    pub(crate) fn observe(&self, method: &str, route: &str, status: u16, micros: u64) {
        // A method is the client's to choose.
        let method = if ["GET", "POST", "DELETE", "HEAD", "PUT", "OPTIONS"].contains(&method) { method } else { "other" };
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        *counters.requests.entry((route.to_owned(), method.to_owned(), status)).or_default() += 1;
        let durations = counters.durations.entry(route.to_owned()).or_default();
        durations.count += 1;
        durations.sum_us = durations.sum_us.saturating_add(micros);
        for (count, bound) in durations.buckets.iter_mut().zip(BUCKETS_MS) {
            *count += u64::from(micros <= bound * 1_000);
        }
    }

    /// All counters as text.
    pub(crate) fn render(&self, tally: Option<&Tally>, kafka: Option<&KafkaStatus>, erasures: &Erasures) -> String {
        let mut text = String::with_capacity(4_096);
        if let Some(tally) = tally {
            head(&mut text, "ameles_events_received_total", "counter", "Events received over HTTP since the start.");
            let _ = writeln!(text, "ameles_events_received_total {}", tally.received());
            head(&mut text, "ameles_events_accepted_total", "counter", "Events accepted over HTTP since the start.");
            let _ = writeln!(text, "ameles_events_accepted_total {}", tally.accepted());
            head(&mut text, "ameles_events_rejected_total", "counter", "Events rejected over HTTP since the start, by reason.");
            for reason in Reason::ALL {
                let _ = writeln!(text, "ameles_events_rejected_total{{reason=\"{reason}\"}} {}", tally.rejected(reason));
            }
        }
        if let Some(kafka) = kafka {
            crate::kafka_metrics::render(&mut text, kafka);
        }
        head(&mut text, "ameles_erasure_requests", "gauge", "Erasure requests by state.");
        for (state, count) in &erasures.by_state {
            let _ = writeln!(text, "ameles_erasure_requests{{state=\"{state}\"}} {count}");
        }
        head(&mut text, "ameles_erasure_overdue", "gauge", "Erasure requests past their deadline and not completed.");
        let _ = writeln!(text, "ameles_erasure_overdue {}", erasures.overdue);

        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        head(&mut text, "ameles_http_requests_total", "counter", "Requests answered, by route, method and status.");
        for ((route, method, status), count) in &counters.requests {
            let _ = writeln!(text, "ameles_http_requests_total{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}} {count}");
        }
        let name = "ameles_http_request_duration_seconds";
        head(&mut text, name, "histogram", "Time to answer, by route.");
        for (route, durations) in &counters.durations {
            for (count, bound) in durations.buckets.iter().zip(BUCKETS_MS) {
                let _ = writeln!(text, "{name}_bucket{{route=\"{route}\",le=\"{}\"}} {count}", bound as f64 / 1_000.0);
            }
            let _ = writeln!(text, "{name}_bucket{{route=\"{route}\",le=\"+Inf\"}} {}", durations.count);
            let _ = writeln!(text, "{name}_sum{{route=\"{route}\"}} {}", durations.sum_us as f64 / 1e6);
            let _ = writeln!(text, "{name}_count{{route=\"{route}\"}} {}", durations.count);
        }
        text
    }
}

/// What the ledger says of erasures at the moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Erasures {
    pub by_state: Vec<(&'static str, u64)>,
    pub overdue: u64,
}

pub(crate) fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_follow_the_conventions() {
        let telemetry = Telemetry::default();
        telemetry.observe("GET", "/v1/metrics/{name}", 200, 7_000);
        telemetry.observe("BREW", "/v1/metrics/{name}", 405, 400_000_000);
        let mut tally = Tally::default();
        tally.accept(2);
        tally.reject(Reason::MissingField, 1);
        let text = telemetry.render(Some(&tally), None, &Erasures { by_state: vec![("pending", 3)], overdue: 1 });
        for line in [
            "ameles_events_received_total 3",
            "ameles_events_rejected_total{reason=\"missing_field\"} 1",
            "ameles_events_rejected_total{reason=\"duplicate\"} 0",
            "ameles_erasure_requests{state=\"pending\"} 3",
            "ameles_erasure_overdue 1",
            "ameles_http_requests_total{route=\"/v1/metrics/{name}\",method=\"GET\",status=\"200\"} 1",
            "ameles_http_requests_total{route=\"/v1/metrics/{name}\",method=\"other\",status=\"405\"} 1",
            "ameles_http_request_duration_seconds_bucket{route=\"/v1/metrics/{name}\",le=\"0.005\"} 0",
            "ameles_http_request_duration_seconds_bucket{route=\"/v1/metrics/{name}\",le=\"0.01\"} 1",
            "ameles_http_request_duration_seconds_bucket{route=\"/v1/metrics/{name}\",le=\"+Inf\"} 2",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
        let types = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        assert_eq!(types, text.lines().filter(|line| line.starts_with("# HELP")).count());
    }
}
