//! SQL: what an analyst may ask, and what is refused by which rule.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::record_batch::RecordBatch;

use super::fleet::Fleet;
use super::{block_on, engine};
use crate::{Guard, QueryError, SqlLimits};

const K: Guard = Guard::K(5);

fn fleet() -> Fleet {
    Fleet::random(61, 60, true)
}

fn run(sql: &str, guard: Guard) -> Result<Vec<RecordBatch>, QueryError> {
    block_on(engine(&fleet()).run_sql(sql, guard))
}

fn cells(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cell = |column: &arrow::array::ArrayRef| arrow::util::display::array_value_to_string(column, row).unwrap();
            rows.push(batch.columns().iter().map(cell).collect());
        }
    }
    rows
}

#[test]
fn an_analyst_aggregates_and_small_groups_are_dropped() {
    let fleet = fleet();
    let all =
        cells(&run("SELECT country, product, count(DISTINCT device) AS d FROM activity GROUP BY country, product", Guard::None).unwrap());
    let shown = cells(&run("SELECT country, product, count(DISTINCT device) AS d FROM activity GROUP BY country, product", K).unwrap());
    let mut users: BTreeMap<(String, String), std::collections::BTreeSet<u64>> = BTreeMap::new();
    for ((_, _), events) in fleet.by_month() {
        let latest = events.iter().max_by_key(|event| event.order()).unwrap();
        let key = (latest.dims[1].clone().unwrap_or_default(), latest.dims[0].clone().unwrap_or_default());
        users.entry(key).or_default().extend(events.iter().filter_map(|event| event.user));
    }
    let expected = |row: &&Vec<String>| {
        let users = users[&(row[0].clone(), row[1].clone())].len();
        row[2].parse::<u32>().unwrap() >= 5 && (users == 0 || users >= 5)
    };
    let mut expected: Vec<Vec<String>> = all.iter().filter(expected).cloned().collect();
    let mut shown = shown;
    expected.sort();
    shown.sort();
    assert_eq!(shown, expected);
    assert!(shown.len() < all.len() && !shown.is_empty());
}

#[test]
fn what_an_analyst_may_ask() {
    for sql in [
        "SELECT count(*) FROM events",
        "SELECT count(1) AS n, count(DISTINCT device), count(DISTINCT \"user\") FROM events WHERE country = 'DE'",
        "SELECT date_trunc('day', ts) AS day, count(*) FROM events GROUP BY 1 ORDER BY 1 DESC LIMIT 3",
        "SELECT ts::date, type, count(DISTINCT device) FROM events WHERE ts >= '2018-08-01' AND ts < DATE '2018-09-01' GROUP BY 1, 2",
        "SELECT extract(month FROM ts), count(*) FROM events GROUP BY 1",
        "SELECT month, country, count(*) c FROM activity WHERE product IN ('phone', 'tv') OR product IS NULL GROUP BY month, country HAVING count(*) > 7 ORDER BY c",
        "SELECT product, sum(total(wakes)), avg(total(wakes)) FROM activity GROUP BY product",
        "WITH w AS (SELECT upper(country) AS land, device AS d FROM activity WHERE month >= DATE '2018-08-01') SELECT land, count(DISTINCT d) FROM w GROUP BY land",
        "SELECT x.c / 2 AS half FROM (SELECT country, count(*) AS c FROM devices GROUP BY country) x WHERE x.c > 6",
        "SELECT CASE WHEN product = 'phone' THEN 'phone' ELSE 'other' END AS kind, count(*) FROM activity GROUP BY 1",
        "SELECT DISTINCT n FROM (SELECT country, count(*) AS n FROM links l GROUP BY month, 2 - 1 = 1, month) x",
        "SELECT date, value FROM dau ORDER BY date",
        "SELECT country, avg(value) FROM metric('dau', 'country,product', 'product!=tv') GROUP BY ROLLUP (country)",
        "SELECT a.value * 1.0 / b.value FROM dau a JOIN mau28 b USING (date)",
        "SELECT 1 + 1",
    ] {
        match run(sql, K) {
            Ok(batches) => assert!(!batches.is_empty(), "{sql}"),
            // The one about links names columns that are not there.
            Err(error) => assert!(sql.contains("links"), "{sql}: {error}"),
        }
    }
}

