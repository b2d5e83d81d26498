//! `sum_bits`, `sum_aligned`, `people` and `people_of_all`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int32Array, Int64Builder, ListArray, ListBuilder, UInt64Array, UInt64Builder};
use arrow::datatypes::{DataType, Field, FieldRef, Int32Type, Int64Type, UInt64Type};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature, TypeSignature, Volatility};
use datafusion::physical_expr::expressions::Literal;

use super::fold::{Fold, Groups, Single};

/// All aggregates.
pub fn all() -> Vec<AggregateUDF> {
    [Kind::SumBits, Kind::SumAligned, Kind::People, Kind::PeopleOfAll].into_iter().map(udaf).collect()
}

/// `people(mask, id, cap)`: per bit, up to `cap` distinct ids of the rows that have it.
pub fn people() -> AggregateUDF {
    udaf(Kind::People)
}

/// `people_of_all(lists, cap)`: the union of what `people` gave.
pub fn people_of_all() -> AggregateUDF {
    udaf(Kind::PeopleOfAll)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    SumBits,
    SumAligned,
    People,
    PeopleOfAll,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct BitAggregate {
    kind: Kind,
    signature: Signature,
}

fn udaf(kind: Kind) -> AggregateUDF {
    let counts = DataType::List(Arc::new(Field::new("element", DataType::Int32, false)));
    let types = match kind {
        Kind::SumBits => vec![TypeSignature::Exact(vec![DataType::Int32]), TypeSignature::Exact(vec![DataType::UInt64])],
        Kind::SumAligned => vec![TypeSignature::Exact(vec![DataType::Int32, counts])],
        Kind::People => vec![
            TypeSignature::Exact(vec![DataType::UInt64, DataType::Binary, DataType::Int64]),
            TypeSignature::Exact(vec![DataType::Int32, DataType::Binary, DataType::Int64]),
        ],
        Kind::PeopleOfAll => vec![TypeSignature::Exact(vec![people_type(), DataType::Int64])],
    };
    AggregateUDF::from(BitAggregate { kind, signature: Signature::one_of(types, Volatility::Immutable) })
}

fn people_type() -> DataType {
    let ids = DataType::List(Arc::new(Field::new_list_field(DataType::UInt64, true)));
    DataType::List(Arc::new(Field::new_list_field(ids, true)))
}

fn counts_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)))
}

impl AggregateUDFImpl for BitAggregate {
    fn name(&self) -> &str {
        match self.kind {
            Kind::SumBits => "sum_bits",
            Kind::SumAligned => "sum_aligned",
            Kind::People => "people",
            Kind::PeopleOfAll => "people_of_all",
        }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::SumBits | Kind::SumAligned => counts_type(),
            Kind::People | Kind::PeopleOfAll => people_type(),
        })
    }
    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[state]", args.name), args.return_field.data_type().clone(), true))])
    }
    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(match self.kind {
            Kind::SumBits => Box::new(Single::<BitCounts>::new(0)),
            Kind::SumAligned => Box::new(Single::<AlignedSums>::new(0)),
            Kind::People => Box::new(Single::<People>::new(self.cap(&args)?)),
            Kind::PeopleOfAll => Box::new(Single::<PeopleOfAll>::new(self.cap(&args)?)),
        })
    }
    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }
    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(match self.kind {
            Kind::SumBits => Box::new(Groups::<BitCounts>::new(0)),
            Kind::SumAligned => Box::new(Groups::<AlignedSums>::new(0)),
            Kind::People => Box::new(Groups::<People>::new(self.cap(&args)?)),
            Kind::PeopleOfAll => Box::new(Groups::<PeopleOfAll>::new(self.cap(&args)?)),
        })
    }
}

impl BitAggregate {
    /// The last argument, which has to be a literal: merging needs it too.
    fn cap(&self, args: &AccumulatorArgs<'_>) -> Result<usize> {
        let literal = args.exprs.last().and_then(|last| last.downcast_ref::<Literal>());
        match literal.map(Literal::value) {
            Some(ScalarValue::Int64(Some(cap))) => usize::try_from(*cap).map_err(|_| exec_datafusion_err!("{}: negative cap", self.name())),
            _ => exec_err!("{}: the cap has to be a literal", self.name()),
        }
    }
}

