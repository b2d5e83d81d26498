//! SQL over the tables and metrics.
//!
//! The local operator and the compliance role run any SELECT. An analyst's is
//! taken apart by [`shape`]: the one aggregation that its plan rests on is run
//! and held to the smallest group first, and the rest of the plan sees nothing
//! but what came of it.

mod casts;
mod classify;
mod growth;
mod guarded;
mod metric_tables;
mod shape;

use std::sync::Arc;

use ameles_schemas::Table;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use crate::session::session;
use crate::{Metrics, QueryError, SqlLimits};

/// Plans a statement, guards it where `k` says so, and runs it.
pub async fn run(engine: &Metrics, sql: &str, k: Option<u32>) -> Result<Vec<RecordBatch>, QueryError> {
    let context = session(engine.source(), engine.limits().memory_bytes_max)?;
    if k.is_none() {
        // What explains rejections is for the operator: an analyst's session does not have the table at all.
        let name = Table::Quarantine.as_str();
        context.register_table(name, Arc::clone(engine.source()).provider(Table::Quarantine)?)?;
    }
    let plan = metric_tables::plan(engine, &context, sql, k).await?;
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    options.verify_plan(&plan).map_err(|error| QueryError::refused("only SELECT", error.strip_backtrace()))?;
    if matches!(plan, LogicalPlan::Analyze(_)) {
        return Err(QueryError::refused("only SELECT", "EXPLAIN ANALYZE runs the statement; use EXPLAIN"));
    }
    growth::refuse(&plan)?;
    let limits = engine.limits();
    let plan = match k {
        Some(k) => guarded::release(&context, engine.source().schemas(), plan, k, limits).await?,
        None => plan,
    };
    collect(&context, plan, limits).await
}

/// Runs a plan, up to so many rows and bytes; gives at least one batch, for its schema.
async fn collect(context: &SessionContext, plan: LogicalPlan, limits: SqlLimits) -> Result<Vec<RecordBatch>, QueryError> {
    let mut stream = context.execute_logical_plan(plan).await?.execute_stream().await?;
    let (mut batches, mut rows, mut bytes) = (Vec::new(), 0, 0);
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        rows += batch.num_rows();
        bytes += batch.get_array_memory_size();
        if rows > limits.rows_max {
            return Err(QueryError::TooManyRows { rows: limits.rows_max });
        }
        if bytes > limits.memory_bytes_max {
            return Err(DataFusionError::ResourcesExhausted("the answer".to_owned()).into());
        }
        batches.push(batch);
    }
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(stream.schema()));
    }
    Ok(batches)
}
