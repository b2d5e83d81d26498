//! Columns of the merge tables for counting: numbers instead of strings and byte arrays, straight from the pages.
//!
//! A settled month's files are read as `encode` lays them out, without a value of them being allocated: pseudonyms as numbers of 128
//! bits, days as 32 bits, the values of the dimensions as the number of their combination. Whatever is laid out otherwise, and months
//! whose runs have to be merged, come by way of record batches and look the same.

pub(crate) mod bits;
mod columns;
mod coverage;
mod grouping;
mod layout;
pub(crate) mod pages;
mod pieces;
mod reader;
mod rows;
#[cfg(test)]
mod tests;
mod users;

use std::sync::Arc;

pub use self::grouping::{DimensionFilter, Grouping, LEFT_OUT};
pub(crate) use self::layout::Layout;
pub use self::pieces::Piece;
pub use self::reader::Reader;
pub use self::users::Users;

/// What of each row is read.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The device's pseudonym.
    pub devices: bool,
    /// The user's, of `links`.
    pub users: bool,
    /// Bits of the active days, of `activity` and `links`.
    pub days: bool,
    /// A time: `activated_ts` of `devices`, `first_ts` or `last_ts` of `activity`.
    pub time: Option<&'static str>,
    /// Counts of the measure at this place in `TableSchemas::measures`.
    pub measure: Option<usize>,
    /// The row's group.
    pub grouping: Option<Arc<Grouping>>,
}

/// Rows as columns; those that are not wanted are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// How many rows.
    pub rows: usize,
    /// Pseudonyms, as numbers whose order is theirs.
    pub devices: Vec<u128>,
    /// The same of users.
    pub users: Vec<u128>,
    /// Bits of the active days; bit 0 is the 1st.
    pub days: Vec<u32>,
    /// Microseconds.
    pub times: Vec<i64>,
    /// Group numbers of the grouping; [`LEFT_OUT`] where a filter does not hold.
    pub groups: Vec<u32>,
    /// For each set bit of each row's days, the day's count.
    pub counts: Vec<u32>,
}

impl Columns {
    /// Leaves out all rows.
    pub fn clear(&mut self) {
        self.truncate(0, 0);
    }

    /// Keeps the first rows, and so many counts.
    fn truncate(&mut self, rows: usize, counts: usize) {
        self.rows = rows;
        self.devices.truncate(rows);
        self.users.truncate(rows);
        self.days.truncate(rows);
        self.times.truncate(rows);
        self.groups.truncate(rows);
        self.counts.truncate(counts);
    }

    /// Leaves out the first rows. Not for rows with counts.
    pub fn discard(&mut self, rows: usize) {
        fn drop_first<T>(values: &mut Vec<T>, rows: usize) {
            values.drain(..rows.min(values.len()));
        }
        self.rows -= rows.min(self.rows);
        drop_first(&mut self.devices, rows);
        drop_first(&mut self.users, rows);
        drop_first(&mut self.days, rows);
        drop_first(&mut self.times, rows);
        drop_first(&mut self.groups, rows);
    }

    /// Appends a row of others that have the same columns, whose counts begin at `counts`.
    fn push(&mut self, from: &Self, row: usize, counts: usize) {
        self.rows += 1;
        self.devices.extend(from.devices.get(row));
        self.users.extend(from.users.get(row));
        self.days.extend(from.days.get(row));
        self.times.extend(from.times.get(row));
        self.groups.extend(from.groups.get(row));
        self.counts.extend_from_slice(from.counts.get(counts..counts + from.counts_of(row)).unwrap_or_default());
    }

    fn counts_of(&self, row: usize) -> usize {
        if self.counts.is_empty() { 0 } else { self.days.get(row).map_or(0, |days| days.count_ones() as usize) }
    }

    /// The rows from `start` on, whose counts begin at `counts`, as `keep` says.
    fn retain(&mut self, start: usize, counts: usize, keep: impl Fn(u128) -> bool) {
        if self.devices.iter().skip(start).all(|device| keep(*device)) {
            return;
        }
        let mut kept = Self::default();
        let mut at = counts;
        for (row, device) in self.devices.iter().enumerate().skip(start) {
            if keep(*device) {
                kept.push(self, row, at);
            }
            at += self.counts_of(row);
        }
        self.truncate(start, counts);
        self.append(kept);
    }

    fn append(&mut self, mut from: Self) {
        self.rows += from.rows;
        self.devices.append(&mut from.devices);
        self.users.append(&mut from.users);
        self.days.append(&mut from.days);
        self.times.append(&mut from.times);
        self.groups.append(&mut from.groups);
        self.counts.append(&mut from.counts);
    }
}
