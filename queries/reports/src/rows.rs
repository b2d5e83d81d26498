//! A metric's answer as plain rows.

use ameles_core::Day;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Float64Type, Int64Type};
use arrow::record_batch::RecordBatch;

use crate::ReportError;

/// One row of a metric with a date.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The day, or the first of the period.
    pub date: Day,
    /// The other text columns in order: dimensions, or `growth`'s kind.
    pub labels: Vec<Option<String>>,
    /// The value.
    pub value: f64,
    /// Whether the value is final.
    pub complete: bool,
}

/// One cell of the retention triangle.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// The month of activation, by its first day.
    pub cohort: Day,
    /// Months since then.
    pub offset: i32,
    /// Devices active in that month.
    pub devices: i64,
    /// Their share of the cohort.
    pub rate: f64,
    /// Whether the value is final.
    pub complete: bool,
}

/// Reads an answer with `date`, any number of text columns, `value` and `complete`.
///
/// # Errors
/// When a column is missing: the answer is not a dated metric's.
pub fn rows(batch: &RecordBatch) -> Result<Vec<Row>, ReportError> {
    let date = typed(batch, "date", &DataType::Date32)?;
    let date = date.as_primitive::<Date32Type>();
    let value = typed(batch, "value", &DataType::Float64)?;
    let value = value.as_primitive::<Float64Type>();
    let complete = typed(batch, "complete", &DataType::Boolean)?;
    let complete = complete.as_boolean();
    let mut labels: Vec<ArrayRef> = Vec::new();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if !["date", "value", "complete"].contains(&field.name().as_str()) {
            labels.push(cast(column, &DataType::Utf8)?);
        }
    }
    Ok((0..batch.num_rows())
        .map(|row| Row {
            date: Day::from_epoch_days(date.value(row)),
            labels: labels.iter().map(|column| column.is_valid(row).then(|| column.as_string::<i32>().value(row).to_owned())).collect(),
            value: value.value(row),
            complete: complete.value(row),
        })
        .collect())
}

/// Reads the answer of `retention` without dimensions.
///
/// # Errors
/// When a column is missing.
pub fn cells(batch: &RecordBatch) -> Result<Vec<Cell>, ReportError> {
    let cohort = typed(batch, "cohort", &DataType::Date32)?;
    let cohort = cohort.as_primitive::<Date32Type>();
    let offset = typed(batch, "offset", &DataType::Int64)?;
    let offset = offset.as_primitive::<Int64Type>();
    let devices = typed(batch, "devices", &DataType::Int64)?;
    let devices = devices.as_primitive::<Int64Type>();
    let rate = typed(batch, "rate", &DataType::Float64)?;
    let rate = rate.as_primitive::<Float64Type>();
    let complete = typed(batch, "complete", &DataType::Boolean)?;
    let complete = complete.as_boolean();
    Ok((0..batch.num_rows())
        .map(|row| Cell {
            cohort: Day::from_epoch_days(cohort.value(row)),
            offset: offset.value(row) as i32,
            devices: devices.value(row),
            rate: rate.value(row),
            complete: complete.value(row),
        })
        .collect())
}

fn typed(batch: &RecordBatch, name: &'static str, to: &DataType) -> Result<ArrayRef, ReportError> {
    let column = batch.column_by_name(name).ok_or(ReportError::Answer { column: name })?;
    Ok(cast(column, to)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use arrow::array::{BooleanArray, Date32Array, Int64Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn labels_keep_their_order_and_their_nulls() {
        let batch = RecordBatch::try_from_iter([
            ("date", Arc::new(Date32Array::from(vec![1, 2])) as ArrayRef),
            ("country", Arc::new(StringArray::from(vec![Some("DE"), None]))),
            ("value", Arc::new(Int64Array::from(vec![10, 20]))),
            ("complete", Arc::new(BooleanArray::from(vec![true, false]))),
        ])
        .unwrap();
        let rows = rows(&batch).unwrap();
        assert_eq!(rows[0], Row { date: Day::from_epoch_days(1), labels: vec![Some("DE".to_owned())], value: 10.0, complete: true });
        assert_eq!(rows[1].labels, [None]);
        assert!(matches!(cells(&batch), Err(ReportError::Answer { column: "cohort" })));
    }
}
