//! Metrics with one value a day (or week, or month) that stands for itself.

use std::collections::BTreeMap;

use ameles_core::{Day, Grain, Month};

use super::Job;
use super::output::{Answer, Behind, Number, OutRow};
use crate::catalog::Metric;
use crate::cells::{Cell, Cells, Columns, Groups, Row, counts, people, truncate};
use crate::guard::{Label, fold, guard_rising};
use crate::issued::SPREAD;
use crate::template::{self, QueryFile};
use crate::{MetricRequest, QueryError, Unit};

/// Cells of an answer with their groups.
pub(super) struct Counted {
    pub cells: Cells<Day>,
    pub groups: Groups,
}

impl Job<'_> {
    pub(super) async fn daily(&self) -> Result<Answer, QueryError> {
        let grain = self.grain();
        let Counted { cells, groups } = self.counted(self.months_to_read(grain)).await?;
        let mut cells = truncate(cells, grain, self.k.unwrap_or(0));
        if self.issuing && self.request.unit == Unit::User {
            self.add_devices(&mut cells, &groups).await?;
        }
        let rising = self.split_rising(&mut cells);
        let (mut rows, mut behind) = (Vec::new(), BTreeMap::new());
        let mut add = |date: Day, row: &Row, labelled: BTreeMap<Label, Cell>| {
            if self.is_wanted(date) {
                if self.issuing {
                    behind.insert(date, self.behind(row, &labelled));
                }
                let complete = self.is_complete(date, grain);
                let shown = labelled.into_iter().filter(|(_, cell)| cell.values[0] != 0);
                rows.extend(shown.map(|(label, cell)| OutRow { date, label, text: None, numbers: vec![self.number(&cell)], complete }));
            }
        };
        for (date, row) in &cells {
            match self.k {
                Some(k) => add(*date, row, fold(row, &groups, k)),
                None => add(*date, row, row.iter().map(|(group, cell)| (Label::Group(*group), cell.clone())).collect()),
            }
        }
        if let Some(k) = self.k {
            for (date, labelled) in guard_rising(&rising, &groups, k) {
                add(date, &rising[&date], labelled);
            }
        }
        Ok(Answer { rows, groups, behind, ..Answer::default() })
    }

    /// The devices behind each label, and behind all that no label shows.
    fn behind(&self, row: &Row, labelled: &BTreeMap<Label, Cell>) -> Behind {
        let labels: BTreeMap<Label, Vec<i64>> = labelled.iter().map(|(label, cell)| (*label, self.devices(cell))).collect();
        let mut hidden: Vec<i64> = Vec::new();
        for devices in row.values().map(|cell| self.devices(cell)) {
            hidden.resize(hidden.len().max(devices.len()), 0);
            hidden.iter_mut().zip(devices).for_each(|(hidden, devices)| *hidden += devices);
        }
        for devices in labels.values() {
            hidden.iter_mut().zip(devices).for_each(|(hidden, devices)| *hidden -= devices);
        }
        Behind { labels, hidden }
    }

    fn devices(&self, cell: &Cell) -> Vec<i64> {
        let mut devices = match self.metric {
            Metric::Measure(_) => Vec::new(),
            Metric::Stickiness => cell.values.to_vec(),
            _ => vec![cell.values[0]],
        };
        devices.extend(&cell.behind);
        // Who has any in the month counts once in the month's row alone.
        if matches!(self.metric, Metric::Measure(_)) && self.grain() != Grain::Month {
            devices.truncate(SPREAD);
        }
        devices
    }

    /// Puts the number of devices behind each number of users.
    async fn add_devices(&self, cells: &mut Cells<Day>, groups: &Groups) -> Result<(), QueryError> {
        let request = MetricRequest { unit: Unit::Device, ..self.request.clone() };
        let job = Job { request: &request, metric: self.metric.clone(), k: None, issuing: false, ..*self };
        let Counted { cells: devices, groups: mut names } = job.counted(job.months_to_read(job.grain())).await?;
        let parts = if self.metric == Metric::Stickiness { 2 } else { 1 };
        for (date, row) in cells {
            for (group, cell) in row {
                let of_group = names.id(groups.name(*group).to_vec());
                let values = devices.get(date).and_then(|row| row.get(&of_group)).map(|cell| cell.values).unwrap_or_default();
                cell.behind = values[..parts].to_vec();
            }
        }
        Ok(())
    }

    /// Takes out the days whose window still reaches before the data, whose
    /// counts only rise; for analysts, and where counts themselves are shown.
    fn split_rising(&self, cells: &mut Cells<Day>) -> Cells<Day> {
        match self.first_full_day() {
            Some(full) => {
                let rest = cells.split_off(&full.plus(1));
                std::mem::replace(cells, rest)
            }
            None => Cells::new(),
        }
    }

    fn first_full_day(&self) -> Option<Day> {
        let shows_counts = self.metric != Metric::Stickiness;
        let window = self.window().filter(|_| self.k.is_some() && shows_counts)?;
        Some(self.coverage.first.plus(i32::try_from(window).ok()?.saturating_sub(1)))
    }

    /// The months whose rows bear on the dates asked for.
    fn months_to_read(&self, grain: Grain) -> (Month, Month) {
        let (from, to) = (self.request.from, self.request.to);
        // The first days of the data are judged in a row, whatever is asked for.
        let from = if self.first_full_day().is_some_and(|full| from.is_some_and(|from| from <= full)) { None } else { from };
        let to = to.map(|to| match grain {
            Grain::Day => to,
            Grain::Week => to.plus(6),
            Grain::Month => to.month().last_day(),
        });
        let (first, last) = self.months(from, to);
        match self.metric {
            // Windows of the month before reach into this one.
            Metric::Rolling(_) | Metric::Stickiness => (first.plus(-1), last),
            _ => (first, last),
        }
    }

    fn number(&self, cell: &Cell) -> Number {
        match self.metric {
            Metric::Stickiness => Number::Ratio(cell.values[0] as f64 / cell.values[1].max(1) as f64),
            _ => Number::Count(cell.values[0]),
        }
    }

    fn file(&self) -> QueryFile {
        let users = self.request.unit == Unit::User;
        match &self.metric {
            Metric::Activations => template::ACTIVATIONS,
            Metric::InstalledBase if self.request.active_in.is_some() => template::INSTALLED_BASE_ACTIVE_IN,
            Metric::InstalledBase => template::INSTALLED_BASE,
            Metric::Dau if users => template::DAU_USERS,
            Metric::Dau => template::DAU,
            Metric::Rolling(_) if users => template::ROLLING_USERS,
            Metric::Rolling(_) => template::ROLLING,
            Metric::Stickiness if users => template::STICKINESS_USERS,
            Metric::Stickiness => template::STICKINESS,
            Metric::Mau if users => template::MAU_USERS,
            Metric::Mau => template::MAU,
            Metric::Measure(_) => template::MEASURE,
            Metric::Retention => template::RETENTION,
            Metric::Growth => template::GROWTH,
        }
    }

    /// The metric's counts by day, and for analysts who stands behind them.
    pub(super) async fn counted(&self, months: (Month, Month)) -> Result<Counted, QueryError> {
        if let Some(direct) = self.direct(months).await? {
            return Ok(direct.counted(self.coverage.last));
        }
        let mut groups = Groups::default();
        let mut cells: Cells<Day> = Cells::new();
        let dims = self.request.by.len();
        for batch in self.statement(self.file(), "value", months).await? {
            let columns = Columns::open(&batch, dims)?;
            for row in 0..batch.num_rows() {
                let (group, first) = (columns.group(row, &mut groups), columns.month(row));
                for (which, column) in columns.others.iter().enumerate().take(2) {
                    for (day, count) in self.days(first, counts(column, row)).filter(|(_, count)| *count != 0) {
                        cells.entry(day).or_default().entry(group).or_default().values[which] += count;
                    }
                }
            }
        }
        let Some(k) = self.k else { return Ok(Counted { cells, groups }) };
        for batch in self.statement(self.file(), "people", months).await? {
            let columns = Columns::open(&batch, dims)?;
            for row in 0..batch.num_rows() {
                let (group, first) = (columns.group(row, &mut groups), columns.month(row));
                for (which, column) in columns.others.iter().enumerate() {
                    for (day, behind) in self.days(first, people(column, row, k)) {
                        let Some(cell) = cells.get_mut(&day).and_then(|row| row.get_mut(&group)) else { continue };
                        cell.parts.resize_with(cell.parts.len().max(which + 1), Default::default);
                        cell.parts[which].union(&behind, k);
                    }
                }
            }
        }
        Ok(Counted { cells, groups })
    }

    /// Values per bit as values per day, up to the last day of the data.
    fn days<T>(&self, first: Day, values: Vec<T>) -> impl Iterator<Item = (Day, T)> + use<T> {
        let last = self.coverage.last;
        values.into_iter().enumerate().map(move |(bit, value)| (first.plus(bit as i32), value)).filter(move |(day, _)| *day <= last)
    }
}
