//! What operators' tools ask for.

use std::sync::Arc;

use ameles_ledger::RequestState;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::telemetry::Erasures;
use crate::{ApiError, ServerState, error};

pub(crate) async fn health() -> &'static str {
    "ok\n"
}

/// Ready when the ledger and the warehouse answer: without suppressions nothing may be admitted or counted.
pub(crate) async fn ready(State(state): State<Arc<ServerState>>) -> Result<&'static str, ApiError> {
    let unready = |what: &str, cause: &(dyn std::error::Error + 'static)| {
        tracing::warn!(cause = %error::chain(cause), "{what} does not answer");
        ApiError::Unavailable(format!("{what} does not answer"))
    };
    state.ledger().suppression_sequence().await.map_err(|cause| unready("the ledger", &cause))?;
    state.warehouse().snapshot().await.map_err(|cause| unready("the warehouse", &cause))?;
    Ok("ready\n")
}

pub(crate) async fn prometheus(State(state): State<Arc<ServerState>>) -> Result<Response, ApiError> {
    let counts = state.ledger().counts().await?;
    let by_state = RequestState::ALL
        .into_iter()
        .map(|of| {
            let count = match of {
                RequestState::Pending => counts.pending,
                RequestState::InProgress => counts.in_progress,
                RequestState::Completed => counts.completed,
                RequestState::Cancelled => counts.cancelled,
            };
            (of.as_str(), count)
        })
        .collect();
    let tally = state.parts.collector.as_ref().map(ameles_ingest::Collector::tally);
    let kafka = state.parts.kafka.as_ref().map(ameles_ingest::KafkaSource::status);
    let text = state.telemetry.render(tally.as_ref(), kafka.as_ref(), &Erasures { by_state, overdue: counts.overdue });
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"))], text).into_response())
}

pub(crate) fn text_detail() -> Value {
    json!({ "responses": { "200": { "description": "As the summary says." } } })
}
