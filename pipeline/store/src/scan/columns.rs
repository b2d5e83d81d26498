//! One column's values, chunk after chunk, as numbers: pseudonyms as 128 bits, texts as codes into the chunk's dictionary.
//!
//! Pages of a chunk may be encoded differently, as a dictionary that grew too large or a page written anew leaves them.

use std::fs::File;
use std::sync::Arc;

use hashbrown::HashMap;

use super::bits::{Hybrid, read_deltas, skip_deltas};
use super::pages::{
    ChunkPlace, DELTA_BINARY_PACKED, DELTA_BYTE_ARRAY, DELTA_LENGTH_BYTE_ARRAY, Header, PLAIN, PLAIN_DICTIONARY, Pages, RLE_DICTIONARY,
    Trouble,
};

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// 16 bytes in each row.
    Pseudonym,
    /// A text or none.
    Text { optional: bool },
    /// 32 bits in each row.
    Int32,
    /// 64 bits in each row.
    Int64,
    /// A list of 32 bits, not empty, in each row; read as one sequence.
    List,
}

/// How the rest of the page at hand is read.
enum Values {
    None,
    Codes(Hybrid),
    Plain {
        at: usize,
    },
    /// Shared prefixes stand in `prefixes`.
    Prefixed {
        next: usize,
        at: usize,
        last: u128,
    },
    Numbers {
        next: usize,
    },
}

pub(crate) struct Column {
    shape: Shape,
    pages: Pages,
    /// Rows, or numbers of lists, left of the page at hand.
    left: usize,
    values: Values,
    prefixes: Vec<u8>,
    numbers: Vec<i64>,
    /// Definition levels of the page at hand; empty where no row is null.
    levels: Vec<u32>,
    next_level: usize,
    words: Vec<u32>,
    /// The chunk's texts; code 0 is no text, `n` is `texts[n - 1]`.
    texts: Vec<String>,
    codes: HashMap<String, u32>,
    scratch: Vec<u32>,
}

/// `HIGH[n]` has the first `n` bytes set.
const HIGH: [u128; 17] = {
    let mut masks = [u128::MAX; 17];
    let mut bytes = 0;
    while bytes < 16 {
        masks[bytes] = !(u128::MAX >> (8 * bytes));
        bytes += 1;
    }
    masks
};

impl Column {
    pub(crate) fn new() -> Self {
        Self {
            shape: Shape::Int32,
            pages: Pages::new(),
            left: 0,
            values: Values::None,
            prefixes: Vec::new(),
            numbers: Vec::new(),
            levels: Vec::new(),
            next_level: 0,
            words: Vec::new(),
            texts: Vec::new(),
            codes: HashMap::new(),
            scratch: Vec::new(),
        }
    }

    pub(crate) fn open(&mut self, file: Arc<File>, path: Arc<str>, (place, shape): (ChunkPlace, Shape)) {
        self.shape = shape;
        self.pages.open(file, path, place);
        (self.left, self.values) = (0, Values::None);
        self.words.clear();
        self.texts.clear();
        self.codes.clear();
    }

