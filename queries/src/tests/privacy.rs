//! What can be computed from an analyst's answer rests on nobody or on `k`.

use std::collections::{BTreeMap, BTreeSet};

use ameles_core::{Day, Grain};

use super::differential::METRICS;
use super::fleet::{Dice, Fleet};
use super::reference::{Reference, Sets};
use super::{Row, ask};
use crate::{Guard, MetricRequest, Unit};

const OTHER: &str = "(other)";

fn safe(value: f64, k: u32) -> bool {
    value.abs() < 1e-9 || value.abs() >= f64::from(k) - 1e-9
}

fn is_other(row: &Row) -> bool {
    row.1.iter().any(|text| text.as_deref() == Some(OTHER))
}

/// Sums of the first number over each set of rows that agree on a date and on
/// some of their texts: all margins, of all dimensions and kinds.
fn margins(rows: &[Row], value: impl Fn(&Row) -> f64) -> BTreeMap<(i32, Vec<Option<Option<String>>>), f64> {
    let mut sums = BTreeMap::new();
    for row in rows {
        for subset in 0..1_u32 << row.1.len() {
            let key = row.1.iter().enumerate().map(|(at, text)| (subset >> at & 1 == 1).then(|| text.clone())).collect();
            *sums.entry((row.0, key)).or_insert(0.0) += value(row);
        }
    }
    sums
}

fn requests() -> Vec<MetricRequest> {
    let mut requests = Vec::new();
    for name in METRICS {
        for by in [vec![], vec!["country"], vec!["country", "product"]] {
            let plain = MetricRequest::named(name).by(by);
            requests.push(MetricRequest { filters: vec!["product!=tv".parse().unwrap()], ..plain.clone() });
            if matches!(name, "dau" | "wau" | "mau28" | "mau" | "stickiness") {
                requests.push(MetricRequest { unit: Unit::User, ..plain.clone() });
            }
            if matches!(name, "activations" | "wakes") {
                requests.push(MetricRequest { grain: Some(Grain::Week), ..plain.clone() });
            }
            if name == "wakes" {
                requests.push(MetricRequest { cumulative: true, ..plain.clone() });
            }
            if name == "installed_base" {
                requests.push(MetricRequest { active_in: Some(40), ..plain.clone() });
            }
            requests.push(plain);
        }
    }
    requests
}

#[test]
fn every_number_and_margin_is_none_or_k() {
    for (seed, has_user) in [(11, true), (12, false), (13, true)] {
        let fleet = Fleet::random(seed, 60, has_user);
        for k in [3, 6] {
            for request in requests().into_iter().filter(|request| has_user || request.unit == Unit::Device) {
                let rows = ask(&fleet, &request, Guard::K(k));
                check_numbers(&request, &rows, k);
                let running = request.name == "installed_base" || request.cumulative;
                if running {
                    check_steps(&request, &rows, k);
                }
                if request.name == "growth" {
                    check_siblings(&fleet, &request, &rows, k);
                }
            }
        }
    }
}

fn check_numbers(request: &MetricRequest, rows: &[Row], k: u32) {
    match request.name.as_str() {
        "stickiness" => {}
        "retention" => {
            for row in rows {
                let [_, devices, rate] = row.2[..] else { panic!("{row:?}") };
                let size = (devices / rate).round();
                assert!(devices >= f64::from(k) && safe(size - devices, k), "{request:?} {row:?}");
            }
            // Offsets must not tell cohorts of different groups.
            let mut sizes: BTreeMap<(i32, Vec<Option<String>>), BTreeSet<i64>> = BTreeMap::new();
            for row in rows {
                sizes.entry((row.0, row.1.clone())).or_default().insert((row.2[1] / row.2[2]).round() as i64);
            }
            assert!(sizes.values().all(|sizes| sizes.len() == 1), "{request:?}");
        }
        _ => {
            for (key, sum) in margins(rows, |row| row.2[0]) {
                assert!(sum >= f64::from(k), "{request:?} {key:?} {sum}");
            }
        }
    }
}

