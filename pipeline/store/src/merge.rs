//! Several sorted runs as one: a heap over their next rows, in bounded memory.
//!
//! Rows are not copied while they are merged: the caller keeps their places and
//! gathers them column by column when it has enough.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{concat, interleave};
use arrow::datatypes::SchemaRef;

use crate::StoreError;
use crate::files::Rows;

/// A row's sort key: two numbers whose order is the order of the columns.
pub(crate) type Key = (u128, u128);

/// Where a row is while its batch is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) slot: u32,
    pub(crate) row: u32,
}

/// The next row in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Next {
    pub(crate) key: Key,
    pub(crate) run: u32,
    pub(crate) place: Place,
    /// The row's number in its run.
    pub(crate) position: u64,
}

/// A batch that rows may point into, with what the caller computes of it once.
struct Slot<E> {
    batch: RecordBatch,
    keys: Vec<Key>,
    extra: E,
    first_position: u64,
}

struct Cursor {
    slot: u32,
    row: u32,
}

/// Merges runs; rows with equal keys come in the order of their runs.
pub(crate) struct Merger<'a, E> {
    runs: Vec<Box<dyn Rows + 'a>>,
    cursors: Vec<Option<Cursor>>,
    slots: Vec<Slot<E>>,
    heap: BinaryHeap<Reverse<(Key, u32)>>,
    read: Box<ReadBatch<'a, E>>,
    started: bool,
}

/// Computes a batch's sort keys and whatever else is wanted of it; the number is the run's.
pub(crate) type ReadBatch<'a, E> = dyn FnMut(usize, &RecordBatch) -> Result<(Vec<Key>, E), StoreError> + Send + 'a;

impl<'a, E> Merger<'a, E> {
    pub(crate) fn new(runs: Vec<Box<dyn Rows + 'a>>, read: Box<ReadBatch<'a, E>>) -> Self {
        let cursors = runs.iter().map(|_| None).collect();
        Self { runs, cursors, slots: Vec::new(), heap: BinaryHeap::new(), read, started: false }
    }

    fn load(&mut self, run: usize) -> Result<Option<Key>, StoreError> {
        let before = self.cursors[run].take().map(|cursor| &self.slots[cursor.slot as usize]);
        let last = before.and_then(|slot| slot.keys.last().copied());
        let first_position = before.map_or(0, |slot| slot.first_position + slot.keys.len() as u64);
        let Some(batch) = self.runs[run].next_batch()? else { return Ok(None) };
        let (keys, extra) = (self.read)(run, &batch)?;
        if last.zip(keys.first().copied()).is_some_and(|(last, first)| first < last) || !keys.is_sorted() {
            return Err(StoreError::File { path: format!("run {run}"), what: "its rows are not sorted".into() });
        }
        let first = keys.first().copied();
        self.cursors[run] = Some(Cursor { slot: self.slots.len() as u32, row: 0 });
        self.slots.push(Slot { batch, keys, extra, first_position });
        Ok(first)
    }

    pub(crate) fn next(&mut self) -> Result<Option<Next>, StoreError> {
        if !self.started {
            self.started = true;
            for run in 0..self.runs.len() {
                if let Some(key) = self.load(run)? {
                    self.heap.push(Reverse((key, run as u32)));
                }
            }
        }
        let Some(Reverse((key, run))) = self.heap.peek().copied() else { return Ok(None) };
        let Some(cursor) = self.cursors[run as usize].as_mut() else { return Ok(None) };
        let slot = &self.slots[cursor.slot as usize];
        let place = Place { slot: cursor.slot, row: cursor.row };
        let next = Next { key, run, place, position: slot.first_position + u64::from(cursor.row) };
        cursor.row += 1;
        let following = match slot.keys.get(cursor.row as usize).copied() {
            Some(key) => Some(key),
            None => self.load(run as usize)?,
        };
        if let Some(mut top) = self.heap.peek_mut() {
            match following {
                Some(key) => top.0.0 = key,
                None => drop(PeekMut::pop(top)),
            }
        }
        Ok(Some(next))
    }

    pub(crate) fn peek(&self) -> Option<Key> {
        self.heap.peek().map(|top| top.0.0)
    }

    pub(crate) fn extra(&self, slot: u32) -> &E {
        &self.slots[slot as usize].extra
    }

    pub(crate) fn array(&self, slot: u32, column: usize) -> &ArrayRef {
        self.slots[slot as usize].batch.column(column)
    }

