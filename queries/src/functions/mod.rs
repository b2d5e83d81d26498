//! SQL functions over the bits of a month: what keeps counts of days from
//! exploding into one row per device and day.

mod aggregates;
mod fold;
mod scalars;

use datafusion::prelude::SessionContext;

/// Registers all of them.
pub fn register(context: &SessionContext) {
    for function in scalars::all() {
        context.register_udf(function);
    }
    for function in aggregates::all() {
        context.register_udaf(function);
    }
}

pub use aggregates::{people, people_of_all};
/// The functions that an analyst's statement may call besides DataFusion's own.
pub use scalars::TOTAL;
