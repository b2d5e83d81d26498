//! Running totals: every day from their first to the last day of the data.

use std::collections::BTreeMap;

use ameles_core::{Day, Grain};

use super::Job;
use super::daily::Counted;
use super::output::{Answer, Behind, Number, OutRow};
use crate::QueryError;
use crate::catalog::Metric;
use crate::cells::{Cell, Cells, Groups};
use crate::guard::{Label, guard_running, relabel, running_labels};
use crate::issued::SPREAD;

impl Job<'_> {
    pub(super) async fn running(&self) -> Result<Answer, QueryError> {
        // History before `--from` counts; for analysts, what comes after `--to`
        // too: which groups stand alone must not depend on the period.
        let to = self.request.to.filter(|_| self.k.is_none());
        let Counted { cells, groups } = self.counted(self.months(None, to)).await?;
        let last = self.coverage.last;
        let days = match self.k {
            Some(k) => guard_running(&cells, &groups, last, k),
            None => totals(&cells, self.request.to.map_or(last, |to| to.min(last))),
        };
        let behind = if self.issuing { self.k.map(|k| self.behind_totals(&cells, &groups, k)) } else { None };
        let mut rows = Vec::new();
        for (date, labelled) in days.into_iter().filter(|(date, _)| self.issuing || self.is_wanted(*date)) {
            let complete = self.is_complete(date, Grain::Day);
            let row =
                |(label, cell): (Label, Cell)| OutRow { date, label, text: None, numbers: vec![Number::Count(cell.values[0])], complete };
            rows.extend(labelled.into_iter().map(row));
        }
        Ok(Answer { rows, groups, behind: behind.unwrap_or_default(), ..Answer::default() })
    }

    /// By day and label: the devices so far, steps left aside; of a measure who has which value on the day itself.
    fn behind_totals(&self, added: &Cells<Day>, groups: &Groups, k: u32) -> BTreeMap<Day, Behind> {
        let labels = running_labels(added, groups, k);
        let is_measure = matches!(self.metric, Metric::Measure(_));
        let known = !is_measure || added.values().flat_map(BTreeMap::values).any(|cell| !cell.behind.is_empty());
        let nothing = vec![
            0;
            if !known {
                0
            } else if is_measure {
                SPREAD
            } else {
                1
            }
        ];
        let mut so_far: BTreeMap<Label, Vec<i64>> = labels.values().map(|label| (*label, nothing.clone())).collect();
        let mut behind = BTreeMap::new();
        let Some((first, _)) = added.first_key_value() else { return behind };
        for day in (first.epoch_days()..=self.coverage.last.epoch_days()).map(Day::from_epoch_days) {
            if is_measure {
                so_far.values_mut().for_each(|devices| devices.clone_from(&nothing));
            }
            for (label, cell) in added.get(&day).map(|row| relabel(row, &labels, k)).unwrap_or_default() {
                let more = if is_measure { &cell.behind[..] } else { &cell.values[..1] };
                let devices = so_far.entry(label).or_default();
                devices.iter_mut().zip(more).for_each(|(devices, more)| *devices += more);
            }
            behind.insert(day, Behind { labels: so_far.clone(), hidden: Vec::new() });
        }
        behind
    }
}

fn totals(added: &Cells<Day>, last: Day) -> BTreeMap<Day, BTreeMap<Label, Cell>> {
    let mut totals: BTreeMap<Label, Cell> = BTreeMap::new();
    let mut days = BTreeMap::new();
    let Some((first, _)) = added.first_key_value() else { return days };
    for day in (first.epoch_days()..=last.epoch_days()).map(Day::from_epoch_days) {
        for (group, cell) in added.get(&day).into_iter().flatten() {
            totals.entry(Label::Group(*group)).or_default().add(cell, 0);
        }
        days.insert(day, totals.clone());
    }
    days
}
