//! What `policy.toml` says beyond consent: the smallest group, deadlines, extensions.

use crate::support::{Home, event};

fn active_devices(home: &Home, more: &[&str]) -> Vec<String> {
    let out = home.ok(&[&["metric", "mau", "--by", "product", "--format", "csv"], more].concat());
    out.lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn the_policys_smallest_group_holds_where_it_asks_for_more() {
    let home = Home::new();
    let lines: String = (0..20).map(|i| event(i, &format!("8{i:011}"), None, "wake", "2018-07-01T10:00:00Z")).collect();
    home.ingest(&home.file("twenty.ndjson", lines));
    assert_eq!(active_devices(&home, &[]), ["2018-07-01,speaker,20,true"]);
    let policy = home.path().join("policy.toml");
    let text = std::fs::read_to_string(&policy).unwrap();
    let of_a_regime = text.replace("[regimes.gdpr]", "[regimes.gdpr]\nk = 30");
    for more in [format!("k = 30\n{text}"), of_a_regime] {
        std::fs::write(&policy, more).unwrap();
        assert_eq!(active_devices(&home, &[]), Vec::<String>::new());
        assert_eq!(active_devices(&home, &["--k", "1"]), ["2018-07-01,speaker,20,true"]);
    }
    // What asks for less changes nothing.
    std::fs::write(&policy, format!("k = 2\n{text}")).unwrap();
    assert_eq!(active_devices(&home, &[]), ["2018-07-01,speaker,20,true"]);
}

#[test]
fn deadlines_and_extensions_are_the_regulations_own() {
    let home = Home::new();
    let submit = |regulation: &str, more: &[&str]| {
        let arguments = [&["erase", "submit", "--device", "-", "--regulation", regulation], more].concat();
        home.ok_with(&arguments, "800000000001\n").trim().to_owned()
    };
    let due = |id: &str| home.json(&["erase", "status", id])["due"].as_str().unwrap().to_owned();
    let policy = home.path().join("policy.toml");
    let text = std::fs::read_to_string(&policy).unwrap();
    let of_ccpa = "erasure_months = 1                   # the law gives 45 days";
    assert!(text.contains(of_ccpa));
    std::fs::write(&policy, text.replace(of_ccpa, "erasure_months = 2 #")).unwrap();
    // The day of receipt, or the month's last.
    assert_eq!(due(&submit("gdpr", &["--received", "2018-01-31"]))[..10], *"2018-02-28");
    assert_eq!(due(&submit("ccpa", &["--received", "2018-01-31"]))[..10], *"2018-03-31");
    let (gdpr, ccpa, lgpd) = (submit("gdpr", &[]), submit("ccpa", &[]), submit("lgpd", &[]));
    for id in [&gdpr, &ccpa] {
        let before = due(id);
        home.ok(&["erase", "extend", id, "--reason", "many copies"]);
        assert!(due(id) > before);
    }
    let refused = home.run(&["erase", "extend", &lgpd, "--reason", "many copies"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("lgpd"));
}
