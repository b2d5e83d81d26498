//! Who may call what: each handler takes a [`Caller`] of the access that its route needs, so that a route
//! without a check cannot know who is asking.

use std::marker::PhantomData;
use std::sync::Arc;

use ameles_ledger::{Principal, Role};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};

use crate::{ApiError, ServerState, session};

/// A kind of access, named in the handler's signature.
pub(crate) trait Access: Send + Sync + 'static {
    /// What the OpenAPI document and the tests call it.
    const GRANT: Grant;
}

/// Which roles have an access, and whether a token that is limited to a partner does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub roles: &'static [Role],
    pub partner_limited: bool,
}

macro_rules! accesses {
    ($($(#[$doc:meta])* $name:ident: [$($role:ident),*], partner $partner:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) enum $name {}
        impl Access for $name {
            const GRANT: Grant = Grant { roles: &[$(Role::$role),*], partner_limited: $partner };
        }
    )*};
}

accesses! {
    /// Sends events.
    Ingest: [Ingest, Admin], partner true;
    /// Reads metrics.
    Numbers: [Analyst, Compliance, Admin], partner true;
    /// Writes SQL and runs reports: what a limit to one partner cannot be put on.
    Analyst: [Analyst, Admin], partner false;
    /// Reads reports.
    Reports: [Analyst, Compliance, Admin], partner false;
    /// Erases, and reads the audit log.
    Compliance: [Compliance, Admin], partner false;
    /// Records consents.
    Consents: [Ingest, Compliance, Admin], partner true;
}

/// Who is calling, with the access `A`.
#[derive(Debug)]
pub(crate) struct Caller<A> {
    pub principal: Principal,
    /// Came with a cookie, so from a browser.
    pub browser: bool,
    access: PhantomData<A>,
}

impl<A: Access> FromRequestParts<Arc<ServerState>> for Caller<A> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ServerState>) -> Result<Self, ApiError> {
        let (principal, browser) = identify(&parts.method, &parts.headers, state).await?;
        permit(&principal, A::GRANT)?;
        Ok(Self { principal, browser, access: PhantomData })
    }
}

fn permit(principal: &Principal, grant: Grant) -> Result<(), ApiError> {
    if !grant.roles.contains(&principal.role()) {
        let roles: Vec<_> = grant.roles.iter().map(|role| role.as_str()).collect();
        return Err(ApiError::Forbidden(format!("this needs the role {}; the token has {}", roles.join(" or "), principal.role())));
    }
    if principal.partner().is_some() && !grant.partner_limited {
        return Err(ApiError::Forbidden("this is not open to a token that is limited to a partner".to_owned()));
    }
    Ok(())
}

/// The bearer of a token, or of a session's cookie.
async fn identify(method: &Method, headers: &HeaderMap, state: &ServerState) -> Result<(Principal, bool), ApiError> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let text = value.to_str().map_err(|_| ApiError::Unauthorized)?;
        let (scheme, token) = text.split_once(' ').ok_or(ApiError::Unauthorized)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(ApiError::Unauthorized);
        }
        let principal =
            state.tokens.verify(state.ledger(), token.trim()).await.map_err(ApiError::internal)?.ok_or(ApiError::Unauthorized)?;
        return Ok((principal, false));
    }
    let principal = by_session(headers, state).await?.ok_or(ApiError::Unauthorized)?;
    if !method.is_safe() && !is_same_origin(headers) {
        return Err(ApiError::Forbidden("the request came from another site".to_owned()));
    }
    Ok((principal, true))
}

/// Whom the request's cookie belongs to, as long as the token behind it holds.
pub(crate) async fn by_session(headers: &HeaderMap, state: &ServerState) -> Result<Option<Principal>, ApiError> {
    let Some(id) = session_id(headers) else { return Ok(None) };
    let now = state.clock().now();
    let Some(principal) = state.sessions.find(id, now) else { return Ok(None) };
    let tokens = state.ledger().list_tokens().await?;
    let holds = tokens.iter().any(|token| token.name == principal.name() && token.revoked.is_none() && token.expires > now);
    if !holds {
        state.sessions.close(id);
    }
    Ok(holds.then_some(principal))
}

/// The session id that the request's cookies carry.
pub(crate) fn session_id(headers: &HeaderMap) -> Option<&str> {
    headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok()).find_map(session::id_in)
}

/// Whether a browser sent the request from a page of this server.
pub(crate) fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("origin"), text("host")) {
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host)),
        // Browsers that leave Origin out of a same-origin form still say where it came from.
        (None, _) => text("sec-fetch-site") == Some("same-origin"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (axum::http::HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_pages_of_this_server_may_post() {
        assert!(is_same_origin(&headers(&[("origin", "http://127.0.0.1:7070"), ("host", "127.0.0.1:7070")])));
        assert!(is_same_origin(&headers(&[("sec-fetch-site", "same-origin"), ("host", "a")])));
        for pairs in [
            &[("origin", "https://evil.example"), ("host", "127.0.0.1:7070")][..],
            &[("origin", "null"), ("host", "127.0.0.1:7070")],
            &[("origin", "http://127.0.0.1:7071"), ("host", "127.0.0.1:7070")],
            &[("host", "127.0.0.1:7070")],
            &[("sec-fetch-site", "cross-site")],
        ] {
            assert!(!is_same_origin(&headers(pairs)), "{pairs:?}");
        }
    }
}
