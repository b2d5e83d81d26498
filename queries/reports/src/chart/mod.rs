//! Charts as inline SVG, made by `maud`: no script, no font, no file from elsewhere.
//!
//! A chart's colours are classes (`c0`, `c1`, …) that [`STYLE`] binds to variables, so that one drawing
//! serves light and dark, dashboard and report. Shapes are written with a closing tag: inside HTML, a
//! shape left open would swallow its neighbours.

mod bar;
mod heat;
mod line;
mod number;
mod rank;
mod spark;

pub use bar::{Bar, BarChart, BarSeries};
pub use heat::{HeatMap, HeatRow};
pub use line::{LineChart, LineSeries, Point};
pub use number::{compact, grouped, nice_ticks, percent};
pub use rank::{RankRow, Ranking};
pub use spark::sparkline;

use maud::{Markup, html};

/// The stylesheet that dashboard pages and reports share, charts included.
pub const STYLE: &str = include_str!("style.css");

/// How many series colours [`STYLE`] knows.
pub const COLOURS: usize = 5;

/// The class of the series at `index`.
pub(crate) fn colour(index: usize) -> String {
    format!("c{}", index % COLOURS)
}

/// A coordinate with at most one decimal: short, and the same text for the same number everywhere.
pub(crate) fn at(value: f64) -> String {
    let rounded = (value * 10.0).round() / 10.0;
    // Minus zero would print as "-0".
    format!("{}", if rounded == 0.0 { 0.0 } else { rounded })
}

/// The names of a chart's series with their colours.
pub fn legend<'a>(names: impl IntoIterator<Item = (usize, &'a str)>) -> Markup {
    html! {
        ul.legend { @for (index, name) in names { li { i.swatch.(colour(index)) {} (name) } } }
    }
}

/// Where the plot lies inside the drawing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub width: f64,
    pub height: f64,
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
}

impl Frame {
    pub(crate) const fn new(width: f64, height: f64) -> Self {
        Self { width, height, left: 46.0, right: 10.0, top: 12.0, bottom: 24.0 }
    }
    pub(crate) const fn inner_width(&self) -> f64 {
        self.width - self.left - self.right
    }
    pub(crate) const fn inner_height(&self) -> f64 {
        self.height - self.top - self.bottom
    }
    pub(crate) const fn floor(&self) -> f64 {
        self.height - self.bottom
    }
    /// The height of `value` on a scale from `low` to `high`.
    pub(crate) fn y(&self, value: f64, low: f64, high: f64) -> f64 {
        let span = if high > low { high - low } else { 1.0 };
        self.floor() - (value - low) / span * self.inner_height()
    }
    pub(crate) fn view_box(&self) -> String {
        format!("0 0 {} {}", at(self.width), at(self.height))
    }
}

/// Horizontal grid lines with their labels.
pub(crate) fn grid(frame: &Frame, ticks: &[f64], low: f64, high: f64) -> Markup {
    html! {
        g.grid {
            @for tick in ticks {
                @let y = frame.y(*tick, low, high);
                line.zero[*tick == 0.0] x1=(at(frame.left)) x2=(at(frame.width - frame.right)) y1=(at(y)) y2=(at(y)) {}
                text.ylab x=(at(frame.left - 8.0)) y=(at(y + 3.5)) { (compact(*tick)) }
            }
        }
    }
}

/// A box that shows on hover: a heading and one line for each series.
pub(crate) fn tip(frame: &Frame, x: f64, heading: &str, lines: &[(usize, &str, String)]) -> Markup {
    let longest = lines
        .iter()
        .map(|(_, name, value)| name.chars().count() + value.chars().count() + 4)
        .chain([heading.chars().count() + 2])
        .max()
        .unwrap_or(0);
    let width = (longest as f64).mul_add(6.0, 20.0);
    let height = (lines.len() as f64).mul_add(16.0, 27.0);
    // Beside the pointer, on the side that has room.
    let left = if x + 10.0 + width <= frame.width { x + 10.0 } else { (x - 10.0 - width).max(0.0) };
    html! {
        g.tip transform=(format!("translate({} {})", at(left), at(frame.top))) {
            rect.tipbox width=(at(width)) height=(at(height)) rx="6" {}
            text.tiphead x="10" y="18" { (heading) }
            @for (row, (index, name, value)) in lines.iter().enumerate() {
                @let y = (row as f64).mul_add(16.0, 35.0);
                circle.dot.(colour(*index)) cx="14" cy=(at(y - 4.0)) r="3.5" {}
                text.tipname x="23" y=(at(y)) { (name) }
                text.tipvalue x=(at(width - 10.0)) y=(at(y)) { (value) }
            }
        }
    }
}

/// Which of `count` positions get a label, so that they stand at least `apart` from each other; the last one always does.
pub(crate) fn spaced(count: usize, room: f64, apart: f64) -> impl Fn(usize) -> bool {
    let most = (room / apart).floor().max(1.0) as usize;
    let step = count.div_ceil(most).max(1);
    move |index| (count - 1 - index).is_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_are_short_and_never_minus_zero() {
        assert_eq!(at(-0.01), "0");
        assert_eq!(at(12.349), "12.3");
        assert_eq!(at(5.0), "5");
    }

    #[test]
    fn the_last_position_is_always_labelled() {
        for count in 1..60 {
            let shown = spaced(count, 400.0, 50.0);
            assert!(shown(count - 1));
            assert!((0..count).filter(|index| shown(*index)).count() <= 8);
        }
    }
}