#[test]
fn what_is_refused_and_by_which_rule() {
    for (sql, rule) in [
        ("SELECT * FROM events", "rows are aggregated"),
        ("SELECT country FROM activity LIMIT 1", "rows are aggregated"),
        ("SELECT DISTINCT device FROM activity", "rows are aggregated"),
        ("SELECT device, count(*) FROM events GROUP BY device", "pseudonyms are counted and nothing else"),
        ("SELECT count(*) FROM events WHERE device = X'00'", "pseudonyms are counted and nothing else"),
        ("SELECT min(device) FROM events", "aggregates"),
        ("SELECT max(country) FROM events", "aggregates"),
        ("SELECT array_agg(country) FROM events", "aggregates"),
        ("SELECT count(country) FROM events", "aggregates"),
        ("SELECT count(*) FILTER (WHERE country = 'DE') FROM events", "aggregates"),
        ("SELECT count(DISTINCT country) FROM events", "aggregates"),
        ("SELECT sum(props_latency_ms) FROM events", "aggregates"),
        ("SELECT count(*) FROM events GROUP BY ts", "times by day"),
        ("SELECT count(*) FROM events GROUP BY date_trunc('hour', ts)", "times by day"),
        ("SELECT count(*) FROM events WHERE ts < '2018-08-01T00:00:01Z'", "times by day"),
        ("SELECT count(*) FROM events GROUP BY props_latency_ms", "columns"),
        ("SELECT count(*) FROM activity WHERE days = 5", "columns"),
        ("SELECT count(*) FROM activity WHERE total(wakes) > 3", "measures are summed"),
        ("SELECT count(*) FROM activity GROUP BY CAST(country AS INT)", "expressions below the aggregation"),
        ("SELECT count(*) FROM activity WHERE 1 / (CASE WHEN country = 'DE' THEN 0 ELSE 1 END) = 1", "expressions below the aggregation"),
        ("SELECT count(*) FROM activity WHERE random() < 0.5", "functions"),
        ("SELECT count(*) FROM events WHERE ts < '2018-08-01' AT TIME ZONE '-00:01'", "times by day"),
        ("SELECT repeat('x', 1500000000)", "texts of bounded length"),
        ("SELECT max(length(repeat('x', 1500 + value))) FROM generate_series(1, 9000)", "texts of bounded length"),
        ("SELECT lpad('x', 100000)", "texts of bounded length"),
        (
            "SELECT replace(replace(replace(repeat('a', 99), 'a', repeat('b', 99)), 'b', repeat('c', 99)), 'c', 'dd')",
            "texts of bounded length",
        ),
        ("WITH RECURSIVE t(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM t) SELECT max(length(s)) FROM t", "no recursion"),
        ("SELECT country, count(*) FROM activity GROUP BY ROLLUP (country)", "one grouping"),
        ("SELECT avg(c) FROM (SELECT country, count(*) c FROM activity GROUP BY country)", "one aggregation"),
        ("SELECT count(*) FROM (SELECT DISTINCT country FROM activity)", "one aggregation"),
        ("SELECT count(*) FROM (SELECT * FROM activity LIMIT 3)", "no LIMIT or ORDER BY before aggregating"),
        ("SELECT count(*) FROM activity a JOIN devices d ON a.device = d.device", "no joins"),
        ("SELECT count(*) FROM activity UNION ALL SELECT count(*) FROM activity WHERE country <> 'DE'", "no unions"),
        ("SELECT country, count(*) - lag(count(*)) OVER (ORDER BY country) FROM activity GROUP BY country", "no window functions"),
        ("SELECT (SELECT count(*) FROM activity) - value FROM dau", "no subqueries"),
        ("SELECT count(*) FROM activity WHERE device IN (SELECT device FROM devices)", "no subqueries"),
        ("SELECT count(*) - (SELECT count(*) FROM activity WHERE country = 'DE') FROM activity", "no subqueries"),
        ("EXPLAIN SELECT count(*) FROM activity", "only SELECT"),
        ("EXPLAIN ANALYZE SELECT count(*) FROM activity", "only SELECT"),
        ("SET datafusion.execution.batch_size = 1", "only SELECT"),
        ("CREATE TABLE t AS SELECT * FROM activity", "only SELECT"),
        ("INSERT INTO activity SELECT * FROM activity", "only SELECT"),
        ("COPY activity TO '/tmp/x.csv'", "only SELECT"),
    ] {
        match run(sql, K) {
            Err(QueryError::Refused { rule: found, place }) => assert_eq!(found, rule, "{sql}: {place}"),
            other => panic!("{sql}: {:?}", other.map(|batches| cells(&batches))),
        }
    }
}

