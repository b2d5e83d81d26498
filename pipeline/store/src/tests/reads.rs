//! What DataFusion sees of a view.

use std::sync::Arc;

use ameles_schemas::Table;
use arrow::array::RecordBatch;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::support::*;
use crate::{Append, ReadView};

async fn session(view: &Arc<ReadView>) -> SessionContext {
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    for table in tables().tables() {
        session.register_table(table.as_str(), view.provider(table).unwrap()).unwrap();
    }
    session
}

async fn sql(session: &SessionContext, text: &str) -> Vec<String> {
    let batches: Vec<RecordBatch> = session.sql(text).await.unwrap().collect().await.unwrap();
    batches.iter().flat_map(lines_of).collect()
}

async fn world() -> (World, Vec<Event>, Vec<Event>) {
    let world = World::new().await;
    let (july, august) = (month("2018-07"), month("2018-08"));
    let (one, two) = (events(40, 400, 1), events(50, 500, 2_000));
    let mut lease = world.lease().await;
    for at in 0..4 {
        let (one, two) = (&one[at * 100..][..100], &two[at * 125..][..125]);
        let months = vec![(july, batch(&tables(), july, one)), (august, batch(&tables(), august, two))];
        lease.append(Append { events: months, ..Append::default() }, &world.suppressed).await.unwrap();
    }
    settle(&world.maintainer().await, july).await;
    (world, one, two)
}

#[tokio::test]
async fn sql_sees_merged_rows() {
    let (world, one, two) = world().await;
    let session = session(&world.view().await).await;
    let wakes = one.iter().chain(&two).filter(|event| event.kind == "wake").count();
    assert_eq!(
        sql(&session, "SELECT month, count(*) FROM activity GROUP BY month ORDER BY month").await,
        ["2018-07-01 40", "2018-08-01 50"]
    );
    assert_eq!(sql(&session, "SELECT count(*) FROM events").await, ["900"]);
    assert_eq!(
        sql(&session, "SELECT count(*) FROM events WHERE month = DATE '2018-08-01' AND type = 'wake'").await,
        [two.iter().filter(|event| event.kind == "wake").count().to_string()]
    );
    assert_eq!(sql(&session, "SELECT count(*) FROM events WHERE type = 'wake'").await, [wakes.to_string()]);
    assert_eq!(sql(&session, "SELECT sum(w) FROM (SELECT unnest(wakes) AS w FROM activity)").await, [wakes.to_string()]);
    assert_eq!(sql(&session, "SELECT country AS a, country AS b FROM activity WHERE country IS NULL LIMIT 1").await, ["- -"]);
    assert_eq!(sql(&session, "SELECT count(*) FROM (SELECT device FROM activity LIMIT 7)").await, ["7"]);
    assert_eq!(sql(&session, "SELECT count(DISTINCT device) FROM devices JOIN activity USING (device, month)").await.len(), 1);
    // The order of the columns is the query's, and one column comes without those that merging needs.
    let alone = sql(&session, "SELECT month, first_ts FROM activity ORDER BY month, first_ts LIMIT 1").await;
    assert!(alone[0].starts_with("2018-07-01 2018-07-01T"), "{alone:?}");
}

#[tokio::test]
async fn months_are_pruned_and_footers_answer_where_they_can() {
    let (world, ..) = world().await;
    let view = world.view().await;
    let session = session(&view).await;
    let plan = |text: &'static str| {
        let session = session.clone();
        async move { sql(&session, text).await.join("\n") }
    };
    let pruned = plan("EXPLAIN SELECT device FROM activity WHERE month = DATE '2018-07-01'").await;
    assert!(pruned.contains("MonthScan: table=activity, partitions=1"), "{pruned}");
    let counted = plan("EXPLAIN SELECT count(*) FROM events").await;
    assert!(!counted.contains("MonthScan"), "{counted}");
    // August is not settled: its rows have to be merged to be counted.
    let merged = plan("EXPLAIN SELECT count(*) FROM activity").await;
    assert!(merged.contains("MonthScan"), "{merged}");
    let sorted = plan("EXPLAIN SELECT device FROM activity WHERE month = DATE '2018-07-01' ORDER BY device").await;
    assert!(!sorted.contains("SortExec"), "{sorted}");
    let july = month("2018-07");
    assert_eq!(view.exact_rows(Table::Activity, july), Some(40));
    let plain = view.files_for_polars(Table::Activity);
    assert!(plain[0].1.as_ref().is_some_and(|files| files.iter().all(|file| file.exists())) && plain[1].1.is_none());
}

#[tokio::test]
async fn a_pending_user_is_out_of_sql_at_once() {
    let (world, one, two) = world().await;
    world.suppressed.set(suppress(1, &[], &[2]));
    let session = session(&world.view().await).await;
    let seen = one.iter().chain(&two).filter(|event| event.user == Some(2)).count();
    assert!(seen > 0);
    assert_eq!(sql(&session, "SELECT count(*) FROM links").await.len(), 1);
    let counted: usize = sql(&session, "SELECT count(*) FROM events").await[0].parse().unwrap();
    assert!(counted <= 900 - seen);
    let user = hex::encode(user(2).as_bytes());
    assert_eq!(sql(&session, &format!("SELECT count(*) FROM events WHERE \"user\" = X'{user}'")).await, ["0"]);
    assert_eq!(sql(&session, &format!("SELECT count(*) FROM links WHERE \"user\" = X'{user}'")).await, ["0"]);
}

#[tokio::test]
async fn a_stream_of_one_month_names_its_columns() {
    use futures::TryStreamExt;
    let (world, ..) = world().await;
    let view = world.view().await;
    let rows: Vec<RecordBatch> =
        view.month_stream(Table::Activity, month("2018-08"), Some(&["month", "days", "device"])).unwrap().try_collect().await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 50);
    assert_eq!(rows[0].schema().field(1).name(), "days");
    assert!(view.month_stream(Table::Activity, month("2018-08"), Some(&["nothing"])).is_err());
    assert_eq!(view.months(Table::Events).len(), 2);
}
