//! Each query file's answers on one fixed fleet, kept in `queries/golden`.
//! `AMELES_BLESS=1 cargo test` writes them anew.

use std::collections::BTreeSet;
use std::path::Path;

use super::fleet::Fleet;
use super::{block_on, engine};
use crate::{Format, Guard, MetricRequest, Unit, format_batches, template};

fn requests() -> Vec<(&'static str, MetricRequest)> {
    let by = |name: &str| MetricRequest::named(name).by(["country"]);
    let users = |name: &str| MetricRequest { unit: Unit::User, ..by(name) };
    vec![
        ("activations.sql", by("activations")),
        ("installed_base.sql", by("installed_base")),
        ("installed_base_active_in.sql", MetricRequest { active_in: Some(30), ..by("installed_base") }),
        ("dau.sql", by("dau")),
        ("dau_users.sql", users("dau")),
        ("rolling.sql", by("wau")),
        ("rolling_users.sql", users("mau28")),
        ("stickiness.sql", by("stickiness")),
        ("stickiness_users.sql", users("stickiness")),
        ("mau.sql", by("mau")),
        ("mau_users.sql", users("mau")),
        ("measure.sql", by("wakes")),
        ("retention.sql", by("retention")),
        ("growth.sql", by("growth")),
    ]
}

#[test]
fn each_query_file_gives_its_golden_answer() {
    let fleet = Fleet::random(7, 40, true);
    let engine = engine(&fleet);
    let folder = std::path::PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("golden");
    let bless = std::env::var_os("AMELES_BLESS").is_some();
    let requests = requests();
    let files: BTreeSet<&str> = requests.iter().map(|(file, _)| *file).collect();
    assert_eq!(files, template::ALL.iter().map(|file| file.name).collect(), "a query file without a golden answer");
    for (file, request) in requests {
        for (guard, ending) in [(Guard::None, "csv"), (Guard::K(4), "k4.csv")] {
            let batch = block_on(engine.run_metric(&request, guard)).unwrap();
            let mut answer = Vec::new();
            format_batches(&[batch], Format::Csv, &mut answer).unwrap();
            let path = folder.join(Path::new(file).with_extension(ending));
            if bless {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, &answer).unwrap();
            }
            let golden = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; AMELES_BLESS=1 writes it", path.display()));
            assert!(answer == golden, "{} differs:\n{}", path.display(), String::from_utf8_lossy(&answer));
        }
    }
}
