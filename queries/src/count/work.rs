//! The operators: what each metric goes through, and what a row counts for.

use std::ops::Range;
use std::sync::Arc;

use ameles_core::Month;
use ameles_schemas::Table;
use ameles_store::scan::{Columns, Grouping, LEFT_OUT, Piece, Reader, Wanted};
use ameles_store::{ReadView, StoreError};

use super::Sizes;
use super::sink::{Mark, Masks, Sink, Whom};
use super::sweep::{Devices, Lane, Rows, Sweep, look_up};
use super::tally::{bits, window_mask, window_masks};

/// Rows read at once where months are counted one by one: as many as a page has.
const READ_ROWS: usize = 8 << 10;
const MICROS_PER_DAY: i64 = 86_400_000_000;
/// Months told apart by one bit each.
pub const MONTHS_MAX: usize = 63;

/// What is counted, by month (cohort) and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// Devices by day.
    Days,
    /// Devices of the month: bit 0.
    Units,
    /// Sums of a measure by day; devices by day with any.
    Measure(usize),
    /// Devices by day of so many that end on it, which reach into the next month.
    Rolling(u32),
    /// Devices active on the day, and the rest of those of its window.
    Stickiness(u32),
    /// Bit 0: new; 1: retained; 2: resurrected; 3: not active in the next month.
    Growth,
    /// Cohorts: bit `n` are those active `n` months after the month of activation, and those not.
    Retention,
    /// Devices by day of activation.
    Activations,
}

/// Bits of [`Operator::Growth`].
pub const NEW: u64 = 1;
pub const RETAINED: u64 = 2;
pub const RESURRECTED: u64 = 4;
pub const CHURNED_NEXT: u64 = 8;

/// The months of the data, one after the other, and the places of those that are asked for.
#[derive(Clone, Debug)]
pub struct Scope {
    pub months: Vec<Month>,
    pub wanted: Range<usize>,
}

/// A part of the work that a thread does at once.
#[derive(Clone, Debug)]
pub enum Unit {
    /// Rows of one piece, so many at most.
    Piece { at: usize, rows_max: usize },
    /// Of all months.
    Buckets(Range<u64>),
}

enum Plan<'v> {
    Pieces(Vec<(usize, Piece)>),
    Sweep(Sweep<'v>),
}

/// An operator over one view.
pub struct Work<'v> {
    pub view: &'v ReadView,
    pub operator: Operator,
    pub scope: Scope,
    pub grouping: Arc<Grouping>,
    /// The smallest group, where it will be asked who is behind the counts.
    pub k: Option<u32>,
    pub sizes: Sizes,
    plan: Plan<'v>,
}

