//! Growth: kinds that add up to a month, and months that give each other away.

use std::collections::{BTreeMap, BTreeSet};

use ameles_core::Month;

use super::fold::{Label, fold_static, relabel};
use crate::cells::{Cell, Cells, Groups, Row};

/// What happened to a device in a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Active the month before, not in this one.
    Churned,
    /// Never active before.
    New,
    /// Active earlier, not the month before.
    Resurrected,
    /// Active the month before.
    Retained,
}

impl Kind {
    /// All, as the answer sorts them.
    pub const ALL: [Self; 4] = [Self::Churned, Self::New, Self::Resurrected, Self::Retained];
    /// In the answer.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Churned => "churned",
            Self::New => "new",
            Self::Resurrected => "resurrected",
            Self::Retained => "retained",
        }
    }
    /// Of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

type Key = (Month, Kind);
type Series = BTreeMap<Key, Cell>;
type Labelled = BTreeMap<Key, BTreeMap<Label, Cell>>;

/// Guards the answer as a whole. One fold for all months: a group stays alone if
/// its actives reach `k` in each month that has any. Then, row by row, kinds
/// below `k` are left out, and with them so many others that none follows from
/// `new + retained + resurrected` of a month = `retained + churned` of the next.
/// Gives what is shown, and all of it by label.
pub fn guard_growth(cells: &Cells<Key>, groups: &Groups, k: u32) -> (Labelled, Labelled) {
    let labels = labels(cells, groups, k);
    let mut series: BTreeMap<Label, Series> = BTreeMap::new();
    for (key, row) in cells {
        for (label, cell) in relabel(row, &labels, k) {
            series.entry(label).or_default().insert(*key, cell);
        }
    }
    let (mut guarded, mut all) = (Labelled::new(), Labelled::new());
    for (label, mut series) in series {
        for (key, cell) in &series {
            all.entry(*key).or_default().insert(label, cell.clone());
        }
        for key in hidden(&series, k) {
            series.remove(&key);
        }
        for (key, cell) in series {
            guarded.entry(key).or_default().insert(label, cell);
        }
    }
    (guarded, all)
}

/// The month's actives, by group.
fn actives(cells: &Cells<Key>, month: Month, k: u32) -> Row {
    let mut row = Row::new();
    for kind in [Kind::New, Kind::Retained, Kind::Resurrected] {
        for (group, cell) in cells.get(&(month, kind)).into_iter().flatten() {
            row.entry(*group).or_default().add(cell, k);
        }
    }
    row
}

fn labels(cells: &Cells<Key>, groups: &Groups, k: u32) -> BTreeMap<u32, Label> {
    let months: BTreeSet<Month> = cells.keys().map(|(month, _)| *month).collect();
    let by_month: Vec<Row> = months.iter().map(|month| actives(cells, *month, k)).collect();
    // A group counts as its smallest month; each month is decided alone, and who
    // is folded in one is folded in all.
    let mut folded: BTreeSet<u32> = BTreeSet::new();
    loop {
        let before = folded.len();
        for row in &by_month {
            let mut joined = row.clone();
            let mut other = Cell::default();
            for group in &folded {
                if let Some(cell) = joined.remove(group) {
                    other.add(&cell, k);
                }
            }
            let stands_alone = other.is_empty() || other.is_safe(k);
            let next = fold_static(&joined, groups, k);
            let small = next.iter().filter(|(_, label)| **label == Label::Other).map(|(group, _)| *group);
            let small: Vec<u32> = small.collect();
            if small.is_empty() && !stands_alone {
                // The others need one more: the smallest.
                let smallest = joined.iter().min_by_key(|(group, cell)| (cell.values[0], groups.sort_key(**group)));
                folded.extend(smallest.map(|(group, _)| *group));
            }
            folded.extend(small);
        }
        if folded.len() == before {
            break;
        }
    }
    let all = by_month.iter().flat_map(BTreeMap::keys);
    all.map(|group| (*group, if folded.contains(group) { Label::Other } else { Label::Group(*group) })).collect()
}

/// Which cells of a row have to stay out.
///
/// Each month's `new + resurrected + retained` is the next one's `retained +
/// churned`. Adding that up over consecutive months, all `retained` but the
/// first and the last cancel: so those sums, one for each run of months, are all
/// that can be computed about cells left out.
fn hidden(series: &Series, k: u32) -> BTreeSet<Key> {
    let mut hidden: BTreeSet<Key> = series.iter().filter(|(_, cell)| !cell.is_empty() && !cell.is_safe(k)).map(|(key, _)| *key).collect();
    let months: BTreeSet<Month> = series.keys().map(|(month, _)| *month).collect();
    loop {
        let before = hidden.len();
        for first in &months {
            let mut left = vec![(*first, Kind::Retained)];
            let mut churned = Vec::new();
            let mut month = *first;
            while months.contains(&month) && months.contains(&month.plus(1)) {
                left.extend([(month, Kind::Resurrected), (month, Kind::New)]);
                month = month.plus(1);
                churned.push((month, Kind::Churned));
                let right: Vec<Key> = churned.iter().copied().chain([(month, Kind::Retained)]).collect();
                balance(series, &left, &right, &mut hidden, k);
                balance(series, &right, &left, &mut hidden, k);
            }
        }
        if hidden.len() == before {
            return hidden;
        }
    }
}

/// The two sides are equal: what is hidden on one side alone follows as a sum.
/// Where that is not safe, one more has to go, on the other side if possible.
fn balance(series: &Series, side: &[Key], other_side: &[Key], hidden: &mut BTreeSet<Key>, k: u32) {
    if other_side.iter().any(|key| hidden.contains(key)) {
        return;
    }
    let mut sum = Cell::default();
    for cell in side.iter().filter(|key| hidden.contains(*key)).filter_map(|key| series.get(key)) {
        sum.add(cell, k);
    }
    if sum.is_empty() || sum.is_safe(k) {
        return;
    }
    let shown = |key: &&Key| !hidden.contains(*key) && series.get(*key).is_some_and(|cell| !cell.is_empty());
    let partner = other_side.iter().find(shown).or_else(|| side.iter().find(shown)).copied();
    hidden.extend(partner);
}
