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

    /// The values of the rows that have one; `scratch` holds them where some have none.
    fn values<'b, V: Copy>(&self, of_row_group: &'b [V], scratch: &'b mut Vec<V>) -> &'b [V] {
        if self.nulls.is_none() {
            return &of_row_group[self.rows.clone()];
        }
        // Without branches: nulls may be anywhere.
        scratch.clear();
        scratch.extend_from_slice(&of_row_group[self.rows.clone()]);
        let mut valid = 0;
        for (row, is_valid) in self.nulls.iter().flatten().enumerate() {
            scratch[valid] = scratch[row];
            valid += usize::from(is_valid);
        }
        scratch.truncate(valid);
        scratch
    }

    fn put_levels(&self, out: &mut Vec<u8>, optional: bool) {
        if optional {
            put_levels(out, self.rows.len(), self.nulls.as_ref());
        }
    }
}

/// Whole numbers: packed deltas where each row has one, else codes, else plain.
///
/// Deltas stand in columns without nulls only: polars before 2 fails on others when it filters (pola-rs/polars#28536).
pub(crate) fn put_integers<T>(chunk: &mut Chunk<'_, i64>, column: &PrimitiveArray<T>, optional: bool, page_rows: usize) -> Result<()>
where
    T: ArrowPrimitiveType<Native = i64>,
{
    let has_nulls = column.null_count() > 0;
    if has_nulls && let Some((entries, codes)) = codes_of(column) {
        let payload: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        let coded = Codes { payload, entries: &entries, codes: &codes, nulls: column.nulls(), lengths: None };
        return put_codes(chunk, &coded, optional, page_rows);
    }
    let (mut payload, mut valid) = (Vec::new(), Vec::new());
    for start in (0..column.len()).step_by(page_rows) {
        let page = PageRows::new(start..(start + page_rows).min(column.len()), column.nulls());
        payload.clear();
        page.put_levels(&mut payload, optional);
        let values = page.values(column.values(), &mut valid);
        let encoding = if has_nulls {
            payload.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            Encoding::PLAIN
        } else {
            put_deltas(&mut payload, values);
            Encoding::DELTA_BINARY_PACKED
        };
        let page = Page { encoding, rows: page.rows.len(), nulls: page.null_count(), range: extent(values), value_bytes: None };
        chunk.page(&payload, &page)?;
    }
    Ok(())
}

fn extent<V: Ord + Copy>(values: &[V]) -> Option<(V, V)> {
    let first = *values.first()?;
    Some(values.iter().fold((first, first), |(min, max), value| (min.min(*value), max.max(*value))))
}

/// The different numbers, ascending, and the place of each row's among them; none where they are too far apart or too many.
fn codes_of<T: ArrowPrimitiveType<Native = i64>>(column: &PrimitiveArray<T>) -> Option<(Vec<i64>, Vec<u32>)> {
    const EXTENT_MAX: u64 = 1 << 16;
    let mut scratch = Vec::new();
    let valid = PageRows::new(0..column.len(), column.nulls()).values(column.values(), &mut scratch);
    let (least, greatest) = extent(valid)?;
    let extent = greatest.abs_diff(least);
    if extent >= EXTENT_MAX {
        return None;
    }
    let place = |value: i64| value.wrapping_sub(least) as usize;
    let mut used = vec![false; extent as usize + 1];
    valid.iter().for_each(|value| used[place(*value)] = true);
    let entries: Vec<i64> = used.iter().zip(least..).filter(|(used, _)| **used).map(|(_, value)| value).collect();
    if entries.len() > 16 + column.len() / 8 {
        return None;
    }
    let mut ranks = vec![0; used.len()];
    for (rank, entry) in entries.iter().enumerate() {
        ranks[place(*entry)] = rank as u32;
    }
    // What stands in a row without value does not matter.
    let codes = column.values().iter().map(|value| ranks.get(place(*value)).copied().unwrap_or_default()).collect();
    Some((entries, codes))
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

    /// Deltas stand in columns without nulls only, see `put_integers`.
    pub(crate) fn of(column: &BinaryArray, sorted: bool) -> Self {
        match (column.null_count(), sorted) {
            (0, true) => Self::Prefixes,
            (0, false) => Self::Lengths,
            _ => Self::Plain,
        }
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
        match <&[u8; 16]>::try_from(value) {
            // At once, as pseudonyms are.
            Ok(pseudonym) => {
                let mut both = [0; 20];
                both[..4].copy_from_slice(&16_u32.to_le_bytes());
                both[4..].copy_from_slice(pseudonym);
                out.extend_from_slice(&both);
            }
            Err(_) => {
                out.extend_from_slice(&(value.len() as u32).to_le_bytes());
                out.extend_from_slice(value);
            }
        }
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

/// The values of a page that are 16 bytes each, as pseudonyms are.
fn pseudonyms_of<'a, T: ByteArrayType<Offset = i32>>(column: &'a GenericByteArray<T>, page: &PageRows) -> Option<&'a [[u8; 16]]> {
    let offsets = &column.value_offsets()[page.rows.start..=page.rows.end];
    let all_16 = page.nulls.is_none() && offsets.windows(2).fold(0, |differs, pair| differs | ((pair[1] - pair[0]) ^ 16)) == 0;
    all_16.then(|| column.value_data()[offsets[0] as usize..offsets[page.rows.len()] as usize].as_chunks().0)
}

/// Rows whose value is not that of the row before.
fn changes(values: &[[u8; 16]]) -> impl Iterator<Item = usize> + '_ {
    let differ = values.windows(2).enumerate().filter(|(_, pair)| u128::from_le_bytes(pair[0]) != u128::from_le_bytes(pair[1]));
    (0..values.len().min(1)).chain(differ.map(|(row, _)| row + 1))
}

