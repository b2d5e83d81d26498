//! Pages and sessions.

use ameles_ledger::Role;
use axum::body::Body;
use axum::http::{StatusCode, header};

use super::home::{Answer, Home, ask};

const HOST: &str = "127.0.0.1:7070";
const ORIGIN: &str = "http://127.0.0.1:7070";

async fn form(home: &Home, path: &str, body: String, origin: &str, cookie: &str) -> Answer {
    let request = ask("POST", path, None)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::HOST, HOST)
        .header(header::ORIGIN, origin)
        .header(header::COOKIE, cookie)
        .body(Body::from(body))
        .unwrap();
    home.send(request).await
}

async fn see(home: &Home, path: &str, cookie: &str) -> Answer {
    home.send(ask("GET", path, None).header(header::COOKIE, cookie).body(Body::empty()).unwrap()).await
}

/// The cookie of a session opened with a token.
async fn sign_in(home: &Home, role: Role, partner: Option<&str>) -> String {
    let token = home.token(role, partner).await;
    let answer = form(home, "/login", format!("token={token}"), ORIGIN, "").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
    let cookie = answer.header("set-cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && !cookie.contains(&token));
    cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_shows_the_months_figures() {
    let home = Home::new().await;
    home.fill(240).await;
    let cookie = sign_in(&home, Role::Analyst, None).await;
    let page = see(&home, "/", &cookie).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
    let text = page.text();
    for part in [
        "September 2018",
        "Installed base",
        "Without phones, laptops",
        "Monthly active devices",
        "Wake-ups",
        "Retention",
        "By country",
        "By product",
        "Complete until",
        "Growth",
    ] {
        assert!(text.contains(part), "{part}");
    }
    assert!(!text.contains("<script") && !text.contains(" style=\"") && !text.contains("NaN"));
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    let july = see(&home, "/?month=2018-07", &cookie).await.text();
    assert!(july.contains("July 2018"));
    let css = see(&home, "/assets/style.css", "").await;
    assert!(css.header("content-type").starts_with("text/css") && css.text().contains(".tiles"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_warehouse_says_how_to_begin() {
    let home = Home::new().await;
    let cookie = sign_in(&home, Role::Compliance, None).await;
    let page = see(&home, "/", &cookie).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
    assert!(page.text().contains("ameles ingest") && page.text().contains("Erasure requests"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_session_there_is_only_the_login() {
    let home = Home::new().await;
    let page = see(&home, "/", "ameles_session=0123").await;
    assert_eq!((page.status, page.header("location")), (StatusCode::SEE_OTHER, "/login"));
    assert!(see(&home, "/login", "").await.text().contains("name=\"token\""));
    assert_eq!(form(&home, "/login", "token=wrong".to_owned(), ORIGIN, "").await.status, StatusCode::UNAUTHORIZED);
    let ingest = home.token(Role::Ingest, None).await;
    assert_eq!(form(&home, "/login", format!("token={ingest}"), ORIGIN, "").await.status, StatusCode::UNAUTHORIZED);
    let analyst = home.token(Role::Analyst, None).await;
    assert_eq!(form(&home, "/login", format!("token={analyst}"), "https://evil.example", "").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_logout_time_or_revocation() {
    let home = Home::new().await;
    let cookie = sign_in(&home, Role::Analyst, None).await;
    assert_eq!(see(&home, "/v1/metrics", &cookie).await.status, StatusCode::OK, "the browser may read the API");
    assert_eq!(form(&home, "/logout", String::new(), "https://evil.example", &cookie).await.status, StatusCode::FORBIDDEN);
    assert_eq!(form(&home, "/logout", String::new(), ORIGIN, &cookie).await.status, StatusCode::SEE_OTHER);
    assert_eq!(see(&home, "/v1/metrics", &cookie).await.status, StatusCode::UNAUTHORIZED);
    let cookie = sign_in(&home, Role::Analyst, None).await;
    home.clock.set("2018-08-05T13:00:00Z".parse().unwrap());
    assert_eq!(see(&home, "/v1/metrics", &cookie).await.status, StatusCode::UNAUTHORIZED);
    let cookie = sign_in(&home, Role::Analyst, None).await;
    for token in home.state.ledger().list_tokens().await.unwrap() {
        home.state.ledger().revoke_token(&token.name, "test").await.unwrap();
    }
    assert_eq!(see(&home, "/", &cookie).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_cannot_be_ridden_from_another_site() {
    let home = Home::new().await;
    home.fill(60).await;
    let cookie = sign_in(&home, Role::Admin, None).await;
    let run = "/v1/reports/monthly-activity/runs";
    assert_eq!(form(&home, run, "month=2018-09".to_owned(), "https://evil.example", &cookie).await.status, StatusCode::FORBIDDEN);
    let made = form(&home, run, "month=2018-09".to_owned(), ORIGIN, &cookie).await;
    assert_eq!(
        (made.status, made.header("location")),
        (StatusCode::SEE_OTHER, "/v1/reports/monthly-activity-2018-09/report.html"),
        "{}",
        made.text()
    );
    assert!(see(&home, "/", &cookie).await.text().contains("monthly-activity-2018-09/report.html"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partners_page_is_its_own() {
    let home = Home::new().await;
    home.fill(240).await;
    let page = see(&home, "/", &sign_in(&home, Role::Analyst, Some("p1")).await).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
    assert!(page.text().contains("partner p1 only") && !page.text().contains("Make the report"));
}

/// `AMELES_LOOK=7070 cargo test --release -p ameles-dashboards look -- --ignored` serves the page for a while.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "serves the dashboard to look at"]
async fn look() {
    let home = Home::new().await;
    if std::env::var_os("AMELES_LOOK_EMPTY").is_none() {
        home.fill(2_400).await;
    }
    let port = std::env::var("AMELES_LOOK").unwrap_or_else(|_| "7070".to_owned());
    let token = home.token(Role::Admin, None).await;
    std::fs::write(std::env::temp_dir().join("ameles-look-token"), token).unwrap();
    let server = crate::Server::bind(format!("127.0.0.1:{port}").parse().unwrap(), None).unwrap();
    let minutes = std::time::Duration::from_secs(600);
    server.run(home.router.clone(), tokio::time::sleep(minutes)).await.unwrap();
    drop(home.folder);
}
