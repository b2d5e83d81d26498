//! From an answer of the tables to the one that is issued.

use std::collections::{BTreeMap, BTreeSet};

use ameles_core::{Day, Month};
use ameles_ledger::{Issue, LedgerError};

use super::book::{canonical_order, changed_months, dates, series};
use super::rule::{Cell, Date, Label, Proof, compare, hold_more, merged};
use super::{Issues, running};
use crate::catalog::Metric;
use crate::cells::Groups;
use crate::guard::{self, Kind};
use crate::metrics::{Answer, Job, Number, OutRow};
use crate::{QueryError, Unit};

/// How often it is decided anew when others issue something meanwhile.
const ATTEMPTS_MAX: usize = 64;

/// The answer as it may be told; what is new about closed months has been kept when this returns.
///
/// # Errors
/// When the ledger cannot be read or written, or has no room for more.
pub async fn issue(job: &Job<'_>, issues: &Issues, k: u32, answer: Answer) -> Result<Answer, QueryError> {
    let desk = Desk { job, k, proof: proof(job), order: canonical_order(job.request) };
    let fresh = desk.fresh(&answer);
    let Some(closed) = desk.closed_months() else { return Ok(answer) };
    let active = job.active_devices((desk.first_month(), closed.1)).await?;
    let series = series(job.request, &job.metric, k);
    for _ in 0..ATTEMPTS_MAX {
        let issued = issues.ledger.issued(&series, closed).await?;
        let shut = shut_months(&issued.marks, &active, k);
        let old = dates(&issued)?;
        let Decision { told, anew, held_back } = desk.decide(&old, &fresh, &shut);
        // What was not asked for stays as it was issued.
        let mut kept = old;
        kept.extend(told.iter().filter(|(day, _)| desk.is_closed(**day)).map(|(day, date)| (*day, date.clone())));
        let months = changed_months(&kept, &issued)?;
        let marks: Vec<(Month, u64)> = anew
            .into_iter()
            .map(|month| (month, active.get(&month).copied().unwrap_or(0)))
            .filter(|(month, devices)| !issued.marks.get(month).is_some_and(|marks| marks.contains(devices)))
            .collect();
        let nothing_new = months.is_empty() && marks.is_empty();
        let issue = Issue { turn: issued.turn, months, marks };
        if nothing_new || issues.ledger.issue(&series, &issue, issues.bytes_max).await? {
            return Ok(desk.answer(answer, &fresh, &told, held_back));
        }
    }
    Err(LedgerError::Contended.into())
}

/// Months of which fewer than `k` devices have gone since something was issued about them.
fn shut_months(marks: &BTreeMap<Month, BTreeSet<u64>>, active: &BTreeMap<Month, u64>, k: u32) -> BTreeSet<Month> {
    let is_shut = |(month, marks): &(&Month, &BTreeSet<u64>)| {
        let now = active.get(*month).copied().unwrap_or(0);
        marks.range(now + 1..now + u64::from(k)).next().is_some()
    };
    marks.iter().filter(is_shut).map(|(month, _)| *month).collect()
}

fn proof(job: &Job<'_>) -> Proof {
    match job.metric {
        Metric::Stickiness => Proof::Ratio,
        Metric::Growth => Proof::Growth,
        Metric::Retention => Proof::Retention,
        Metric::Measure(_) if job.request.cumulative => Proof::RunningSpread,
        Metric::Measure(_) => Proof::Spread { days: job.days_in_a_period() },
        _ if job.request.unit == Unit::User => Proof::Users,
        _ => Proof::Count,
    }
}

struct Decision {
    told: BTreeMap<Day, Date>,
    /// Months that something new is told about.
    anew: BTreeSet<Month>,
    /// Months that nothing is told about although there is something.
    held_back: BTreeSet<Month>,
}

struct Desk<'a> {
    job: &'a Job<'a>,
    k: u32,
    proof: Proof,
    /// The places of the dimensions in the order of labels.
    order: Vec<usize>,
}

