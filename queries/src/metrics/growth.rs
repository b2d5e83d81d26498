//! Growth: each month's devices by what happened to them.

use std::collections::BTreeMap;

use ameles_core::{Day, Grain, Month};

use super::Job;
use super::output::{Answer, Behind, Number, OutRow};
use crate::QueryError;
use crate::cells::{Cells, Columns, Groups, counts, people};
use crate::guard::{Kind, Label, guard_growth};
use crate::template;

/// The order in which [`Proof::Growth`](crate::issued) has them.
const KINDS: [Kind; 4] = [Kind::New, Kind::Retained, Kind::Resurrected, Kind::Churned];

impl Job<'_> {
    pub(super) async fn growth(&self) -> Result<Answer, QueryError> {
        let months = self.months(self.request.from, self.request.to);
        let mut groups = Groups::default();
        let mut cells: Cells<(Month, Kind)> = Cells::new();
        let direct = self.direct(months).await?;
        if let Some(direct) = &direct {
            cells = direct.kinds(&mut groups);
            cells.retain(|(month, _), _| self.is_wanted(month.first_day()));
        }
        for name in ["value", "people"] {
            if direct.is_some() || (name == "people" && self.k.is_none()) {
                break;
            }
            for batch in self.statement(template::GROWTH, name, months).await? {
                let columns = Columns::open(&batch, self.request.by.len())?;
                let kinds = columns.texts(0)?;
                for row in 0..batch.num_rows() {
                    let month = columns.month(row).month();
                    let Some(kind) = Kind::parse(kinds.value(row)).filter(|_| self.is_wanted(month.first_day())) else { continue };
                    let group = columns.group(row, &mut groups);
                    let cell = cells.entry((month, kind)).or_default().entry(group).or_default();
                    if name == "value" {
                        cell.values[0] += counts(&columns.others[1], row).first().copied().unwrap_or(0);
                    } else {
                        let k = self.k.unwrap_or(0);
                        let behind = columns.others[1..].iter().map(|column| people(column, row, k).into_iter().next().unwrap_or_default());
                        cell.parts = behind.collect();
                    }
                }
            }
        }
        let mut behind: BTreeMap<Day, Behind> = BTreeMap::new();
        let rows = match self.k {
            Some(k) => {
                let (rows, all) = guard_growth(&cells, &groups, k);
                for ((month, kind), labelled) in all {
                    for (label, cell) in labelled {
                        let devices = behind.entry(month.first_day()).or_default().labels.entry(label).or_default();
                        devices.resize(KINDS.len(), 0);
                        let place = KINDS.iter().position(|other| *other == kind);
                        place.and_then(|at| devices.get_mut(at)).into_iter().for_each(|devices| *devices = cell.values[0]);
                    }
                }
                rows
            }
            None => cells
                .into_iter()
                .map(|(key, row)| (key, row.into_iter().map(|(group, cell)| (Label::Group(group), cell)).collect()))
                .collect(),
        };
        let mut out = Vec::new();
        for ((month, kind), labelled) in rows {
            let date = month.first_day();
            let complete = self.is_complete(date, Grain::Month);
            for (label, cell) in labelled.into_iter().filter(|(_, cell)| cell.values[0] != 0) {
                out.push(OutRow { date, label, text: Some(kind.as_str()), numbers: vec![Number::Count(cell.values[0])], complete });
            }
        }
        Ok(Answer { rows: out, groups, behind, ..Answer::default() })
    }
}
