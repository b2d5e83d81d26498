//! `GET /v1/audit`.

use std::sync::Arc;

use ameles_ledger::{AuditFilter, AuditRow};
use axum::Json;
use axum::extract::{Query, State};
use serde_json::{Value, json};

use super::{known_parameters, single};
use crate::auth::{Caller, Compliance};
use crate::{ApiError, ServerState};

/// The most rows that one answer lists; the next page begins `after` its last.
const LIST_MAX: u32 = 1_000;

pub(crate) async fn list(
    State(state): State<Arc<ServerState>>,
    _caller: Caller<Compliance>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<Vec<AuditRow>>, ApiError> {
    known_parameters(&pairs, &["after", "limit"])?;
    let number = |name: &str| {
        single(&pairs, name)?.map(str::parse::<u64>).transpose().map_err(|_| ApiError::BadRequest(format!("{name} is a whole number")))
    };
    let limit = u32::try_from(number("limit")?.unwrap_or(100)).unwrap_or(LIST_MAX).min(LIST_MAX);
    let filter = AuditFilter { after: number("after")?.unwrap_or(0), limit: Some(limit), ..AuditFilter::default() };
    Ok(Json(state.ledger().audit_list(&filter).await?))
}

pub(crate) fn detail() -> Value {
    json!({
        "parameters": [
            { "name": "after", "in": "query", "schema": { "type": "integer" }, "description": "rows after this sequence number" },
            { "name": "limit", "in": "query", "schema": { "type": "integer", "maximum": LIST_MAX } },
        ],
        "responses": { "200": { "description": "The rows, oldest first; each names the hash of the one before.", "content": { "application/json": { "schema": { "type": "array", "items": { "type": "object" } } } } } },
    })
}
