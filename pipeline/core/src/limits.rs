//! Bounds that hold whatever the input.

/// Bounds on what one event, request or batch may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest line or message, in bytes; a longer one is `too_large`.
    pub line_bytes_max: usize,
    /// The longest identifier after normalisation, in characters, as `maxLength` of JSON Schema counts.
    pub identifier_chars_max: usize,
    /// The largest HTTP body, in bytes, after decompression.
    pub body_bytes_max: usize,
    /// The most events in one commit.
    pub batch_rows_max: usize,
    /// The most memory that the rows of one commit take, in bytes.
    pub batch_bytes_max: usize,
    /// The most errors that a reply lists one by one.
    pub errors_listed_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            line_bytes_max: 1 << 20,
            identifier_chars_max: 256,
            body_bytes_max: 32 << 20,
            batch_rows_max: 16 << 20,
            batch_bytes_max: Self::batch_bytes_of(2 << 30),
            errors_listed_max: 100,
        }
    }
}

impl Limits {
    /// What the rows of a commit may take of an ingest's memory: the rest is for what is read, sorted and written meanwhile.
    pub const fn batch_bytes_of(memory_bytes: usize) -> usize {
        memory_bytes / 8 * 5
    }
}
