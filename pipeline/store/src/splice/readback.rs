//! Pages read back to be compared: by the readers of `scan`, which answer
//! queries, and not by those that a splice decodes and encodes with.

use std::ops::Range;

use parquet::basic::{Compression, Encoding, Type};

use super::Stop;
use super::leaf::Shape;
use super::page::{Codec, Kind};
use crate::scan::bits::{Hybrid, read_deltas};
use crate::scan::pages::PADDING;

/// How a page's values are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Form {
    /// Places in the dictionary, or bits.
    #[default]
    Codes,
    Numbers,
    /// So many bytes each.
    Fixed(usize),
    /// Bytes that end where `ends` says.
    Texts,
}

/// A page's levels and values; its buffers serve one page after the other.
#[derive(Debug, Default)]
pub(crate) struct Readback {
    rep: Vec<u32>,
    def: Vec<u32>,
    slots: usize,
    max_def: u32,
    encoding: i32,
    form: Form,
    codes: Vec<u32>,
    numbers: Vec<i64>,
    ends: Vec<usize>,
    /// The page before compression.
    payload: Vec<u8>,
    /// The values' bytes, where they do not lie in the page one after the other.
    bytes: Vec<u8>,
    /// Where they begin in the page, if they do.
    start: Option<usize>,
    /// Numbers of which lengths are made.
    prefixes: Vec<i64>,
}

const SHORT: Stop = Stop::Damaged("a page has fewer values than its header says");

fn length_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize)
}

impl Readback {
    /// A data page, from its header and stored bytes.
    pub(crate) fn read(&mut self, codec: &mut Codec, stored: &[u8], compression: Compression, shape: &Shape) -> Result<(), Stop> {
        let header = codec.read_into(stored, compression, PADDING, &mut self.payload)?;
        if header.kind != Kind::Data {
            return Err(Stop::Damaged("a data page is none"));
        }
        (self.slots, self.encoding, self.max_def) = (header.values, header.encoding, shape.max_def);
        self.decode(shape, header.plain).ok_or(SHORT)
    }

    /// The entries of a dictionary page.
    pub(crate) fn read_dictionary(
        &mut self,
        codec: &mut Codec,
        stored: &[u8],
        compression: Compression,
        shape: &Shape,
    ) -> Result<usize, Stop> {
        let header = codec.read_into(stored, compression, PADDING, &mut self.payload)?;
        if !matches!(header.kind, Kind::Dictionary { .. }) {
            return Err(Stop::Damaged("a chunk's dictionary is no dictionary"));
        }
        (self.slots, self.encoding, self.max_def) = (header.values, Encoding::PLAIN as i32, 0);
        self.rep.clear();
        self.def.clear();
        self.decode_values(shape.physical, 0, header.plain, header.values).ok_or(SHORT)?;
        Ok(header.values)
    }

    fn decode(&mut self, shape: &Shape, end: usize) -> Option<()> {
        let mut at = 0_usize;
        for (max, levels) in [(shape.max_rep, &mut self.rep), (shape.max_def, &mut self.def)] {
            levels.clear();
            if max > 0 {
                let from = at + 4;
                at = from.checked_add(length_at(&self.payload, at)?).filter(|to| *to <= end)?;
                levels.resize(self.slots, 0);
                Hybrid::new(u32::BITS - max.leading_zeros(), from, at)?.read(&self.payload, levels)?;
            }
        }
        let present = if shape.max_def == 0 { self.slots } else { self.def.iter().filter(|level| **level == shape.max_def).count() };
        self.decode_values(shape.physical, at, end, present)
    }

