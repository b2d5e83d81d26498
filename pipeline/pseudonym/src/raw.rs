//! A raw identifier, held in memory between reading and pseudonymising only.

use std::fmt;
use std::io::BufRead;

use ameles_core::Limits;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// How many bytes a typed identifier may have for each byte that it may have
/// after normalisation: composition shortens, and blanks are trimmed.
const RAW_BYTES_PER_NORMALISED: usize = 4;

/// An identifier as a person or a device gave it; wiped on drop. It can be
/// normalised and hashed, and neither printed, compared, cloned nor serialised.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct RawIdentifier(String);

/// No identifier could be read. Never shows what was read.
#[derive(Debug, thiserror::Error)]
pub enum IdentifierError {
    /// The reader failed.
    #[error("cannot read the identifier")]
    Io(#[source] std::io::Error),
    /// Nothing, or only blanks.
    #[error("the identifier is empty; give it on the first line")]
    Empty,
    /// Longer than any identifier that ingest accepts.
    #[error("the identifier is longer than {bytes_max} bytes")]
    TooLong {
        /// The most bytes that are read.
        bytes_max: usize,
    },
    /// Not text.
    #[error("the identifier is not UTF-8 text")]
    NotUtf8,
}

impl RawIdentifier {
    /// Takes over an identifier. The caller keeps no copy.
    pub const fn new(identifier: String) -> Self {
        Self(identifier)
    }

    /// Reads the identifier on the reader's next line, without the line's end
    /// and without a byte-order mark. What the reader itself buffers is its own.
    ///
    /// # Errors
    /// When the line is blank, is not UTF-8, is longer than four times what the
    /// limits allow an identifier, or cannot be read.
    pub fn from_reader(reader: &mut impl BufRead, limits: &Limits) -> Result<Self, IdentifierError> {
        let bytes_max = limits.identifier_chars_max.saturating_mul(RAW_BYTES_PER_NORMALISED);
        // Full capacity from the start: growing would leave copies behind unwiped.
        let mut line = Zeroizing::new(Vec::with_capacity(bytes_max + 2));
        loop {
            let chunk = match reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(IdentifierError::Io(error)),
            };
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(chunk.len());
            if line.len() + taken > bytes_max + 1 {
                return Err(IdentifierError::TooLong { bytes_max });
            }
            line.extend_from_slice(&chunk[..taken]);
            let at_end = end.is_some() || chunk.is_empty();
            reader.consume(taken + usize::from(end.is_some()));
            if at_end {
                break;
            }
        }
        let bytes = line.strip_suffix(b"\r").unwrap_or(&line);
        if bytes.len() > bytes_max {
            return Err(IdentifierError::TooLong { bytes_max });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| IdentifierError::NotUtf8)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            return Err(IdentifierError::Empty);
        }
        Ok(Self(text.to_owned()))
    }

    /// The identifier, to normalise and hash it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for RawIdentifier {
    fn from(identifier: String) -> Self {
        Self(identifier)
    }
}

impl fmt::Debug for RawIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawIdentifier(…)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::io::{BufReader, Cursor};

    use super::*;

    fn read(bytes: &[u8]) -> Result<RawIdentifier, IdentifierError> {
        // A tiny buffer, so that every seam between two fills is met.
        RawIdentifier::from_reader(&mut BufReader::with_capacity(3, Cursor::new(bytes)), &Limits::default())
    }

    #[test]
    fn reads_one_line_whatever_its_end() {
        for bytes in ["800000002492", "800000002492\n", "800000002492\r\n", "\u{feff}800000002492\nsecond line\n"] {
            assert_eq!(read(bytes.as_bytes()).unwrap().expose(), "800000002492", "{bytes:?}");
        }
    }

    #[test]
    fn leaves_the_following_line_to_the_reader() {
        let mut reader = Cursor::new(b"first\nsecond\n".as_slice());
        let limits = Limits::default();
        assert_eq!(RawIdentifier::from_reader(&mut reader, &limits).unwrap().expose(), "first");
        assert_eq!(RawIdentifier::from_reader(&mut reader, &limits).unwrap().expose(), "second");
        assert!(matches!(RawIdentifier::from_reader(&mut reader, &limits), Err(IdentifierError::Empty)));
    }

    #[test]
    fn refuses_what_is_no_identifier_without_showing_it() {
        assert!(matches!(read(b""), Err(IdentifierError::Empty)));
        assert!(matches!(read(" \t\u{2003}\n".as_bytes()), Err(IdentifierError::Empty)));
        assert!(matches!(read(b"\xff\xfe\n"), Err(IdentifierError::NotUtf8)));
        let longest = vec![b'7'; 1024];
        assert_eq!(read(&longest).unwrap().expose().len(), 1024);
        let error = read(&[longest, vec![b'7']].concat()).unwrap_err();
        assert!(matches!(error, IdentifierError::TooLong { bytes_max: 1024 }));
        assert!(!format!("{error} {error:?}").contains("777"));
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", RawIdentifier::new("800000002492".to_owned())), "RawIdentifier(…)");
    }
}
