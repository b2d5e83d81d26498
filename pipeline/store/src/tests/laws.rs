//! Rolling up any partition of a month's events and merging equals rolling up all at once.

use std::sync::Arc;

use ameles_schemas::Table;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use proptest::prelude::*;

use super::support::*;
use crate::files::{InMemory, Rows};
use crate::fold::Folded;
use crate::rollup::roll_up;

fn fold(table: Table, parts: Vec<RecordBatch>) -> RecordBatch {
    let schema = tables().file_schema(table);
    let sources: Vec<Box<dyn Rows>> = parts.into_iter().map(|part| Box::new(InMemory(Some(part))) as Box<dyn Rows>).collect();
    let mut folded = Folded::new(&tables(), table, Arc::clone(&schema), sources);
    let mut batches = Vec::new();
    while let Some(batch) = folded.next_batch().unwrap() {
        batches.push(batch);
    }
    concat_batches(&schema, &batches).unwrap()
}

/// Few devices, days and times, so that keys meet; an event's key is its own.
fn some_events() -> impl Strategy<Value = Vec<Event>> {
    let one = (0_u32..4, 0_i64..8, proptest::option::of(0_u32..3), 0_usize..3, 0_usize..3);
    proptest::collection::vec(one, 0..40).prop_map(|all| {
        let events = all.into_iter().enumerate().map(|(number, (device, at, user, kind, country))| Event {
            device,
            at: at * 40_000,
            user,
            kind: ["activate", "wake", "heartbeat"][kind],
            key: Some(number as u32 * 2_654_435),
            country: [Some("DE"), Some("FR"), None][country],
            latency: None,
        });
        events.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn partial_rows_merge_to_the_whole(all in some_events(), owners in proptest::collection::vec(0_usize..5, 40), order in Just((0..5).collect::<Vec<usize>>()).prop_shuffle()) {
        let july = month("2018-07");
        let whole = roll_up(&tables(), july, &batch(&tables(), july, &all)).unwrap();
        let model = Model::of(july, &all);
        let parts: Vec<_> = order.iter().map(|part| {
            let mine: Vec<Event> = all.iter().zip(&owners).filter(|(_, owner)| *owner == part).map(|(event, _)| *event).collect();
            roll_up(&tables(), july, &batch(&tables(), july, &mine)).unwrap()
        }).collect();
        for table in [Table::Activity, Table::Links, Table::Devices] {
            let rows = |part: &crate::rollup::RolledUp| part.of(table).unwrap().clone();
            let expected = rows(&whole);
            let merged = fold(table, parts.iter().map(rows).collect());
            prop_assert_eq!(&merged, &expected, "commutative");
            // Some merged before the others, as a compaction would.
            let (left, right) = parts.split_at(2);
            let nested = vec![fold(table, left.iter().map(rows).collect()), fold(table, right.iter().map(rows).collect())];
            prop_assert_eq!(&fold(table, nested), &expected, "associative");
            let lines: Vec<String> = lines_of(&expected).into_iter().map(|line| format!("{line} 2018-07-01")).collect();
            prop_assert_eq!(lines, model.rows(table));
        }
    }
}

#[test]
fn equal_times_without_keys_are_told_apart_whatever_the_order() {
    let july = month("2018-07");
    let one = Event { key: None, country: Some("DE"), kind: "activate", ..event(1, 50, 1) };
    let two = Event { country: Some("FR"), ..one };
    let part = |event: Event| roll_up(&tables(), july, &batch(&tables(), july, &[event])).unwrap();
    for table in [Table::Activity, Table::Devices] {
        let rows = |event: Event| part(event).of(table).unwrap().clone();
        assert_eq!(fold(table, vec![rows(one), rows(two)]), fold(table, vec![rows(two), rows(one)]));
    }
}
