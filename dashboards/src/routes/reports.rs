//! Reports: what is finished, their files, and runs.

use std::sync::Arc;

use ameles_core::Month;
use ameles_ledger::NewReportRun;
use ameles_reports::{Manifest, ReportSpec, StoredReport, folder_name, is_plain_name, run as run_report, stored_file, stored_reports};
use ameles_schemas::Table;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{known_parameters, single};
use crate::auth::{Analyst, Caller, Reports};
use crate::{ApiError, ServerState, body};

/// For a report's own page: its style stands in it, and nothing runs.
const REPORT_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox";

pub(crate) async fn list(State(state): State<Arc<ServerState>>, _caller: Caller<Reports>) -> Result<Json<Vec<StoredReport>>, ApiError> {
    Ok(Json(stored(&state).await?))
}

/// The finished reports.
pub(crate) async fn stored(state: &ServerState) -> Result<Vec<StoredReport>, ApiError> {
    let folder = state.parts.report_dir.clone();
    tokio::task::spawn_blocking(move || stored_reports(&folder)).await.map_err(ApiError::internal)
}

pub(crate) async fn file(
    State(state): State<Arc<ServerState>>,
    _caller: Caller<Reports>,
    Path((id, file)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let gone = || ApiError::NotFound("no such report or file; GET /v1/reports lists them".to_owned());
    if !is_plain_name(&id) || !is_plain_name(&file) {
        return Err(gone());
    }
    let folder = state.parts.report_dir.clone();
    let media = media_type(&file);
    let bytes =
        tokio::task::spawn_blocking(move || stored_file(&folder, &id, &file)).await.map_err(ApiError::internal)?.ok_or_else(gone)?;
    let mut response = ([(header::CONTENT_TYPE, HeaderValue::from_static(media))], bytes).into_response();
    if media.starts_with("text/html") {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(REPORT_POLICY));
    }
    Ok(response)
}

fn media_type(file: &str) -> &'static str {
    match file.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("csv") => "text/csv; charset=utf-8",
        Some("json") => "application/json",
        Some("xlsx") => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        _ => "application/octet-stream",
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Order {
    month: Option<Month>,
}

#[derive(serde::Serialize)]
struct Finished {
    id: String,
    #[serde(flatten)]
    manifest: Manifest,
}

pub(crate) async fn run(
    State(state): State<Arc<ServerState>>,
    caller: Caller<Analyst>,
    Path(name): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let bytes = body::read(&headers, body, 4_096).await?;
    let order = order(&pairs, &headers, &bytes)?;
    let Ok(_one) = state.report_run.try_acquire() else {
        return Err(ApiError::Busy("another report is being made; try again when it is done".to_owned()));
    };
    let view = state.view().await?;
    let latest = view.months(Table::Activity).into_iter().max();
    let month = order.month.or(latest).ok_or_else(|| ApiError::NotFound("the warehouse is empty".to_owned()))?;
    let id = folder_name(&name, month);
    if !is_plain_name(&id) {
        return Err(ApiError::NotFound("no such report; there is monthly-activity".to_owned()));
    }
    let contract = state.contract();
    let spec = ReportSpec {
        name: name.clone(),
        month,
        k: state.parts.k,
        contract: format!("{} v{}", contract.name(), contract.version()),
        policy: state.parts.policy_version.clone(),
        completeness: (state.parts.completeness)(),
    };
    let started = state.clock().now();
    let out = state.parts.report_dir.join(&id);
    let (spec, out, ledger) = (&spec, out.as_path(), state.ledger());
    let made = state.ask(&caller.principal, |view, _| async move { run_report(view, ledger, spec.clone(), out).await }).await;
    let known = !matches!(made, Err(ApiError::NotFound(_)));
    if known {
        let record = NewReportRun {
            name,
            period: month.to_string(),
            scheduled: None,
            started,
            finished: state.clock().now(),
            folder: made.is_ok().then(|| id.clone()),
            error: made.as_ref().err().map(ToString::to_string),
            detail: json!({}),
            actor: caller.principal.name().to_owned(),
        };
        state.ledger().record_report_run(record).await?;
    }
    let manifest = made?;
    if caller.browser {
        return Ok(Redirect::to(&format!("/v1/reports/{id}/report.html")).into_response());
    }
    let location = HeaderValue::from_str(&format!("/v1/reports/{id}/report.html")).map_err(ApiError::internal)?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(Finished { id, manifest })).into_response())
}

