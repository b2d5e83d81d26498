//! Texts found valid before, by field, each with a number of its own.
//!
//! Kept texts have few values: once checked, one is known again by comparing
//! sixteen bytes. Numbers count from 0 per field and stay as long as the memo.

use hashbrown::HashMap;

use super::literal::short_text;

/// Texts remembered per field: their numbers are below.
pub(crate) const MEMO_IDS: usize = 4096;
/// Longer ones are not remembered.
const TEXT_BYTES_MAX: usize = 64;
/// Places of the first table of a field.
const PLACES_MIN: usize = 64;
/// Loose enough that nearly every text stands at its first place.
const PLACES_PER_TEXT: usize = 4;
/// Places looked at for one text: what makes a bad distribution, chosen or met by chance, cost no more.
const PROBES_MAX: usize = 8;
/// What spreads texts over places: 2^64 divided by the golden ratio, made odd.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Multiples of it that are tried, for at most so many texts: with four places for each, one in about e^(texts / 8) fits.
const SPREADS_MAX: u64 = 200;
const SPREAD_TEXTS_MAX: usize = 40;

/// Texts by field. None of them is an identifier: only kept fields are given.
#[derive(Debug, Default)]
pub(super) struct Memo {
    fields: Vec<Texts>,
}

#[derive(Debug, Default)]
struct Texts {
    /// Texts of up to 16 bytes as numbers, and their ids; 0 is a free place, since
    /// no JSON text holds a zero byte unescaped.
    places: Vec<(u128, u32)>,
    /// What spreads texts over places: odd, and such that each has its first place, if such a number was found.
    spread: u64,
    /// The places are numbered by what is left of the product when it is shifted by this.
    shift: u32,
    longer: HashMap<Box<str>, u32, foldhash::fast::RandomState>,
    texts: Vec<Box<str>>,
}

impl Memo {
    /// The number of a text in a line.
    pub(super) fn find(&self, field: usize, line: &str, start: usize, end: usize) -> Option<u32> {
        match short_text(line.as_bytes(), start, end) {
            Some(short) => self.short(field, short),
            None => self.longer(field, &line[start..end]),
        }
    }

    /// The number of a text of 1 to 16 bytes, see [`short_text`](super::literal::short_text).
    #[inline(always)]
    pub(super) fn short(&self, field: usize, text: u128) -> Option<u32> {
        let texts = self.fields.get(field)?;
        let from = place(text, texts.spread, texts.shift);
        // The first place nearly always has it.
        match texts.places.get(from) {
            Some((key, id)) if *key == text => Some(*id),
            Some(_) => texts.later_place(text, from),
            None => None,
        }
    }

    /// The number of a longer text.
    pub(super) fn longer(&self, field: usize, text: &str) -> Option<u32> {
        self.fields.get(field).and_then(|texts| texts.longer.get(text)).copied()
    }

    /// Remembers a valid text that is not known yet; `short` if it has at most
    /// 16 bytes. `None` where there is no room for it.
    pub(super) fn insert(&mut self, field: usize, text: &str, short: Option<u128>) -> Option<u32> {
        if self.fields.len() <= field {
            self.fields.resize_with(field + 1, Texts::default);
        }
        self.fields[field].insert(text, short)
    }

    /// The text of a number.
    pub(super) fn text(&self, field: usize, id: u32) -> Option<&str> {
        self.fields.get(field)?.texts.get(id as usize).map(AsRef::as_ref)
    }
}

impl Texts {
    #[inline(never)]
    fn later_place(&self, text: u128, from: usize) -> Option<u32> {
        let mask = self.places.len() - 1;
        let found = (from..from + PROBES_MAX).map(|at| self.places[at & mask]).find(|(key, _)| *key == text);
        found.map(|(_, id)| id)
    }

    fn insert(&mut self, text: &str, short: Option<u128>) -> Option<u32> {
        if self.texts.len() >= MEMO_IDS || text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let id = self.texts.len() as u32;
        match short {
            Some(0) => return None,
            Some(key) => {
                if self.texts.len() * PLACES_PER_TEXT >= self.places.len() {
                    self.grow();
                }
                self.put(key, id).then_some(())?;
                self.spread_apart();
            }
            None => {
                self.longer.insert(text.into(), id);
            }
        }
        self.texts.push(text.into());
        Some(id)
    }

    fn put(&mut self, key: u128, id: u32) -> bool {
        let mask = self.places.len().wrapping_sub(1);
        let from = place(key, self.spread, self.shift);
        let Some(at) = (from..from + PROBES_MAX).map(|at| at & mask).find(|at| self.places[*at].0 == 0) else {
            return false;
        };
        self.places[at] = (key, id);
        true
    }

    /// Looks for a number by which each text has its first place, so that none is looked for twice. Few texts find one soon.
    fn spread_apart(&mut self) {
        if self.texts.len() >= SPREAD_TEXTS_MAX {
            return;
        }
        let taken: Vec<(u128, u32)> = self.places.iter().copied().filter(|(key, _)| *key != 0).collect();
        let mut places = vec![(0, 0); self.places.len()];
        let tried = (1..=SPREADS_MAX).map(|turn| SPREAD.wrapping_mul(2 * turn + 1));
        for spread in std::iter::once(self.spread).chain(tried) {
            places.fill((0, 0));
            let apart = taken.iter().all(|(key, id)| {
                let place = &mut places[place(*key, spread, self.shift)];
                std::mem::replace(place, (*key, *id)).0 == 0
            });
            if apart {
                (self.places, self.spread) = (places, spread);
                return;
            }
        }
    }

