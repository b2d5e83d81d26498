//! Answers as text or bytes.

use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::writer::StreamWriter;
use arrow::json;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches_with_options;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::QueryError;

/// How an answer is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// Aligned columns for people.
    #[default]
    Table,
    /// With a header; null is the empty field.
    Csv,
    /// An array of objects; null is `null`.
    Json,
    /// A Parquet file.
    Parquet,
    /// An Arrow IPC stream.
    Arrow,
}

impl FromStr for Format {
    type Err = QueryError;
    fn from_str(text: &str) -> Result<Self, QueryError> {
        Ok(match text {
            "table" => Self::Table,
            "csv" => Self::Csv,
            "json" => Self::Json,
            "parquet" => Self::Parquet,
            "arrow" => Self::Arrow,
            _ => return Err(QueryError::BadRequest(format!("no format {text:?}; use table, csv, json, parquet or arrow"))),
        })
    }
}

/// Writes an answer; dates as 2018-07-01.
///
/// # Errors
/// When `out` cannot be written to.
pub fn format_batches(batches: &[RecordBatch], format: Format, out: &mut dyn Write) -> Result<(), QueryError> {
    let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    match format {
        Format::Table => writeln!(out, "{}", pretty_format_batches_with_options(batches, &FormatOptions::default().with_null("NULL"))?)?,
        Format::Csv => {
            let mut writer = csv::WriterBuilder::new().with_header(true).build(&mut *out);
            let texts = batches.iter().map(without_binary).collect::<Result<Vec<_>, _>>()?;
            texts.iter().try_for_each(|batch| writer.write(batch))?;
        }
        Format::Json => {
            let mut writer = json::WriterBuilder::new().with_explicit_nulls(true).build::<_, json::writer::JsonArray>(&mut *out);
            batches.iter().try_for_each(|batch| writer.write(batch))?;
            writer.finish()?;
            drop(writer);
            writeln!(out)?;
        }
        Format::Parquet => {
            let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
            let mut bytes = Vec::new();
            let mut writer = ArrowWriter::try_new(&mut bytes, schema, Some(properties))?;
            batches.iter().try_for_each(|batch| writer.write(batch))?;
            writer.close()?;
            out.write_all(&bytes)?;
        }
        Format::Arrow => {
            let mut writer = StreamWriter::try_new(&mut *out, &schema)?;
            batches.iter().try_for_each(|batch| writer.write(batch))?;
            writer.finish()?;
        }
    }
    out.flush()?;
    Ok(())
}

/// The batch with what CSV cannot hold as text: lists, and bytes as hex.
fn without_binary(batch: &RecordBatch) -> Result<RecordBatch, QueryError> {
    let options = FormatOptions::default();
    let as_text = |column: &ArrayRef| -> Result<ArrayRef, QueryError> {
        if !column.data_type().is_nested() && !matches!(column.data_type(), DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
        {
            return Ok(Arc::clone(column));
        }
        let formatter = ArrayFormatter::try_new(column, &options)?;
        let texts = (0..column.len()).map(|row| column.is_valid(row).then(|| formatter.value(row).to_string()));
        Ok(Arc::new(texts.collect::<StringArray>()))
    };
    let columns = batch.columns().iter().map(as_text).collect::<Result<Vec<_>, _>>()?;
    let fields: Vec<Field> = columns
        .iter()
        .zip(batch.schema().fields())
        .map(|(column, field)| Field::new(field.name(), column.data_type().clone(), true))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use arrow::array::{BinaryArray, BooleanArray, Date32Array, Float64Array};

    use super::*;

    fn text(format: Format) -> String {
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("date", Arc::new(Date32Array::from(vec![17_713, 17_714])) as ArrayRef, false),
            ("country", Arc::new(StringArray::from(vec![Some("D,E"), None])) as ArrayRef, true),
            ("value", Arc::new(Float64Array::from(vec![0.5, 1.0])) as ArrayRef, false),
            ("complete", Arc::new(BooleanArray::from(vec![true, false])) as ArrayRef, false),
            ("id", Arc::new(BinaryArray::from(vec![&b"\x01\xff"[..], b""])) as ArrayRef, false),
        ]);
        let mut out = Vec::new();
        format_batches(&[batch.unwrap()], format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn csv_and_json_are_what_other_tools_read() {
        assert_eq!(text(Format::Csv), "date,country,value,complete,id\n2018-07-01,\"D,E\",0.5,true,01ff\n2018-07-02,,1.0,false,\n");
        let json = text(Format::Json);
        let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(rows[0]["date"], "2018-07-01");
        assert_eq!(rows[1]["country"], serde_json::Value::Null);
        assert!(text(Format::Table).contains("| 2018-07-02 | NULL"));
    }

    #[test]
    fn no_rows_are_still_an_answer() {
        let schema = Arc::new(Schema::new(vec![Field::new("date", DataType::Date32, false)]));
        let empty = [RecordBatch::new_empty(schema)];
        for (format, expected) in [(Format::Csv, "date\n"), (Format::Json, "[]\n")] {
            let mut out = Vec::new();
            format_batches(&empty, format, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
