//! The stages of an ingest one by one, for `benchmarks/`: no interface.

use std::hint::black_box;
use std::sync::Arc;

use ameles_core::Month;
use ameles_ledger::ConsentBook;
use ameles_store::{SortedEvents, StoreError};
use arrow::array::RecordBatch;

use crate::IngestEnv;
use crate::admission::{Intake, Unhashed, View, Worker};
use crate::batch::{HourlyCounts, Part, RANGE_BITS, Row, SortedBatch};
use crate::decode::Scratch;
use crate::lines::{Line, TextLines};

/// What one thread of an ingest has in hand, with nothing suppressed and nobody's consent withdrawn.
pub struct Stages<'a> {
    env: &'a IngestEnv,
    view: View,
    scratch: Scratch,
    unhashed: Unhashed,
    worker: Worker,
}

/// Admitted events of one chunk.
pub struct Admitted(Part);

impl<'a> Stages<'a> {
    /// With the environment's clock and rules.
    pub fn new(env: &'a IngestEnv) -> Self {
        let view = View::new(Arc::default(), Arc::new(ConsentBook::default()), env.clock.now(), None);
        Self { env, view, scratch: Scratch::default(), unhashed: Unhashed::default(), worker: Worker::new(env.k) }
    }

    /// Cuts lines and checks that they are text; says how many.
    pub fn lines(chunk: &[u8]) -> usize {
        TextLines::new(chunk).map(black_box).count()
    }

    /// The same, and decodes and validates each; says how many are valid.
    pub fn decode(&mut self, chunk: &[u8]) -> usize {
        let mut valid = 0;
        for line in TextLines::new(chunk) {
            if let Line::Text(line, ahead) = line {
                valid += usize::from(black_box(self.env.admission.decoder.decode_text(&mut self.scratch, line, ahead)).is_ok());
            }
        }
        valid
    }

    /// The same, and hashes the identifiers of each, sixteen events at once; says how many were named plainly.
    pub fn decode_and_hash(&mut self, chunk: &[u8]) -> usize {
        let admission = &self.env.admission;
        let mut named = 0;
        let mut row = [Row { device: 0, user: 0, event_key: 0, ts: 0, line: 0 }];
        for line in TextLines::new(chunk) {
            let Line::Text(line, ahead) = line else { continue };
            let Ok(event) = admission.decoder.decode_text(&mut self.scratch, line, ahead) else { continue };
            let Some(identifiers) = admission.plainly_named(&event) else { continue };
            named += 1;
            self.unhashed.put(admission, identifiers, 0, &mut row);
        }
        black_box(row);
        named
    }

    /// All that a worker does: rows in columns at the end.
    pub fn admit(&mut self, chunk: &[u8]) -> Admitted {
        let admission = &self.env.admission;
        let mut part = Part::new("bench".into(), self.view.arrival, 1, &admission.columns, None, 0, 0);
        part.use_room(&mut self.worker.room);
        let mut intake = Intake::new(admission, &mut self.worker, &self.view, None, &mut part);
        for (line, number) in TextLines::new(chunk).zip(1..) {
            intake.line(line, number);
        }
        drop(intake);
        self.worker.room = part.group(RANGE_BITS);
        Admitted(part)
    }

    /// Sorts the rows of a batch, drops repeats and makes columns of them.
    ///
    /// # Errors
    /// When the columns cannot be put together.
    pub fn sort(&self, admitted: Vec<Admitted>) -> Result<Vec<(Month, RecordBatch)>, StoreError> {
        let parts = admitted.into_iter().map(|Admitted(part)| part).collect();
        let sorted = SortedBatch::new(&self.env.contract, &self.env.admission.columns, parts, HourlyCounts::default());
        let mut batches = Vec::new();
        for (at, (month, pieces)) in sorted.months().into_iter().enumerate() {
            for piece in 0..pieces {
                batches.push((month, sorted.piece(at, piece, true)?));
            }
        }
        Ok(batches)
    }
}
