//! Numbers as people read them, and the ticks of an axis.

/// `1234567` as `1,234,567`.
pub fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if value < 0 {
        text.push('−');
    }
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A value in at most four figures: `950`, `12.3k`, `4.56M`.
pub fn compact(value: f64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")];
    let size = value.abs();
    let sign = if value < 0.0 { "−" } else { "" };
    for (at, (unit, suffix)) in UNITS.into_iter().enumerate() {
        // 999,960 would print as "1000k": it goes to the next unit.
        if size >= unit * if at + 1 < UNITS.len() { 0.9995 } else { 1.0 } {
            let scaled = size / unit;
            let decimals = if scaled < 10.0 { 2 } else { usize::from(scaled < 100.0) };
            return format!("{sign}{}{suffix}", trimmed(scaled, decimals));
        }
    }
    format!("{sign}{}", trimmed(size, if size < 10.0 { 2 } else { 0 }))
}

fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A share as a percentage: `0.4567` is `45.7%`, `1.0` is `100%`.
pub fn percent(share: f64) -> String {
    let hundredths = share * 100.0;
    if hundredths >= 99.95 || hundredths == 0.0 { format!("{hundredths:.0}%") } else { format!("{hundredths:.1}%") }
}

/// Round tick values that span `low` to `high`, about `count` of them.
///
/// The step is 1, 2 or 5 times a power of ten (Heckbert's nice numbers); counts never get a step below 1.
pub fn nice_ticks(low: f64, high: f64, count: usize, whole: bool) -> Vec<f64> {
    let span = (high - low).max(f64::MIN_POSITIVE);
    let rough = span / count.max(1) as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let nice = match rough / power {
        ratio if ratio <= 1.0 => 1.0,
        ratio if ratio <= 2.0 => 2.0,
        ratio if ratio <= 5.0 => 5.0,
        _ => 10.0,
    } * power;
    let step = if whole { nice.max(1.0) } else { nice };
    let (first, last) = ((low / step).floor() as i64, (high / step).ceil() as i64);
    // A multiple, not a running sum: sums would drift.
    (first..=last).map(|multiple| multiple as f64 * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(-12_345), "−12,345");
        for (value, text) in [
            (0.0, "0"),
            (7.0, "7"),
            (0.25, "0.25"),
            (950.0, "950"),
            (1_000.0, "1k"),
            (12_340.0, "12.3k"),
            (250_000.0, "250k"),
            (999_960.0, "1M"),
            (1_230_000.0, "1.23M"),
            (34_000_000.0, "34M"),
            (-1_500.0, "−1.5k"),
        ] {
            assert_eq!(compact(value), text);
        }
        assert_eq!(percent(0.4567), "45.7%");
        assert_eq!(percent(1.0), "100%");
        assert_eq!(percent(0.0), "0%");
    }

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        assert_eq!(nice_ticks(0.0, 93.0, 4, true), [0.0, 50.0, 100.0]);
        assert_eq!(nice_ticks(0.0, 3.0, 4, true), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(nice_ticks(-40.0, 130.0, 4, true), [-50.0, 0.0, 50.0, 100.0, 150.0]);
        assert_eq!(nice_ticks(0.0, 1.0, 5, false).len(), 6);
        // Nothing to show is still an axis.
        assert_eq!(nice_ticks(0.0, 0.0, 4, true), [0.0]);
    }
}
