//! Errors of the API: kind, status and the name that clients match on, declared together.

use ameles_erasure::{ErasureError, SUBJECT_REQUEST_ID};
use ameles_ledger::LedgerError;
use ameles_queries::QueryError;
use ameles_reports::ReportError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What a request gets instead of its answer: `{"error": code, "message": …}`.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No token, or one that is unknown, expired or revoked.
    #[error("a valid token is needed; send it as `Authorization: Bearer …`")]
    Unauthorized,
    /// The token's role may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// Nothing there.
    #[error("{0}")]
    NotFound(String),
    /// The request is not understood.
    #[error("{0}")]
    BadRequest(String),
    /// A query that the guard refuses.
    #[error("{0}")]
    Refused(String),
    /// The state of things does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// A body over the limit.
    #[error("the body is larger than {limit} bytes; send it in smaller pieces")]
    TooLarge {
        /// The limit that it broke.
        limit: usize,
    },
    /// A body in a form that is not read here.
    #[error("{0}")]
    UnsupportedMedia(String),
    /// None of the forms that the client accepts is given here.
    #[error("{0}")]
    NotAcceptable(String),
    /// More than the server takes at once.
    #[error("{0}")]
    Busy(String),
    /// The request took longer than it may.
    #[error("the request took longer than {seconds} s and was stopped")]
    Timeout {
        /// The limit.
        seconds: u64,
    },
    /// This process does not offer it now.
    #[error("{0}")]
    Unavailable(String),
    /// A fault of ours. The cause goes to the log, not to the client.
    #[error("an internal error; the server's log says more")]
    Internal(#[source] Cause),
}

impl ApiError {
    /// Every kind's status, code and meaning, as the OpenAPI document lists them.
    pub const DOCUMENTED: [(u16, &'static str, &'static str); 13] = [
        (400, "bad_request", "The request is not understood."),
        (401, "unauthorized", "No valid token."),
        (403, "forbidden", "The token's role may not do this."),
        (404, "not_found", "Nothing there."),
        (406, "not_acceptable", "None of the accepted media types is given."),
        (409, "conflict", "The state does not allow it."),
        (413, "too_large", "The body is over the limit."),
        (415, "unsupported_media_type", "A body in a form that is not read here."),
        (422, "refused", "A query that the privacy guard refuses, with rule and place."),
        (429, "busy", "More than the server takes at once; see Retry-After."),
        (500, "internal", "A fault of the server."),
        (503, "unavailable", "Not offered now; try again later."),
        (504, "timeout", "The request took longer than it may."),
    ];

    /// Status and code of this kind.
    pub const fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            Self::NotAcceptable(_) => (StatusCode::NOT_ACCEPTABLE, "not_acceptable"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::UnsupportedMedia(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::Refused(_) => (StatusCode::UNPROCESSABLE_ENTITY, "refused"),
            Self::Busy(_) => (StatusCode::TOO_MANY_REQUESTS, "busy"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Self::Timeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
        }
    }

    /// A fault of ours.
    pub fn internal(cause: impl Into<Cause>) -> Self {
        Self::Internal(cause.into())
    }
}

/// All causes of an error on one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.kind();
        if let Self::Internal(cause) = &self {
            tracing::error!(cause = %chain(cause.as_ref()), "request failed");
        }
        let mut response = (status, Json(json!({ "error": code, "message": self.to_string() }))).into_response();
        let extra = match self {
            Self::Unauthorized => Some((header::WWW_AUTHENTICATE, "Bearer realm=\"ameles\"")),
            Self::Busy(_) | Self::Unavailable(_) => Some((header::RETRY_AFTER, "1")),
            _ => None,
        };
        if let Some((name, value)) = extra {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::UnknownMetric { .. } => Self::NotFound(error.to_string()),
            QueryError::Refused { .. } => Self::Refused(error.to_string()),
            QueryError::TimedOut { seconds } => Self::Timeout { seconds },
            error if error.is_callers_fault() => Self::BadRequest(error.to_string()),
            QueryError::Store(error) => Self::internal(error),
            // The log gets the error without the literals of the caller's statement.
            error => Self::internal(error.for_log()),
        }
    }
}

impl From<ReportError> for ApiError {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::UnknownReport(_) | ReportError::NoData { .. } => Self::NotFound(error.to_string()),
            ReportError::Query(error) => error.into(),
            ReportError::Superseded => Self::Busy(error.to_string()),
            error => Self::internal(error),
        }
    }
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::NoSuchRequest(_) => Self::NotFound(error.to_string()),
            LedgerError::WrongState { .. } | LedgerError::NotExtendable { .. } => Self::Conflict(error.to_string()),
            LedgerError::Invalid { .. } => Self::BadRequest(error.to_string()),
            error => Self::internal(error),
        }
    }
}

impl From<ErasureError> for ApiError {
    fn from(error: ErasureError) -> Self {
        match error {
            // The one argument that names a thing rather than describing it.
            ErasureError::Refused { what: "the request id", .. } => Self::NotFound(error.to_string()),
            ErasureError::Refused { what: SUBJECT_REQUEST_ID, .. } => Self::Conflict(error.to_string()),
            ErasureError::NoCertificate(_) => Self::NotFound(error.to_string()),
            ErasureError::Refused { .. } | ErasureError::Identify(_) => Self::BadRequest(error.to_string()),
            ErasureError::Ledger(error) => error.into(),
            error => Self::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_documented_with_its_status() {
        let text = String::new;
        let all = [
            ApiError::Unauthorized,
            ApiError::Forbidden(text()),
            ApiError::NotFound(text()),
            ApiError::BadRequest(text()),
            ApiError::Refused(text()),
            ApiError::NotAcceptable(text()),
            ApiError::Conflict(text()),
            ApiError::TooLarge { limit: 1 },
            ApiError::UnsupportedMedia(text()),
            ApiError::Busy(text()),
            ApiError::Timeout { seconds: 1 },
            ApiError::Unavailable(text()),
            ApiError::internal("x"),
        ];
        assert_eq!(all.len(), ApiError::DOCUMENTED.len());
        for error in all {
            let (status, code) = error.kind();
            assert!(ApiError::DOCUMENTED.iter().any(|(number, name, _)| *number == status.as_u16() && *name == code), "{code}");
        }
    }

    #[test]
    fn an_internal_error_does_not_tell_its_cause() {
        assert!(!ApiError::internal("secret detail").to_string().contains("secret"));
    }
}