impl<'v> Work<'v> {
    pub fn new(
        view: &'v ReadView,
        operator: Operator,
        scope: Scope,
        grouping: Arc<Grouping>,
        k: Option<u32>,
        sizes: Sizes,
    ) -> Result<Self, StoreError> {
        let wanted = scope.wanted.clone();
        let mut work = Self { view, operator, scope, grouping, k, sizes, plan: Plan::Pieces(Vec::new()) };
        let last = work.scope.months.len();
        work.plan = match operator {
            Operator::Days | Operator::Units | Operator::Measure(_) => {
                let mut pieces = Vec::new();
                for at in wanted {
                    pieces.extend(view.pieces(Table::Activity, work.month(at))?.into_iter().map(|piece| (at, piece)));
                }
                Plan::Pieces(pieces)
            }
            Operator::Rolling(_) | Operator::Stickiness(_) => {
                let grouped = Wanted { days: true, grouping: Some(Arc::clone(&work.grouping)), ..Wanted::default() };
                let next = Wanted { days: true, ..Wanted::default() };
                let mut lanes = work.lanes(Table::Activity, wanted.clone(), &grouped)?;
                lanes.extend(work.lanes(Table::Activity, wanted.end..(wanted.end + 1).min(last), &next)?);
                Plan::Sweep(Sweep::new(view, sizes, lanes))
            }
            Operator::Growth => {
                let grouped = Wanted { grouping: Some(Arc::clone(&work.grouping)), ..Wanted::default() };
                let grouped_from = wanted.start.saturating_sub(1);
                let mut lanes = work.lanes(Table::Activity, 0..grouped_from, &Wanted::default())?;
                lanes.extend(work.lanes(Table::Activity, grouped_from..wanted.end, &grouped)?);
                Plan::Sweep(Sweep::new(view, sizes, lanes))
            }
            Operator::Retention => {
                let grouped = Wanted { grouping: Some(Arc::clone(&work.grouping)), ..Wanted::default() };
                let mut lanes = work.lanes(Table::Devices, 0..wanted.start, &Wanted::default())?;
                lanes.extend(work.lanes(Table::Devices, wanted.clone(), &grouped)?);
                lanes.extend(work.lanes(Table::Activity, wanted.start..last, &Wanted::default())?);
                Plan::Sweep(Sweep::new(view, sizes, lanes))
            }
            Operator::Activations => {
                let grouped = Wanted { time: Some("activated_ts"), grouping: Some(Arc::clone(&work.grouping)), ..Wanted::default() };
                let mut lanes = work.lanes(Table::Devices, 0..wanted.start, &Wanted::default())?;
                lanes.extend(work.lanes(Table::Devices, wanted.clone(), &grouped)?);
                Plan::Sweep(Sweep::new(view, sizes, lanes))
            }
        };
        Ok(work)
    }

    pub fn month(&self, at: usize) -> Month {
        self.scope.months.get(at).copied().unwrap_or(Month::from_epoch_months(0))
    }

    fn lanes(&self, table: Table, months: Range<usize>, wanted: &Wanted) -> Result<Vec<Lane>, StoreError> {
        let wanted = Wanted { devices: true, ..wanted.clone() };
        let open = |at: usize| Lane::open(self.view, table, (self.month(at), at), &wanted).transpose();
        months.filter_map(open).collect()
    }

    /// All of it.
    pub fn units(&self, threads: usize) -> Vec<Unit> {
        match &self.plan {
            Plan::Pieces(pieces) => (0..pieces.len()).map(|at| Unit::Piece { at, rows_max: usize::MAX }).collect(),
            Plan::Sweep(sweep) => Self::buckets(sweep, 1 << sweep.bucket_bits, threads),
        }
    }

    fn buckets(sweep: &Sweep<'_>, end: u64, threads: usize) -> Vec<Unit> {
        // A merged month is read from its beginning, and once.
        let parts = if sweep.is_seekable() { (threads as u64 * 4).clamp(1, end) } else { 1 };
        (0..parts).map(|part| Unit::Buckets(end * part / parts..end * (part + 1) / parts)).collect()
    }

    /// What has to be gone through for the counts, and the months whose rows are counted already, by their files.
    pub fn counting_units(&self, threads: usize) -> (Vec<Unit>, Vec<(usize, u64)>) {
        let Plan::Pieces(pieces) = &self.plan else { return (self.units(threads), Vec::new()) };
        if self.operator != Operator::Units || !self.grouping.is_whole() {
            return (self.units(threads), Vec::new());
        }
        let exact = |at: usize| self.view.exact_rows(Table::Activity, self.month(at)).map(|rows| (at, rows));
        let known: Vec<(usize, u64)> = self.scope.wanted.clone().filter_map(exact).collect();
        let k = self.k.map_or(0, |k| k as usize);
        let (mut month, mut seen) = (usize::MAX, 0);
        let mut units = Vec::new();
        for (at, (series, piece)) in pieces.iter().enumerate() {
            if month != *series {
                (month, seen) = (*series, 0);
            }
            if !known.iter().any(|(month, _)| month == series) {
                units.push(Unit::Piece { at, rows_max: usize::MAX });
            } else if seen < k {
                // Only some of those behind the count are wanted.
                units.push(Unit::Piece { at, rows_max: k });
                seen += piece.rows();
            }
        }
        (units, known)
    }

