//! Not run by default: `AMELES_SPEED_WAREHOUSE=DIR cargo test --release -p ameles-queries speed -- --ignored --nocapture`
//! measures the metrics over a warehouse of the default contract. `AMELES_SPEED_ONLY=mau,dau` chooses some;
//! `AMELES_SPEED_USERS=1` counts users; `AMELES_SPEED_STATEMENTS=1` measures the statements as well.
#![allow(clippy::print_stderr)]

use std::sync::Arc;
use std::time::Instant;

use ameles_core::{Month, SuppressionSet, Timestamp};
use ameles_schemas::{Contract, Table};
use ameles_store::{ReadView, Warehouse};

use super::block_on;
use crate::{Completeness, Guard, MetricRequest, Metrics};

const METRICS: [&str; 10] = ["mau", "dau", "wakes", "wau", "mau28", "stickiness", "activations", "installed_base", "retention", "growth"];
const RUNS: usize = 3;

/// Seconds that all threads of this process have worked.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn resident_mib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

#[test]
#[ignore = "needs a warehouse"]
fn speed_of_the_metrics() {
    let root = std::env::var("AMELES_SPEED_WAREHOUSE").unwrap();
    let unit = if std::env::var("AMELES_SPEED_USERS").is_ok() { crate::Unit::User } else { crate::Unit::Device };
    let only = std::env::var("AMELES_SPEED_ONLY").unwrap_or_default();
    let by_only = std::env::var("AMELES_SPEED_BY").ok();
    let guards = std::env::var("AMELES_SPEED_K").unwrap_or_else(|_| "1,10".into());
    let started = Instant::now();
    let view = block_on(async {
        let warehouse = Warehouse::open(std::path::Path::new(&root), Contract::default_contract().tables()).await.unwrap();
        ReadView::open(&warehouse, Arc::new(SuppressionSet::default())).await.unwrap()
    });
    eprintln!("opened in {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    let months = view.months(Table::Activity);
    let last = *months.last().unwrap();
    let metrics = Metrics::new(
        Arc::clone(&view) as Arc<ReadView>,
        Completeness { watermark: Timestamp::MAX, closed_before: Month::from_epoch_months(9_999) },
    );
    let statements = std::env::var("AMELES_SPEED_STATEMENTS").is_ok();
    for name in METRICS.into_iter().filter(|name| only.is_empty() || only.split(',').any(|one| one == *name)) {
        let one_by_one = ["country", "product", "model", "partner", "firmware"].map(|dimension| vec![dimension]);
        for by in [vec![]].into_iter().chain(one_by_one).chain([vec!["country", "product"]]) {
            if by_only.as_ref().is_some_and(|only| *only != by.join("+")) {
                continue;
            }
            for guard in guards.split(',').map(|k| Guard::K(k.parse().unwrap())) {
                // A month for itself, and all of them.
                for month_only in [true, false] {
                    let mut request = MetricRequest { unit, ..MetricRequest::named(name).by(by.clone()) };
                    if month_only {
                        if !matches!(name, "mau" | "dau" | "wakes") {
                            continue;
                        }
                        (request.from, request.to) = (Some(last.first_day()), Some(last.last_day()));
                    }
                    let engines: &[(&str, bool)] = if statements { &[("", false), (" by statements", true)] } else { &[("", false)] };
                    for (label, by_statements) in engines {
                        let engine = if *by_statements { metrics.clone().by_statements() } else { metrics.clone() };
                        let (mut wall, mut work, mut rows) = (Vec::new(), Vec::new(), 0);
                        for _ in 0..RUNS {
                            let (start, before) = (Instant::now(), cpu());
                            rows = block_on(engine.run_metric(&request, guard)).unwrap().num_rows();
                            wall.push(start.elapsed().as_secs_f64() * 1e3);
                            work.push((cpu() - before) * 1e3);
                        }
                        eprintln!(
                            "{name:>14} by {:<16} {:?} {}{label}: first {:8.1} median {:8.1} ms, {:6.0} ms of work, {rows} rows, {} MiB, peak {}",
                            by.join(","),
                            guard,
                            if month_only { "one month" } else { "all" },
                            wall[0],
                            median(wall.clone()),
                            median(work),
                            resident_mib("VmRSS"),
                            resident_mib("VmHWM"),
                        );
                    }
                }
            }
        }
    }
}
