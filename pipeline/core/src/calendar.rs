//! Days, months and instants in UTC, and the arithmetic on them.
//!
//! Civil-date conversion follows Howard Hinnant's "chrono-compatible low-level
//! date algorithms" (days from civil), by way of `chrono`.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, NaiveDate, SecondsFormat};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(i64);

/// Days since 1970-01-01, in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Day(i32);

/// Calendar months since 1970-01, in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Month(i32);

/// The period that a value is summed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grain {
    /// One row a day.
    #[default]
    Day,
    /// One row an ISO week, dated by its Monday.
    Week,
    /// One row a month, dated by its first day.
    Month,
}

/// A text that is no day, month or time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CalendarError {
    /// Not a day.
    #[error("not a day: {0:?}; write it as 2018-07-31")]
    Day(String),
    /// Not a month.
    #[error("not a month: {0:?}; write it as 2018-07")]
    Month(String),
    /// Not a time.
    #[error("not a time: {0:?}; write it as 2018-07-31T12:00:00Z")]
    Time(String),
    /// Not a grain.
    #[error("not a grain: {0:?}; use day, week or month")]
    Grain(String),
}

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
const UNIX_EPOCH_FROM_CE: i32 = 719_163;

impl Timestamp {
    /// The latest instant that can be named.
    pub const MAX: Self = Self(i64::MAX);
    /// The earliest instant that can be named.
    pub const MIN: Self = Self(i64::MIN);

    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis * 1_000)
    }
    /// From seconds since the Unix epoch.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs * MICROS_PER_SECOND)
    }
    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }
    /// Whole seconds since the Unix epoch.
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(MICROS_PER_SECOND)
    }
    /// The day that this instant lies in.
    pub const fn day(self) -> Day {
        Day(self.0.div_euclid(MICROS_PER_DAY) as i32)
    }
    /// The month that this instant lies in.
    pub fn month(self) -> Month {
        self.day().month()
    }
    /// The start of the hour that this instant lies in.
    pub const fn hour(self) -> Self {
        Self(self.0 - self.0.rem_euclid(3_600 * MICROS_PER_SECOND))
    }
    /// This instant moved by seconds; saturates.
    pub const fn plus_secs(self, secs: i64) -> Self {
        Self(self.0.saturating_add(secs.saturating_mul(MICROS_PER_SECOND)))
    }
    /// This instant moved by days; saturates.
    pub const fn plus_days(self, days: i64) -> Self {
        Self(self.0.saturating_add(days.saturating_mul(MICROS_PER_DAY)))
    }

    /// The same day and time of the next month, or that month's last day when
    /// it has no such day: how an erasure's deadline is counted.
    pub fn plus_months(self, months: i32) -> Self {
        let day = self.day();
        let month = day.month().plus(months);
        let of_month = day.of_month().min(month.days());
        let moved = month.first_day().plus(of_month as i32 - 1);
        Self(moved.start().0 + self.0.rem_euclid(MICROS_PER_DAY))
    }
}

/// RFC 3339 in UTC with microseconds where there are any.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_timestamp_micros(self.0) {
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            None => write!(f, "{}us", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = CalendarError;
    /// Reads RFC 3339 with `Z` or an offset.
    fn from_str(text: &str) -> Result<Self, CalendarError> {
        DateTime::parse_from_rfc3339(text).map(|time| Self(time.timestamp_micros())).map_err(|_| CalendarError::Time(text.to_owned()))
    }
}

impl Day {
    /// From days since 1970-01-01.
    pub const fn from_epoch_days(days: i32) -> Self {
        Self(days)
    }
    /// Days since 1970-01-01.
    pub const fn epoch_days(self) -> i32 {
        self.0
    }
    /// From a year, a month from 1 and a day from 1, where there is such a day.
    pub fn from_ymd(year: i32, month: u32, day: u32) -> Option<Self> {
        NaiveDate::from_ymd_opt(year, month, day).map(|date| Self(date.num_days_from_ce() - UNIX_EPOCH_FROM_CE))
    }
    fn date(self) -> NaiveDate {
        NaiveDate::from_num_days_from_ce_opt(self.0.saturating_add(UNIX_EPOCH_FROM_CE)).unwrap_or_default()
    }
    /// The month that this day lies in.
    pub fn month(self) -> Month {
        let date = self.date();
        Month((date.year() - 1970) * 12 + date.month0() as i32)
    }
    /// The day of the month, from 1.
    pub fn of_month(self) -> u32 {
        self.date().day()
    }
    /// The day's first instant.
    pub const fn start(self) -> Timestamp {
        Timestamp(self.0 as i64 * MICROS_PER_DAY)
    }
    /// This day moved by days.
    pub const fn plus(self, days: i32) -> Self {
        Self(self.0.saturating_add(days))
    }
    /// The first day of the period that this day lies in.
    pub fn truncate(self, grain: Grain) -> Self {
        match grain {
            Grain::Day => self,
            Grain::Week => self.plus(-(self.date().weekday().num_days_from_monday() as i32)),
            Grain::Month => self.month().first_day(),
        }
    }
}

