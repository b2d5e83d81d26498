//! How each operator goes through its rows.

use std::ops::Range;
use std::sync::Arc;

use ameles_schemas::Table;
use ameles_store::StoreError;
use ameles_store::scan::{Columns, LEFT_OUT, Piece, Reader, Wanted};

use super::sink::{Masks, Sink, Whom};
use super::sweep::{Devices, Rows, Sweep, look_up};
use super::tally::{bits, window_masks};
use super::work::{CHURNED_NEXT, NEW, Operator, RESURRECTED, RETAINED, Work};

/// Rows read at once where months are counted one by one: as many as a page has.
const READ_ROWS: usize = 8 << 10;
const MICROS_PER_DAY: i64 = 86_400_000_000;

impl Work<'_> {
    pub(super) fn run_piece(
        &self,
        series: usize,
        (at, piece): (usize, &Piece),
        rows_max: usize,
        devices: bool,
        sink: &mut impl Sink,
    ) -> Result<(), StoreError> {
        let (measure, days) = match self.operator {
            Operator::Measure(measure) => (Some(measure), true),
            Operator::Days => (None, true),
            _ => (None, false),
        };
        let wanted = Wanted {
            devices: devices || (self.k.is_some() && !piece.is_settled()),
            days,
            measure,
            grouping: Some(Arc::clone(&self.grouping)),
            ..Wanted::default()
        };
        let mut reader = Reader::new(self.view, Table::Activity, &wanted, [piece.clone()]);
        let mut columns = Columns::default();
        let mut masks = Vec::new();
        let mut read = 0;
        while read < rows_max && reader.read(READ_ROWS.min(rows_max - read), &mut columns)?.is_some() {
            let whom = |row: usize| {
                columns.devices.get(row).map_or(Whom::At { piece: at as u32, row: (read + row) as u32 }, |device| Whom::Device(*device))
            };
            if !days {
                sink.units(series, &columns.groups, &whom);
            } else {
                masks.clear();
                if measure.is_some() {
                    self.measured(series, &columns, sink, &mut masks);
                } else {
                    masks.extend(columns.days.iter().map(|days| u64::from(*days)));
                }
                if measure.is_none() || self.k.is_some() {
                    let who = |row: usize| (whom(row), masks.get(row).copied().unwrap_or(0));
                    sink.rows(&Masks { series, groups: &columns.groups, first: &masks, second: &[], who: &who });
                }
            }
            read += columns.rows;
            columns.clear();
        }
        Ok(())
    }

    /// Sums a measure; for analysts also on which days there was any.
    fn measured(&self, series: usize, columns: &Columns, sink: &mut impl Sink, masks: &mut Vec<u64>) {
        let mut rest = columns.counts.as_slice();
        for (days, group) in columns.days.iter().zip(&columns.groups) {
            let Some((counts, later)) = rest.split_at_checked(days.count_ones() as usize) else { return };
            rest = later;
            sink.sums(series, *group, *days, counts);
            if self.k.is_some() {
                let measured = bits(u64::from(*days)).zip(counts).filter(|(_, count)| **count != 0);
                masks.push(measured.fold(0, |mask, (bit, _)| mask | 1 << bit));
            }
        }
    }

    pub(super) fn run_users(&self, sweep: &Sweep<'_>, buckets: Range<u64>, sink: &mut impl Sink) -> Result<(), StoreError> {
        let mut masks = Vec::new();
        sweep.run(buckets, |lanes| {
            for (rows, lane) in lanes.iter().zip(&sweep.lanes) {
                let mask = |days: &u32| if self.operator == Operator::Units { 1 } else { u64::from(*days) };
                masks.clear();
                masks.extend(rows.days.iter().map(mask));
                let who = |row: usize| (rows.whom(row), masks.get(row).copied().unwrap_or(0));
                sink.rows(&Masks { series: lane.month, groups: rows.groups, first: &masks, second: &[], who: &who });
            }
            Ok(())
        })
    }

    pub(super) fn run_rolling(&self, sweep: &Sweep<'_>, buckets: Range<u64>, window: u32, sink: &mut impl Sink) -> Result<(), StoreError> {
        let rest = self.operator == Operator::Stickiness(window);
        let (mut next, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
        sweep.run(buckets, |lanes| {
            for (at, rows) in lanes.iter().enumerate() {
                let Some(month) = sweep.lanes.get(at).map(|lane| lane.month).filter(|month| self.scope.wanted.contains(month)) else {
                    continue;
                };
                let following = sweep.lanes.get(at + 1).is_some_and(|lane| lane.month == month + 1);
                let others = if following { lanes.get(at + 1).copied().unwrap_or_default() } else { Rows::default() };
                look_up(rows.devices, others, &mut next);
                let length = self.month(month).days();
                first.clear();
                window_masks(rows.days, &next, length, window, &mut first);
                second.clear();
                if rest {
                    second.extend(first.iter().zip(rows.days).map(|(mask, days)| mask & !u64::from(*days)));
                    first.clear();
                    first.extend(rows.days.iter().map(|days| u64::from(*days)));
                }
                let who = |row: usize| {
                    let payload =
                        u64::from(rows.days.get(row).copied().unwrap_or(0)) | u64::from(next.get(row).copied().unwrap_or(0)) << 32;
                    (rows.whom(row), payload)
                };
                sink.rows(&Masks { series: month, groups: rows.groups, first: &first, second: &second, who: &who });
            }
            Ok(())
        })
    }

    pub(super) fn run_growth(&self, sweep: &Sweep<'_>, buckets: Range<u64>, sink: &mut impl Sink) -> Result<(), StoreError> {
        let mut devices = Devices::default();
        let (mut active, mut numbers, mut masks) = (Vec::new(), Vec::new(), Vec::new());
        sweep.run(buckets, |lanes| {
            devices.reset(sweep, lanes.iter().map(|rows| rows.devices.len()).sum());
            active.clear();
            numbers.clear();
            for (rows, lane) in lanes.iter().zip(&sweep.lanes) {
                for device in rows.devices {
                    let (number, is_new) = devices.insert(*device);
                    if is_new {
                        active.push(0_u64);
                    }
                    if let Some(months) = active.get_mut(number) {
                        *months |= 1 << lane.month;
                    }
                    numbers.push(number as u32);
                }
            }
            let mut numbers = numbers.as_slice();
            for (rows, lane) in lanes.iter().zip(&sweep.lanes) {
                let Some((own, later)) = numbers.split_at_checked(rows.devices.len()) else { break };
                numbers = later;
                let month = lane.month;
                let (is_wanted, next_wanted) = (self.scope.wanted.contains(&month), self.scope.wanted.contains(&(month + 1)));
                if !is_wanted && !next_wanted {
                    continue;
                }
                masks.clear();
                for number in own {
                    let months = active.get(*number as usize).copied().unwrap_or(0);
                    let mut mask = 0;
                    if is_wanted {
                        mask |= match months & ((1 << month) - 1) {
                            0 => NEW,
                            before if before >> (month.saturating_sub(1)) & 1 == 1 => RETAINED,
                            _ => RESURRECTED,
                        };
                    }
                    if next_wanted && months >> (month + 1) & 1 == 0 {
                        mask |= CHURNED_NEXT;
                    }
                    masks.push(mask);
                }
                let who = |row: usize| (rows.whom(row), masks.get(row).copied().unwrap_or(0));
                sink.rows(&Masks { series: month, groups: rows.groups, first: &masks, second: &[], who: &who });
            }
            Ok(())
        })
    }

    /// Activity from the month `from` on; what came before is known otherwise.
    pub(super) fn run_retention(
        &self,
        sweep: &Sweep<'_>,
        from: usize,
        buckets: Range<u64>,
        sink: &mut impl Sink,
    ) -> Result<(), StoreError> {
        let mut devices = Devices::default();
        let mut activated = Activated::default();
        let months = self.scope.months.len();
        let mut lost = Vec::new();
        sweep.run(buckets, |lanes| {
            let of = |table: Table| lanes.iter().zip(&sweep.lanes).filter(move |(_, lane)| lane.table == table);
            devices.reset(sweep, of(Table::Devices).map(|(rows, _)| rows.devices.len()).sum());
            activated.clear();
            // Lanes are in the order of months: what is known was activated earlier.
            for (rows, lane) in of(Table::Devices) {
                let start = activated.groups.len();
                for (row, device) in rows.devices.iter().enumerate() {
                    if devices.insert(*device).1 {
                        activated.groups.push(rows.groups.get(row).copied().unwrap_or(LEFT_OUT));
                        activated.active.push(0);
                        activated.cohorts.push(lane.month as u32);
                    }
                }
                activated.lanes.push((lane.month, start..activated.groups.len()));
            }
            for (rows, lane) in of(Table::Activity) {
                for device in rows.devices {
                    if let Some(number) = devices.get(*device)
                        && let (Some(active), Some(cohort)) = (activated.active.get_mut(number), activated.cohorts.get(number))
                    {
                        // Months before the cohort's are shifted out.
                        *active |= 1_u64.checked_shl((lane.month as u32).wrapping_sub(*cohort)).unwrap_or(0);
                    }
                }
            }
            for (cohort, own) in activated.lanes.iter().filter(|(cohort, _)| self.scope.wanted.contains(cohort)) {
                let all = u64::MAX >> (64 - (months - *cohort).clamp(1, 64));
                let all = all & u64::MAX.checked_shl(from.saturating_sub(*cohort) as u32).unwrap_or(0);
                let (Some(groups), Some(active), Some(known)) =
                    (activated.groups.get(own.clone()), activated.active.get(own.clone()), devices.known.get(own.clone()))
                else {
                    continue;
                };
                lost.clear();
                lost.extend(active.iter().map(|active| all & !active));
                let who = |row: usize| {
                    let device = Whom::Device(known.get(row).copied().unwrap_or(0));
                    (device, active.get(row).copied().unwrap_or(0))
                };
                sink.rows(&Masks { series: *cohort, groups, first: active, second: &lost, who: &who });
            }
            Ok(())
        })
    }

    pub(super) fn run_activations(&self, sweep: &Sweep<'_>, buckets: Range<u64>, sink: &mut impl Sink) -> Result<(), StoreError> {
        let mut devices = Devices::default();
        let (mut masks, mut groups) = (Vec::new(), Vec::new());
        sweep.run(buckets, |lanes| {
            devices.reset(sweep, lanes.iter().map(|rows| rows.devices.len()).sum());
            for (rows, lane) in lanes.iter().zip(&sweep.lanes) {
                let first = self.month(lane.month).first_day().start().micros();
                let day = |time: i64| 1_u64 << ((time - first) / MICROS_PER_DAY).clamp(0, 30);
                masks.clear();
                groups.clear();
                for (row, device) in rows.devices.iter().enumerate() {
                    let is_new = devices.insert(*device).1;
                    masks.push(rows.times.get(row).map_or(0, |time| day(*time)));
                    groups.push(if is_new { rows.groups.get(row).copied().unwrap_or(LEFT_OUT) } else { LEFT_OUT });
                }
                if self.scope.wanted.contains(&lane.month) {
                    let who = |row: usize| (rows.whom(row), masks.get(row).copied().unwrap_or(0));
                    sink.rows(&Masks { series: lane.month, groups: &groups, first: &masks, second: &[], who: &who });
                }
            }
            Ok(())
        })
    }
}

/// Devices activated in one bucket, in the order of months: group, cohort, and months of activity from the cohort's on.
#[derive(Default)]
struct Activated {
    groups: Vec<u32>,
    cohorts: Vec<u32>,
    active: Vec<u64>,
    lanes: Vec<(usize, Range<usize>)>,
}

impl Activated {
    fn clear(&mut self) {
        self.groups.clear();
        self.cohorts.clear();
        self.active.clear();
        self.lanes.clear();
    }
}