/// Days given as `Int32` (a table's `days`) or `UInt64` (a mask).
enum Masks<'a> {
    Days(&'a Int32Array),
    Wide(&'a UInt64Array),
}

impl<'a> Masks<'a> {
    fn open(array: &'a ArrayRef) -> Result<Self> {
        if let Some(days) = array.as_primitive_opt::<Int32Type>() {
            return Ok(Self::Days(days));
        }
        let wide = array.as_primitive_opt::<UInt64Type>();
        wide.map(Self::Wide).ok_or_else(|| exec_datafusion_err!("masks have to be integers"))
    }
    /// Null is no day.
    fn get(&self, row: usize) -> u64 {
        match self {
            Self::Days(days) if days.is_valid(row) => u64::from(days.value(row) as u32),
            Self::Wide(wide) if wide.is_valid(row) => wide.value(row),
            Self::Days(_) | Self::Wide(_) => 0,
        }
    }
}

fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (mask != 0).then(|| mask.trailing_zeros() as usize);
        mask &= mask.wrapping_sub(1);
        bit
    })
}

fn list(array: &ArrayRef) -> Result<&ListArray> {
    array.as_list_opt::<i32>().ok_or_else(|| exec_datafusion_err!("a list is expected, not {}", array.data_type()))
}

/// `counts[i]` rows have bit `i`; as long as its last bit needs.
#[derive(Default)]
struct BitCounts(Vec<i64>);

impl BitCounts {
    fn slot(&mut self, bit: usize) -> &mut i64 {
        if bit >= self.0.len() {
            self.0.resize(bit + 1, 0);
        }
        &mut self.0[bit]
    }
    fn add_all(&mut self, counts: &ListArray, row: usize) {
        if counts.is_valid(row) {
            let values = counts.value(row);
            for (bit, count) in values.as_primitive::<Int64Type>().values().iter().enumerate() {
                *self.slot(bit) += count;
            }
        }
    }
    fn finish(groups: impl Iterator<Item = Self>) -> Result<ArrayRef> {
        let mut builder = ListBuilder::new(Int64Builder::new());
        for group in groups {
            builder.values().append_slice(&group.0);
            builder.append(true);
        }
        Ok(Arc::new(builder.finish()))
    }
}

impl Fold for BitCounts {
    type Rows<'a> = Masks<'a>;
    type Outputs<'a> = &'a ListArray;
    fn rows(arguments: &[ArrayRef]) -> Result<Masks<'_>> {
        Masks::open(&arguments[0])
    }
    fn add(&mut self, rows: &Masks<'_>, row: usize, _: usize) {
        let mask = rows.get(row);
        for bit in bits(mask) {
            *self.slot(bit) += 1;
        }
    }
    fn outputs(states: &[ArrayRef]) -> Result<&ListArray> {
        list(&states[0])
    }
    fn merge(&mut self, outputs: &&ListArray, row: usize, _: usize) {
        self.add_all(outputs, row);
    }
    fn finish(groups: Vec<Self>) -> Result<ArrayRef> {
        Self::finish(groups.into_iter())
    }
    fn heap_bytes(&self) -> usize {
        self.0.capacity() * size_of::<i64>()
    }
}

/// Sums of lists aligned with the set bits of their days.
#[derive(Default)]
struct AlignedSums(BitCounts);

impl Fold for AlignedSums {
    type Rows<'a> = (Masks<'a>, &'a ListArray, &'a Int32Array);
    type Outputs<'a> = &'a ListArray;
    fn rows(arguments: &[ArrayRef]) -> Result<Self::Rows<'_>> {
        let counts = list(&arguments[1])?;
        Ok((Masks::open(&arguments[0])?, counts, counts.values().as_primitive::<Int32Type>()))
    }
    fn add(&mut self, (masks, counts, values): &Self::Rows<'_>, row: usize, _: usize) {
        if counts.is_null(row) {
            return;
        }
        let offsets = counts.value_offsets();
        let range = offsets[row] as usize..offsets[row + 1] as usize;
        for (bit, at) in bits(masks.get(row)).zip(range) {
            *self.0.slot(bit) += i64::from(values.value(at));
        }
    }
    fn outputs(states: &[ArrayRef]) -> Result<&ListArray> {
        list(&states[0])
    }
    fn merge(&mut self, outputs: &&ListArray, row: usize, _: usize) {
        self.0.add_all(outputs, row);
    }
    fn finish(groups: Vec<Self>) -> Result<ArrayRef> {
        BitCounts::finish(groups.into_iter().map(|group| group.0))
    }
    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}

