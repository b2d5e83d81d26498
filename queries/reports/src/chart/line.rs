//! Lines over days.

use ameles_core::Day;
use maud::{Markup, html};

use super::{Frame, at, colour, grid, grouped, nice_ticks, spaced, tip};

/// One value of a series.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Point {
    /// The value.
    pub value: f64,
    /// Whether the value can still change, or lacks history: drawn dashed when not complete.
    pub complete: bool,
}

/// A line.
#[derive(Clone, Debug)]
pub struct LineSeries {
    /// What readers see in legend and tooltip.
    pub name: String,
    /// Aligned with [`LineChart::days`]; `None` leaves a gap.
    pub points: Vec<Option<Point>>,
}

/// Lines over consecutive days, with a box of values under the pointer.
#[derive(Clone, Debug)]
pub struct LineChart {
    /// What the chart shows, for those who cannot see it.
    pub label: String,
    /// The days, in order.
    pub days: Vec<Day>,
    /// The lines; the first takes the first colour.
    pub series: Vec<LineSeries>,
    /// Width and height of the drawing.
    pub size: (f64, f64),
}

impl LineChart {
    /// The chart as SVG.
    pub fn render(&self) -> Markup {
        let frame = Frame::new(self.size.0, self.size.1);
        let high = self.series.iter().flat_map(|series| series.points.iter().flatten()).map(|point| point.value).fold(0.0, f64::max);
        let ticks = nice_ticks(0.0, high.max(1.0), 4, true);
        let high = ticks.last().copied().unwrap_or(1.0);
        let steps = self.days.len().saturating_sub(1).max(1) as f64;
        let x = |index: usize| frame.left + index as f64 / steps * frame.inner_width();
        let y = |value: f64| frame.y(value, 0.0, high);
        let labelled = spaced(self.days.len().max(1), frame.inner_width(), 92.0);
        html! {
            svg.chart viewBox=(frame.view_box()) role="img" aria-label=(self.label) {
                (grid(&frame, &ticks, 0.0, high))
                g.xaxis {
                    @for (index, day) in self.days.iter().enumerate().filter(|(index, _)| labelled(*index)) {
                        @let anchor = if index + 1 == self.days.len() { "end" } else if index == 0 { "start" } else { "middle" };
                        text x=(at(x(index))) y=(at(frame.height - 6.0)) text-anchor=(anchor) { (short_day(*day)) }
                    }
                }
                @for (index, series) in self.series.iter().enumerate().rev() {
                    @let runs = Runs::of(&series.points);
                    g.line.(colour(index)) {
                        @for run in &runs.whole { path.area d=(area(run, &x, &y, frame.floor())) {} }
                        @for run in &runs.dashed { path.stroke.soft d=(path(run, &x, &y)) {} }
                        @for run in &runs.solid { path.stroke d=(path(run, &x, &y)) {} }
                        @for (place, value) in &runs.single { circle.dot cx=(at(x(*place))) cy=(at(y(*value))) r="2.5" {} }
                    }
                }
                @let half = frame.inner_width() / steps / 2.0;
                @for (index, day) in self.days.iter().enumerate() {
                    @let lines = self.lines_at(index);
                    @if !lines.is_empty() {
                        g.hover {
                            rect.hit x=(at(x(index) - half)) y=(at(frame.top)) width=(at(half * 2.0)) height=(at(frame.inner_height())) {}
                            g.shown {
                                line.cross x1=(at(x(index))) x2=(at(x(index))) y1=(at(frame.top)) y2=(at(frame.floor())) {}
                                @for (place, series) in self.series.iter().enumerate() {
                                    @if let Some(point) = series.points.get(index).copied().flatten() {
                                        circle.dot.(colour(place)) cx=(at(x(index))) cy=(at(y(point.value))) r="3.5" {}
                                    }
                                }
                                (tip(&frame, x(index), &day.to_string(), &lines))
                            }
                        }
                    }
                }
            }
        }
    }

    fn lines_at(&self, index: usize) -> Vec<(usize, &str, String)> {
        let shown = |point: Point| format!("{}{}", grouped(point.value.round() as i64), if point.complete { "" } else { " *" });
        self.series
            .iter()
            .enumerate()
            .filter_map(|(place, series)| {
                let point = series.points.get(index).copied().flatten()?;
                Some((place, series.name.as_str(), shown(point)))
            })
            .collect()
    }
}

