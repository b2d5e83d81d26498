//! Encoding by itself, for `benchmarks/`: no interface.

use ameles_schemas::{Table, TableSchemas};
use arrow::array::RecordBatch;

use crate::StoreError;
use crate::encode::FileEncoder;
use crate::files::properties;

/// Rows handed over at once, as a writer of files gets them.
const STEP_ROWS: usize = 128 << 10;

/// The file of a table's sorted rows, as it would be written.
///
/// # Errors
/// When the columns are not the table's.
pub fn encode(tables: &TableSchemas, table: Table, rows: &RecordBatch) -> Result<Vec<u8>, StoreError> {
    let schema = tables.file_schema(table);
    let mut encoder = FileEncoder::new(Vec::new(), schema.clone(), properties(table, &schema))?;
    for start in (0..rows.num_rows()).step_by(STEP_ROWS) {
        encoder.write(&rows.slice(start, (rows.num_rows() - start).min(STEP_ROWS)))?;
    }
    encoder.finish()
}
