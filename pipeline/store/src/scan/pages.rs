//! The pages of a column chunk, one after the other, from the file as it lies in the page cache.
//!
//! Only what files of ours hold is understood: data pages of version 1, dictionary pages, no compression or zstd. Anything else is
//! [`Trouble::Unexpected`], and the caller reads by way of arrow.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use zstd::bulk::Decompressor;

use crate::StoreError;

/// Why a chunk cannot be read here.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It is laid out in a way that only parquet's own reader knows.
    Unexpected,
    Failed(StoreError),
}

impl<E: Into<StoreError>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Bytes that may be read past the end of a page's values: decoders load whole words.
pub(crate) const PADDING: usize = 16;
/// Bytes read ahead of a page: they hold the header of the next one.
const AHEAD_BYTES: usize = 4 << 10;
/// No page of ours comes near.
const PAGE_BYTES_MAX: usize = 256 << 20;

/// Where a column chunk lies in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkPlace {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) zstd: bool,
}

/// An encoding as the format numbers it.
pub(crate) const PLAIN: u64 = 0;
pub(crate) const PLAIN_DICTIONARY: u64 = 2;
pub(crate) const RLE: u64 = 3;
pub(crate) const DELTA_BINARY_PACKED: u64 = 5;
pub(crate) const DELTA_LENGTH_BYTE_ARRAY: u64 = 6;
pub(crate) const DELTA_BYTE_ARRAY: u64 = 7;
pub(crate) const RLE_DICTIONARY: u64 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) is_dictionary: bool,
    /// Values, nulls and empty lists included.
    pub(crate) values: usize,
    pub(crate) encoding: u64,
    stored: usize,
    plain: usize,
}

/// Reads one chunk after the other.
pub(crate) struct Pages {
    file: Option<Arc<File>>,
    path: Arc<str>,
    zstd: bool,
    /// The next byte of the file that is not in `buffer`, and the chunk's end.
    at: u64,
    end: u64,
    /// Bytes `start..filled` are the chunk's next ones.
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
    decompressor: Option<Decompressor<'static>>,
    /// The last page's values, decompressed; without, they stand in `buffer`.
    plain: Vec<u8>,
    payload: (usize, usize),
    in_plain: bool,
}

impl Pages {
    pub(crate) fn new() -> Self {
        Self {
            file: None,
            path: Arc::from(""),
            zstd: false,
            at: 0,
            end: 0,
            buffer: Vec::new(),
            start: 0,
            filled: 0,
            decompressor: None,
            plain: Vec::new(),
            payload: (0, 0),
            in_plain: false,
        }
    }

    pub(crate) fn open(&mut self, file: Arc<File>, path: Arc<str>, place: ChunkPlace) {
        (self.file, self.path, self.zstd) = (Some(file), path, place.zstd);
        (self.at, self.end) = (place.offset, place.offset + place.bytes);
        (self.start, self.filled, self.payload) = (0, 0, (0, 0));
    }

    /// The next page's header; none after the last page.
    pub(crate) fn header(&mut self) -> Result<Option<Header>, Trouble> {
        if self.start == self.filled && self.at == self.end {
            return Ok(None);
        }
        let mut wanted = 64;
        loop {
            self.ensure(wanted)?;
            let bytes = self.buffer.get(self.start..self.filled).ok_or(Trouble::Unexpected)?;
            if let Some((header, length)) = (Thrift { bytes, at: 0 }).page_header() {
                self.start += length;
                return if header.stored <= PAGE_BYTES_MAX && header.plain <= PAGE_BYTES_MAX {
                    Ok(Some(header))
                } else {
                    Err(Trouble::Unexpected)
                };
            }
            // Statistics in a header may make it long; or it is no header that we know.
            if self.at == self.end || wanted > 64 << 10 {
                return Err(Trouble::Unexpected);
            }
            wanted = (self.filled - self.start) * 4;
        }
    }

    /// Reads the page whose header was read last.
    pub(crate) fn load(&mut self, header: &Header) -> Result<(), Trouble> {
        self.ensure(header.stored)?;
        let payload = (self.start, self.start + header.stored);
        self.start += header.stored;
        self.in_plain = self.zstd && header.stored > 0;
        if !self.in_plain {
            if header.stored != header.plain {
                return Err(Trouble::Unexpected);
            }
            self.payload = payload;
            return Ok(());
        }
        if self.decompressor.is_none() {
            self.decompressor = Some(Decompressor::new().map_err(|error| self.failed(error))?);
        }
        let stored = self.buffer.get(payload.0..payload.1).ok_or(Trouble::Unexpected)?;
        if self.plain.len() < header.plain + PADDING {
            self.plain.resize(header.plain + PADDING, 0);
        }
        let Some(decompressor) = self.decompressor.as_mut() else { return Err(Trouble::Unexpected) };
        let room = self.plain.get_mut(..header.plain).ok_or(Trouble::Unexpected)?;
        let bytes = decompressor.decompress_to_buffer(stored, room).map_err(|_| Trouble::Unexpected)?;
        if bytes != header.plain {
            return Err(Trouble::Unexpected);
        }
        self.payload = (0, header.plain);
        Ok(())
    }

