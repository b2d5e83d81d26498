//! Bad lines of every kind, each made from a good one.

use ameles_core::Reason;

/// Bytes of the one line that is too large for any limit.
const HUGE_BYTES: usize = 10 << 20;

macro_rules! bad_lines {
    ($($(#[$doc:meta])* $kind:ident = $name:literal, $reason:expr;)*) => {
        /// What is wrong with a line.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum BadLine { $($(#[$doc])* $kind),* }
        impl BadLine {
            /// Every kind but [`BadLine::Huge`] comes in turn.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$kind),*];
            /// What a summary calls it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),* }
            }
            /// What ingest rejects it for under the default contract; none where
            /// it is no event, or is a good one that only looks odd.
            pub const fn reason(self) -> Option<Reason> {
                match self { $(Self::$kind => $reason),* }
            }
        }
    };
}

bad_lines! {
    /// Cut off in the middle.
    Truncated = "truncated", Some(Reason::MalformedJson);
    /// Bytes that are no text.
    InvalidUtf8 = "invalid_utf8", Some(Reason::MalformedJson);
    /// Two objects on a line.
    Trailing = "trailing", Some(Reason::MalformedJson);
    /// JSON, but no object.
    NotAnObject = "not_an_object", Some(Reason::MalformedJson);
    /// A number where text belongs.
    WrongType = "wrong_type", Some(Reason::WrongType);
    /// A type that no contract lists.
    UnknownType = "unknown_type", Some(Reason::UnknownType);
    /// No time.
    MissingTime = "missing_time", Some(Reason::MissingField);
    /// No device.
    MissingDevice = "missing_device", Some(Reason::MissingField);
    /// No one knows which zone.
    TimeWithoutZone = "time_without_zone", Some(Reason::InvalidValue);
    /// A clock that was never set.
    In1970 = "in_1970", None;
    /// A clock set by a joker.
    In9999 = "in_9999", Some(Reason::FromFuture);
    /// A country in small letters.
    SmallCountry = "small_country", Some(Reason::InvalidValue);
    /// An identifier longer than any.
    LongIdentifier = "long_identifier", Some(Reason::InvalidValue);
    /// A negative duration.
    NegativeLatency = "negative_latency", Some(Reason::InvalidValue);
    /// Nothing at all.
    Empty = "empty", None;
    /// Ten megabytes; on request, once.
    Huge = "huge", Some(Reason::TooLarge);
}

impl BadLine {
    /// The kind of the n-th bad line.
    pub const fn nth(n: u64) -> Self {
        Self::ALL[(n % (Self::ALL.len() as u64 - 1)) as usize]
    }

    /// Appends the line, without its end. `good` is an event's line, `number`
    /// the bad line's own number, which its event id is made of.
    pub fn write(self, good: &[u8], number: u64, out: &mut Vec<u8>) {
        let mut line = String::from_utf8_lossy(good).into_owned();
        set(&mut line, "event_id", &format!("\"bad00000-0000-7000-8000-{number:012x}\""));
        match self {
            Self::Truncated => line.truncate(line.floor_char_boundary(line.len() * 3 / 5)),
            Self::Trailing => line.push_str("{}"),
            Self::NotAnObject => line = "[1,\"event\",null]".to_owned(),
            Self::WrongType => set(&mut line, "device_id", "800000000001"),
            Self::UnknownType => set(&mut line, "type", "\"reboot\""),
            Self::MissingTime => remove(&mut line, "ts"),
            Self::MissingDevice => remove(&mut line, "device_id"),
            Self::TimeWithoutZone => set(&mut line, "ts", "\"2018-07-01T00:33:35.580\""),
            Self::In1970 => set(&mut line, "ts", "\"1970-01-01T00:00:00.000Z\""),
            Self::In9999 => set(&mut line, "ts", "\"9999-12-31T23:59:59.999Z\""),
            Self::SmallCountry => set(&mut line, "country", "\"de\""),
            Self::LongIdentifier => set(&mut line, "device_id", &format!("\"{}\"", "8".repeat(300))),
            Self::NegativeLatency => props(&mut line, "{\"latency_ms\":-1}"),
            Self::Huge => props(&mut line, &format!("{{\"room\":\"{}\"}}", "x".repeat(HUGE_BYTES))),
            Self::Empty => line.clear(),
            Self::InvalidUtf8 => {}
        }
        let from = out.len();
        out.extend_from_slice(line.as_bytes());
        if self == Self::InvalidUtf8
            && let Some(at) = find(&line, "product")
        {
            out[from + at.start + 1] = 0xff;
        }
    }
}

/// Where a field's value stands, quotes included. For what the renderer writes
/// only: a text without escapes, or a bare word.
fn find(line: &str, field: &str) -> Option<std::ops::Range<usize>> {
    let name = format!("\"{field}\":");
    let start = line.find(&name)? + name.len();
    let rest = &line[start..];
    let length = match rest.strip_prefix('"') {
        Some(text) => text.find('"')? + 2,
        None => rest.find([',', '}'])?,
    };
    Some(start..start + length)
}

fn set(line: &mut String, field: &str, value: &str) {
    match find(line, field) {
        Some(at) => line.replace_range(at, value),
        None => line.insert_str(1, &format!("\"{field}\":{value},")),
    }
}

fn remove(line: &mut String, field: &str) {
    if let Some(at) = find(line, field) {
        // With its name before it and the comma after it.
        line.replace_range(at.start - field.len() - 3..at.end + 1, "");
    }
}

fn props(line: &mut String, value: &str) {
    let end = line.find(",\"props\"").unwrap_or(line.len() - 1);
    line.truncate(end);
    line.push_str(",\"props\":");
    line.push_str(value);
    line.push('}');
}
