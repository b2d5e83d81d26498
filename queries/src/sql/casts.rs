//! Casts below the aggregation, those too that the engine adds to make types
//! meet: none may fail on a row, since the failure would tell of it.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::prelude::SessionContext;

use crate::QueryError;

/// Refuses a plan over rows of people with a cast that may fail on one of them.
pub fn refuse_fallible(context: &SessionContext, plan: &LogicalPlan) -> Result<(), QueryError> {
    let state = context.state();
    let analyzed = state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {})?;
    let mut found = None;
    analyzed.apply(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::Cast(cast) = part {
                    let to = cast.field.data_type();
                    let fits = match constant(&cast.expr) {
                        // Wrong for all rows or for none.
                        Some(value) => value.and_then(|value| value.cast_to(to)).is_ok(),
                        None => always_fits(&cast.expr.get_type(&schema)?, to),
                    };
                    if !fits {
                        found.get_or_insert_with(|| format!("{} as {to}", cast.expr));
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    found.map_or(Ok(()), |cast| {
        let hint = "compare columns with values of their own type, and cast after aggregating";
        Err(QueryError::refused("expressions below the aggregation", format!("{cast}: the cast may fail on one row; {hint}")))
    })
}

fn constant(expr: &Expr) -> Option<datafusion::common::Result<ScalarValue>> {
    match expr {
        Expr::Literal(value, _) => Some(Ok(value.clone())),
        Expr::Alias(alias) => constant(&alias.expr),
        Expr::Cast(cast) => Some(constant(&cast.expr)?.and_then(|value| value.cast_to(cast.field.data_type()))),
        _ => None,
    }
}

fn always_fits(from: &DataType, to: &DataType) -> bool {
    use DataType as D;
    let values = |of: &DataType| match of {
        D::Dictionary(_, values) => values.as_ref().clone(),
        of => of.clone(),
    };
    let (from, to) = (values(from), values(to));
    let is_text = |of: &DataType| matches!(of, D::Utf8 | D::LargeUtf8 | D::Utf8View);
    let is_binary = |of: &DataType| matches!(of, D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_));
    let width = |of: &DataType| of.primitive_width().unwrap_or_default();
    if from == to || from == D::Null || is_text(&to) && !is_binary(&from) || is_binary(&to) && (is_binary(&from) || is_text(&from)) {
        return true;
    }
    match (&from, &to) {
        (D::Timestamp(..), D::Timestamp(..) | D::Date32) | (D::Date32, D::Timestamp(..)) => true,
        (D::Boolean, to) => to.is_numeric() && !matches!(to, D::Float16),
        (from, D::Float64) => from.is_integer() || matches!(from, D::Float32),
        (from, to) if from.is_signed_integer() && to.is_signed_integer() => width(from) <= width(to),
        (from, to) if from.is_unsigned_integer() && to.is_unsigned_integer() => width(from) <= width(to),
        (from, to) if from.is_unsigned_integer() && to.is_signed_integer() => width(from) < width(to),
        _ => false,
    }
}
