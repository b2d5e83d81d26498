//! What a reader of the tree relies on.

use std::path::{Path, PathBuf};

fn sources() -> Vec<PathBuf> {
    let root = crate::support::project();
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ["schemas", "pipeline", "queries", "dashboards", "tests"].iter().map(|name| root.join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_file_fits_in_one_sitting() {
    let long: Vec<_> = sources()
        .into_iter()
        .filter_map(|path| {
            let lines = std::fs::read_to_string(&path).unwrap().lines().count();
            (lines > 600).then(|| format!("{}: {lines}", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

/// The table in `docs/erasure.md` names, for each place where erased data could hide, tests that exist.
#[test]
fn hiding_places_have_their_tests() {
    let text = std::fs::read_to_string(crate::support::project().join("docs/erasure.md")).unwrap();
    let table = text.split("## Where erased data hides").nth(1).unwrap().split("\n## ").next().unwrap();
    let functions: std::collections::BTreeSet<String> = sources().iter().flat_map(|path| tests_of(path)).collect();
    let places: Vec<Vec<&str>> =
        table.lines().filter(|line| line.starts_with("| ")).skip(2).map(|line| line.trim_matches('|').split(" | ").collect()).collect();
    assert!(places.len() >= 19, "{} places", places.len());
    for place in places {
        let named: Vec<&str> = place.last().unwrap().split('`').filter(|name| !name.trim().is_empty()).collect();
        assert!(place.len() == 4 && !named.is_empty(), "{place:?} names no test");
        let missing: Vec<_> = named.into_iter().filter(|name| !functions.contains(*name)).collect();
        assert!(missing.is_empty(), "{}: no test is called {missing:?}", place[0]);
    }
}

/// Names of functions with `#[test]` or the like.
fn tests_of(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else if let Some((_, name)) = line.split_once("fn ").filter(|_| is_test) {
            names.extend(name.split('(').next().map(str::to_owned));
            is_test = false;
        } else if !line.starts_with("//") {
            is_test = false;
        }
    }
    names
}

#[test]
fn edges_point_down() {
    let root = crate::support::project();
    let may_use = [
        ("schemas", ""),
        ("pipeline/core", ""),
        ("pipeline/pseudonym", "core schemas"),
        ("pipeline/ledger", "core schemas"),
        ("pipeline/store", "core schemas"),
        ("pipeline/ingest", "core schemas pseudonym ledger store"),
        ("pipeline/erasure", "core schemas pseudonym ledger store"),
        ("queries", "core schemas store ledger"),
        ("queries/reports", "core schemas store queries"),
        ("dashboards", "core schemas pseudonym ledger store ingest erasure queries reports"),
    ];
    for (folder, allowed) in may_use {
        let manifest = std::fs::read_to_string(root.join(folder).join("Cargo.toml")).unwrap();
        let normal = manifest.split("[dev-dependencies]").next().unwrap();
        for line in normal.lines().filter_map(|line| line.strip_prefix("ameles-")) {
            let used = line.split('.').next().unwrap();
            assert!(allowed.split(' ').any(|name| name == used), "{folder} uses {used}");
        }
    }
}
