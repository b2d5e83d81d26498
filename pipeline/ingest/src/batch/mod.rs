//! Accepted events as rows, rejected ones explained, and the sorted batches that
//! the warehouse takes.

mod build;
mod columns;
mod dictionary;
mod gather;
mod order;
mod part;
mod quarantine;
mod stretches;
#[cfg(test)]
mod tests;
mod words;

pub(crate) use build::{RANGE_BITS, SortedBatch};
pub(crate) use columns::{ColumnPlan, ColumnSet};
pub(crate) use dictionary::Known;
pub(crate) use part::{ConsentRow, Flags, Part, Room, Row};
pub(crate) use quarantine::HourlyCounts;
