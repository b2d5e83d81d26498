//! Texts as small numbers, the same ones for all threads.
//!
//! Dimensions have few values and many rows: a row holds a text's number, and
//! the text is copied once. A generation of dictionaries ends when one of them
//! has become large, so that columns whose every text is new stay bounded too.

use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};

use crate::decode::{Decoded, MEMO_IDS};

/// The number of no text.
pub(crate) const NULL: u32 = 0;
/// Texts of one dictionary, beyond which a new generation begins.
const TEXTS_MAX: usize = 1 << 18;
/// The same in bytes.
const BYTES_MAX: usize = 16 << 20;
/// Numbers that one thread remembers by itself, per column.
const KNOWN_MAX: usize = 1 << 16;

/// The texts of one column; the first has number 1.
#[derive(Default)]
struct Texts {
    hasher: RandomState,
    numbers: HashTable<u32>,
    texts: Vec<Arc<str>>,
    bytes: usize,
}

impl Texts {
    fn find(&self, text: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(text);
        self.numbers.find(hash, |number| &*self.texts[*number as usize - 1] == text).copied()
    }

    fn add(&mut self, text: &str) -> u32 {
        if let Some(number) = self.find(text) {
            return number;
        }
        self.texts.push(text.into());
        self.bytes += text.len();
        let Self { hasher, numbers, texts, .. } = self;
        let number = texts.len() as u32;
        numbers.insert_unique(hasher.hash_one(text), number, |number| hasher.hash_one(&*texts[*number as usize - 1]));
        number
    }
}

/// One generation: a dictionary for each column of text.
pub(crate) struct Dictionaries {
    columns: Vec<RwLock<Texts>>,
}

impl Dictionaries {
    pub(crate) fn new(columns: usize) -> Self {
        Self { columns: (0..columns).map(|_| RwLock::default()).collect() }
    }

    /// The number of a text, which it gets if it has none yet.
    pub(crate) fn number(&self, column: usize, text: &str) -> u32 {
        let found = self.columns[column].read().unwrap_or_else(PoisonError::into_inner).find(text);
        found.unwrap_or_else(|| self.columns[column].write().unwrap_or_else(PoisonError::into_inner).add(text))
    }

    /// The text of a number.
    pub(crate) fn text(&self, column: usize, number: u32) -> Option<Arc<str>> {
        let at = (number as usize).checked_sub(1)?;
        self.columns.get(column)?.read().unwrap_or_else(PoisonError::into_inner).texts.get(at).cloned()
    }

    /// All texts of a column, from number 1 on.
    pub(crate) fn texts(&self, column: usize) -> Vec<Arc<str>> {
        self.columns[column].read().unwrap_or_else(PoisonError::into_inner).texts.clone()
    }

    pub(crate) fn is_large(&self) -> bool {
        self.columns.iter().any(|column| {
            let texts = column.read().unwrap_or_else(PoisonError::into_inner);
            texts.texts.len() > TEXTS_MAX || texts.bytes > BYTES_MAX
        })
    }
}

/// What one thread remembers of a generation, so that it seldom asks.
#[derive(Default)]
pub(crate) struct Known {
    of: Option<Arc<Dictionaries>>,
    /// By column, and by the number that the thread's scratch has for a text; [`NULL`] where it was not asked yet.
    of_memo: Vec<u32>,
    /// By column.
    of_text: Vec<HashMap<Box<str>, u32, RandomState>>,
}

impl Known {
    /// Turns to a generation; what was known of another is forgotten.
    #[inline]
    pub(crate) fn follow(&mut self, dictionaries: &Arc<Dictionaries>) {
        if !self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, dictionaries)) {
            self.of = Some(Arc::clone(dictionaries));
            self.of_memo.clear();
            self.of_memo.resize(dictionaries.columns.len() * MEMO_IDS, NULL);
            self.of_text.clear();
            self.of_text.resize_with(dictionaries.columns.len(), HashMap::default);
        }
    }

    /// The number of a field's text.
    #[inline]
    pub(crate) fn number_of(&mut self, column: usize, event: &Decoded<'_>, field: usize) -> u32 {
        let place = event.memo_id(field).map(|id| column * MEMO_IDS + id as usize);
        match place.and_then(|place| self.of_memo.get(place)) {
            Some(number) if *number != NULL => *number,
            _ => self.ask(column, event, field, place),
        }
    }

    #[inline(never)]
    fn ask(&mut self, column: usize, event: &Decoded<'_>, field: usize, place: Option<usize>) -> u32 {
        let number = self.number(column, event.text(field));
        if let Some(known) = place.and_then(|place| self.of_memo.get_mut(place)) {
            *known = number;
        }
        number
    }

    /// The number of a text.
    pub(crate) fn number(&mut self, column: usize, text: Option<&str>) -> u32 {
        let (Some(text), Some(dictionaries)) = (text, &self.of) else { return NULL };
        let known = &mut self.of_text[column];
        if let Some(number) = known.get(text) {
            return *number;
        }
        let number = dictionaries.number(column, text);
        if known.len() < KNOWN_MAX {
            known.insert(text.into(), number);
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_agree_on_numbers_and_get_texts_back() {
        let dictionaries = Arc::new(Dictionaries::new(2));
        let numbers = |from: usize| -> Vec<(String, u32)> {
            let mut known = Known::default();
            known.follow(&dictionaries);
            let text = |at: usize| format!("t{}", (from + at) % 700);
            (0..2_000).map(|at| (text(at), known.number(1, Some(&text(at))))).collect()
        };
        let all: Vec<(String, u32)> = std::thread::scope(|scope| {
            let threads: Vec<_> = [0, 13, 350].into_iter().map(|from| scope.spawn(move || numbers(from))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
        });
        assert_eq!(all.len(), 6_000);
        for (text, number) in all {
            assert_ne!(number, NULL);
            assert_eq!(dictionaries.text(1, number).as_deref(), Some(text.as_str()));
        }
        assert_eq!(dictionaries.texts(1).len(), 700);
        assert_eq!((dictionaries.text(1, NULL), dictionaries.text(1, 701), dictionaries.texts(0).len()), (None, None, 0));
    }

    #[test]
    fn becomes_large_by_number_and_by_bytes() {
        let many = Dictionaries::new(1);
        for at in 0..=TEXTS_MAX {
            assert!(!many.is_large());
            many.number(0, &at.to_string());
        }
        assert!(many.is_large());
        let long = Dictionaries::new(1);
        long.number(0, &"x".repeat(BYTES_MAX + 1));
        assert!(long.is_large());
    }
}