    /// The chunk's texts so far: pages to come may add some.
    pub(crate) fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Appends the pseudonyms of `count` rows.
    pub(crate) fn pseudonyms(&mut self, mut count: usize, out: &mut Vec<u128>) -> Result<(), Trouble> {
        while count > 0 {
            let now = self.page()?.min(count);
            let bytes = self.pages.bytes();
            match &mut self.values {
                Values::Prefixed { next, at, last } => {
                    let prefixes = self.prefixes.get(*next..*next + now).ok_or(Trouble::Unexpected)?;
                    let (mut from, mut value) = (*at, *last);
                    let start = out.len();
                    out.resize(start + now, 0);
                    for (prefix, place) in prefixes.iter().zip(out.iter_mut().skip(start)) {
                        let prefix = usize::from(*prefix);
                        let rest = bytes.get(from..).and_then(|bytes| bytes.first_chunk::<16>()).ok_or(Trouble::Unexpected)?;
                        let kept = HIGH.get(prefix).ok_or(Trouble::Unexpected)?;
                        value = (value & kept) | ((u128::from_be_bytes(*rest) >> ((8 * prefix) & 127)) & !kept);
                        *place = value;
                        from += 16 - prefix;
                    }
                    (*next, *at, *last) = (*next + now, from, value);
                }
                // Behind each other where lengths stand apart.
                Values::Plain { at } if self.prefixes.is_empty() => {
                    let values = bytes.get(*at..*at + 16 * now).ok_or(Trouble::Unexpected)?;
                    out.extend(values.as_chunks::<16>().0.iter().map(|value| u128::from_be_bytes(*value)));
                    *at += 16 * now;
                }
                Values::Plain { at } => {
                    let values = bytes.get(*at..*at + 20 * now).ok_or(Trouble::Unexpected)?;
                    for value in values.as_chunks::<20>().0 {
                        let (length, value) = value.split_first_chunk::<4>().ok_or(Trouble::Unexpected)?;
                        if u32::from_le_bytes(*length) != 16 {
                            return Err(Trouble::Unexpected);
                        }
                        out.push(value.first_chunk().map_or(0, |value| u128::from_be_bytes(*value)));
                    }
                    *at += 20 * now;
                }
                _ => return Err(Trouble::Unexpected),
            }
            self.left -= now;
            count -= now;
        }
        Ok(())
    }

    /// Appends the 32 bits of `count` rows or places of lists.
    pub(crate) fn words(&mut self, mut count: usize, out: &mut Vec<u32>) -> Result<(), Trouble> {
        while count > 0 {
            let now = self.page()?.min(count);
            let bytes = self.pages.bytes();
            match &mut self.values {
                Values::Codes(hybrid) => {
                    let start = out.len();
                    out.resize(start + now, 0);
                    let room = out.get_mut(start..).unwrap_or_default();
                    hybrid.read(bytes, room).ok_or(Trouble::Unexpected)?;
                    // Checked at once, so that the look-up has no branches.
                    let (words, greatest) = (self.words.as_slice(), room.iter().fold(0, |most, code| most.max(*code)));
                    if greatest as usize >= words.len() {
                        return Err(Trouble::Unexpected);
                    }
                    for place in room {
                        *place = words.get(*place as usize).copied().unwrap_or_default();
                    }
                }
                Values::Plain { at } => {
                    let values = bytes.get(*at..*at + 4 * now).ok_or(Trouble::Unexpected)?;
                    out.extend(values.as_chunks::<4>().0.iter().map(|value| u32::from_le_bytes(*value)));
                    *at += 4 * now;
                }
                Values::Numbers { next } => {
                    let numbers = self.numbers.get(*next..*next + now).ok_or(Trouble::Unexpected)?;
                    out.extend(numbers.iter().map(|number| *number as u32));
                    *next += now;
                }
                _ => return Err(Trouble::Unexpected),
            }
            self.left -= now;
            count -= now;
        }
        Ok(())
    }

    /// Appends the 64 bits of `count` rows.
    pub(crate) fn long_words(&mut self, mut count: usize, out: &mut Vec<i64>) -> Result<(), Trouble> {
        while count > 0 {
            let now = self.page()?.min(count);
            let bytes = self.pages.bytes();
            match &mut self.values {
                Values::Numbers { next } => {
                    out.extend_from_slice(self.numbers.get(*next..*next + now).ok_or(Trouble::Unexpected)?);
                    *next += now;
                }
                Values::Plain { at } => {
                    let values = bytes.get(*at..*at + 8 * now).ok_or(Trouble::Unexpected)?;
                    out.extend(values.as_chunks::<8>().0.iter().map(|value| i64::from_le_bytes(*value)));
                    *at += 8 * now;
                }
                _ => return Err(Trouble::Unexpected),
            }
            self.left -= now;
            count -= now;
        }
        Ok(())
    }

