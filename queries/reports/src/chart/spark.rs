//! A line small enough to stand beside a number.

use maud::{Markup, html};

use super::{at, colour};

const SIZE: (f64, f64) = (180.0, 34.0);

/// A trend without axes; nothing for fewer than two values.
pub fn sparkline(values: &[f64], series: usize) -> Markup {
    if values.len() < 2 {
        return html! {};
    }
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)));
    let span = if high > low { high - low } else { 1.0 };
    let place = |index: usize, value: f64| {
        let x = index as f64 / (values.len() - 1) as f64 * (SIZE.0 - 6.0) + 2.0;
        let y = SIZE.1 - 4.0 - (value - low) / span * (SIZE.1 - 8.0);
        (at(x), at(y))
    };
    let mut line = String::new();
    for (index, value) in values.iter().enumerate() {
        let (x, y) = place(index, *value);
        line.push_str(if index == 0 { "M" } else { "L" });
        line.push_str(&format!("{x} {y}"));
    }
    let (x, y) = place(values.len() - 1, values[values.len() - 1]);
    html! {
        svg.spark viewBox=(format!("0 0 {} {}", SIZE.0, SIZE.1)) aria-hidden="true" {
            g.line.(colour(series)) {
                path.area d=(format!("{line}L{x} {}L2 {}Z", SIZE.1, SIZE.1)) {}
                path.stroke d=(line) {}
                circle.dot cx=(x) cy=(y) r="2.5" {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_line_and_a_lone_value_are_fine() {
        assert!(sparkline(&[5.0], 0).into_string().is_empty());
        assert!(!sparkline(&[5.0, 5.0, 5.0], 0).into_string().contains("NaN"));
    }
}
