//! From a request to its rows.

mod cohorts;
mod daily;
mod direct;
mod growth;
mod output;
mod reading;
mod running;

use ameles_core::{Day, Grain, Month};
use ameles_schemas::TableSchemas;
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;

use crate::catalog::Metric;
use crate::count::Sizes;
use crate::session::run;
use crate::template::{Pieces, QueryFile};
use crate::{Completeness, MetricRequest, QueryError};

pub use output::Shape;
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
    pub async fn run(&self) -> Result<RecordBatch, QueryError> {
        match &self.metric {
            Metric::Retention => self.retention().await,
            Metric::Growth => self.growth().await,
            Metric::InstalledBase if self.request.active_in.is_none() => self.running().await,
            Metric::Measure(_) if self.request.cumulative => self.running().await,
            _ => self.daily().await,
        }
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
    fn window(&self) -> Option<u32> {
        match self.metric {
            Metric::Rolling(days) => Some(days),
            Metric::Stickiness => Some(crate::catalog::MAU28_DAYS),
            Metric::InstalledBase => self.request.active_in,
            _ => None,
        }
    }

    /// Whether a date is asked for.
    fn is_wanted(&self, date: Day) -> bool {
        self.request.from.is_none_or(|from| from <= date) && self.request.to.is_none_or(|to| date <= to)
    }

    /// The months of the data between those of two days.
    fn months(&self, from: Option<Day>, to: Option<Day>) -> (Month, Month) {
        let (first, last) = (self.coverage.first.month(), self.coverage.last.month());
        (from.map_or(first, |from| from.month().max(first)), to.map_or(last, |to| to.month().min(last)))
    }

    /// Whether nothing can change the value of the period that begins on `date`:
    /// the watermark has passed it, its months have closed, and its window lies
    /// within the data.
    fn is_complete(&self, date: Day, grain: Grain) -> bool {
        let last = match grain {
            Grain::Day => date,
            Grain::Week => date.plus(6),
            Grain::Month => date.month().last_day(),
        };
        let reaches = self.window().is_none_or(|days| date.plus(1 - days.min(i32::MAX as u32) as i32) >= self.coverage.first);
        last.plus(1).start() <= self.completeness.watermark && last.month() < self.completeness.closed_before && reaches
    }
}
