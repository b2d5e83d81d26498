//! Running totals: every day from their first to the last day of the data.

use std::collections::BTreeMap;

use ameles_core::{Day, Grain};
use arrow::record_batch::RecordBatch;

use super::Job;
use super::daily::Counted;
use super::output::{Number, OutRow};
use crate::QueryError;
use crate::cells::{Cell, Cells};
use crate::guard::{Label, guard_running};

impl Job<'_> {
    pub(super) async fn running(&self) -> Result<RecordBatch, QueryError> {
        // History before `--from` counts; for analysts, what comes after `--to`
        // too: which groups stand alone must not depend on the period.
        let to = self.request.to.filter(|_| self.k.is_none());
        let Counted { cells, groups } = self.counted(self.months(None, to)).await?;
        let last = self.coverage.last;
        let days = match self.k {
            Some(k) => guard_running(&cells, &groups, last, k),
            None => totals(&cells, self.request.to.map_or(last, |to| to.min(last))),
        };
        let mut rows = Vec::new();
        for (date, labelled) in days.into_iter().filter(|(date, _)| self.is_wanted(*date)) {
            let complete = self.is_complete(date, Grain::Day);
            let row =
                |(label, cell): (Label, Cell)| OutRow { date, label, text: None, numbers: vec![Number::Count(cell.values[0])], complete };
            rows.extend(labelled.into_iter().map(row));
        }
        self.metric.shape().batch(&self.request.by, rows, &groups)
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
