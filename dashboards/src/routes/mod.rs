//! The routes, each with what it needs and what it says of itself, in one table that router, OpenAPI document and tests share.

mod audit;
mod consents;
mod events;
mod metrics;
mod openapi;
mod reports;
mod requests;
mod sql;
mod tools;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
pub(crate) use metrics::partner_filter;
pub(crate) use reports::stored;
use serde_json::Value;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;

use crate::auth::{self, Access, Grant};
use crate::{ApiError, ServerState, middleware, page};

/// One operation of the API.
pub(crate) struct Operation {
    pub method: &'static str,
    pub path: &'static str,
    /// Who may; `None` for all.
    pub grant: Option<Grant>,
    pub summary: &'static str,
    /// Parameters, body and answers as OpenAPI has them.
    pub detail: fn() -> Value,
    handler: fn() -> MethodRouter<Arc<ServerState>>,
}

/// Every operation of the API, in the order of the document.
pub(crate) const OPERATIONS: [Operation; 20] = [
    Operation {
        method: "post",
        path: "/v1/events",
        grant: Some(auth::Ingest::GRANT),
        summary: "Send events; answered once they are durable",
        detail: events::detail,
        handler: || post(events::submit),
    },
    Operation {
        method: "get",
        path: "/v1/metrics",
        grant: Some(auth::Numbers::GRANT),
        summary: "List the metrics",
        detail: metrics::list_detail,
        handler: || get(metrics::list),
    },
    Operation {
        method: "get",
        path: "/v1/metrics/{name}",
        grant: Some(auth::Numbers::GRANT),
        summary: "Ask for a metric",
        detail: metrics::detail,
        handler: || get(metrics::run),
    },
    Operation {
        method: "post",
        path: "/v1/sql",
        grant: Some(auth::Analyst::GRANT),
        summary: "Run a SELECT under the privacy guard",
        detail: sql::detail,
        handler: || post(sql::run),
    },
    Operation {
        method: "get",
        path: "/v1/discovery",
        grant: Some(auth::Compliance::GRANT),
        summary: "OpenDSR: what is served",
        detail: requests::discovery_detail,
        handler: || get(requests::discovery),
    },
    Operation {
        method: "get",
        path: "/v1/requests",
        grant: Some(auth::Compliance::GRANT),
        summary: "List erasure requests",
        detail: requests::list_detail,
        handler: || get(requests::list),
    },
    Operation {
        method: "post",
        path: "/v1/requests",
        grant: Some(auth::Compliance::GRANT),
        summary: "OpenDSR: ask for an erasure",
        detail: requests::submit_detail,
        handler: || post(requests::submit),
    },
    Operation {
        method: "get",
        path: "/v1/requests/{id}",
        grant: Some(auth::Compliance::GRANT),
        summary: "OpenDSR: how a request stands",
        detail: requests::id_detail,
        handler: || get(requests::status),
    },
    Operation {
        method: "delete",
        path: "/v1/requests/{id}",
        grant: Some(auth::Compliance::GRANT),
        summary: "OpenDSR: cancel a pending request",
        detail: requests::id_detail,
        handler: || delete(requests::cancel),
    },
    Operation {
        method: "get",
        path: "/v1/requests/{id}/certificate",
        grant: Some(auth::Compliance::GRANT),
        summary: "The signed certificate of a completed request",
        detail: requests::id_detail,
        handler: || get(requests::certificate),
    },
    Operation {
        method: "post",
        path: "/v1/consents",
        grant: Some(auth::Consents::GRANT),
        summary: "Grant or withdraw consents",
        detail: consents::detail,
        handler: || post(consents::record),
    },
    Operation {
        method: "get",
        path: "/v1/audit",
        grant: Some(auth::Compliance::GRANT),
        summary: "The audit log",
        detail: audit::detail,
        handler: || get(audit::list),
    },
    Operation {
        method: "get",
        path: "/v1/reports",
        grant: Some(auth::Reports::GRANT),
        summary: "List finished reports",
        detail: reports::list_detail,
        handler: || get(reports::list),
    },
    Operation {
        method: "get",
        path: "/v1/reports/{id}/{file}",
        grant: Some(auth::Reports::GRANT),
        summary: "A file of a report",
        detail: reports::file_detail,
        handler: || get(reports::file),
    },
    Operation {
        method: "post",
        path: "/v1/reports/{name}/runs",
        grant: Some(auth::Analyst::GRANT),
        summary: "Run a report",
        detail: reports::run_detail,
        handler: || post(reports::run),
    },
    Operation {
        method: "get",
        path: "/openapi.json",
        grant: None,
        summary: "This document",
        detail: tools::text_detail,
        handler: || get(openapi::document),
    },
    Operation {
        method: "get",
        path: "/docs",
        grant: None,
        summary: "The API for readers",
        detail: tools::text_detail,
        handler: || get(page::docs),
    },
    Operation {
        method: "get",
        path: "/healthz",
        grant: None,
        summary: "Whether the process is alive",
        detail: tools::text_detail,
        handler: || get(tools::health),
    },
    Operation {
        method: "get",
        path: "/readyz",
        grant: None,
        summary: "Whether ledger and warehouse answer",
        detail: tools::text_detail,
        handler: || get(tools::ready),
    },
    Operation {
        method: "get",
        path: "/metrics",
        grant: None,
        summary: "Counters for Prometheus",
        detail: tools::text_detail,
        handler: || get(tools::prometheus),
    },
];

