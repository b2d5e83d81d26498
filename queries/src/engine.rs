//! Runs metrics and SQL over one view of the tables.

use std::sync::Arc;
use std::time::Duration;

use ameles_core::{Month, Timestamp};
use arrow::record_batch::RecordBatch;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::catalog::Metric;
use crate::count::Sizes;
use crate::issued;
use crate::kept::Question;
use crate::metrics::{self, Job, Reading};
use crate::sql;
use crate::{Guard, HELD_BACK, Issues, KeptAnswers, MetricRequest, QueryError, TableSource};

/// How far the data can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completeness {
    /// Events up to here have arrived.
    pub watermark: Timestamp,
    /// Months before this one have closed.
    pub closed_before: Month,
}

/// Bounds on one SQL statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqlLimits {
    /// The longest it may run.
    pub timeout: Duration,
    /// The most rows in its answer.
    pub rows_max: usize,
    /// The most memory that it may hold.
    pub memory_bytes_max: usize,
}

impl Default for SqlLimits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(60), rows_max: 1_000_000, memory_bytes_max: 2 << 30 }
    }
}

/// The metrics and SQL over one view.
#[derive(Clone)]
pub struct Metrics {
    source: Arc<dyn TableSource>,
    completeness: Completeness,
    limits: SqlLimits,
    kept: Option<Arc<KeptAnswers>>,
    issues: Option<Arc<Issues>>,
    /// Metrics by the statements of `queries/` alone.
    by_statements: bool,
    sizes: Sizes,
}

impl Metrics {
    /// Over a view (an `Arc<ReadView>` will do).
    pub fn new(source: Arc<dyn TableSource>, completeness: Completeness) -> Self {
        Self { source, completeness, limits: SqlLimits::default(), kept: None, issues: None, by_statements: false, sizes: Sizes::default() }
    }
    /// With other bounds.
    #[must_use]
    pub fn with_limits(mut self, limits: SqlLimits) -> Self {
        self.limits = limits;
        self
    }
    /// Analysts' answers come from `kept` where they have been computed in this snapshot, and go there.
    #[must_use]
    pub fn with_kept(mut self, kept: Arc<KeptAnswers>) -> Self {
        self.kept = Some(kept);
        self
    }
    /// Analysts' answers about closed months are those that were issued, until enough devices have changed.
    #[must_use]
    pub fn with_issues(mut self, issues: Arc<Issues>) -> Self {
        self.issues = Some(issues);
        self
    }
    /// With the statements of `queries/` for all metrics, also where the columns could be counted without SQL: slower, and the same answers.
    #[must_use]
    pub fn by_statements(mut self) -> Self {
        self.by_statements = true;
        self
    }
    /// With other sizes of what is looked at together.
    #[cfg(test)]
    pub(crate) fn with_sizes(mut self, sizes: Sizes) -> Self {
        self.sizes = sizes;
        self
    }
    /// A metric's rows: date, dimensions as asked, value, `complete`; sorted.
    ///
    /// # Errors
    /// When the request names what does not exist, or the tables cannot be read.
    pub fn run_metric<'a>(&'a self, request: &'a MetricRequest, guard: Guard) -> BoxFuture<'a, Result<RecordBatch, QueryError>> {
        self.metric(request, guard).boxed()
    }

    async fn metric(&self, request: &MetricRequest, guard: Guard) -> Result<RecordBatch, QueryError> {
        if let (Some(kept), Some(k), Some(snapshot)) = (&self.kept, guard.k(), self.source.snapshot_id()) {
            let fresh = Self { kept: None, ..self.clone() };
            let compute = fresh.run_metric(request, guard);
            return kept.answer(&snapshot, Question::new(request, k, self.completeness), compute).await;
        }
        let tables = self.source.schemas();
        let metric = Metric::of(request, tables)?;
        let view = if self.by_statements { None } else { Arc::clone(&self.source).view() };
        let reading = Reading::new(&self.source, view, self.limits.memory_bytes_max);
        let Some(coverage) = reading.coverage().await? else {
            return Ok(RecordBatch::new_empty(Arc::new(metrics::schema_of(request, tables)?)));
        };
        let (completeness, k) = (self.completeness, guard.k());
        let (has_user, sizes) = (tables.has_user, self.sizes);
        let issues = self.issues.as_ref().zip(k);
        let job = Job { reading: &reading, request, metric, completeness, coverage, has_user, sizes, k, issuing: issues.is_some() };
        let mut answer = job.run().await?;
        if let Some((issues, k)) = issues {
            answer = issued::issue(&job, issues, k, answer).await?;
        }
        answer.rows.retain(|row| job.is_wanted(row.date));
        let batch = job.metric.shape().batch(&request.by, answer.rows, &answer.groups)?;
        if answer.held_back.is_empty() {
            return Ok(batch);
        }
        let months = answer.held_back.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let schema = batch.schema().as_ref().clone().with_metadata([(HELD_BACK.to_owned(), months)].into());
        Ok(batch.with_schema(Arc::new(schema))?)
    }

    /// A SELECT over `events`, `activity`, `devices`, `links` and the metrics (at least one batch, for its schema).
    ///
    /// # Errors
    /// When the statement is no SELECT, is refused by the guard, or passes a limit.
    pub fn run_sql<'a>(&'a self, sql: &'a str, guard: Guard) -> BoxFuture<'a, Result<Vec<RecordBatch>, QueryError>> {
        async move {
            let answer = sql::run(self, sql, guard.k());
            let seconds = self.limits.timeout.as_secs();
            tokio::time::timeout(self.limits.timeout, answer).await.map_err(|_| QueryError::TimedOut { seconds })?
        }
        .boxed()
    }

    pub(crate) fn source(&self) -> &Arc<dyn TableSource> {
        &self.source
    }

    pub(crate) fn limits(&self) -> SqlLimits {
        self.limits
    }
}