    fn decode_values(&mut self, physical: Type, mut at: usize, end: usize, count: usize) -> Option<()> {
        let is = |encoding: Encoding| encoding as i32 == self.encoding;
        self.start = None;
        let payload = self.payload.as_slice();
        if is(Encoding::RLE_DICTIONARY) || self.encoding == 2 {
            self.form = Form::Codes;
            self.codes.clear();
            self.codes.resize(count, 0);
            if count > 0 {
                let width = u32::from(*payload.get(at)?);
                Hybrid::new(width, at + 1, end)?.read(payload, &mut self.codes)?;
            }
            return Some(());
        }
        match physical {
            Type::BOOLEAN if is(Encoding::PLAIN) => {
                self.form = Form::Codes;
                self.codes.clear();
                let bits = payload.get(at..end)?;
                self.codes.extend(bits.iter().flat_map(|byte| (0..8).map(move |bit| u32::from(byte >> bit & 1))).take(count));
                (self.codes.len() == count).then_some(())
            }
            Type::INT64 if is(Encoding::DELTA_BINARY_PACKED) => {
                self.form = Form::Numbers;
                read_deltas(payload, &mut at, count, &mut self.numbers)?;
                (self.numbers.len() == count).then_some(())
            }
            Type::INT32 | Type::FLOAT if is(Encoding::PLAIN) => self.fixed(4, at, end, count),
            Type::INT64 | Type::DOUBLE if is(Encoding::PLAIN) => self.fixed(8, at, end, count),
            Type::BYTE_ARRAY if is(Encoding::PLAIN) => {
                // The lengths stand between, and are compared with the bytes.
                self.form = Form::Texts;
                self.start = Some(at);
                self.ends.clear();
                let first = at;
                for _ in 0..count {
                    at = (at + 4).checked_add(length_at(payload, at)?).filter(|at| *at <= end)?;
                    self.ends.push(at - first);
                }
                Some(())
            }
            Type::BYTE_ARRAY if is(Encoding::DELTA_LENGTH_BYTE_ARRAY) => {
                self.form = Form::Texts;
                read_deltas(payload, &mut at, count, &mut self.numbers)?;
                self.ends.clear();
                let mut to = 0_usize;
                for length in &self.numbers {
                    to = to.checked_add(usize::try_from(*length).ok()?)?;
                    self.ends.push(to);
                }
                self.start = Some(at);
                (self.ends.len() == count && at.checked_add(to)? <= end).then_some(())
            }
            Type::BYTE_ARRAY if is(Encoding::DELTA_BYTE_ARRAY) => self.prefixed(at, end, count),
            _ => None,
        }
    }

    fn fixed(&mut self, width: usize, at: usize, end: usize, count: usize) -> Option<()> {
        (self.form, self.start) = (Form::Fixed(width), Some(at));
        (at.checked_add(width.checked_mul(count)?)? <= end).then_some(())
    }

    /// What each value shares with the one before it, the lengths of the rests, and the rests.
    fn prefixed(&mut self, mut at: usize, end: usize, count: usize) -> Option<()> {
        let payload = self.payload.as_slice();
        read_deltas(payload, &mut at, count, &mut self.prefixes)?;
        read_deltas(payload, &mut at, count, &mut self.numbers)?;
        if self.prefixes.len() != count || self.numbers.len() != count {
            return None;
        }
        self.form = Form::Texts;
        self.ends.clear();
        self.bytes.clear();
        let mut last = 0;
        for (shared, rest) in self.prefixes.iter().zip(&self.numbers) {
            let (shared, rest) = (usize::try_from(*shared).ok()?, usize::try_from(*rest).ok()?);
            let from = self.bytes.len();
            if shared > from - last {
                return None;
            }
            self.bytes.extend_from_within(last..last + shared);
            self.bytes.extend_from_slice(payload.get(at..at.checked_add(rest)?)?);
            at += rest;
            self.ends.push(self.bytes.len());
            last = from;
        }
        (at <= end).then_some(())
    }

    fn bytes(&self) -> &[u8] {
        self.start.map_or(self.bytes.as_slice(), |start| self.payload.get(start..).unwrap_or_default())
    }

    /// Where a value of [`Form::Texts`] begins.
    fn begins(&self, at: usize) -> Option<usize> {
        if at == 0 { Some(0) } else { self.ends.get(at - 1).copied() }
    }

