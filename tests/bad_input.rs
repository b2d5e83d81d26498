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
