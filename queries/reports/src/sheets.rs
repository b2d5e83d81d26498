//! The report's tables as CSV: one file each, a header, no formula.

use std::collections::BTreeMap;

use ameles_core::Day;

use crate::ReportError;
use crate::figures::Headline;
use crate::rows::Row;
use crate::run::{BreakdownTable, Content};

type Sheet = (String, Vec<u8>);

/// All tables.
pub(crate) fn all(content: &Content) -> Result<Vec<Sheet>, ReportError> {
    let figures = &content.figures;
    let mut sheets = vec![card(content)?];

    let mut daily: Vec<(&str, &[Row])> = vec![("dau", &figures.dau), ("wau", &figures.wau), ("mau28", &figures.mau28)];
    daily.extend(figures.measures.iter().map(|measure| (measure.name.as_str(), measure.daily.as_slice())));
    sheets.push(series("daily.csv", &daily)?);

    let mut monthly: Vec<(&str, &[Row])> = vec![("mau", &figures.mau_monthly), ("activations", &figures.activations_monthly)];
    monthly.extend(figures.measures.iter().map(|measure| (measure.name.as_str(), measure.monthly.as_slice())));
    sheets.push(series("monthly.csv", &monthly)?);

    for table in &content.breakdowns {
        sheets.push(breakdown(table)?);
    }
    let retention = figures.retention.iter().map(|cell| {
        vec![
            cell.cohort.to_string(),
            cell.offset.to_string(),
            cell.devices.to_string(),
            format!("{:.6}", cell.rate),
            cell.complete.to_string(),
        ]
    });
    sheets.push(sheet("retention.csv", &["cohort", "offset", "devices", "rate", "complete"], retention)?);
    let growth = figures.growth.iter().map(|row| {
        let kind = row.labels.first().cloned().flatten().unwrap_or_default();
        vec![row.date.to_string(), kind, number(row.value), row.complete.to_string()]
    });
    sheets.push(sheet("growth.csv", &["date", "kind", "value", "complete"], growth)?);
    Ok(sheets)
}

fn card(content: &Content) -> Result<Sheet, ReportError> {
    let figures = &content.figures;
    let mut lines: Vec<(String, Option<f64>, Option<f64>, bool)> = Vec::new();
    let line = |name: &str, headline: &Headline| (name.to_owned(), headline.value, headline.before, headline.complete);
    lines.push(line("installed_base", &figures.installed_base));
    lines.extend(figures.installed_base_fixed.iter().map(|headline| line("installed_base_without_phones_and_laptops", headline)));
    lines.push(line("activations", &figures.activations));
    lines.push(line("mau", &figures.mau));
    for measure in &figures.measures {
        lines.push(line(&measure.name, &measure.month));
        lines.push((format!("{}_to_date", measure.name), measure.to_date, None, measure.month.complete));
    }
    let text = |value: Option<f64>| value.map(number).unwrap_or_default();
    let rows = lines.into_iter().map(|(name, value, before, complete)| vec![name, text(value), text(before), complete.to_string()]);
    sheet("report_card.csv", &["figure", "value", "month_before", "complete"], rows)
}

/// Several metrics by date; an empty field where one has no row.
fn series(name: &str, metrics: &[(&str, &[Row])]) -> Result<Sheet, ReportError> {
    let mut dates: BTreeMap<Day, Vec<Option<f64>>> = BTreeMap::new();
    for (place, (_, rows)) in metrics.iter().enumerate() {
        for row in *rows {
            let values = dates.entry(row.date).or_insert_with(|| vec![None; metrics.len()]);
            values[place] = Some(row.value);
        }
    }
    let header: Vec<&str> = std::iter::once("date").chain(metrics.iter().map(|(name, _)| *name)).collect();
    let rows = dates.into_iter().map(|(date, values)| {
        std::iter::once(date.to_string()).chain(values.into_iter().map(|value| value.map(number).unwrap_or_default())).collect()
    });
    sheet(name, &header, rows)
}

fn breakdown(table: &BreakdownTable) -> Result<Sheet, ReportError> {
    let header: Vec<&str> = std::iter::once(table.dimension.as_str()).chain(table.columns.iter().map(|(name, _)| name.as_str())).collect();
    let rows = table.names().into_iter().map(|name| {
        let values = table.columns.iter().map(|(_, column)| column.get(&name).map(ToString::to_string).unwrap_or_default());
        std::iter::once(name.clone().unwrap_or_default()).chain(values).collect()
    });
    sheet(&format!("by_{}.csv", table.dimension), &header, rows)
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.6}") }
}

fn sheet(name: &str, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<Sheet, ReportError> {
    let failed = |cause| ReportError::Csv { table: name.to_owned(), cause };
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(header).map_err(failed)?;
    for row in rows {
        writer.write_record(row.into_iter().map(inert)).map_err(failed)?;
    }
    let bytes = writer.into_inner().map_err(|error| failed(error.into_error().into()))?;
    Ok((name.to_owned(), bytes))
}

/// Spreadsheets run what begins like a formula; a dimension's value is a device's to choose.
fn inert(text: String) -> String {
    let is_number = text.parse::<f64>().is_ok();
    if !is_number && text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn series_share_their_dates() {
        let row = |date: &str, value| Row { date: date.parse().unwrap(), labels: Vec::new(), value, complete: true };
        let dau = [row("2018-09-01", 10.0), row("2018-09-02", 12.0)];
        let wakes = [row("2018-09-02", 99.0)];
        let (_, bytes) = series("daily.csv", &[("dau", &dau), ("wakes", &wakes)]).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), "date,dau,wakes\n2018-09-01,10,\n2018-09-02,12,99\n");
    }

    #[test]
    fn a_value_is_never_a_formula() {
        assert_eq!(inert("=HYPERLINK(1)".to_owned()), "'=HYPERLINK(1)");
        assert_eq!(inert("-12".to_owned()), "-12");
        assert_eq!(inert("DE".to_owned()), "DE");
    }

    #[test]
    fn groups_are_listed_once_and_those_without_a_value_last() {
        let column = |names: &[Option<&str>]| names.iter().map(|name| (name.map(str::to_owned), 1)).collect::<BTreeMap<_, _>>();
        let table = BreakdownTable {
            dimension: "country".to_owned(),
            columns: vec![("mau".to_owned(), column(&[Some("FR"), None])), ("activations".to_owned(), column(&[Some("DE"), Some("FR")]))],
        };
        let (name, bytes) = breakdown(&table).unwrap();
        assert_eq!(name, "by_country.csv");
        assert_eq!(String::from_utf8(bytes).unwrap(), "country,mau,activations\nDE,,1\nFR,1,1\n,1,\n");
    }
}
