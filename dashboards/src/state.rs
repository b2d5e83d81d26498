//! What the server works with, and its bounds.

use std::path::PathBuf;
use std::sync::Arc;

use ameles_core::SharedClock;
use ameles_erasure::Eraser;
use ameles_ingest::{Collector, KafkaSource};
use ameles_ledger::{Ledger, Principal};
use ameles_queries::{Completeness, Guard, Issues, KeptAnswers, Metrics, QueryError, SqlLimits};
use ameles_schemas::Contract;
use ameles_store::{ReadView, Warehouse};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::ApiError;
use crate::session::Sessions;
use crate::telemetry::Telemetry;
use crate::tokens::TokenDesk;

/// Bounds of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// The largest body of events, as sent and decompressed, in bytes.
    pub events_bytes_max: usize,
    /// The largest body of any other request, in bytes.
    pub body_bytes_max: usize,
    /// The longest SQL statement, in bytes.
    pub sql_bytes_max: usize,
    /// The most requests at work at once, but those that bring events.
    pub requests_max: usize,
    /// The most requests at once that bring events: they mostly wait for their commit.
    pub events_max: usize,
    /// The most queries at work at once; more are answered with 429 after `query_wait_ms`.
    pub queries_max: usize,
    /// How long a query waits for its turn, in milliseconds.
    pub query_wait_ms: u64,
    /// The longest that a request may take, in seconds.
    pub request_s_max: u64,
    /// Answers of metrics that are kept in memory, in bytes.
    pub kept_bytes_max: usize,
    /// What the answers issued about closed months may take of the ledger, in bytes.
    pub issued_bytes_max: u64,
    /// The most open dashboard sessions.
    pub sessions_max: usize,
    /// How long a session lasts, in seconds.
    pub session_s: i64,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            events_bytes_max: 32 << 20,
            body_bytes_max: 1 << 20,
            sql_bytes_max: 64 << 10,
            requests_max: 256,
            events_max: 4_096,
            queries_max: 8,
            query_wait_ms: 5_000,
            request_s_max: 120,
            kept_bytes_max: 64 << 20,
            issued_bytes_max: 256 << 20,
            sessions_max: 1_000,
            session_s: 12 * 3_600,
        }
    }
}

/// Tells how far the data can be relied on, at each question.
pub type CompletenessSource = Arc<dyn Fn() -> Completeness + Send + Sync>;

/// The completeness of a home that is fed by files and HTTP only: no source is behind, so the watermark is now.
pub fn completeness_by_clock(clock: SharedClock) -> CompletenessSource {
    Arc::new(move || {
        let watermark = clock.now();
        Completeness { watermark, closed_before: ameles_ingest::closed_before(watermark) }
    })
}

/// What a server is made of.
pub struct ServerParts {
    /// Warehouse, ledger, keys, contract, policy, clock and randomness, and erasures by them.
    pub eraser: Arc<Eraser>,
    /// Takes events; without one, `POST /v1/events` is not offered.
    pub collector: Option<Collector>,
    /// Reads from Kafka, where that is configured.
    pub kafka: Option<KafkaSource>,
    /// The smallest group.
    pub k: u32,
    /// Where reports lie.
    pub report_dir: PathBuf,
    /// The policy's version for the reports' manifests, such as a hash of its text.
    pub policy_version: String,
    /// How far the data can be relied on.
    pub completeness: CompletenessSource,
    /// Bounds.
    pub limits: ServerLimits,
    /// Whether browsers reach the server by TLS: the session's cookie is kept to it then.
    pub secure: bool,
}

/// The server's state, shared by all requests.
pub struct ServerState {
    pub(crate) parts: ServerParts,
    pub(crate) sessions: Sessions<Principal>,
    pub(crate) telemetry: Telemetry,
    pub(crate) requests: Semaphore,
    pub(crate) events: Semaphore,
    pub(crate) tokens: TokenDesk,
    queries: Semaphore,
    /// What analysts were told, and what those who see all were: the numbers of closed months may differ.
    kept: Arc<KeptAnswers>,
    kept_at_once: Arc<KeptAnswers>,
    pub(crate) report_run: Semaphore,
}

