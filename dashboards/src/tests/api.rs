//! What the API answers, good input and bad.

use ameles_ledger::Role;
use axum::body::Body;
use axum::http::{StatusCode, header};

use super::home::{Home, ask};
use crate::ServerLimits;

#[tokio::test(flavor = "multi_thread")]
async fn events_go_in_and_metrics_come_out() {
    let home = Home::new().await;
    home.fill(240).await;
    let token = home.token(Role::Analyst, None).await;
    let names = home.get("/v1/metrics", &token).await.json();
    assert!(names.as_array().unwrap().iter().any(|metric| metric["name"] == "mau"));
    let answer = home.get("/v1/metrics/mau?from=2018-07-01&to=2018-09-01", &token).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let rows = answer.json();
    assert_eq!(rows.as_array().unwrap().len(), 3, "{rows}");
    assert_eq!(rows[0]["value"], 192, "eight of ten begin in July");
    let csv = home.get("/v1/metrics/mau?from=2018-07-01&to=2018-07-01&by=country&format=csv", &token).await;
    assert!(csv.header("content-type").starts_with("text/csv"));
    assert!(csv.text().starts_with("date,country,value,complete\n"), "{}", csv.text());
    assert!(csv.text().contains("DE"));
    let filtered =
        home.get("/v1/metrics/mau?from=2018-07-01&to=2018-07-01&filter=product!%3Dphone,laptop&filter=country%3DDE", &token).await;
    assert_eq!(filtered.status, StatusCode::OK, "{}", filtered.text());
    assert!(filtered.json()[0]["value"].as_i64().unwrap() < 192);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partners_token_sees_that_partner_only() {
    let home = Home::new().await;
    home.fill(240).await;
    let value = async |token: &str, query: &str| {
        home.get(&format!("/v1/metrics/mau?from=2018-07-01&to=2018-07-01{query}"), token).await.json()[0]["value"].as_i64()
    };
    let (all, one) = (home.token(Role::Analyst, None).await, home.token(Role::Analyst, Some("p1")).await);
    let own = value(&one, "").await;
    assert_eq!(own, value(&all, "&filter=partner%3Dp1").await);
    assert_eq!(value(&one, "&filter=partner%3Dp0").await, None, "two filters must both hold");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_questions_get_a_4xx_that_says_what_is_right() {
    let home = Home::new().await;
    home.fill(60).await;
    let token = home.token(Role::Analyst, None).await;
    for (path, status) in [
        ("/v1/metrics/nonsense", StatusCode::NOT_FOUND),
        ("/v1/metrics/mau?by=planet", StatusCode::BAD_REQUEST),
        ("/v1/metrics/mau?from=yesterday", StatusCode::BAD_REQUEST),
        ("/v1/metrics/mau?form=2018-07-01", StatusCode::BAD_REQUEST),
        ("/v1/metrics/mau?filter=country", StatusCode::BAD_REQUEST),
        ("/v1/metrics/mau?format=xml", StatusCode::BAD_REQUEST),
        ("/v1/metrics/mau?k=1", StatusCode::FORBIDDEN),
        ("/v1/metrics/mau?k=50", StatusCode::OK),
    ] {
        let answer = home.get(path, &token).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    let compliance = home.token(Role::Compliance, None).await;
    assert_eq!(home.get("/v1/metrics/mau?k=1", &compliance).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_passes_the_guard_and_comes_in_three_formats() {
    let home = Home::new().await;
    home.fill(120).await;
    let token = home.token(Role::Analyst, None).await;
    let sql = "SELECT country, count(DISTINCT device) AS devices FROM activity GROUP BY country";
    let answer = home.post("/v1/sql", &token, "text/plain", sql).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert!(!answer.json().as_array().unwrap().is_empty());
    let as_json = home.post("/v1/sql", &token, "application/json", serde_json::json!({ "sql": sql }).to_string()).await;
    assert_eq!(as_json.json().as_array().unwrap().len(), answer.json().as_array().unwrap().len());
    for (accept, begins) in [("text/csv", &b"country,"[..]), ("application/vnd.apache.arrow.stream", &[0xff, 0xff, 0xff, 0xff])] {
        let request = ask("POST", "/v1/sql", Some(&token)).header(header::ACCEPT, accept).body(Body::from(sql)).unwrap();
        let answer = home.send(request).await;
        assert_eq!(answer.header("content-type").split(';').next(), Some(accept));
        assert!(answer.bytes.starts_with(begins), "{accept}");
    }
    let refused = home.post("/v1/sql", &token, "text/plain", "SELECT device FROM activity").await;
    assert_eq!(
        (refused.status, refused.json()["error"].as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, Some("refused")),
        "{}",
        refused.text()
    );
    let broken = home.post("/v1/sql", &token, "text/plain", "SELEKT 1").await;
    assert_eq!(broken.status, StatusCode::BAD_REQUEST, "{}", broken.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_over_the_limit_are_413_and_the_server_stays_up() {
    let home = Home::with(ServerLimits { events_bytes_max: 10_000, sql_bytes_max: 100, ..ServerLimits::default() }).await;
    let (ingest, analyst) = (home.token(Role::Ingest, None).await, home.token(Role::Analyst, None).await);
    let long = home.post("/v1/events", &ingest, "application/x-ndjson", vec![b' '; 10_001]).await;
    assert_eq!((long.status, long.json()["error"].as_str()), (StatusCode::PAYLOAD_TOO_LARGE, Some("too_large")));
    let bomb = zstd::encode_all(&vec![b'\n'; 1 << 20][..], 3).unwrap();
    let request = ask("POST", "/v1/events", Some(&ingest)).header(header::CONTENT_ENCODING, "zstd").body(Body::from(bomb)).unwrap();
    assert_eq!(home.send(request).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let sql = home.post("/v1/sql", &analyst, "text/plain", " ".repeat(101)).await;
    assert_eq!(sql.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(home.send(ask("GET", "/readyz", None).body(Body::empty()).unwrap()).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_capacity_is_429_with_retry_after_and_probes_answer() {
    let home = Home::with(ServerLimits { requests_max: 1, queries_max: 1, query_wait_ms: 10, ..ServerLimits::default() }).await;
    let token = home.token(Role::Analyst, None).await;
    let place = home.state.requests.acquire().await.unwrap();
    let busy = home.get("/v1/metrics", &token).await;
    assert_eq!((busy.status, busy.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "1"));
    assert_eq!(home.send(ask("GET", "/healthz", None).body(Body::empty()).unwrap()).await.status, StatusCode::OK);
    drop(place);
    let turn = home.state.query_turn().await.unwrap();
    let busy = home.get("/v1/metrics/mau", &token).await;
    assert_eq!(busy.status, StatusCode::TOO_MANY_REQUESTS, "{}", busy.text());
    drop(turn);
    assert_eq!(home.get("/v1/metrics/mau", &token).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_lines_are_counted_and_named_by_line() {
    let home = Home::new().await;
    let token = home.token(Role::Ingest, None).await;
    let answer = home.post("/v1/events", &token, "application/x-ndjson", "not json\n\n{\"type\":\"wake\"}\n").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let reply = answer.json();
    assert_eq!((reply["received"].as_u64(), reply["accepted"].as_u64()), (Some(2), Some(0)), "{reply}");
    assert_eq!(reply["errors"][0]["line"], 1);
    let metrics = home.send(ask("GET", "/metrics", None).body(Body::empty()).unwrap()).await.text();
    for line in ["ameles_events_received_total 2", "ameles_events_rejected_total{reason=\"malformed_json\"} 1", "ameles_erasure_overdue 0"]
    {
        assert!(metrics.lines().any(|have| have == line), "{line}\n{metrics}");
    }
    assert!(metrics.contains("route=\"/v1/events\",method=\"POST\",status=\"200\""), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_takes_effect_at_once_and_its_identifier_is_nowhere() {
    let home = Home::new().await;
    home.fill(120).await;
    let (analyst, compliance) = (home.token(Role::Analyst, None).await, home.token(Role::Compliance, None).await);
    let discovery = home.get("/v1/discovery", &compliance).await.json();
    assert_eq!(discovery["api_version"], "2.0");
    let mau =
        async |token: &str| home.get("/v1/metrics/mau?from=2018-07-01&to=2018-07-01&k=5", token).await.json()[0]["value"].as_i64().unwrap();
    let before = mau(&analyst).await;
    let request = serde_json::json!({
        "regulation": "gdpr", "subject_request_id": "7d444840-9dc0-11d1-b245-5ffdce74fad2", "subject_request_type": "erasure",
        "submitted_time": "2018-09-20T00:00:00Z",
        "subject_identities": [{ "identity_type": "device_id", "identity_value": " 800000000012 ", "identity_format": "raw" }],
    });
    let answer = home.post("/v1/requests", &compliance, "application/json", request.to_string()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    assert!(!answer.text().contains("800000000012"));
    let id = answer.json()["request_id"].as_str().unwrap().to_owned();
    assert_eq!(mau(&compliance).await, before - 1);
    assert_eq!(mau(&analyst).await, before, "one device is no reason to issue a closed month anew");
    let status = home.get(&format!("/v1/requests/{id}"), &compliance).await;
    assert_eq!(status.json()["request_status"], "pending");
    assert_eq!(home.get(&format!("/v1/requests/{id}/certificate"), &compliance).await.status, StatusCode::NOT_FOUND);
    assert_eq!(home.get("/v1/requests?state=pending", &compliance).await.json().as_array().unwrap().len(), 1);
    let cancelled = home.send(ask("DELETE", &format!("/v1/requests/{id}"), Some(&compliance)).body(Body::empty()).unwrap()).await;
    assert_eq!(cancelled.status, StatusCode::ACCEPTED, "{}", cancelled.text());
    assert_eq!(mau(&compliance).await, before);
    let audit = home.get("/v1/audit?limit=1000", &compliance).await;
    assert!(audit.json().as_array().unwrap().len() >= 2 && !audit.text().contains("800000000012"));
    let bad = home.post("/v1/requests", &compliance, "application/json", "{\"identity_value\":\"800000000012\"}").await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
    assert!(!bad.text().contains("800000000012"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partner_withdraws_for_its_own_subjects_only() {
    let home = Home::new().await;
    home.fill(60).await;
    let (partner, all) = (home.token(Role::Ingest, Some("p1")).await, home.token(Role::Ingest, None).await);
    let withdraw = |kind: &str, identifier: &str| {
        serde_json::json!({ "consents": [{ "kind": kind, "identifier": identifier, "granted": false }] }).to_string()
    };
    // Odd devices are p1's.
    for (token, kind, identifier, status) in [
        (&partner, "device", "800000000011", StatusCode::OK),
        (&partner, "user", "u0000011", StatusCode::OK),
        (&partner, "device", "800000000012", StatusCode::FORBIDDEN),
        (&partner, "user", "u0000012", StatusCode::FORBIDDEN),
        (&all, "device", "800000000012", StatusCode::OK),
    ] {
        let answer = home.post("/v1/consents", token, "application/json", withdraw(kind, identifier)).await;
        assert_eq!(answer.status, status, "{kind} {identifier}: {}", answer.text());
        assert!(!answer.text().contains(identifier));
    }
    let bad =
        home.post("/v1/consents", &all, "application/json", "{\"consents\":[{\"kind\":\"device\",\"identifier\":800000000012}]}").await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
    assert!(!bad.text().contains("800000000012"));
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_run_listed_and_served_but_nothing_else_is() {
    let home = Home::new().await;
    home.fill(240).await;
    let token = home.token(Role::Analyst, None).await;
    assert_eq!(home.get("/v1/reports", &token).await.json(), serde_json::json!([]));
    let made = home.post("/v1/reports/monthly-activity/runs", &token, "application/json", "{\"month\":\"2018-09\"}").await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
    assert_eq!(made.header("location"), "/v1/reports/monthly-activity-2018-09/report.html");
    let page = home.get(made.header("location"), &token).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.header("content-type").starts_with("text/html") && page.header("content-security-policy").contains("sandbox"));
    let listed = home.get("/v1/reports", &token).await.json();
    assert_eq!(listed[0]["id"], "monthly-activity-2018-09");
    for file in listed[0]["files"].as_array().unwrap() {
        let path = format!("/v1/reports/monthly-activity-2018-09/{}", file["name"].as_str().unwrap());
        assert_eq!(home.get(&path, &token).await.bytes.len() as u64, file["bytes"].as_u64().unwrap(), "{path}");
    }
    for path in [
        "/v1/reports/..%2F..%2Fhome/keyring.json",
        "/v1/reports/../keyring.json",
        "/v1/reports/monthly-activity-2018-09/..%2F..%2Fkeyring.json",
        "/v1/reports/monthly-activity-2018-09/%2Fetc%2Fpasswd",
        "/v1/reports/./manifest.json",
        "/v1/reports/%2E%2E/keyring.json",
        "/v1/reports/monthly-activity-2018-09/none.csv",
        "/v1/reports/monthly-activity-2018-09/report.html%00",
    ] {
        assert_eq!(home.get(path, &token).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    for (path, body) in
        [("/v1/reports/weekly/runs", ""), ("/v1/reports/monthly-activity/runs", "{\"month\":\"2020-01\"}"), ("/v1/reports/..%2Fx/runs", "")]
    {
        assert_eq!(home.post(path, &token, "application/json", body).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}
