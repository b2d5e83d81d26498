//! Rows of one leaf column, between decoding and encoding: levels and values as
//! Parquet knows them, so that neither text nor list has to become anything else
//! on the way from the old page to the new one.

use std::cmp::Ordering;
use std::ops::Range;

use parquet::basic::{ConvertedType, Encoding, LogicalType, Type};
use parquet::schema::types::ColumnDescriptor;

use super::Stop;
use super::decode::{Texts, deltas, hybrid, length, length_texts, plain_texts, prefix_texts, take};
use crate::encode::bits::{put_deltas, put_equal_deltas, put_hybrid, width_of};

/// How values compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    Bit,
    Int32,
    Int64,
    Float,
    Double,
    Bytes,
}

/// What a leaf column is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) physical: Type,
    pub(crate) order: Order,
    pub(crate) max_rep: u32,
    pub(crate) max_def: u32,
    /// Bytes of a value; none where they vary.
    width: Option<usize>,
    /// The bytes are text.
    pub(crate) text: bool,
}

impl Shape {
    pub(crate) fn of(column: &ColumnDescriptor) -> Result<Self, Stop> {
        let unsigned = matches!(
            column.converted_type(),
            ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64
        ) || matches!(column.logical_type_ref(), Some(LogicalType::Integer(integer)) if !integer.is_signed);
        if unsigned || matches!(column.logical_type_ref(), Some(LogicalType::Decimal(_) | LogicalType::Float16)) {
            return Err(Stop::Unsupported("a column's values compare in another way than their bytes or numbers"));
        }
        let (order, width) = match column.physical_type() {
            Type::BOOLEAN => (Order::Bit, Some(1)),
            Type::INT32 => (Order::Int32, Some(4)),
            Type::INT64 => (Order::Int64, Some(8)),
            Type::FLOAT => (Order::Float, Some(4)),
            Type::DOUBLE => (Order::Double, Some(8)),
            Type::BYTE_ARRAY => (Order::Bytes, None),
            Type::INT96 | Type::FIXED_LEN_BYTE_ARRAY => return Err(Stop::Unsupported("a column is of a type that no table has")),
        };
        let level = |level: i16| u32::try_from(level).unwrap_or_default();
        let (max_rep, max_def) = (level(column.max_rep_level()), level(column.max_def_level()));
        let text = column.converted_type() == ConvertedType::UTF8 || matches!(column.logical_type_ref(), Some(LogicalType::String));
        Ok(Self { physical: column.physical_type(), order, max_rep, max_def, width, text })
    }

    /// The order of two values; none where one is no number.
    pub(crate) fn compare(&self, a: &[u8], b: &[u8]) -> Option<Ordering> {
        fn number<const N: usize, T>(bytes: &[u8], read: fn([u8; N]) -> T) -> Option<T> {
            bytes.first_chunk().map(|chunk| read(*chunk))
        }
        match self.order {
            Order::Bit | Order::Bytes => Some(a.cmp(b)),
            Order::Int32 => Some(number(a, i32::from_le_bytes)?.cmp(&number(b, i32::from_le_bytes)?)),
            Order::Int64 => Some(number(a, i64::from_le_bytes)?.cmp(&number(b, i64::from_le_bytes)?)),
            Order::Float => number(a, f32::from_le_bytes)?.partial_cmp(&number(b, f32::from_le_bytes)?),
            Order::Double => number(a, f64::from_le_bytes)?.partial_cmp(&number(b, f64::from_le_bytes)?),
        }
    }
}

/// Values without nulls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Values {
    /// Places in the chunk's dictionary.
    Codes(Vec<u32>),
    /// Numbers in little-endian order; truth values as one byte each.
    Fixed { width: usize, bytes: Vec<u8> },
    /// Texts and other bytes.
    Texts(Texts),
}

