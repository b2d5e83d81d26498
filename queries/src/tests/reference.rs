//! The metrics as PRODUCT.md says them, from raw events, without any cleverness.

use std::collections::{BTreeMap, BTreeSet};

use ameles_core::{Day, Month};

use super::fleet::{DIMENSIONS, Event, Fleet};
use crate::{Filter, MetricRequest, Unit};

/// Group, and kind or offset.
type Key = (i32, Vec<Option<String>>);
/// Values by date and texts.
pub type Answer = BTreeMap<Key, Vec<f64>>;
/// Who is counted, by date and texts.
pub type Sets = BTreeMap<Key, BTreeSet<u64>>;

pub struct Reference<'a> {
    fleet: &'a Fleet,
    request: &'a MetricRequest,
    pub first: Day,
    pub last: Day,
    active: BTreeMap<u64, BTreeSet<Day>>,
    attributes: BTreeMap<(Month, u64), &'a Event>,
    activated: BTreeMap<u64, &'a Event>,
}

impl<'a> Reference<'a> {
    pub fn new(fleet: &'a Fleet, request: &'a MetricRequest) -> Self {
        let mut active: BTreeMap<u64, BTreeSet<Day>> = BTreeMap::new();
        let mut activated: BTreeMap<u64, &Event> = BTreeMap::new();
        for event in &fleet.events {
            active.entry(event.device).or_default().insert(event.day());
            if event.kind == "activate" && activated.get(&event.device).is_none_or(|first| event.order() < first.order()) {
                activated.insert(event.device, event);
            }
        }
        let attributes =
            fleet.by_month().into_iter().map(|(key, events)| (key, *events.iter().max_by_key(|event| event.order()).unwrap())).collect();
        let days = || fleet.events.iter().map(Event::day);
        Self { fleet, request, first: days().min().unwrap(), last: days().max().unwrap(), active, attributes, activated }
    }

    fn days(&self) -> impl Iterator<Item = Day> + use<> {
        (self.first.epoch_days()..=self.last.epoch_days()).map(Day::from_epoch_days)
    }

    fn months(&self) -> impl Iterator<Item = Month> + use<> {
        (self.first.month().epoch_months()..=self.last.month().epoch_months()).map(Month::from_epoch_months)
    }

    /// The group of an event's attributes, if the filters let it through.
    fn group(&self, event: &Event) -> Option<Vec<Option<String>>> {
        let value = |name: &str| event.dims[DIMENSIONS.iter().position(|dim| *dim == name).unwrap()].clone();
        let passes = |filter: &Filter| match value(&filter.dim) {
            Some(value) => filter.values.contains(&value) != filter.negate,
            None => filter.negate,
        };
        self.request.filters.iter().all(passes).then(|| self.request.by.iter().map(|dim| value(dim)).collect())
    }

    fn attribute_group(&self, device: u64, month: Month) -> Option<Vec<Option<String>>> {
        self.group(self.attributes[&(month, device)])
    }

    /// Devices, or users, active in the `window` days that end on each day.
    pub fn window(&self, window: i32) -> Sets {
        let mut sets = Sets::new();
        for day in self.days() {
            for (device, active) in &self.active {
                let Some(last) = active.range(day.plus(1 - window)..=day).next_back() else { continue };
                let Some(group) = self.attribute_group(*device, last.month()) else { continue };
                match self.request.unit {
                    Unit::Device => {
                        sets.entry((day.epoch_days(), group)).or_default().insert(*device);
                    }
                    Unit::User => {
                        let mine = self.fleet.events.iter().filter(|event| event.device == *device);
                        for event in mine.filter(|event| day.plus(1 - window) <= event.day() && event.day() <= day) {
                            if let Some(user) = event.user {
                                sets.entry((day.epoch_days(), group.clone())).or_default().insert(user);
                            }
                        }
                    }
                }
            }
        }
        sets
    }

    fn mau(&self) -> Sets {
        let mut sets = Sets::new();
        for event in &self.fleet.events {
            let who = if self.request.unit == Unit::User { event.user } else { Some(event.device) };
            if let (Some(who), Some(group)) = (who, self.attribute_group(event.device, event.month())) {
                sets.entry((event.month().first_day().epoch_days(), group)).or_default().insert(who);
            }
        }
        sets
    }

    pub fn activations(&self) -> Sets {
        let mut sets = Sets::new();
        for (device, event) in &self.activated {
            if let Some(group) = self.group(event) {
                let date = event.day().truncate(self.request.grain.unwrap_or_default());
                sets.entry((date.epoch_days(), group)).or_default().insert(*device);
            }
        }
        sets
    }

    fn active_in(&self, window: i32) -> Sets {
        let mut sets = Sets::new();
        for day in self.days() {
            for (device, event) in self.activated.iter().filter(|(_, event)| event.day() <= day) {
                let seen = self.active[device].range(day.plus(1 - window)..=day).next().is_some();
                if let Some(group) = self.group(event).filter(|_| seen) {
                    sets.entry((day.epoch_days(), group)).or_default().insert(*device);
                }
            }
        }
        sets
    }