fn put_prefixes<T: ByteArrayType<Offset = i32>>(out: &mut Vec<u8>, column: &GenericByteArray<T>, page: &PageRows) -> usize {
    if let Some(values) = pseudonyms_of(column, page) {
        let (mut prefixes, mut lengths, mut suffixes) = (vec![16; values.len()], vec![0; values.len()], Vec::new());
        let mut last: &[u8] = &[];
        for row in changes(values) {
            let shared = shared_prefix(last, &values[row]);
            prefixes[row] = shared as i32;
            lengths[row] = 16 - shared as i32;
            suffixes.extend_from_slice(&values[row][shared..]);
            last = &values[row];
        }
        put_lengths_of(out, &prefixes);
        put_lengths_of(out, &lengths);
        out.extend_from_slice(&suffixes);
        return 16 * values.len();
    }
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
    if let Some(values) = pseudonyms_of(column, page) {
        for row in changes(values) {
            let value = as_bound(column.value(page.rows.start + row));
            range = Some(range.map_or((value, value), |(min, max)| (min.min(value), max.max(value))));
        }
        return range;
    }
    let mut last: &[u8] = &[];
    for row in page.valid().flatten() {
        let bytes = bytes_of(column, row);
        if range.is_some() && bytes == last {
            continue;
        }
        last = bytes;
        let value = as_bound(column.value(row));
        range = Some(range.map_or((value, value), |(min, max)| (min.min(value), max.max(value))));
    }
    range
}

/// A column as a dictionary, whose order is the order of the codes.
struct Codes<'a, B> {
    /// The dictionary, encoded plain.
    payload: Vec<u8>,
    entries: &'a [B],
    codes: &'a [u32],
    nulls: Option<&'a NullBuffer>,
    /// Length of each entry, if it varies.
    lengths: Option<&'a [u32]>,
}

fn put_codes<B: Bound>(chunk: &mut Chunk<'_, B>, column: &Codes<'_, B>, optional: bool, page_rows: usize) -> Result<()> {
    let width = width_of((column.entries.len() - 1) as u32);
    let (mut payload, mut valid) = (Vec::new(), Vec::new());
    for start in (0..column.codes.len()).step_by(page_rows) {
        let page = PageRows::new(start..(start + page_rows).min(column.codes.len()), column.nulls);
        payload.clear();
        page.put_levels(&mut payload, optional);
        let codes = page.values(column.codes, &mut valid);
        payload.push(width as u8);
        put_hybrid(&mut payload, codes, width);
        if start == 0 {
            chunk.dictionary(&column.payload, column.entries.len(), &payload)?;
        }
        let range = extent(codes).map(|(least, greatest)| (column.entries[least as usize], column.entries[greatest as usize]));
        let value_bytes = |lengths: &[u32]| codes.iter().map(|code| u64::from(lengths[*code as usize])).sum::<u64>() as usize;
        let value_bytes = column.lengths.map(value_bytes);
        let page = Page { encoding: Encoding::RLE_DICTIONARY, rows: page.rows.len(), nulls: page.null_count(), range, value_bytes };
        chunk.page(&payload, &page)?;
    }
    Ok(())
}

/// Texts by their dictionary.
pub(crate) fn put_coded<'a>(chunk: &mut Chunk<'_, &'a str>, column: &Coded<'a>, optional: bool, page_rows: usize) -> Result<()> {
    let mut payload = Vec::new();
    for text in &column.texts {
        payload.extend_from_slice(&(text.len() as u32).to_le_bytes());
        payload.extend_from_slice(text.as_bytes());
    }
    let lengths: Vec<u32> = column.texts.iter().map(|text| text.len() as u32).collect();
    let nulls = column.nulls.as_ref();
    let codes = Codes { payload, entries: &column.texts, codes: &column.codes, nulls, lengths: Some(&lengths) };
    put_codes(chunk, &codes, optional, page_rows)
}

/// Texts whose dictionary would be too large.
pub(crate) fn put_texts<'a>(chunk: &mut Chunk<'_, &'a str>, column: &'a StringArray, optional: bool, page_rows: usize) -> Result<()> {
    put_values(chunk, column, Lay::Plain, optional, page_rows, Some(|text| text))
}
