//! A new file, put together from stretches of an old one and what was encoded: no byte is moved before it is written.

use std::ops::Range;

use bytes::Bytes;

use super::Stop;

#[derive(Debug)]
enum Piece {
    /// A range of the old file.
    Copied(Range<usize>),
    /// A range of what was encoded.
    Encoded(Range<usize>),
}

/// Pieces one after the other.
#[derive(Debug)]
pub(crate) struct PiecesBuilder {
    old: Bytes,
    encoded: Vec<u8>,
    pieces: Vec<Piece>,
    length: usize,
}

impl PiecesBuilder {
    /// Nothing yet; `encoded` is an empty buffer.
    pub(crate) const fn new(old: Bytes, encoded: Vec<u8>) -> Self {
        Self { old, encoded, pieces: Vec::new(), length: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    /// A stretch of the old file follows.
    pub(crate) fn copy(&mut self, range: Range<usize>) -> Result<(), Stop> {
        let length = range.len();
        if range.start > range.end || range.end > self.old.len() {
            return Err(Stop::Damaged("a page lies outside of its file"));
        }
        self.length += length;
        match self.pieces.last_mut() {
            Some(Piece::Copied(last)) if last.end == range.start => last.end = range.end,
            _ => self.pieces.push(Piece::Copied(range)),
        }
        Ok(())
    }

    /// What `encode` appends follows.
    pub(crate) fn encode<T>(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> Result<T, Stop>) -> Result<T, Stop> {
        let start = self.encoded.len();
        let done = encode(&mut self.encoded)?;
        let end = self.encoded.len();
        self.length += end - start;
        match self.pieces.last_mut() {
            Some(Piece::Encoded(range)) if range.end == start => range.end = end,
            _ => self.pieces.push(Piece::Encoded(start..end)),
        }
        Ok(done)
    }

    pub(crate) fn build(self) -> Pieces {
        let encoded = Bytes::from(self.encoded);
        let (mut bytes, mut new, mut at) = (Vec::with_capacity(self.pieces.len()), Vec::new(), 0);
        for piece in self.pieces {
            let piece = match piece {
                Piece::Copied(range) => self.old.slice(range),
                Piece::Encoded(range) => {
                    new.push((at, bytes.len()));
                    encoded.slice(range)
                }
            };
            at += piece.len();
            bytes.push(piece);
        }
        Pieces { bytes, new, length: at, encoded }
    }
}

/// A file's bytes, in pieces.
#[derive(Debug)]
pub(crate) struct Pieces {
    bytes: Vec<Bytes>,
    /// Which of them are not the old file's: where they begin in the new one, and which they are.
    new: Vec<(usize, usize)>,
    length: usize,
    encoded: Bytes,
}

impl Pieces {
    pub(crate) fn bytes(&self) -> &[Bytes] {
        &self.bytes
    }

    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    /// Whether a file is as long, and all that is not from the old one stands in it as it was encoded.
    pub(crate) fn are_new_in(&self, file: &[u8]) -> bool {
        let stands = |(at, piece): &(usize, usize)| {
            let piece = self.bytes.get(*piece).map_or(&[][..], |piece| piece);
            file.get(*at..*at + piece.len()) == Some(piece)
        };
        file.len() == self.length && self.new.iter().all(stands)
    }

    /// The buffer of what was encoded, for the next file.
    pub(crate) fn into_encoded(self) -> Bytes {
        self.encoded
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pieces_are_what_they_were_put_together_from() {
        let old = Bytes::from((0..100_u8).collect::<Vec<_>>());
        let mut builder = PiecesBuilder::new(old.clone(), Vec::new());
        let put = |out: &mut Vec<u8>, bytes: &[u8]| {
            out.extend_from_slice(bytes);
            Ok(bytes.len())
        };
        assert_eq!(builder.encode(|out| put(out, b"head")).unwrap(), 4);
        builder.encode(|out| put(out, b"er")).unwrap();
        builder.copy(10..40).unwrap();
        builder.copy(40..60).unwrap();
        builder.encode(|out| put(out, b"new")).unwrap();
        builder.copy(90..100).unwrap();
        assert!(matches!(builder.copy(90..101), Err(Stop::Damaged(_))));
        let wanted = [b"header".as_slice(), &old[10..60], b"new", &old[90..]].concat();
        assert_eq!(builder.len(), wanted.len());
        let pieces = builder.build();
        assert_eq!((pieces.len(), pieces.bytes().len()), (wanted.len(), 4), "neighbours are one piece");
        assert_eq!(pieces.bytes().concat(), wanted);
        assert!(pieces.are_new_in(&wanted));
        for (place, seen) in [(0, true), (5, true), (6, false), (55, false), (56, true), (58, true), (59, false)] {
            let mut other = wanted.clone();
            other[place] ^= 1;
            assert_eq!(pieces.are_new_in(&other), !seen, "byte {place}");
        }
        assert!(!pieces.are_new_in(&wanted[..wanted.len() - 1]));
        assert_eq!(&pieces.into_encoded()[..], b"headernew");
    }
}
