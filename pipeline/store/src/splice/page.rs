//! One page as it lies in a file: its header, and its bytes before compression.

use parquet::basic::{Compression, ZstdLevel};
use zstd::bulk::{Compressor, Decompressor};

use super::Stop;
use crate::encode::bits::put_zigzag;

/// No page of ours comes near it; a header that says more is damaged.
const PAGE_BYTES_MAX: usize = 1 << 30;

/// What kind of page it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A data page of version 1.
    Data,
    /// The dictionary, and whether its entries are in ascending order.
    Dictionary { sorted: bool },
}

/// A page's header (`PageHeader` of parquet.thrift).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Bytes of the page before compression.
    pub(crate) plain: usize,
    /// Bytes of the page in the file, without the header.
    pub(crate) stored: usize,
    /// Values, nulls among them.
    pub(crate) values: usize,
    /// The encoding's number.
    pub(crate) encoding: i32,
    /// Bytes of the header.
    pub(crate) length: usize,
}

/// Reads Thrift's compact protocol.
struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Thrift<'_> {
    fn byte(&mut self) -> Result<u8, Stop> {
        let byte = self.bytes.get(self.at).copied().ok_or(Stop::Damaged("a page's header is cut short"))?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64, Stop> {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = self.byte()?;
            if shift > 63 {
                return Err(Stop::Damaged("a number in a page's header is too long"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    fn zigzag(&mut self) -> Result<i64, Stop> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn size(&mut self) -> Result<usize, Stop> {
        usize::try_from(self.zigzag()?).ok().filter(|size| *size <= PAGE_BYTES_MAX).ok_or(Stop::Damaged("a page's size is out of range"))
    }

    /// Calls `each` with number and type of every field of a struct; what it does not read it must skip.
    fn fields(&mut self, mut each: impl FnMut(&mut Self, i64, u8) -> Result<(), Stop>) -> Result<(), Stop> {
        let mut field = 0;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            field = if head >> 4 == 0 { self.zigzag()? } else { field + i64::from(head >> 4) };
            each(self, field, head & 15)?;
        }
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Result<(), Stop> {
        if depth > 8 {
            return Err(Stop::Damaged("a page's header is nested too deeply"));
        }
        match kind {
            1 | 2 => {}
            3 => self.at += 1,
            4..=6 => drop(self.varint()?),
            7 => self.at += 8,
            8 => self.at += self.varint()? as usize & (PAGE_BYTES_MAX - 1),
            12 => self.fields(|thrift, _, kind| thrift.skip(kind, depth + 1))?,
            _ => return Err(Stop::Unsupported("a page's header holds a list")),
        }
        Ok(())
    }
}

/// Reads the header that a page begins with.
pub(crate) fn read_header(bytes: &[u8]) -> Result<Header, Stop> {
    let mut thrift = Thrift { bytes, at: 0 };
    let (mut page_type, mut plain, mut stored) = (None, None, None);
    let (mut values, mut encoding, mut sorted, mut odd_levels) = (None, None, false, false);
    thrift.fields(|thrift, field, kind| {
        match (field, kind) {
            (1, 5) => page_type = Some(thrift.zigzag()?),
            (2, 5) => plain = Some(thrift.size()?),
            (3, 5) => stored = Some(thrift.size()?),
            (5 | 7, 12) => thrift.fields(|thrift, inner, kind| {
                match (inner, kind) {
                    (1, 5) => values = Some(thrift.size()?),
                    (2, 5) => encoding = i32::try_from(thrift.zigzag()?).ok(),
                    // RLE is 3: levels in packed bits alone have not been written for long.
                    (3 | 4, 5) if field == 5 => odd_levels |= thrift.zigzag()? != 3,
                    (3, 1 | 2) => sorted = kind == 1,
                    _ => thrift.skip(kind, 0)?,
                }
                Ok(())
            })?,
            _ => thrift.skip(kind, 0)?,
        }
        Ok(())
    })?;
    let kind = match page_type {
        Some(0) => Kind::Data,
        Some(2) => Kind::Dictionary { sorted },
        _ => return Err(Stop::Unsupported("a page is neither a dictionary nor a data page of version 1")),
    };
    if odd_levels {
        return Err(Stop::Unsupported("levels are not encoded as runs"));
    }
    let (Some(plain), Some(stored), Some(values), Some(encoding)) = (plain, stored, values, encoding) else {
        return Err(Stop::Damaged("a page's header is incomplete"));
    };
    Ok(Header { kind, plain, stored, values, encoding, length: thrift.at })
}

/// Compresses and decompresses pages.
pub(crate) struct Codec {
    /// Made when something is compressed: many files are only read.
    packer: Option<Compressor<'static>>,
    unpacker: Decompressor<'static>,
    /// Buffers of whole files that were done with: fresh memory has to be cleared by the kernel first.
    spare: Vec<Vec<u8>>,
    /// The same of a page before compression.
    spare_page: Vec<u8>,
}

/// The old file's and the new one's.
const SPARE_MAX: usize = 2;

fn zstd(error: std::io::Error) -> Stop {
    Stop::from(parquet::errors::ParquetError::External(error.into()))
}

impl Codec {
    pub(crate) fn new() -> Result<Self, Stop> {
        Ok(Self { packer: None, unpacker: Decompressor::new().map_err(zstd)?, spare: Vec::new(), spare_page: Vec::new() })
    }

    /// An empty buffer, one that was given back if there is any.
    pub(crate) fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes back the buffer of bytes that nobody else has.
    pub(crate) fn give_back(&mut self, bytes: bytes::Bytes) {
        if self.spare.len() < SPARE_MAX && bytes.is_unique() {
            let mut buffer = Vec::from(bytes);
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// An empty buffer for a page, the one that was given back if there is one.
    pub(crate) fn page_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.spare_page)
    }

    /// Takes back a page's buffer.
    pub(crate) fn give_back_page(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.spare_page = buffer;
    }

    /// A page's header and its bytes before compression; `page` is header and stored bytes.
    pub(crate) fn read(&mut self, page: &[u8], compression: Compression) -> Result<(Header, Vec<u8>), Stop> {
        let mut payload = Vec::new();
        let header = self.read_into(page, compression, 0, &mut payload)?;
        Ok((header, payload))
    }

    /// The same into a buffer, with some bytes behind them that mean nothing.
    pub(crate) fn read_into(
        &mut self,
        page: &[u8],
        compression: Compression,
        padding: usize,
        payload: &mut Vec<u8>,
    ) -> Result<Header, Stop> {
        let header = read_header(page)?;
        let stored = page.get(header.length..header.length + header.stored).ok_or(Stop::Damaged("a page is cut short"))?;
        payload.clear();
        match compression {
            Compression::UNCOMPRESSED => payload.extend_from_slice(stored),
            Compression::ZSTD(_) => {
                payload.reserve(header.plain + padding);
                self.unpacker.decompress_to_buffer(stored, payload).map_err(zstd)?;
            }
            _ => return Err(Stop::Unsupported("a column is compressed by another method than zstd")),
        }
        if payload.len() != header.plain {
            return Err(Stop::Damaged("a page has another size than its header says"));
        }
        payload.resize(header.plain + padding, 0);
        Ok(header)
    }

    /// Appends a page to `out`; returns the length of its header. `like` gives kind and encoding.
    pub(crate) fn write(
        &mut self,
        out: &mut Vec<u8>,
        payload: &[u8],
        values: usize,
        like: &Header,
        compression: Compression,
    ) -> Result<usize, Stop> {
        let packed;
        let stored = match compression {
            Compression::UNCOMPRESSED => payload,
            Compression::ZSTD(_) => {
                let packer = match &mut self.packer {
                    Some(packer) => packer,
                    none => none.insert(Compressor::new(ZstdLevel::default().compression_level()).map_err(zstd)?),
                };
                packed = packer.compress(payload).map_err(zstd)?;
                packed.as_slice()
            }
            _ => return Err(Stop::Unsupported("a column is compressed by another method than zstd")),
        };
        let start = out.len();
        let page_type = match like.kind {
            Kind::Data => 0,
            Kind::Dictionary { .. } => 2,
        };
        for number in [page_type, payload.len(), stored.len()] {
            put_i32(out, number as i64);
        }
        match like.kind {
            // DataPageHeader, field 5: values, encoding, encoding of definition and of repetition levels (RLE).
            Kind::Data => {
                out.push(0x2c);
                for number in [values as i64, i64::from(like.encoding), 3, 3] {
                    put_i32(out, number);
                }
            }
            // DictionaryPageHeader, field 7: values, encoding, whether they are sorted.
            Kind::Dictionary { sorted } => {
                out.push(0x4c);
                put_i32(out, values as i64);
                put_i32(out, i64::from(like.encoding));
                out.push(if sorted { 0x11 } else { 0x12 });
            }
        }
        out.extend([0, 0]);
        let length = out.len() - start;
        out.extend_from_slice(stored);
        Ok(length)
    }
}

/// The next field of a Thrift struct, an i32.
fn put_i32(out: &mut Vec<u8>, value: i64) {
    out.push(0x15);
    put_zigzag(out, value);
}
