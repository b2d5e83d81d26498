//! Answers of the operators of `count` as the cells that statements would have given.

use std::sync::Arc;

use ameles_core::{Day, Month};
use ameles_store::scan::{DimensionFilter, Grouping};

use super::Job;
use super::daily::Counted;
use super::reading::blocking;
use crate::catalog::{MAU28_DAYS, Metric};
use crate::cells::{Cell, Cells, GroupId, Groups, Name, People};
use crate::count::{self, CHURNED_NEXT, MONTHS_MAX, NEW, Operator, Question, RESURRECTED, RETAINED, Scope, Slot};
use crate::guard::Kind;
use crate::{QueryError, Unit};

/// Slots with what their numbers mean.
pub(super) struct Direct {
    slots: Vec<Slot>,
    months: Vec<Month>,
    names: Vec<Name>,
    operator: Operator,
    k: u32,
}

impl Job<'_> {
    /// The counts of some months without statements; none where the metric or the source has to do with them.
    pub(super) async fn direct(&self, months: (Month, Month)) -> Result<Option<Direct>, QueryError> {
        let (Some(view), Some(operator)) = (self.reading.view(), self.operator()) else { return Ok(None) };
        let schemas = view.tables();
        let (first, last) = (self.coverage.first.month(), self.coverage.last.month());
        let all: Vec<Month> = (first.epoch_months()..=last.epoch_months()).map(Month::from_epoch_months).collect();
        if matches!(operator, Operator::Growth | Operator::Retention) && all.len() > MONTHS_MAX {
            return Ok(None);
        }
        let place = |month: Month| usize::try_from(month.epoch_months() - first.epoch_months()).unwrap_or(0);
        let end = if months.1 < first { 0 } else { (place(months.1) + 1).min(all.len()) };
        let wanted = place(months.0.max(first)).min(end)..end;
        let dimension = |name: &String| schemas.dimension_index(name).unwrap_or(usize::MAX);
        let filters = self.request.filters.iter().map(|filter| DimensionFilter {
            dimension: dimension(&filter.dim),
            negate: filter.negate,
            values: filter.values.clone(),
        });
        let grouping = Grouping::new(self.request.by.iter().map(dimension).collect(), filters.collect());
        let question = Question {
            operator,
            scope: Scope { months: all.clone(), wanted },
            grouping: Arc::clone(&grouping),
            k: self.k,
            has_user: self.has_user,
            by_user: self.request.unit == Unit::User,
            sizes: self.sizes,
        };
        let view = Arc::clone(view);
        let slots = blocking(move || Ok(count::count(&view, &question)?)).await?;
        Ok(Some(Direct { slots, months: all, names: grouping.names(), operator, k: self.k.unwrap_or(0) }))
    }

    fn operator(&self) -> Option<Operator> {
        if self.request.unit == Unit::User {
            // Attributes are those of the devices, and so, in a window, is who stands behind it.
            let plain = self.request.by.is_empty() && self.request.filters.is_empty();
            let windows = matches!(self.metric, Metric::Rolling(_) | Metric::Stickiness);
            if !plain || (windows && self.k.is_some()) {
                return None;
            }
        }
        match &self.metric {
            Metric::Activations => Some(Operator::Activations),
            Metric::InstalledBase => self.request.active_in.is_none().then_some(Operator::Activations),
            Metric::Dau => Some(Operator::Days),
            Metric::Rolling(days) => Some(Operator::Rolling(*days)),
            Metric::Mau => Some(Operator::Units),
            Metric::Stickiness => Some(Operator::Stickiness(MAU28_DAYS)),
            Metric::Measure(name) => {
                let schemas = self.reading.view()?.tables();
                schemas.measure_index(name).map(Operator::Measure)
            }
            Metric::Retention => Some(Operator::Retention),
            Metric::Growth => Some(Operator::Growth),
        }
    }
}

impl Direct {
    fn month(&self, slot: &Slot) -> Month {
        self.months.get(slot.series).copied().unwrap_or(Month::from_epoch_months(0))
    }

    fn group(&self, slot: &Slot, groups: &mut Groups) -> GroupId {
        groups.id((slot.group as usize).checked_sub(1).and_then(|at| self.names.get(at)).cloned().unwrap_or_default())
    }