/// What fails on a row tells of it, by its message or by failing at all: casts that the engine adds did.
#[test]
fn nothing_below_the_aggregation_fails_on_a_row() {
    let conditions = [
        "CASE WHEN country NOT IN ('DE') THEN concat(country, '|', product) ELSE '1' END = 1",
        "CASE WHEN country = 'DE' THEN 'x' ELSE '1' END = 1",
        "CASE WHEN country = 'DE' THEN CAST('x' AS INT) ELSE 1 END = 1",
        "CASE WHEN country = 'DE' THEN date_trunc('day', 'x') ELSE NULL END IS NULL",
        "country = 5",
        "country < 5",
        "country BETWEEN 1 AND 5",
        "country IN (1, 2)",
        "country IS DISTINCT FROM 5",
        "country = DATE '2018-07-01'",
        "country = TIMESTAMP '2018-07-01 00:00:00'",
        "month = country",
        "coalesce(country, 1) = 1",
        "nullif(country, DATE '2018-07-01') IS NULL",
        "CASE country WHEN 1 THEN true ELSE false END",
        "concat(country, 5) = 5",
        "country || 5 = 5",
        "date_trunc('day', country) = DATE '2018-07-01'",
        "date_part('year', country) = 2018",
    ];
    for condition in conditions {
        for sql in [
            format!("SELECT count(*) FROM activity WHERE {condition}"),
            format!("SELECT count(*) FROM activity GROUP BY {condition}"),
            format!("SELECT count(*) FROM (SELECT {condition} AS c FROM activity) WHERE c"),
        ] {
            match run(&sql, K) {
                Err(QueryError::Refused { rule, place }) => {
                    assert_eq!(rule, "expressions below the aggregation", "{sql}: {place}");
                    assert!(!place.contains("phone"), "{sql}: {place}");
                }
                // Text compared with text.
                Ok(_) => assert!(["country IN (1, 2)", "coalesce(country, 1) = 1"].contains(&condition), "{sql}"),
                Err(error) => panic!("{sql}: {error}"),
            }
        }
    }
}

/// `count(*)` less `count(DISTINCT device)` are the rows of devices that have several.
#[test]
fn counts_of_a_row_do_not_differ_by_a_few() {
    let pairs =
        ["count(*), count(DISTINCT device)", "count(DISTINCT \"user\"), count(DISTINCT device)", "count(*), count(DISTINCT \"user\")"];
    let (mut kept, mut dropped) = (0, 0);
    for pair in pairs {
        let sql = format!("SELECT {pair}, country, product, type FROM events GROUP BY country, product, type");
        let all = cells(&run(&sql, Guard::None).unwrap());
        let shown = cells(&run(&sql, K).unwrap());
        let alone = cells(&run(&sql.replace(pair, pair.split_once(',').unwrap().0), K).unwrap());
        for row in &shown {
            let difference = row[0].parse::<i64>().unwrap().abs_diff(row[1].parse().unwrap());
            assert!(difference == 0 || difference >= 5, "{pair}: {row:?}");
        }
        assert!(shown.iter().all(|row| all.contains(row)));
        kept += shown.len();
        dropped += alone.len() - shown.len();
    }
    assert!(kept > 0 && dropped > 0, "{kept} {dropped}");
}