/// Differences of consecutive days, by row and by every margin.
fn check_steps(request: &MetricRequest, rows: &[Row], k: u32) {
    let rising_only = request.active_in.is_some();
    let series = if rising_only { margins_of_whole_rows(rows) } else { margins(rows, |row| row.2[0]) };
    let mut last: BTreeMap<Vec<Option<Option<String>>>, f64> = BTreeMap::new();
    for ((date, key), value) in series {
        if let Some(before) = last.insert(key.clone(), value) {
            let in_rise = !rising_only || date < rows[0].0;
            assert!(!in_rise || safe(value - before, k), "{request:?} {key:?} {}: {before} {value}", Day::from_epoch_days(date));
        }
    }
}

fn margins_of_whole_rows(rows: &[Row]) -> BTreeMap<(i32, Vec<Option<Option<String>>>), f64> {
    rows.iter().map(|row| ((row.0, row.1.iter().cloned().map(Some).collect()), row.2[0])).collect()
}

#[test]
fn windows_that_reach_before_the_data_rise_by_k_or_not_at_all() {
    for seed in 21..24 {
        let fleet = Fleet::random(seed, 60, false);
        for (name, window) in [("wau", 7), ("mau28", 28)] {
            let request = MetricRequest::named(name);
            let first = Reference::new(&fleet, &request).first.epoch_days();
            let rows: Vec<Row> = ask(&fleet, &request, Guard::K(5)).into_iter().filter(|row| row.0 < first + window).collect();
            for pair in rows.windows(2) {
                assert!(safe(pair[1].2[0] - pair[0].2[0], 5), "{name} {pair:?}");
            }
        }
    }
}

/// The rule of PRODUCT.md for periods that stand alone, once more and naively.
fn folded(sets: &Sets, k: u32) -> BTreeMap<(i32, Vec<Option<String>>), usize> {
    let mut periods: BTreeMap<i32, Vec<(Vec<Option<String>>, usize)>> = BTreeMap::new();
    for ((date, name), set) in sets {
        periods.entry(*date).or_default().push((name.clone(), set.len()));
    }
    let mut rows = BTreeMap::new();
    for (date, mut groups) in periods {
        groups.sort_by_key(|(name, size)| (*size, name.iter().map(|text| (text.is_none(), text.clone())).collect::<Vec<_>>()));
        let mut other = 0;
        let mut folded = 0;
        while folded < groups.len() && (groups[folded].1 < k as usize || (folded > 0 && other < k as usize)) {
            other += groups[folded].1;
            folded += 1;
        }
        if other >= k as usize {
            rows.insert((date, vec![Some(OTHER.to_owned()); groups[0].0.len()]), other);
        }
        for (name, size) in groups.into_iter().skip(folded) {
            rows.insert((date, name), size);
        }
    }
    rows
}

#[test]
fn small_groups_are_folded_smallest_first_until_other_reaches_k() {
    for seed in 31..34 {
        let fleet = Fleet::random(seed, 80, false);
        for name in ["dau", "mau", "activations"] {
            for by in [vec!["country"], vec!["country", "product"]] {
                let grain = (name == "activations").then_some(Grain::Month);
                let request = MetricRequest { grain, ..MetricRequest::named(name).by(by) };
                let expected = folded(&Reference::new(&fleet, &request).sets().unwrap(), 5);
                let rows = ask(&fleet, &request, Guard::K(5));
                let got: BTreeMap<_, _> = rows.iter().map(|row| ((row.0, row.1.clone()), row.2[0] as usize)).collect();
                assert_eq!(got, expected, "{request:?}");
                assert!(rows.iter().any(is_other) && rows.iter().any(|row| !is_other(row)), "{request:?}: a test without folding");
            }
        }
    }
}

