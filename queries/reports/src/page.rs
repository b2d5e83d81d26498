//! `report.html`: one file with its style and its charts, for a browser or a printer.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::chart::{STYLE, grouped};
use crate::figures::label;
use crate::run::{BreakdownTable, Content};
use crate::sections::{card, charts, month_name, title};

/// The page.
pub(crate) fn render(content: &Content) -> String {
    let (spec, figures) = (&content.spec, &content.figures);
    let name = month_name(spec.month);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Monthly activity, " (name) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main.wrap {
                    div.intro {
                        div {
                            h1 { "Monthly activity, " (name) }
                            p {
                                @if figures.mau.complete { "The month is complete." } @else { "The month is not complete: numbers marked with * can still change." }
                                @if spec.k > 1 { " Groups of fewer than " (spec.k) " devices or users are folded into (other)." }
                            }
                        }
                    }
                    (card(figures))
                    (charts(figures))
                    @for table in &content.breakdowns { (breakdown(table)) }
                    footer.foot {
                        span { "Made by Ameles from " (versions(content)) "." }
                        span { "Contract " (spec.contract) ", policy " (spec.policy) ", k = " (spec.k) "." }
                    }
                }
            }
        }
    }
    .into_string()
}

fn versions(content: &Content) -> String {
    content.tables.iter().map(|(table, version)| format!("{table} v{version}")).collect::<Vec<_>>().join(", ")
}

fn breakdown(table: &BreakdownTable) -> Markup {
    /// Longer tables are in the CSV only.
    const MOST: usize = 60;
    let names = table.names();
    html! {
        section.card {
            div.cardhead { h2 { "All by " (title(&table.dimension).to_lowercase()) } }
            div.scroll { table {
                thead { tr { th { (title(&table.dimension)) } @for (name, _) in &table.columns { th.num { (title(name)) } } } }
                tbody {
                    @for name in names.iter().take(MOST) {
                        tr {
                            td { (label(name.as_deref())) }
                            @for (_, column) in &table.columns { td.num { @match column.get(name) { Some(value) => (grouped(*value)), None => "–" } } }
                        }
                    }
                }
            } }
            @if names.len() > MOST { p.muted { (names.len() - MOST) " more in by_" (table.dimension) ".csv" } }
        }
    }
}
