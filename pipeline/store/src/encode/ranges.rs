//! Statistics: the range of values of each page and of a column chunk.

use parquet::basic::{BoundaryOrder, Type};
use parquet::data_type::ByteArray;
use parquet::errors::Result;
use parquet::file::metadata::{ColumnIndexBuilder, LevelHistogram};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::{Statistics, ValueStatistics};

/// Bounds that are longer are cut, as ArrowWriter does by default.
const BOUND_BYTES_MAX: usize = 64;

/// A type of values that pages have ranges of.
pub(crate) trait Bound: Ord + Copy {
    const TYPE: Type;
    /// No greater than the value, and whether it equals it.
    fn lower(self) -> (Vec<u8>, bool);
    /// No less than the value, and whether it equals it.
    fn upper(self) -> (Vec<u8>, bool);
    fn statistics(range: Option<(Self, Self)>, nulls: u64) -> Statistics;
}

impl Bound for i64 {
    const TYPE: Type = Type::INT64;
    fn lower(self) -> (Vec<u8>, bool) {
        (self.to_le_bytes().to_vec(), true)
    }
    fn upper(self) -> (Vec<u8>, bool) {
        self.lower()
    }
    fn statistics(range: Option<(Self, Self)>, nulls: u64) -> Statistics {
        let (min, max) = range.unzip();
        Statistics::Int64(ValueStatistics::new(min, max, None, Some(nulls), false).with_backwards_compatible_min_max(true))
    }
}

impl Bound for &[u8] {
    const TYPE: Type = Type::BYTE_ARRAY;
    fn lower(self) -> (Vec<u8>, bool) {
        let cut = self.get(..BOUND_BYTES_MAX).unwrap_or(self);
        (cut.to_vec(), cut.len() == self.len())
    }
    fn upper(self) -> (Vec<u8>, bool) {
        let Some(mut cut) = self.get(..BOUND_BYTES_MAX).filter(|cut| cut.len() < self.len()).map(<[u8]>::to_vec) else {
            return (self.to_vec(), true);
        };
        for byte in cut.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                return (cut, false);
            }
        }
        (self.to_vec(), true)
    }
    fn statistics(range: Option<(Self, Self)>, nulls: u64) -> Statistics {
        of_bytes(range, nulls)
    }
}

impl Bound for &str {
    const TYPE: Type = Type::BYTE_ARRAY;
    fn lower(self) -> (Vec<u8>, bool) {
        let cut = &self[..self.floor_char_boundary(BOUND_BYTES_MAX)];
        (cut.as_bytes().to_vec(), cut.len() == self.len())
    }
    fn upper(self) -> (Vec<u8>, bool) {
        let cut = &self[..self.floor_char_boundary(BOUND_BYTES_MAX)];
        if cut.len() == self.len() {
            return (self.as_bytes().to_vec(), true);
        }
        // The last character that has a next one of its length takes its place; what follows it falls away.
        for (at, character) in cut.char_indices().rev() {
            let next = char::from_u32(u32::from(character) + 1).filter(|next| next.len_utf8() == character.len_utf8());
            if let Some(next) = next {
                let mut upper = cut[..at].to_owned();
                upper.push(next);
                return (upper.into_bytes(), false);
            }
        }
        (self.as_bytes().to_vec(), true)
    }
    fn statistics(range: Option<(Self, Self)>, nulls: u64) -> Statistics {
        of_bytes(range, nulls)
    }
}

fn of_bytes<B: Bound>(range: Option<(B, B)>, nulls: u64) -> Statistics {
    let (min, max) = range.unzip();
    let (min, max) = (min.map(B::lower), max.map(B::upper));
    let (min_is_exact, max_is_exact) = (min.as_ref().is_none_or(|min| min.1), max.as_ref().is_none_or(|max| max.1));
    let bytes = |bound: Option<(Vec<u8>, bool)>| bound.map(|bound| ByteArray::from(bound.0));
    let statistics = ValueStatistics::new(bytes(min), bytes(max), None, Some(nulls), false);
    Statistics::ByteArray(statistics.with_min_is_exact(min_is_exact).with_max_is_exact(max_is_exact))
}

/// Collects the ranges of a column chunk's pages.
pub(crate) struct Ranges<B> {
    index: ColumnIndexBuilder,
    chunk: Option<(B, B)>,
    last: Option<(B, B)>,
    ascending: bool,
    descending: bool,
}

impl<B: Bound> Ranges<B> {
    pub(crate) fn new() -> Self {
        Self { index: ColumnIndexBuilder::new(B::TYPE), chunk: None, last: None, ascending: true, descending: true }
    }

    /// The next page's least and greatest value (none where all are null), its count of nulls, and its histogram of levels if the column is optional.
    pub(crate) fn page(&mut self, range: Option<(B, B)>, nulls: usize, levels: Option<LevelHistogram>) {
        match range {
            None => self.index.append(true, Vec::new(), Vec::new(), nulls as i64),
            Some((min, max)) => {
                self.index.append(false, min.lower().0, max.upper().0, nulls as i64);
                if let Some((last_min, last_max)) = self.last {
                    self.ascending &= last_min <= min && last_max <= max;
                    self.descending &= last_min >= min && last_max >= max;
                }
                self.last = range;
                self.chunk = Some(self.chunk.map_or((min, max), |(least, greatest)| (least.min(min), greatest.max(max))));
            }
        }
        self.index.append_histograms(&None, &levels);
    }

    pub(crate) fn finish(mut self, nulls: u64) -> Result<(ColumnIndexMetaData, Statistics)> {
        self.index.set_boundary_order(match (self.ascending, self.descending) {
            (true, _) => BoundaryOrder::ASCENDING,
            (false, true) => BoundaryOrder::DESCENDING,
            (false, false) => BoundaryOrder::UNORDERED,
        });
        Ok((self.index.build()?, B::statistics(self.chunk, nulls)))
    }
}
