//! The API over the wire, and the dashboard in a real browser.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{Home, Server, simulated, succeeded};

fn token(home: &Home, role: &str) -> String {
    home.json(&["token", "create", role, "--role", role])["token"].as_str().unwrap().to_owned()
}

fn get(server: &Server, path: &str, token: Option<&str>) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build().into();
    let mut request = agent.get(server.url(path));
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let mut reply = request.call().unwrap();
    (reply.status().as_u16(), reply.body_mut().read_to_string().unwrap())
}

#[test]
fn the_api_answers_by_role() {
    let home = Home::new();
    home.ingest(&simulated(&home, "fleet.ndjson", 300, &["--days", "40"]));
    let [ingest, analyst, compliance] = ["ingest", "analyst", "compliance"].map(|role| token(&home, role));
    let server = home.serve();
    assert_eq!(get(&server, "/healthz", None).0, 200);
    assert!(get(&server, "/metrics", None).1.contains("# TYPE ameles_"));
    for (path, right, wrong) in [
        ("/v1/metrics", &analyst, &ingest),
        ("/v1/metrics/mau?by=country", &analyst, &ingest),
        ("/v1/audit", &compliance, &analyst),
        ("/v1/discovery", &compliance, &ingest),
    ] {
        assert_eq!(get(&server, path, Some(right)).0, 200, "{path}");
        assert_eq!(get(&server, path, Some(wrong)).0, 403, "{path}");
        assert_eq!(get(&server, path, None).0, 401, "{path}");
        assert_eq!(get(&server, path, Some("ameles_nonsense")).0, 401, "{path}");
    }
    let (_, csv) = get(&server, "/v1/metrics/mau?format=csv", Some(&analyst));
    assert_eq!(csv.trim(), home.ok(&["metric", "mau", "--format", "csv"]).trim());
    assert_eq!(get(&server, "/v1/metrics/nonsense", Some(&analyst)).0, 404);
    server.stop();
}

#[test]
fn a_request_by_opendsr_runs_to_its_certificate() {
    let home = Home::new();
    let path = simulated(&home, "fleet.ndjson", 100, &["--days", "20"]);
    home.ingest(&path);
    let compliance = token(&home, "compliance");
    let server = home.serve();
    let first: serde_json::Value = serde_json::from_str(std::fs::read_to_string(&path).unwrap().lines().next().unwrap()).unwrap();
    let body = serde_json::json!({
        "regulation": "gdpr", "subject_request_id": "a7551968-d5d6-44b2-9831-815ac9017798", "subject_request_type": "erasure",
        "submitted_time": "2018-10-02T15:00:00Z", "api_version": "2.0",
        "subject_identities": [{"identity_type": "device_id", "identity_value": first["device_id"], "identity_format": "raw"}]});
    let mut reply =
        ureq::post(server.url("/v1/requests")).header("Authorization", format!("Bearer {compliance}")).send_json(&body).unwrap();
    assert_eq!(reply.status().as_u16(), 201);
    let reply: serde_json::Value = reply.body_mut().read_json().unwrap();
    // The same once more is the same request; under its id nobody else can be named.
    let send = |body: &serde_json::Value| {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut reply =
            agent.post(server.url("/v1/requests")).header("Authorization", format!("Bearer {compliance}")).send_json(body).unwrap();
        (reply.status().as_u16(), reply.body_mut().read_json::<serde_json::Value>().unwrap())
    };
    let (status, again) = send(&body);
    assert_eq!((status, &again["request_id"]), (201, &reply["request_id"]));
    let mut other = body.clone();
    other["subject_identities"][0]["identity_value"] = "800000009999".into();
    let (status, refused) = send(&other);
    assert!(status == 409 && !refused.to_string().contains("800000009999"), "{status}: {refused}");
    let id = reply["subject_request_id"].as_str().or(reply["controller_id"].as_str()).unwrap().to_owned();
    home.ok(&["erase", "run"]);
    let (status, text) = get(&server, &format!("/v1/requests/{id}"), Some(&compliance));
    assert_eq!(status, 200, "{text}");
    let state: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(state["request_status"], "completed", "{state}");
    assert_eq!(get(&server, &format!("/v1/requests/{id}/certificate"), Some(&compliance)).0, 200);
}

#[test]
fn a_report_is_the_same_bytes_for_the_same_versions() {
    let home = Home::new();
    home.ingest(&simulated(&home, "fleet.ndjson", 500, &["--days", "92"]));
    let out = |name: &str| {
        let folder = home.folder.path().join(name);
        home.ok(&["report", "run", "monthly-activity", "--month", "2018-09", "-o", folder.to_str().unwrap()]);
        let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().map(|path| (path.file_name().unwrap().to_owned(), std::fs::read(path).unwrap())).collect::<Vec<_>>()
    };
    let (first, second) = (out("one"), out("two"));
    assert_eq!(first, second);
    assert!(first.iter().any(|(name, _)| name == "report.html") && first.iter().any(|(name, _)| name == "manifest.json"));
}

#[test]
fn the_dashboard_shows_in_a_browser() {
    if !["chromedriver", "python3"].iter().all(|name| Command::new(name).arg("--version").output().is_ok()) {
        assert!(std::env::var_os("AMELES_TEST_PYTHON").is_none(), "`make test` installs a browser, and there is none");
        eprintln!("no browser: `make test` installs one");
        return;
    }
    let home = Home::new();
    home.ingest(&simulated(&home, "fleet.ndjson", 2000, &["--days", "92"]));
    let analyst = token(&home, "analyst");
    let server = home.serve();
    assert_eq!(get(&server, "/", None).0, 303, "who is not logged in is sent to the form");
    // A real browser types the token into the form and follows where it leads.
    let picture = home.folder.path().join("dashboard.png");
    let mut browser = Command::new("python3")
        .arg(crate::support::project().join("tests/python/browse.py"))
        .args([&server.base, picture.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    browser.stdin.take().unwrap().write_all(format!("{analyst}\n").as_bytes()).unwrap();
    let text = succeeded(browser.wait_with_output().unwrap(), &["browse.py"]);
    let base = home.metric_rows(&["installed_base", "--from", "2018-09-30", "--to", "2018-09-30"])[0][1].clone();
    let shown: String = text.chars().filter(|c| !matches!(c, ',' | '\u{202f}' | '\u{a0}' | ' ')).collect();
    assert!(text.to_lowercase().contains("installed base") && shown.contains(&base), "{base} is not on the page: {text}");
    assert!(std::fs::metadata(&picture).unwrap().len() > 50_000, "a page without charts");
    server.stop();
}
