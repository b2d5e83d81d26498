//! What every request passes: a bound on their number and time, counting, security headers.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use crate::{ApiError, ServerState};

/// For pages of ours: styles from this server only, no script at all.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Lets a bounded number of requests in, each for a bounded time.
pub(crate) async fn bounded(State(state): State<Arc<ServerState>>, request: Request, next: Next) -> Response {
    within(&state, &state.requests, request, next).await
}

/// The same for requests that bring events.
pub(crate) async fn bounded_events(State(state): State<Arc<ServerState>>, request: Request, next: Next) -> Response {
    within(&state, &state.events, request, next).await
}

async fn within(state: &ServerState, places: &Semaphore, request: Request, next: Next) -> Response {
    let Ok(_place) = places.try_acquire() else {
        return ApiError::Busy("too many requests are at work; try again in a moment".to_owned()).into_response();
    };
    let seconds = state.limits().request_s_max;
    match tokio::time::timeout(Duration::from_secs(seconds), next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::Timeout { seconds }.into_response(),
    }
}

/// Counts requests by route template, never by the path as asked for.
pub(crate) async fn counted(State(state): State<Arc<ServerState>>, request: Request, next: Next) -> Response {
    let method = request.method().as_str().to_owned();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let start = state.clock().now();
    let response = next.run(request).await;
    let micros = u64::try_from(state.clock().now().micros() - start.micros()).unwrap_or(0);
    state.telemetry.observe(&method, &route, response.status().as_u16(), micros);
    response
}

/// Adds what keeps browsers from doing harm; a handler's own policy stays.
pub(crate) async fn secured(request: Request, next: Next) -> Response<Body> {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let always = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ];
    for (name, value) in always {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in [(header::CONTENT_SECURITY_POLICY, PAGE_POLICY), (header::CACHE_CONTROL, "no-store")] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