/// `2018-07-31`.
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.date().format("%Y-%m-%d"))
    }
}

impl FromStr for Day {
    type Err = CalendarError;
    fn from_str(text: &str) -> Result<Self, CalendarError> {
        let bad = || CalendarError::Day(text.to_owned());
        if text.len() != 10 {
            return Err(bad());
        }
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").map_err(|_| bad())?;
        Ok(Self(date.num_days_from_ce() - UNIX_EPOCH_FROM_CE))
    }
}

impl Month {
    /// From months since 1970-01.
    pub const fn from_epoch_months(months: i32) -> Self {
        Self(months)
    }
    /// Months since 1970-01.
    pub const fn epoch_months(self) -> i32 {
        self.0
    }
    /// The month's first day.
    pub fn first_day(self) -> Day {
        let (year, month) = (1970 + self.0.div_euclid(12), self.0.rem_euclid(12) as u32 + 1);
        Day::from_ymd(year, month, 1).unwrap_or_default()
    }
    /// The month's last day.
    pub fn last_day(self) -> Day {
        self.plus(1).first_day().plus(-1)
    }
    /// How many days the month has, 28 to 31.
    pub fn days(self) -> u32 {
        (self.plus(1).first_day().0 - self.first_day().0) as u32
    }
    /// This month moved by months.
    pub const fn plus(self, months: i32) -> Self {
        Self(self.0.saturating_add(months))
    }
    /// The first instant after the month.
    pub fn end(self) -> Timestamp {
        self.plus(1).first_day().start()
    }
}

/// `2018-07`.
impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", 1970 + self.0.div_euclid(12), self.0.rem_euclid(12) + 1)
    }
}

impl FromStr for Month {
    type Err = CalendarError;
    fn from_str(text: &str) -> Result<Self, CalendarError> {
        let bad = || CalendarError::Month(text.to_owned());
        if text.len() != 7 {
            return Err(bad());
        }
        format!("{text}-01").parse::<Day>().map(Day::month).map_err(|_| bad())
    }
}

impl FromStr for Grain {
    type Err = CalendarError;
    fn from_str(text: &str) -> Result<Self, CalendarError> {
        match text {
            "day" => Ok(Self::Day),
            "week" => Ok(Self::Week),
            "month" => Ok(Self::Month),
            _ => Err(CalendarError::Grain(text.to_owned())),
        }
    }
}

macro_rules! serde_as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(Timestamp, Day, Month);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn deadline_is_the_same_day_next_month_or_its_last() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap_or_default();
        assert_eq!(at("2026-01-31T10:00:00Z").plus_months(1), at("2026-02-28T10:00:00Z"));
        assert_eq!(at("2028-01-31T10:00:00Z").plus_months(1), at("2028-02-29T10:00:00Z"));
        assert_eq!(at("2026-11-22T10:00:00Z").plus_months(1), at("2026-12-22T10:00:00Z"));
        assert_eq!(at("2026-12-31T23:59:59Z").plus_months(2), at("2027-02-28T23:59:59Z"));
    }

    #[test]
    fn weeks_start_on_monday() {
        let day = Day::from_ymd(2018, 7, 1).unwrap_or_default(); // a Sunday
        assert_eq!(day.truncate(Grain::Week).to_string(), "2018-06-25");
    }

    #[test]
    fn refuses_texts_that_only_look_like_dates() {
        for text in ["2018-7-1", "2018-13-01", "2018-02-30", "20180701", ""] {
            assert!(text.parse::<Day>().is_err(), "{text}");
        }
        assert!("2018-07-01T00:00:00".parse::<Timestamp>().is_err());
    }

    proptest! {
        #[test]
        fn day_and_month_round_trip(days in -100_000_i32..100_000) {
            let day = Day::from_epoch_days(days);
            prop_assert_eq!(day.to_string().parse::<Day>(), Ok(day));
            let month = day.month();
            prop_assert!(month.first_day() <= day && day <= month.last_day());
            prop_assert_eq!(month.first_day().plus(day.of_month() as i32 - 1), day);
            prop_assert_eq!(month.to_string().parse::<Month>(), Ok(month));
            prop_assert_eq!(day.start().day(), day);
        }
    }
}
