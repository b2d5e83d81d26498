//! Pages of pseudonyms as runs of rows that share one: in a file that is sorted by device there are far fewer of these than rows.

use std::ops::Range;

use parquet::basic::Encoding;

use super::Stop;
use super::chunk::Chunk;
use super::leaf::{Leaf, Values};
use super::page::{Codec, Kind};
use crate::scan::bits::read_deltas;
use crate::scan::pages::PADDING;

pub(crate) const NOT_16: Stop = Stop::Damaged("a pseudonym has not 16 bytes");

/// Neighbouring rows with one pseudonym, counted from the beginning of the row group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) id: [u8; 16],
    pub(crate) rows: Range<u32>,
}

/// Decodes page after page; its buffers serve all of them.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    payload: Vec<u8>,
    prefixes: Vec<u8>,
    rests: Vec<u8>,
    runs: Vec<Run>,
}

impl Runs {
    /// The runs of a page of a column without nulls.
    pub(crate) fn of(&mut self, chunk: &Chunk<'_>, codec: &mut Codec, page: usize) -> Result<&[Run], Stop> {
        const TOO_MANY: Stop = Stop::Damaged("a row group has too many rows");
        let rows = chunk.page_rows(page)?;
        let rows = u32::try_from(rows.start).map_err(|_| TOO_MANY)?..u32::try_from(rows.end).map_err(|_| TOO_MANY)?;
        self.runs.clear();
        if chunk.shape.max_def == 0 && chunk.shape.max_rep == 0 {
            let header = codec.read_into(&chunk.page_bytes(page)?, chunk.metadata.compression(), PADDING, &mut self.payload)?;
            if header.kind == Kind::Data && header.encoding == Encoding::DELTA_BYTE_ARRAY as i32 {
                if header.values != rows.len() {
                    return Err(Stop::Damaged("a page has another number of rows than its index says"));
                }
                self.shared_prefixes(rows, header.plain).ok_or(NOT_16)?;
                return Ok(&self.runs);
            }
        }
        let (_, leaf) = chunk.page(codec, page)?;
        let mut row = rows.start;
        for same in pseudonyms(&leaf)?.chunk_by(|a, b| a == b) {
            let end = row + same.len() as u32;
            self.runs.extend(same.first().map(|id| Run { id: *id, rows: row..end }));
            row = end;
        }
        Ok(&self.runs)
    }

    /// What each shares with the one before it, the lengths of the rests, and the rests.
    fn shared_prefixes(&mut self, rows: Range<u32>, end: usize) -> Option<()> {
        let (count, mut at) = (rows.len(), 0);
        read_deltas(&self.payload, &mut at, count, &mut self.prefixes)?;
        read_deltas(&self.payload, &mut at, count, &mut self.rests)?;
        let whole = |(prefix, rest): (&u8, &u8)| prefix.wrapping_add(*rest) == 16 && *rest <= 16;
        if self.prefixes.len() != count || self.rests.len() != count || !self.prefixes.iter().zip(&self.rests).all(whole) {
            return None;
        }
        let (mut id, mut start) = ([0; 16], rows.start);
        for (row, prefix) in rows.clone().zip(&self.prefixes) {
            if *prefix == 16 && row > rows.start {
                continue;
            }
            if row > rows.start {
                self.runs.push(Run { id, rows: start..row });
            } else if *prefix > 0 {
                return None;
            }
            let rest = id.get_mut(usize::from(*prefix)..)?;
            rest.copy_from_slice(self.payload.get(at..at + rest.len())?);
            at += rest.len();
            start = row;
        }
        if !rows.is_empty() {
            self.runs.push(Run { id, rows: start..rows.end });
        }
        (at <= end).then_some(())
    }
}

/// The values of a pseudonym column without nulls.
pub(crate) fn pseudonyms(leaf: &Leaf) -> Result<&[[u8; 16]], Stop> {
    match &leaf.values {
        Values::Texts(texts) if leaf.nulls() == 0 => {
            if texts.are_of::<16>() {
                Ok(texts.bytes.as_chunks().0)
            } else {
                Err(NOT_16)
            }
        }
        _ => Err(Stop::Unsupported("a pseudonym column has nulls or a dictionary")),
    }
}
