//! From a request to its rows.

mod cohorts;
mod daily;
mod growth;
mod output;
mod running;

use ameles_core::{Day, Grain, Month, Timestamp};
use ameles_schemas::TableSchemas;
use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::prelude::SessionContext;

use crate::catalog::Metric;
use crate::session::run;
use crate::template::{Pieces, QueryFile, Statement};
use crate::{Completeness, MetricRequest, QueryError};

pub use output::Shape;

/// First and last day that have data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    pub first: Day,
    pub last: Day,
}

/// One request at work.
pub struct Job<'a> {
    pub context: &'a SessionContext,
    pub request: &'a MetricRequest,
    pub metric: Metric,
    pub completeness: Completeness,
    pub coverage: Coverage,
    pub has_user: bool,
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

/// The days that the tables hold.
pub async fn coverage(context: &SessionContext) -> Result<Option<Coverage>, QueryError> {
    let sql = "SELECT min(first_ts), max(last_ts) FROM activity".to_owned();
    let batches = run(context, Statement { sql, parameters: Vec::new() }).await?;
    let instant = |column: usize| -> Result<Option<Day>, QueryError> {
        let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else { return Ok(None) };
        let micros = cast(batch.column(column), &DataType::Int64)?;
        let micros = micros.as_primitive::<Int64Type>();
        Ok(micros.is_valid(0).then(|| Timestamp::from_micros(micros.value(0)).day()))
    };
    Ok(instant(0)?.zip(instant(1)?).map(|(first, last)| Coverage { first, last }))
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
        run(self.context, file.statement(name, &pieces)?).await
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