    /// One column of the rows at `places`.
    pub(crate) fn gather_column(&self, column: usize, places: &[Place]) -> Result<ArrayRef, StoreError> {
        let mut segments: Vec<(u32, u32, u32)> = Vec::new();
        for place in places {
            match segments.last_mut() {
                Some((slot, start, len)) if *slot == place.slot && *start + *len == place.row => *len += 1,
                _ => segments.push((place.slot, place.row, 1)),
            }
        }
        // Long stretches of one run (a settled month with a few new rows) are copied as such.
        if segments.len() * 16 <= places.len() {
            let slices: Vec<ArrayRef> =
                segments.iter().map(|(slot, start, len)| self.array(*slot, column).slice(*start as usize, *len as usize)).collect();
            let slices: Vec<&dyn Array> = slices.iter().map(AsRef::as_ref).collect();
            if !slices.is_empty() {
                return Ok(concat(&slices)?);
            }
        }
        let arrays: Vec<&dyn Array> = self.slots.iter().map(|slot| slot.batch.column(column).as_ref()).collect();
        let indices: Vec<(usize, usize)> = places.iter().map(|place| (place.slot as usize, place.row as usize)).collect();
        Ok(interleave(&arrays, &indices)?)
    }

    /// The rows at `places`, whole.
    pub(crate) fn gather(&self, schema: &SchemaRef, places: &[Place]) -> Result<RecordBatch, StoreError> {
        if places.is_empty() {
            return Ok(RecordBatch::new_empty(Arc::clone(schema)));
        }
        let columns = (0..schema.fields().len()).map(|column| self.gather_column(column, places)).collect::<Result<Vec<_>, _>>()?;
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }

    /// Lets go of batches that no cursor stands in; places kept from before are void.
    pub(crate) fn release(&mut self) {
        let mut kept: Vec<Option<u32>> = vec![None; self.slots.len()];
        let mut in_use = vec![false; self.slots.len()];
        for cursor in self.cursors.iter().flatten() {
            in_use[cursor.slot as usize] = true;
        }
        let mut next = 0;
        for (slot, used) in in_use.iter().enumerate() {
            if *used {
                kept[slot] = Some(next);
                next += 1;
            }
        }
        let mut at = 0;
        self.slots.retain(|_| {
            at += 1;
            in_use[at - 1]
        });
        for cursor in self.cursors.iter_mut().flatten() {
            if let Some(slot) = kept[cursor.slot as usize] {
                cursor.slot = slot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use proptest::prelude::*;

    struct Chunks(Vec<RecordBatch>);
    impl Rows for Chunks {
        fn next_batch(&mut self) -> Result<Option<RecordBatch>, StoreError> {
            Ok(if self.0.is_empty() { None } else { Some(self.0.remove(0)) })
        }
    }

    proptest! {
        #[test]
        fn merges_like_a_stable_sort(runs in proptest::collection::vec(proptest::collection::vec(0_i64..20, 0..40), 0..6), chunk in 1_usize..9, flush in 1_usize..20) {
            let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, false), Field::new("run", DataType::Int64, false)]));
            let mut expected: Vec<(i64, i64)> = Vec::new();
            let mut sources: Vec<Box<dyn Rows>> = Vec::new();
            for (number, mut run) in runs.into_iter().enumerate() {
                run.sort_unstable();
                expected.extend(run.iter().map(|x| (*x, number as i64)));
                let chunks = run.chunks(chunk).map(|part| {
                    let numbers = Int64Array::from(vec![number as i64; part.len()]);
                    RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from(part.to_vec())), Arc::new(numbers)]).unwrap()
                });
                sources.push(Box::new(Chunks(chunks.collect())));
            }
            expected.sort();
            let read = |_: usize, batch: &RecordBatch| Ok((batch.column(0).as_primitive::<Int64Type>().values().iter().map(|x| (*x as u128, 0)).collect(), ()));
            let mut merger = Merger::new(sources, Box::new(read));
            let (mut found, mut places) = (Vec::new(), Vec::new());
            loop {
                let next = merger.next().unwrap();
                places.extend(next.map(|next| next.place));
                if next.is_none() || places.len() >= flush {
                    let rows = merger.gather(&schema, &places).unwrap();
                    let column = |at: usize| rows.column(at).as_primitive::<Int64Type>().values().to_vec();
                    found.extend(column(0).into_iter().zip(column(1)));
                    places.clear();
                    merger.release();
                }
                if next.is_none() { break }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
