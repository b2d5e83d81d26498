//! A view's tables for DataFusion: months are pruned, columns are projected,
//! rows come in the table's order within each partition.

use std::fmt;
use std::sync::Arc;

use ameles_core::Month;
use ameles_schemas::Table;
use arrow::array::{ArrayRef, AsArray, Date32Array, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, Result, Statistics};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, StatisticsArgs};

use crate::files::Rows;
use crate::{DataFile, ReadView, StoreError};

/// What one partition reads: files of one month, all of them where rows have to be merged.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) month: Month,
    pub(crate) files: Vec<DataFile>,
}

/// A table of a view.
#[derive(Debug)]
pub(crate) struct MonthProvider {
    view: Arc<ReadView>,
    table: Table,
    schema: SchemaRef,
}

impl MonthProvider {
    pub(crate) fn new(view: Arc<ReadView>, table: Table) -> Self {
        let schema = view.tables().schema(table);
        Self { view, table, schema }
    }

    /// The months for which no filter on `month` alone is false.
    fn prune(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<Month>> {
        let months = self.view.months(self.table);
        let field = self.schema.field_with_name("month")?.clone();
        let schema = Arc::new(Schema::new(vec![field]));
        let days: ArrayRef = Arc::new(Date32Array::from_iter_values(months.iter().map(|month| month.first_day().epoch_days())));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![days])?;
        let mut kept = vec![true; months.len()];
        for filter in filters.iter().filter(|filter| is_on_month(filter)) {
            let unqualified = DFSchema::try_from(Arc::clone(&schema))?;
            let stripped = without_qualifiers(filter)?;
            let values = state.create_physical_expr(stripped, &unqualified)?.evaluate(&batch)?.into_array(months.len())?;
            let Some(values) = values.as_boolean_opt() else { continue };
            for (kept, value) in kept.iter_mut().zip(values) {
                *kept &= value.unwrap_or(false);
            }
        }
        Ok(months.into_iter().zip(kept).filter(|(_, kept)| *kept).map(|(month, _)| month).collect())
    }
}

fn is_on_month(filter: &Expr) -> bool {
    let columns = filter.column_refs();
    columns.len() == 1 && columns.iter().all(|column| column.name == "month")
}

fn without_qualifiers(filter: &Expr) -> Result<Expr> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    let stripped = filter.clone().transform(|expr| match expr {
        Expr::Column(column) => Ok(Transformed::yes(Expr::Column(datafusion::common::Column::new_unqualified(column.name)))),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(stripped.data)
}

#[async_trait]
impl TableProvider for MonthProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let how = |filter: &&Expr| {
            if is_on_month(filter) { TableProviderFilterPushDown::Inexact } else { TableProviderFilterPushDown::Unsupported }
        };
        Ok(filters.iter().map(how).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(indices) => Arc::new(self.schema.project(indices)?),
            None => Arc::clone(&self.schema),
        };
        let streams_max = state.config().target_partitions().max(1);
        let mut parts = Vec::new();
        for month in self.prune(state, filters)? {
            let files = self.view.snapshot().month_files(self.table, month);
            // Files that need no merging are read side by side.
            let splits = self.table.key_columns().is_empty() || self.view.is_plain(self.table, files);
            let size = if splits { files.len().div_ceil(streams_max).max(1) } else { files.len() };
            parts.extend(files.chunks(size).map(|files| Part { month, files: files.to_vec() }));
        }
        if parts.is_empty() {
            // A plan of no partitions would not meet what joins and aggregates ask of their inputs.
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        Ok(Arc::new(MonthScan::new(Arc::clone(&self.view), self.table, parts, schema, limit)))
    }
}

/// Reads parts, one partition each.
struct MonthScan {
    view: Arc<ReadView>,
    table: Table,
    parts: Vec<Part>,
    schema: SchemaRef,
    limit: Option<usize>,
    properties: Arc<PlanProperties>,
}