impl Values {
    pub(crate) fn empty(shape: &Shape) -> Self {
        match shape.width {
            Some(width) => Self::Fixed { width, bytes: Vec::new() },
            None => Self::Texts(Texts::default()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Codes(codes) => codes.len(),
            Self::Fixed { width, bytes } => bytes.len() / width,
            Self::Texts(texts) => texts.ends.len(),
        }
    }

    /// A value's bytes; none of codes.
    pub(crate) fn get(&self, at: usize) -> &[u8] {
        match self {
            Self::Codes(_) => &[],
            Self::Fixed { width, bytes } => bytes.get(at * width..(at + 1) * width).unwrap_or_default(),
            Self::Texts(texts) => texts.get(at),
        }
    }

    pub(crate) fn push(&mut self, value: &[u8]) {
        match self {
            Self::Codes(_) => {}
            Self::Fixed { bytes, .. } => bytes.extend_from_slice(value),
            Self::Texts(texts) => texts.push(value),
        }
    }

    fn append(&mut self, from: &Self, range: Range<usize>) -> Result<(), Stop> {
        const CUT: Stop = Stop::Damaged("a page has fewer values than rows");
        match (self, from) {
            (Self::Codes(to), Self::Codes(from)) => to.extend_from_slice(from.get(range).ok_or(CUT)?),
            (Self::Fixed { width, bytes: to }, Self::Fixed { bytes: from, .. }) => {
                to.extend_from_slice(from.get(range.start * *width..range.end * *width).ok_or(CUT)?);
            }
            (Self::Texts(to), Self::Texts(from)) => {
                let ends = from.ends.get(range.clone()).ok_or(CUT)?;
                let start = range.start.checked_sub(1).and_then(|before| from.ends.get(before)).copied().unwrap_or(0);
                let base = to.bytes.len();
                to.ends.extend(ends.iter().map(|end| base + end - start));
                to.bytes.extend_from_slice(from.bytes.get(start..ends.last().copied().unwrap_or(start)).ok_or(CUT)?);
            }
            _ => return Err(Stop::Damaged("values of two kinds do not go into one page")),
        }
        Ok(())
    }
}

/// Rows of a leaf column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Leaf {
    /// Repetition levels; none where nothing repeats.
    pub(crate) rep: Vec<u32>,
    /// Definition levels; none where each row has a value.
    pub(crate) def: Vec<u32>,
    /// Levels, or values where there are none: nulls are among them.
    pub(crate) slots: usize,
    pub(crate) values: Values,
}

impl Leaf {
    pub(crate) fn empty(values: Values) -> Self {
        Self { rep: Vec::new(), def: Vec::new(), slots: 0, values }
    }

    pub(crate) fn nulls(&self) -> usize {
        self.slots - self.values.len()
    }

    /// Decodes a data page's payload of `slots` values, nulls among them.
    pub(crate) fn decode(shape: &Shape, payload: &[u8], slots: usize, encoding: i32) -> Result<Self, Stop> {
        let mut at = 0;
        let mut levels = |max: u32| -> Result<Vec<u32>, Stop> {
            if max == 0 {
                return Ok(Vec::new());
            }
            let bytes = length(payload, &mut at)?;
            hybrid(take(payload, &mut at, bytes)?, width_of(max), slots)
        };
        let (rep, def) = (levels(shape.max_rep)?, levels(shape.max_def)?);
        let present = if shape.max_def == 0 { slots } else { def.iter().filter(|level| **level == shape.max_def).count() };
        let rest = payload.get(at..).unwrap_or_default();
        Ok(Self { rep, def, slots, values: decode_values(shape, rest, present, encoding)? })
    }

    /// Appends the payload of a data page; the encoding is that of the page that these rows come from.
    pub(crate) fn encode(&self, shape: &Shape, encoding: i32, dictionary_len: usize, out: &mut Vec<u8>) -> Result<(), Stop> {
        for (levels, max) in [(&self.rep, shape.max_rep), (&self.def, shape.max_def)] {
            if max > 0 {
                let start = out.len();
                out.extend([0; 4]);
                put_hybrid(out, levels, width_of(max));
                let length = u32::try_from(out.len() - start - 4).map_err(|_| Stop::Damaged("a page is too large"))?;
                out[start..start + 4].copy_from_slice(&length.to_le_bytes());
            }
        }
        encode_values(&self.values, encoding, dictionary_len, out)
    }
}