    /// Whether some values are those of another page; false where there are no such values.
    fn same_values(&self, mine: Range<usize>, other: &Self, theirs: Range<usize>) -> bool {
        let same = || match (self.form, other.form) {
            (Form::Codes, Form::Codes) => Some(self.codes.get(mine.clone())? == other.codes.get(theirs.clone())?),
            (Form::Numbers, Form::Numbers) => Some(self.numbers.get(mine.clone())? == other.numbers.get(theirs.clone())?),
            (Form::Fixed(width), Form::Fixed(same)) if width == same => {
                let places = |range: &Range<usize>| range.start * width..range.end * width;
                Some(self.bytes().get(places(&mine))? == other.bytes().get(places(&theirs))?)
            }
            (Form::Texts, Form::Texts) => {
                let (a, b) = (self.begins(mine.start)?, other.begins(theirs.start)?);
                let (ends, others) = (self.ends.get(mine.clone())?, other.ends.get(theirs.clone())?);
                let lengths = ends.len() == others.len() && ends.iter().zip(others).all(|(end, other)| end - a == other - b);
                let bytes = self.bytes().get(a..self.begins(mine.end)?)? == other.bytes().get(b..other.begins(theirs.end)?)?;
                Some(lengths && bytes)
            }
            _ => None,
        };
        same().unwrap_or(false)
    }

    /// Whether an entry of a dictionary is that of another.
    pub(crate) fn same_entry(&self, other: &Self, at: usize) -> bool {
        self.same_values(at..at + 1, other, at..at + 1)
    }

    /// The dictionary's places that its rows refer to; none where they do not refer to it.
    pub(crate) fn codes(&self) -> &[u32] {
        if self.form == Form::Codes && self.encoding != Encoding::PLAIN as i32 { &self.codes } else { &[] }
    }
}

/// Goes through a page's rows, from the first to the last.
pub(crate) struct Walk<'a> {
    page: &'a Readback,
    /// First level of each row, where rows have several.
    starts: Option<Vec<usize>>,
    row: usize,
    slot: usize,
    value: usize,
}

/// Some neighbouring rows of a page.
pub(crate) struct Span<'a> {
    page: &'a Readback,
    slots: Range<usize>,
    values: Range<usize>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(page: &'a Readback) -> Self {
        let first = |(at, level): (usize, &u32)| (*level == 0).then_some(at);
        let starts = (!page.rep.is_empty()).then(|| page.rep.iter().enumerate().filter_map(first).collect());
        Self { page, starts, row: 0, slot: 0, value: 0 }
    }

    fn rows(&self) -> usize {
        self.starts.as_ref().map_or(self.page.slots, Vec::len)
    }

    /// The next rows; none where there are fewer.
    pub(crate) fn next(&mut self, rows: usize) -> Option<Span<'a>> {
        self.row = self.row.checked_add(rows).filter(|row| *row <= self.rows())?;
        let slot = match &self.starts {
            Some(starts) => starts.get(self.row).copied().unwrap_or(self.page.slots),
            None => self.row,
        };
        let slots = self.slot..slot;
        let values = match self.page.def.get(slots.clone()) {
            Some(levels) if self.page.max_def > 0 => levels.iter().filter(|level| **level == self.page.max_def).count(),
            _ => slots.len(),
        };
        let values = self.value..self.value + values;
        (self.slot, self.value) = (slots.end, values.end);
        Some(Span { page: self.page, slots, values })
    }

    /// How many rows are left.
    pub(crate) fn left(&self) -> usize {
        self.rows() - self.row
    }
}

impl Span<'_> {
    /// Whether these rows are those.
    pub(crate) fn is(&self, other: &Span<'_>) -> bool {
        let levels = |span: &Span<'_>, of: fn(&Readback) -> &Vec<u32>| (!of(span.page).is_empty()).then(|| span.slots.clone());
        let same = |of: fn(&Readback) -> &Vec<u32>| match (levels(self, of), levels(other, of)) {
            (Some(mine), Some(theirs)) => of(self.page).get(mine) == of(other.page).get(theirs),
            (mine, theirs) => mine == theirs,
        };
        self.slots.len() == other.slots.len()
            && self.page.encoding == other.page.encoding
            && same(|page| &page.rep)
            && same(|page| &page.def)
            && self.page.same_values(self.values.clone(), other.page, other.values.clone())
    }

    /// The dictionary's places that these rows refer to.
    pub(crate) fn codes(&self) -> &[u32] {
        self.page.codes().get(self.values.clone()).unwrap_or_default()
    }
}
