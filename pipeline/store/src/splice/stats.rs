//! Ranges of values: of pages that are written anew from their rows, of copied
//! ones from the index, of the chunk from both.

use std::cmp::Ordering;

use parquet::basic::{BoundaryOrder, Type};
use parquet::data_type::ByteArray;
use parquet::file::metadata::{ColumnIndexBuilder, LevelHistogram};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::{Statistics, ValueStatistics};

use super::Stop;
use super::leaf::{Leaf, Order, Shape, Values};
use crate::encode::ranges::Bound;

/// No bound of this length or less was cut.
const WHOLE_BYTES_MAX: usize = 60;

/// What the column index says of a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PageRange {
    /// Least and greatest value; none where all are null.
    pub(crate) range: Option<(Vec<u8>, Vec<u8>)>,
    pub(crate) nulls: i64,
    pub(crate) rep: Option<Vec<i64>>,
    pub(crate) def: Option<Vec<i64>>,
}

impl PageRange {
    /// From the index of a file; none where it does not say.
    pub(crate) fn of_index(index: &ColumnIndexMetaData, page: usize) -> Option<Self> {
        macro_rules! number {
            ($index:ident) => {
                ($index.min_value(page)?.to_le_bytes().to_vec(), $index.max_value(page)?.to_le_bytes().to_vec())
            };
        }
        let range = if index.is_null_page(page) {
            None
        } else {
            Some(match index {
                ColumnIndexMetaData::BOOLEAN(index) => (vec![u8::from(*index.min_value(page)?)], vec![u8::from(*index.max_value(page)?)]),
                ColumnIndexMetaData::INT32(index) => number!(index),
                ColumnIndexMetaData::INT64(index) => number!(index),
                ColumnIndexMetaData::FLOAT(index) => number!(index),
                ColumnIndexMetaData::DOUBLE(index) => number!(index),
                ColumnIndexMetaData::BYTE_ARRAY(index) => (index.min_value(page)?.to_vec(), index.max_value(page)?.to_vec()),
                _ => return None,
            })
        };
        let histogram = |levels: Option<&[i64]>| levels.map(<[i64]>::to_vec);
        Some(Self {
            range,
            nulls: index.null_count(page)?,
            rep: histogram(index.repetition_level_histogram(page)),
            def: histogram(index.definition_level_histogram(page)),
        })
    }

    /// From a page's rows, in the manner of another page of the chunk. `Err` holds what the page would be without a range: its values have none.
    pub(crate) fn of_rows(shape: &Shape, leaf: &Leaf, dictionary: Option<&Values>, like: &Self) -> Option<Self> {
        let exact = extent(shape, &leaf.values, dictionary);
        if exact.is_none() && leaf.values.len() > 0 {
            return None;
        }
        let levels = |levels: &[u32], max: u32| {
            let mut counts = vec![0_i64; max as usize + 1];
            levels.iter().for_each(|level| {
                if let Some(count) = counts.get_mut(*level as usize) {
                    *count += 1;
                }
            });
            counts
        };
        Some(Self {
            range: exact.map(|(min, max)| (lower(shape, &min), upper(shape, &max))),
            nulls: leaf.nulls() as i64,
            rep: like.rep.as_ref().map(|_| levels(&leaf.rep, shape.max_rep)),
            def: like.def.as_ref().map(|_| levels(&leaf.def, shape.max_def)),
        })
    }
}

/// Least and greatest of some values; none where there is none that compares.
fn extent(shape: &Shape, values: &Values, dictionary: Option<&Values>) -> Option<(Vec<u8>, Vec<u8>)> {
    match (values, shape.order) {
        (Values::Fixed { width: 4, bytes }, Order::Int32) => return extent_of(bytes, i32::from_le_bytes, i32::to_le_bytes),
        (Values::Fixed { width: 8, bytes }, Order::Int64) => return extent_of(bytes, i64::from_le_bytes, i64::to_le_bytes),
        (Values::Texts(texts), _) if texts.are_of::<16>() => return extent_of(&texts.bytes, u128::from_be_bytes, u128::to_be_bytes),
        _ => {}
    }
    let mut range: Option<(&[u8], &[u8])> = None;
    let see = |value: &[u8]| shape.compare(value, value).is_some();
    let mut widen = |value| {
        range = Some(match range {
            None => (value, value),
            Some((min, max)) => (
                if shape.compare(value, min) == Some(Ordering::Less) { value } else { min },
                if shape.compare(value, max) == Some(Ordering::Greater) { value } else { max },
            ),
        });
    };
    match values {
        Values::Codes(codes) => {
            let entries = dictionary?;
            let mut used = vec![false; entries.len()];
            for code in codes {
                *used.get_mut(*code as usize)? = true;
            }
            used.iter().enumerate().filter(|(at, used)| **used && see(entries.get(*at))).for_each(|(at, _)| widen(entries.get(at)));
        }
        _ => {
            let mut last: &[u8] = &[];
            for at in 0..values.len() {
                let value = values.get(at);
                if (at == 0 || value != last) && see(value) {
                    widen(value);
                }
                last = value;
            }
        }
    }
    range.map(|(min, max)| (min.to_vec(), max.to_vec()))
}

/// The same of values of one width that compare as numbers.
fn extent_of<const N: usize, T: Ord + Copy>(bytes: &[u8], read: fn([u8; N]) -> T, write: fn(T) -> [u8; N]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (values, _) = bytes.as_chunks::<N>();
    let first = read(*values.first()?);
    let (min, max) = values.iter().map(|value| read(*value)).fold((first, first), |(min, max), value| (min.min(value), max.max(value)));
    Some((write(min).to_vec(), write(max).to_vec()))
}

