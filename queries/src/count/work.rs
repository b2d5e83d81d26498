//! The operators: what each metric goes through, and what a row counts for.

use std::ops::Range;
use std::sync::Arc;

use ameles_core::Month;
use ameles_schemas::Table;
use ameles_store::scan::{Grouping, Piece, Wanted};
use ameles_store::{Cohorts, ReadView, StoreError};

use super::sink::{Mark, Sink};
use super::sweep::{Lane, Sweep};
use super::tally::window_mask;
use super::{Question, Sizes};

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
    /// Users are counted, by their links.
    pub by_user: bool,
    pub sizes: Sizes,
    plan: Plan<'v>,
    /// Of retention, the kept codes of the first months that are wanted and of those after them, one after the other.
    pub(super) cohorts: Vec<Cohorts>,
    /// The months after those.
    pub(super) later: Option<Sweep<'v>>,
}

impl<'v> Work<'v> {
    /// What a question goes through; without `by_cohorts`, kept codes are not made use of.
    pub fn new(view: &'v ReadView, question: &Question, by_cohorts: bool) -> Result<Self, StoreError> {
        let Question { operator, scope, grouping, k, by_user, sizes, .. } = question.clone();
        let wanted = scope.wanted.clone();
        let plan = Plan::Pieces(Vec::new());
        let mut work = Self { view, operator, scope, grouping, k, by_user, sizes, plan, cohorts: Vec::new(), later: None };
        let last = work.scope.months.len();
        let table = if by_user { Table::Links } else { Table::Activity };
        work.plan = match operator {
            Operator::Days | Operator::Units if by_user => {
                let grouped = Wanted { days: true, grouping: Some(Arc::clone(&work.grouping)), ..Wanted::default() };
                Plan::Sweep(Sweep::new(view, sizes, work.lanes(table, wanted, &grouped)?))
            }
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
                let mut lanes = work.lanes(table, wanted.clone(), &grouped)?;
                lanes.extend(work.lanes(table, wanted.end..(wanted.end + 1).min(last), &next)?);
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
                if by_cohorts && work.grouping.is_whole() && !wanted.is_empty() {
                    for month in wanted.start..last {
                        let Some(cohorts) = view.cohorts(work.month(month))? else { break };
                        work.cohorts.push(cohorts);
                    }
                }
                let later = wanted.start + work.cohorts.len();
                if later > wanted.start && later < last {
                    work.later = Some(work.met_with_activations(later)?);
                }
                // Who is behind the counts is seen from the rows.
                if work.cohorts.is_empty() || k.is_some() {
                    Plan::Sweep(work.met_with_activations(wanted.start)?)
                } else {
                    Plan::Pieces(Vec::new())
                }
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

    /// The activations of the cohorts and of all before, and the activity from a month on.
    fn met_with_activations(&self, from: usize) -> Result<Sweep<'v>, StoreError> {
        let grouped = Wanted { grouping: Some(Arc::clone(&self.grouping)), ..Wanted::default() };
        let wanted = self.scope.wanted.clone();
        let mut lanes = self.lanes(Table::Devices, 0..wanted.start, &Wanted::default())?;
        lanes.extend(self.lanes(Table::Devices, wanted, &grouped)?);
        lanes.extend(self.lanes(Table::Activity, from..self.scope.months.len(), &Wanted::default())?);
        Ok(Sweep::new(self.view, self.sizes, lanes))
    }

    /// Whether codes are kept of the months that are asked for, or of the first of them.
    pub fn has_cohorts(&self) -> bool {
        !self.cohorts.is_empty()
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
        sweep.parts(end, threads * 4).map(Unit::Buckets).collect()
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

    /// Rows of the largest month where all go side by side.
    pub fn rows_max(&self) -> u64 {
        match &self.plan {
            Plan::Pieces(_) => 0,
            Plan::Sweep(sweep) => sweep.rows_max as u64,
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
                Operator::Days | Operator::Units => self.run_users(sweep, buckets.clone(), sink),
                Operator::Rolling(window) | Operator::Stickiness(window) => self.run_rolling(sweep, buckets.clone(), window, sink),
                Operator::Growth => self.run_growth(sweep, buckets.clone(), sink),
                Operator::Retention => self.run_retention(sweep, self.scope.wanted.start, buckets.clone(), sink),
                _ => self.run_activations(sweep, buckets.clone(), sink),
            },
            _ => Ok(()),
        }
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
