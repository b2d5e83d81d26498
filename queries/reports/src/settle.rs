//! polars' numbers under the engine's guard.
//!
//! The metric engine's guarded answer decides what may be shown; polars' number stands there. The two
//! must be the same: a report whose two counts differ is not published.

use std::collections::{BTreeMap, BTreeSet};

use crate::ReportError;
use ameles_queries::OTHER;

use crate::figures::Figures;
use crate::frames::{Tables, Totals};
use crate::rows::Row;

/// Puts polars' numbers into the figures, where the guard shows them.
///
/// Running totals stay the engine's: under a guard they move in steps, so that the exact number must not be shown.
pub(crate) fn settle(figures: &mut Figures, tables: &Tables) -> Result<(), ReportError> {
    let monthly = |of: fn(&Totals) -> i64| move |row: &Row| tables.monthly.get(&row.date.month()).map(of);
    rows("mau", &mut figures.mau_monthly, monthly(|totals| totals.mau))?;
    rows("activations", &mut figures.activations_monthly, monthly(|totals| totals.activations))?;
    for (place, measure) in figures.measures.iter_mut().enumerate() {
        let name = measure.name.clone();
        rows(&name, &mut measure.monthly, |row| {
            tables.monthly.get(&row.date.month()).and_then(|totals| totals.measures.get(place).copied())
        })?;
    }
    rows("dau", &mut figures.dau, |row| tables.dau.get(&row.date).copied())?;
    rows("growth", &mut figures.growth, |row| {
        let kind = row.labels.first().cloned().flatten()?;
        tables.growth.get(&(row.date.month(), kind)).copied()
    })?;
    for cell in &mut figures.retention {
        let count = tables.retention.get(&(cell.cohort.month(), cell.offset)).copied();
        cell.devices = agreed("retention", || format!("{} +{}", cell.cohort, cell.offset), cell.devices as f64, count)?;
    }
    Ok(())
}

fn rows(table: &str, rows: &mut [Row], count: impl Fn(&Row) -> Option<i64>) -> Result<(), ReportError> {
    for row in rows {
        row.value = agreed(table, || row.date.to_string(), row.value, count(row))? as f64;
    }
    Ok(())
}

/// One dimension's groups: polars' numbers for those that the guard shows, the rest of them as `(other)` where it shows that.
pub(crate) fn groups(
    table: &str,
    shown: &[Row],
    counts: &BTreeMap<Option<String>, Totals>,
    count: impl Fn(&Totals) -> i64,
) -> Result<BTreeMap<Option<String>, i64>, ReportError> {
    let names: BTreeSet<&Option<String>> = shown.iter().filter_map(|row| row.labels.first()).collect();
    let mut settled = BTreeMap::new();
    for row in shown {
        let Some(name) = row.labels.first() else { continue };
        let number = if name.as_deref() == Some(OTHER) {
            // With what is really called so.
            Some(counts.iter().filter(|(group, _)| *group == name || !names.contains(group)).map(|(_, totals)| count(totals)).sum())
        } else {
            counts.get(name).map(&count)
        };
        // A group's name may be rare: the place says the table only.
        settled.insert(name.clone(), agreed(table, || "a group".to_owned(), row.value, number)?);
    }
    Ok(settled)
}

fn agreed(table: &str, place: impl FnOnce() -> String, engine: f64, polars: Option<i64>) -> Result<i64, ReportError> {
    match polars {
        Some(count) if count as f64 == engine => Ok(count),
        _ => Err(ReportError::Disagree { table: table.to_owned(), place: place() }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn row(name: Option<&str>, value: f64) -> Row {
        Row { date: "2018-09-01".parse().unwrap(), labels: vec![name.map(str::to_owned)], value, complete: true }
    }

    fn counts(groups: &[(Option<&str>, i64)]) -> BTreeMap<Option<String>, Totals> {
        groups.iter().map(|(name, mau)| (name.map(str::to_owned), Totals { mau: *mau, ..Totals::default() })).collect()
    }

    #[test]
    fn what_the_guard_folds_stays_folded() {
        let counts = counts(&[(Some("DE"), 50), (None, 20), (Some("LI"), 3), (Some("MC"), 9)]);
        let settled =
            groups("mau", &[row(Some("DE"), 50.0), row(None, 20.0), row(Some(OTHER), 12.0)], &counts, |totals| totals.mau).unwrap();
        assert_eq!(settled, BTreeMap::from([(Some("DE".to_owned()), 50), (None, 20), (Some(OTHER.to_owned()), 12)]));
        // Below k as a whole: no row, so none here either.
        let settled = groups("mau", &[row(Some("DE"), 50.0)], &counts, |totals| totals.mau).unwrap();
        assert_eq!(settled.len(), 1);
    }

    #[test]
    fn two_counts_that_differ_are_no_report() {
        let counts = counts(&[(Some("DE"), 50)]);
        assert!(matches!(groups("mau", &[row(Some("DE"), 49.0)], &counts, |totals| totals.mau), Err(ReportError::Disagree { .. })));
        assert!(matches!(groups("mau", &[row(Some("FR"), 1.0)], &counts, |totals| totals.mau), Err(ReportError::Disagree { .. })));
    }
}
