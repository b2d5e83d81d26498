//! `POST /v1/events`.

use std::sync::Arc;

use ameles_ingest::{BodyFormat, Reply, Room, SubmitError};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use serde_json::{Value, json};

use crate::auth::{Caller, Ingest};
use crate::body::Hold;
use crate::{ApiError, ServerState, body, error};

pub(crate) async fn submit(
    State(state): State<Arc<ServerState>>,
    caller: Caller<Ingest>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Reply>, ApiError> {
    let collector = state.parts.collector.as_ref().ok_or_else(|| ApiError::Unavailable("this process takes no events".to_owned()))?;
    let format = format(&headers)?;
    let limit = state.limits().events_bytes_max;
    let room = collector.room().map_err(refusal)?;
    let (bytes, room) = body::read_decoded(&headers, body, limit, room).await?;
    Ok(Json(collector.submit(bytes, format, &caller.principal, room).await.map_err(refusal)?))
}

impl Hold for Room {
    fn hold(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.grow(bytes).map_err(refusal)
    }
}

fn refusal(refused: SubmitError) -> ApiError {
    match refused {
        SubmitError::Busy => ApiError::Busy(refused.to_string()),
        SubmitError::TooLarge { max, .. } => ApiError::TooLarge { limit: max },
        SubmitError::Stopping => ApiError::Unavailable(refused.to_string()),
        SubmitError::Failed(cause) => {
            tracing::error!(cause = %error::chain(cause.as_ref()), "events could not be stored");
            ApiError::Unavailable("the events could not be stored; send them again".to_owned())
        }
    }
}

/// By media type; without one that tells, by the body's first character.
fn format(headers: &HeaderMap) -> Result<BodyFormat, ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(BodyFormat::Auto) };
    let text = value.to_str().unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match text.as_str() {
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => Ok(BodyFormat::Ndjson),
        // curl's default stands for "did not say", and clients send a single object as application/json.
        "" | "application/json" | "text/plain" | "application/octet-stream" | "application/x-www-form-urlencoded" => Ok(BodyFormat::Auto),
        _ => Err(ApiError::UnsupportedMedia("send application/x-ndjson or application/json".to_owned())),
    }
}

pub(crate) fn detail() -> Value {
    let event = json!({ "type": "object", "description": "an event as the home's data contract describes it" });
    json!({
        "description": "received = accepted + the sum of rejected. Content-Encoding gzip and zstd are read.",
        "requestBody": { "required": true, "content": {
            "application/x-ndjson": { "schema": { "type": "string", "description": "one JSON object a line" } },
            "application/json": { "schema": { "type": "array", "items": event } },
        } },
        "responses": { "200": { "description": "The events are durable.", "content": { "application/json": { "schema": {
            "type": "object", "required": ["received", "accepted", "rejected", "errors"],
            "properties": {
                "received": { "type": "integer" }, "accepted": { "type": "integer" },
                "rejected": { "type": "object", "additionalProperties": { "type": "integer" } },
                "errors": { "type": "array", "items": { "type": "object", "properties": {
                    "line": { "type": "integer" }, "reason": { "type": "string" }, "field": { "type": "string" } } } },
            },
        } } } } },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn media_types_tell_the_layout() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            format(&headers)
        };
        assert_eq!(with("application/x-ndjson; charset=utf-8").unwrap(), BodyFormat::Ndjson);
        assert_eq!(with("Application/JSON").unwrap(), BodyFormat::Auto);
        assert_eq!(format(&HeaderMap::new()).unwrap(), BodyFormat::Auto);
        assert!(matches!(with("text/xml"), Err(ApiError::UnsupportedMedia(_))));
    }
}
