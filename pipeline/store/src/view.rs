//! What queries read: merged rows of one snapshot, less what is pending erasure.

use std::path::PathBuf;
use std::sync::Arc;

use ameles_core::{Month, SuppressionSet};
use ameles_schemas::{Table, TableSchemas};
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;

use crate::{Snapshot, StoreError, Warehouse};

/// One snapshot with one state of the suppressions.
#[derive(Debug)]
pub struct ReadView {}

impl ReadView {
    /// Opens the tables as they stand now; `suppressions` is the whole set, of which the pending part is left out of every answer.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn open(warehouse: &Warehouse, suppressions: Arc<SuppressionSet>) -> Result<Arc<Self>, StoreError> {
        unimplemented!()
    }
    /// The table's rows: `schema(table)` with `month`; one row per key and month for activity, links and devices, in the table's order within a month.
    ///
    /// # Errors
    /// When the contract has no such table.
    pub fn provider(&self, table: Table) -> Result<Arc<dyn TableProvider>, StoreError> {
        unimplemented!()
    }
    /// One month's rows of a table in its order, without DataFusion around it; `columns` names those wanted, in that order (all of `schema(table)` if none are named).
    ///
    /// # Errors
    /// When a column is unknown.
    pub fn month_stream(&self, table: Table, month: Month, columns: Option<&[&str]>) -> Result<SendableRecordBatchStream, StoreError> {
        unimplemented!()
    }
    /// Months that have rows in a table.
    pub fn months(&self, table: Table) -> Vec<Month> {
        unimplemented!()
    }
    /// Rows of a table's month where the files' footers tell: settled, and nothing pending touches it.
    pub fn exact_rows(&self, table: Table, month: Month) -> Option<u64> {
        unimplemented!()
    }
    /// Each month's files where they hold exactly the rows that `provider` gives (without `month`); `None` where rows have to be merged or left out.
    pub fn files_for_polars(&self, table: Table) -> Vec<(Month, Option<Vec<PathBuf>>)> {
        unimplemented!()
    }
    /// The snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        unimplemented!()
    }
    /// The ledger's sequence number that the answers belong to.
    pub fn suppression_sequence(&self) -> u64 {
        unimplemented!()
    }
    /// The tables' schemas.
    pub fn tables(&self) -> &TableSchemas {
        unimplemented!()
    }
}