/// What a caller types wrong is a caller's error, and stays out of the log.
#[test]
fn a_statement_that_fails_is_its_callers_and_not_quoted_in_a_log() {
    for sql in [
        "SELECT regexp_like('x', '(800000002492')",
        "SELECT 'x' ~ '(800000002492'",
        "SELECT date_part('u800000002492', now())",
        "SELECT date_trunc('u800000002492', now())",
        "SELECT arrow_cast('x', 'Foo800000002492')",
        "SELECT to_timestamp('x', '%Q800000002492')",
        "SELECT split_part('800000002492', 'b', 0)",
        "SELECT decode('800000002492z', 'hex')",
        "SELECT chr(-1)",
        "SELECT $1",
        "SELECT (SELECT value FROM dau)",
        "SELECT 1 / 0",
    ] {
        let error = run(sql, K).unwrap_err();
        assert!(error.is_callers_fault(), "{sql}: {error:?}");
        assert!(!error.for_log().contains("800000002492"), "{sql}: {}", error.for_log());
    }
}

#[test]
fn files_are_out_of_reach_for_everybody() {
    for sql in [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "DROP TABLE activity",
        "SELECT * FROM information_schema.tables",
    ] {
        assert!(run(sql, Guard::None).is_err(), "{sql}");
        assert!(run(sql, K).is_err(), "{sql}");
    }
    // What explains rejections is for the operator alone.
    let explained = "SELECT count(*) FROM quarantine";
    assert!(run(explained, K).is_err());
}

#[test]
fn an_error_above_the_aggregation_tells_nothing_of_groups_that_were_dropped() {
    let sql = "SELECT country, product, month, count(*) AS c FROM activity GROUP BY country, product, month";
    let sizes: Vec<i64> = cells(&run(sql, Guard::None).unwrap()).iter().map(|row| row[3].parse().unwrap()).collect();
    let small = sizes.into_iter().find(|size| *size < 5).unwrap();
    let probe = format!("{sql} HAVING 1 / (count(*) - {small}) < 5");
    assert!(run(&probe, Guard::None).is_err());
    run(&probe, K).unwrap();
}

#[test]
fn the_operator_runs_any_select_within_limits() {
    let batches = run(
        "SELECT a.device, sum(total(a.wakes)) FROM activity a JOIN devices d ON a.device = d.device GROUP BY 1 ORDER BY 1",
        Guard::None,
    )
    .unwrap();
    assert!(batches.iter().map(RecordBatch::num_rows).sum::<usize>() > 40);
    let sums = cast(batches[0].column(1), &DataType::Int64).unwrap();
    assert!(sums.as_primitive::<Int64Type>().is_valid(0));
    let limits = SqlLimits { rows_max: 10, ..SqlLimits::default() };
    let error = block_on(engine(&fleet()).with_limits(limits).run_sql("SELECT * FROM events", Guard::None)).unwrap_err();
    assert!(matches!(error, QueryError::TooManyRows { rows: 10 }));
    let limits = SqlLimits { timeout: std::time::Duration::ZERO, ..SqlLimits::default() };
    let error =
        block_on(engine(&fleet()).with_limits(limits).run_sql("SELECT count(*) FROM generate_series(1, 2000000000) a", Guard::None))
            .unwrap_err();
    assert!(matches!(error, QueryError::TimedOut { .. }), "{error}");
}

/// A call with arguments of other types was told as a bug of the engine, to be reported to its makers.
#[test]
fn what_is_typed_wrong_is_told_in_words() {
    let told = |sql: &str| run(sql, K).unwrap_err().to_string();
    assert!(told("SELECT sum(country) FROM activity").starts_with("No function matches"));
    assert_eq!(told("SELECT count(*) FROM nothing"), "table 'nothing' not found");
    assert_eq!(told("SELEC 1"), "sql parser error: Expected: an SQL statement, found: SELEC at Line: 1, Column: 1");
}
