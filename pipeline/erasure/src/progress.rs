//! How a long run tells where it is.

use crate::Step;

/// Told where a run is; called from several threads.
pub trait Progress: Send + Sync {
    /// A step begins, of `total` units of work (rows, files or bytes; 0 where unknown).
    fn begin(&self, step: Step, what: &str, total: u64) {
        let _ = (step, what, total);
    }
    /// So many more units are done.
    fn advance(&self, units: u64) {
        let _ = units;
    }
}

/// Says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}
