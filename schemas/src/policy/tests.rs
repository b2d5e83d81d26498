#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;

const SHORT: &str = "[regimes.gdpr]\ncollection = \"opt_in\"\nlegal_basis = \"consent\"\nerasure_months = 1\non_withdrawal = \"stop\"\n";

#[track_caller]
fn fault(text: &str) -> PolicyFault {
    let mut faults = Policy::parse(text).expect_err(text).faults;
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults.remove(0)
}

#[test]
fn the_default_policy() {
    let policy = Policy::default_policy();
    assert_eq!(policy.k(), None);
    let gdpr = policy.regime(Some("DE"));
    assert_eq!(
        gdpr,
        &Regime {
            name: "gdpr".into(),
            collection: Collection::OptIn,
            legal_basis: "consent, Art. 6(1)(a) GDPR".into(),
            min_policy: Some("2018-05-25".into()),
            purposes: vec!["analytics".into()],
            retention_days: Some(1095),
            erasure_months: 1,
            extension_months: 2,
            on_withdrawal: OnWithdrawal::Stop,
            k: None,
        }
    );
    assert_eq!(policy.regime(None), gdpr, "a missing country");
    assert_eq!(policy.regime(Some("us")), gdpr, "codes are capitals");
    assert_eq!(policy.regime(Some("US")).collection, Collection::OptOut);
    assert_eq!(policy.regime(Some("BR")).name, "lgpd");
    assert_eq!(policy.regimes().map(|regime| regime.name.as_str()).collect::<Vec<_>>(), ["gdpr", "ccpa", "lgpd"]);
    assert_eq!(policy.regime_named("ccpa").map(|regime| regime.extension_months), Some(1));
    assert_eq!(policy.regime_named("pipl"), None);
}

#[test]
fn the_shortest_policy() {
    let policy = Policy::parse(SHORT).unwrap();
    let gdpr = policy.regime(Some("US"));
    assert_eq!((policy.k(), gdpr.retention_days, gdpr.extension_months), (None, None, 0));
    assert!(gdpr.purposes.is_empty() && gdpr.min_policy.is_none());
}

#[test]
fn the_largest_k_holds_for_all() {
    let policy = Policy::parse(&format!("k = 5\n{SHORT}k = 25\n")).unwrap();
    assert_eq!(policy.k(), Some(25));
    assert_eq!(Policy::parse(&format!("k = 50\n{SHORT}k = 25\n")).unwrap().k(), Some(50));
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest() {
    let found = fault(&format!("{SHORT}min_polcy = \"2018-05-25\"\n"));
    assert_eq!((found.line, found.key.as_str()), (6, "regimes.gdpr.min_polcy"));
    assert_eq!(found.remedy, "did you mean `min_policy`");
    let found = fault(&format!("kk = 3\n{SHORT}"));
    assert_eq!((found.line, found.key.as_str()), (1, "kk"));
    let found = fault(&format!("{SHORT}[retention]\nenforce = true\n"));
    assert_eq!(found.line, 6);
    assert!(found.remedy.contains("ameles.toml"), "{found}");
}

#[test]
fn bad_values_are_refused_with_their_line_and_what_would_be_right() {
    for (from, to, line, remedy) in [
        ("\"opt_in\"", "\"optin\"", 2, "write one of opt_in, opt_out"),
        ("\"opt_in\"", "true", 2, "write one of opt_in, opt_out"),
        ("\"consent\"", "\"\"", 3, "write a string in quotes that is not empty"),
        ("months = 1", "months = 0", 4, "write a whole number from 1 to 12"),
        ("months = 1", "months = -1", 4, "write a whole number from 1 to 12"),
        ("months = 1", "months = 1.5", 4, "write a whole number from 1 to 12"),
        ("\"stop\"", "\"halt\"", 5, "write one of stop, erase"),
        ("\"stop\"", "\"stop\"\nmin_policy = 2018-05-25", 6, "write a string in quotes that is not empty"),
        ("\"stop\"", "\"stop\"\npurposes = \"analytics\"", 6, "write a list of strings, such as [\"analytics\"]"),
        ("\"stop\"", "\"stop\"\nretention_days = 0", 6, "write a whole number from 1 to 36525"),
    ] {
        let found = fault(&SHORT.replace(from, to));
        assert_eq!((found.line, found.remedy.as_str()), (line, remedy), "{to}: {found}");
    }
}

#[test]
fn missing_keys_are_told_at_the_regimes_line() {
    let error = Policy::parse("\n\n[regimes.gdpr]\n").unwrap_err();
    let keys: Vec<&str> = error.faults.iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, ["regimes.gdpr.collection", "regimes.gdpr.on_withdrawal", "regimes.gdpr.legal_basis", "regimes.gdpr.erasure_months"]);
    assert!(error.faults.iter().all(|fault| fault.line == 3), "{error}");
    assert_eq!(fault("k = 10\n").key, "regimes");
    assert_eq!(fault(&SHORT.replace("gdpr", "other")).key, "regimes.gdpr");
}

#[test]
fn countries_are_codes_and_name_regimes_of_the_file() {
    let found = fault(&format!("{SHORT}[countries]\nDE = \"gdrp\"\n"));
    assert_eq!((found.line, found.remedy.as_str()), (7, "did you mean `gdpr`"));
    assert_eq!(fault(&format!("{SHORT}[countries]\nGermany = \"gdpr\"\n")).key, "countries.Germany");
    assert_eq!(fault(&format!("{SHORT}[countries]\nDE = 1\n")).line, 7);
    assert!(Policy::parse(&format!("{SHORT}[countries]\nDE = \"gdpr\"\n")).is_ok());
}

#[test]
fn broken_toml_is_refused_with_its_line() {
    let found = fault("k = 10\n[regimes.gdpr\n");
    assert_eq!(found.line, 2);
    assert!(found.reason.starts_with("is not TOML"), "{found}");
    assert_eq!(fault("k = 1\nk = 2\n").line, 2);
}

#[test]
fn all_faults_are_told_at_once() {
    let text = SHORT.replace("opt_in", "in").replace("stop", "off") + "[countries]\nde = \"x\"\n";
    let error = Policy::parse(&text).unwrap_err();
    let lines: Vec<usize> = error.faults.iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [2, 5, 7, 7]);
    assert!(error.to_string().starts_with("policy refused, 4 faults\n  line 2: regimes.gdpr.collection: is `in`"), "{error}");
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "[a-z\\[\\]=\"0-9.\n ]{0,120}") {
        let _ = Policy::parse(&text);
    }

    #[test]
    fn whatever_the_country_some_regime_holds(country in prop::option::of("[A-Za-z]{0,3}")) {
        let policy = Policy::default_policy();
        let regime = policy.regime(country.as_deref());
        let expected = match country.as_deref() {
            Some("US") => "ccpa",
            Some("BR") => "lgpd",
            _ => "gdpr",
        };
        prop_assert_eq!(regime.name.as_str(), expected);
    }
}
