//! Everything that the dashboard's first page and the monthly report show, asked of the metric engine under the guard.

use std::collections::BTreeMap;

use ameles_core::{Day, Grain, Month};
use ameles_queries::{Filter, Guard, MetricRequest, Metrics, OTHER};
use ameles_schemas::TableSchemas;

use crate::ReportError;
use crate::rows::{Cell, Row, cells, rows};

/// The products whose devices the second installed base leaves out.
pub const HAND_HELD: [&str; 2] = ["phone", "laptop"];
/// Dimensions that are broken down, where the contract has them.
pub const BREAKDOWNS: [&str; 3] = ["product", "country", "partner"];
/// How many months the daily series reach back, the month itself included.
const DAILY_MONTHS: i32 = 3;
/// How many months the monthly series reach back, the month itself included.
const MONTHLY_MONTHS: i32 = 24;

/// A value of the month beside that of the month before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headline {
    /// The month's value; none where nothing may be shown.
    pub value: Option<f64>,
    /// The value of the month before.
    pub before: Option<f64>,
    /// The way there, oldest first.
    pub trend: Vec<f64>,
    /// Whether the value is final.
    pub complete: bool,
}

/// What the contract's measures say of the month.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasureFigures {
    /// The measure's name.
    pub name: String,
    /// Its total in the month.
    pub month: Headline,
    /// Its running total at the month's end.
    pub to_date: Option<f64>,
    /// Day by day.
    pub daily: Vec<Row>,
    /// Month by month.
    pub monthly: Vec<Row>,
}

/// One dimension's groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Breakdown {
    /// The dimension.
    pub dimension: String,
    /// Active devices in the month by group, largest first.
    pub mau: Vec<(String, i64)>,
}

/// The numbers of one month and of the way there.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The month.
    pub month: Month,
    /// The first and last day of the daily series.
    pub days: (Day, Day),
    /// Devices ever activated, at the month's end.
    pub installed_base: Headline,
    /// The same without [`HAND_HELD`]; only where the contract has `product`.
    pub installed_base_fixed: Option<Headline>,
    /// Devices activated in the month.
    pub activations: Headline,
    /// Devices active in the month.
    pub mau: Headline,
    /// By measure.
    pub measures: Vec<MeasureFigures>,
    /// Daily actives.
    pub dau: Vec<Row>,
    /// Actives in 7 days.
    pub wau: Vec<Row>,
    /// Actives in 28 days.
    pub mau28: Vec<Row>,
    /// Monthly actives.
    pub mau_monthly: Vec<Row>,
    /// Activations by month.
    pub activations_monthly: Vec<Row>,
    /// `growth`, its kind as the label.
    pub growth: Vec<Row>,
    /// The retention triangle up to the month.
    pub retention: Vec<Cell>,
    /// By dimension.
    pub breakdowns: Vec<Breakdown>,
}

/// What to gather.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The month.
    pub month: Month,
    /// The last day with data, so that a running month ends where its data does.
    pub last_day: Day,
    /// Only these devices; empty for all.
    pub filters: Vec<Filter>,
    /// Which of [`BREAKDOWNS`].
    pub breakdowns: Vec<&'static str>,
    /// Under which guard.
    pub guard: Guard,
}

struct Asker<'a> {
    metrics: &'a Metrics,
    wanted: &'a Wanted,
}

impl Asker<'_> {
    fn request(&self, name: &str, from: Day, to: Day) -> MetricRequest {
        MetricRequest { from: Some(from), to: Some(to), filters: self.wanted.filters.clone(), ..MetricRequest::named(name) }
    }
    async fn rows(&self, request: MetricRequest) -> Result<Vec<Row>, ReportError> {
        rows(&self.metrics.run_metric(&request, self.wanted.guard).await?)
    }
}

impl Figures {
    /// Asks for all of it.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn gather(metrics: &Metrics, tables: &TableSchemas, wanted: &Wanted) -> Result<Self, ReportError> {
        let ask = Asker { metrics, wanted };
        let month = wanted.month;
        let (first, last) = (month.first_day(), month.last_day().min(wanted.last_day));
        let days = (month.plus(1 - DAILY_MONTHS).first_day(), last);
        let since = month.plus(1 - MONTHLY_MONTHS).first_day();
        let before = month.plus(-1).first_day();
        let has = |dimension: &str| tables.dimensions.iter().any(|name| name == dimension);

        let dau = ask.rows(ask.request("dau", days.0, days.1)).await?;
        let wau = ask.rows(ask.request("wau", days.0, days.1)).await?;
        let mau28 = ask.rows(ask.request("mau28", days.0, days.1)).await?;
        let mau_monthly = ask.rows(ask.request("mau", since, first)).await?;
        let monthly = |request: MetricRequest| MetricRequest { grain: Some(Grain::Month), ..request };
        let activations_monthly = ask.rows(monthly(ask.request("activations", since, last))).await?;
        let growth = ask.rows(ask.request("growth", since, first)).await?;

        let base = ask.rows(ask.request("installed_base", before, last)).await?;
        let installed_base_fixed = if has("product") {
            let part = |negate: bool| {
                let mut request = ask.request("installed_base", before, last);
                request.filters.push(Filter { dim: "product".to_owned(), negate, values: HAND_HELD.map(str::to_owned).to_vec() });
                request
            };
            let mut fixed = ask.rows(part(true)).await?;
            if let Guard::K(k) = wanted.guard {
                fixed = without_small_complements(fixed, &base, &ask.rows(part(false)).await?, k);
            }
            Some(running(&fixed, month))
        } else {
            None
        };