impl Desk<'_> {
    fn is_closed(&self, date: Day) -> bool {
        self.job.is_closed(date)
    }

    fn is_running(&self) -> bool {
        self.job.is_running()
    }

    /// The closed months that old rows are read of.
    fn closed_months(&self) -> Option<(Month, Month)> {
        let last = self.job.completeness.closed_before.plus(-1);
        let all = (Month::from_epoch_months(i32::MIN), last);
        if self.is_running() {
            return (self.job.coverage.first.month() <= last).then_some(all);
        }
        let first = self.job.request.from.map_or(all.0, Day::month);
        let last = self.job.request.to.map_or(last, |to| to.month().min(last));
        (first <= last).then_some((first, last))
    }

    /// The first month that anything in the answer rests on.
    fn first_month(&self) -> Month {
        self.reach(self.job.request.from.unwrap_or(self.job.coverage.first)).0
    }

    /// The months that a date's rows rest on.
    fn reach(&self, date: Day) -> (Month, Month) {
        let end = self.job.end_of_period(date).month();
        let window = |days: u32| date.plus(1 - i32::try_from(days).unwrap_or(i32::MAX)).month();
        match self.job.metric {
            _ if self.is_running() => (self.job.coverage.first.month(), end),
            Metric::Growth => (end.plus(-1), end),
            Metric::Retention => (date.month(), self.job.completeness.closed_before.plus(-1)),
            _ => (self.job.window().map_or(date.month(), window), end),
        }
    }

    fn label(&self, label: guard::Label, groups: &Groups) -> Label {
        match label {
            guard::Label::Other => None,
            guard::Label::Group(group) => {
                let name = groups.name(group);
                Some(self.order.iter().map(|at| name.get(*at).cloned().flatten()).collect())
            }
        }
    }

    fn group(&self, label: &Label, groups: &mut Groups) -> guard::Label {
        let Some(names) = label else { return guard::Label::Other };
        let mut name = vec![None; names.len()];
        for (at, value) in self.order.iter().zip(names) {
            name[*at].clone_from(value);
        }
        guard::Label::Group(groups.id(name))
    }

    /// Rows as dates; of open months too where totals run on.
    fn fresh(&self, answer: &Answer) -> BTreeMap<Day, Date> {
        let mut fresh: BTreeMap<Day, Date> = BTreeMap::new();
        let wanted = |date: Day| self.is_running() || (self.is_closed(date) && self.job.is_wanted(date));
        for (date, behind) in answer.behind.iter().filter(|(date, _)| wanted(**date)) {
            let cells = behind
                .labels
                .iter()
                .map(|(label, devices)| (self.label(*label, &answer.groups), Cell { shown: BTreeMap::new(), behind: devices.clone() }));
            fresh.insert(*date, Date { cells: cells.collect(), hidden: behind.hidden.clone(), ..Date::default() });
        }
        for row in answer.rows.iter().filter(|row| wanted(row.date) && self.is_kept(row)) {
            let cells = &mut fresh.entry(row.date).or_default().cells;
            let cell = cells.entry(self.label(row.label, &answer.groups)).or_default();
            cell.shown.insert(slot(row, self.proof), row.numbers.iter().map(|number| bits(*number)).collect());
        }
        fresh
    }

    /// Whether the row's month has closed too: a cohort's later ones are open.
    fn is_kept(&self, row: &OutRow) -> bool {
        self.proof != Proof::Retention || self.job.is_closed(row.date.month().plus(slot(row, self.proof) as i32).first_day())
    }

    fn decide(&self, old: &BTreeMap<Day, Date>, fresh: &BTreeMap<Day, Date>, shut: &BTreeSet<Month>) -> Decision {
        let is_shut = |date: Day| {
            let (first, last) = self.reach(date);
            first <= last && shut.range(first..=last).next().is_some()
        };
        let mut decision = Decision { told: BTreeMap::new(), anew: BTreeSet::new(), held_back: BTreeSet::new() };
        if self.is_running() {
            let held = fresh.keys().chain(old.keys()).any(|date| self.is_closed(*date) && is_shut(*date));
            decision.told = running::settle(self.proof, old, fresh, self.k, held);
            if old.is_empty() {
                decision.told.retain(|date, _| !(self.is_closed(*date) && is_shut(*date)));
                let missing = fresh.keys().filter(|date| self.is_closed(**date) && is_shut(**date));
                decision.held_back = missing.map(|date| date.month()).collect();
            }
        } else {
            let asked = old.keys().filter(|date| self.job.is_wanted(**date)).chain(fresh.keys());
            for date in asked.copied().collect::<BTreeSet<Day>>() {
                let new = fresh.get(&date);
                let told = match (old.get(&date), new) {
                    (Some(old), _) if is_shut(date) => old.clone(),
                    (Some(old), new) => {
                        let gone = Date { hidden: vec![0; old.hidden.len()], ..Date::default() };
                        let new = new.unwrap_or(&gone);
                        let mut units = compare(self.proof, old, new, self.k);
                        hold_more(&mut units, self.k);
                        merged(self.proof, old, new, &units)
                    }
                    (None, Some(new)) if !is_shut(date) => new.clone(),
                    (None, _) => {
                        decision.held_back.insert(date.month());
                        continue;
                    }
                };
                decision.told.insert(date, told);
            }
        }
        let changed = decision.told.iter().filter(|(date, told)| self.is_closed(**date) && old.get(*date) != Some(*told));
        for (date, _) in changed {
            let (first, last) = self.reach(*date);
            decision.anew.extend((first.epoch_months()..=last.epoch_months()).map(Month::from_epoch_months));
        }
        decision
    }

    /// The rows that are told, and those of open months so far as nothing that is held back follows from them.
    fn answer(&self, mut answer: Answer, fresh: &BTreeMap<Day, Date>, told: &BTreeMap<Day, Date>, held_back: BTreeSet<Month>) -> Answer {
        let mut rows = Vec::new();
        for row in std::mem::take(&mut answer.rows) {
            let kept = self.is_running() || (self.is_closed(row.date) && self.is_kept(&row));
            if !kept && let Some(row) = self.open_row(row, &answer.groups, fresh, told) {
                rows.push(row);
            }
        }
        let shape = self.job.metric.shape();
        for (date, told) in told.iter().filter(|(date, _)| self.job.is_wanted(**date)) {
            for (label, cell) in &told.cells {
                for (slot, numbers) in &cell.shown {
                    let group = self.group(label, &mut answer.groups);
                    let number = |(at, bits): (usize, &i64)| match shape.numbers.get(at) {
                        Some((_, true)) => Number::Ratio(f64::from_bits(*bits as u64)),
                        _ => Number::Count(*bits),
                    };
                    rows.push(OutRow {
                        date: *date,
                        label: group,
                        text: shape.text.and_then(|_| Kind::ALL.get(*slot as usize)).map(|kind| kind.as_str()),
                        numbers: numbers.iter().enumerate().map(number).collect(),
                        complete: self.job.is_complete_row(*date, *slot as i32),
                    });
                }
            }
        }
        Answer { rows, held_back, ..answer }
    }

    /// A row of an open month. Its cohort's size, and the actives of the month before, must not follow where they are held back.
    fn open_row(&self, mut row: OutRow, groups: &Groups, fresh: &BTreeMap<Day, Date>, told: &BTreeMap<Day, Date>) -> Option<OutRow> {
        let label = self.label(row.label, groups);
        let of = |dates: &BTreeMap<Day, Date>, date: Day| {
            dates.get(&date).and_then(|date| date.cells.get(&label)).map(|cell| cell.behind.clone())
        };
        match self.proof {
            Proof::Retention if self.is_closed(row.date) => {
                let size = of(told, row.date)?.first().copied().filter(|size| *size > 0)?;
                if let [_, Number::Count(devices), rate] = row.numbers.as_mut_slice() {
                    *rate = Number::Ratio((*devices as f64 / size as f64).min(1.0));
                }
                Some(row)
            }
            Proof::Growth if row.text == Some(Kind::Churned.as_str()) => {
                let before = row.date.month().plus(-1).first_day();
                (!self.is_closed(before) || !fresh.contains_key(&before) || of(told, before) == of(fresh, before)).then_some(row)
            }
            _ => Some(row),
        }
    }
}

/// What tells a label's rows of a date apart.
fn slot(row: &OutRow, proof: Proof) -> i64 {
    match (proof, row.numbers.first()) {
        (Proof::Growth, _) => Kind::ALL.iter().position(|kind| row.text == Some(kind.as_str())).unwrap_or(0) as i64,
        (Proof::Retention, Some(Number::Count(offset))) => *offset,
        _ => 0,
    }
}

fn bits(number: Number) -> i64 {
    match number {
        Number::Count(count) => count,
        Number::Ratio(ratio) => ratio.to_bits() as i64,
    }
}
