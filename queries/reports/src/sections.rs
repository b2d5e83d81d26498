//! The figures as cards and charts: what dashboard and report have in common.

use std::collections::BTreeMap;

use ameles_core::{Day, Month};
use maud::{Markup, html};

use crate::chart::{
    Bar, BarChart, BarSeries, HeatMap, HeatRow, LineChart, LineSeries, Point, RankRow, Ranking, compact, grouped, legend, percent,
    sparkline,
};
use crate::figures::{Breakdown, Figures, Headline, MeasureFigures};
use crate::rows::Row;

const WIDE: (f64, f64) = (1080.0, 250.0);
const HALF: (f64, f64) = (520.0, 220.0);

/// `September 2018`.
pub fn month_name(month: Month) -> String {
    const NAMES: [&str; 12] =
        ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
    let at = month.epoch_months();
    format!("{} {}", NAMES[at.rem_euclid(12) as usize], 1970 + at.div_euclid(12))
}

/// `Sep 18`.
fn month_short(month: Month) -> String {
    let name = month_name(month);
    format!("{} {:02}", &name[..3], (1970 + month.epoch_months().div_euclid(12)) % 100)
}

/// A measure's or dimension's name for people.
pub fn title(name: &str) -> String {
    match name {
        "wakes" => return "Wake-ups".to_owned(),
        "mau" => return "Monthly active".to_owned(),
        _ => {}
    }
    let mut letters = name.replace(['_', '.'], " ");
    if let Some(first) = letters.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    letters
}

/// The report card.
pub fn card(figures: &Figures) -> Markup {
    html! {
        dl.tiles {
            (tile("Installed base", &figures.installed_base, 0, html! { "ever activated" }))
            @if let Some(headline) = &figures.installed_base_fixed {
                (tile("Without phones, laptops", headline, 0, html! { @if let Some(share) = share(headline, &figures.installed_base) { (share) " of base" } }))
            }
            (tile("Activations", &figures.activations, 1, html! { "in the month" }))
            (tile("Monthly active devices", &figures.mau, 0, html! { @if let Some(share) = share(&figures.mau, &figures.installed_base) { (share) " of base" } }))
            @for (place, measure) in figures.measures.iter().enumerate() {
                (tile(&title(&measure.name), &measure.month, 2 + place, html! {
                    @if let Some(total) = measure.to_date { (compact(total)) " to date" }
                }))
            }
        }
    }
}

fn share(part: &Headline, whole: &Headline) -> Option<String> {
    match (part.value, whole.value) {
        (Some(part), Some(whole)) if whole > 0.0 && part <= whole => Some(percent(part / whole)),
        _ => None,
    }
}

fn tile(name: &str, headline: &Headline, colour: usize, note: Markup) -> Markup {
    html! {
        div.tile {
            dt { (name) @if headline.value.is_some() && !headline.complete { span title="this value can still change" { " *" } } }
            dd title=[headline.value.map(|value| grouped(value as i64))] {
                @match headline.value {
                    Some(value) if value >= 1e7 => (compact(value)),
                    Some(value) => (grouped(value as i64)),
                    None => "–",
                }
                div.note { (change(headline)) (note) }
            }
            (sparkline(&headline.trend, colour))
        }
    }
}

/// How the month compares to the one before.
fn change(headline: &Headline) -> Markup {
    let (Some(value), Some(before)) = (headline.value, headline.before) else { return html! {} };
    if before <= 0.0 {
        return html! {};
    }
    let ratio = value / before - 1.0;
    let size = percent(ratio.abs());
    html! {
        @if ratio.abs() < 0.0005 { span { "±0%" } }
        @else if ratio > 0.0 { span.up title="against the month before" { "↑ " (size) } }
        @else { span.down title="against the month before" { "↓ " (size) } }
        " · "
    }
}

/// Actives by day: in one day, in 7, in 28.
pub fn daily_actives(figures: &Figures) -> Markup {
    let days = days(figures.days.0.max(first_of(&[&figures.dau, &figures.wau, &figures.mau28])), figures.days.1);
    let named = [("in 28 days", &figures.mau28), ("in 7 days", &figures.wau), ("that day", &figures.dau)];
    let chart = LineChart {
        label: "Active devices by day: that day, in 7 days, in 28 days".to_owned(),
        series: named.iter().map(|(name, rows)| LineSeries { name: (*name).to_owned(), points: aligned(&days, rows) }).collect(),
        days,
        size: WIDE,
    };
    section(
        "Active devices",
        None,
        "wide",
        legend(named.iter().enumerate().map(|(place, (name, _))| (place, *name))),
        chart.render(),
        figures.dau.is_empty(),
    )
}

