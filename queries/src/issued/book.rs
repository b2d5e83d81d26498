//! Series by name, and their dates as bytes.

use std::collections::BTreeMap;

use ameles_core::{Day, Month};
use ameles_ledger::{Issued, IssuedMonth, LedgerError};
use serde::{Deserialize, Serialize};

use super::rule::{Cell, Date, Label};
use crate::catalog::Metric;
use crate::{MetricRequest, QueryError};

/// The format of a month's rows.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Body {
    format: u32,
    dates: Vec<Stored>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    day: i32,
    cells: Vec<(Label, Cell)>,
    hidden: Vec<i64>,
    gone: Vec<(Label, Vec<i64>)>,
}

/// The places of the request's dimensions in alphabetical order: the order of a series' labels.
pub fn canonical_order(request: &MetricRequest) -> Vec<usize> {
    let mut order: Vec<usize> = (0..request.by.len()).collect();
    order.sort_by_key(|at| &request.by[*at]);
    order
}

/// All that changes an answer's numbers, but not the period, the order or the format.
pub fn series(request: &MetricRequest, metric: &Metric, k: u32) -> String {
    let MetricRequest { name, from: _, to: _, by, filters, grain, unit, active_in, cumulative } = request;
    let mut by = by.clone();
    by.sort_unstable();
    let mut filters: Vec<(&str, bool, Vec<&str>)> = filters
        .iter()
        .map(|filter| {
            let mut values: Vec<&str> = filter.values.iter().map(String::as_str).collect();
            values.sort_unstable();
            values.dedup();
            (filter.dim.as_str(), filter.negate, values)
        })
        .collect();
    filters.sort_unstable();
    filters.dedup();
    // Where periods do not add up the one grain may be named or not.
    let grain = if metric.adds_up() { format!("{:?}", grain.unwrap_or_default()) } else { String::new() };
    serde_json::json!([name, by, filters, grain, format!("{unit:?}"), active_in, cumulative, k]).to_string()
}

/// The dates of the months read.
pub fn dates(issued: &Issued) -> Result<BTreeMap<Day, Date>, QueryError> {
    let mut dates = BTreeMap::new();
    for month in &issued.months {
        let body: Body = serde_json::from_slice(&month.body).map_err(|_| LedgerError::Damaged("rows that were issued cannot be read"))?;
        if body.format != FORMAT {
            return Err(LedgerError::Damaged("rows that were issued have a format of a newer version").into());
        }
        for Stored { day, cells, hidden, gone } in body.dates {
            let date = Date { cells: cells.into_iter().collect(), hidden, gone: gone.into_iter().collect() };
            dates.insert(Day::from_epoch_days(day), date);
        }
    }
    Ok(dates)
}

/// Those months that differ from what was issued.
pub fn changed_months(dates: &BTreeMap<Day, Date>, issued: &Issued) -> Result<Vec<IssuedMonth>, QueryError> {
    let mut months: BTreeMap<Month, Body> = BTreeMap::new();
    for (day, date) in dates {
        let body = months.entry(day.month()).or_insert_with(|| Body { format: FORMAT, dates: Vec::new() });
        let Date { cells, hidden, gone } = date.clone();
        let stored = Stored { day: day.epoch_days(), cells: cells.into_iter().collect(), hidden, gone: gone.into_iter().collect() };
        body.dates.push(stored);
    }
    let mut changed = Vec::new();
    for (month, body) in months {
        let body = serde_json::to_vec(&body).map_err(|_| LedgerError::Damaged("rows cannot be written"))?;
        if !issued.months.iter().any(|known| known.month == month && known.body == body) {
            changed.push(IssuedMonth { month, body });
        }
    }
    Ok(changed)
}
