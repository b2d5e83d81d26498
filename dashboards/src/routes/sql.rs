//! `POST /v1/sql`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::metrics::{accepted_format, answer, answers};
use crate::auth::{Analyst, Caller};
use crate::{ApiError, ServerState, body};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    sql: String,
}

pub(crate) async fn run(
    State(state): State<Arc<ServerState>>,
    caller: Caller<Analyst>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let format = accepted_format(&headers)?;
    let (bytes, ()) = body::read_decoded(&headers, body, state.limits().sql_bytes_max, ()).await?;
    let sql = statement(&headers, &bytes)?;
    let guard = state.guard(&caller.principal, None)?;
    let sql = sql.as_str();
    let batches = state.ask(&caller.principal, |_, metrics| async move { metrics.run_sql(sql, guard).await }).await?;
    answer(batches, format).await
}

fn statement(headers: &HeaderMap, bytes: &[u8]) -> Result<String, ApiError> {
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|text| text.trim_start().starts_with("application/json"));
    let text = std::str::from_utf8(bytes).map_err(|_| ApiError::BadRequest("the statement is not UTF-8".to_owned()))?;
    let sql = if is_json {
        // The parser's message may quote a literal: only its place is passed on.
        let statement: Statement = serde_json::from_str(text).map_err(|error| {
            ApiError::BadRequest(format!(
                "write the body as {{\"sql\": \"SELECT …\"}}; see line {}, column {}",
                error.line(),
                error.column()
            ))
        })?;
        statement.sql
    } else {
        text.to_owned()
    };
    if sql.trim().is_empty() { Err(ApiError::BadRequest("the statement is empty".to_owned())) } else { Ok(sql) }
}

pub(crate) fn detail() -> Value {
    json!({
        "description": "DataFusion SQL over events, activity, devices and the metrics; a refused query is told the rule and the place.",
        "requestBody": { "required": true, "content": {
            "text/plain": { "schema": { "type": "string" }, "example": "SELECT country, count(DISTINCT device) FROM activity GROUP BY country" },
            "application/json": { "schema": { "type": "object", "required": ["sql"], "properties": { "sql": { "type": "string" } } } },
        } },
        "responses": answers(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_statement_comes_as_text_or_as_json() {
        let mut headers = HeaderMap::new();
        assert_eq!(statement(&headers, b"SELECT 1").unwrap(), "SELECT 1");
        assert!(statement(&headers, b" \n").is_err());
        assert!(statement(&headers, &[0xff]).is_err());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        assert_eq!(statement(&headers, br#"{"sql":"SELECT 2"}"#).unwrap(), "SELECT 2");
        let error = statement(&headers, br#"{"sql":"x","device":"secret-1"}"#).unwrap_err();
        assert!(!error.to_string().contains("secret-1"));
    }
}
