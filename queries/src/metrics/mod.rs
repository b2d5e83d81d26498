//! From a request to its rows.

mod cohorts;
mod daily;
mod direct;
mod growth;
mod output;
mod reading;
mod running;

use std::collections::BTreeMap;

use ameles_core::{Day, Grain, Month};
use ameles_schemas::TableSchemas;
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;

use crate::catalog::Metric;
use crate::cells::Row;
use crate::count::Sizes;
use crate::session::run;
use crate::template::{Pieces, QueryFile};
use crate::{Completeness, MetricRequest, QueryError};

pub use output::{Answer, Number, OTHER, OutRow, Shape};
pub use reading::Reading;

/// First and last day that have data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    pub first: Day,
    pub last: Day,
}

/// One request at work.
pub struct Job<'a> {
    pub reading: &'a Reading,
    pub request: &'a MetricRequest,
    pub metric: Metric,
    pub completeness: Completeness,
    pub coverage: Coverage,
    pub has_user: bool,
    pub sizes: Sizes,
    /// The smallest group, for analysts.
    pub k: Option<u32>,
    /// Whether the answer is compared with what was issued: it then says who is behind it.
    pub issuing: bool,
}

impl Metric {
    /// The columns of its answers.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Stickiness => Shape::RATIO,
            Self::Retention => Shape::RETENTION,
            Self::Growth => Shape::GROWTH,
            _ => Shape::COUNT,
        }
    }
}

/// The columns that a request's answer will have.
pub fn schema_of(request: &MetricRequest, tables: &TableSchemas) -> Result<Schema, QueryError> {
    Ok(Metric::of(request, tables)?.shape().schema(&request.by))
}

impl Job<'_> {
    /// The answer.
    pub async fn run(&self) -> Result<Answer, QueryError> {
        match &self.metric {
            Metric::Retention => self.retention().await,
            Metric::Growth => self.growth().await,
            _ if self.is_running() => self.running().await,
            _ => self.daily().await,
        }
    }

    /// Whether each day's number is a sum over all days before.
    pub fn is_running(&self) -> bool {
        match &self.metric {
            Metric::InstalledBase => self.request.active_in.is_none(),
            Metric::Measure(_) => self.request.cumulative,
            _ => false,
        }
    }

    /// The devices active in each of some months.
    pub async fn active_devices(&self, months: (Month, Month)) -> Result<BTreeMap<Month, u64>, QueryError> {
        let request = MetricRequest::named("mau");
        let job = Job { request: &request, metric: Metric::Mau, k: None, issuing: false, ..*self };
        let counted = job.counted((months.0.max(self.coverage.first.month()), months.1.min(self.coverage.last.month()))).await?;
        let devices = |row: &Row| row.values().map(|cell| u64::try_from(cell.values[0]).unwrap_or(0)).sum();
        Ok(counted.cells.iter().map(|(date, row)| (date.month(), devices(row))).collect())
    }

    /// Runs one statement of a file over the months given.
    async fn statement(&self, file: QueryFile, name: &str, months: (Month, Month)) -> Result<Vec<RecordBatch>, QueryError> {
        let pieces = Pieces {
            by: &self.request.by,
            filters: &self.request.filters,
            months,
            data_months: (self.coverage.first.month(), self.coverage.last.month()),
            window: self.window().unwrap_or(1),
            active_in: self.request.active_in.unwrap_or(1),
            measure: if let Metric::Measure(measure) = &self.metric { measure } else { "" },
            k: self.k.unwrap_or(1),
            has_user: self.has_user,
        };
        run(self.reading.context()?, file.statement(name, &pieces)?).await
    }

    /// Days that a value looks back over, its own included.
    pub fn window(&self) -> Option<u32> {
        match self.metric {
            Metric::Rolling(days) => Some(days),
            Metric::Stickiness => Some(crate::catalog::MAU28_DAYS),
            Metric::InstalledBase => self.request.active_in,
            _ => None,
        }
    }

    /// Whether a date is asked for.
    pub fn is_wanted(&self, date: Day) -> bool {
        self.request.from.is_none_or(|from| from <= date) && self.request.to.is_none_or(|to| date <= to)
    }

    /// The months of the data between those of two days.
    fn months(&self, from: Option<Day>, to: Option<Day>) -> (Month, Month) {
        let (first, last) = (self.coverage.first.month(), self.coverage.last.month());
        (from.map_or(first, |from| from.month().max(first)), to.map_or(last, |to| to.month().min(last)))
    }

    /// What a row's date stands for.
    pub fn grain(&self) -> Grain {
        match self.metric {
            Metric::Mau | Metric::Growth | Metric::Retention => Grain::Month,
            _ => self.request.grain.unwrap_or_default(),
        }
    }

    /// The last day of the period that begins on `date`.
    pub fn end_of_period(&self, date: Day) -> Day {
        end_of(date, self.grain())
    }

    /// Days in a period, at most.
    pub fn days_in_a_period(&self) -> i64 {
        match self.grain() {
            Grain::Day => 1,
            Grain::Week => 7,
            Grain::Month => 31,
        }
    }

    /// Whether the period's month has closed.
    pub fn is_closed(&self, date: Day) -> bool {
        self.end_of_period(date).month() < self.completeness.closed_before
    }

    /// Whether nothing can change the row; of a cohort the one so many months later.
    pub fn is_complete_row(&self, date: Day, offset: i32) -> bool {
        let date = if self.metric == Metric::Retention { date.month().plus(offset).first_day() } else { date };
        self.is_complete(date, self.grain())
    }

    /// Whether nothing can change the value of the period that begins on `date`:
    /// the watermark has passed it, its months have closed, and its window lies
    /// within the data.
    fn is_complete(&self, date: Day, grain: Grain) -> bool {
        let last = end_of(date, grain);
        let reaches = self.window().is_none_or(|days| date.plus(1 - days.min(i32::MAX as u32) as i32) >= self.coverage.first);
        last.plus(1).start() <= self.completeness.watermark && last.month() < self.completeness.closed_before && reaches
    }
}

fn end_of(date: Day, grain: Grain) -> Day {
    match grain {
        Grain::Day => date,
        Grain::Week => date.plus(6),
        Grain::Month => date.month().last_day(),
    }
}
