//! Where the tables come from: a view of the warehouse, or memory in tests.

use std::sync::Arc;

use ameles_schemas::{Table, TableSchemas};
use ameles_store::ReadView;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;

use crate::{QueryError, SnapshotId};

/// Tables of merged rows, one per key and month.
pub trait TableSource: Send + Sync {
    /// The table's rows, in the columns of `schemas().schema(table)`.
    ///
    /// # Errors
    /// When the contract has no such table.
    fn provider(self: Arc<Self>, table: Table) -> Result<Arc<dyn TableProvider>, QueryError>;
    /// The tables' columns, dimensions and measures.
    fn schemas(&self) -> &TableSchemas;
    /// The state that the tables are in; none where answers cannot be told apart by it, and so must not be kept.
    fn snapshot_id(&self) -> Option<SnapshotId> {
        None
    }
    /// The view of a warehouse that this is, whose columns can be counted without SQL.
    fn view(self: Arc<Self>) -> Option<Arc<ReadView>> {
        None
    }
}

impl TableSource for ReadView {
    fn provider(self: Arc<Self>, table: Table) -> Result<Arc<dyn TableProvider>, QueryError> {
        Ok(Self::provider(&self, table)?)
    }
    fn schemas(&self) -> &TableSchemas {
        self.tables()
    }
    fn snapshot_id(&self) -> Option<SnapshotId> {
        let versions = Table::ALL.into_iter().map(|table| self.snapshot().version(table)).collect();
        Some(SnapshotId { versions, sequence: self.suppression_sequence() })
    }
    fn view(self: Arc<Self>) -> Option<Arc<ReadView>> {
        Some(self)
    }
}

/// Tables in memory.
#[derive(Debug)]
pub struct MemSource {
    schemas: TableSchemas,
    batches: Vec<(Table, RecordBatch)>,
}

impl MemSource {
    /// Over the batches given; a table without any is empty.
    pub fn new(schemas: TableSchemas, batches: Vec<(Table, RecordBatch)>) -> Self {
        Self { schemas, batches }
    }
}

impl TableSource for MemSource {
    fn provider(self: Arc<Self>, table: Table) -> Result<Arc<dyn TableProvider>, QueryError> {
        let batches = self.batches.iter().filter(|(of, _)| *of == table).map(|(_, batch)| batch.clone()).collect();
        Ok(Arc::new(MemTable::try_new(self.schemas.schema(table), vec![batches])?))
    }
    fn schemas(&self) -> &TableSchemas {
        &self.schemas
    }
}
