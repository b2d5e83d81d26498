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
        for (number, part) in (0..).zip(parts.iter()) {
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
        self.places.iter().map(|(part, at)| !parts[*part as usize].is_dropped(*at as usize)).collect()
    }

    /// Remembers what was accepted.
    ///
    /// # Errors
    /// When the memory is over its bound and cannot spill; they are remembered all the same.
    pub(crate) fn remember(&self, accepted: &[bool], memory: &mut DuplicateMemory, now: Timestamp) -> Result<(), DuplicateError> {
        memory.remember(&self.checked, |place| accepted[place], now)
    }
}
