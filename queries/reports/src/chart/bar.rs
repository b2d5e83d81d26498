//! Bars over periods, stacked where there are several series.

use maud::{Markup, html};

use super::{Frame, at, colour, grid, grouped, nice_ticks, spaced, tip};

/// One period of a bar chart.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Below the axis.
    pub label: String,
    /// In the tooltip.
    pub heading: String,
    /// Whether the period can still change: drawn lighter when not complete.
    pub complete: bool,
}

/// One layer of the bars.
#[derive(Clone, Debug)]
pub struct BarSeries {
    /// What readers see in legend and tooltip.
    pub name: String,
    /// Aligned with [`BarChart::bars`]; a negative value hangs below the axis.
    pub values: Vec<Option<f64>>,
}

/// Bars over periods.
#[derive(Clone, Debug)]
pub struct BarChart {
    /// What the chart shows, for those who cannot see it.
    pub label: String,
    /// The periods, in order.
    pub bars: Vec<Bar>,
    /// The layers, from the axis outwards.
    pub series: Vec<BarSeries>,
    /// The colour of the first layer.
    pub first_colour: usize,
    /// Width and height of the drawing.
    pub size: (f64, f64),
}

/// The widest place of one bar, so that two months don't make two walls.
const SLOT_MAX: f64 = 120.0;

impl BarChart {
    /// The chart as SVG.
    pub fn render(&self) -> Markup {
        let frame = Frame::new(self.size.0, self.size.1);
        let (low, high) = self.range();
        let ticks = nice_ticks(low, high.max(low + 1.0), 4, true);
        let (low, high) = (ticks.first().copied().unwrap_or(0.0), ticks.last().copied().unwrap_or(1.0));
        let slot = (frame.inner_width() / self.bars.len().max(1) as f64).min(SLOT_MAX);
        let width = if slot > 12.0 { (slot * 0.66).min(64.0) } else { (slot * 0.78).max(0.6) };
        let labelled = spaced(self.bars.len().max(1), slot * self.bars.len() as f64, 58.0);
        html! {
            svg.chart viewBox=(frame.view_box()) role="img" aria-label=(self.label) {
                (grid(&frame, &ticks, low, high))
                @for (index, bar) in self.bars.iter().enumerate() {
                    @let middle = (index as f64 + 0.5).mul_add(slot, frame.left);
                    g.open[!bar.complete] {
                        @for (place, from, to) in self.stack(index) {
                            @let (top, foot) = (frame.y(to, low, high), frame.y(from, low, high));
                            rect.bar.(colour(self.first_colour + place)) x=(at(middle - width / 2.0)) y=(at(top)) width=(at(width))
                                height=(at((foot - top).max(0.5))) rx=[(width > 8.0 && self.series.len() == 1).then_some("2")] {}
                        }
                        @if labelled(index) {
                            @let anchor = if middle + 18.0 > frame.width - frame.right { "end" } else { "middle" };
                            @let x = if anchor == "end" { frame.width - frame.right } else { middle };
                            text.xlab x=(at(x)) y=(at(frame.height - 6.0)) text-anchor=(anchor) { (bar.label) }
                        }
                    }
                }
                // Above all bars, so that no neighbour covers a box.
                @for (index, bar) in self.bars.iter().enumerate() {
                    @let middle = (index as f64 + 0.5).mul_add(slot, frame.left);
                    @let lines = self.lines_at(index);
                    @if !lines.is_empty() {
                        g.hover {
                            rect.hit x=(at(middle - slot / 2.0)) y=(at(frame.top)) width=(at(slot)) height=(at(frame.inner_height())) {}
                            g.shown { (tip(&frame, middle + width / 2.0, &format!("{}{}", bar.heading, if bar.complete { "" } else { " *" }), &lines)) }
                        }
                    }
                }
            }
        }
    }

    /// The layers of one bar as (series, lower, upper).
    fn stack(&self, index: usize) -> Vec<(usize, f64, f64)> {
        let (mut above, mut below) = (0.0, 0.0);
        let mut parts = Vec::with_capacity(self.series.len());
        for (place, series) in self.series.iter().enumerate() {
            let Some(value) = series.values.get(index).copied().flatten().filter(|value| *value != 0.0) else { continue };
            if value > 0.0 {
                parts.push((place, above, above + value));
                above += value;
            } else {
                parts.push((place, below + value, below));
                below += value;
            }
        }
        parts
    }

    fn range(&self) -> (f64, f64) {
        let ends = (0..self.bars.len()).flat_map(|index| self.stack(index)).flat_map(|(_, from, to)| [from, to]);
        ends.fold((0.0, 0.0), |(low, high): (f64, f64), end| (low.min(end), high.max(end)))
    }

    fn lines_at(&self, index: usize) -> Vec<(usize, &str, String)> {
        self.series
            .iter()
            .enumerate()
            .filter_map(|(place, series)| {
                let value = series.values.get(index).copied().flatten()?;
                Some((self.first_colour + place, series.name.as_str(), grouped(value.abs().round() as i64)))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[(&str, &[Option<f64>])]) -> BarChart {
        let count = values.first().map_or(0, |(_, values)| values.len());
        BarChart {
            label: "growth".to_owned(),
            bars: (0..count)
                .map(|index| Bar { label: format!("m{index}"), heading: format!("month {index}"), complete: index + 1 < count })
                .collect(),
            series: values.iter().map(|(name, values)| BarSeries { name: (*name).to_owned(), values: values.to_vec() }).collect(),
            first_colour: 0,
            size: (500.0, 200.0),
        }
    }

    #[test]
    fn layers_stack_upwards_and_losses_hang_below() {
        let chart = chart(&[("new", &[Some(5.0)]), ("retained", &[Some(7.0)]), ("churned", &[Some(-3.0)])]);
        assert_eq!(chart.stack(0), [(0, 0.0, 5.0), (1, 5.0, 12.0), (2, -3.0, 0.0)]);
        assert_eq!(chart.range(), (-3.0, 12.0));
        assert!(chart.render().into_string().contains(">3<"), "a loss reads as its size");
    }

    #[test]
    fn empty_charts_and_gaps_draw_without_nonsense() {
        for values in [&[][..], &[None, None], &[Some(0.0), None]] {
            let svg = chart(&[("mau", values)]).render().into_string();
            assert!(!svg.contains("NaN") && !svg.contains("inf") && !svg.contains("rect class=\"bar"), "{svg}");
        }
    }

    #[test]
    fn an_open_period_is_marked() {
        let svg = chart(&[("mau", &[Some(5.0), Some(4.0)])]).render().into_string();
        assert!(svg.contains("month 1 *") && svg.contains("class=\"open\""));
        assert!(svg.contains("month 0<"));
    }
}