    /// Leaves out the page whose header was read last, if possible without reading it.
    pub(crate) fn skip(&mut self, header: &Header) -> Result<(), Trouble> {
        let buffered = self.filled - self.start;
        if header.stored <= buffered {
            self.start += header.stored;
            return Ok(());
        }
        self.at += (header.stored - buffered) as u64;
        (self.start, self.filled) = (0, 0);
        if self.at > self.end { Err(Trouble::Unexpected) } else { Ok(()) }
    }

    /// The page's bytes, and some more that mean nothing.
    pub(crate) fn bytes(&self) -> &[u8] {
        let all = if self.in_plain { &self.plain } else { &self.buffer };
        all.get(self.payload.0..).unwrap_or_default()
    }

    /// How many of `bytes` are the page's.
    pub(crate) const fn length(&self) -> usize {
        self.payload.1 - self.payload.0
    }

    /// Has at least so many of the chunk's bytes in the buffer, or all that are left.
    fn ensure(&mut self, wanted: usize) -> Result<(), Trouble> {
        let have = self.filled - self.start;
        if have >= wanted {
            return Ok(());
        }
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let more = (wanted - have + AHEAD_BYTES).min(left);
        self.buffer.copy_within(self.start..self.filled, 0);
        (self.start, self.filled) = (0, have);
        if self.buffer.len() < have + more + PADDING {
            self.buffer.resize(have + more + PADDING, 0);
        }
        let (file, room) = (self.file.as_ref().ok_or(Trouble::Unexpected)?, self.buffer.get_mut(have..have + more));
        file.read_exact_at(room.unwrap_or_default(), self.at).map_err(|error| self.failed(error))?;
        self.filled = have + more;
        self.at += more as u64;
        Ok(())
    }

    fn failed(&self, source: std::io::Error) -> Trouble {
        Trouble::Failed(StoreError::Io { doing: "reading", path: self.path.to_string(), source })
    }
}

/// Thrift's compact protocol, as far as page headers need it; `None` where the bytes end too early or say something else.
struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        super::bits::varint(self.bytes, &mut self.at)
    }

    fn number(&mut self) -> Option<usize> {
        let value = self.varint()?;
        // Zigzag; sizes and counts are not negative.
        if value & 1 == 0 { usize::try_from(value >> 1).ok() } else { None }
    }

    /// The next field's id and type; `Some(None)` at the end of the struct.
    fn field(&mut self, last: &mut u64) -> Option<Option<(u64, u8)>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Some(None);
        }
        *last = match byte >> 4 {
            0 => self.varint()? >> 1,
            step => *last + u64::from(step),
        };
        Some(Some((*last, byte & 15)))
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Option<()> {
        match kind {
            1 | 2 => {}
            3 => self.at += 1,
            4..=6 => drop(self.varint()?),
            7 => self.at += 8,
            8 => {
                let length = usize::try_from(self.varint()?).ok()?;
                self.at = self.at.checked_add(length)?;
            }
            9 | 10 if depth > 0 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                for _ in 0..count {
                    // In a list, a boolean takes a byte.
                    if head & 15 <= 2 { self.at += 1 } else { self.skip(head & 15, depth - 1)? }
                }
            }
            12 if depth > 0 => {
                let mut last = 0;
                while let Some((_, kind)) = self.field(&mut last)? {
                    self.skip(kind, depth - 1)?;
                }
            }
            _ => return None,
        }
        (self.at <= self.bytes.len()).then_some(())
    }

    /// The header, and how many bytes it takes.
    fn page_header(mut self) -> Option<(Header, usize)> {
        let (mut kind, mut plain, mut stored) = (None, None, None);
        let (mut values, mut encoding) = (None, None);
        let mut last = 0;
        while let Some((id, of)) = self.field(&mut last)? {
            match (id, of) {
                (1, 5) => kind = Some(self.number()?),
                (2, 5) => plain = Some(self.number()?),
                (3, 5) => stored = Some(self.number()?),
                // DataPageHeader and DictionaryPageHeader begin alike.
                (5 | 7, 12) => {
                    let mut last = 0;
                    while let Some((inner, of_inner)) = self.field(&mut last)? {
                        match (id, inner, of_inner) {
                            (_, 1, 5) => values = Some(self.number()?),
                            (_, 2, 5) => encoding = Some(self.number()? as u64),
                            // How levels are encoded: always runs, but for files of long ago.
                            (5, 3 | 4, 5) => drop((self.number()? as u64 == RLE).then_some(())?),
                            _ => self.skip(of_inner, 8)?,
                        }
                    }
                }
                _ => self.skip(of, 8)?,
            }
        }
        let is_dictionary = match kind? {
            0 => false,
            2 => true,
            _ => return None,
        };
        let header = Header { is_dictionary, values: values?, encoding: encoding?, stored: stored?, plain: plain? };
        Some((header, self.at))
    }
}
