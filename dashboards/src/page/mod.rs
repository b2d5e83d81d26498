//! Pages for people: the dashboard, its login, the API for readers. No script, nothing from elsewhere.

mod docs;
mod layout;
mod login;
mod overview;

pub(crate) use docs::docs;
pub(crate) use login::{login, login_form, logout};
pub(crate) use overview::overview;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

/// The stylesheet: what reports have, and the pages' own.
pub(crate) async fn style() -> Response {
    let text = [ameles_reports::chart::STYLE, include_str!("page.css")].concat();
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8")),
        // The address carries the version, so it may be kept.
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=86400")),
    ];
    (headers, text).into_response()
}