    /// Appends the codes of the texts of `count` rows: 0 for none, else the place in `texts` and 1.
    pub(crate) fn codes(&mut self, mut count: usize, out: &mut Vec<u32>) -> Result<(), Trouble> {
        while count > 0 {
            let now = self.page()?.min(count);
            let start = out.len();
            out.resize(start + now, 0);
            if self.levels.is_empty() {
                self.dense_codes(out.get_mut(start..).unwrap_or_default())?;
            } else {
                let levels = self.levels.get(self.next_level..self.next_level + now).ok_or(Trouble::Unexpected)?.to_vec();
                self.next_level += now;
                let some = levels.iter().map(|level| *level as usize).sum();
                let mut dense = std::mem::take(&mut self.scratch);
                dense.clear();
                dense.resize(some, 0);
                self.dense_codes(&mut dense)?;
                let mut next = 0;
                for (place, level) in out.iter_mut().skip(start).zip(levels) {
                    if level == 1 {
                        *place = dense.get(next).copied().unwrap_or_default();
                        next += 1;
                    }
                }
                self.scratch = dense;
            }
            self.left -= now;
            count -= now;
        }
        Ok(())
    }

    /// Codes of rows that have a text.
    fn dense_codes(&mut self, out: &mut [u32]) -> Result<(), Trouble> {
        let bytes = self.pages.bytes();
        match &mut self.values {
            Values::Codes(hybrid) => {
                hybrid.read(bytes, out).ok_or(Trouble::Unexpected)?;
                for place in out.iter_mut() {
                    *place += 1;
                }
                let greatest = out.iter().fold(0, |most, code| most.max(*code));
                if greatest as usize > self.texts.len() { Err(Trouble::Unexpected) } else { Ok(()) }
            }
            Values::Plain { at } => {
                // Most chunks have no page that the dictionary has not.
                for (text, code) in self.texts.iter().zip(1..).skip(self.codes.len()) {
                    self.codes.entry_ref(text.as_str()).or_insert(code);
                }
                for place in out {
                    let text = plain_text(bytes, at).ok_or(Trouble::Unexpected)?;
                    *place = match self.codes.get(text) {
                        Some(code) => *code,
                        None => {
                            self.texts.push(text.to_owned());
                            let code = self.texts.len() as u32;
                            self.codes.insert(text.to_owned(), code);
                            code
                        }
                    };
                }
                Ok(())
            }
            _ => Err(Trouble::Unexpected),
        }
    }

    /// Passes over `count` rows (numbers of lists).
    pub(crate) fn skip(&mut self, mut count: usize) -> Result<(), Trouble> {
        while count > 0 {
            if self.left == 0 {
                // A page that nobody wants is not read.
                let header = self.data_header()?;
                if header.values <= count && self.shape != Shape::List {
                    self.pages.skip(&header)?;
                    count -= header.values;
                    continue;
                }
                self.begin(&header)?;
            }
            let now = self.left.min(count);
            match self.shape {
                Shape::Pseudonym => self.pseudonyms(now, &mut Vec::with_capacity(now))?,
                Shape::Int32 | Shape::List => self.words(now, &mut Vec::with_capacity(now))?,
                Shape::Int64 => self.long_words(now, &mut Vec::with_capacity(now))?,
                Shape::Text { .. } => self.codes(now, &mut Vec::with_capacity(now))?,
            }
            count -= now;
        }
        Ok(())
    }

    /// Rows left of the page at hand, of the next one if there are none.
    fn page(&mut self) -> Result<usize, Trouble> {
        while self.left == 0 {
            let header = self.data_header()?;
            self.begin(&header)?;
        }
        Ok(self.left)
    }

    /// The next data page's header; a dictionary before it is read.
    fn data_header(&mut self) -> Result<Header, Trouble> {
        loop {
            let header = self.pages.header()?.ok_or(Trouble::Unexpected)?;
            if !header.is_dictionary {
                return Ok(header);
            }
            self.pages.load(&header)?;
            self.dictionary(&header).ok_or(Trouble::Unexpected)?;
        }
    }

    fn dictionary(&mut self, header: &Header) -> Option<()> {
        let bytes = self.pages.bytes();
        if ![PLAIN, PLAIN_DICTIONARY].contains(&header.encoding) {
            return None;
        }
        match self.shape {
            Shape::Int32 | Shape::List => {
                let values = bytes.get(..header.values.checked_mul(4)?)?;
                self.words.extend(values.as_chunks::<4>().0.iter().map(|value| u32::from_le_bytes(*value)));
            }
            Shape::Text { .. } => {
                let mut at = 0;
                for _ in 0..header.values {
                    self.texts.push(plain_text(bytes, &mut at)?.to_owned());
                }
            }
            // Pseudonyms have no dictionary, times have deltas.
            Shape::Pseudonym | Shape::Int64 => return None,
        }
        (bytes.len() >= self.pages.length()).then_some(())
    }

