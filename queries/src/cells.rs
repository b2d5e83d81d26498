//! Counts by period and group, with who stands behind them.

use std::collections::BTreeMap;

use ameles_core::{Day, Grain};
use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Int64Type, UInt64Type};
use arrow::record_batch::RecordBatch;
use hashbrown::HashMap;

use crate::QueryError;

/// A combination of values of the dimensions.
pub type Name = Vec<Option<String>>;
/// Its number in [`Groups`].
pub type GroupId = u32;

/// The groups of an answer.
#[derive(Debug, Default)]
pub struct Groups {
    names: Vec<Name>,
    ids: HashMap<Name, GroupId>,
}

impl Groups {
    /// The group's number.
    pub fn id(&mut self, name: Name) -> GroupId {
        if let Some(id) = self.ids.get(&name) {
            return *id;
        }
        let id = self.names.len() as GroupId;
        self.names.push(name.clone());
        self.ids.insert(name, id);
        id
    }
    /// The group's values.
    pub fn name(&self, id: GroupId) -> &[Option<String>] {
        self.names.get(id as usize).map_or(&[], Vec::as_slice)
    }
    /// For sorting: nulls last.
    pub fn sort_key(&self, id: GroupId) -> Vec<(bool, &str)> {
        self.name(id).iter().map(|value| (value.is_none(), value.as_deref().unwrap_or(""))).collect()
    }
}

/// Distinct people, as far as the smallest group makes them worth telling apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct People(Vec<u64>);

impl People {
    /// Of these, up to `k`.
    pub fn of(ids: impl IntoIterator<Item = u64>, k: u32) -> Self {
        let mut people = Self::default();
        people.extend(ids, k);
        people
    }
    fn extend(&mut self, ids: impl IntoIterator<Item = u64>, k: u32) {
        for id in ids {
            if self.0.len() >= k as usize {
                break;
            }
            if !self.0.contains(&id) {
                self.0.push(id);
            }
        }
    }
    /// With others.
    pub fn union(&mut self, other: &Self, k: u32) {
        self.extend(other.0.iter().copied(), k);
    }
    /// How many, up to `k`.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// None or at least `k`.
    pub fn is_safe(&self, k: u32) -> bool {
        self.0.is_empty() || self.0.len() >= k as usize
    }
}

/// One count, or the two of a ratio, and the sets of people that it rests on:
/// devices, users, and whoever can be computed from it. Without a guard there
/// are no sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// What is counted.
    pub values: [i64; 2],
    /// Each has to be empty or large enough.
    pub parts: Vec<People>,
    /// Devices, told apart by what changes with them; see `issued`.
    pub behind: Vec<i64>,
}

impl Cell {
    /// Adds another group or period.
    pub fn add(&mut self, other: &Self, k: u32) {
        for (mine, its) in self.values.iter_mut().zip(other.values) {
            *mine += its;
        }
        self.parts.resize_with(self.parts.len().max(other.parts.len()), People::default);
        for (mine, its) in self.parts.iter_mut().zip(&other.parts) {
            mine.union(its, k);
        }
        self.behind.resize(self.behind.len().max(other.behind.len()), 0);
        self.behind.iter_mut().zip(&other.behind).for_each(|(mine, its)| *mine += its);
    }
    /// Whether each set is empty or at least `k`, and not all are empty.
    pub fn is_safe(&self, k: u32) -> bool {
        self.parts.iter().all(|part| part.is_safe(k)) && self.parts.iter().any(|part| part.len() > 0)
    }
    /// Whether nothing at all is in it.
    pub fn is_empty(&self) -> bool {
        self.values == [0, 0] && self.parts.iter().all(|part| part.len() == 0)
    }
}

/// The groups of one period.
pub type Row = BTreeMap<GroupId, Cell>;
/// Cells by period.
pub type Cells<P> = BTreeMap<P, Row>;

/// The same cells with periods joined.
pub fn truncate(cells: Cells<Day>, grain: Grain, k: u32) -> Cells<Day> {
    if grain == Grain::Day {
        return cells;
    }
    let mut joined: Cells<Day> = Cells::new();
    for (day, row) in cells {
        let period = joined.entry(day.truncate(grain)).or_default();
        for (group, cell) in row {
            period.entry(group).or_default().add(&cell, k);
        }
    }
    joined
}

/// The columns of an answer to one of our statements: dimensions, month, others.
pub struct Columns<'a> {
    dims: Vec<StringArray>,
    months: ArrayRef,
    /// After the month.
    pub others: &'a [ArrayRef],
}

impl<'a> Columns<'a> {
    /// Opens a batch with so many dimensions.
    pub fn open(batch: &'a RecordBatch, dims: usize) -> Result<Self, QueryError> {
        let text = |array: &ArrayRef| -> Result<StringArray, QueryError> { Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone()) };
        Ok(Self {
            dims: batch.columns()[..dims].iter().map(text).collect::<Result<_, _>>()?,
            months: cast(batch.column(dims), &DataType::Date32)?,
            others: &batch.columns()[dims + 1..],
        })
    }
    /// The row's group.
    pub fn group(&self, row: usize, groups: &mut Groups) -> GroupId {
        groups.id(self.dims.iter().map(|dim| dim.is_valid(row).then(|| dim.value(row).to_owned())).collect())
    }
    /// The row's month, as its first day.
    pub fn month(&self, row: usize) -> Day {
        Day::from_epoch_days(self.months.as_primitive::<Date32Type>().value(row))
    }
    /// A date among the other columns.
    pub fn date(&self, column: usize, row: usize) -> Result<Day, QueryError> {
        let dates = cast(&self.others[column], &DataType::Date32)?;
        Ok(Day::from_epoch_days(dates.as_primitive::<Date32Type>().value(row)))
    }
    /// Text among the other columns.
    pub fn texts(&self, column: usize) -> Result<StringArray, QueryError> {
        Ok(cast(&self.others[column], &DataType::Utf8)?.as_string::<i32>().clone())
    }
}

/// Counts per bit: a list, or one number for bit 0.
pub fn counts(column: &ArrayRef, row: usize) -> Vec<i64> {
    if let Some(list) = column.as_list_opt::<i32>() {
        let values = if list.is_valid(row) { list.value(row) } else { return Vec::new() };
        return values.as_primitive_opt::<Int64Type>().map(|values| values.values().to_vec()).unwrap_or_default();
    }
    column
        .as_primitive_opt::<Int64Type>()
        .filter(|numbers| numbers.is_valid(row))
        .map(|numbers| vec![numbers.value(row)])
        .unwrap_or_default()
}

/// People per bit.
pub fn people(column: &ArrayRef, row: usize, k: u32) -> Vec<People> {
    let Some(list) = column.as_list_opt::<i32>().filter(|list| list.is_valid(row)) else { return Vec::new() };
    let by_bit = list.value(row);
    let Some(by_bit) = by_bit.as_list_opt::<i32>() else { return Vec::new() };
    let of = |bit: usize| {
        let ids = by_bit.value(bit);
        ids.as_primitive_opt::<UInt64Type>().map(|ids| People::of(ids.values().iter().copied(), k)).unwrap_or_default()
    };
    (0..by_bit.len()).map(of).collect()
}
