//! Metrics as tables: `SELECT * FROM dau`, or
//! `SELECT * FROM metric('dau', 'country,product', 'product!=phone')`.
//!
//! Their answers are guarded before a statement sees them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ameles_schemas::TableSchemas;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{DataFusionError, Result, ScalarValue, plan_err};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::prelude::SessionContext;

use crate::{Guard, MetricRequest, Metrics, QueryError, list_metrics, metrics};

const FUNCTION: &str = "metric";
const CALLS_MAX: usize = 16;

/// Plans a statement whose metrics have been computed.
pub async fn plan(engine: &Metrics, context: &SessionContext, sql: &str, k: Option<u32>) -> Result<LogicalPlan, QueryError> {
    let guard = k.map_or(Guard::None, Guard::K);
    let schemas = engine.source().schemas();
    let state = context.state();
    let statement = state.sql_to_statement(sql, &state.config().options().sql_parser.dialect)?;
    let known = list_metrics(schemas);
    for reference in state.resolve_table_references(&statement)? {
        let name = reference.table();
        if known.iter().any(|info| info.name == name) && !context.table_exist(name)? {
            let answer = Box::pin(engine.run_metric(&MetricRequest::named(name), guard)).await?;
            context.register_table(name, table(&answer)?)?;
        }
    }
    // The function cannot wait: it is called once to hear what is asked for, and
    // once more with the answers.
    let function = Arc::new(MetricFunction { schemas: schemas.clone(), calls: Mutex::new(Vec::new()) });
    context.register_udtf(FUNCTION, Arc::clone(&function) as Arc<dyn TableFunctionImpl>);
    let state = context.state();
    let plan = state.statement_to_plan(statement.clone()).await?;
    let requests = function.requests();
    if requests.is_empty() {
        return Ok(plan);
    }
    for (at, request) in requests.into_iter().enumerate() {
        let answer = Box::pin(engine.run_metric(&request, guard)).await?;
        function.answer(at, answer);
    }
    Ok(state.statement_to_plan(statement).await?)
}

fn table(answer: &RecordBatch) -> Result<Arc<dyn TableProvider>> {
    // The plan was made without an answer's metadata.
    let schema = Arc::new(answer.schema().as_ref().clone().with_metadata(HashMap::new()));
    let answer = answer.clone().with_schema(Arc::clone(&schema))?;
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![answer]])?))
}

#[derive(Debug)]
struct MetricFunction {
    schemas: TableSchemas,
    calls: Mutex<Vec<(MetricRequest, Option<RecordBatch>)>>,
}

impl MetricFunction {
    fn lock(&self) -> MutexGuard<'_, Vec<(MetricRequest, Option<RecordBatch>)>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn requests(&self) -> Vec<MetricRequest> {
        self.lock().iter().map(|(request, _)| request.clone()).collect()
    }
    fn answer(&self, at: usize, answer: RecordBatch) {
        if let Some(call) = self.lock().get_mut(at) {
            call.1 = Some(answer);
        }
    }
}

impl TableFunctionImpl for MetricFunction {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let request = request(args.exprs())?;
        let schema = metrics::schema_of(&request, &self.schemas).map_err(|error| DataFusionError::Plan(error.to_string()))?;
        let mut calls = self.lock();
        if let Some((_, answer)) = calls.iter().find(|(call, _)| *call == request) {
            return match answer {
                Some(answer) => table(answer),
                None => table(&RecordBatch::new_empty(Arc::new(schema))),
            };
        }
        if calls.len() >= CALLS_MAX {
            return plan_err!("a statement takes at most {CALLS_MAX} metrics");
        }
        calls.push((request, None));
        table(&RecordBatch::new_empty(Arc::new(schema)))
    }
}

/// `metric(name [, dimensions [, filter]…])`, all text.
fn request(arguments: &[Expr]) -> Result<MetricRequest> {
    let texts: Vec<&str> = arguments
        .iter()
        .filter_map(|argument| match argument {
            Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)), _) => {
                Some(text.as_str())
            }
            _ => None,
        })
        .collect();
    let [name, rest @ ..] = texts.as_slice() else { return plan_err!("{USAGE}") };
    if texts.len() != arguments.len() {
        return plan_err!("{USAGE}");
    }
    let mut request = MetricRequest::named(name);
    if let [by, filters @ ..] = rest {
        request.by = by.split(',').map(str::trim).filter(|dimension| !dimension.is_empty()).map(str::to_owned).collect();
        for filter in filters {
            request.filters.push(filter.parse().map_err(|error: QueryError| DataFusionError::Plan(error.to_string()))?);
        }
    }
    Ok(request)
}

const USAGE: &str = "metric takes text: a name, dimensions, filters, as in metric('dau', 'country,product', 'product!=phone')";