fn decode_values(shape: &Shape, bytes: &[u8], count: usize, encoding: i32) -> Result<Values, Stop> {
    let is = |wanted: Encoding| wanted as i32 == encoding;
    if is(Encoding::RLE_DICTIONARY) || encoding == 2 {
        let Some((width, codes)) = bytes.split_first() else {
            return if count == 0 { Ok(Values::Codes(Vec::new())) } else { Err(Stop::Damaged("a page has no codes")) };
        };
        return Ok(Values::Codes(hybrid(codes, u32::from(*width), count)?));
    }
    match (shape.width, shape.physical) {
        (None, _) if is(Encoding::PLAIN) => Ok(Values::Texts(plain_texts(bytes, count)?)),
        (None, _) if is(Encoding::DELTA_LENGTH_BYTE_ARRAY) => Ok(Values::Texts(length_texts(bytes, count)?)),
        (None, _) if is(Encoding::DELTA_BYTE_ARRAY) => Ok(Values::Texts(prefix_texts(bytes, count)?)),
        (Some(width), Type::BOOLEAN) if is(Encoding::PLAIN) => {
            let bit = |at: usize| bytes.get(at / 8).map(|byte| byte >> (at % 8) & 1);
            let bits = (0..count).map(bit).collect::<Option<Vec<u8>>>().ok_or(Stop::Damaged("a page ends within its values"))?;
            Ok(Values::Fixed { width, bytes: bits })
        }
        (Some(width), physical) if is(Encoding::PLAIN) && physical != Type::BOOLEAN => {
            Ok(Values::Fixed { width, bytes: take(bytes, &mut 0, count * width)?.to_vec() })
        }
        (Some(width), Type::INT64) if is(Encoding::DELTA_BINARY_PACKED) => {
            let values = deltas(bytes, &mut 0, count)?;
            if values.len() != count {
                return Err(Stop::Damaged("a page has another number of values than its header says"));
            }
            let mut bytes = vec![0; values.len() * width];
            for (place, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *place = value.to_le_bytes();
            }
            Ok(Values::Fixed { width, bytes })
        }
        _ => Err(Stop::Unsupported("a page has an encoding that is not written here")),
    }
}

fn encode_values(values: &Values, encoding: i32, dictionary_len: usize, out: &mut Vec<u8>) -> Result<(), Stop> {
    let is = |wanted: Encoding| wanted as i32 == encoding;
    match values {
        Values::Codes(codes) => {
            let width = width_of(u32::try_from(dictionary_len.saturating_sub(1)).unwrap_or(u32::MAX));
            out.push(width as u8);
            put_hybrid(out, codes, width);
        }
        Values::Fixed { bytes, .. } if is(Encoding::DELTA_BINARY_PACKED) => {
            let numbers: Vec<i64> = bytes.as_chunks().0.iter().map(|chunk| i64::from_le_bytes(*chunk)).collect();
            put_deltas(out, &numbers);
        }
        Values::Fixed { width: 1, bytes } => {
            out.extend(bytes.chunks(8).map(|bits| bits.iter().rev().fold(0_u8, |byte, bit| byte << 1 | bit & 1)));
        }
        Values::Fixed { bytes, .. } => out.extend_from_slice(bytes),
        Values::Texts(texts) if is(Encoding::PLAIN) => plain(texts, out),
        Values::Texts(texts) if is(Encoding::DELTA_LENGTH_BYTE_ARRAY) => {
            let lengths: Vec<i32> = (0..texts.ends.len()).map(|at| texts.get(at).len() as i32).collect();
            put_lengths(out, &lengths);
            out.extend_from_slice(&texts.bytes);
        }
        Values::Texts(texts) if is(Encoding::DELTA_BYTE_ARRAY) => {
            let (mut prefixes, mut lengths, mut suffixes) = (Vec::new(), Vec::new(), Vec::new());
            let mut last: &[u8] = &[];
            for at in 0..texts.ends.len() {
                let text = texts.get(at);
                let shared = if text == last { text.len() } else { last.iter().zip(text).take_while(|(a, b)| a == b).count() };
                prefixes.push(shared as i32);
                lengths.push((text.len() - shared) as i32);
                suffixes.extend_from_slice(text.get(shared..).unwrap_or_default());
                last = text;
            }
            put_lengths(out, &prefixes);
            put_lengths(out, &lengths);
            out.extend_from_slice(&suffixes);
        }
        Values::Texts(_) => return Err(Stop::Unsupported("a page has an encoding that is not written here")),
    }
    Ok(())
}

