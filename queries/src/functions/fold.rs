//! An aggregate whose groups each hold one value that rows fold into.

use arrow::array::{Array, ArrayRef, BooleanArray};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

/// What one group holds. Its output is its state too: partial results merge by
/// folding outputs.
pub trait Fold: Default + Send + 'static {
    /// The arguments of a batch, opened once.
    type Rows<'a>;
    /// The outputs of other groups, opened once.
    type Outputs<'a>;
    /// Opens a batch's arguments.
    fn rows(arguments: &[ArrayRef]) -> Result<Self::Rows<'_>>;
    /// Folds one row in.
    fn add(&mut self, rows: &Self::Rows<'_>, row: usize, cap: usize);
    /// Opens a batch of outputs.
    fn outputs(states: &[ArrayRef]) -> Result<Self::Outputs<'_>>;
    /// Folds another group's output in.
    fn merge(&mut self, outputs: &Self::Outputs<'_>, row: usize, cap: usize);
    /// All groups as one array.
    fn finish(groups: Vec<Self>) -> Result<ArrayRef>;
    /// Bytes held beyond the struct itself.
    fn heap_bytes(&self) -> usize;
}

/// DataFusion's accumulator for all groups of a [`Fold`].
pub struct Groups<F> {
    groups: Vec<F>,
    cap: usize,
}

impl<F: Fold> Groups<F> {
    /// No groups yet; `cap` bounds what folds that collect keep.
    pub fn new(cap: usize) -> Self {
        Self { groups: Vec::new(), cap }
    }
    fn take(&mut self, emit_to: EmitTo) -> Vec<F> {
        emit_to.take_needed(&mut self.groups)
    }
}

impl<F: Fold> GroupsAccumulator for Groups<F> {
    fn update_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], filter: Option<&BooleanArray>, total: usize) -> Result<()> {
        self.groups.resize_with(total, F::default);
        let rows = F::rows(values)?;
        for (row, group) in group_indices.iter().enumerate() {
            if filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row)) {
                self.groups[*group].add(&rows, row, self.cap);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        F::finish(self.take(emit_to))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![F::finish(self.take(emit_to))?])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total: usize) -> Result<()> {
        self.groups.resize_with(total, F::default);
        let outputs = F::outputs(values)?;
        for (row, group) in group_indices.iter().enumerate() {
            self.groups[*group].merge(&outputs, row, self.cap);
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = F::rows(values)?;
        let count = values.first().map_or(0, |array| array.len());
        let mut groups = Vec::with_capacity(count);
        for row in 0..count {
            let mut group = F::default();
            if filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row)) {
                group.add(&rows, row, self.cap);
            }
            groups.push(group);
        }
        Ok(vec![F::finish(groups)?])
    }

    fn size(&self) -> usize {
        let heap: usize = self.groups.iter().map(Fold::heap_bytes).sum();
        heap + self.groups.capacity() * size_of::<F>()
    }
}

/// A [`Fold`] without GROUP BY: one group.
pub struct Single<F> {
    group: F,
    cap: usize,
}

impl<F: Fold> Single<F> {
    /// Nothing folded in yet.
    pub fn new(cap: usize) -> Self {
        Self { group: F::default(), cap }
    }
}

impl<F> std::fmt::Debug for Single<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Single").field("cap", &self.cap).finish_non_exhaustive()
    }
}

impl<F: Fold + Sync> Accumulator for Single<F> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = F::rows(values)?;
        for row in 0..values.first().map_or(0, |array| array.len()) {
            self.group.add(&rows, row, self.cap);
        }
        Ok(())
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let group = std::mem::take(&mut self.group);
        ScalarValue::try_from_array(&F::finish(vec![group])?, 0)
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let outputs = F::outputs(states)?;
        for row in 0..states.first().map_or(0, |array| array.len()) {
            self.group.merge(&outputs, row, self.cap);
        }
        Ok(())
    }
    fn size(&self) -> usize {
        size_of::<Self>() + self.group.heap_bytes()
    }
}
