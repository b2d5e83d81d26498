//! What a reader of the tree relies on.

use std::path::{Path, PathBuf};

fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
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

#[test]
fn edges_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
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
