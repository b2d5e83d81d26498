//! The consent stamp, as it was written before: most events of a stream carry the
//! very same one, which is known again by comparing its bytes.

use zeroize::Zeroize;

use super::{Known, Scratch, Slot, Text, bit};

/// A longer one is read anew each time.
const BYTES_MAX: usize = 256;
/// So is a shorter one: it is compared sixteen bytes at a time.
const WORD_BYTES: usize = 16;
/// So many more that were others than that were the same, and none is remembered any more.
const OTHERS_MAX: u32 = 1 << 10;

/// The stamp remembered, and what it held. It has no identifiers: a contract that
/// declares one within the stamp has none of its stamps remembered.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    /// From brace to brace, as written.
    text: Vec<u8>,
    /// Its fields; where they refer to the line, counted from the stamp's beginning.
    slots: Vec<(usize, Slot)>,
    valid: u64,
    items: Vec<Text>,
    /// How many were remembered before.
    number: u64,
    /// How many more were others than were the same.
    others: u32,
    /// The present line has this one.
    pub(super) here: bool,
}

/// Purposes are whatever was sent.
impl Drop for Stamp {
    fn drop(&mut self) {
        self.text.zeroize();
    }
}

/// What stood in the scratch where an object began.
pub(super) struct Before {
    start: usize,
    items: usize,
    unescaped: usize,
    undeclared: u64,
}

impl Stamp {
    /// The number of the present line's stamp: the same number, the same stamp.
    pub(super) fn number(&self) -> Option<u64> {
        self.here.then_some(self.number)
    }

    /// Whether it stands there.
    #[inline]
    fn stands_at(&self, line: &[u8], start: usize) -> bool {
        let Some(text) = line.get(start..start + self.text.len()) else { return false };
        let same = |(one, other): (&[u8; WORD_BYTES], &[u8; WORD_BYTES])| u128::from_le_bytes(*one) == u128::from_le_bytes(*other);
        let (words, known) = (text.as_chunks().0, self.text.as_chunks().0);
        // The last word overlaps the one before it.
        words.iter().zip(known).all(same) && text.last_chunk().zip(self.text.last_chunk()).is_some_and(same)
    }
}

impl Scratch {
    /// Takes the stamp at `start` where it is the one remembered, whose fields have been forgotten; gives its length.
    #[inline]
    pub(super) fn same_stamp(&mut self, line: &str, start: usize) -> Option<usize> {
        if !self.stamp.stands_at(line.as_bytes(), start) {
            return None;
        }
        let (from, items) = (start as u32, self.items.len() as u32);
        self.items.extend(self.stamp.items.iter().map(|item| Text { start: item.start + from, end: item.end + from, ..*item }));
        for (field, slot) in &self.stamp.slots {
            self.slots[*field] = match *slot {
                Slot::Text(text) => Slot::Text(Text { start: text.start + from, end: text.end + from, ..text }),
                Slot::Known(known) => Slot::Known(Known { start: known.start + from, end: known.end + from, ..known }),
                Slot::List(first, last) => Slot::List(first + items, last + items),
                other => other,
            };
        }
        self.valid |= self.stamp.valid;
        self.stamp.here = true;
        self.stamp.others = self.stamp.others.saturating_sub(1);
        Some(self.stamp.text.len())
    }

    /// An object begins, which may be a stamp that is not the one remembered.
    pub(super) fn before_stamp(&self, start: usize) -> Before {
        Before { start, items: self.items.len(), unescaped: self.text.len(), undeclared: self.undeclared_count }
    }

    /// Remembers the stamp that ends at `end`, if all that it holds was found valid and stands in the line itself.
    pub(super) fn remember_stamp(&mut self, line: &str, before: &Before, end: usize, fields: &[usize]) {
        self.stamp.here = false;
        self.stamp.others = self.stamp.others.saturating_add(1);
        let length = end - before.start;
        let plain = self.text.len() == before.unescaped && self.undeclared_count == before.undeclared;
        let there = || fields.iter().filter(|field| self.slots[**field] != Slot::Missing);
        let valid = there().fold(0, |all, field| all | bit(*field));
        if !plain
            || !(WORD_BYTES..=BYTES_MAX).contains(&length)
            || self.stamp.others > OTHERS_MAX
            || there().any(|field| self.valid & bit(*field) == 0)
        {
            return;
        }
        let (from, items) = (before.start as u32, before.items as u32);
        let slots = there().map(|field| {
            let slot = match self.slots[*field] {
                Slot::Text(text) => Slot::Text(Text { start: text.start - from, end: text.end - from, ..text }),
                Slot::Known(known) => Slot::Known(Known { start: known.start - from, end: known.end - from, ..known }),
                Slot::List(first, last) => Slot::List(first - items, last - items),
                other => other,
            };
            (*field, slot)
        });
        self.stamp = Stamp {
            text: line.as_bytes()[before.start..end].to_vec(),
            slots: slots.collect(),
            valid,
            items: self.items[before.items..].iter().map(|item| Text { start: item.start - from, end: item.end - from, ..*item }).collect(),
            number: self.stamp.number.wrapping_add(1),
            others: self.stamp.others,
            here: true,
        };
    }
}
