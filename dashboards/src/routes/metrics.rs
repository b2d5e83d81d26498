//! `GET /v1/metrics` and `GET /v1/metrics/{name}`.

use std::sync::Arc;

use ameles_core::{Day, Grain};
use ameles_ledger::Principal;
use ameles_queries::{Filter, Format, HELD_BACK, MetricInfo, MetricRequest, Unit, format_batches, list_metrics};
use arrow::record_batch::RecordBatch;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{known_parameters, single};
use crate::auth::{Caller, Numbers};
use crate::{ApiError, ServerState};

/// Options are named as the list of metrics names them; `active_in` as the other parameters.
const PARAMETERS: [&str; 11] = ["from", "to", "by", "filter", "grain", "unit", "format", "active_in", "active-in", "cumulative", "k"];

pub(crate) async fn list(State(state): State<Arc<ServerState>>, _caller: Caller<Numbers>) -> Json<Vec<MetricInfo>> {
    Json(list_metrics(&state.contract().tables()))
}

pub(crate) async fn run(
    State(state): State<Arc<ServerState>>,
    caller: Caller<Numbers>,
    Path(name): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    known_parameters(&pairs, &PARAMETERS)?;
    let mut request = request(name, &pairs)?;
    request.filters.extend(partner_filter(&state, &caller.principal)?);
    let guard = state.guard(&caller.principal, number(&pairs, "k")?)?;
    let format = match single(&pairs, "format")? {
        Some(text) => text.parse()?,
        None => accepted_format(&headers)?,
    };
    let request = &request;
    let batch = state.ask(&caller.principal, |_, metrics| async move { metrics.run_metric(request, guard).await }).await?;
    let held_back = batch.schema_ref().metadata().get(HELD_BACK).and_then(|months| HeaderValue::from_str(months).ok());
    let mut response = answer(vec![batch], format).await?;
    if let Some(months) = held_back {
        response.headers_mut().insert("ameles-held-back", months);
    }
    Ok(response)
}

fn request(name: String, pairs: &[(String, String)]) -> Result<MetricRequest, ApiError> {
    let day = |name| single(pairs, name)?.map(str::parse::<Day>).transpose().map_err(|error| ApiError::BadRequest(error.to_string()));
    Ok(MetricRequest {
        name,
        from: day("from")?,
        to: day("to")?,
        by: list_of(pairs, "by"),
        filters: pairs.iter().filter(|(key, _)| key == "filter").map(|(_, text)| text.parse::<Filter>()).collect::<Result<_, _>>()?,
        grain: single(pairs, "grain")?.map(str::parse::<Grain>).transpose().map_err(|error| ApiError::BadRequest(error.to_string()))?,
        unit: single(pairs, "unit")?.map(str::parse::<Unit>).transpose()?.unwrap_or_default(),
        active_in: number(pairs, "active_in")?.or(number(pairs, "active-in")?),
        cumulative: match single(pairs, "cumulative")? {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(ApiError::BadRequest("cumulative is true or false".to_owned())),
        },
    })
}

/// `by=a,b` and `by=a&by=b` alike.
fn list_of(pairs: &[(String, String)], name: &str) -> Vec<String> {
    let values = pairs.iter().filter(|(key, _)| key == name).flat_map(|(_, value)| value.split(','));
    values.map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned).collect()
}

fn number(pairs: &[(String, String)], name: &str) -> Result<Option<u32>, ApiError> {
    single(pairs, name)?.map(str::parse).transpose().map_err(|_| ApiError::BadRequest(format!("{name} is a whole number")))
}

/// What a token limited to a partner sees.
pub(crate) fn partner_filter(state: &ServerState, principal: &Principal) -> Result<Option<Filter>, ApiError> {
    let Some(partner) = principal.partner() else { return Ok(None) };
    if !state.contract().tables().dimensions.iter().any(|name| name == "partner") {
        return Err(ApiError::Forbidden("the token is limited to a partner, and this home's contract has no partner".to_owned()));
    }
    Ok(Some(Filter { dim: "partner".to_owned(), negate: false, values: vec![partner.to_owned()] }))
}

/// The format that a client prefers, JSON where it does not care.
pub(crate) fn accepted_format(headers: &HeaderMap) -> Result<Format, ApiError> {
    let Some(accept) = headers.get(header::ACCEPT) else { return Ok(Format::Json) };
    let mut accepted: Vec<(f32, Format)> = Vec::new();
    for part in accept.to_str().unwrap_or("*/*").split(',') {
        let mut parameters = part.split(';');
        let format = match parameters.next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
            "" | "*/*" | "application/*" | "application/json" => Format::Json,
            "text/csv" => Format::Csv,
            "text/plain" | "text/*" => Format::Table,
            "application/vnd.apache.arrow.stream" => Format::Arrow,
            "application/vnd.apache.parquet" => Format::Parquet,
            _ => continue,
        };
        let quality = parameters.find_map(|parameter| parameter.trim().strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(1.0));
        accepted.push((quality, format));
    }
    // Of equals the first.
    let best = accepted.into_iter().filter(|(quality, _)| *quality > 0.0).reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.map(|(_, format)| format).ok_or_else(|| {
        ApiError::NotAcceptable(
            "none of the accepted types is given; ask for application/json, text/csv, text/plain, application/vnd.apache.arrow.stream or application/vnd.apache.parquet".to_owned(),
        )
    })
}

