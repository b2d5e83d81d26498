//! `/openapi.json`, from the table of operations.

use axum::Json;
use serde_json::{Map, Value, json};

use super::OPERATIONS;
use crate::ApiError;

pub(crate) async fn document() -> Json<Value> {
    Json(build())
}

pub(super) fn build() -> Value {
    let mut paths = Map::new();
    for operation in &OPERATIONS {
        let mut detail = (operation.detail)();
        detail["summary"] = operation.summary.into();
        detail["operationId"] =
            format!("{}_{}", operation.method, operation.path.trim_matches('/').replace(['/', '{', '}', '.'], "_").replace("__", "_"))
                .into();
        if let Some(grant) = operation.grant {
            let roles: Vec<_> = grant.roles.iter().map(|role| role.as_str()).collect();
            detail["security"] = json!([{ "token": [] }]);
            detail["x-roles"] = json!(roles);
            detail["x-partner-limited"] = json!(grant.partner_limited);
            detail["responses"]["default"] = json!({ "$ref": "#/components/responses/Error" });
        }
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = detail;
    }
    let kinds: Vec<_> = ApiError::DOCUMENTED.iter().map(|(status, code, meaning)| format!("{status} `{code}`: {meaning}")).collect();
    let codes: Vec<_> = ApiError::DOCUMENTED.iter().map(|(_, code, _)| *code).collect();
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Ameles", "version": env!("CARGO_PKG_VERSION"), "summary": "Device telemetry that can forget",
            "description": "Identifiers travel in bodies only, never in a URL." },
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "description": "a token of `ameles token create`" } },
            "responses": { "Error": { "description": kinds.join("  \n"), "content": { "application/json": { "schema": {
                "type": "object", "required": ["error", "message"],
                "properties": { "error": { "enum": codes }, "message": { "type": "string" } } } } } } },
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn every_operation_is_described_and_ids_are_unique() {
        let document = build();
        let mut ids = std::collections::BTreeSet::new();
        for operation in &OPERATIONS {
            let detail = &document["paths"][operation.path][operation.method];
            assert!(detail["summary"].is_string() && detail["responses"].is_object(), "{}", operation.path);
            assert!(ids.insert(detail["operationId"].as_str().unwrap().to_owned()), "{}", operation.path);
            for part in operation.path.split('/').filter(|part| part.starts_with('{')) {
                let name = part.trim_matches(['{', '}']);
                let parameters = detail["parameters"].as_array().unwrap();
                assert!(
                    parameters.iter().any(|parameter| parameter["name"] == name && parameter["in"] == "path"),
                    "{part} of {}",
                    operation.path
                );
            }
        }
    }
}
