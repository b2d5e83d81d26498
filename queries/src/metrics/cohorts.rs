//! Retention: cohorts by month of activation, by months since.

use std::collections::BTreeMap;

use ameles_core::{Day, Grain, Month};

use super::Job;
use super::direct::Direct;
use super::output::{Answer, Behind, Number, OutRow};
use crate::QueryError;
use crate::cells::{Cell, Cells, Columns, Groups, counts, people};
use crate::guard::{Label, fold_static, guard_retention, relabel};
use crate::template;

/// Cohort, and month of activity.
type Key = (Month, Month);

impl Job<'_> {
    pub(super) async fn retention(&self) -> Result<Answer, QueryError> {
        let months = self.months(self.request.from, self.request.to);
        let mut groups = Groups::default();
        let (active, size) = match self.direct(months).await? {
            Some(direct) => self.directly(&direct, &mut groups),
            None => self.by_statements(months, &mut groups).await?,
        };
        let rows = match self.k {
            None => with_sizes(&active, &size),
            Some(k) => guard_retention(&active, &size, &groups, k),
        };
        let behind = self.k.map(|k| behind_cohorts(&active, &size, &groups, k)).unwrap_or_default();
        Ok(Answer { rows: self.retention_rows(rows), groups, behind, ..Answer::default() })
    }

    /// Those active, by cohort and month, and the cohorts.
    fn directly(&self, direct: &Direct, groups: &mut Groups) -> (Cells<Key>, Cells<Month>) {
        let (mut active, mut size): (Cells<Key>, Cells<Month>) = (Cells::new(), Cells::new());
        direct.cohorts(groups, |(cohort, month), group, [devices, lost], parts| {
            let cell = Cell { values: [devices, 0], parts, ..Cell::default() };
            if month == cohort {
                let everyone = Cell { values: [devices + lost, 0], ..everyone(&cell, self.k.unwrap_or(0)) };
                size.entry(cohort).or_default().insert(group, everyone);
            }
            if devices > 0 || self.k.is_some() {
                active.entry((cohort, month)).or_default().insert(group, cell);
            }
        });
        (active, size)
    }

    async fn by_statements(&self, months: (Month, Month), groups: &mut Groups) -> Result<(Cells<Key>, Cells<Month>), QueryError> {
        let mut active: Cells<Key> = Cells::new();
        self.read(months, "value", groups, |key, group, columns, row| {
            active.entry(key).or_default().entry(group).or_default().values[0] =
                counts(&columns.others[1], row).first().copied().unwrap_or(0);
        })
        .await?;
        let mut size: Cells<Month> = Cells::new();
        self.read(months, "base", groups, |(cohort, _), group, columns, row| {
            size.entry(cohort).or_default().entry(group).or_default().values[0] =
                counts(&columns.others[1], row).first().copied().unwrap_or(0);
        })
        .await?;
        if let Some(k) = self.k {
            self.read(months, "people", groups, |(cohort, month), group, columns, row| {
                let behind = columns.others[1..].iter().map(|column| people(column, row, k).into_iter().next().unwrap_or_default());
                let cell = Cell { parts: behind.collect(), ..Cell::default() };
                if month == cohort {
                    // Everyone in the cohort was active in its month or was not.
                    size.entry(cohort).or_default().entry(group).or_default().add(&everyone(&cell, k), k);
                }
                active.entry((cohort, month)).or_default().entry(group).or_default().add(&cell, k);
            })
            .await?;
        }
        Ok((active, size))
    }

    fn retention_rows(&self, rows: BTreeMap<Key, BTreeMap<Label, Cell>>) -> Vec<OutRow> {
        let mut out = Vec::new();
        for ((cohort, month), labelled) in rows {
            let date = cohort.first_day();
            if !self.is_wanted(date) {
                continue;
            }
            let complete = self.is_complete(month.first_day(), Grain::Month);
            for (label, cell) in labelled.into_iter().filter(|(_, cell)| cell.values[0] != 0) {
                let [devices, size] = cell.values;
                let offset = i64::from(month.epoch_months() - cohort.epoch_months());
                let numbers = vec![Number::Count(offset), Number::Count(devices), Number::Ratio(devices as f64 / size.max(1) as f64)];
                out.push(OutRow { date, label, text: None, numbers, complete });
            }
        }
        out
    }

    async fn read(
        &self,
        months: (Month, Month),
        name: &str,
        groups: &mut Groups,
        mut each: impl FnMut(Key, u32, &Columns<'_>, usize),
    ) -> Result<(), QueryError> {
        for batch in self.statement(template::RETENTION, name, months).await? {
            let columns = Columns::open(&batch, self.request.by.len())?;
            for row in 0..batch.num_rows() {
                let (cohort, month) = (columns.month(row).month(), columns.date(0, row)?.month());
                let group = columns.group(row, groups);
                each((cohort, month), group, &columns, row);
            }
        }
        Ok(())
    }
}

/// The sets of those active and those not are devices, then users: each pair is everyone.
fn everyone(cell: &Cell, k: u32) -> Cell {
    let pairs = cell.parts.chunks(2).map(|pair| {
        let mut all = pair[0].clone();
        pair.iter().skip(1).for_each(|part| all.union(part, k));
        all
    });
    Cell { parts: pairs.collect(), ..Cell::default() }
}

/// Each cohort's devices, then those active by offset, whether they are shown or not.
fn behind_cohorts(active: &Cells<Key>, size: &Cells<Month>, groups: &Groups, k: u32) -> BTreeMap<Day, Behind> {
    let mut behind: BTreeMap<Day, Behind> = BTreeMap::new();
    for (cohort, sizes) in size {
        let labels = fold_static(sizes, groups, k);
        let of_cohort = &mut behind.entry(cohort.first_day()).or_default().labels;
        for (label, cell) in relabel(sizes, &labels, k) {
            of_cohort.insert(label, vec![cell.values[0]]);
        }
        for ((_, month), row) in active.range((*cohort, *cohort)..(cohort.plus(1), *cohort)) {
            let offset = usize::try_from(month.epoch_months() - cohort.epoch_months()).unwrap_or(0);
            for (label, cell) in relabel(row, &labels, k) {
                let devices = of_cohort.entry(label).or_default();
                devices.resize(devices.len().max(offset + 2), 0);
                devices[offset + 1] = cell.values[0];
            }
        }
    }
    behind
}

fn with_sizes(active: &Cells<Key>, size: &Cells<Month>) -> BTreeMap<Key, BTreeMap<Label, Cell>> {
    let mut rows = BTreeMap::new();
    for ((cohort, month), row) in active {
        let sized = row.iter().map(|(group, cell)| {
            let mut cell = cell.clone();
            cell.values[1] = size.get(cohort).and_then(|sizes| sizes.get(group)).map_or(0, |size| size.values[0]);
            (Label::Group(*group), cell)
        });
        rows.insert((*cohort, *month), sized.collect());
    }
    rows
}
