//! The one shape of plan that an analyst may run over the tables: anything that
//! looks at one row at a time, over one aggregation, over the filtered rows of
//! one table. What is not listed here is refused.

use ameles_schemas::Table;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, TableScan};

use crate::QueryError;
use crate::session::TABLES;

/// The table of people that a scan reads, if it is one.
pub fn private_table(scan: &TableScan) -> Option<Table> {
    Table::parse(scan.table_name.table()).filter(|table| TABLES.contains(table))
}

/// Whether a plan reads tables of people at all, in subqueries too.
pub fn is_private(plan: &LogicalPlan) -> Result<bool, QueryError> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            found |= private_table(scan).is_some();
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// The aggregation that a plan rests on.
pub fn aggregation(plan: &LogicalPlan) -> Result<&Aggregate, QueryError> {
    refuse_subqueries(plan)?;
    let mut node = plan;
    loop {
        node = match node {
            LogicalPlan::Aggregate(aggregate) => return Ok(aggregate),
            LogicalPlan::Projection(projection) => &projection.input,
            LogicalPlan::Filter(filter) => &filter.input,
            LogicalPlan::Sort(sort) => &sort.input,
            LogicalPlan::Limit(limit) => &limit.input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::Distinct(datafusion::logical_expr::Distinct::All(input)) => input,
            LogicalPlan::TableScan(scan) => {
                let table = scan.table_name.table();
                return Err(QueryError::refused(
                    "rows are aggregated",
                    format!("rows of {table} reach the output; count them with GROUP BY"),
                ));
            }
            other => return Err(not_allowed(other, "above the aggregation")),
        };
    }
}

/// What lies below the aggregation, in terms of the table's own columns.
pub struct Base<'a> {
    /// The scan.
    pub scan: &'a TableScan,
    /// The scan as a plan.
    pub plan: &'a LogicalPlan,
    /// The table.
    pub table: Table,
    /// All must hold.
    pub predicates: Vec<Expr>,
    /// The columns that the aggregation sees, as expressions over the table.
    columns: Vec<Expr>,
    schema: &'a DFSchema,
}

impl<'a> Base<'a> {
    /// Of an aggregation's input.
    pub fn of(plan: &'a LogicalPlan) -> Result<Self, QueryError> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                let table =
                    private_table(scan).ok_or_else(|| QueryError::refused("one table", format!("{} is not a table", scan.table_name)))?;
                if !scan.filters.is_empty() || scan.fetch.is_some() {
                    return Err(QueryError::refused("one table", "the scan is limited".to_owned()));
                }
                let schema = plan.schema().as_ref();
                let columns = schema.columns().into_iter().map(Expr::Column).collect();
                Ok(Self { scan, plan, table, predicates: Vec::new(), columns, schema })
            }
            LogicalPlan::SubqueryAlias(alias) => Ok(Self { schema: alias.schema.as_ref(), ..Self::of(&alias.input)? }),
            LogicalPlan::Filter(filter) => {
                let mut base = Self::of(&filter.input)?;
                let predicate = base.resolve(&filter.predicate)?;
                base.predicates.push(predicate);
                Ok(base)
            }
            LogicalPlan::Projection(projection) => {
                let mut base = Self::of(&projection.input)?;
                base.columns = projection.expr.iter().map(|expr| base.resolve(expr)).collect::<Result<_, _>>()?;
                base.schema = projection.schema.as_ref();
                Ok(base)
            }
            LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) => {
                Err(QueryError::refused("one aggregation", "an aggregation over an aggregation can pick out people; aggregate once"))
            }
            other => Err(not_allowed(other, "below the aggregation")),
        }
    }

    /// An expression over the aggregation's input as one over the table.
    pub fn resolve(&self, expr: &Expr) -> Result<Expr, QueryError> {
        let resolved = expr.clone().transform(|node| {
            Ok(match &node {
                Expr::Column(column) => {
                    datafusion::common::tree_node::Transformed::new(self.column(column)?, true, TreeNodeRecursion::Jump)
                }
                _ => datafusion::common::tree_node::Transformed::no(node),
            })
        })?;
        Ok(resolved.data.unalias())
    }

    fn column(&self, column: &Column) -> datafusion::common::Result<Expr> {
        Ok(self.columns[self.schema.index_of_column(column)?].clone())
    }
}

fn refuse_subqueries(plan: &LogicalPlan) -> Result<(), QueryError> {
    let mut found = None;
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if matches!(
                    part,
                    Expr::Exists(_)
                        | Expr::InSubquery(_)
                        | Expr::ScalarSubquery(_)
                        | Expr::SetComparison(_)
                        | Expr::OuterReferenceColumn(..)
                ) {
                    found = Some(part.to_string());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    found.map_or(Ok(()), |place| Err(QueryError::refused("no subqueries", format!("{place}; write one SELECT over one table"))))
}

fn not_allowed(plan: &LogicalPlan, place: &str) -> QueryError {
    let (rule, hint) = match plan {
        LogicalPlan::Join(_) => ("no joins", "people could be picked out by what they are joined with"),
        LogicalPlan::Union(_) => ("no unions", "one part can be subtracted from another"),
        LogicalPlan::Window(_) => ("no window functions", "a window looks at single rows"),
        LogicalPlan::Limit(_) | LogicalPlan::Sort(_) => ("no LIMIT or ORDER BY before aggregating", "it picks out rows"),
        LogicalPlan::Explain(_) => ("only SELECT", "EXPLAIN is for the local operator"),
        LogicalPlan::RecursiveQuery(_) => ("no recursion", "write one SELECT over one table"),
        LogicalPlan::Distinct(_) => ("one aggregation", "DISTINCT ON picks out rows"),
        LogicalPlan::Unnest(_) => ("no unnesting", "sum a measure by sum(total(…))"),
        _ => ("one aggregation over one table", "write SELECT … FROM one table GROUP BY …"),
    };
    QueryError::refused(rule, format!("{} {place}: {hint}", plan.display().to_string().chars().take(80).collect::<String>()))
}