/// Rows in a format, with its media type.
pub(crate) async fn answer(batches: Vec<RecordBatch>, format: Format) -> Result<Response, ApiError> {
    let bytes = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        format_batches(&batches, format, &mut bytes).map(|()| bytes)
    })
    .await
    .map_err(ApiError::internal)??;
    let media = match format {
        Format::Table => "text/plain; charset=utf-8",
        Format::Csv => "text/csv; charset=utf-8",
        Format::Json => "application/json",
        Format::Parquet => "application/vnd.apache.parquet",
        Format::Arrow => "application/vnd.apache.arrow.stream",
    };
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(media))], bytes).into_response())
}

/// The media types of [`answer`], for the document.
pub(crate) fn answers() -> Value {
    let binary = json!({ "schema": { "type": "string", "format": "binary" } });
    json!({ "200": { "description": "The rows.", "content": {
        "application/json": { "schema": { "type": "array", "items": { "type": "object" } } },
        "text/csv": { "schema": { "type": "string" } },
        "text/plain": { "schema": { "type": "string" } },
        "application/vnd.apache.arrow.stream": binary,
        "application/vnd.apache.parquet": binary,
    } } })
}

pub(crate) fn list_detail() -> Value {
    json!({ "responses": { "200": { "description": "The metrics that the contract gives.", "content": { "application/json": { "schema": {
        "type": "array", "items": { "type": "object" } } } } } } })
}

pub(crate) fn detail() -> Value {
    let query = |name: &str, kind: Value, text: &str| json!({ "name": name, "in": "query", "schema": kind, "description": text });
    json!({
        "description": "A header `ameles-held-back` names closed months that are not told yet: fewer than k of their devices have gone since answers about them were issued.",
        "parameters": [
            { "name": "name", "in": "path", "required": true, "schema": { "type": "string" } },
            query("from", json!({ "type": "string", "format": "date" }), "first date of the answer"),
            query("to", json!({ "type": "string", "format": "date" }), "last date of the answer"),
            query("by", json!({ "type": "string" }), "dimensions, separated by commas"),
            query("filter", json!({ "type": "array", "items": { "type": "string" } }), "DIM=a,b or DIM!=a,b; may repeat"),
            query("grain", json!({ "enum": ["day", "week", "month"] }), "for what adds up"),
            query("unit", json!({ "enum": ["device", "user"] }), "what is counted"),
            query("active_in", json!({ "type": "integer" }), "installed_base: seen in so many days"),
            query("cumulative", json!({ "type": "boolean" }), "measures: the running total"),
            query("k", json!({ "type": "integer" }), "a larger smallest group; a smaller one for compliance only"),
            query("format", json!({ "enum": ["json", "csv", "table", "parquet", "arrow"] }), "instead of Accept"),
        ],
        "responses": answers(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn parameters_become_a_request() {
        let asked = request(
            "mau".to_owned(),
            &pairs(&[
                ("from", "2018-07-01"),
                ("by", "country,product"),
                ("filter", "product!=phone"),
                ("filter", "country=DE,FR"),
                ("unit", "user"),
            ]),
        )
        .unwrap();
        assert_eq!(asked.by, ["country", "product"]);
        assert_eq!((asked.filters.len(), asked.filters[0].negate, asked.unit), (2, true, Unit::User));
        assert_eq!(asked.from.unwrap().to_string(), "2018-07-01");
    }

    #[test]
    fn bad_parameters_are_the_callers_fault() {
        for bad in [
            ("from", "2018-7-1"),
            ("grain", "year"),
            ("active_in", "-1"),
            ("cumulative", "maybe"),
            ("unit", "person"),
            ("filter", "country"),
        ] {
            assert!(matches!(request("mau".to_owned(), &pairs(&[bad])), Err(ApiError::BadRequest(_))), "{bad:?}");
        }
        assert!(known_parameters(&pairs(&[("form", "2018-07-01")]), &PARAMETERS).is_err());
        assert!(request("mau".to_owned(), &pairs(&[("to", "2018-07-01"), ("to", "2018-07-02")])).is_err());
    }

    #[test]
    fn accept_chooses_the_format() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(value));
            accepted_format(&headers)
        };
        assert_eq!(with("text/csv").unwrap(), Format::Csv);
        assert_eq!(with("application/vnd.apache.arrow.stream;q=1, */*").unwrap(), Format::Arrow);
        assert_eq!(with("text/html, */*;q=0.8").unwrap(), Format::Json);
        assert_eq!(with("text/csv;q=0.5, application/json;q=0.9").unwrap(), Format::Json);
        assert_eq!(with("application/json; q=0, text/csv;q=0.1").unwrap(), Format::Csv);
        assert!(matches!(with("image/png"), Err(ApiError::NotAcceptable(_))));
        assert!(matches!(with("text/csv;q=0"), Err(ApiError::NotAcceptable(_))));
        assert_eq!(accepted_format(&HeaderMap::new()).unwrap(), Format::Json);
    }
}
