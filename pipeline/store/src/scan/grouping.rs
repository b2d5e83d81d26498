//! Rows' groups as numbers, from the codes of their dimensions.

use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::HashMap;

/// The group of rows that a filter keeps out.
pub const LEFT_OUT: u32 = 0;

/// Rows whose dimension has one of the values, or, negated, none of them; a missing value is none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DimensionFilter {
    /// Place in `TableSchemas::dimensions`.
    pub dimension: usize,
    /// Whether the values are those kept out.
    pub negate: bool,
    /// The values.
    pub values: Vec<String>,
}

/// Numbers the combinations of some dimensions' values, the same for all files, months and threads.
#[derive(Debug, Default)]
pub struct Grouping {
    by: Vec<usize>,
    filters: Vec<DimensionFilter>,
    /// All dimensions that are read, each once.
    read: Vec<usize>,
    known: RwLock<Known>,
}

type Name = Vec<Option<String>>;

#[derive(Debug, Default)]
struct Known {
    ids: HashMap<Name, u32>,
    names: Vec<Name>,
    /// By its text where one dimension makes the groups.
    of_one: HashMap<String, u32>,
    /// That of no text; where one dimension only filters, that of all.
    of_none: Option<u32>,
}

impl Grouping {
    /// By dimensions, given as places in `TableSchemas::dimensions`; all filters must hold.
    pub fn new(by: Vec<usize>, filters: Vec<DimensionFilter>) -> Arc<Self> {
        let mut read = by.clone();
        read.extend(filters.iter().map(|filter| filter.dimension));
        read.sort_unstable();
        read.dedup();
        Arc::new(Self { by, filters, read, known: RwLock::default() })
    }

    /// The groups met so far: group `n` is the one at `n - 1`.
    pub fn names(&self) -> Vec<Vec<Option<String>>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).names.clone()
    }

    pub(crate) fn dimensions(&self) -> &[usize] {
        &self.read
    }

    /// Whether each row is in the one group that there is.
    pub fn is_whole(&self) -> bool {
        self.read.is_empty()
    }

    /// The group that all rows are in where there is only one.
    pub fn whole_group(&self) -> u32 {
        self.id(&[])
    }

    /// Whether a value passes the filters on its dimension.
    fn passes(&self, dimension: usize, value: Option<&str>) -> bool {
        self.filters.iter().filter(|filter| filter.dimension == dimension).all(|filter| match value {
            Some(text) => filter.values.iter().any(|wanted| wanted == text) != filter.negate,
            None => filter.negate,
        })
    }

    /// Where one dimension makes the groups and the filters: appends the groups of no text and of each of `texts`.
    ///
    /// A chunk's dictionary of thousands of texts is looked up under one lock, and nothing is copied of what is known.
    fn ids_of_one(&self, texts: &[String], out: &mut Vec<u32>) {
        let dimension = self.read.first().copied().unwrap_or_default();
        let grouped = !self.by.is_empty();
        let values = || std::iter::once(None).chain(texts.iter().map(|text| Some(text.as_str())));
        let start = out.len();
        let mut unknown: Vec<usize> = Vec::new();
        {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            for (at, value) in values().enumerate() {
                let id = match value {
                    _ if !self.passes(dimension, value) => Some(LEFT_OUT),
                    Some(text) if grouped => known.of_one.get(text).copied(),
                    _ => known.of_none,
                };
                if id.is_none() {
                    unknown.push(at);
                }
                out.push(id.unwrap_or(LEFT_OUT));
            }
        }
        for at in unknown {
            let value = at.checked_sub(1).and_then(|at| texts.get(at)).map(String::as_str);
            let id = self.id(&[value]);
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            match value.filter(|_| grouped) {
                Some(text) => drop(known.of_one.insert(text.to_owned(), id)),
                None => known.of_none = Some(id),
            }
            if let Some(place) = out.get_mut(start + at) {
                *place = id;
            }
        }
    }

    /// The group of the values of `read`.
    fn id(&self, values: &[Option<&str>]) -> u32 {
        let value = |dimension: usize| self.read.binary_search(&dimension).ok().and_then(|at| values.get(at).copied().flatten());
        if !self.read.iter().all(|dimension| self.passes(*dimension, value(*dimension))) {
            return LEFT_OUT;
        }
        let name: Name = self.by.iter().map(|dimension| value(*dimension).map(str::to_owned)).collect();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = known.ids.get(&name) {
            return *id;
        }
        known.names.push(name.clone());
        let id = known.names.len() as u32;
        known.ids.insert(name, id);
        id
    }
}

