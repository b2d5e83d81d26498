//! The handle that submits, carries out, previews and checks erasures.

use std::path::PathBuf;
use std::sync::Arc;

use ameles_core::{Limits, SharedClock, SharedRandom};
use ameles_ledger::{Ledger, Request, RequestFilter, RequestId, RequestState};
use ameles_pseudonym::Keyring;
use ameles_schemas::{Contract, Policy, Regime};
use ameles_store::Warehouse;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::record::StepDetail;
use crate::{ErasureError, FaultPoints};

/// Where things lie besides the warehouse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The home.
    pub home: PathBuf,
    /// The journal outside the home.
    pub journal: PathBuf,
}

/// What may be configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a replaced file is spared for queries that still read it, in seconds.
    pub purge_grace_s: u64,
    /// What a run may read and write of the files that it splices, in MiB a second; all that it can without.
    pub io_limit_mb_s: Option<u64>,
    /// How long `run` waits for the process that maintains the warehouse, in seconds.
    pub handover_timeout_s: u64,
    /// How often it looks meanwhile, in milliseconds.
    pub handover_poll_ms: u64,
    /// How often months are rewritten again because rows were committed meanwhile.
    pub rounds_max: u32,
    /// How long a suppression is kept, in days: longer than any source's or backup's retention.
    pub horizon_days: u32,
    /// Copies that Ameles does not reach, for the certificate.
    pub elsewhere: Vec<Elsewhere>,
    /// Bounds on identifiers.
    pub limits: Limits,
}

/// A copy that Ameles does not reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// What it is.
    pub place: String,
    /// How long it is kept there, in days, where that is known.
    pub days: Option<u32>,
    /// What ends it.
    pub note: String,
}

impl Default for Settings {
    fn default() -> Self {
        let elsewhere = |place: &str, note: &str| Elsewhere { place: place.to_owned(), days: None, note: note.to_owned() };
        Self {
            purge_grace_s: 60,
            io_limit_mb_s: None,
            handover_timeout_s: 3_600,
            handover_poll_ms: 250,
            rounds_max: 5,
            horizon_days: 1_096,
            elsewhere: vec![
                elsewhere("input files", "files that were ingested are not Ameles' to delete; their operator does it"),
                elsewhere(
                    "source topics",
                    "kept for the topic's own retention; what is read from them again is dropped while the suppression stands",
                ),
                elsewhere("backups", "kept for the backup's own retention; after a restore the journal asks for the erasure again"),
            ],
            limits: Limits::default(),
        }
    }
}

/// Submits, carries out, previews and checks erasures. Cheap to clone.
#[derive(Clone)]
pub struct Eraser {
    /// The tables.
    pub warehouse: Warehouse,
    /// Requests and suppressions.
    pub ledger: Ledger,
    /// The keys.
    pub keyring: Arc<Keyring>,
    /// What events look like.
    pub contract: Arc<Contract>,
    /// Deadlines.
    pub policy: Arc<Policy>,
    /// The time.
    pub clock: SharedClock,
    /// Randomness.
    pub random: SharedRandom,
    /// Where things lie.
    pub layout: Layout,
    /// What may be configured.
    pub settings: Settings,
    /// Where a test stops a run; nowhere by default.
    pub faults: FaultPoints,
}

impl std::fmt::Debug for Eraser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Eraser").field("layout", &self.layout).field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Eraser {
    /// The request with this id, ours or the controller's (its reference).
    ///
    /// # Errors
    /// When there is none, or the ledger fails.
    pub fn find<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Request, ErasureError>> {
        async move {
            if let Ok(ours) = id.parse::<RequestId>()
                && let Ok(request) = self.ledger.request(ours).await
            {
                return Ok(request);
            }
            if !crate::submit::is_reference(id) {
                return Err(ErasureError::refused(
                    "the request id",
                    "must be a UUID as `ameles erase submit` prints it, or the reference that was given",
                ));
            }
            let filter = RequestFilter { reference: Some(id.to_owned()), limit: Some(1), ..RequestFilter::default() };
            let found = self.ledger.requests(&filter).await?.into_iter().next();
            found.ok_or_else(|| ErasureError::refused("the request id", "names no request; `ameles erase list` shows them"))
        }
        .boxed()
    }

    /// The regime that a request's regulation names, or the default one.
    pub(crate) fn regime_of(&self, regulation: &str) -> &Regime {
        self.policy.regime_named(regulation).unwrap_or_else(|| self.policy.regime(None))
    }

    /// Extends a request's deadline by what the policy allows its regulation, counted from receipt.
    ///
    /// # Errors
    /// When the request does not allow it, or the ledger fails.
    pub fn extend<'a>(&'a self, id: RequestId, reason: &'a str, actor: &'a str) -> BoxFuture<'a, Result<Request, ErasureError>> {
        async move {
            let request = self.ledger.request(id).await?;
            let regime = self.regime_of(&request.regulation);
            if regime.extension_months == 0 {
                return Err(ErasureError::refused("an extension", format!("is not allowed by the policy's regime {}", regime.name)));
            }
            let months = i32::try_from(regime.extension_months).unwrap_or(i32::MAX);
            let received_due = i32::try_from(regime.erasure_months).unwrap_or(i32::MAX);
            // From receipt, not from the first deadline: 31 January + 1 + 2 months is 30 April, not 28.
            let due = request.received.plus_months(received_due.saturating_add(months)).max(request.due);
            self.ledger.extend(id, due, reason, actor).await?;
            Ok(self.ledger.request(id).await?)
        }
        .boxed()
    }

    /// Withdraws a request that no run has taken up: its subjects are counted again.
    ///
    /// # Errors
    /// When a run has taken it up, or the ledger fails.
    pub fn cancel<'a>(&'a self, id: RequestId, actor: &'a str) -> BoxFuture<'a, Result<Request, ErasureError>> {
        async move {
            self.ledger.cancel(id, actor).await?;
            Ok(self.ledger.request(id).await?)
        }
        .boxed()
    }

    /// A completed request's certificate, as it was signed.
    ///
    /// # Errors
    /// When the request is not completed, or the ledger fails.
    pub async fn certificate(&self, id: RequestId) -> Result<String, ErasureError> {
        self.ledger.certificate(id).await?.ok_or_else(|| ErasureError::NoCertificate(id.to_string()))
    }

    /// Why the last run of an open request stopped, where it did.
    pub fn last_error(request: &Request) -> Option<String> {
        if request.state == RequestState::Completed {
            return None;
        }
        request.step_detail.as_deref().and_then(|detail| serde_json::from_str::<StepDetail>(detail).ok()).and_then(|detail| detail.error)
    }
}
