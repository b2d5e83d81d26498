//! RFC 3339 times with `Z` or an offset.
//!
//! Days from a civil date after Howard Hinnant, "chrono-compatible low-level
//! date algorithms", days_from_civil.

use ameles_core::Timestamp;

const MICROS_DIGITS: usize = 6;

/// Reads a time and converts it to UTC; digits beyond microseconds are cut off.
/// A leap second (`:60`) becomes the last microsecond before it ends, since UTC
/// days have 86,400 s here. `None`: no RFC 3339 time, no offset, no such day,
/// or before 1970 in UTC.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let head: &[u8; 19] = bytes.first_chunk()?;
    let fixed = head[4] == b'-' && head[7] == b'-' && matches!(head[10], b'T' | b't' | b' ') && head[13] == b':' && head[16] == b':';
    if !fixed {
        return None;
    }
    let (year, month, day) = (number(&head[0..4])?, number(&head[5..7])?, number(&head[8..10])?);
    let (hour, minute, second) = (number(&head[11..13])?, number(&head[14..16])?, number(&head[17..19])?);
    if !(1..=12).contains(&month) || day < 1 || day > days_of(year, month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (mut micros, rest) = fraction(&bytes[19..])?;
    let offset_minutes = offset(rest)?;
    let mut seconds = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    if second == 60 {
        // Real ones come only as 23:59:60 in UTC; others are typing errors.
        if (seconds - offset_minutes * 60).rem_euclid(86_400) != 0 {
            return None;
        }
        seconds -= 1;
        micros = 999_999;
    }
    let utc = (seconds - offset_minutes * 60) * 1_000_000 + micros;
    (utc >= 0).then_some(Timestamp::from_micros(utc))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
}

/// The micros of `.123…`, if there is a fraction, and what follows it.
fn fraction(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.', digits)) = bytes.split_first() else {
        return Some((0, bytes));
    };
    let len = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if len == 0 {
        return None;
    }
    let kept = len.min(MICROS_DIGITS);
    let micros = number(&digits[..kept])? * 10_i64.pow((MICROS_DIGITS - kept) as u32);
    Some((micros, &digits[len..]))
}

/// Minutes ahead of UTC.
fn offset(bytes: &[u8]) -> Option<i64> {
    match bytes {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            let total = hours * 60 + minutes;
            (hours <= 23 && minutes <= 59).then_some(if *sign == b'-' { -total } else { total })
        }
        _ => None,
    }
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + is_leap(year) as i64,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_with_an_offset_and_nothing_else() {
        let cases = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T00:00:00.000001Z", Some(1)),
            ("1970-01-01T01:00:00.5+01:00", Some(500_000)),
            ("1969-12-31T23:00:00-02:00", Some(3_600_000_000)),
            ("2018-07-01T00:33:35.580Z", Some(1_530_405_215_580_000)),
            ("2018-07-01t00:33:35.5801239z", Some(1_530_405_215_580_123)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_799_999_999)),
            ("2016-12-31T12:59:60Z", None),
            ("9999-12-31T23:59:59Z", Some(253_402_300_799_000_000)),
            ("1969-12-31T23:59:59Z", None),
            ("1970-01-01T00:00:00+00:01", None),
            ("2018-07-01T00:33:35", None),
            ("2018-07-01", None),
            ("2018-02-29T00:00:00Z", None),
            ("2000-02-29T00:00:00Z", Some(951_782_400_000_000)),
            ("1900-02-29T00:00:00Z", None),
            ("2018-13-01T00:00:00Z", None),
            ("2018-07-01T24:00:00Z", None),
            ("2018-07-01T00:00:00.Z", None),
            ("2018-07-01T00:00:00+0100", None),
            ("2018-07-01T00:00:00+24:00", None),
            ("2018-07-01T00:00:00Z ", None),
            ("", None),
            ("2018-07-01T00:00:0éZ", None),
        ];
        for (text, micros) in cases {
            assert_eq!(parse_time(text).map(Timestamp::micros), micros, "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_core_on_every_time(micros in 0_i64..253_402_300_800_000_000) {
            let time = Timestamp::from_micros(micros);
            prop_assert_eq!(parse_time(&time.to_string()), Some(time));
        }

        #[test]
        fn never_reads_what_core_refuses(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})") {
            let reference = text.parse::<Timestamp>().ok().filter(|time| time.micros() >= 0);
            prop_assert_eq!(parse_time(&text), reference);
        }
    }
}
