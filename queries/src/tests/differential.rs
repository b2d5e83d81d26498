//! The engine against the definitions.

use ameles_core::{Day, Grain};

use super::fleet::Fleet;
use super::reference::{Answer, Reference};
use super::{Row, ask};
use crate::{Guard, MetricRequest, Unit};

pub const METRICS: [&str; 10] =
    ["activations", "installed_base", "dau", "wau", "mau28", "mau", "stickiness", "wakes", "retention", "growth"];

/// Rows as the reference has them; retention's offset as a text.
fn answer_of(name: &str, rows: &[Row]) -> Answer {
    let key = |(date, texts, numbers, _): &Row| {
        let (mut texts, mut numbers) = (texts.clone(), numbers.clone());
        if name == "retention" {
            texts.push(Some(numbers.remove(0).to_string()));
        }
        ((*date, texts), numbers)
    };
    rows.iter().map(key).collect()
}

fn check(fleet: &Fleet, request: &MetricRequest) {
    let rows = ask(fleet, request, Guard::None);
    let got = answer_of(&request.name, &rows);
    assert_eq!(got.len(), rows.len(), "one row a key: {request:?}");
    let expected = Reference::new(fleet, request).answer();
    for (key, value) in &expected {
        assert_eq!(got.get(key), Some(value), "{request:?} at {} {:?}", Day::from_epoch_days(key.0), key.1);
    }
    for key in got.keys() {
        assert!(expected.contains_key(key), "{request:?}: {} {:?} should not be there", Day::from_epoch_days(key.0), key.1);
    }
    let sort_key = |row: &Row| (row.0, row.1.iter().map(|text| (text.is_none(), text.clone())).collect::<Vec<_>>());
    assert!(rows.is_sorted_by_key(sort_key), "{request:?} is not sorted");
}

pub fn variants(name: &str) -> Vec<MetricRequest> {
    let plain = MetricRequest::named(name);
    let day = |text: &str| Some(text.parse::<Day>().unwrap());
    let mut requests = vec![
        plain.clone(),
        plain.clone().by(["country"]),
        plain.clone().by(["country", "product"]),
        MetricRequest { from: day("2018-07-29"), to: day("2018-09-04"), ..plain.clone().by(["product"]) },
        MetricRequest { filters: vec!["country!=DE,o'clock".parse().unwrap(), "product=phone,speaker".parse().unwrap()], ..plain.clone() },
        MetricRequest { from: day("2018-08-01"), filters: vec!["country=DE".parse().unwrap()], ..plain.clone().by(["country"]) },
    ];
    match name {
        "activations" | "wakes" => {
            for grain in [Grain::Week, Grain::Month] {
                requests.push(MetricRequest {
                    grain: Some(grain),
                    from: day("2018-08-01"),
                    to: day("2018-10-02"),
                    ..plain.clone().by(["country"])
                });
            }
        }
        "installed_base" => {
            for active_in in [1, 30, 75] {
                requests.push(MetricRequest { active_in: Some(active_in), ..plain.clone().by(["country"]) });
                requests.push(MetricRequest { active_in: Some(active_in), from: day("2018-08-30"), ..plain.clone() });
            }
        }
        "dau" | "wau" | "mau28" | "mau" | "stickiness" => {
            let users: Vec<MetricRequest> = requests.iter().map(|request| MetricRequest { unit: Unit::User, ..request.clone() }).collect();
            requests.extend(users);
        }
        _ => {}
    }
    if name == "wakes" {
        requests.push(MetricRequest { cumulative: true, ..plain.clone().by(["country"]) });
        requests.push(MetricRequest { cumulative: true, from: day("2018-08-15"), to: day("2018-08-20"), ..plain });
    }
    requests
}

#[test]
fn every_metric_is_what_its_definition_says() {
    for seed in 1..=4 {
        let fleet = Fleet::random(seed, 24, true);
        for name in METRICS {
            for request in variants(name) {
                check(&fleet, &request);
            }
        }
    }
}

#[test]
fn without_users_devices_are_counted_all_the_same() {
    let fleet = Fleet::random(9, 20, false);
    for name in METRICS {
        for request in variants(name).into_iter().filter(|request| request.unit == Unit::Device) {
            check(&fleet, &request);
        }
    }
    let users = MetricRequest { unit: Unit::User, ..MetricRequest::named("dau") };
    let error = super::block_on(super::engine(&fleet).run_metric(&users, Guard::None)).unwrap_err();
    assert!(error.to_string().contains("names no user"));
}

#[test]
fn what_is_still_open_is_not_complete() {
    let fleet = Fleet::random(3, 24, true);
    let day = |text: &str| text.parse::<Day>().unwrap().epoch_days();
    let complete = |name: &str| -> Vec<(i32, bool)> {
        ask(&fleet, &MetricRequest::named(name), Guard::None).iter().map(|row| (row.0, row.3)).collect()
    };
    // The data begin on 3 July (or when the first device does), September is open.
    for (date, is_complete) in complete("dau") {
        assert_eq!(is_complete, date < day("2018-09-01"));
    }
    let first = complete("dau")[0].0;
    for (name, window) in [("wau", 7), ("mau28", 28), ("stickiness", 28)] {
        for (date, is_complete) in complete(name) {
            assert_eq!(is_complete, date < day("2018-09-01") && date >= first + window - 1, "{name}");
        }
    }
    let months: Vec<bool> = complete("mau").iter().map(|(_, complete)| *complete).collect();
    assert_eq!(months, [true, true, false, false]);
}

#[test]
fn what_does_not_exist_is_named_with_what_does() {
    let fleet = Fleet::random(3, 6, true);
    let error = |request: MetricRequest| super::block_on(super::engine(&fleet).run_metric(&request, Guard::None)).unwrap_err();
    for (request, expected) in [
        (MetricRequest::named("dua"), "no metric \"dua\"; there are activations, installed_base, dau"),
        (MetricRequest::named("dau").by(["city"]), "no dimension \"city\"; there are product, country"),
        (MetricRequest { filters: vec!["city=x".parse().unwrap()], ..MetricRequest::named("dau") }, "no dimension \"city\""),
        (MetricRequest::named("dau").by(["country", "country"]), "named twice"),
        (MetricRequest { grain: Some(Grain::Week), ..MetricRequest::named("dau") }, "grain is for what adds up"),
        (MetricRequest { active_in: Some(30), ..MetricRequest::named("dau") }, "active-in is for installed_base"),
        (MetricRequest { cumulative: true, ..MetricRequest::named("mau") }, "cumulative is for measures"),
        (MetricRequest { unit: Unit::User, ..MetricRequest::named("growth") }, "counts devices"),
    ] {
        let text = error(request).to_string();
        assert!(text.contains(expected), "{text}");
    }
    assert!("product".parse::<crate::Filter>().is_err());
}

#[test]
fn no_data_is_an_answer_without_rows() {
    let fleet = Fleet { events: Vec::new(), has_user: true };
    for name in METRICS {
        assert!(ask(&fleet, &MetricRequest::named(name).by(["country"]), Guard::K(10)).is_empty());
    }
}
