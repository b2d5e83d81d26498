//! A triangle of cohorts as a heat map.

use maud::{Markup, html};

use super::{at, grouped, percent};

/// One cohort.
#[derive(Clone, Debug)]
pub struct HeatRow {
    /// The cohort's name, such as its month.
    pub label: String,
    /// How many devices it has.
    pub size: Option<i64>,
    /// By offset: devices still active and their share; `None` where nothing is known or shown.
    pub cells: Vec<Option<(i64, f64)>>,
}

/// Retention by cohort and offset.
#[derive(Clone, Debug)]
pub struct HeatMap {
    /// What the chart shows, for those who cannot see it.
    pub label: String,
    /// The cohorts, oldest first.
    pub rows: Vec<HeatRow>,
}

const CELL: (f64, f64) = (52.0, 27.0);
const LEFT: f64 = 132.0;
const TOP: f64 = 26.0;
const GAP: f64 = 2.0;

impl HeatMap {
    /// The map as SVG.
    pub fn render(&self) -> Markup {
        let columns = self.rows.iter().map(|row| row.cells.len()).max().unwrap_or(0);
        let (width, height) = ((columns as f64).mul_add(CELL.0, LEFT), (self.rows.len() as f64).mul_add(CELL.1, TOP));
        // The first month is all of the cohort, or nearly: it would drown the others.
        let most = self.rows.iter().flat_map(|row| row.cells.iter().skip(1).flatten()).map(|(_, rate)| *rate).fold(0.0, f64::max);
        html! {
            svg.chart.heat viewBox=(format!("0 0 {} {}", at(width), at(height))) width=(at(width)) height=(at(height)) role="img" aria-label=(self.label) {
                text.head x="0" y="15" { "activated" }
                text.head x=(at(LEFT - 10.0)) y="15" text-anchor="end" { "devices" }
                @for offset in 0..columns {
                    text.head x=(at((offset as f64 + 0.5).mul_add(CELL.0, LEFT))) y="15" text-anchor="middle" {
                        @if offset == 0 { "month 0" } @else { "+" (offset) }
                    }
                }
                @for (place, row) in self.rows.iter().enumerate() {
                    @let y = (place as f64).mul_add(CELL.1, TOP);
                    text.rowlab x="0" y=(at(y + 18.0)) { (row.label) }
                    text.size x=(at(LEFT - 10.0)) y=(at(y + 18.0)) text-anchor="end" { @if let Some(size) = row.size { (grouped(size)) } }
                    @for (offset, cell) in row.cells.iter().enumerate() {
                        @if let Some((devices, rate)) = cell {
                            @let depth = depth(*rate, most);
                            @let x = (offset as f64).mul_add(CELL.0, LEFT);
                            g.cell {
                                title { (row.label) ", " (offset) " months later: " (grouped(*devices)) " devices, " (percent(*rate)) }
                                rect x=(at(x)) y=(at(y)) width=(at(CELL.0 - GAP)) height=(at(CELL.1 - GAP)) rx="3" fill-opacity=(format!("{depth:.2}")) {}
                                text.deep[depth > 0.55] x=(at(x + (CELL.0 - GAP) / 2.0)) y=(at(y + 17.0)) text-anchor="middle" { (percent(*rate)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// How strong a cell is painted, 0.06 to 1.
fn depth(rate: f64, most: f64) -> f64 {
    let share = if most > 0.0 { (rate / most).clamp(0.0, 1.0) } else { f64::from(rate > 0.0) };
    share.powf(1.5).mul_add(0.9, 0.06).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_months_are_scaled_among_themselves() {
        assert!(depth(0.5, 0.5) > 0.9);
        assert!(depth(1.0, 0.5) > 0.9, "the first month saturates");
        assert!(depth(0.1, 0.5) < 0.2);
        assert!(depth(0.0, 0.0) < 0.1);
    }

    #[test]
    fn unknown_cells_stay_empty() {
        let map = HeatMap {
            label: "retention".to_owned(),
            rows: vec![
                HeatRow { label: "2018-07".to_owned(), size: Some(1_200), cells: vec![Some((1_200, 1.0)), None, Some((300, 0.25))] },
                HeatRow { label: "2018-08".to_owned(), size: None, cells: Vec::new() },
            ],
        };
        let svg = map.render().into_string();
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(svg.contains("1,200") && svg.contains("25.0%") && svg.contains("2 months later: 300 devices"));
    }
}
