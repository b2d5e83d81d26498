//! Runs an analyst's aggregation, drops the groups below the smallest group, and
//! puts what is left in its place.

use std::sync::Arc;

use ameles_schemas::{Table, TableSchemas, column};
use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr, JoinType, LogicalPlan, LogicalPlanBuilder, col, lit};
use datafusion::prelude::SessionContext;

use super::casts;
use super::classify::{Class, classify, column_class, misused};
use super::shape::{self, Base};
use crate::cells::people;
use crate::{QueryError, SqlLimits, functions};

const USERS: &str = "ameles_users";
const RELEASED: &str = "ameles_released";

/// The plan with its aggregation replaced by rows that rest on enough people;
/// as it is where it reads no table of people.
pub async fn release(
    context: &SessionContext,
    schemas: &TableSchemas,
    plan: LogicalPlan,
    k: u32,
    limits: SqlLimits,
) -> Result<LogicalPlan, QueryError> {
    if !shape::is_private(&plan)? {
        return Ok(plan);
    }
    let aggregate = shape::aggregation(&plan)?;
    let guarded = Guarded::plan(context, schemas, aggregate, k).await?;
    casts::refuse_fallible(context, &guarded.plan)?;
    let batches = super::collect(context, guarded.plan, limits).await.map_err(without_the_row)?;
    let kept = batches.iter().map(|batch| keep_safe(batch, guarded.shown, &guarded.counts, k)).collect::<Result<Vec<_>, _>>()?;
    let replacement = replacement(aggregate, kept)?;
    let mut replacement = Some(replacement);
    let replaced = plan.clone().transform_down(|node| {
        Ok(match (&node, replacement.take()) {
            (LogicalPlan::Aggregate(_), Some(rows)) => Transformed::new(rows, true, TreeNodeRecursion::Stop),
            (_, left) => {
                replacement = left;
                Transformed::no(node)
            }
        })
    })?;
    Ok(replaced.data)
}

/// What fails on a row fails with its values: none is told, whatever has slipped through the lists of what cannot fail.
fn without_the_row(error: QueryError) -> QueryError {
    match error {
        QueryError::Engine(error) if matches!(error.find_root(), DataFusionError::ArrowError(..) | DataFusionError::Execution(_)) => {
            QueryError::refused("expressions below the aggregation", "one of them fails on a row; cast and calculate after aggregating")
        }
        error => error,
    }
}

struct Guarded {
    plan: LogicalPlan,
    /// Columns that the statement asked for; the others are who stands behind.
    shown: usize,
    /// Those of them that count rows, devices or users.
    counts: Vec<usize>,
}

impl Guarded {
    async fn plan(context: &SessionContext, schemas: &TableSchemas, aggregate: &Aggregate, k: u32) -> Result<Self, QueryError> {
        let base = Base::of(&aggregate.input)?;
        let class_of = |column: &Column| column_class(schemas, base.table, &column.name);
        for predicate in &base.predicates {
            match classify(predicate, &class_of)? {
                Class::Free | Class::Group => {}
                class => return Err(misused(predicate, class)),
            }
        }
        let mut groups = Vec::new();
        for (at, expr) in aggregate.group_expr.iter().enumerate() {
            if matches!(expr, Expr::GroupingSet(_)) {
                return Err(QueryError::refused(
                    "one grouping",
                    "ROLLUP, CUBE and GROUPING SETS give totals that groups can be subtracted from",
                ));
            }
            let expr = base.resolve(expr)?;
            match classify(&expr, &class_of)? {
                Class::Free | Class::Group => groups.push(expr.alias(format!("g{at}"))),
                class => return Err(misused(&expr, class)),
            }
        }
        let mut shown = Vec::new();
        let mut amounts = Vec::new();
        let mut counts = Vec::new();
        for (at, expr) in aggregate.aggr_expr.iter().enumerate() {
            let expr = base.resolve(expr)?;
            let amount = check_aggregate(&expr, &class_of)?;
            if matches!(&expr, Expr::AggregateFunction(call) if call.func.name() == "count") {
                counts.push(groups.len() + at);
            }
            amounts.extend(amount);
            shown.push(expr.alias(format!("v{at}")));
        }
        let shown_columns = groups.len() + shown.len();
        shown.extend(behind(&base, schemas, &amounts, k)?);
        let mut builder = LogicalPlanBuilder::from(rows(context, &base, schemas, k).await?);
        for predicate in &base.predicates {
            builder = builder.filter(predicate.clone())?;
        }
        Ok(Self { plan: builder.aggregate(groups, shown)?.build()?, shown: shown_columns, counts })
    }
}

