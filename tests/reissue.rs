//! Closed months before and after erasures, as an analyst and as the operator see them.

use crate::support::{Home, event};

const DEVICES: u64 = 240;

fn device(number: u64) -> String {
    format!("81000000{number:04}")
}

/// Two countries alike: all in July and August, three quarters in September.
fn fleet() -> String {
    let mut lines = String::new();
    let mut id = 0;
    for number in 0..DEVICES {
        let country = if number % 2 == 0 { "DE" } else { "FR" };
        for (day, kind) in [("07-02", "activate"), ("07-09", "wake"), ("08-03", "wake"), ("08-20", "wake"), ("09-04", "wake")] {
            if day != "09-04" || number % 8 < 6 {
                id += 1;
                lines += &event(id, &device(number), None, kind, &format!("2018-{day}T10:00:00Z"))
                    .replace("\"country\":\"DE\"", &format!("\"country\":\"{country}\""));
            }
        }
    }
    lines
}

fn erase(home: &Home, numbers: std::ops::Range<u64>) {
    let csv = numbers.fold("kind,identifier\n".to_owned(), |csv, number| csv + &format!("device,{}\n", device(number)));
    home.ok(&["erase", "submit", "--file", home.file("erase.csv", csv).to_str().unwrap()]);
}

const QUESTIONS: [&[&str]; 8] = [
    &["mau"],
    &["mau", "--by", "country"],
    &["dau"],
    &["growth"],
    &["retention", "--by", "country"],
    &["installed_base"],
    &["wakes", "--grain", "month"],
    &["stickiness", "--by", "country"],
];

fn answers(home: &Home, k: Option<&str>) -> Vec<String> {
    let more: Vec<&str> = k.into_iter().flat_map(|k| ["--k", k]).collect();
    QUESTIONS.iter().map(|question| home.ok(&[&["metric"], *question, &["--format", "csv"], &more].concat())).collect()
}

#[test]
fn closed_months_are_issued_anew_when_enough_devices_have_changed() {
    let home = Home::new();
    home.ingest(&home.file("a.ndjson", fleet()));
    let issued = answers(&home, None);
    assert!(issued.iter().all(|answer| answer.lines().count() > 1), "{issued:?}");
    assert_eq!(issued[0], answers(&home, Some("1"))[0]);

    // Three: nothing changes for an analyst, pending or carried out, at the command line or over HTTP; all does for the operator.
    erase(&home, 0..3);
    assert_eq!(answers(&home, None), issued);
    home.ok(&["erase", "run"]);
    assert_eq!(answers(&home, None), issued);
    for (analyst, operator) in issued.iter().zip(answers(&home, Some("1"))) {
        assert_ne!(*analyst, operator);
    }
    let server = home.serve();
    let token = home.json(&["token", "create", "a", "--role", "analyst"])["token"].as_str().unwrap().to_owned();
    let get = |path: &str| {
        let request = ureq::get(server.url(path)).header("Authorization", format!("Bearer {token}")).header("Accept", "text/csv");
        let mut response = request.call().unwrap();
        let held_back = response.headers().get("ameles-held-back").map(|months| months.to_str().unwrap().to_owned());
        (response.body_mut().read_to_string().unwrap(), held_back)
    };
    for _ in 0..2 {
        assert_eq!(get("/v1/metrics/mau"), (issued[0].clone(), None));
        assert_eq!(get("/v1/metrics/mau?by=country"), (issued[1].clone(), None));
    }
    let sql = home.ok(&["sql", "SELECT sum(value) AS n FROM mau", "--format", "csv"]);
    assert_eq!(sql.lines().nth(1), Some("660"), "{sql}");
    // Nobody has asked this before: its sum would tell how many are gone.
    let (by_product, held_back) = get("/v1/metrics/mau?by=product");
    assert_eq!(by_product.lines().count(), 1, "{by_product}");
    assert_eq!(held_back.as_deref(), Some("2018-07,2018-08,2018-09"));

    // Eighty-seven more, at least ten in every respect: all is issued anew.
    erase(&home, 3..90);
    let anew = answers(&home, None);
    assert_eq!(anew, answers(&home, Some("2")), "another k is another series, and sees the same");
    for (before, after) in issued.iter().zip(&anew) {
        assert_ne!(before, after);
    }
    home.ok(&["erase", "run"]);
    assert_eq!(anew, answers(&home, None));
    assert_eq!(get("/v1/metrics/mau").0, anew[0]);
    assert_eq!(get("/v1/metrics/mau?by=product").0.lines().count(), 4);
    server.stop();
}

#[test]
fn a_first_question_after_an_erasure_and_a_backfill_get_the_present_numbers() {
    let home = Home::new();
    let lines = fleet();
    let half = lines.lines().count() / 2 / 10 * 10;
    let part = |lines: Vec<&str>| lines.join("\n") + "\n";
    home.ingest(&home.file("a.ndjson", part(lines.lines().take(half).collect())));
    erase(&home, 0..2);
    home.ok(&["erase", "run"]);
    // Nothing had been issued: what the tables hold is told. Afterwards the other half of the fleet comes in.
    let by_country = ["metric", "mau", "--by", "country", "--format", "csv"];
    let first = home.ok(&by_country);
    assert_eq!(first, home.ok(&[&by_country[..], &["--k", "1"]].concat()));
    home.ingest(&home.file("b.ndjson", part(lines.lines().skip(half).collect())));
    let second = home.ok(&by_country);
    assert_ne!(first, second);
    assert_eq!(second, home.ok(&[&by_country[..], &["--k", "1"]].concat()));
}