/// Probes, which must be answered when all places are taken.
const UNBOUNDED: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Has places of its own: who sends events must not keep others out, nor the other way round.
const EVENTS: &str = "/v1/events";

/// The largest form.
const FORM_BYTES_MAX: usize = 16 << 10;

/// All routes, with what every request passes.
pub fn router(state: Arc<ServerState>) -> Router {
    let mut bounded = Router::new()
        .route("/", get(page::overview))
        .route("/login", get(page::login_form).post(page::login))
        .route("/logout", post(page::logout))
        .route("/assets/style.css", get(page::style));
    let mut events = Router::new();
    let mut unbounded = Router::new();
    for operation in &OPERATIONS {
        if UNBOUNDED.contains(&operation.path) {
            unbounded = unbounded.route(operation.path, (operation.handler)());
        } else if operation.path == EVENTS {
            events = events.route(operation.path, (operation.handler)());
        } else {
            bounded = bounded.route(operation.path, (operation.handler)());
        }
    }
    let bounded = bounded.layer(DefaultBodyLimit::max(FORM_BYTES_MAX)).layer(from_fn_with_state(Arc::clone(&state), middleware::bounded));
    let events = events.layer(from_fn_with_state(Arc::clone(&state), middleware::bounded_events));
    bounded
        .merge(events)
        .merge(unbounded)
        .fallback(|| async { ApiError::NotFound("there is nothing here; /openapi.json lists what there is".to_owned()) })
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(CompressionLayer::new())
        .layer(from_fn(middleware::secured))
        .layer(from_fn_with_state(Arc::clone(&state), middleware::counted))
        .with_state(state)
}

async fn method_not_allowed() -> Response {
    let body = axum::Json(
        serde_json::json!({ "error": "method_not_allowed", "message": "this route takes another method; /openapi.json lists them" }),
    );
    (StatusCode::METHOD_NOT_ALLOWED, body).into_response()
}

/// A panic's text may hold anything, so none of it is passed on or logged here.
fn panicked(_: Box<dyn std::any::Any + Send + 'static>) -> Response {
    ApiError::internal("a handler panicked").into_response()
}

/// Query parameters by name, in order; an unknown one is an error, so that a misspelt filter cannot widen an answer.
pub(crate) fn known_parameters(pairs: &[(String, String)], known: &[&str]) -> Result<(), ApiError> {
    match pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        Some((name, _)) if name.len() <= 40 => Err(ApiError::BadRequest(format!("no parameter {name:?}; there are {}", known.join(", ")))),
        Some(_) => Err(ApiError::BadRequest(format!("an unknown parameter; there are {}", known.join(", ")))),
        None => Ok(()),
    }
}

/// A parameter that may come once.
pub(crate) fn single<'a>(pairs: &'a [(String, String)], name: &str) -> Result<Option<&'a str>, ApiError> {
    let mut values = pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let first = values.next();
    if values.next().is_some() {
        return Err(ApiError::BadRequest(format!("{name} is given twice")));
    }
    Ok(first.filter(|value| !value.is_empty()))
}