/// In the query, as JSON, or by the dashboard's form; nothing means the latest month.
fn order(pairs: &[(String, String)], headers: &HeaderMap, bytes: &[u8]) -> Result<Order, ApiError> {
    let bad = |_| ApiError::BadRequest("write the body as {\"month\": \"2018-09\"}".to_owned());
    let month_of = |text: &str| text.parse::<Month>().map_err(|error| ApiError::BadRequest(error.to_string()));
    known_parameters(pairs, &["month"])?;
    let asked = single(pairs, "month")?.map(month_of).transpose()?;
    let is_form = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|text| text.starts_with("application/x-www-form-urlencoded"));
    let order = if bytes.iter().all(u8::is_ascii_whitespace) {
        Order::default()
    } else if is_form {
        let text = std::str::from_utf8(bytes).unwrap_or("");
        Order { month: text.split('&').find_map(|pair| pair.strip_prefix("month=")).map(month_of).transpose()? }
    } else {
        serde_json::from_slice(bytes).map_err(bad)?
    };
    match (asked, order.month) {
        (Some(_), Some(_)) => Err(ApiError::BadRequest("the month is given twice, in the query and in the body".to_owned())),
        (asked, month) => Ok(Order { month: asked.or(month) }),
    }
}

pub(crate) fn list_detail() -> Value {
    json!({ "responses": { "200": { "description": "Each finished report with its manifest.", "content": { "application/json": { "schema": { "type": "array", "items": { "type": "object" } } } } } } })
}

pub(crate) fn file_detail() -> Value {
    let path = |name: &str| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
    json!({ "parameters": [path("id"), path("file")], "responses": { "200": { "description": "The file." } } })
}

pub(crate) fn run_detail() -> Value {
    json!({
        "parameters": [
            { "name": "name", "in": "path", "required": true, "schema": { "enum": ["monthly-activity"] } },
            { "name": "month", "in": "query", "schema": { "type": "string", "example": "2018-09" }, "description": "instead of a body" },
        ],
        "requestBody": { "content": { "application/json": { "schema": { "type": "object", "properties": { "month": { "type": "string", "example": "2018-09" } } } } } },
        "responses": { "201": { "description": "The report is made.", "content": { "application/json": { "schema": { "type": "object" } } } } },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn an_order_comes_in_the_query_as_json_as_a_form_or_not_at_all() {
        let mut headers = HeaderMap::new();
        let in_query = [("month".to_owned(), "2018-08".to_owned())];
        assert_eq!(order(&[], &headers, b"").unwrap().month, None);
        assert_eq!(order(&in_query, &headers, b"").unwrap().month.unwrap().to_string(), "2018-08");
        assert_eq!(order(&[], &headers, br#"{"month":"2018-09"}"#).unwrap().month.unwrap().to_string(), "2018-09");
        assert!(order(&in_query, &headers, br#"{"month":"2018-09"}"#).is_err());
        assert!(order(&[("moth".to_owned(), "2018-08".to_owned())], &headers, b"").is_err());
        assert!(order(&[], &headers, br#"{"month":"2018-9"}"#).is_err());
        assert!(order(&[], &headers, br#"{"moth":"2018-09"}"#).is_err());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        assert_eq!(order(&[], &headers, b"month=2018-09").unwrap().month.unwrap().to_string(), "2018-09");
    }
}
