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
    if let Some(time) = usual_time(bytes) {
        return Some(time);
    }
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

/// Digits become their values and separators zero; anything else leaves a high bit or grows one.
#[inline(always)]
const fn unmask(word: [u8; 8], layout: &[u8; 8]) -> Option<u64> {
    /// What brings a digit above 9, or a separator above 0, to the high bit.
    const fn headroom(layout: &[u8; 8]) -> u64 {
        let mut bytes = [0x7f; 8];
        let mut at = 0;
        while at < bytes.len() {
            bytes[at] -= if layout[at] == b'0' { 9 } else { 0 };
            at += 1;
        }
        u64::from_le_bytes(bytes)
    }
    let values = u64::from_le_bytes(word) ^ u64::from_le_bytes(*layout);
    let bad = values | values.wrapping_add(headroom(layout));
    if bad & 0x8080_8080_8080_8080 == 0 { Some(values) } else { None }
}

/// The number that two digits side by side make, at each place.
#[inline(always)]
const fn pairs(digits: u64) -> [u8; 8] {
    (digits * 10 + (digits >> 8)).to_le_bytes()
}

/// `2018-07-01T00:33:35.580Z` and `2018-07-01T00:33:35Z`, as most devices write
/// them, eight bytes at a time; `None` says nothing about the text.
#[inline(always)]
pub(super) fn usual_time(bytes: &[u8]) -> Option<Timestamp> {
    let (head, tail): (&[u8; 16], &[u8]) = bytes.split_first_chunk()?;
    let tail: [u8; 8] = match tail {
        [_, _, _, _, _, _, _, b'Z'] => *tail.first_chunk()?,
        [colon, s1, s2, b'Z'] => [*colon, *s1, *s2, b'.', b'0', b'0', b'0', b'Z'],
        _ => return None,
    };
    let (date, time) = head.split_at(8);
    let date = unmask(*date.first_chunk()?, b"0000-00-")?;
    let time = unmask(*time.first_chunk()?, b"00T00:00")?;
    let tail = unmask(tail, b":00.000Z")?;
    let [century, _, of_century, _, _, month, _, _] = pairs(date).map(u32::from);
    let [day, _, _, hour, _, _, minute, _] = pairs(time).map(u32::from);
    let [_, second, _, _, hundredths, _, _, _] = pairs(tail).map(u32::from);
    let year = century * 100 + of_century;
    let possible = year >= 1970 && (1..=12).contains(&month) && day >= 1 && hour <= 23 && minute <= 59 && second <= 59;
    if !possible || (day > 28 && i64::from(day) > days_of(i64::from(year), i64::from(month))) {
        return None;
    }
    let leap = u32::from(month > 2 && is_leap(i64::from(year)));
    let past = year - 1;
    let days =
        (year - 1970) * 365 + (past / 4 - past / 100 + past / 400 - LEAP_DAYS_BEFORE_1970) + DAYS_BEFORE[month as usize] + leap + day - 1;
    let millis = hundredths * 10 + u32::from(tail.to_le_bytes()[6]);
    let seconds = i64::from(days) * 86_400 + i64::from(hour * 3_600 + minute * 60 + second);
    Some(Timestamp::from_micros(seconds * 1_000_000 + i64::from(millis) * 1_000))
}

/// Of the years 1 to 1969.
const LEAP_DAYS_BEFORE_1970: u32 = 1969 / 4 - 1969 / 100 + 1969 / 400;
/// Days of a common year before each month, from 1.
const DAYS_BEFORE: [u32; 13] = [0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

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
        fn the_usual_layouts_are_read_as_any_other(text in "(19[67]|20[0-3]|210|999)[0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{3})?Z", at in 0_usize..24, byte in 0_u8..0x80) {
            // Another spelling of the same, which only the general way reads.
            let other = text.replace('Z', "+00:00");
            prop_assert_eq!(parse_time(&text), parse_time(&other));
            // And damaged: lower case is what the general way takes besides.
            let mut damaged = text.into_bytes();
            let at = at % damaged.len();
            damaged[at] = byte;
            let damaged = String::from_utf8(damaged).unwrap();
            let usual = usual_time(damaged.as_bytes());
            prop_assert!(usual.is_none() || usual == parse_time(&damaged.replace('Z', "z")));
        }

        #[test]
        fn never_reads_what_core_refuses(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})") {
            let reference = text.parse::<Timestamp>().ok().filter(|time| time.micros() >= 0);
            prop_assert_eq!(parse_time(&text), reference);
        }
    }
}