/// A measure by day.
pub fn daily_measure(figures: &Figures, measure: &MeasureFigures, place: usize) -> Markup {
    let days = days(figures.days.0.max(first_of(&[&measure.daily])), figures.days.1);
    let points = aligned(&days, &measure.daily);
    let name = title(&measure.name);
    let chart = BarChart {
        label: format!("{name} by day"),
        bars: days
            .iter()
            .zip(&points)
            .map(|(day, point)| Bar { label: short(*day), heading: day.to_string(), complete: point.is_none_or(|point| point.complete) })
            .collect(),
        series: vec![BarSeries { name: name.clone(), values: points.iter().map(|point| point.map(|point| point.value)).collect() }],
        first_colour: 2 + place,
        size: (WIDE.0, 190.0),
    };
    section(&format!("{name} by day"), None, "wide", html! {}, chart.render(), measure.daily.is_empty())
}

/// Monthly actives and activations, side by side, and growth.
pub fn monthly(figures: &Figures) -> Markup {
    html! {
        div.grid2 {
            (monthly_bars("Monthly active devices", "devices", &figures.mau_monthly, figures.month, 0))
            (monthly_bars("Activations", "devices", &figures.activations_monthly, figures.month, 1))
        }
    }
}

fn monthly_bars(name: &str, series: &str, rows: &[Row], last: Month, colour: usize) -> Markup {
    let by_month: BTreeMap<Month, &Row> = rows.iter().map(|row| (row.date.month(), row)).collect();
    let months = months(by_month.keys().next().copied(), last);
    let chart = BarChart {
        label: format!("{name} by month"),
        bars: months
            .iter()
            .map(|month| Bar {
                label: month_short(*month),
                heading: month_name(*month),
                complete: by_month.get(month).is_none_or(|row| row.complete),
            })
            .collect(),
        series: vec![BarSeries {
            name: series.to_owned(),
            values: months.iter().map(|month| by_month.get(month).map(|row| row.value)).collect(),
        }],
        first_colour: colour,
        size: HALF,
    };
    section(name, Some("by month"), "", html! {}, chart.render(), rows.is_empty())
}

/// Growth by kind.
pub fn growth(figures: &Figures) -> Markup {
    const KINDS: [&str; 4] = ["retained", "new", "resurrected", "churned"];
    let mut by_month: BTreeMap<Month, BTreeMap<&str, &Row>> = BTreeMap::new();
    for row in &figures.growth {
        if let Some(kind) = row.labels.first().and_then(Option::as_deref) {
            by_month.entry(row.date.month()).or_default().insert(kind, row);
        }
    }
    let months = months(by_month.keys().next().copied(), figures.month);
    let value = |month: &Month, kind: &str| {
        let value = by_month.get(month)?.get(kind)?.value;
        Some(if kind == "churned" { -value } else { value })
    };
    let chart = BarChart {
        label: "Active devices by month: retained, new, resurrected; churned below the axis".to_owned(),
        bars: months
            .iter()
            .map(|month| Bar {
                label: month_short(*month),
                heading: month_name(*month),
                complete: by_month.get(month).is_none_or(|kinds| kinds.values().all(|row| row.complete)),
            })
            .collect(),
        series: KINDS
            .iter()
            .map(|kind| BarSeries { name: (*kind).to_owned(), values: months.iter().map(|month| value(month, kind)).collect() })
            .collect(),
        first_colour: 0,
        size: HALF,
    };
    section(
        "Growth",
        Some("who was active, and who no longer"),
        "",
        legend(KINDS.iter().enumerate().map(|(place, kind)| (place, *kind))),
        chart.render(),
        figures.growth.is_empty(),
    )
}