/// `1 Jul`, and the year too in January.
fn short_day(day: Day) -> String {
    const NAMES: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = day.month().epoch_months().rem_euclid(12) as usize;
    format!("{} {}", day.of_month(), NAMES[month])
}

/// Stretches of a line: whole ones between gaps, and of these the complete parts, the others with the points that
/// join them; and points alone.
#[derive(Default)]
struct Runs {
    whole: Vec<Vec<(usize, f64)>>,
    solid: Vec<Vec<(usize, f64)>>,
    dashed: Vec<Vec<(usize, f64)>>,
    single: Vec<(usize, f64)>,
}

impl Runs {
    fn of(points: &[Option<Point>]) -> Self {
        let mut runs = Self::default();
        let mut last: Option<(usize, Point)> = None;
        for (index, point) in points.iter().enumerate() {
            let Some(point) = *point else {
                last = None;
                continue;
            };
            let lonely = last.is_none() && points.get(index + 1).copied().flatten().is_none();
            if lonely {
                runs.single.push((index, point.value));
            }
            if let Some((before, previous)) = last {
                // A segment is as complete as its weaker end.
                let part = if previous.complete && point.complete { &mut runs.solid } else { &mut runs.dashed };
                let ends = [(before, previous.value), (index, point.value)];
                extend(part, ends);
                extend(&mut runs.whole, ends);
            }
            last = Some((index, point));
        }
        runs
    }
}

fn extend(runs: &mut Vec<Vec<(usize, f64)>>, [from, to]: [(usize, f64); 2]) {
    match runs.last_mut() {
        Some(run) if run.last() == Some(&from) => run.push(to),
        _ => runs.push(vec![from, to]),
    }
}

fn path(run: &[(usize, f64)], x: &impl Fn(usize) -> f64, y: &impl Fn(f64) -> f64) -> String {
    let mut text = String::with_capacity(run.len() * 12);
    for (place, (index, value)) in run.iter().enumerate() {
        text.push(if place == 0 { 'M' } else { 'L' });
        text.push_str(&at(x(*index)));
        text.push(' ');
        text.push_str(&at(y(*value)));
    }
    text
}

fn area(run: &[(usize, f64)], x: &impl Fn(usize) -> f64, y: &impl Fn(f64) -> f64, floor: f64) -> String {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return String::new() };
    format!("{}L{} {}L{} {}Z", path(run, x, y), at(x(last.0)), at(floor), at(x(first.0)), at(floor))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn point(value: f64, complete: bool) -> Option<Point> {
        Some(Point { value, complete })
    }

    fn chart(points: Vec<Option<Point>>) -> LineChart {
        let first = Day::from_ymd(2018, 7, 1).unwrap();
        LineChart {
            label: "Daily <actives>".to_owned(),
            days: (0..points.len() as i32).map(|day| first.plus(day)).collect(),
            series: vec![LineSeries { name: "dau".to_owned(), points }],
            size: (600.0, 200.0),
        }
    }

    #[test]
    fn gaps_split_a_line_and_open_days_are_dashed() {
        let runs = Runs::of(&[
            point(1.0, true),
            point(2.0, true),
            None,
            point(3.0, true),
            None,
            point(4.0, true),
            point(5.0, false),
            point(6.0, false),
        ]);
        assert_eq!(runs.solid, [vec![(0, 1.0), (1, 2.0)]]);
        assert_eq!(runs.dashed, [vec![(5, 4.0), (6, 5.0), (7, 6.0)]]);
        assert_eq!(runs.single, [(3, 3.0)]);
        assert_eq!(runs.whole.iter().map(Vec::len).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn a_chart_closes_its_shapes_escapes_text_and_says_the_values() {
        let svg = chart(vec![point(1_200.0, true), point(1_500.0, false)]).render().into_string();
        assert_eq!(svg.matches("<path").count(), svg.matches("</path>").count());
        assert!(svg.contains("Daily &lt;actives&gt;"));
        assert!(svg.contains("1,200") && svg.contains("1,500 *"));
        assert!(svg.contains("2018-07-02"));
        assert!(svg.contains(">1.5k<"), "the axis ends on a round number");
    }

    #[test]
    fn nothing_to_draw_is_an_empty_frame() {
        let svg = chart(Vec::new()).render().into_string();
        assert!(svg.starts_with("<svg") && !svg.contains("NaN"));
        let single = chart(vec![point(0.0, true)]).render().into_string();
        assert!(!single.contains("NaN") && !single.contains("inf"));
    }
}
