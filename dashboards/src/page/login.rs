//! Signing in with a token, and out.

use std::sync::Arc;

use ameles_ledger::Role;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::page;
use crate::auth::{by_session, is_same_origin, session_id};
use crate::{ApiError, ServerState, session};

#[derive(Deserialize)]
pub(crate) struct Credentials {
    token: String,
}

pub(crate) async fn login_form(State(state): State<Arc<ServerState>>, headers: HeaderMap) -> Result<Response, ApiError> {
    if by_session(&headers, &state).await?.is_some() {
        return Ok(Redirect::to("/").into_response());
    }
    Ok(form(None).into_response())
}

pub(crate) async fn login(
    State(state): State<Arc<ServerState>>,
    headers: HeaderMap,
    Form(credentials): Form<Credentials>,
) -> Result<Response, ApiError> {
    // A page elsewhere must not sign a visitor in under a token of its own.
    if !is_same_origin(&headers) {
        return Err(ApiError::Forbidden("the form came from another site".to_owned()));
    }
    let refused = |text: &str| (StatusCode::UNAUTHORIZED, form(Some(text))).into_response();
    let Some(principal) = state.ledger().verify_token(credentials.token.trim()).await? else {
        return Ok(refused("This token is unknown, expired or revoked."));
    };
    if principal.role() == Role::Ingest {
        return Ok(refused("This token is for sending events; the dashboard needs one of the role analyst, compliance or admin."));
    }
    let id = state.sessions.open(principal, state.clock().now(), state.parts.eraser.random.as_ref()).map_err(ApiError::internal)?;
    redirect_with_cookie("/", &state.sessions.cookie(&id, state.parts.secure))
}

pub(crate) async fn logout(State(state): State<Arc<ServerState>>, headers: HeaderMap) -> Result<Response, ApiError> {
    if !is_same_origin(&headers) {
        return Err(ApiError::Forbidden("the form came from another site".to_owned()));
    }
    if let Some(id) = session_id(&headers) {
        state.sessions.close(id);
    }
    redirect_with_cookie("/login", &session::expired_cookie())
}

fn redirect_with_cookie(to: &str, cookie: &str) -> Result<Response, ApiError> {
    let mut response = Redirect::to(to).into_response();
    response.headers_mut().insert(header::SET_COOKIE, HeaderValue::from_str(cookie).map_err(ApiError::internal)?);
    Ok(response)
}

fn form(error: Option<&str>) -> Markup {
    page(
        "Sign in",
        None,
        html! {
            section.card.login {
                h1 { "Sign in" }
                p.muted { "with a token of " code { "ameles token create" } " for the role analyst, compliance or admin." }
                @if let Some(error) = error { p.alert role="alert" { (error) } }
                form method="post" action="/login" {
                    label for="token" { "Token" }
                    input #token type="password" name="token" autocomplete="current-password" required autofocus;
                    button type="submit" { "Sign in" }
                }
            }
        },
    )
}