/// The table's rows, with each row's users where it does not name them itself.
async fn rows(context: &SessionContext, base: &Base<'_>, schemas: &TableSchemas, k: u32) -> Result<LogicalPlan, QueryError> {
    if !needs_users(base.table, schemas) {
        return Ok(base.plan.clone());
    }
    let links = context.table(Table::Links.as_str()).await?.into_unoptimized_plan();
    let users = functions::people().call(vec![lit(1_u64), col(column::USER), lit(i64::from(k))]).alias("ids");
    let users =
        LogicalPlanBuilder::from(links).aggregate(vec![col(column::DEVICE), col(column::MONTH)], vec![users])?.alias(USERS)?.build()?;
    let keys = [column::DEVICE, column::MONTH];
    let left = keys.map(|key| Column::new(Some(base.scan.table_name.clone()), key)).to_vec();
    let right = keys.map(|key| Column::new(Some(USERS), key)).to_vec();
    Ok(LogicalPlanBuilder::from(base.plan.clone()).join(users, JoinType::Left, (left, right), None)?.build()?)
}

fn needs_users(table: Table, schemas: &TableSchemas) -> bool {
    schemas.has_user && matches!(table, Table::Activity | Table::Devices)
}

/// Who stands behind a group: its devices, those with each amount, its users.
fn behind(base: &Base<'_>, schemas: &TableSchemas, amounts: &[Expr], k: u32) -> Result<Vec<Expr>, QueryError> {
    let cap = lit(i64::from(k));
    let own = |name: &str| Expr::Column(Column::new(Some(base.scan.table_name.clone()), name));
    let mut parts = vec![functions::people().call(vec![lit(1_u64), own(column::DEVICE), cap.clone()])];
    for amount in amounts {
        let mask = datafusion::logical_expr::when(amount.clone().not_eq(lit(0_i64)), lit(1_u64)).otherwise(lit(0_u64))?;
        parts.push(functions::people().call(vec![mask, own(column::DEVICE), cap.clone()]));
    }
    if needs_users(base.table, schemas) {
        parts.push(functions::people_of_all().call(vec![Expr::Column(Column::new(Some(USERS), "ids")), cap]));
    } else if schemas.has_user {
        parts.push(functions::people().call(vec![lit(1_u64), own(column::USER), cap]));
    }
    Ok(parts.into_iter().enumerate().map(|(at, part)| part.alias(format!("p{at}"))).collect())
}

/// Checks one aggregate; gives the amount that it sums, if it does.
fn check_aggregate(expr: &Expr, class_of: &dyn Fn(&Column) -> Class) -> Result<Option<Expr>, QueryError> {
    let refused = |hint: &str| Err(QueryError::refused("aggregates", format!("{expr}: {hint}")));
    let Expr::AggregateFunction(AggregateFunction { func, params }) = expr else { return refused("not an aggregate") };
    if params.filter.is_some() {
        return refused("FILTER gives parts that can be subtracted from the whole; use WHERE or GROUP BY");
    }
    if !params.order_by.is_empty() || params.null_treatment.is_some() {
        return refused("no ORDER BY or IGNORE NULLS in an aggregate");
    }
    match (func.name(), params.distinct, params.args.as_slice()) {
        ("count", false, []) => Ok(None),
        ("count", false, [argument]) if is_constant(argument) => Ok(None),
        ("count", false, _) => refused("the difference between count(*) and count(column) is those without a value; write count(*)"),
        ("count", true, [argument]) => match classify(argument, class_of)? {
            Class::Device | Class::User => Ok(None),
            _ => refused("DISTINCT counts devices and users only"),
        },
        ("sum" | "avg", false, [argument]) => match classify(argument, class_of)? {
            Class::Amount => Ok(Some(argument.clone())),
            Class::Measure => Err(misused(argument, Class::Measure)),
            _ => refused("only measures are summed: sum(total(measure))"),
        },
        _ => refused(
            "there are count(*), count(DISTINCT device), sum(total(measure)) and avg(total(measure)); any other may show one person's value",
        ),
    }
}

