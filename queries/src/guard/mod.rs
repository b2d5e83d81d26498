//! The smallest group: what an analyst's answer may rest on.
//!
//! Every cell of an answer, and whatever can be computed from its cells (sums,
//! complements, steps of running totals, siblings), rests on no device or user
//! at all or on at least `k` of each. Sets of people, not numbers, decide: a
//! union of safe cells is safe, so sums need no second look; what could be
//! *subtracted* does, and each shape of answer has its own rule here.

mod fold;
mod growth;
mod retention;
mod running;

pub use fold::{Label, fold, fold_static, relabel};
pub use growth::{Kind, guard_growth};
pub use retention::guard_retention;
pub use running::{guard_rising, guard_running, running_labels};
