#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::sync::Arc;

use ameles_core::{Month, Reason, Timestamp};
use ameles_ledger::ConsentBook;
use ameles_store::SortedEvents;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use serde_json::json;

use super::*;
use crate::admission::{Intake, View, Worker};
use crate::lines::Line;
use crate::testing::{Home, at, line};

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_sorted_by_month_device_and_time_without_repeats() {
    let home = Home::new().await;
    let admission = &home.env.admission;
    let view = View::new(Arc::default(), Arc::new(ConsentBook::default()), at("2018-09-01T00:00:00Z"), None);
    let mut worker = Worker::new(3);
    let mut parts: Vec<Part> = Vec::new();
    let mut number = 0_u64;
    for chunk in 0..5 {
        let mut part = Part::new("test".into(), view.arrival, 1, &admission.columns, home.env.contract.roles().partner, 8, 0);
        for _ in 0..200 {
            number += 1;
            // A linear congruence: all orders mixed up, every 10th a repeat of the one 3 before it.
            let mixed = if number.is_multiple_of(10) { number - 3 } else { number } * 7919 % 1009;
            let ts = Timestamp::from_secs(1_530_403_200 + mixed as i64 * 5_000).to_string();
            let text = line(&format!("d{}", mixed % 13), &format!("e{mixed}"), &ts, "wake", json!({"model": format!("m{mixed}")}));
            Intake::new(admission, &mut worker, &view, None, &mut part).line(Line::Bytes(text.trim_end().as_bytes()), number);
        }
        part.finish();
        assert_eq!(part.tally.accepted(), 200, "{chunk}");
        parts.push(part);
    }
    let sorted = SortedBatch::new(&home.env.contract, &home.env.admission.columns, parts, HourlyCounts::default());
    let events: Vec<(Month, RecordBatch)> = sorted
        .months()
        .iter()
        .enumerate()
        .map(|(at, (month, pieces))| {
            (*month, {
                assert_eq!(*pieces, 1);
                sorted.piece(at, 0, true).unwrap()
            })
        })
        .collect();
    let rows: usize = events.iter().map(|(_, batch)| batch.num_rows()).sum();
    let counts = sorted.quarantine().unwrap().unwrap();
    let counted: i64 = arrow::compute::sum(counts.column_by_name("count").unwrap().as_primitive::<Int64Type>()).unwrap();
    let parts = sorted.into_parts();
    let repeats: u64 = parts.iter().map(|part| part.tally.rejected(Reason::Duplicate)).sum();
    assert_eq!(counted as u64, repeats);
    assert_eq!((rows, repeats), (900, 100));
    assert_eq!(parts.iter().map(Part::kept).sum::<usize>(), 900);
    assert!(events.len() > 1);
    for (month, batch) in events {
        let devices = batch.column(0).as_binary::<i32>();
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
        let models = arrow::compute::cast(batch.column_by_name("model").unwrap(), &DataType::Utf8).unwrap();
        let models = models.as_string::<i32>();
        let keys: Vec<_> = (0..batch.num_rows()).map(|row| (devices.value(row), times.value(row))).collect();
        assert!(keys.is_sorted());
        for row in 0..batch.num_rows() {
            let ts = Timestamp::from_micros(times.value(row));
            assert_eq!(ts.month(), month);
            // The other columns have moved with their row.
            assert_eq!(models.value(row), format!("m{}", (ts.secs() - 1_530_403_200) / 5_000));
            assert!(models.is_valid(row));
        }
    }
}

/// Plain identifiers wait for each other, others are hashed at once; users may be missing.
#[tokio::test(flavor = "multi_thread")]
async fn rows_have_the_keys_that_each_event_would_have_alone() {
    let home = Home::new().await;
    let admission = &home.env.admission;
    let mut text = String::new();
    let mut names = Vec::new();
    for number in 0..100 {
        let device = match number % 7 {
            3 => format!(" d{number} "),
            5 => format!("d{number}-{}", "x".repeat(60)),
            _ => format!("d{number}"),
        };
        let user = (number % 3 != 0).then(|| format!("u{number}"));
        let event_id = format!("e{number}{}", if number % 11 == 4 { "-".repeat(60) } else { String::new() });
        // Asks for its device until enough have sent it.
        let extra = json!({"user_id": user, "event_id": event_id, "undeclared": number});
        text += &line(&device, "e", "2018-07-01T00:00:00Z", "wake", extra);
        names.push((device.trim().to_owned(), user));
    }
    let view = View::new(Arc::default(), Arc::new(ConsentBook::default()), at("2018-09-01T00:00:00Z"), None);
    let mut worker = Worker::new(3);
    for _ in 0..2 {
        let mut part = Part::new("test".into(), view.arrival, 1, &admission.columns, None, 8, 0);
        let mut intake = Intake::new(admission, &mut worker, &view, None, &mut part);
        for (line, number) in text.lines().zip(1..) {
            intake.line(Line::Bytes(line.as_bytes()), number);
        }
        drop(intake);
        assert_eq!(part.rows.len(), names.len());
        let mut event_keys = std::collections::HashSet::new();
        for (number, (row, (device, user))) in part.rows.iter().zip(&names).enumerate() {
            assert_eq!(row.device_id(), home.device(device), "{number}");
            assert_eq!(row.user_id(), user.as_deref().map(|user| home.user(user)), "{number}");
            assert!(row.event_key != 0 && event_keys.insert(row.event_key), "{number}");
            assert_eq!(row.line, number as u32);
        }
    }
}
