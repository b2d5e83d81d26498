//! Sorted rows as Arrow columns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ameles_core::{Day, Month};
use arrow::array::{ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;

use crate::QueryError;
use crate::cells::Groups;
use crate::guard::Label;

/// What small groups are folded into.
pub const OTHER: &str = "(other)";

/// A value of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Count(i64),
    Ratio(f64),
}

/// One row of an answer.
#[derive(Clone, Debug)]
pub struct OutRow {
    pub date: Day,
    pub label: Label,
    /// `kind` of growth.
    pub text: Option<&'static str>,
    /// In the order of the answer's columns.
    pub numbers: Vec<Number>,
    pub complete: bool,
}

/// An answer before it is columns.
#[derive(Debug, Default)]
pub struct Answer {
    pub rows: Vec<OutRow>,
    pub groups: Groups,
    /// The devices behind the rows, for analysts.
    pub behind: BTreeMap<Day, Behind>,
    /// Months about which something is not told yet.
    pub held_back: BTreeSet<Month>,
}

/// The devices behind a date's rows, as the metric's `Proof` has them.
#[derive(Clone, Debug, Default)]
pub struct Behind {
    pub labels: BTreeMap<Label, Vec<i64>>,
    /// Those that no row shows.
    pub hidden: Vec<i64>,
}

/// Which columns an answer has.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub date: &'static str,
    pub text: Option<&'static str>,
    /// Names, and whether they are ratios.
    pub numbers: &'static [(&'static str, bool)],
}

impl Shape {
    /// Date and a count.
    pub const COUNT: Self = Self { date: "date", text: None, numbers: &[("value", false)] };
    /// Date and a ratio.
    pub const RATIO: Self = Self { date: "date", text: None, numbers: &[("value", true)] };
    /// Growth.
    pub const GROWTH: Self = Self { date: "date", text: Some("kind"), numbers: &[("value", false)] };
    /// Retention.
    pub const RETENTION: Self = Self { date: "cohort", text: None, numbers: &[("offset", false), ("devices", false), ("rate", true)] };

    /// The answer's columns.
    pub fn schema(&self, by: &[String]) -> Schema {
        let mut fields = vec![Field::new(self.date, DataType::Date32, false)];
        fields.extend(by.iter().map(|dimension| Field::new(dimension, DataType::Utf8, true)));
        fields.extend(self.text.map(|name| Field::new(name, DataType::Utf8, false)));
        let of = |ratio: bool| if ratio { DataType::Float64 } else { DataType::Int64 };
        fields.extend(self.numbers.iter().map(|(name, ratio)| Field::new(*name, of(*ratio), false)));
        fields.push(Field::new("complete", DataType::Boolean, false));
        Schema::new(fields)
    }

    /// The answer: rows by date, dimensions (nulls last), kind or offset.
    pub fn batch(&self, by: &[String], mut rows: Vec<OutRow>, groups: &Groups) -> Result<RecordBatch, QueryError> {
        let dims = by.len();
        let dimension = |row: &OutRow, at: usize| -> Option<String> {
            match row.label {
                Label::Other => Some(OTHER.to_owned()),
                Label::Group(group) => groups.name(group).get(at).cloned().flatten(),
            }
        };
        rows.sort_by_cached_key(|row| {
            let values: Vec<(bool, String)> =
                (0..dims).map(|at| dimension(row, at)).map(|value| (value.is_none(), value.unwrap_or_default())).collect();
            let first = match row.numbers.first() {
                Some(Number::Count(count)) if self.numbers.len() > 1 => *count,
                _ => 0,
            };
            (row.date, values, row.text, first)
        });
        let mut columns: Vec<ArrayRef> = vec![Arc::new(rows.iter().map(|row| Some(row.date.epoch_days())).collect::<Date32Array>())];
        for at in 0..dims {
            columns.push(Arc::new(rows.iter().map(|row| dimension(row, at)).collect::<StringArray>()));
        }
        if self.text.is_some() {
            columns.push(Arc::new(rows.iter().map(|row| Some(row.text.unwrap_or(""))).collect::<StringArray>()));
        }
        for (at, (_, ratio)) in self.numbers.iter().enumerate() {
            let number = |row: &OutRow| row.numbers.get(at).copied().unwrap_or(Number::Count(0));
            columns.push(if *ratio {
                let value = |number| if let Number::Ratio(ratio) = number { ratio } else { 0.0 };
                Arc::new(rows.iter().map(|row| Some(value(number(row)))).collect::<Float64Array>())
            } else {
                let value = |number| if let Number::Count(count) = number { count } else { 0 };
                Arc::new(rows.iter().map(|row| Some(value(number(row)))).collect::<Int64Array>())
            });
        }
        columns.push(Arc::new(rows.iter().map(|row| Some(row.complete)).collect::<BooleanArray>()));
        Ok(RecordBatch::try_new(Arc::new(self.schema(by)), columns)?)
    }
}