impl MonthScan {
    fn new(view: Arc<ReadView>, table: Table, parts: Vec<Part>, schema: SchemaRef, limit: Option<usize>) -> Self {
        let mut ordering = Vec::new();
        for name in table.key_columns() {
            let Ok(at) = schema.index_of(name) else { break };
            let options = SortOptions { descending: false, nulls_first: false };
            ordering.push(PhysicalSortExpr { expr: Arc::new(Column::new(name, at)), options });
        }
        let equivalence = if ordering.is_empty() {
            EquivalenceProperties::new(Arc::clone(&schema))
        } else {
            EquivalenceProperties::new_with_orderings(Arc::clone(&schema), [ordering])
        };
        let partitioning = Partitioning::UnknownPartitioning(parts.len());
        let properties = PlanProperties::new(equivalence, partitioning, EmissionType::Incremental, Boundedness::Bounded);
        Self { view, table, parts, schema, limit, properties: Arc::new(properties) }
    }

    fn rows(&self, parts: &[Part]) -> Precision<usize> {
        let rows = parts.iter().flat_map(|part| &part.files).map(|file| usize::try_from(file.rows).unwrap_or(usize::MAX)).sum();
        let exact = self.limit.is_none() && parts.iter().all(|part| self.view.is_plain(self.table, &part.files));
        if exact { Precision::Exact(rows) } else { Precision::Inexact(rows) }
    }
}

impl fmt::Debug for MonthScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonthScan").field("table", &self.table).field("parts", &self.parts.len()).finish_non_exhaustive()
    }
}

impl DisplayAs for MonthScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "MonthScan: table={}, partitions={}, columns=[{}]", self.table, self.parts.len(), columns.join(", "))
    }
}

impl ExecutionPlan for MonthScan {
    fn name(&self) -> &'static str {
        "MonthScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let part = self.parts.get(partition).ok_or_else(|| DataFusionError::Internal(format!("there is no partition {partition}")))?;
        Ok(stream(Arc::clone(&self.view), self.table, part.clone(), Arc::clone(&self.schema), self.limit))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let parts = match args.partition() {
            Some(at) => self.parts.get(at..=at).unwrap_or_default(),
            None => &self.parts,
        };
        Ok(Arc::new(Statistics { num_rows: self.rows(parts), ..Statistics::new_unknown(&self.schema) }))
    }
}

/// Reads a part in a thread of its own, two batches ahead.
pub(crate) fn stream(view: Arc<ReadView>, table: Table, part: Part, schema: SchemaRef, limit: Option<usize>) -> SendableRecordBatchStream {
    let mut builder = RecordBatchReceiverStreamBuilder::new(Arc::clone(&schema), 2);
    let sender = builder.tx();
    builder.spawn_blocking(move || {
        let external = |error: StoreError| DataFusionError::External(Box::new(error));
        let in_files: Vec<_> = schema.fields().iter().filter(|field| field.name() != "month").cloned().collect();
        let mut rows = view.rows(table, &part, &Arc::new(Schema::new(in_files))).map_err(external)?;
        let mut left = limit.unwrap_or(usize::MAX);
        while left > 0 {
            let Some(batch) = next(rows.as_mut()).map_err(external)? else { break };
            let batch = batch.slice(0, batch.num_rows().min(left));
            left -= batch.num_rows();
            // The reader has gone: nobody wants the rest.
            if sender.blocking_send(Ok(with_month(&batch, part.month, &schema)?)).is_err() {
                break;
            }
        }
        Ok(())
    });
    builder.build()
}

fn next(rows: &mut dyn Rows) -> std::result::Result<Option<RecordBatch>, StoreError> {
    rows.next_batch()
}

fn with_month(batch: &RecordBatch, month: Month, schema: &SchemaRef) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        columns.push(match batch.column_by_name(field.name()) {
            Some(column) => Arc::clone(column),
            None => Arc::new(Date32Array::from_value(month.first_day().epoch_days(), batch.num_rows())),
        });
    }
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
