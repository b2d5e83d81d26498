//! The bytes of a chunk that is put together from pages of an old file and new
//! ones: the old ones are referred to, and copied once, into the new file.

use std::io::{self, Read};
use std::ops::Range;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use super::Stop;

#[derive(Debug)]
enum Piece {
    Copied(Bytes),
    /// A range of what was encoded.
    Encoded(Range<usize>),
}

/// Pieces one after the other.
#[derive(Debug, Default)]
pub(crate) struct PiecesBuilder {
    pieces: Vec<Piece>,
    encoded: Vec<u8>,
    length: usize,
}

impl PiecesBuilder {
    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn copy(&mut self, bytes: Bytes) {
        self.length += bytes.len();
        self.pieces.push(Piece::Copied(bytes));
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
        let piece = |piece| match piece {
            Piece::Copied(bytes) => bytes,
            Piece::Encoded(range) => encoded.slice(range),
        };
        Pieces { length: self.length, pieces: self.pieces.into_iter().map(piece).collect() }
    }
}

/// The bytes of a chunk, in pieces.
#[derive(Debug)]
pub(crate) struct Pieces {
    pieces: Vec<Bytes>,
    length: usize,
}

impl Length for Pieces {
    fn len(&self) -> u64 {
        self.length as u64
    }
}

impl ChunkReader for Pieces {
    type T = PiecesReader;

    fn get_read(&self, start: u64) -> Result<PiecesReader, ParquetError> {
        let mut skipped = usize::try_from(start).map_err(|error| ParquetError::External(error.into()))?;
        let mut pieces = self.pieces.clone();
        for piece in &mut pieces {
            let cut = skipped.min(piece.len());
            *piece = piece.slice(cut..);
            skipped -= cut;
        }
        if skipped > 0 {
            return Err(ParquetError::EOF("a chunk is read behind its end".to_owned()));
        }
        Ok(PiecesReader { pieces: pieces.into_iter() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let mut bytes = vec![0; length];
        self.get_read(start)?.read_exact(&mut bytes)?;
        Ok(Bytes::from(bytes))
    }
}

/// Reads pieces one after the other.
pub(crate) struct PiecesReader {
    pieces: std::vec::IntoIter<Bytes>,
}

impl Read for PiecesReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let (Some(piece), true) = (self.pieces.as_mut_slice().first_mut(), filled < into.len()) {
            let taken = piece.split_to(piece.len().min(into.len() - filled));
            if let Some(place) = into.get_mut(filled..filled + taken.len()) {
                place.copy_from_slice(&taken);
            }
            filled += taken.len();
            if piece.is_empty() {
                self.pieces.next();
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pieces_read_as_what_they_were_put_together_from() {
        let old = Bytes::from((0..100_u8).collect::<Vec<_>>());
        let mut builder = PiecesBuilder::default();
        let put = |out: &mut Vec<u8>, bytes: &[u8]| {
            out.extend_from_slice(bytes);
            Ok(bytes.len())
        };
        assert_eq!(builder.encode(|out| put(out, b"head")).unwrap(), 4);
        builder.encode(|out| put(out, b"er")).unwrap();
        builder.copy(old.slice(10..60));
        builder.copy(Bytes::new());
        builder.encode(|out| put(out, b"new")).unwrap();
        builder.copy(old.slice(90..));
        let wanted = [b"header".as_slice(), &old[10..60], b"new", &old[90..]].concat();
        assert_eq!(builder.len(), wanted.len());
        let pieces = builder.build();
        assert_eq!(pieces.len(), wanted.len() as u64);
        for start in [0, 1, 6, 7, 58, 60, wanted.len()] {
            let mut read = Vec::new();
            pieces.get_read(start as u64).unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, wanted[start..]);
            // In small portions that end within pieces.
            let mut reader = pieces.get_read(start as u64).unwrap();
            let mut portion = [0; 7];
            let mut read = Vec::new();
            while let Ok(count @ 1..) = reader.read(&mut portion) {
                read.extend_from_slice(&portion[..count]);
            }
            assert_eq!(read, wanted[start..]);
        }
        assert_eq!(pieces.get_bytes(4, 5).unwrap(), wanted[4..9]);
        assert!(pieces.get_read(wanted.len() as u64 + 1).is_err());
        assert!(pieces.get_bytes(wanted.len() as u64 - 1, 2).is_err());
    }
}
