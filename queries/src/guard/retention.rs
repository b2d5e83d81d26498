//! Cohorts: who came back, and so who did not.

use std::collections::BTreeMap;

use ameles_core::Month;

use super::fold::{Label, fold_static, relabel};
use crate::cells::{Cell, Cells, Groups};

/// Guards each cohort's row of offsets. `active` holds those active (and, in
/// its parts, those not) by cohort and month; `size` the cohorts themselves.
///
/// Devices and rate give away the cohort's size at every offset: so one fold
/// for the cohort, by its size, and an offset of a group is left out where those
/// that came back, or those that did not, are fewer than `k`.
pub fn guard_retention(
    active: &Cells<(Month, Month)>,
    size: &Cells<Month>,
    groups: &Groups,
    k: u32,
) -> BTreeMap<(Month, Month), BTreeMap<Label, Cell>> {
    let mut guarded = BTreeMap::new();
    for (cohort, sizes) in size {
        let labels = fold_static(sizes, groups, k);
        let cohort_sizes = relabel(sizes, &labels, k);
        let months = active.range((*cohort, *cohort)..(cohort.plus(1), *cohort));
        for (key, row) in months {
            let mut rows = relabel(row, &labels, k);
            rows.retain(|label, cell| {
                let size = cohort_sizes.get(label);
                cell.values[1] = size.map_or(0, |size| size.values[0]);
                cell.is_safe(k) && size.is_some_and(|size| size.is_safe(k))
            });
            guarded.insert(*key, rows);
        }
    }
    guarded
}
