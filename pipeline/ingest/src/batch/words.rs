//! The words of a part's rows: see `ColumnSet`.
//!
//! A part is filled with words of 32 bits. When its rows have found their places
//! each word is cut to the bytes that its largest value in the part needs, which
//! is one for most texts: a batch of millions of rows waits for its commit in
//! less memory.

use std::ops::Range;

const WORD_BYTES: usize = size_of::<u32>();

/// Words of rows, one row after the other.
pub(super) struct Words {
    per_row: usize,
    whole: Vec<u32>,
    /// Instead of whole ones.
    packed: Option<Packed>,
}

struct Packed {
    fields: Vec<Field>,
    row_bytes: usize,
    /// So many more than the rows that the last word can be read whole.
    bytes: Vec<u8>,
}

/// Where a word stands in a row, and which bits there are its own.
#[derive(Clone, Copy)]
struct Field {
    offset: usize,
    mask: u32,
}

impl Words {
    /// None yet; `room` is used for them.
    pub(super) fn new(per_row: usize, rows: usize, mut room: Vec<u32>) -> Self {
        room.clear();
        room.reserve(rows * per_row);
        Self { per_row, whole: room, packed: None }
    }

    /// Words of a row.
    pub(super) const fn per_row(&self) -> usize {
        self.per_row
    }

    /// The words of so many rows, whole.
    pub(super) fn whole(&mut self, rows: usize) -> &mut Vec<u32> {
        if let Some(packed) = self.packed.take() {
            packed.read(0..rows, &mut self.whole);
        }
        &mut self.whole
    }

    /// Packs the words of so many rows in another order; where they were before comes back.
    pub(super) fn pack(&mut self, order: &[u32]) -> Vec<u32> {
        let whole = std::mem::take(self.whole(order.len()));
        self.packed = Some(Packed::new(&whole, self.per_row, order));
        whole
    }

    /// Appends the words of some rows.
    pub(super) fn read(&self, rows: Range<usize>, to: &mut Vec<u32>) {
        match &self.packed {
            Some(packed) => packed.read(rows, to),
            None => to.extend_from_slice(&self.whole[rows.start * self.per_row..rows.end * self.per_row]),
        }
    }

    /// One word of a row.
    pub(super) fn word(&self, row: usize, word: usize) -> u32 {
        match &self.packed {
            Some(packed) => packed.fields[word].read(packed.row(row)),
            None => self.whole[row * self.per_row + word],
        }
    }

    /// Gives back room that was set aside for more.
    pub(super) fn shrink(&mut self) {
        self.whole.shrink_to_fit();
    }

    /// Bytes kept in memory.
    pub(super) fn memory(&self) -> usize {
        self.whole.capacity() * WORD_BYTES + self.packed.as_ref().map_or(0, |packed| packed.bytes.capacity())
    }
}

impl Packed {
    fn new(words: &[u32], per_row: usize, order: &[u32]) -> Self {
        let mut any = vec![0_u32; per_row];
        for row in words.chunks_exact(per_row.max(1)) {
            any.iter_mut().zip(row).for_each(|(any, word)| *any |= word);
        }
        let mut row_bytes = 0;
        let field = |any: u32| {
            let bytes = WORD_BYTES - any.leading_zeros() as usize / 8;
            let mask = u32::MAX.checked_shr(8 * (WORD_BYTES - bytes) as u32).unwrap_or(0);
            row_bytes += bytes;
            Field { offset: row_bytes - bytes, mask }
        };
        let fields: Vec<Field> = any.into_iter().map(field).collect();
        let mut bytes = vec![0; order.len() * row_bytes + WORD_BYTES];
        for (row, at) in order.iter().enumerate() {
            let to = &mut bytes[row * row_bytes..][..row_bytes + WORD_BYTES];
            for (word, field) in words[*at as usize * per_row..][..per_row].iter().zip(&fields) {
                // What is too much is zero, or written over by what comes behind it.
                to[field.offset..][..WORD_BYTES].copy_from_slice(&word.to_le_bytes());
            }
        }
        Self { fields, row_bytes, bytes }
    }

    fn read(&self, rows: Range<usize>, to: &mut Vec<u32>) {
        let (first, per_row) = (to.len(), self.fields.len());
        to.resize(first + rows.len() * per_row, 0);
        for (row, to) in rows.zip(to[first..].chunks_exact_mut(per_row.max(1))) {
            let from = self.row(row);
            to.iter_mut().zip(&self.fields).for_each(|(word, field)| *word = field.read(from));
        }
    }

    fn row(&self, row: usize) -> &[u8] {
        &self.bytes[row * self.row_bytes..][..self.row_bytes + WORD_BYTES]
    }
}

impl Field {
    fn read(self, row: &[u8]) -> u32 {
        row[self.offset..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word) & self.mask)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Words that need no byte at all up to four.
    fn word() -> impl Strategy<Value = u32> {
        (any::<u32>(), 0..=32_u32).prop_map(|(word, bits)| word.checked_shr(bits).unwrap_or(0))
    }

    proptest! {
        #[test]
        fn packed_words_are_the_same_in_the_order_wanted(
            rows in (0..18_usize).prop_flat_map(|per_row| prop::collection::vec(prop::collection::vec(word(), per_row), 1..40)),
            seed in any::<u64>(),
        ) {
            let per_row = rows[0].len();
            let mut order: Vec<u32> = (0..rows.len() as u32).collect();
            order.sort_by_key(|at| seed.wrapping_mul(u64::from(*at) + 1) >> 32);
            let flat: Vec<u32> = rows.iter().flatten().copied().collect();
            let mut words = Words::new(per_row, 0, Vec::new());
            *words.whole(0) = flat.clone();
            let room = words.pack(&order);
            prop_assert_eq!(room, flat);
            let wanted: Vec<u32> = order.iter().flat_map(|at| rows[*at as usize].iter().copied()).collect();
            for start in 0..rows.len() {
                let mut read = vec![7];
                words.read(start..rows.len(), &mut read);
                prop_assert_eq!(&read[1..], &wanted[start * per_row..]);
                for word in 0..per_row {
                    prop_assert_eq!(words.word(start, word), wanted[start * per_row + word]);
                }
            }
            prop_assert_eq!(words.whole(rows.len()), &wanted);
        }
    }
}