/// No greater than `value`; zero is both zeros.
fn lower(shape: &Shape, value: &[u8]) -> Vec<u8> {
    match (shape.order, std::str::from_utf8(value)) {
        (Order::Bytes, Ok(text)) if shape.text => text.lower().0,
        (Order::Bytes, _) => value.lower().0,
        (Order::Float, _) if value == 0.0_f32.to_le_bytes() => (-0.0_f32).to_le_bytes().to_vec(),
        (Order::Double, _) if value == 0.0_f64.to_le_bytes() => (-0.0_f64).to_le_bytes().to_vec(),
        _ => value.to_vec(),
    }
}

/// No less than `value`.
fn upper(shape: &Shape, value: &[u8]) -> Vec<u8> {
    match (shape.order, std::str::from_utf8(value)) {
        (Order::Bytes, Ok(text)) if shape.text => text.upper().0,
        (Order::Bytes, _) => value.upper().0,
        (Order::Float, _) if value == (-0.0_f32).to_le_bytes() => 0.0_f32.to_le_bytes().to_vec(),
        (Order::Double, _) if value == (-0.0_f64).to_le_bytes() => 0.0_f64.to_le_bytes().to_vec(),
        _ => value.to_vec(),
    }
}

/// The column index of some pages.
pub(crate) fn column_index(shape: &Shape, pages: &[PageRange]) -> Result<ColumnIndexMetaData, Stop> {
    let mut index = ColumnIndexBuilder::new(shape.physical);
    let (mut ascending, mut descending) = (true, true);
    let mut last: Option<&(Vec<u8>, Vec<u8>)> = None;
    for page in pages {
        match &page.range {
            None => index.append(true, Vec::new(), Vec::new(), page.nulls),
            Some(range) => {
                index.append(false, range.0.clone(), range.1.clone(), page.nulls);
                if let Some(last) = last {
                    let orders = [shape.compare(&last.0, &range.0), shape.compare(&last.1, &range.1)];
                    ascending &= orders.iter().all(|order| order.is_some_and(Ordering::is_le));
                    descending &= orders.iter().all(|order| order.is_some_and(Ordering::is_ge));
                }
                last = Some(range);
            }
        }
        let histogram = |levels: &Option<Vec<i64>>| levels.clone().map(LevelHistogram::from);
        index.append_histograms(&histogram(&page.rep), &histogram(&page.def));
    }
    index.set_boundary_order(match (ascending, descending) {
        (true, _) => BoundaryOrder::ASCENDING,
        (false, true) => BoundaryOrder::DESCENDING,
        (false, false) => BoundaryOrder::UNORDERED,
    });
    Ok(index.build()?)
}

/// The statistics of a chunk of some pages, in the manner of those that it had.
pub(crate) fn chunk_statistics(shape: &Shape, pages: &[PageRange], old: &Statistics) -> Option<Statistics> {
    let nulls = old.null_count_opt().map(|_| pages.iter().map(|page| page.nulls.unsigned_abs()).sum());
    let mut range: Option<(&[u8], &[u8])> = None;
    for (min, max) in pages.iter().filter_map(|page| page.range.as_ref()) {
        range = Some(match range {
            None => (min, max),
            Some((least, greatest)) => (
                if shape.compare(min, least) == Some(Ordering::Less) { min } else { least },
                if shape.compare(max, greatest) == Some(Ordering::Greater) { max } else { greatest },
            ),
        });
    }
    macro_rules! number {
        ($variant:ident, $type:ty) => {{
            let read = |bytes: &[u8]| bytes.first_chunk().map(|chunk| <$type>::from_le_bytes(*chunk));
            let (min, max) = range.map(|(min, max)| (read(min), read(max))).unwrap_or_default();
            Statistics::$variant(
                ValueStatistics::new(min, max, None, nulls, false).with_backwards_compatible_min_max(old.is_min_max_backwards_compatible()),
            )
        }};
    }
    Some(match shape.physical {
        Type::BOOLEAN => {
            let read = |bytes: &[u8]| bytes.first().map(|bit| *bit != 0);
            let (min, max) = range.map(|(min, max)| (read(min), read(max))).unwrap_or_default();
            let values = ValueStatistics::new(min, max, None, nulls, false);
            Statistics::Boolean(values.with_backwards_compatible_min_max(old.is_min_max_backwards_compatible()))
        }
        Type::INT32 => number!(Int32, i32),
        Type::INT64 => number!(Int64, i64),
        Type::FLOAT => number!(Float, f32),
        Type::DOUBLE => number!(Double, f64),
        Type::BYTE_ARRAY => {
            let bytes = |bound: Option<&[u8]>| bound.map(|bound| ByteArray::from(bound.to_vec()));
            let (min, max) = range.unzip();
            let exact = |bound: Option<&[u8]>| bound.is_none_or(|bound| bound.len() <= WHOLE_BYTES_MAX);
            let values = ValueStatistics::new(bytes(min), bytes(max), None, nulls, false);
            let values = values.with_backwards_compatible_min_max(old.is_min_max_backwards_compatible());
            // A bound that was cut is not exact, nor may a shorter one be that stands for one which could not be cut.
            let (min_exact, max_exact) = (exact(min) && old.min_is_exact(), exact(max) && old.max_is_exact());
            Statistics::ByteArray(values.with_min_is_exact(min_exact).with_max_is_exact(max_exact))
        }
        Type::INT96 | Type::FIXED_LEN_BYTE_ARRAY => return None,
    })
}
