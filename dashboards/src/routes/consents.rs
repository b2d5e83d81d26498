//! `POST /v1/consents`: granting and withdrawing, one as easy as the other.

use std::collections::HashSet;
use std::sync::Arc;

use ameles_core::{Subject, SubjectKind, Timestamp};
use ameles_erasure::SubmitOptions;
use ameles_ledger::{ConsentEvent, ConsentSource};
use ameles_pseudonym::{RawIdentifier, identify};
use ameles_schemas::{OnWithdrawal, Table, column};
use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use futures::TryStreamExt;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::auth::{Caller, Consents};
use crate::{ApiError, ServerState, body};

/// The most consents in one request.
const CONSENTS_MAX: usize = 1_000;
/// The longest policy version or purpose.
const TEXT_MAX: usize = 64;
/// The most purposes of one consent.
const PURPOSES_MAX: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    consents: Vec<Consent>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Consent {
    kind: SubjectKind,
    #[serde(deserialize_with = "raw")]
    identifier: RawIdentifier,
    granted: bool,
    /// Now where not given.
    #[serde(default)]
    at: Option<Timestamp>,
    #[serde(default)]
    policy: Option<String>,
    #[serde(default)]
    purposes: Vec<String>,
    /// Which regime says what a withdrawal does; the strictest, GDPR, where not given.
    #[serde(default)]
    country: Option<String>,
}

fn raw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RawIdentifier, D::Error> {
    String::deserialize(deserializer).map(RawIdentifier::new)
}

/// What became of them.
#[derive(Serialize)]
pub(crate) struct Recorded {
    /// Consents recorded.
    recorded: u64,
    /// Erasure requests that withdrawals have made, where the regime says so.
    erasures: u64,
}