/// The retention triangle.
pub fn retention(figures: &Figures) -> Markup {
    let sizes = figures.cohort_sizes();
    let mut cohorts: BTreeMap<Month, Vec<Option<(i64, f64)>>> = BTreeMap::new();
    for cell in &figures.retention {
        let Ok(offset) = usize::try_from(cell.offset) else { continue };
        let row = cohorts.entry(cell.cohort.month()).or_default();
        if row.len() <= offset {
            row.resize(offset + 1, None);
        }
        row[offset] = Some((cell.devices, cell.rate));
    }
    let chart = HeatMap {
        label: "Share of each month's activated devices that are active in later months".to_owned(),
        rows: cohorts
            .into_iter()
            .map(|(cohort, cells)| HeatRow { label: month_short(cohort), size: sizes.get(&cohort).copied(), cells })
            .collect(),
    };
    section(
        "Retention",
        Some("of the devices activated in a month, active so many months later"),
        "",
        html! {},
        chart.render(),
        figures.retention.is_empty(),
    )
}

/// One dimension's groups by size.
pub fn breakdown(breakdown: &Breakdown, colour: usize) -> Markup {
    let name = title(&breakdown.dimension);
    let chart = Ranking {
        label: format!("Monthly active devices by {}", breakdown.dimension),
        rows: breakdown.mau.iter().map(|(name, value)| RankRow { name: name.clone(), value: *value }).collect(),
        colour,
        most: 10,
    };
    section(&format!("By {}", name.to_lowercase()), Some("monthly active devices"), "", html! {}, chart.render(), breakdown.mau.is_empty())
}

/// All charts in the order of the page.
pub fn charts(figures: &Figures) -> Markup {
    html! {
        (daily_actives(figures))
        @for (place, measure) in figures.measures.iter().enumerate() { (daily_measure(figures, measure, place)) }
        (monthly(figures))
        div.grid2 { (growth(figures)) (retention(figures)) }
        @if !figures.breakdowns.is_empty() {
            div.grid2 { @for (place, groups) in figures.breakdowns.iter().enumerate() { (breakdown(groups, place)) } }
        }
    }
}

fn section(name: &str, note: Option<&str>, class: &str, legend: Markup, chart: Markup, empty: bool) -> Markup {
    html! {
        section class=(format!("card {class}").trim_end()) {
            div.cardhead { h2 { (name) } (legend) @if let Some(note) = note { p { (note) } } }
            @if empty { p.empty { "Nothing to show: no data, or fewer devices than the smallest group." } }
            @else { div.scroll { (chart) } }
        }
    }
}

fn days(first: Day, last: Day) -> Vec<Day> {
    (first.epoch_days()..=last.epoch_days()).map(Day::from_epoch_days).collect()
}

fn first_of(series: &[&Vec<Row>]) -> Day {
    series.iter().filter_map(|rows| rows.first()).map(|row| row.date).min().unwrap_or_default()
}

fn months(first: Option<Month>, last: Month) -> Vec<Month> {
    let first = first.unwrap_or(last);
    (first.epoch_months()..=last.epoch_months()).map(Month::from_epoch_months).collect()
}

fn aligned(days: &[Day], rows: &[Row]) -> Vec<Option<Point>> {
    let by_day: BTreeMap<Day, &Row> = rows.iter().map(|row| (row.date, row)).collect();
    days.iter().map(|day| by_day.get(day).map(|row| Point { value: row.value, complete: row.complete })).collect()
}

fn short(day: Day) -> String {
    format!("{} {}", day.of_month(), &month_name(day.month())[..3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_well() {
        assert_eq!(title("wakes"), "Wake-ups");
        assert_eq!(title("page_views"), "Page views");
        assert_eq!(title(""), "");
        let month = Month::from_epoch_months(48 * 12 + 8);
        assert_eq!((month_name(month).as_str(), month_short(month).as_str()), ("September 2018", "Sep 18"));
    }

    #[test]
    fn a_tile_says_how_the_month_compares() {
        let headline = |value, before| Headline { value, before, trend: Vec::new(), complete: true };
        let text = |headline: &Headline| tile("x", headline, 0, html! {}).into_string();
        assert!(text(&headline(Some(110.0), Some(100.0))).contains("↑ 10.0%"));
        assert!(text(&headline(Some(90.0), Some(100.0))).contains("↓ 10.0%"));
        assert!(text(&headline(Some(100.0), Some(100.0))).contains("±0%"));
        assert!(text(&headline(None, Some(100.0))).contains("–"));
        assert!(!text(&headline(Some(100.0), Some(0.0))).contains("inf"));
    }
}