    /// Twice the places, or more where a text finds none among its own.
    fn grow(&mut self) {
        let old: Vec<(u128, u32)> = self.places.iter().copied().filter(|(key, _)| *key != 0).collect();
        let mut places = (self.places.len() * 2).max(PLACES_MIN);
        loop {
            self.places = vec![(0, 0); places];
            (self.spread, self.shift) = (SPREAD, u64::BITS - places.trailing_zeros());
            // A text that was in the smaller table could be lost in this one only by a crowd around it.
            if old.iter().all(|(key, id)| self.put(*key, *id)) || places > MEMO_IDS * 2 * PLACES_PER_TEXT {
                return;
            }
            places *= 2;
        }
    }
}

/// Where a text is looked for first.
#[inline(always)]
const fn place(text: u128, spread: u64, shift: u32) -> usize {
    let halves = text as u64 ^ ((text >> 64) as u64).rotate_left(29);
    // The product's highest bits depend on all bytes.
    (halves.wrapping_mul(spread) >> shift) as usize
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn find(memo: &Memo, field: usize, text: &str) -> Option<u32> {
        match short_text(format!("{text}\"{:16}", "").as_bytes(), 0, text.len()) {
            Some(short) => memo.short(field, short),
            None => memo.longer(field, text),
        }
    }

    fn insert(memo: &mut Memo, field: usize, text: &str) -> Option<u32> {
        let short = short_text(format!("{text}\"{:16}", "").as_bytes(), 0, text.len());
        memo.insert(field, text, short)
    }

    #[test]
    fn a_full_memo_knows_what_it_has_and_takes_no_more() {
        let mut memo = Memo::default();
        let texts: Vec<String> =
            (0..2 * MEMO_IDS).map(|number| format!("{}text {number}", if number % 5 == 0 { "a longer kind of " } else { "" })).collect();
        let ids: Vec<Option<u32>> = texts.iter().map(|text| insert(&mut memo, 2, text)).collect();
        assert_eq!(ids.iter().flatten().count(), MEMO_IDS);
        assert!(ids.iter().flatten().copied().eq(0..MEMO_IDS as u32), "numbers count from 0 without gaps");
        for (text, id) in texts.iter().zip(ids) {
            assert_eq!(find(&memo, 2, text), id, "{text}");
            assert_eq!(id.and_then(|id| memo.text(2, id)), id.map(|_| text.as_str()));
        }
        // Nearly all of them stand at their first place.
        let Texts { places, spread, shift, .. } = &memo.fields[2];
        let texts_at_home = places.iter().enumerate().filter(|(at, (key, _))| *key != 0 && place(*key, *spread, *shift) == *at);
        assert!(texts_at_home.count() > MEMO_IDS / 2);
        assert_eq!(find(&memo, 1, "text 1"), None);
        assert_eq!(find(&memo, 3, "text 1"), None);
    }

    #[test]
    fn few_texts_each_have_their_first_place() {
        for seed in 0..40 {
            let mut memo = Memo::default();
            for number in 0..SPREAD_TEXTS_MAX / 2 {
                let text = format!("m{:04}", seed * 1_000 + number * 7);
                assert_eq!(insert(&mut memo, 0, &text), Some(number as u32));
                let Texts { places, spread, shift, .. } = &memo.fields[0];
                let away = places.iter().enumerate().filter(|(at, (key, _))| *key != 0 && place(*key, *spread, *shift) != *at);
                assert_eq!(away.count(), 0, "{text}");
            }
        }
    }

    #[test]
    fn a_text_too_long_is_not_remembered() {
        let mut memo = Memo::default();
        assert_eq!(insert(&mut memo, 0, &"x".repeat(TEXT_BYTES_MAX + 1)), None);
        assert_eq!(insert(&mut memo, 0, &"x".repeat(TEXT_BYTES_MAX)), Some(0));
        assert_eq!(memo.insert(0, "", None), Some(1));
    }

    proptest! {
        #[test]
        fn every_text_keeps_its_number(texts in prop::collection::vec("[ab\u{e9}]{1,20}", 0..300)) {
            let mut memo = Memo::default();
            let mut known: Vec<(String, u32)> = Vec::new();
            for text in texts {
                let before = known.iter().find(|(known, _)| *known == text).map(|(_, id)| *id);
                prop_assert_eq!(find(&memo, 0, &text), before);
                if before.is_none() && let Some(id) = insert(&mut memo, 0, &text) {
                    prop_assert_eq!(id as usize, known.len());
                    known.push((text, id));
                }
            }
            for (text, id) in &known {
                prop_assert_eq!(find(&memo, 0, text), Some(*id));
                prop_assert_eq!(memo.text(0, *id), Some(text.as_str()));
            }
        }
    }
}