impl ServerState {
    /// A server of these parts.
    pub fn new(parts: ServerParts) -> Arc<Self> {
        let limits = parts.limits;
        let kept = || Arc::new(KeptAnswers::new(limits.kept_bytes_max / 2).of_groups_from(parts.k));
        Arc::new(Self {
            kept: kept(),
            kept_at_once: kept(),
            parts,
            sessions: Sessions::new(limits.sessions_max, limits.session_s),
            telemetry: Telemetry::default(),
            requests: Semaphore::new(limits.requests_max),
            events: Semaphore::new(limits.events_max),
            tokens: TokenDesk::default(),
            queries: Semaphore::new(limits.queries_max),
            report_run: Semaphore::new(1),
        })
    }
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.parts.eraser.ledger
    }
    pub(crate) fn warehouse(&self) -> &Warehouse {
        &self.parts.eraser.warehouse
    }
    pub(crate) fn contract(&self) -> &Contract {
        &self.parts.eraser.contract
    }
    pub(crate) fn clock(&self) -> &SharedClock {
        &self.parts.eraser.clock
    }
    pub(crate) const fn limits(&self) -> &ServerLimits {
        &self.parts.limits
    }

    /// The tables as they stand now, less what is pending erasure.
    pub(crate) async fn view(&self) -> Result<Arc<ReadView>, ApiError> {
        let suppressions = self.ledger().suppressions().await.map_err(ApiError::internal)?;
        ReadView::open(self.warehouse(), suppressions).await.map_err(ApiError::internal)
    }

    /// The metric engine over a view. Who sees all sees closed months as they are now; others what was issued about them.
    pub(crate) fn metrics(&self, view: Arc<ReadView>, principal: &Principal) -> Metrics {
        let seconds = self.limits().request_s_max.saturating_sub(5).max(1);
        let limits = SqlLimits { timeout: std::time::Duration::from_secs(seconds), ..SqlLimits::default() };
        let metrics = Metrics::new(view, (self.parts.completeness)()).with_limits(limits);
        if sees_all(principal) {
            return metrics.with_kept(Arc::clone(&self.kept_at_once));
        }
        let issues = Issues::new(self.ledger().clone(), self.limits().issued_bytes_max);
        metrics.with_kept(Arc::clone(&self.kept)).with_issues(issues)
    }

    /// Asks the engine; once more on a new view when a file has been purged meanwhile.
    pub(crate) async fn ask<T, E, F>(&self, principal: &Principal, question: impl Fn(Arc<ReadView>, Metrics) -> F) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, E>>,
        E: Vanishing,
        ApiError: From<E>,
    {
        let _turn = self.query_turn().await?;
        let view = self.view().await?;
        match question(Arc::clone(&view), self.metrics(view, principal)).await {
            Err(error) if error.is_vanished() => {
                let view = self.view().await?;
                Ok(question(Arc::clone(&view), self.metrics(view, principal)).await?)
            }
            other => Ok(other?),
        }
    }

    /// A place among the queries at work.
    pub(crate) async fn query_turn(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        let wait = std::time::Duration::from_millis(self.limits().query_wait_ms);
        match tokio::time::timeout(wait, self.queries.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(ApiError::Unavailable("the server is stopping".to_owned())),
            Err(_) => Err(ApiError::Busy("too many queries are at work; try again in a moment".to_owned())),
        }
    }

    /// The guard for a caller who may have asked for another `k`.
    pub(crate) fn guard(&self, principal: &Principal, asked: Option<u32>) -> Result<Guard, ApiError> {
        let k = self.parts.k;
        match asked {
            None => Ok(Guard::K(k)),
            Some(asked) if asked >= k => Ok(Guard::K(asked)),
            Some(asked) if sees_all(principal) => Ok(if asked <= 1 { Guard::None } else { Guard::K(asked) }),
            Some(_) => Err(ApiError::Forbidden(format!("only the compliance role may ask for groups under {k}"))),
        }
    }
}

const fn sees_all(principal: &Principal) -> bool {
    use ameles_ledger::Role;
    matches!(principal.role(), Role::Compliance | Role::Admin)
}

/// An error that a new view may cure.
pub(crate) trait Vanishing {
    fn is_vanished(&self) -> bool;
}

impl Vanishing for QueryError {
    fn is_vanished(&self) -> bool {
        self.is_vanished_file()
    }
}

impl Vanishing for ameles_reports::ReportError {
    fn is_vanished(&self) -> bool {
        self.is_outdated()
    }
}
