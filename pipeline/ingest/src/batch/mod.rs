//! Columns of accepted events, rows of rejected ones, and the batches that the
//! warehouse takes.

mod build;
mod columns;
mod part;
mod quarantine;
#[cfg(test)]
mod tests;

pub(crate) use build::build;
pub(crate) use columns::{ColumnPlan, Columns};
pub(crate) use part::{ConsentRow, Flags, Part, Row};
pub(crate) use quarantine::{HourlyCounts, quarantine_batch};