        let mut measures = Vec::with_capacity(tables.measures.len());
        for measure in &tables.measures {
            let daily = ask.rows(ask.request(&measure.name, days.0, days.1)).await?;
            let by_month = ask.rows(monthly(ask.request(&measure.name, since, last))).await?;
            let total = MetricRequest { cumulative: true, ..ask.request(&measure.name, first, last) };
            let to_date = ask.rows(total).await?.last().map(|row| row.value);
            measures.push(MeasureFigures {
                name: measure.name.clone(),
                month: summed(&by_month, month),
                to_date,
                daily,
                monthly: by_month,
            });
        }

        let retention = cells(&metrics.run_metric(&ask.request("retention", since, first), wanted.guard).await?)?;
        let retention = retention.into_iter().filter(|cell| cell.cohort.month().plus(cell.offset) <= month).collect();

        let mut breakdowns = Vec::new();
        for dimension in wanted.breakdowns.iter().copied().filter(|dimension| has(dimension)) {
            let groups = ask.rows(ask.request("mau", first, first).by([dimension])).await?;
            let named = groups.iter().map(|row| (label(row.labels.first().and_then(Option::as_deref)), row.value as i64)).collect();
            breakdowns.push(Breakdown { dimension: dimension.to_owned(), mau: ranked(named) });
        }

        Ok(Self {
            month,
            days,
            installed_base: running(&base, month),
            installed_base_fixed,
            activations: summed(&activations_monthly, month),
            mau: summed(&mau_monthly, month),
            measures,
            dau,
            wau,
            mau28,
            mau_monthly,
            activations_monthly,
            growth,
            retention,
            breakdowns,
        })
    }

    /// The size of each cohort: the devices activated in its month.
    pub fn cohort_sizes(&self) -> BTreeMap<Month, i64> {
        self.activations_monthly.iter().map(|row| (row.date.month(), row.value as i64)).collect()
    }
}

/// The rows of a part of a running total of which the rest, which anybody can subtract, is nothing or may be told too: it has a
/// row of its own by then, and moves by `k` at least from one shown row to the next.
pub(crate) fn without_small_complements(part: Vec<Row>, whole: &[Row], rest: &[Row], k: u32) -> Vec<Row> {
    let at = |rows: &[Row], date: Day| rows.iter().find(|row| row.date == date).map(|row| row.value as i64);
    let mut shown = 0;
    let told = |row: &Row| {
        let Some(whole) = at(whole, row.date) else { return false };
        let complement = whole - row.value as i64;
        let moved = complement.abs_diff(shown);
        let safe = complement == shown || moved >= u64::from(k) && at(rest, row.date).is_some();
        if safe {
            shown = complement;
        }
        safe
    };
    part.into_iter().filter(told).collect()
}

/// A running total at the end of its month and of the month before.
fn running(rows: &[Row], month: Month) -> Headline {
    let at_end = |of: Month| rows.iter().rfind(|row| row.date.month() == of);
    Headline {
        value: at_end(month).map(|row| row.value),
        before: at_end(month.plus(-1)).map(|row| row.value),
        trend: rows.iter().filter(|row| row.date.month() == month).map(|row| row.value).collect(),
        complete: at_end(month).is_some_and(|row| row.complete),
    }
}

/// A month's value among monthly rows.
fn summed(rows: &[Row], month: Month) -> Headline {
    let of = |wanted: Month| rows.iter().find(|row| row.date.month() == wanted);
    Headline {
        value: of(month).map(|row| row.value),
        before: of(month.plus(-1)).map(|row| row.value),
        trend: rows.iter().rev().take(12).rev().map(|row| row.value).collect(),
        complete: of(month).is_some_and(|row| row.complete),
    }
}

/// Groups by size, what was folded or has no value last.
pub(crate) fn ranked(mut groups: Vec<(String, i64)>) -> Vec<(String, i64)> {
    groups.sort_by(|(name, value), (other, than)| {
        let last = |name: &str| name == OTHER;
        last(name).cmp(&last(other)).then(than.cmp(value)).then(name.cmp(other))
    });
    groups
}

/// How a group without a value is shown.
pub fn label(value: Option<&str>) -> String {
    value.unwrap_or("(none)").to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn row(date: &str, label: Option<&str>, value: f64) -> Row {
        Row { date: date.parse().unwrap(), labels: vec![label.map(str::to_owned)], value, complete: true }
    }

    #[test]
    fn a_running_total_ends_with_the_month() {
        let rows = [row("2018-08-30", None, 5.0), row("2018-08-31", None, 7.0), row("2018-09-01", None, 8.0), row("2018-09-02", None, 9.0)];
        let headline = running(&rows, "2018-09".parse().unwrap());
        assert_eq!((headline.value, headline.before), (Some(9.0), Some(7.0)));
        assert_eq!(headline.trend, [8.0, 9.0]);
    }

    #[test]
    fn folded_groups_come_last_whatever_their_size() {
        let groups = [(OTHER, 500), ("DE", 20), ("(none)", 30), ("FR", 20)].map(|(name, value)| (name.to_owned(), value)).to_vec();
        let names: Vec<_> = ranked(groups).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["(none)", "DE", "FR", OTHER]);
    }
}
