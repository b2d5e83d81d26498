//! Groups ranked by size, as bars that lie.

use ameles_queries::OTHER;
use maud::{Markup, html};

use super::{at, colour, grouped, percent};

/// One group.
#[derive(Clone, Debug)]
pub struct RankRow {
    /// The group's name as stored.
    pub name: String,
    /// Its size.
    pub value: i64,
}

/// Groups with a bar, a count and a share each.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// What is ranked, for those who cannot see it.
    pub label: String,
    /// The groups; drawn in this order.
    pub rows: Vec<RankRow>,
    /// The colour of the bars.
    pub colour: usize,
    /// The most rows drawn; the rest is summed up in one line.
    pub most: usize,
}

const WIDTH: f64 = 460.0;
const ROW: f64 = 27.0;
const NAME: f64 = 104.0;
const NUMBERS: f64 = 124.0;

impl Ranking {
    /// The ranking as SVG.
    pub fn render(&self) -> Markup {
        let total: i64 = self.rows.iter().map(|row| row.value).sum();
        let largest = self.rows.iter().map(|row| row.value).max().unwrap_or(0).max(1);
        let (shown, hidden) = self.rows.split_at(self.rows.len().min(self.most));
        let rest: i64 = hidden.iter().map(|row| row.value).sum();
        let lines = shown.len() + usize::from(!hidden.is_empty());
        let height = (lines as f64).mul_add(ROW, 2.0);
        let room = WIDTH - NAME - NUMBERS;
        html! {
            svg.chart.rank viewBox=(format!("0 0 {WIDTH} {}", at(height))) role="img" aria-label=(self.label) {
                @for (place, row) in shown.iter().enumerate() {
                    @let y = place as f64 * ROW;
                    g.ranked.folded[row.name == OTHER] {
                        title { (row.name) ": " (grouped(row.value)) " (" (share(row.value, total)) ")" }
                        text.rowlab x="0" y=(at(y + 17.0)) { (clipped(&row.name)) }
                        rect.track x=(at(NAME)) y=(at(y + 5.0)) width=(at(room)) height="15" rx="3" {}
                        rect.bar.(colour(self.colour)) x=(at(NAME)) y=(at(y + 5.0)) width=(at((row.value as f64 / largest as f64 * room).max(1.5))) height="15" rx="3" {}
                        text.value x=(at(WIDTH - 52.0)) y=(at(y + 17.0)) text-anchor="end" { (grouped(row.value)) }
                        text.share x=(at(WIDTH)) y=(at(y + 17.0)) text-anchor="end" { (share(row.value, total)) }
                    }
                }
                @if !hidden.is_empty() {
                    @let y = shown.len() as f64 * ROW;
                    text.head x="0" y=(at(y + 17.0)) { "and " (hidden.len()) " more" }
                    text.value x=(at(WIDTH - 52.0)) y=(at(y + 17.0)) text-anchor="end" { (grouped(rest)) }
                    text.share x=(at(WIDTH)) y=(at(y + 17.0)) text-anchor="end" { (share(rest, total)) }
                }
            }
        }
    }
}

fn share(value: i64, total: i64) -> String {
    if total > 0 { percent(value as f64 / total as f64) } else { String::new() }
}

/// A name that fits before its bar; the whole one is in the title.
fn clipped(name: &str) -> String {
    const MOST: usize = 15;
    if name.chars().count() <= MOST { name.to_owned() } else { name.chars().take(MOST - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_past_the_limit_are_summed_up() {
        let rows = (0..20).map(|index| RankRow { name: format!("country-with-a-long-name-{index}"), value: 10 }).collect();
        let svg = Ranking { label: "by country".to_owned(), rows, colour: 0, most: 8 }.render().into_string();
        assert!(svg.contains("and 12 more") && svg.contains(">120<"));
        assert_eq!(svg.matches("<title>").count(), 8);
        assert!(svg.contains("country-with-a…"));
    }

    #[test]
    fn no_rows_no_division() {
        let svg = Ranking { label: String::new(), rows: vec![RankRow { name: "x".to_owned(), value: 0 }], colour: 0, most: 3 }
            .render()
            .into_string();
        assert!(!svg.contains("NaN"));
    }
}