    fn begin(&mut self, header: &Header) -> Result<(), Trouble> {
        self.pages.load(header)?;
        self.begin_values(header).ok_or(Trouble::Unexpected)
    }

    fn begin_values(&mut self, header: &Header) -> Option<()> {
        let (bytes, end) = (self.pages.bytes(), self.pages.length());
        let mut at = 0;
        self.levels.clear();
        self.next_level = 0;
        let sections = match self.shape {
            Shape::List => 2,
            Shape::Text { optional: true } => 1,
            _ => 0,
        };
        for section in 0..sections {
            let length = u32::from_le_bytes(*bytes.get(at..)?.first_chunk::<4>()?) as usize;
            let (from, to) = (at + 4, at + 4 + length);
            if to > end {
                return None;
            }
            at = to;
            // Which number begins a list follows from the days; no list is empty if each number is there.
            let repetition = self.shape == Shape::List && section == 0;
            let mut hybrid = Hybrid::new(1, from, to)?;
            if repetition || hybrid.is_run_of(bytes, 1, header.values)? {
                continue;
            }
            self.levels.resize(header.values, 0);
            hybrid.read(bytes, &mut self.levels)?;
            if self.levels.iter().all(|level| *level == 1) {
                self.levels.clear();
            } else if self.shape == Shape::List {
                return None;
            }
        }
        self.values = match (header.encoding, self.shape) {
            (RLE_DICTIONARY | PLAIN_DICTIONARY, Shape::Text { .. } | Shape::Int32 | Shape::List) => {
                // A page of nulls alone may have no byte for the width.
                let width = if at < end { u32::from(*bytes.get(at)?) } else { 0 };
                Values::Codes(Hybrid::new(width, at + 1, end)?)
            }
            (PLAIN, Shape::Pseudonym) => {
                self.prefixes.clear();
                self.prefixes.push(0);
                Values::Plain { at }
            }
            (PLAIN, _) => Values::Plain { at },
            (DELTA_BINARY_PACKED, Shape::Int32 | Shape::Int64) => {
                read_deltas(bytes, &mut at, header.values, &mut self.numbers)?;
                if self.numbers.len() != header.values {
                    return None;
                }
                Values::Numbers { next: 0 }
            }
            (DELTA_LENGTH_BYTE_ARRAY, Shape::Pseudonym) => {
                let (count, equal) = skip_deltas(bytes, &mut at)?;
                if count != header.values || equal != Some(16) || end - at != 16 * count {
                    return None;
                }
                self.prefixes.clear();
                Values::Plain { at }
            }
            (DELTA_BYTE_ARRAY, Shape::Pseudonym) => {
                read_deltas(bytes, &mut at, header.values, &mut self.prefixes)?;
                let (count, _) = skip_deltas(bytes, &mut at)?;
                // The rest of each must be what is missing to 16 bytes.
                let rest: usize =
                    self.prefixes.iter().map(|prefix| 16_usize.wrapping_sub(usize::from(*prefix))).fold(0, usize::wrapping_add);
                let anew = self.prefixes.first().is_none_or(|first| *first == 0);
                if !anew
                    || count != header.values
                    || self.prefixes.len() != count
                    || self.prefixes.iter().any(|prefix| *prefix > 16)
                    || end.checked_sub(at)? != rest
                {
                    return None;
                }
                Values::Prefixed { next: 0, at, last: 0 }
            }
            _ => return None,
        };
        self.left = header.values;
        Some(())
    }
}

fn plain_text<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a str> {
    let length = u32::from_le_bytes(*bytes.get(*at..)?.first_chunk::<4>()?) as usize;
    let text = bytes.get(*at + 4..(*at + 4).checked_add(length)?)?;
    *at += 4 + length;
    std::str::from_utf8(text).ok()
}