pub(crate) async fn record(
    State(state): State<Arc<ServerState>>,
    caller: Caller<Consents>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Recorded>, ApiError> {
    let bytes = body::read(&headers, body, state.limits().body_bytes_max).await?;
    // The parser's message may quote an identifier: only its place is passed on.
    let order: Order = serde_json::from_slice(&bytes).map_err(|error| {
        let place = format!("see line {}, column {}", error.line(), error.column());
        ApiError::BadRequest(format!(
            "write the body as {{\"consents\": [{{\"kind\": \"device\", \"identifier\": …, \"granted\": false}}]}}; {place}"
        ))
    })?;
    let now = state.clock().now();
    check(&order, now)?;

    let eraser = &state.parts.eraser;
    let mut events = Vec::with_capacity(order.consents.len());
    for consent in &order.consents {
        let subjects = identify(&eraser.keyring, &eraser.contract, consent.kind, &consent.identifier)
            .map_err(|refused| ApiError::BadRequest(refused.to_string()))?;
        events.extend(subjects.into_iter().map(|(_, subject)| ConsentEvent {
            subject,
            granted: consent.granted,
            at: consent.at.unwrap_or(now),
            policy: consent.policy.clone(),
            purposes: consent.purposes.clone(),
            source: ConsentSource::Api,
        }));
    }
    if let Some(partner) = caller.principal.partner() {
        let subjects: HashSet<Subject> = events.iter().map(|event| event.subject).collect();
        refuse_foreign(&state, &subjects, partner).await?;
    }
    state.ledger().record_consents(&events).await?;

    let recorded = order.consents.len() as u64;
    let withdrawn = order
        .consents
        .into_iter()
        .filter(|consent| !consent.granted && eraser.policy.regime(consent.country.as_deref()).on_withdrawal == OnWithdrawal::Erase);
    let suppressed = state.ledger().suppressions().await?;
    let mut identifiers = Vec::new();
    for consent in withdrawn {
        let subjects = identify(&eraser.keyring, &eraser.contract, consent.kind, &consent.identifier)
            .map_err(|refused| ApiError::BadRequest(refused.to_string()))?;
        // Once is enough, however often the withdrawal is sent.
        if !subjects.iter().any(|(_, subject)| suppressed.covers_subject(*subject, now)) {
            identifiers.push((consent.kind, consent.identifier));
        }
    }
    let mut erasures = 0;
    if !identifiers.is_empty() {
        let options = SubmitOptions { actor: caller.principal.name().to_owned(), ..SubmitOptions::default() };
        erasures = eraser.submit(identifiers, &options).await?.len() as u64;
    }
    Ok(Json(Recorded { recorded, erasures }))
}

fn check(order: &Order, now: Timestamp) -> Result<(), ApiError> {
    let bad = |place: usize, text: &str| Err(ApiError::BadRequest(format!("consent {}: {text}", place + 1)));
    if order.consents.is_empty() || order.consents.len() > CONSENTS_MAX {
        return Err(ApiError::BadRequest(format!("name 1 to {CONSENTS_MAX} consents")));
    }
    for (place, consent) in order.consents.iter().enumerate() {
        if consent.at.is_some_and(|at| at > now) {
            return bad(place, "at lies in the future");
        }
        let long = |text: &String| text.len() > TEXT_MAX;
        if consent.policy.as_ref().is_some_and(long) || consent.purposes.iter().any(long) || consent.purposes.len() > PURPOSES_MAX {
            return bad(place, "policy and purposes are short names");
        }
    }
    Ok(())
}

/// Refuses subjects that are another partner's: known with a partner, and never with this one.
async fn refuse_foreign(state: &ServerState, subjects: &HashSet<Subject>, partner: &str) -> Result<(), ApiError> {
    if !state.contract().tables().dimensions.iter().any(|name| name == "partner") {
        return Err(ApiError::Forbidden("the token is limited to a partner, and this home's contract has no partner".to_owned()));
    }
    let _turn = state.query_turn().await?;
    let view = state.view().await?;
    let users: HashSet<&[u8]> =
        subjects.iter().filter(|subject| subject.kind() == SubjectKind::User).map(|subject| subject.as_bytes().as_slice()).collect();
    // Whom a device row speaks for: the device itself, and users seen on it.
    let mut owners: std::collections::HashMap<Vec<u8>, Vec<Vec<u8>>> = subjects
        .iter()
        .filter(|subject| subject.kind() == SubjectKind::Device)
        .map(|subject| (subject.as_bytes().to_vec(), vec![subject.as_bytes().to_vec()]))
        .collect();
    if !users.is_empty() {
        for month in view.months(Table::Links) {
            let mut stream = view.month_stream(Table::Links, month, Some(&[column::USER, column::DEVICE])).map_err(ApiError::internal)?;
            while let Some(batch) = stream.try_next().await.map_err(ApiError::internal)? {
                let (user, device) = (batch.column(0).as_binary::<i32>(), batch.column(1).as_binary::<i32>());
                for row in (0..batch.num_rows()).filter(|row| users.contains(user.value(*row))) {
                    owners.entry(device.value(row).to_vec()).or_default().push(user.value(row).to_vec());
                }
            }
        }
    }
    let (mut own, mut foreign) = (HashSet::new(), HashSet::new());
    for month in view.months(Table::Activity) {
        let mut stream = view.month_stream(Table::Activity, month, Some(&[column::DEVICE, column::PARTNER])).map_err(ApiError::internal)?;
        while let Some(batch) = stream.try_next().await.map_err(ApiError::internal)? {
            let device = batch.column(0).as_binary::<i32>();
            let of = cast(batch.column(1), &DataType::Utf8).map_err(ApiError::internal)?;
            let of = of.as_string::<i32>();
            for row in 0..batch.num_rows() {
                let Some(speaks_for) = owners.get(device.value(row)) else { continue };
                let side = if of.is_valid(row) && of.value(row) == partner { &mut own } else { &mut foreign };
                side.extend(speaks_for.iter().cloned());
            }
        }
    }
    if foreign.difference(&own).next().is_some() {
        return Err(ApiError::Forbidden("a subject is not one of the token's partner; nothing was recorded".to_owned()));
    }
    Ok(())
}

pub(crate) fn detail() -> Value {
    json!({
        "description": "Identifiers are sent in the body only and are not kept.",
        "requestBody": { "required": true, "content": { "application/json": { "schema": {
            "type": "object", "required": ["consents"], "properties": { "consents": { "type": "array", "maxItems": CONSENTS_MAX, "items": {
                "type": "object", "required": ["kind", "identifier", "granted"],
                "properties": {
                    "kind": { "enum": ["device", "user"] }, "identifier": { "type": "string" }, "granted": { "type": "boolean" },
                    "at": { "type": "string", "format": "date-time" }, "policy": { "type": "string", "maxLength": TEXT_MAX },
                    "purposes": { "type": "array", "items": { "type": "string", "maxLength": TEXT_MAX } },
                    "country": { "type": "string", "description": "whose regime says what a withdrawal does" },
                } } } } } } } },
        "responses": { "200": { "description": "They hold from now on.", "content": { "application/json": { "schema": {
            "type": "object", "properties": { "recorded": { "type": "integer" }, "erasures": { "type": "integer" } } } } } } },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn order(text: &str) -> Result<Order, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn consents_are_checked_before_any_is_recorded() {
        let now: Timestamp = "2018-09-01T00:00:00Z".parse().unwrap();
        let good = order(r#"{"consents":[{"kind":"device","identifier":"1","granted":false}]}"#).unwrap();
        assert!(check(&good, now).is_ok());
        let future = order(r#"{"consents":[{"kind":"user","identifier":"1","granted":true,"at":"2018-09-02T00:00:00Z"}]}"#).unwrap();
        assert!(check(&future, now).is_err());
        assert!(check(&order(r#"{"consents":[]}"#).unwrap(), now).is_err());
        assert!(order(r#"{"consents":[{"kind":"house","identifier":"1","granted":true}]}"#).is_err());
    }
}