    /// The only group where nothing is grouped or filtered.
    pub fn whole_group(&self) -> u32 {
        self.grouping.whole_group()
    }

    /// A part of it with about so many rows of each month, and whether that is all.
    pub fn sample(&self, rows: usize, threads: usize) -> (Vec<Unit>, bool) {
        match &self.plan {
            Plan::Pieces(pieces) => {
                let (mut units, mut all) = (Vec::new(), true);
                let mut left: Option<(usize, usize)> = None;
                for (at, (series, piece)) in pieces.iter().enumerate() {
                    let of_month = match left {
                        Some((month, of_month)) if month == *series => of_month,
                        _ => rows,
                    };
                    // Only of settled rows it is known how many they are.
                    if of_month > 0 || !piece.is_settled() {
                        units.push(Unit::Piece { at, rows_max: if piece.is_settled() { of_month } else { usize::MAX } });
                    }
                    all &= !piece.is_settled() || piece.rows() <= of_month;
                    left = Some((*series, of_month.saturating_sub(piece.rows())));
                }
                (units, all)
            }
            Plan::Sweep(sweep) => {
                let (buckets, most) = (1_u64 << sweep.bucket_bits, sweep.rows_max.max(1) as u64);
                let end = (buckets * rows as u64 / most).clamp(1, buckets);
                (Self::buckets(sweep, end, threads), end == buckets)
            }
        }
    }

    /// The pieces, by number.
    pub fn piece(&self, at: u32) -> Option<&Piece> {
        match &self.plan {
            Plan::Pieces(pieces) => pieces.get(at as usize).map(|(_, piece)| piece),
            Plan::Sweep(_) => None,
        }
    }

    /// Goes through a unit; with `devices`, rows are told by their device at once.
    pub fn run(&self, unit: &Unit, devices: bool, sink: &mut impl Sink) -> Result<(), StoreError> {
        match (&self.plan, unit) {
            (Plan::Pieces(pieces), Unit::Piece { at, rows_max }) => match pieces.get(*at) {
                Some((series, piece)) => self.run_piece(*series, (*at, piece), *rows_max, devices, sink),
                None => Ok(()),
            },
            (Plan::Sweep(sweep), Unit::Buckets(buckets)) => match self.operator {
                Operator::Rolling(window) | Operator::Stickiness(window) => self.run_rolling(sweep, buckets.clone(), window, sink),
                Operator::Growth => self.run_growth(sweep, buckets.clone(), sink),
                Operator::Retention => self.run_retention(sweep, buckets.clone(), sink),
                _ => self.run_activations(sweep, buckets.clone(), sink),
            },
            _ => Ok(()),
        }
    }

    fn run_piece(
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

    fn run_rolling(&self, sweep: &Sweep<'_>, buckets: Range<u64>, window: u32, sink: &mut impl Sink) -> Result<(), StoreError> {
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

    fn run_growth(&self, sweep: &Sweep<'_>, buckets: Range<u64>, sink: &mut impl Sink) -> Result<(), StoreError> {
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

    fn run_retention(&self, sweep: &Sweep<'_>, buckets: Range<u64>, sink: &mut impl Sink) -> Result<(), StoreError> {
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

    fn run_activations(&self, sweep: &Sweep<'_>, buckets: Range<u64>, sink: &mut impl Sink) -> Result<(), StoreError> {
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

    /// The bits of both parts that a user counts for who was seen on the row's device on these days.
    pub fn bits_of_user(&self, series: usize, mark: Mark, days: u32) -> [u64; 2] {
        let own = u64::from(days);
        let window = |window| window_mask(days, (mark.payload >> 32) as u32, self.month(series).days(), window);
        match self.operator {
            Operator::Days => [own, 0],
            Operator::Units | Operator::Growth => [mark.first, 0],
            Operator::Measure(_) | Operator::Activations => [mark.first & own, 0],
            Operator::Rolling(days) => [window(days), 0],
            Operator::Stickiness(days) => [own, window(days) & !own],
            Operator::Retention => [mark.first, mark.second],
        }
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