fn is_constant(expr: &Expr) -> bool {
    #[expect(deprecated)]
    let wildcard = matches!(expr, Expr::Wildcard { .. });
    wildcard || matches!(expr, Expr::Literal(value, _) if *value != ScalarValue::Null && !value.is_null())
}

/// Rows whose people are enough, without the columns that say who: each set is
/// empty or large enough, and the first (the devices) is not empty. Neither may
/// two counts of a row differ by a few: rows less devices are those that came twice.
fn keep_safe(batch: &RecordBatch, shown: usize, counts: &[usize], k: u32) -> Result<RecordBatch, QueryError> {
    let counts: Vec<ArrayRef> = counts.iter().map(|at| cast(batch.column(*at), &DataType::Int64)).collect::<Result<_, _>>()?;
    let counts: Vec<&Int64Array> = counts.iter().filter_map(|counts| counts.as_primitive_opt()).collect();
    let differ_by_enough = |row: usize| {
        let differ = |a: &Int64Array, b: &Int64Array| a.value(row).abs_diff(b.value(row));
        counts.iter().enumerate().all(|(at, a)| counts[..at].iter().all(|b| !(1..u64::from(k)).contains(&differ(a, b))))
    };
    let is_safe = |row: usize| {
        let parts = batch.columns()[shown..].iter().map(|column| people(column, row, k).into_iter().next().unwrap_or_default());
        let mut devices = 0;
        let all = parts.enumerate().fold(true, |safe, (at, part)| {
            devices += if at == 0 { part.len() } else { 0 };
            safe && part.is_safe(k)
        });
        all && devices > 0 && differ_by_enough(row)
    };
    let keep: BooleanArray = (0..batch.num_rows()).map(|row| Some(is_safe(row))).collect();
    let columns: Vec<usize> = (0..shown).collect();
    Ok(filter_record_batch(&batch.project(&columns)?, &keep)?)
}

/// The released rows under the names and types that the plan above expects.
fn replacement(aggregate: &Aggregate, batches: Vec<RecordBatch>) -> Result<LogicalPlan, QueryError> {
    let schema = aggregate.schema.as_arrow();
    let stored: Vec<arrow::datatypes::Field> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(at, field)| arrow::datatypes::Field::new(format!("c{at}"), field.data_type().clone(), true))
        .collect();
    let stored = Arc::new(arrow::datatypes::Schema::new(stored));
    let convert = |batch: RecordBatch| -> Result<RecordBatch, QueryError> {
        let columns = batch.columns().iter().zip(stored.fields()).map(|(column, field)| cast(column, field.data_type()));
        Ok(RecordBatch::try_new(Arc::clone(&stored), columns.collect::<Result<_, _>>()?)?)
    };
    let batches = batches.into_iter().map(convert).collect::<Result<Vec<_>, _>>()?;
    let table = MemTable::try_new(Arc::clone(&stored), vec![batches])?;
    let names = aggregate
        .schema
        .iter()
        .enumerate()
        .map(|(at, (qualifier, field))| col(format!("{RELEASED}.c{at}")).alias_qualified(qualifier.cloned(), field.name().clone()));
    let names: Vec<Expr> = names.collect();
    Ok(LogicalPlanBuilder::scan(RELEASED, provider_as_source(Arc::new(table)), None)?.project(names)?.build()?)
}
