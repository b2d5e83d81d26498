//! How long the texts may become that a statement makes. The engine asks for
//! memory where it makes them, a batch of rows at a time, and a process that
//! does not get it ends; so a statement whose texts could grow is refused
//! before it runs.

use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, Operator};

use crate::QueryError;

/// The longest text, in bytes, that an expression may make.
const TEXT_MAX: usize = 1 << 16;
/// And all expressions of one step of the plan; for each of the 8,192 rows of a batch.
const STEP_MAX: usize = 4 * TEXT_MAX;
/// No contract's columns are longer, and no metric's.
const COLUMN: usize = 4_096;
/// A number, a time, a short text of one.
const SHORT: usize = 64;

/// Refuses a statement that makes texts longer than some tens of kilobytes.
pub fn refuse(plan: &LogicalPlan) -> Result<(), QueryError> {
    columns(plan).map(drop)
}

/// The greatest length of each column of a plan.
fn columns(plan: &LogicalPlan) -> Result<Vec<usize>, QueryError> {
    let mut inputs = Vec::new();
    for input in plan.inputs() {
        inputs.push((input, columns(input)?));
    }
    let of = |column: &Column| {
        let found = inputs.iter().find_map(|(plan, sizes)| sizes.get(plan.schema().maybe_index_of_column(column)?).copied());
        found.unwrap_or(COLUMN)
    };
    let mut made = Vec::new();
    let mut sum = 0;
    for expr in plan.expressions() {
        let length = length(&expr, &of)?;
        if !matches!(expr, Expr::Column(_)) {
            sum += length;
        }
        made.push(length);
    }
    if sum > STEP_MAX {
        return Err(too_long("all texts of one SELECT"));
    }
    let passed = || inputs.iter().flat_map(|(_, sizes)| sizes.iter().copied());
    let count = plan.schema().fields().len();
    let sizes: Vec<usize> = match plan {
        LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) => made,
        LogicalPlan::Window(_) => passed().chain(made).collect(),
        LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Distinct(Distinct::All(_)) => passed().collect(),
        LogicalPlan::RecursiveQuery(_) => {
            return Err(QueryError::refused("no recursion", "what a recursive query makes has no bound"));
        }
        _ => Vec::new(),
    };
    if sizes.len() == count {
        return Ok(sizes);
    }
    // A join, a union, rows of values: no column is longer than the longest.
    let longest = passed().chain(sizes).chain(plan.expressions().iter().map_while(|expr| length(expr, &of).ok())).max();
    Ok(vec![longest.unwrap_or(COLUMN); count])
}

fn length(expr: &Expr, of: &dyn Fn(&Column) -> usize) -> Result<usize, QueryError> {
    let mut parts = Vec::new();
    let mut failed = None;
    datafusion::common::tree_node::TreeNode::apply_children(expr, |part| {
        match length(part, of) {
            Ok(length) => parts.push(length),
            Err(error) => failed = Some(error),
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let longest = parts.iter().copied().max().unwrap_or(SHORT).max(SHORT);
    let all = || parts.iter().fold(0_usize, |sum, part| sum.saturating_add(*part));
    let length = match expr {
        Expr::Column(column) => return Ok(of(column)),
        Expr::Literal(value, _) => return Ok(literal(value)),
        Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat => all(),
        Expr::ScalarSubquery(subquery) => columns(&subquery.subquery)?.into_iter().max().unwrap_or(COLUMN),
        Expr::Exists(exists) => columns(&exists.subquery.subquery).map(|_| SHORT)?,
        Expr::InSubquery(within) => columns(&within.subquery.subquery).map(|_| longest)?,
        Expr::ScalarFunction(call) => grown(call.func.name(), &call.args, &parts, longest, all())?,
        // As long as there are rows: not for making texts of.
        Expr::AggregateFunction(call) if matches!(call.func.name(), "string_agg" | "array_agg") => return Ok(TEXT_MAX),
        _ => longest,
    };
    if length > TEXT_MAX { Err(too_long(&expr.to_string().chars().take(80).collect::<String>())) } else { Ok(length) }
}

fn grown(name: &str, arguments: &[Expr], parts: &[usize], longest: usize, all: usize) -> Result<usize, QueryError> {
    let count = |at: usize| match arguments.get(at) {
        Some(Expr::Literal(value, _)) => value.cast_to(&arrow::datatypes::DataType::Int64).ok().and_then(|value| match value {
            ScalarValue::Int64(Some(count)) => usize::try_from(count.max(0)).ok(),
            _ => None,
        }),
        _ => None,
    };
    let part = |at: usize| parts.get(at).copied().unwrap_or_default();
    let unbounded = || QueryError::refused("texts of bounded length", format!("{name} takes a number, not an expression, as its length"));
    Ok(match name {
        "concat" | "concat_ws" | "overlay" | "named_struct" | "struct" => all.saturating_mul(if name == "concat_ws" { 2 } else { 1 }),
        "repeat" => part(0).saturating_mul(count(1).ok_or_else(unbounded)?),
        "lpad" | "rpad" => part(0).max(count(1).ok_or_else(unbounded)?.saturating_mul(part(2).clamp(4, 64))),
        "space" => count(0).ok_or_else(unbounded)?,
        "replace" | "regexp_replace" | "translate" => part(0).saturating_add(1).saturating_mul(part(2).max(1)),
        "lower" | "upper" | "initcap" | "encode" | "to_hex" | "reverse" => longest.saturating_mul(3),
        _ => longest,
    })
}

fn literal(value: &ScalarValue) -> usize {
    value.try_as_str().flatten().map_or(SHORT, |text| text.len().max(1))
}

fn too_long(place: &str) -> QueryError {
    QueryError::refused("texts of bounded length", format!("{place}: a text may become longer than {} KiB", TEXT_MAX >> 10))
}
