//! Who may do what: every route for every role.

use ameles_ledger::Role;
use axum::body::Body;
use axum::http::{StatusCode, header};

use super::home::{Home, ask};
use crate::routes::OPERATIONS;

const REFUSED: [StatusCode; 2] = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];

fn concrete(path: &str) -> String {
    path.replace("/reports/{name}", "/reports/none")
        .replace("{name}", "mau")
        .replace("{id}", "7d444840-9dc0-11d1-b245-5ffdce74fad2")
        .replace("{file}", "report.html")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_asks_for_its_role() {
    let home = Home::new().await;
    let mut tokens = Vec::new();
    for role in Role::ALL {
        tokens.push((role, false, home.token(role, None).await));
        tokens.push((role, true, home.token(role, Some("p1")).await));
    }
    for operation in &OPERATIONS {
        let path = concrete(operation.path);
        let method = operation.method.to_uppercase();
        let request = |token: Option<&str>| ask(&method, &path, token).body(Body::empty()).unwrap();
        let Some(grant) = operation.grant else {
            let answer = home.send(request(None)).await;
            assert!(!REFUSED.contains(&answer.status), "{method} {path} is open to all");
            continue;
        };
        for bad in [None, Some("nonsense"), Some("ameles_0000000000000000")] {
            let answer = home.send(request(bad)).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path} with {bad:?}");
            assert_eq!(answer.json()["error"], "unauthorized");
            assert!(answer.header("www-authenticate").starts_with("Bearer"));
        }
        for (role, limited, token) in &tokens {
            let answer = home.send(request(Some(token))).await;
            let may = grant.roles.contains(role) && (!limited || grant.partner_limited);
            if may {
                assert!(
                    !REFUSED.contains(&answer.status),
                    "{method} {path} as {role}, limited {limited}: {} {}",
                    answer.status,
                    answer.text()
                );
                assert_ne!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{method} {path} as {role}: {}", answer.text());
            } else {
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {path} as {role}, limited {limited}");
                assert_eq!(answer.json()["error"], "forbidden");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_or_expired_token_is_none() {
    let home = Home::new().await;
    let token = home.token(Role::Analyst, None).await;
    assert_eq!(home.get("/v1/metrics", &token).await.status, StatusCode::OK);
    let name = home.state.ledger().list_tokens().await.unwrap()[0].name.clone();
    home.clock.set("2031-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(home.get("/v1/metrics", &token).await.status, StatusCode::UNAUTHORIZED);
    home.clock.set("2018-08-05T00:00:00Z".parse().unwrap());
    home.state.ledger().revoke_token(&name, "test").await.unwrap();
    assert_eq!(home.get("/v1/metrics", &token).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_schemes_and_methods_are_told_what_is_right() {
    let home = Home::new().await;
    let basic = ask("GET", "/v1/metrics", None).header(header::AUTHORIZATION, "Basic YTpi").body(Body::empty()).unwrap();
    assert_eq!(home.send(basic).await.status, StatusCode::UNAUTHORIZED);
    let put = home.send(ask("PUT", "/v1/metrics", None).body(Body::empty()).unwrap()).await;
    assert_eq!((put.status, put.json()["error"].as_str()), (StatusCode::METHOD_NOT_ALLOWED, Some("method_not_allowed")));
    let nowhere = home.send(ask("GET", "/v1/nothing", None).body(Body::empty()).unwrap()).await;
    assert_eq!((nowhere.status, nowhere.json()["error"].as_str()), (StatusCode::NOT_FOUND, Some("not_found")));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_each_told_who_they_are() {
    let home = Home::new().await;
    let [good, other] = [home.token(Role::Analyst, None).await, home.token(Role::Ingest, None).await];
    let bad = format!("ameles_{}", "A".repeat(43));
    let statuses = async || {
        let asked = (0..240).map(|at| home.get("/v1/metrics", [&good, &other, &bad][at % 3]));
        futures::future::join_all(asked).await.iter().map(|answer| answer.status.as_u16()).collect::<Vec<_>>()
    };
    assert_eq!(statuses().await, [200, 403, 401].repeat(80));
    for token in home.state.ledger().list_tokens().await.unwrap() {
        home.state.ledger().revoke_token(&token.name, "test").await.unwrap();
    }
    assert_eq!(statuses().await, [401, 401, 401].repeat(80), "also who asked a moment ago");
}
