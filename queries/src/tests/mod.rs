//! Tests longer than the code they test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cohorts;
mod differential;
mod direct;
pub mod fleet;
mod goldens;
mod privacy;
pub mod reference;
mod speed;
mod sql;
pub mod warehouse;

use std::sync::Arc;

use ameles_core::{Month, Timestamp};
use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Float64Type};
use arrow::record_batch::RecordBatch;

use crate::{Completeness, Guard, MetricRequest, Metrics};
use fleet::Fleet;

/// One row of an answer: date, texts (dimensions, kind), numbers, complete.
pub type Row = (i32, Vec<Option<String>>, Vec<f64>, bool);

pub fn engine(fleet: &Fleet) -> Metrics {
    // Everything has arrived; September is still open.
    let completeness = Completeness { watermark: Timestamp::from_micros(i64::MAX), closed_before: "2018-09".parse::<Month>().unwrap() };
    Metrics::new(Arc::new(fleet.source()), completeness)
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub fn ask(fleet: &Fleet, request: &MetricRequest, guard: Guard) -> Vec<Row> {
    let batch = block_on(engine(fleet).run_metric(request, guard)).unwrap_or_else(|error| panic!("{request:?}: {error}"));
    rows(&batch)
}

pub fn rows(batch: &RecordBatch) -> Vec<Row> {
    let mut rows = Vec::new();
    for row in 0..batch.num_rows() {
        let (mut texts, mut numbers) = (Vec::new(), Vec::new());
        for column in &batch.columns()[1..batch.num_columns() - 1] {
            if column.data_type() == &DataType::Utf8 {
                let column = column.as_string::<i32>();
                texts.push(column.is_valid(row).then(|| column.value(row).to_owned()));
            } else {
                numbers.push(cast(column, &DataType::Float64).unwrap().as_primitive::<Float64Type>().value(row));
            }
        }
        let complete = batch.column(batch.num_columns() - 1).as_boolean().value(row);
        rows.push((batch.column(0).as_primitive::<Date32Type>().value(row), texts, numbers, complete));
    }
    rows
}