#[test]
fn groups_rest_on_enough_users_too() {
    let k = 5;
    for seed in 41..44 {
        let fleet = Fleet::random(seed, 80, true);
        for name in ["dau", "mau"] {
            let devices = MetricRequest::named(name).by(["country"]);
            let users = MetricRequest { unit: Unit::User, ..devices.clone() };
            let by_user = Reference::new(&fleet, &users).sets().unwrap();
            let by_device = Reference::new(&fleet, &devices).sets().unwrap();
            for request in [&devices, &users] {
                let mut shown: BTreeMap<i32, BTreeSet<Vec<Option<String>>>> = BTreeMap::new();
                for row in ask(&fleet, request, Guard::K(k)) {
                    shown.entry(row.0).or_default().insert(row.1);
                }
                for (date, names) in shown {
                    for sets in [&by_user, &by_device] {
                        let mut other: BTreeSet<u64> = BTreeSet::new();
                        for ((_, name), set) in sets.iter().filter(|((of, _), _)| *of == date) {
                            if names.contains(name) {
                                assert!(set.len() >= k as usize, "{request:?} {name:?}");
                            } else {
                                other.extend(set);
                            }
                        }
                        let has_other = names.contains(&vec![Some(OTHER.to_owned())]);
                        assert!(!has_other || other.is_empty() || other.len() >= k as usize, "{request:?}");
                    }
                }
            }
        }
    }
}

/// Cells that stay out must not follow from those shown and from
/// new + retained + resurrected (month) = retained + churned (next month).
fn check_siblings(fleet: &Fleet, request: &MetricRequest, rows: &[Row], k: u32) {
    let sets = Reference::new(fleet, request).growth();
    let dims = request.by.len();
    // By label; all labels together when there are no dimensions to move between.
    if dims > 0 {
        return;
    }
    let mut unknown: Vec<(i32, &str)> = Vec::new();
    let mut truth = Vec::new();
    for ((date, texts), set) in &sets {
        let kind = texts[dims].as_deref().unwrap();
        if !rows.iter().any(|row| row.0 == *date && row.1[dims].as_deref() == Some(kind)) {
            unknown.push((*date, kind));
            truth.push(set.len() as f64);
        }
    }
    let months: BTreeSet<i32> = sets.keys().map(|(date, _)| *date).collect();
    let months: Vec<i32> = months.into_iter().collect();
    let equations: Vec<Vec<f64>> = months
        .windows(2)
        .map(|pair| {
            let coefficient = |(date, kind): &(i32, &str)| match *kind {
                _ if *date == pair[0] && *kind != "churned" => 1.0,
                "churned" | "retained" if *date == pair[1] => -1.0,
                _ => 0.0,
            };
            unknown.iter().map(coefficient).collect()
        })
        .collect();
    // Any combination of equations with small coefficients that gives a sum of
    // unknowns, none subtracted, tells that sum.
    let mut weights = vec![-1_i32; equations.len()];
    loop {
        let combined: Vec<f64> =
            (0..unknown.len()).map(|at| equations.iter().zip(&weights).map(|(row, weight)| row[at] * f64::from(*weight)).sum()).collect();
        let is_sum = combined.iter().all(|coefficient| *coefficient >= 0.0) && combined.iter().any(|coefficient| *coefficient > 0.0);
        if is_sum {
            let told: f64 = combined.iter().zip(&truth).map(|(coefficient, value)| coefficient * value).sum();
            assert!(safe(told, k), "{request:?}: {told} follows for {unknown:?} {truth:?} {rows:?}");
        }
        let Some(next) = weights.iter().position(|weight| *weight < 1) else { break };
        weights[next] += 1;
        weights[..next].fill(-1);
    }
}

#[test]
fn no_kind_of_growth_follows_from_the_others() {
    let mut dice = Dice::new(5);
    for seed in 100..140 {
        let fleet = Fleet::random(seed, 8 + dice.below(50), false);
        for k in [2, 4, 9] {
            let request = MetricRequest::named("growth");
            let rows = ask(&fleet, &request, Guard::K(k));
            check_numbers(&request, &rows, k);
            check_siblings(&fleet, &request, &rows, k);
        }
    }
}

#[test]
fn a_guard_of_one_hides_nothing() {
    let fleet = Fleet::random(51, 30, true);
    for request in requests() {
        assert_eq!(ask(&fleet, &request, Guard::K(1)), ask(&fleet, &request, Guard::None), "{request:?}");
    }
}