/// Up to `cap` distinct ids per bit: enough to know whether a group, or a union
/// of groups, reaches the smallest group. An id is its first 8 bytes; keyed
/// hashes make a collision unlikely, and one would only count too few.
#[derive(Default)]
struct People {
    ids: Vec<Vec<u64>>,
    /// Bits whose ids have reached the cap.
    full: u64,
}

impl People {
    fn insert(&mut self, bit: usize, id: u64, cap: usize) {
        if bit >= self.ids.len() {
            self.ids.resize_with(bit + 1, Vec::new);
        }
        let ids = &mut self.ids[bit];
        if ids.len() < cap && !ids.contains(&id) {
            ids.push(id);
        }
        if ids.len() >= cap {
            self.full |= 1 << bit;
        }
    }
    fn insert_all(&mut self, lists: &ListArray, row: usize, cap: usize) {
        if lists.is_null(row) {
            return;
        }
        let by_bit = lists.value(row);
        let by_bit = by_bit.as_list::<i32>();
        for bit in 0..by_bit.len() {
            for id in by_bit.value(bit).as_primitive::<UInt64Type>().values() {
                self.insert(bit, *id, cap);
            }
        }
    }
}

impl Fold for People {
    type Rows<'a> = (Masks<'a>, &'a BinaryArray);
    type Outputs<'a> = &'a ListArray;
    fn rows(arguments: &[ArrayRef]) -> Result<Self::Rows<'_>> {
        let ids = arguments[1].as_binary_opt::<i32>().ok_or_else(|| exec_datafusion_err!("ids have to be binary"))?;
        Ok((Masks::open(&arguments[0])?, ids))
    }
    fn add(&mut self, (masks, ids): &Self::Rows<'_>, row: usize, cap: usize) {
        let wanted = masks.get(row) & !self.full;
        if wanted == 0 || ids.is_null(row) {
            return;
        }
        let id = short_id(ids.value(row));
        for bit in bits(wanted) {
            self.insert(bit, id, cap);
        }
    }
    fn outputs(states: &[ArrayRef]) -> Result<&ListArray> {
        list(&states[0])
    }
    fn merge(&mut self, outputs: &&ListArray, row: usize, cap: usize) {
        self.insert_all(outputs, row, cap);
    }
    fn finish(groups: Vec<Self>) -> Result<ArrayRef> {
        let mut builder = ListBuilder::new(ListBuilder::new(UInt64Builder::new()));
        for group in groups {
            for ids in &group.ids {
                builder.values().values().append_slice(ids);
                builder.values().append(true);
            }
            builder.append(true);
        }
        Ok(Arc::new(builder.finish()))
    }
    fn heap_bytes(&self) -> usize {
        self.ids.capacity() * size_of::<Vec<u64>>() + self.ids.iter().map(|ids| ids.capacity() * size_of::<u64>()).sum::<usize>()
    }
}

/// The first 8 bytes of a pseudonym.
fn short_id(id: &[u8]) -> u64 {
    id.iter().take(8).fold(0, |short, byte| short << 8 | u64::from(*byte))
}

/// The union of what [`People`] gave.
#[derive(Default)]
struct PeopleOfAll(People);

impl Fold for PeopleOfAll {
    type Rows<'a> = &'a ListArray;
    type Outputs<'a> = &'a ListArray;
    fn rows(arguments: &[ArrayRef]) -> Result<&ListArray> {
        list(&arguments[0])
    }
    fn add(&mut self, rows: &&ListArray, row: usize, cap: usize) {
        self.0.insert_all(rows, row, cap);
    }
    fn outputs(states: &[ArrayRef]) -> Result<&ListArray> {
        list(&states[0])
    }
    fn merge(&mut self, outputs: &&ListArray, row: usize, cap: usize) {
        self.0.insert_all(outputs, row, cap);
    }
    fn finish(groups: Vec<Self>) -> Result<ArrayRef> {
        People::finish(groups.into_iter().map(|group| group.0).collect())
    }
    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}
