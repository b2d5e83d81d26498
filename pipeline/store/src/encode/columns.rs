//! Encodes one column of a row group into a chunk.

use std::ops::Range;

use arrow::array::{Array, BinaryArray, GenericByteArray, PrimitiveArray, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{ArrowPrimitiveType, ByteArrayType};
use parquet::basic::Encoding;
use parquet::errors::Result;

use super::bits::{put_deltas, put_equal_deltas, put_hybrid, put_levels, width_of};
use super::chunk::{Chunk, Page};
use super::ranges::Bound;
use super::text::Coded;

/// A page ends before its values exceed this.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// Rows of one page, and which of them have a value.
struct PageRows {
    rows: Range<usize>,
    nulls: Option<NullBuffer>,
}

impl PageRows {
    fn new(rows: Range<usize>, nulls: Option<&NullBuffer>) -> Self {
        let nulls = nulls.map(|nulls| nulls.slice(rows.start, rows.len())).filter(|nulls| nulls.null_count() > 0);
        Self { rows, nulls }
    }

    fn null_count(&self) -> usize {
        self.nulls.as_ref().map_or(0, NullBuffer::null_count)
    }

    /// Rows with a value, as ranges of the row group.
    fn valid(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let start = self.rows.start;
        let whole = self.nulls.is_none().then(|| self.rows.clone());
        let parts = self.nulls.iter().flat_map(move |nulls| nulls.valid_slices().map(move |(from, to)| start + from..start + to));
        whole.into_iter().chain(parts)
    }

    fn put_levels(&self, out: &mut Vec<u8>, optional: bool) {
        if optional {
            put_levels(out, self.rows.len(), self.nulls.as_ref());
        }
    }
}

/// Whole numbers as packed deltas.
pub(crate) fn put_integers<T>(chunk: &mut Chunk<'_, i64>, column: &PrimitiveArray<T>, optional: bool, page_rows: usize) -> Result<()>
where
    T: ArrowPrimitiveType<Native = i64>,
{
    let (mut payload, mut valid) = (Vec::new(), Vec::new());
    for start in (0..column.len()).step_by(page_rows) {
        let page = PageRows::new(start..(start + page_rows).min(column.len()), column.nulls());
        payload.clear();
        page.put_levels(&mut payload, optional);
        let values = if page.nulls.is_none() {
            &column.values()[page.rows.clone()]
        } else {
            valid.clear();
            page.valid().for_each(|rows| valid.extend_from_slice(&column.values()[rows]));
            valid.as_slice()
        };
        put_deltas(&mut payload, values);
        let range =
            values.first().map(|first| values.iter().fold((*first, *first), |(min, max), value| (min.min(*value), max.max(*value))));
        let page =
            Page { encoding: Encoding::DELTA_BINARY_PACKED, rows: page.rows.len(), nulls: page.null_count(), range, value_bytes: None };
        chunk.page(&payload, &page)?;
    }
    Ok(())
}

/// How values of variable length are stored; never by a dictionary, which an erased value would stay in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lay {
    /// Length, bytes, length, bytes.
    Plain,
    /// Lengths, then bytes.
    Lengths,
    /// What a value shares with the one before it within the page, then the rest of it.
    Prefixes,
}

impl Lay {
    const fn encoding(self) -> Encoding {
        match self {
            Self::Plain => Encoding::PLAIN,
            Self::Lengths => Encoding::DELTA_LENGTH_BYTE_ARRAY,
            Self::Prefixes => Encoding::DELTA_BYTE_ARRAY,
        }
    }

    /// Prefixes pay where neighbours are often equal.
    pub(crate) fn of_unsorted(column: &BinaryArray) -> Self {
        const SAMPLE_ROWS: usize = 4 << 10;
        let sample = column.slice(0, column.len().min(SAMPLE_ROWS));
        let mut valid = sample.iter().flatten();
        let (mut last, mut equal, mut all) = (valid.next(), 0, 0);
        for value in valid {
            equal += usize::from(last == Some(value));
            all += 1;
            last = Some(value);
        }
        if equal * 4 > all { Self::Prefixes } else { Self::Lengths }
    }
}

/// Values of variable length, `as_bound` being what is compared.
pub(crate) fn put_values<'a, T: ByteArrayType<Offset = i32>, B: Bound>(
    chunk: &mut Chunk<'_, B>,
    column: &'a GenericByteArray<T>,
    lay: Lay,
    optional: bool,
    page_rows: usize,
    as_bound: Option<fn(&'a T::Native) -> B>,
) -> Result<()> {
    let offsets = column.value_offsets();
    let (mut payload, mut start) = (Vec::new(), 0);
    while start < column.len() {
        let mut end = (start + page_rows).min(column.len());
        let bytes = |end: usize| (offsets[end] - offsets[start]) as usize;
        if bytes(end) > PAGE_BYTES_MAX {
            let fitting = offsets[start + 1..=end].partition_point(|offset| (offset - offsets[start]) as usize <= PAGE_BYTES_MAX);
            end = start + fitting.max(1);
        }
        let page = PageRows::new(start..end, column.nulls());
        payload.clear();
        page.put_levels(&mut payload, optional);
        let value_bytes = match lay {
            Lay::Plain => put_plain(&mut payload, column, &page),
            Lay::Lengths => put_lengths(&mut payload, column, &page),
            Lay::Prefixes => put_prefixes(&mut payload, column, &page),
        };
        let range = as_bound.and_then(|as_bound| range_of(column, &page, as_bound));
        let page =
            Page { encoding: lay.encoding(), rows: page.rows.len(), nulls: page.null_count(), range, value_bytes: Some(value_bytes) };
        chunk.page(&payload, &page)?;
        start = end;
    }
    Ok(())
}

/// The bytes of a row.
fn bytes_of<T: ByteArrayType<Offset = i32>>(column: &GenericByteArray<T>, row: usize) -> &[u8] {
    let offsets = column.value_offsets();
    &column.value_data()[offsets[row] as usize..offsets[row + 1] as usize]
}

fn put_plain<T: ByteArrayType<Offset = i32>>(out: &mut Vec<u8>, column: &GenericByteArray<T>, page: &PageRows) -> usize {
    let mut total = 0;
    for row in page.valid().flatten() {
        let value = bytes_of(column, row);
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(value);
        total += value.len();
    }
    total
}

fn put_lengths<T: ByteArrayType<Offset = i32>>(out: &mut Vec<u8>, column: &GenericByteArray<T>, page: &PageRows) -> usize {
    let offsets = column.value_offsets();
    let mut lengths = Vec::with_capacity(page.rows.len());
    for rows in page.valid() {
        lengths.extend(offsets[rows.start..=rows.end].windows(2).map(|pair| pair[1] - pair[0]));
    }
    put_lengths_of(out, &lengths);
    let before = out.len();
    for rows in page.valid() {
        out.extend_from_slice(&column.value_data()[offsets[rows.start] as usize..offsets[rows.end] as usize]);
    }
    out.len() - before
}

fn put_lengths_of(out: &mut Vec<u8>, lengths: &[i32]) {
    let first = lengths.first().copied().unwrap_or_default();
    if lengths.iter().fold(0, |differs, length| differs | (length ^ first)) == 0 {
        put_equal_deltas(out, i64::from(first), lengths.len());
    } else {
        put_deltas(out, lengths);
    }
}

fn put_prefixes<T: ByteArrayType<Offset = i32>>(out: &mut Vec<u8>, column: &GenericByteArray<T>, page: &PageRows) -> usize {
    let mut prefixes = Vec::with_capacity(page.rows.len());
    let mut lengths = Vec::with_capacity(page.rows.len());
    let mut suffixes = Vec::new();
    let mut last: &[u8] = &[];
    let mut total = 0;
    for row in page.valid().flatten() {
        let value = bytes_of(column, row);
        let shared = shared_prefix(last, value);
        prefixes.push(shared as i32);
        lengths.push((value.len() - shared) as i32);
        suffixes.extend_from_slice(&value[shared..]);
        total += value.len();
        last = value;
    }
    put_lengths_of(out, &prefixes);
    put_lengths_of(out, &lengths);
    out.extend_from_slice(&suffixes);
    total
}

/// Pseudonyms are 16 bytes, compared as numbers.
fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    if let (Ok(a), Ok(b)) = (<&[u8; 16]>::try_from(a), <&[u8; 16]>::try_from(b)) {
        return ((u128::from_le_bytes(*a) ^ u128::from_le_bytes(*b)).trailing_zeros() / 8) as usize;
    }
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The least and the greatest value of a page; equal neighbours are looked at once.
fn range_of<'a, T: ByteArrayType<Offset = i32>, B: Bound>(
    column: &'a GenericByteArray<T>,
    page: &PageRows,
    as_bound: fn(&'a T::Native) -> B,
) -> Option<(B, B)> {
    let mut range: Option<(B, B)> = None;
    let mut last: &[u8] = &[];
    for row in page.valid().flatten() {
        let bytes = bytes_of(column, row);
        if range.is_some() && equal(bytes, last) {
            continue;
        }
        last = bytes;
        let value = as_bound(column.value(row));
        range = Some(range.map_or((value, value), |(min, max)| (min.min(value), max.max(value))));
    }
    range
}

fn equal(a: &[u8], b: &[u8]) -> bool {
    match (<&[u8; 16]>::try_from(a), <&[u8; 16]>::try_from(b)) {
        (Ok(a), Ok(b)) => u128::from_le_bytes(*a) == u128::from_le_bytes(*b),
        _ => a == b,
    }
}

/// Texts by their dictionary, whose order is the order of the codes.
pub(crate) fn put_coded<'a>(chunk: &mut Chunk<'_, &'a str>, column: &Coded<'a>, optional: bool, page_rows: usize) -> Result<()> {
    let mut payload = Vec::new();
    for text in &column.texts {
        payload.extend_from_slice(&(text.len() as u32).to_le_bytes());
        payload.extend_from_slice(text.as_bytes());
    }
    chunk.dictionary(&payload, column.texts.len())?;
    let width = width_of((column.texts.len() - 1) as u32);
    let mut valid = Vec::new();
    for start in (0..column.codes.len()).step_by(page_rows) {
        let page = PageRows::new(start..(start + page_rows).min(column.codes.len()), column.nulls.as_ref());
        payload.clear();
        page.put_levels(&mut payload, optional);
        let codes = if page.nulls.is_none() {
            &column.codes[page.rows.clone()]
        } else {
            valid.clear();
            page.valid().for_each(|rows| valid.extend_from_slice(&column.codes[rows]));
            valid.as_slice()
        };
        payload.push(width as u8);
        put_hybrid(&mut payload, codes, width);
        let (least, greatest) = codes.iter().fold((u32::MAX, 0), |(least, greatest), code| (least.min(*code), greatest.max(*code)));
        let range = (!codes.is_empty()).then(|| (column.texts[least as usize], column.texts[greatest as usize]));
        let value_bytes = Some(column.bytes_of(codes));
        let page = Page { encoding: Encoding::RLE_DICTIONARY, rows: page.rows.len(), nulls: page.null_count(), range, value_bytes };
        chunk.page(&payload, &page)?;
    }
    Ok(())
}

/// Texts whose dictionary would be too large.
pub(crate) fn put_texts<'a>(chunk: &mut Chunk<'_, &'a str>, column: &'a StringArray, optional: bool, page_rows: usize) -> Result<()> {
    put_values(chunk, column, Lay::Plain, optional, page_rows, Some(|text| text))
}
