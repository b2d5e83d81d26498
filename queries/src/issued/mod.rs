//! Answers about closed months, as they were issued.
//!
//! What an analyst has been told about a month that has closed is kept on the ledger, and told again until at least
//! `k` devices have changed in it: before and after an erasure cannot be subtracted then. A *series* is a question
//! without its period. Its rows are kept date by date (cohort by cohort); each time it is asked, what the tables give now is
//! compared with them ([`rule`], [`running`]), and what may be issued anew is kept before it is told. Whoever may see everything
//! (`k` of 1) neither reads nor writes here.
//!
//! Two series of one month can be subtracted from each other too. So each time something is issued about a month, the number of
//! devices active in it is marked; while fewer than `k` have gone since any mark, the month is *shut*: nothing
//! new is issued about it, neither anew nor for the first time.

mod book;
mod rule;
mod running;
mod settle;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ameles_ledger::Ledger;

pub(crate) use rule::SPREAD;
pub(crate) use settle::issue;

/// Metadata of an answer's schema: months about which something was held back, separated by commas.
pub const HELD_BACK: &str = "held_back";

/// Where what was issued is kept.
#[derive(Clone, Debug)]
pub struct Issues {
    /// The home's ledger.
    pub ledger: Ledger,
    /// What is kept takes so many bytes at most; a question that needs more is refused.
    pub bytes_max: u64,
}

impl Issues {
    /// On a ledger.
    pub fn new(ledger: Ledger, bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { ledger, bytes_max })
    }
}
