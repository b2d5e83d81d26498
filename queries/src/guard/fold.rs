//! Folding of small groups into `(other)`.

use std::collections::BTreeMap;

use crate::cells::{Cell, GroupId, Groups, Row};

/// A row of a guarded answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label {
    /// A group as it is.
    Group(GroupId),
    /// The folded ones, `(other)` in each dimension.
    Other,
}

/// The rows of one period: groups below `k` in `(other)`, smallest first, then
/// by name, until it reaches `k`; nothing where the period as a whole does not.
pub fn fold(row: &Row, groups: &Groups, k: u32) -> BTreeMap<Label, Cell> {
    let folded = folded_groups(row, groups, k, |other| other.is_safe(k));
    let mut rows: BTreeMap<Label, Cell> = BTreeMap::new();
    for (group, cell) in row.iter().filter(|(_, cell)| !cell.is_empty()) {
        let label = if folded.contains(group) { Label::Other } else { Label::Group(*group) };
        rows.entry(label).or_default().add(cell, k);
    }
    rows.retain(|_, cell| cell.is_safe(k));
    rows
}

/// The same rule for an answer whose periods can be subtracted from each other:
/// one fold for all of them. `whole` is what decides, one cell a group.
pub fn fold_static(whole: &Row, groups: &Groups, k: u32) -> BTreeMap<GroupId, Label> {
    let folded = folded_groups(whole, groups, k, |other| other.is_safe(k));
    whole.keys().map(|group| (*group, if folded.contains(group) { Label::Other } else { Label::Group(*group) })).collect()
}

/// A period's cells under a fold made for all periods; groups that it does not
/// know are others.
pub fn relabel(row: &Row, labels: &BTreeMap<GroupId, Label>, k: u32) -> BTreeMap<Label, Cell> {
    let mut rows: BTreeMap<Label, Cell> = BTreeMap::new();
    for (group, cell) in row {
        let label = labels.get(group).copied().unwrap_or(Label::Other);
        rows.entry(label).or_default().add(cell, k);
    }
    rows
}

/// All groups that are not safe alone, and as many more, smallest first, as
/// make them safe together.
fn folded_groups(row: &Row, groups: &Groups, k: u32, enough: impl Fn(&Cell) -> bool) -> Vec<GroupId> {
    let mut order: Vec<(&GroupId, &Cell)> = row.iter().filter(|(_, cell)| !cell.is_empty()).collect();
    order.sort_by_cached_key(|(group, cell)| (cell.is_safe(k), smallest(cell), cell.values, groups.sort_key(**group)));
    let mut other = Cell::default();
    let mut folded = Vec::new();
    for (group, cell) in order {
        if cell.is_safe(k) && (folded.is_empty() || enough(&other)) {
            break;
        }
        other.add(cell, k);
        folded.push(*group);
    }
    folded
}

fn smallest(cell: &Cell) -> usize {
    cell.parts.first().map_or(0, crate::cells::People::len)
}
