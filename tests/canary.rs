//! Canaries: identifiers chosen for it stand nowhere, in no form.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::support::{Home, event};

const DEVICE: &str = "Canary-Device-7Q4XZW";
const USER: &str = "canary.user.9KJ2@example.org";
const EVENT: &str = "canary-event-55TTR";

/// Every way in which the identifier could have been written down.
fn forms(identifier: &str) -> Vec<Vec<u8>> {
    let bytes = identifier.as_bytes();
    let sha = ring::digest::digest(&ring::digest::SHA256, bytes);
    let sha = sha.as_ref();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut forms = vec![
        identifier.to_owned(),
        identifier.to_lowercase(),
        identifier.to_uppercase(),
        hex(bytes),
        hex(bytes).to_uppercase(),
        hex(sha),
        hex(sha).to_uppercase(),
        STANDARD.encode(sha),
        URL_SAFE_NO_PAD.encode(sha),
    ]
    .into_iter()
    .map(String::into_bytes)
    .collect::<Vec<_>>();
    forms.push(sha.to_vec());
    // Base64 at each of the three alignments, without the characters that neighbours change.
    for shift in 0..3 {
        let padded = [&vec![0; shift][..], bytes].concat();
        let encoded = STANDARD_NO_PAD.encode(padded);
        let inner = &encoded[(shift * 4).div_ceil(3)..encoded.len() - 2];
        forms.push(inner.as_bytes().to_vec());
    }
    forms
}

fn assert_absent(place: &str, content: &[u8]) {
    for identifier in [DEVICE, USER, EVENT] {
        for form in forms(identifier) {
            let found = content.windows(form.len()).any(|window| window == form);
            assert!(!found, "{place} holds {identifier} as {:?}", String::from_utf8_lossy(&form));
        }
    }
}

fn assert_no_file_holds_it(home: &Home, when: &str) {
    for path in home.all_files(&["input.ndjson", "list.csv"]) {
        // A file of a process that is still running may go away meanwhile.
        if let Ok(content) = std::fs::read(&path) {
            assert_absent(&format!("{when}: {}", path.display()), &content);
        }
    }
}

fn run(home: &Home, arguments: &[&str], input: &str) {
    let output = home.run_with(arguments, input);
    assert_absent(&format!("{arguments:?}, standard output"), &output.stdout);
    assert_absent(&format!("{arguments:?}, standard error"), &output.stderr);
}

#[test]
fn no_identifier_is_written_down_anywhere() {
    let home = Home::new();
    let good = event(1, DEVICE, Some(USER), "activate", "2018-07-01T10:00:00Z").replace("e-000000000001", EVENT);
    let mut lines = good.clone();
    for (from, to) in [
        ("\"wake\"", "\"explode\""),
        ("\"activate\"", "\"explode\""),
        ("T10:00:00Z", "T10:00:00"),
        ("\"latency_ms\":1,", &format!("\"latency_ms\":\"{DEVICE}\",")),
        ("\"country\":\"DE\"", &format!("\"country\":\"{USER}\"")),
        ("\"props\"", &format!("\"{DEVICE}\":1,\"props\"")),
        ("\"room\":\"kitchen\"", &format!("\"room\":\"kitchen\",\"{USER}\":\"{DEVICE}\"")),
        ("2018-05-25", "2016-01-01"),
        ("2018-07-01T10", "2050-07-01T10"),
    ] {
        lines += &good.replace(from, to);
    }
    lines += &good[..good.len() / 2];
    lines += "\n";
    lines += &format!("{DEVICE} {USER}\n\"{DEVICE}\"\n{{\"device_id\":\"{DEVICE}\"}}\n");
    lines += &event(2, "800000000009", None, "wake", "2018-07-03T10:00:00Z");
    let input = home.file("input.ndjson", &lines);
    let path = input.to_str().unwrap();

    run(&home, &["-vv", "ingest", path], "");
    assert_no_file_holds_it(&home, "ingested");
    for query in [
        "SELECT * FROM events",
        "SELECT * FROM quarantine",
        &format!("SELECT count(*) FROM events WHERE type = '{DEVICE}'"),
        &format!("SELECT {USER} FROM"),
    ] {
        // What the operator typed may come back in an error of the parser; it must not be kept.
        let _output = home.run(&["sql", query, "--k", "1"]);
    }
    run(&home, &["sql", "SELECT * FROM events", "--k", "1", "--format", "json"], "");
    run(&home, &["sql", "SELECT * FROM quarantine", "--k", "1", "--format", "json"], "");
    assert_no_file_holds_it(&home, "queried");

    // While the server runs, over HTTP, and when it is killed.
    let token = home.json(&["token", "create", "feeder", "--role", "ingest"])["token"].as_str().unwrap().to_owned();
    let mut server = home.serve();
    let mut reply = ureq::post(server.url("/v1/events"))
        .header("Authorization", format!("Bearer {token}"))
        .content_type("application/x-ndjson")
        .send(&lines)
        .unwrap();
    assert_absent("the reply", reply.body_mut().read_to_string().unwrap().as_bytes());
    server.child.kill().unwrap();
    drop(server);
    assert_no_file_holds_it(&home, "posted and killed");

    run(&home, &["erase", "submit", "--device", "-"], &format!("{DEVICE}\n"));
    let list = home.file("list.csv", format!("kind,identifier\nuser,{USER}\nuser\n"));
    run(&home, &["erase", "submit", "--file", list.to_str().unwrap()], "");
    home.file("list.csv", format!("kind,identifier\nuser,{USER}\n"));
    run(&home, &["erase", "submit", "--file", list.to_str().unwrap()], "");
    run(&home, &["-vv", "erase", "preview"], "");
    run(&home, &["-vv", "erase", "run"], "");
    run(&home, &["erase", "verify", "--user", "-"], &format!("{USER}\n"));
    run(&home, &["-vv", "erase", "verify"], "");
    run(&home, &["erase", "list"], "");
    run(&home, &["audit", "list"], "");
    assert_no_file_holds_it(&home, "erased");
    assert_eq!(home.metric_rows(&["dau"]).len(), 1);
}
