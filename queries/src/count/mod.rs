//! Metrics of devices counted straight from the columns, without SQL.
//!
//! The statements in `queries/` say what a metric is; where the tables are a view of a warehouse, these operators give the same answers
//! from codes and bits: one pass over the rows where months stand for themselves, one over all months side by side in the order of
//! devices where they do not. No row is materialised, nothing is joined by hashing a month, and threads share nothing but the list of
//! what is to be done. (As nodes of a DataFusion plan they would pay for planning, batches of text and one thread a partition; SQL
//! reaches them as the metrics' tables.)

mod cohorts;
mod passes;
mod people;
mod sink;
mod sweep;
mod tally;
mod work;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ameles_store::scan::Grouping;
use ameles_store::{ReadView, StoreError};

pub use self::cohorts::{ROWS_MIN as COHORT_ROWS_MIN, keep_cohorts};
pub use self::people::Crowd;
pub use self::sink::Spread;
use self::sink::{Counting, Kept};
use self::work::Work;
pub use self::work::{CHURNED_NEXT, MONTHS_MAX, NEW, Operator, RESURRECTED, RETAINED, Scope};

/// How much is looked at together; answers are the same with any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Rows of the largest month in one bucket, about.
    pub bucket_rows: usize,
    /// Rows of each month, and of its links, that are met first to find users.
    pub sample: (usize, usize),
    /// Rows held at once when all are met.
    pub kept_rows: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { bucket_rows: 1 << 10, sample: (96 << 10, 512 << 10), kept_rows: 4 << 20 }
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Question {
    pub operator: Operator,
    pub scope: Scope,
    pub grouping: Arc<Grouping>,
    /// The smallest group, for analysts.
    pub k: Option<u32>,
    /// Whether users are behind the counts too.
    pub has_user: bool,
    /// Users are counted, by their links, and devices are behind them; for days, units and windows of the one group.
    pub by_user: bool,
    pub sizes: Sizes,
}

/// The counts of one group in one month (cohort).
#[derive(Clone, Debug)]
pub struct Slot {
    /// The month's place in the scope.
    pub series: usize,
    /// Its number in the grouping.
    pub group: u32,
    pub first: [u64; 64],
    pub second: [u64; 64],
    pub sums: Option<Box<[i64; 32]>>,
    /// For analysts, of a measure.
    pub spread: Option<Box<Spread>>,
    /// Who is behind `first` and `second`: devices, then users.
    pub people: Vec<[Crowd; 2]>,
}

/// All counts, and where to find one.
#[derive(Default)]
struct Slots {
    list: Vec<Slot>,
    /// By series and group, from 1.
    index: Vec<Vec<u32>>,
}

impl Slots {
    fn at(&self, series: usize, group: u32) -> Option<usize> {
        (*self.index.get(series)?.get(group as usize)? as usize).checked_sub(1)
    }

    fn slot(&mut self, series: usize, group: usize) -> Option<&mut Slot> {
        let groups = self.index.get_mut(series)?;
        if group >= groups.len() {
            groups.resize(group + 1, 0);
        }
        let place = groups.get_mut(group)?;
        if *place == 0 {
            let (first, second) = ([0; 64], [0; 64]);
            self.list.push(Slot { series, group: group as u32, first, second, sums: None, spread: None, people: Vec::new() });
            *place = self.list.len() as u32;
        }
        self.list.get_mut(*place as usize - 1)
    }
}

/// The answer: a slot for each group and month that has rows.
///
/// # Errors
/// When a file cannot be read.
pub fn count(view: &ReadView, question: &Question) -> Result<Vec<Slot>, StoreError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let Question { k, has_user, .. } = question;
    let mut work = Work::new(view, question, true)?;
    let counted = match cohorts::count(&work, threads)? {
        Some(counted) => counted,
        None => {
            if work.has_cohorts() {
                work = Work::new(view, question, false)?;
            }
            count_rows(&work, threads)?
        }
    };
    let (mut slots, mut kept) = counted;
    if let Some(k) = k {
        // Where users are counted, both change places.
        let devices = people::devices_of(&work, &slots, &mut kept, *k, threads)?;
        let users = if *has_user { Some(people::users_of(&work, &slots, &kept, *k, threads)?) } else { None };
        let mut users = users.map(Vec::into_iter);
        for (slot, devices) in slots.list.iter_mut().zip(devices) {
            slot.people.push(devices);
            slot.people.extend(users.as_mut().and_then(Iterator::next));
        }
    }
    Ok(slots.list)
}

/// The counts of all rows, and some of the rows.
fn count_rows(work: &Work<'_>, threads: usize) -> Result<(Slots, Vec<Kept>), StoreError> {
    let (units, known) = work.counting_units(threads);
    let series = work.scope.months.len();
    let counted = in_threads(threads, &units, |unit, sink: &mut Option<Counting>| {
        work.run(unit, false, sink.get_or_insert_with(|| Counting::new(series, work.k)))
    })?;
    let (mut slots, kept) = gather(series, counted.into_iter().flatten());
    for (series, rows) in known {
        let group = work.whole_group();
        if let Some(slot) = slots.slot(series, group as usize).filter(|_| rows > 0) {
            slot.first[0] = rows;
        }
    }
    Ok((slots, kept))
}

fn gather(series: usize, parts: impl Iterator<Item = Counting>) -> (Slots, Vec<Kept>) {
    let mut slots = Slots { list: Vec::new(), index: vec![Vec::new(); series] };
    let mut kept = Vec::new();
    for part in parts {
        kept.extend(part.kept);
        for (at, groups) in part.series.into_iter().enumerate() {
            for (group, counts) in groups.into_iter().enumerate() {
                let (Some(counts), Some(slot)) = (counts, slots.slot(at, group)) else { continue };
                let add = |mine: &mut [u64; 64], theirs: [u64; 64]| mine.iter_mut().zip(theirs).for_each(|(mine, its)| *mine += its);
                add(&mut slot.first, counts.first.counts());
                slot.first[0] += counts.units;
                if let Some(second) = &counts.second {
                    add(&mut slot.second, second.counts());
                }
                if let Some(spread) = &counts.spread {
                    slot.spread.get_or_insert_default().add(spread);
                }
                if let Some(sums) = &counts.sums {
                    let mine = slot.sums.get_or_insert_with(|| Box::new([0; 32]));
                    mine.iter_mut().zip(sums.iter()).for_each(|(mine, its)| *mine += its);
                }
            }
        }
    }
    (slots, kept)
}

/// Works through a list in several threads, each with a state of its own; gives the states.
fn in_threads<T: Sync, S: Default + Send>(
    threads: usize,
    list: &[T],
    work: impl Fn(&T, &mut S) -> Result<(), StoreError> + Sync,
) -> Result<Vec<S>, StoreError> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let one = || {
        let mut state = S::default();
        while let Some(item) = list.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = work(item, &mut state) {
                next.store(list.len(), Ordering::Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
        state
    };
    let states = if threads <= 1 || list.len() <= 1 {
        vec![one()]
    } else {
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads.min(list.len())).map(|_| scope.spawn(one)).collect();
            let mut states = vec![one()];
            for other in others {
                match other.join() {
                    Ok(state) => states.push(state),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            states
        })
    };
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(states),
    }
}
