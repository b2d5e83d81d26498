//! Growth: each month's devices by what happened to them.

use ameles_core::{Grain, Month};
use arrow::record_batch::RecordBatch;

use super::Job;
use super::output::{Number, OutRow};
use crate::QueryError;
use crate::cells::{Cells, Columns, Groups, counts, people};
use crate::guard::{Kind, Label, guard_growth};
use crate::template;

impl Job<'_> {
    pub(super) async fn growth(&self) -> Result<RecordBatch, QueryError> {
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
        let rows = match self.k {
            Some(k) => guard_growth(&cells, &groups, k),
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
        self.metric.shape().batch(&self.request.by, out, &groups)
    }
}
