//! Totals whose consecutive days can be subtracted.

use std::collections::BTreeMap;

use ameles_core::Day;

use super::fold::{Label, fold_static, relabel};
use crate::cells::{Cell, Cells, GroupId, Groups, Row};

/// Running totals from what is added each day: one fold for all days, by what a
/// group reaches in the end; and a total moves only once what was added rests
/// on `k`. Days between carry the last total forward; before the first there is
/// no row.
pub fn guard_running(added: &Cells<Day>, groups: &Groups, last: Day, k: u32) -> BTreeMap<Day, BTreeMap<Label, Cell>> {
    let labels = running_labels(added, groups, k);
    let mut pending: BTreeMap<Label, Cell> = BTreeMap::new();
    let mut totals: BTreeMap<Label, Cell> = BTreeMap::new();
    let mut days = BTreeMap::new();
    let Some((first, _)) = added.first_key_value() else { return days };
    for day in (first.epoch_days()..=last.epoch_days()).map(Day::from_epoch_days) {
        if let Some(row) = added.get(&day) {
            for (label, cell) in relabel(row, &labels, k) {
                let waiting = pending.entry(label).or_default();
                waiting.add(&cell, k);
                if waiting.is_safe(k) {
                    totals.entry(label).or_default().add(waiting, k);
                    pending.remove(&label);
                }
            }
        }
        days.insert(day, totals.clone());
    }
    days
}

/// Counts of a window that still reaches before the data: each day's is the
/// last one's with those seen for the first time, and so a running total. One
/// fold for these days; a row whose difference from the last one shown is
/// smaller than `k` is left out.
pub fn guard_rising(counted: &Cells<Day>, groups: &Groups, k: u32) -> BTreeMap<Day, BTreeMap<Label, Cell>> {
    let Some((_, end)) = counted.last_key_value() else { return BTreeMap::new() };
    let labels = fold_static(end, groups, k);
    let mut shown: BTreeMap<Label, i64> = BTreeMap::new();
    let mut days = BTreeMap::new();
    for (day, row) in counted {
        let mut rows = relabel(row, &labels, k);
        rows.retain(|label, cell| {
            let difference = (cell.values[0] - shown.get(label).copied().unwrap_or(0)).unsigned_abs();
            let safe = cell.is_safe(k) && (difference == 0 || difference >= u64::from(k));
            if safe {
                shown.insert(*label, cell.values[0]);
            }
            safe
        });
        days.insert(*day, rows);
    }
    days
}

/// The one fold for all days.
pub fn running_labels(added: &Cells<Day>, groups: &Groups, k: u32) -> BTreeMap<GroupId, Label> {
    fold_static(&whole(added.values(), k), groups, k)
}

fn whole<'a>(rows: impl Iterator<Item = &'a Row>, k: u32) -> Row {
    let mut whole = Row::new();
    for row in rows {
        for (group, cell) in row {
            whole.entry(*group).or_default().add(cell, k);
        }
    }
    whole
}
