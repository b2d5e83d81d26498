//! Folding of small groups into `(other)`.

use std::collections::BTreeMap;

use crate::cells::{Cell, GroupId, Groups, Row};
use crate::metrics::OTHER;

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
    // What is really called so would be a second row of that name.
    folded.extend(row.keys().filter(|group| is_called_other(groups.name(**group))));
    folded
}

fn is_called_other(name: &[Option<String>]) -> bool {
    !name.is_empty() && name.iter().all(|value| value.as_deref() == Some(OTHER))
}

fn smallest(cell: &Cell) -> usize {
    cell.parts.first().map_or(0, crate::cells::People::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cells::People;

    fn row(groups: &mut Groups, sizes: &[(&str, u64)]) -> Row {
        let mut first = 0;
        let cells = sizes.iter().map(|(name, size)| {
            let people = People::of(first..first + size, 10);
            first += size;
            let cell = Cell { values: [*size as i64, 0], parts: vec![people], behind: Vec::new() };
            (groups.id(vec![Some((*name).to_owned())]), cell)
        });
        cells.collect()
    }

    fn folded(sizes: &[(&str, u64)]) -> Vec<(String, i64)> {
        let mut groups = Groups::default();
        let row = row(&mut groups, sizes);
        let name = |label: Label| match label {
            Label::Other => OTHER.to_owned(),
            Label::Group(group) => groups.name(group)[0].clone().unwrap_or_default(),
        };
        fold(&row, &groups, 10).into_iter().map(|(label, cell)| (name(label), cell.values[0])).collect()
    }

    #[test]
    fn a_group_that_is_really_called_other_is_no_second_row_of_that_name() {
        let of = |rows: &[(&str, i64)]| rows.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect::<Vec<_>>();
        assert_eq!(folded(&[("(other)", 12), ("x", 4), ("y", 8), ("z", 30)]), of(&[("z", 30), (OTHER, 24)]));
        assert_eq!(folded(&[("(other)", 12), ("z", 30)]), of(&[("z", 30), (OTHER, 12)]));
        // It lends no safety to those that are too small together: one more goes with them.
        assert_eq!(folded(&[("(other)", 50), ("x", 4), ("z", 30)]), of(&[(OTHER, 84)]));
        assert_eq!(folded(&[("(other)", 3)]), of(&[]));
    }
}