fn put_lengths(out: &mut Vec<u8>, lengths: &[i32]) {
    match lengths.first() {
        Some(first) if lengths.iter().all(|length| length == first) => put_equal_deltas(out, i64::from(*first), lengths.len()),
        _ => put_deltas(out, lengths),
    }
}

/// Texts one after the other, each behind its length.
pub(crate) fn plain(texts: &Texts, out: &mut Vec<u8>) {
    for at in 0..texts.ends.len() {
        let text = texts.get(at);
        out.extend_from_slice(&(text.len() as u32).to_le_bytes());
        out.extend_from_slice(text);
    }
}

/// A leaf whose rows can be found: where each row's levels begin, and each level's value.
pub(crate) struct Rows<'a> {
    pub(crate) leaf: &'a Leaf,
    /// First level of each row, and the number of levels; none where each row has one.
    starts: Option<Vec<usize>>,
    /// Values before each level, and all; none where each level has one.
    before: Option<Vec<usize>>,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(leaf: &'a Leaf, shape: &Shape) -> Self {
        let starts = (shape.max_rep > 0).then(|| {
            let first = leaf.rep.iter().enumerate().filter(|(_, level)| **level == 0).map(|(at, _)| at);
            first.chain([leaf.slots]).collect()
        });
        let before = (leaf.nulls() > 0).then(|| {
            let mut count = 0;
            let mut before = Vec::with_capacity(leaf.slots + 1);
            before.push(0);
            before.extend(leaf.def.iter().map(|level| {
                count += usize::from(*level == shape.max_def);
                count
            }));
            before
        });
        Self { leaf, starts, before }
    }

    pub(crate) fn count(&self) -> usize {
        self.starts.as_ref().map_or(self.leaf.slots, |starts| starts.len() - 1)
    }

    fn slots(&self, rows: Range<usize>) -> Option<Range<usize>> {
        match &self.starts {
            None => Some(rows),
            Some(starts) => Some(*starts.get(rows.start)?..*starts.get(rows.end)?),
        }
    }

    /// Where the values of some rows lie.
    pub(crate) fn values(&self, rows: Range<usize>) -> Option<Range<usize>> {
        let slots = self.slots(rows)?;
        match &self.before {
            None => Some(slots),
            Some(before) => Some(*before.get(slots.start)?..*before.get(slots.end)?),
        }
    }

    /// Appends some rows to `to`.
    pub(crate) fn copy_to(&self, to: &mut Leaf, rows: Range<usize>) -> Result<(), Stop> {
        const CUT: Stop = Stop::Damaged("a page has fewer rows than its index says");
        let (slots, values) = (self.slots(rows.clone()).ok_or(CUT)?, self.values(rows).ok_or(CUT)?);
        if !self.leaf.rep.is_empty() {
            to.rep.extend_from_slice(self.leaf.rep.get(slots.clone()).ok_or(CUT)?);
        }
        if !self.leaf.def.is_empty() {
            to.def.extend_from_slice(self.leaf.def.get(slots.clone()).ok_or(CUT)?);
        }
        to.slots += slots.len();
        to.values.append(&self.leaf.values, values)
    }

    /// An empty leaf of the same kind, with room for as much.
    pub(crate) fn like(&self) -> Leaf {
        let values = match &self.leaf.values {
            Values::Codes(codes) => Values::Codes(Vec::with_capacity(codes.len())),
            Values::Fixed { width, bytes } => Values::Fixed { width: *width, bytes: Vec::with_capacity(bytes.len()) },
            Values::Texts(Texts { ends, bytes }) => {
                Values::Texts(Texts { ends: Vec::with_capacity(ends.len()), bytes: Vec::with_capacity(bytes.len()) })
            }
        };
        let levels = |levels: &Vec<u32>| Vec::with_capacity(levels.len());
        Leaf { rep: levels(&self.leaf.rep), def: levels(&self.leaf.def), slots: 0, values }
    }
}