    /// Who is behind a bit: each part's devices, then each part's users.
    fn people(&self, slot: &Slot, bit: usize) -> Vec<People> {
        let parts = if matches!(self.operator, Operator::Stickiness(_) | Operator::Retention) { 2 } else { 1 };
        let of = |ids: Option<&Vec<u64>>| ids.map(|ids| People::of(ids.iter().copied(), self.k)).unwrap_or_default();
        slot.people.iter().flat_map(|crowds| crowds.iter().take(parts)).map(|crowd| of(crowd.by_bit.get(bit))).collect()
    }

    /// How many devices have which value of a measure on the day; with the first day that has any, how many have any in the month.
    fn spread(&self, slot: &Slot, bit: usize) -> Vec<i64> {
        let Some(spread) = slot.spread.as_ref().filter(|_| matches!(self.operator, Operator::Measure(_))) else { return Vec::new() };
        let mut devices: Vec<i64> =
            spread.by_day.get(bit).map(|day| day.iter().map(|devices| i64::from(*devices)).collect()).unwrap_or_default();
        let is_first = slot.sums.as_ref().is_some_and(|sums| sums.iter().take(bit).all(|sum| *sum == 0));
        devices.push(if is_first { i64::from(spread.any) } else { 0 });
        devices
    }

    /// Cells by day, up to the last one.
    pub(super) fn counted(&self, last: Day) -> Counted {
        let (mut cells, mut groups): (Cells<Day>, Groups) = Default::default();
        for slot in &self.slots {
            let (first, group) = (self.month(slot).first_day(), self.group(slot, &mut groups));
            for bit in 0..64 {
                let count = |counts: &[u64; 64]| i64::try_from(counts[bit]).unwrap_or(i64::MAX);
                let values = match self.operator {
                    Operator::Stickiness(_) => [count(&slot.first), count(&slot.first) + count(&slot.second)],
                    Operator::Measure(_) => [slot.sums.as_ref().and_then(|sums| sums.get(bit)).copied().unwrap_or(0), 0],
                    _ => [count(&slot.first), 0],
                };
                let day = first.plus(bit as i32);
                if values != [0, 0] && day <= last {
                    let cell = Cell { values, parts: self.people(slot, bit), behind: self.spread(slot, bit) };
                    cells.entry(day).or_default().entry(group).or_default().add(&cell, self.k);
                }
            }
        }
        Counted { cells, groups }
    }

    /// Cells of growth by month and kind.
    pub(super) fn kinds(&self, groups: &mut Groups) -> Cells<(Month, Kind)> {
        let mut cells: Cells<(Month, Kind)> = Cells::new();
        for slot in &self.slots {
            let (month, group) = (self.month(slot), self.group(slot, groups));
            let kinds = [
                (NEW, month, Kind::New),
                (RETAINED, month, Kind::Retained),
                (RESURRECTED, month, Kind::Resurrected),
                (CHURNED_NEXT, month.plus(1), Kind::Churned),
            ];
            for (mask, month, kind) in kinds {
                let bit = mask.trailing_zeros() as usize;
                let count = slot.first[bit];
                if count > 0 {
                    let values = [i64::try_from(count).unwrap_or(i64::MAX), 0];
                    let cell = Cell { values, parts: self.people(slot, bit), ..Cell::default() };
                    cells.entry((month, kind)).or_default().insert(group, cell);
                }
            }
        }
        cells
    }

    /// For each cohort (its slot) the months from its own on: those active, those not, and who they are.
    pub(super) fn cohorts(&self, groups: &mut Groups, mut each: impl FnMut((Month, Month), GroupId, [i64; 2], Vec<People>)) {
        for slot in &self.slots {
            let (cohort, group) = (self.month(slot), self.group(slot, groups));
            for (offset, month) in self.months.iter().skip(slot.series).enumerate() {
                let count = |counts: &[u64; 64]| counts.get(offset).map_or(0, |count| i64::try_from(*count).unwrap_or(i64::MAX));
                each((cohort, *month), group, [count(&slot.first), count(&slot.second)], self.people(slot, offset));
            }
        }
    }
}