/// Combinations beyond this many are looked up one by one.
const TABLE_MAX: usize = 1 << 16;
const UNKNOWN: u32 = u32::MAX;

/// From the codes of one chunk's rows to their groups.
#[derive(Default)]
pub(crate) struct Combiner {
    /// The group of each code of the only dimension.
    one: Vec<u32>,
    /// Codes that each dimension may have.
    sizes: Vec<usize>,
    table: Vec<u32>,
    sparse: HashMap<u64, u32>,
    /// Of the rows at hand.
    combined: Vec<u64>,
}

impl Combiner {
    /// Forgets what codes meant: other texts follow.
    pub(crate) fn reset(&mut self) {
        self.sizes.clear();
        self.one.clear();
    }

    /// Appends the groups of `rows` rows; `codes` and `texts` are those of the grouping's dimensions in order.
    pub(crate) fn groups(&mut self, grouping: &Grouping, rows: usize, codes: &[Vec<u32>], texts: &[&[String]], out: &mut Vec<u32>) {
        if grouping.is_whole() {
            out.resize(out.len() + rows, grouping.id(&[]));
            return;
        }
        if let ([codes], [texts]) = (codes, texts) {
            if self.one.len() != texts.len() + 1 {
                self.one.clear();
                grouping.ids_of_one(texts, &mut self.one);
            }
            // A code without a text is not handed on by a column.
            out.extend(codes.iter().take(rows).map(|code| self.one.get(*code as usize).copied().unwrap_or(LEFT_OUT)));
            return;
        }
        // Texts may come while a chunk is read.
        if self.sizes.len() != texts.len() || self.sizes.iter().zip(texts).any(|(size, texts)| texts.len() >= *size) {
            self.sizes = texts.iter().map(|texts| (texts.len() + 1).next_power_of_two()).collect();
            let all = self.sizes.iter().try_fold(1_usize, |all, size| all.checked_mul(*size)).filter(|all| *all <= TABLE_MAX);
            self.table.clear();
            self.table.resize(all.unwrap_or(0), UNKNOWN);
            self.sparse.clear();
        }
        let start = out.len();
        let resolve = |codes: &mut dyn Iterator<Item = u32>| {
            let values: Vec<Option<&str>> =
                texts.iter().zip(codes).map(|(texts, code)| texts.get((code as usize).wrapping_sub(1)).map(String::as_str)).collect();
            grouping.id(&values)
        };
        self.combined.clear();
        self.combined.resize(rows, 0);
        let mut hashed = false;
        for (codes, size) in codes.iter().zip(&self.sizes) {
            for (combined, code) in self.combined.iter_mut().zip(codes) {
                *combined = combined.wrapping_mul(*size as u64) + u64::from(*code);
            }
        }
        let bits: u32 = self.sizes.iter().map(|size| size.trailing_zeros()).sum();
        hashed |= bits > 63;
        out.resize(start + rows, LEFT_OUT);
        for (row, (place, combined)) in out.iter_mut().skip(start).zip(&self.combined).enumerate() {
            let known = match self.table.get_mut(*combined as usize) {
                Some(known) if !hashed => known,
                // So many texts that combinations have no numbers: each row by itself.
                _ if hashed => {
                    *place = resolve(&mut codes.iter().map(|codes| codes.get(row).copied().unwrap_or_default()));
                    continue;
                }
                _ => self.sparse.entry(*combined).or_insert(UNKNOWN),
            };
            if *known == UNKNOWN {
                *known = resolve(&mut codes.iter().map(|codes| codes.get(row).copied().unwrap_or_default()));
            }
            *place = *known;
        }
    }
}
