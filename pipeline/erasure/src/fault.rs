//! The job's steps, and stopping at their boundaries on request.
//!
//! A test aid: with `AMELES_CRASH_AT=erasure:<step>` in its environment the process
//! aborts, as `kill -9` would, when that step has been done and before the next one
//! begins (`rewrite` after each two months, `complete` after each request). Unit tests
//! ask for an error at the same places instead.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::ErasureError;

/// A step of the job, in the order in which they come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The open requests are taken into the run.
    Begin,
    /// Users become devices; rows are counted request by request.
    Resolve,
    /// What will be rewritten is on the ledger.
    Plan,
    /// Months are written anew.
    Rewrite,
    /// The devices' rows of `quarantine` are gone.
    Quarantine,
    /// Replaced files, old log entries and checkpoints are deleted.
    Purge,
    /// The ledger has forgotten the subjects' consents.
    Forget,
    /// What the warehouse keeps has been searched.
    Verify,
    /// The certificate is signed.
    Certify,
    /// The request is closed.
    Complete,
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Self; 10] = [
        Self::Begin,
        Self::Resolve,
        Self::Plan,
        Self::Rewrite,
        Self::Quarantine,
        Self::Purge,
        Self::Forget,
        Self::Verify,
        Self::Certify,
        Self::Complete,
    ];

    /// The step's name on the ledger and in `AMELES_CRASH_AT`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Resolve => "resolve",
            Self::Plan => "plan",
            Self::Rewrite => "rewrite",
            Self::Quarantine => "quarantine",
            Self::Purge => "purge",
            Self::Forget => "forget",
            Self::Verify => "verify",
            Self::Certify => "certify",
            Self::Complete => "complete",
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a run is to stop; nowhere by default.
#[derive(Clone, Debug, Default)]
pub struct FaultPoints(Arc<Mutex<Option<Step>>>);

impl FaultPoints {
    /// The next run returns an error when `step` has been done, once.
    pub fn fail_after(&self, step: Step) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(step);
    }

    /// Called when `step` has been done.
    pub(crate) fn passed(&self, step: Step) -> Result<(), ErasureError> {
        let asked = std::env::var("AMELES_CRASH_AT").ok();
        if asked.as_deref().and_then(|point| point.strip_prefix("erasure:")) == Some(step.as_str()) {
            std::process::abort();
        }
        let mut planned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *planned == Some(step) {
            *planned = None;
            return Err(ErasureError::Injected { step: step.as_str() });
        }
        Ok(())
    }
}
