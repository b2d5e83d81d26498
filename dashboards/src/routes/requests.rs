//! Erasure requests by OpenDSR 2.0.

use std::sync::Arc;

use ameles_erasure::opendsr::{CancellationReply, Discovery, RequestReply, StatusReply, parse_request};
use ameles_ledger::{Request, RequestFilter, RequestState};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{known_parameters, single};
use crate::auth::{Caller, Compliance};
use crate::{ApiError, ServerState, body};

/// The most requests that one answer lists.
const LIST_MAX: u32 = 1_000;

pub(crate) async fn discovery(State(state): State<Arc<ServerState>>, _caller: Caller<Compliance>) -> Json<Discovery> {
    Json(Discovery::new(state.contract(), &state.parts.eraser.keyring.public_key()))
}

pub(crate) async fn submit(
    State(state): State<Arc<ServerState>>,
    caller: Caller<Compliance>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let bytes = body::read(&headers, body, state.limits().body_bytes_max).await?;
    let request = match parse_request(&bytes, state.contract()) {
        Ok(request) => request,
        // OpenDSR has an error body of its own.
        Err(refused) => return Ok((StatusCode::BAD_REQUEST, Json(refused.body())).into_response()),
    };
    let reply: RequestReply = state.parts.eraser.submit_opendsr(request, caller.principal.name()).await?;
    Ok((StatusCode::CREATED, Json(reply)).into_response())
}

pub(crate) async fn list(
    State(state): State<Arc<ServerState>>,
    _caller: Caller<Compliance>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<Vec<Request>>, ApiError> {
    known_parameters(&pairs, &["state", "overdue", "limit"])?;
    let wanted = match single(&pairs, "state")? {
        None => None,
        Some(text) => Some(
            RequestState::parse(text)
                .ok_or_else(|| ApiError::BadRequest("state is pending, in_progress, completed or cancelled".to_owned()))?,
        ),
    };
    let limit = match single(&pairs, "limit")? {
        None => 100,
        Some(text) => text.parse::<u32>().map_err(|_| ApiError::BadRequest("limit is a whole number".to_owned()))?.min(LIST_MAX),
    };
    let overdue = match single(&pairs, "overdue")? {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(ApiError::BadRequest("overdue is true or false".to_owned())),
    };
    let filter = RequestFilter { state: wanted, overdue, limit: Some(limit), ..RequestFilter::default() };
    Ok(Json(state.ledger().requests(&filter).await?))
}

pub(crate) async fn status(
    State(state): State<Arc<ServerState>>,
    _caller: Caller<Compliance>,
    Path(id): Path<String>,
) -> Result<Json<StatusReply>, ApiError> {
    Ok(Json(state.parts.eraser.status_opendsr(&id).await?))
}

pub(crate) async fn cancel(
    State(state): State<Arc<ServerState>>,
    caller: Caller<Compliance>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<CancellationReply>), ApiError> {
    Ok((StatusCode::ACCEPTED, Json(state.parts.eraser.cancel_opendsr(&id, caller.principal.name()).await?)))
}

pub(crate) async fn certificate(
    State(state): State<Arc<ServerState>>,
    _caller: Caller<Compliance>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let request = state.parts.eraser.find(&id).await?;
    // As signed, byte for byte.
    let text = state.parts.eraser.certificate(request.id).await?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response())
}

fn object(description: &str) -> Value {
    json!({ "description": description, "content": { "application/json": { "schema": { "type": "object" } } } })
}

pub(crate) fn discovery_detail() -> Value {
    json!({ "responses": { "200": object("Identities and request types that are served, and the key of certificates.") } })
}

pub(crate) fn list_detail() -> Value {
    let query = |name: &str, kind: Value| json!({ "name": name, "in": "query", "schema": kind });
    json!({
        "parameters": [
            query("state", json!({ "enum": ["pending", "in_progress", "completed", "cancelled"] })),
            query("overdue", json!({ "type": "boolean" })),
            query("limit", json!({ "type": "integer", "maximum": LIST_MAX })),
        ],
        "responses": { "200": { "description": "The requests; they name no subject.", "content": { "application/json": { "schema": { "type": "array", "items": { "type": "object" } } } } } },
    })
}

pub(crate) fn submit_detail() -> Value {
    json!({
        "description": "Once answered, ingest drops the subject's events and no query counts them. Identities are sent raw, in the body only, and are not kept.",
        "requestBody": { "required": true, "content": { "application/json": { "schema": {
            "type": "object",
            "required": ["regulation", "subject_request_id", "subject_request_type", "submitted_time", "subject_identities"],
            "properties": {
                "regulation": { "type": "string", "example": "gdpr" },
                "subject_request_id": { "type": "string", "format": "uuid" },
                "subject_request_type": { "enum": ["erasure"] },
                "submitted_time": { "type": "string", "format": "date-time" },
                "subject_identities": { "type": "array", "items": { "type": "object",
                    "required": ["identity_type", "identity_value", "identity_format"],
                    "properties": { "identity_type": { "type": "string" }, "identity_value": { "type": "string" }, "identity_format": { "enum": ["raw"] } } } },
            },
        } } } },
        "responses": { "201": object("The request is entered.") },
    })
}

pub(crate) fn id_detail() -> Value {
    json!({
        "parameters": [{ "name": "id", "in": "path", "required": true, "schema": { "type": "string" }, "description": "the request's id, ours or the controller's" }],
        "responses": { "200": object("As OpenDSR has it."), "202": object("Cancelled.") },
    })
}
