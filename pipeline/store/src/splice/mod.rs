//! Files with some rows deleted or replaced, at the cost of the pages that hold
//! them: every other page is copied as bytes.
//!
//! | step | where |
//! | --- | --- |
//! | rows of devices are found by the ranges of pages, decoding only the candidates | `find`, `runs` |
//! | which rows of which file go, and what takes the place of a roll-up that changes | `month` |
//! | one file replaced: read, spliced, written, read back, compared, named | `replace` |
//! | row groups, column chunks, dictionaries, pages | `file`, `chunk`, `pieces`, `dictionary`, `page` |
//! | levels and values of a page, decoded and encoded as they were | `leaf`, `decode` |
//! | ranges in the indexes and statistics, from what stays | `stats` |
//! | old and new file compared by another decoder | `check`, `readback` |
//!
//! What has a shape that is not written here is `Unsupported`, and rewritten whole.

pub(crate) mod check;
pub(crate) mod chunk;
pub(crate) mod decode;
pub(crate) mod dictionary;
pub(crate) mod file;
pub(crate) mod find;
pub(crate) mod leaf;
pub(crate) mod month;
pub(crate) mod page;
pub(crate) mod pieces;
pub(crate) mod readback;
pub(crate) mod replace;
pub(crate) mod runs;
pub(crate) mod stats;
pub(crate) mod throttle;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::StoreError;

/// Why a file was not spliced.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It is of a shape that is not spliced; nothing is wrong with it.
    Unsupported(&'static str),
    /// It is not what its own header and footer say.
    Damaged(&'static str),
    /// What was written is not what had to be.
    Mismatch(&'static str),
    /// Reading or writing failed.
    Failed(StoreError),
}

impl Stop {
    /// The error of a file where nothing else can be done about it.
    pub(crate) fn into_error(self, path: &str) -> StoreError {
        match self {
            Self::Unsupported(what) | Self::Damaged(what) | Self::Mismatch(what) => {
                StoreError::File { path: path.to_owned(), what: what.to_owned() }
            }
            Self::Failed(error) => error,
        }
    }
}

impl<E: Into<StoreError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// One row that goes, or is replaced by a row of the replacements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Edit {
    /// Counted from the beginning of the row group.
    pub(crate) row: u32,
    pub(crate) with: Option<u32>,
}

/// What splicing took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Files that were spliced, or had no row left.
    pub files: u64,
    /// Data pages copied as they were.
    pub pages_copied: u64,
    /// Data pages decoded and encoded again.
    pub pages_encoded: u64,
    /// Dictionaries out of which a value was taken.
    pub dictionaries: u64,
    /// Bytes copied as they were.
    pub bytes_copied: u64,
    /// Bytes that were encoded again.
    pub bytes_encoded: u64,
}

impl Counts {
    /// Adds what another piece of work took.
    pub const fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.pages_copied += other.pages_copied;
        self.pages_encoded += other.pages_encoded;
        self.dictionaries += other.dictionaries;
        self.bytes_copied += other.bytes_copied;
        self.bytes_encoded += other.bytes_encoded;
    }
}
