//! Wrong usage, wrong configuration, broken files: a clear error, the right exit code, no identifier shown.

use std::os::unix::fs::PermissionsExt;

use crate::support::{AMELES, Home, event};

fn refused(home: &Home, arguments: &[&str], code: i32, words: &[&str]) {
    let output = home.run(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{arguments:?}: {text:?} does not say {word:?}");
    }
}

#[test]
fn identifiers_as_arguments_are_refused_and_not_echoed() {
    let home = Home::new();
    for arguments in [
        &["erase", "submit", "--device", "800000002492"][..],
        &["erase", "submit", "--user=800000002492"],
        &["erase", "submit", "800000002492"],
        &["erase", "verify", "--device", "800000002492"],
        &["erase", "status", "800000002492"],
    ] {
        let output = home.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert_ne!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!text.contains("800000002492"), "{arguments:?}: {text}");
    }
    refused(&home, &["erase", "submit", "--device", "800000002492"], 2, &["standard input"]);
}

#[test]
fn configuration_faults_name_file_and_line() {
    let home = Home::new();
    refused(&home, &["metric", "nonsense"], 2, &["nonsense", "mau"]);
    refused(&home, &["metric", "mau", "--by", "colour"], 2, &["colour", "country"]);
    refused(&home, &["metric", "mau", "--from", "yesterday"], 2, &["2018-07-31"]);
    let policy = home.path().join("policy.toml");
    let text = std::fs::read_to_string(&policy).unwrap();
    std::fs::write(&policy, text.replace("collection", "colection")).unwrap();
    refused(&home, &["metric", "mau"], 2, &["policy.toml", "line", "colection", "collection"]);
    std::fs::write(&policy, text).unwrap();
    let config = home.path().join("ameles.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("k = 10", "kay = 10")).unwrap();
    refused(&home, &["config", "check"], 2, &["ameles.toml", "line", "kay"]);
    std::fs::write(&config, text).unwrap();
    home.ok(&["config", "check"]);
    let nowhere = std::process::Command::new(AMELES).args(["--home", "/nonexistent/home", "metric", "mau"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("ameles init"));
}

#[test]
fn what_serve_would_refuse_is_refused_by_the_check() {
    let home = Home::new();
    let config = home.path().join("ameles.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let journal = home.folder.path().join("home.journal");
    let inside = home.path().join("inside.journal");
    std::fs::copy(&journal, &inside).unwrap();
    for (from, to, word) in [
        ("127.0.0.1:8080", "0.0.0.0:8080", "TLS"),
        ("# journal = \"../ameles-home.journal\"", "journal = \"inside.journal\"", "outside"),
        ("suppression_horizon_days = 400", "suppression_horizon_days = 0", "line"),
        ("location = \"warehouse\"", "location = \"\"", "line"),
        ("# sasl.password = { env = \"AMELES_KAFKA_PASSWORD\" }", "[kafka.client]\nsasl.password = \"x\"", "stands in clear"),
    ] {
        assert!(text.contains(from), "{from}");
        std::fs::write(&config, text.replace(from, to)).unwrap();
        refused(&home, &["config", "check"], 2, &["ameles.toml", word]);
    }
    std::fs::write(&config, text).unwrap();
    std::fs::remove_file(inside).unwrap();
    let away = home.folder.path().join("away");
    std::fs::rename(&journal, &away).unwrap();
    refused(&home, &["config", "check"], 2, &["home.journal", "missing"]);
    std::fs::rename(away, journal).unwrap();
    home.ok(&["config", "check"]);
}

#[test]
fn an_init_that_is_refused_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let init = |arguments: &[&str]| {
        let mut command = std::process::Command::new(AMELES);
        command.env("AMELES_HOME", folder.path().join("home")).arg("init").args(arguments);
        command.output().unwrap()
    };
    assert_eq!(init(&["--warehouse", "s3://bucket/tables"]).status.code(), Some(2));
    let journal = folder.path().join("home.journal");
    std::fs::write(&journal, "somebody else's").unwrap();
    let output = init(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("home.journal"));
    std::fs::remove_file(journal).unwrap();
    assert!(init(&[]).status.success());
}

#[test]
fn lists_and_lines_that_are_not_whole_are_not_entered() {
    let home = Home::new();
    for (arguments, input, word) in [
        (&["erase", "submit", "--device", "-"][..], "800000000001\n800000000002\n", "--file -"),
        (&["erase", "submit", "--file", "-"], "kind,identifier\ndevice,\"800000000001", "quote"),
    ] {
        let output = home.run_with(arguments, input);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(word) && !text.contains("80000000000"), "{arguments:?}: {text}");
    }
    assert_eq!(home.json(&["erase", "list"])["requests"].as_array().map(Vec::len), Some(0));
    // A blank end is no second line.
    let id = home.ok_with(&["erase", "submit", "--device", "-"], "800000000001\n\n");
    refused(&home, &["erase", "extend", id.trim(), "--reason", ""], 2, &["reason"]);
    refused(&home, &["token", "create", "no name!", "--role", "admin"], 2, &["name"]);
    let verified = home.ok(&["erase", "verify"]);
    assert!(verified.contains("nothing remains") && !verified.contains("pending erasures"), "{verified}");
}

#[test]
fn a_verification_tells_what_a_pending_erasure_still_has() {
    let home = Home::new();
    home.ingest(&home.file("one.ndjson", event(1, "800000000001", None, "wake", "2018-07-01T10:00:00Z")));
    home.ok_with(&["erase", "submit", "--device", "-"], "800000000001\n");
    let verified = home.ok(&["erase", "verify"]);
    assert!(verified.contains("pending erasures still have 1 rows"), "{verified}");
    home.ok(&["erase", "run"]);
    let verified = home.ok(&["erase", "verify"]);
    assert!(verified.contains("nothing remains") && !verified.contains("pending erasures"), "{verified}");
}

#[test]
fn a_wrong_key_is_told_and_nothing_is_touched() {
    let home = Home::new();
    let other = Home::new();
    let (mine, theirs) = (home.folder.path().join("home.key"), other.folder.path().join("home.key"));
    let right = std::fs::read(&mine).unwrap();
    std::fs::set_permissions(&mine, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&mine, std::fs::read(theirs).unwrap()).unwrap();
    refused(&home, &["metric", "mau"], 2, &["key"]);
    std::fs::remove_file(&mine).unwrap();
    refused(&home, &["metric", "mau"], 2, &["home.key"]);
    std::fs::write(&mine, right).unwrap();
    std::fs::set_permissions(&mine, std::fs::Permissions::from_mode(0o600)).unwrap();
    home.ok(&["config", "check"]);
}

#[test]
fn a_file_that_cannot_be_read_stops_before_anything_is_ingested() {
    let home = Home::new();
    let good = home.file("good.ndjson", event(1, "800000000001", None, "wake", "2018-07-01T10:00:00Z"));
    let missing = home.folder.path().join("missing.ndjson");
    let output = home.run(&["ingest", good.to_str().unwrap(), missing.to_str().unwrap()]);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("missing.ndjson"));
    assert_eq!(home.ingest(&good)["accepted"], 1);
}

#[test]
fn a_zst_cut_in_half_gives_what_came_before_and_fails() {
    let home = Home::new();
    let text: String = (0..20_000).map(|i| event(i, &format!("8{i:011}"), None, "wake", "2018-07-01T10:00:00Z")).collect();
    let whole = zstd::encode_all(text.as_bytes(), 1).unwrap();
    let cut = home.file("cut.zst", &whole[..whole.len() / 2]);
    let output = home.run(&["ingest", cut.to_str().unwrap(), "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let before = summary["accepted"].as_u64().unwrap();
    assert!(before > 0 && before < 20_000, "{summary}");
    // Whole again, it goes on where it was.
    let rest = home.ingest(&home.file("whole.zst", &whole));
    assert_eq!(rest["accepted"].as_u64().unwrap(), 20_000 - before, "{rest}");
}

#[test]
fn help_and_version_work_without_a_home() {
    for arguments in [&["--help"][..], &["--version"], &["erase", "submit", "--help"]] {
        assert!(std::process::Command::new(AMELES).args(arguments).output().unwrap().status.success());
    }
    assert_eq!(std::process::Command::new(AMELES).args(["metric"]).output().unwrap().status.code(), Some(2));
}
