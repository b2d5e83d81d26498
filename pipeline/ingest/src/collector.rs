//! Events over HTTP: a bounded queue, group commit, an answer once durable.

use std::sync::Arc;

use ameles_core::{Reason, Tally};
use ameles_ledger::Principal;
use bytes::Bytes;
use serde::Serialize;

use crate::{IngestEnv, IngestError};

/// How a body is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyFormat {
    /// One JSON object a line.
    Ndjson,
    /// One JSON array of objects.
    JsonArray,
    /// An array where the first character that is no blank is `[`.
    #[default]
    Auto,
}

/// Bounds of the collector.
#[derive(Debug, Clone)]
pub struct CollectorOptions {
    /// Bytes of bodies that may wait; more is answered with [`SubmitError::Busy`].
    pub queue_bytes_max: usize,
    /// How long a commit waits for company, in milliseconds.
    pub group_ms: u64,
    /// What quarantine calls this source.
    pub source: String,
    /// Fingerprints kept to recognise a repeated event.
    pub fingerprints_max: usize,
}

impl Default for CollectorOptions {
    fn default() -> Self {
        Self { queue_bytes_max: 64 << 20, group_ms: 20, source: "http".to_owned(), fingerprints_max: 32 << 20 }
    }
}

/// The answer to one request: its events are durable.
#[derive(Debug, Clone, Serialize)]
pub struct Reply {
    /// `received`, `accepted`, `rejected`.
    #[serde(flatten)]
    pub tally: Tally,
    /// The first errors, up to `Limits::errors_listed_max`.
    pub errors: Vec<LineError>,
}

/// One rejected line of a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LineError {
    /// The line, or the place in the array, from 1.
    pub line: u64,
    /// Why.
    pub reason: &'static str,
    /// The declared field, where one is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// Why a request was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitError {
    /// Too much is waiting: 429, try again in a moment.
    #[error("too many events are waiting; try again in a moment")]
    Busy,
    /// The body is longer than `Limits::body_bytes_max`: 413.
    #[error("the body has {bytes} bytes, more than {max}; send it in smaller pieces")]
    TooLarge {
        /// The body's length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The server is stopping: 503.
    #[error("the server is stopping; send the events again")]
    Stopping,
    /// The events could not be stored: 503; none of them counts as received.
    #[error("the events could not be stored; send them again: {0}")]
    Failed(Arc<IngestError>),
}

/// Takes events over HTTP. Cheap to clone.
#[derive(Clone)]
pub struct Collector {
    env: Arc<IngestEnv>,
}

impl Collector {
    /// Takes a lease, rebuilds the memory of recent events, and starts the committing task.
    ///
    /// # Errors
    /// When the warehouse cannot be read.
    pub async fn start(env: Arc<IngestEnv>, options: CollectorOptions) -> Result<Self, IngestError> {
        let _ = options;
        Ok(Self { env })
    }

    /// Decodes, admits and stores a body; returns once its events are durable.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit(&self, body: Bytes, format: BodyFormat, principal: &Principal) -> Result<Reply, SubmitError> {
        let _ = (&self.env.contract, body, format, principal, Reason::Duplicate);
        unimplemented!()
    }

    /// All that was counted since the start, for Prometheus.
    pub fn tally(&self) -> Tally {
        unimplemented!()
    }

    /// Takes nothing more, stores what is waiting and gives up the lease.
    pub async fn stop(&self) {
        unimplemented!()
    }
}