    fn wakes(&self) -> Answer {
        let mut answer = Answer::new();
        for event in self.fleet.events.iter().filter(|event| event.kind == "wake") {
            if let Some(group) = self.attribute_group(event.device, event.month()) {
                let date = event.day().truncate(self.request.grain.unwrap_or_default());
                answer.entry((date.epoch_days(), group)).or_insert_with(|| vec![0.0])[0] += 1.0;
            }
        }
        answer
    }

    fn running(&self, daily: &Answer) -> Answer {
        let mut answer = Answer::new();
        let mut totals: BTreeMap<Vec<Option<String>>, f64> = BTreeMap::new();
        for day in self.days() {
            for ((_, group), value) in daily.iter().filter(|((date, _), _)| *date == day.epoch_days()) {
                *totals.entry(group.clone()).or_default() += value[0];
            }
            for (group, total) in &totals {
                answer.insert((day.epoch_days(), group.clone()), vec![*total]);
            }
        }
        answer
    }

    fn retention(&self) -> Answer {
        let mut size: BTreeMap<Key, f64> = BTreeMap::new();
        let mut active: BTreeMap<(Key, i32), f64> = BTreeMap::new();
        for (device, event) in &self.activated {
            let Some(group) = self.group(event) else { continue };
            let key = (event.month().first_day().epoch_days(), group);
            *size.entry(key.clone()).or_default() += 1.0;
            let months: BTreeSet<Month> =
                self.active[device].iter().map(|day| day.month()).filter(|month| *month >= event.month()).collect();
            for month in months {
                *active.entry((key.clone(), month.epoch_months() - event.month().epoch_months())).or_default() += 1.0;
            }
        }
        let row = |((key, offset), devices): (&(Key, i32), &f64)| {
            let mut texts = key.1.clone();
            texts.push(Some(offset.to_string()));
            ((key.0, texts), vec![*devices, *devices / size[key]])
        };
        active.iter().map(row).collect()
    }

    pub fn growth(&self) -> Sets {
        let mut sets = Sets::new();
        let mut add = |month: Month, group: Option<Vec<Option<String>>>, kind: &str, device: u64| {
            if let Some(mut group) = group {
                group.push(Some(kind.to_owned()));
                sets.entry((month.first_day().epoch_days(), group)).or_default().insert(device);
            }
        };
        for month in self.months() {
            for (device, active) in &self.active {
                let was = |month: Month| active.iter().any(|day| day.month() == month);
                match (was(month), was(month.plus(-1)), active.iter().any(|day| day.month() < month)) {
                    (true, true, _) => add(month, self.attribute_group(*device, month), "retained", *device),
                    (true, false, true) => add(month, self.attribute_group(*device, month), "resurrected", *device),
                    (true, false, false) => add(month, self.attribute_group(*device, month), "new", *device),
                    (false, true, _) => add(month, self.attribute_group(*device, month.plus(-1)), "churned", *device),
                    (false, false, _) => {}
                }
            }
        }
        sets
    }

    /// The sets that a metric of devices or users counts, where it counts any.
    pub fn sets(&self) -> Option<Sets> {
        Some(match self.request.name.as_str() {
            "dau" => self.window(1),
            "wau" => self.window(7),
            "mau28" => self.window(28),
            "mau" => self.mau(),
            "activations" => self.activations(),
            "growth" => self.growth(),
            "installed_base" => self.active_in(i32::try_from(self.request.active_in?).unwrap()),
            _ => return None,
        })
    }

    /// The rows of the answer, by date, dimensions and kind or offset.
    pub fn answer(&self) -> Answer {
        let counted = |sets: Sets| -> Answer { sets.into_iter().map(|(key, set)| (key, vec![set.len() as f64])).collect() };
        let answer = match (self.request.name.as_str(), self.sets()) {
            (_, Some(sets)) => counted(sets),
            ("installed_base", None) => self.running(&counted(self.activations())),
            ("stickiness", None) => {
                let whole = self.window(28);
                let ratio = |(key, set): (Key, BTreeSet<u64>)| (key.clone(), vec![set.len() as f64 / whole[&key].len() as f64]);
                self.window(1).into_iter().map(ratio).collect()
            }
            ("wakes", None) if self.request.cumulative => self.running(&self.wakes()),
            ("wakes", None) => self.wakes(),
            ("retention", None) => self.retention(),
            (name, None) => panic!("no reference for {name}"),
        };
        let wanted = |date: i32| {
            let date = Day::from_epoch_days(date);
            self.request.from.is_none_or(|from| from <= date) && self.request.to.is_none_or(|to| date <= to)
        };
        answer.into_iter().filter(|((date, _), _)| wanted(*date)).collect()
    }
}
