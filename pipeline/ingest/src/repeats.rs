//! A batch's repeats of events that were accepted lately: looked up before its
//! commit, its own events remembered after it.

use ameles_core::{Reason, Timestamp};

use crate::batch::Part;
use crate::duplicates::DuplicateError;
use crate::{Checked, DuplicateMemory};

/// What was looked up of a batch, and what is to be remembered of it.
#[derive(Default)]
pub(crate) struct LookedUp {
    checked: Checked,
    /// Part and row of each event looked up.
    places: Vec<(u32, u32)>,
}

impl LookedUp {
    /// Takes out what was accepted before, or earlier in the batch.
    ///
    /// # Errors
    /// When the memory cannot tell.
    pub(crate) fn new(parts: &mut [Part], memory: &mut DuplicateMemory) -> Result<Self, DuplicateError> {
        let mut places = Vec::with_capacity(parts.iter().map(|part| part.rows.len()).sum());
        for (number, part) in (0..).zip(parts.iter_mut()) {
            // A commit moves the rows.
            part.remember_order();
            places.extend((0..).zip(&part.rows).filter(|(at, _)| !part.is_dropped(*at as usize)).map(|(at, _)| (number, at)));
        }
        let row = |(part, at): &(u32, u32)| parts[*part as usize].rows[*at as usize];
        let checked = memory.check(places.iter().map(row).map(|row| (row.device, row.event_key, Timestamp::from_micros(row.ts))))?;
        for (number, (part, at)) in places.iter().enumerate() {
            if checked.is_repeat(number) {
                parts[*part as usize].drop_row(*at as usize, Reason::Duplicate);
            }
        }
        Ok(Self { checked, places })
    }

    /// Whether each event looked up was accepted in the end.
    pub(crate) fn accepted(&self, parts: &[Part]) -> Vec<bool> {
        let kept: Vec<Vec<bool>> = parts.iter().map(Part::kept_in_order).collect();
        self.places.iter().map(|(part, at)| kept[*part as usize][*at as usize]).collect()
    }

    /// Remembers what was accepted.
    ///
    /// # Errors
    /// When the memory is over its bound and cannot spill; they are remembered all the same.
    pub(crate) fn remember(&self, accepted: &[bool], memory: &mut DuplicateMemory, now: Timestamp) -> Result<(), DuplicateError> {
        memory.remember(&self.checked, |place| accepted[place], now)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::Arc;

    use ameles_core::SystemRandom;
    use ameles_ledger::ConsentBook;
    use serde_json::json;

    use super::*;
    use crate::admission::{Intake, View, Worker};
    use crate::batch::{HourlyCounts, SortedBatch};
    use crate::lines::Line;
    use crate::testing::{Home, at, line};

    /// The commit moves rows: whether one was accepted was asked of another that stood in its place.
    #[tokio::test(flavor = "multi_thread")]
    async fn each_accepted_event_of_a_batch_with_repeats_is_remembered() {
        let home = Home::new().await;
        let admission = &home.env.admission;
        let view = View::new(Arc::default(), Arc::new(ConsentBook::default()), at("2018-08-02T00:00:00Z"), None);
        let mut worker = Worker::new(3);
        let mut part = Part::new("test".into(), view.arrival, 1, &admission.columns, None, 8, 0);
        let mut intake = Intake::new(admission, &mut worker, &view, None, &mut part);
        // The months take turns, and every fifth event repeats the one three before it.
        let events: Vec<(usize, String)> = (0..40)
            .map(|number| {
                let number: usize = if number % 5 == 4 { number - 3 } else { number };
                let month = 7 + number % 2;
                (
                    number,
                    line(&format!("d{}", number % 7), &format!("e{number}"), &format!("2018-0{month}-01T00:00:00Z"), "wake", json!({})),
                )
            })
            .collect();
        for ((_, line), number) in events.iter().zip(1..) {
            intake.line(Line::Bytes(line.trim_end().as_bytes()), number);
        }
        drop(intake);
        part.finish();
        let folder = tempfile::tempdir().unwrap();
        let mut memory = DuplicateMemory::new(1 << 20, folder.path(), &SystemRandom).unwrap();
        let mut parts = vec![part];
        let looked_up = LookedUp::new(&mut parts, &mut memory).unwrap();
        let parts = SortedBatch::new(&home.env.contract, &admission.columns, parts, HourlyCounts::default()).into_parts();
        let accepted = looked_up.accepted(&parts);
        let first = |at: usize| events[..at].iter().all(|(before, _)| *before != events[at].0);
        assert_eq!(accepted, (0..events.len()).map(first).collect::<Vec<_>>());
        assert!(accepted.contains(&false));
    }
}
