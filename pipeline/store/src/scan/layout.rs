//! Where the columns of a file lie, from its footer.

use std::fs::File;
use std::path::Path;

use ameles_schemas::{Table, TableSchemas};
use arrow::datatypes::{DataType, Schema};
use parquet::basic::{Compression, Type};
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaDataReader};
use parquet::file::statistics::Statistics;

use super::columns::Shape;
use super::pages::ChunkPlace;
use crate::StoreError;
use crate::files::to_u128;

/// A file's row groups.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) row_groups: Vec<RowGroup>,
}

#[derive(Debug)]
pub(crate) struct RowGroup {
    pub(crate) rows: usize,
    /// Bounds of the first sort column, where known.
    pub(crate) range: Option<(u128, u128)>,
    /// By the place of the column in the table's file schema; none where it is missing or laid out in a way that is not ours.
    pub(crate) chunks: Vec<Option<(ChunkPlace, Shape)>>,
    /// Bounds of columns of 64 bits, in the same order.
    pub(crate) bounds: Vec<Option<(i64, i64)>>,
}

impl Layout {
    pub(crate) fn read(path: &Path, tables: &TableSchemas, table: Table) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(|source| StoreError::Io { doing: "opening", path: path.display().to_string(), source })?;
        let metadata = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Skip).parse_and_finish(&file)?;
        let schema = tables.file_schema(table);
        let sorted_by = table.sort_columns().first().copied().unwrap_or_default();
        let mut row_groups = Vec::with_capacity(metadata.num_row_groups());
        for group in metadata.row_groups() {
            let mut chunks = vec![None; schema.fields().len()];
            let mut bounds = vec![None; schema.fields().len()];
            let mut range = None;
            for column in group.columns() {
                let Some((name, at)) = column.column_path().parts().first().and_then(|name| Some((name, schema.index_of(name).ok()?)))
                else {
                    continue;
                };
                if let Some(place) = chunks.get_mut(at) {
                    *place = place_of(column, &schema, at);
                }
                match column.statistics() {
                    Some(Statistics::Int64(found)) => {
                        if let Some(place) = bounds.get_mut(at) {
                            *place = found.min_opt().copied().zip(found.max_opt().copied());
                        }
                    }
                    Some(found) if name == sorted_by => {
                        range = found.min_bytes_opt().and_then(to_u128).zip(found.max_bytes_opt().and_then(to_u128));
                    }
                    _ => {}
                }
            }
            let rows = usize::try_from(group.num_rows()).unwrap_or_default();
            row_groups.push(RowGroup { rows, range, chunks, bounds });
        }
        Ok(Self { row_groups })
    }
}

fn place_of(column: &ColumnChunkMetaData, schema: &Schema, at: usize) -> Option<(ChunkPlace, Shape)> {
    let described = column.column_descr();
    let levels = (described.max_rep_level(), described.max_def_level());
    let shape = match (schema.field(at).data_type(), column.column_type(), levels) {
        (DataType::Binary, Type::BYTE_ARRAY, (0, 0)) => Shape::Pseudonym,
        (DataType::Utf8, Type::BYTE_ARRAY, (0, optional @ (0 | 1))) => Shape::Text { optional: optional == 1 },
        (DataType::Int32, Type::INT32, (0, 0)) => Shape::Int32,
        (DataType::Timestamp(..) | DataType::Int64, Type::INT64, (0, 0)) => Shape::Int64,
        (DataType::List(_), Type::INT32, (1, 1)) => Shape::List,
        _ => return None,
    };
    let zstd = match column.compression() {
        Compression::UNCOMPRESSED => false,
        Compression::ZSTD(_) => true,
        _ => return None,
    };
    let (offset, bytes) = column.byte_range();
    Some((ChunkPlace { offset, bytes, zstd }, shape))
}
