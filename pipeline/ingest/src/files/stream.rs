//! A file's decompressed bytes, told apart by its first bytes and not its name.

use std::fs::File;
use std::io::{self, BufReader, Chain, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::discover::Input;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Zstandard's skippable frames: 0x184D2A50 to 0x184D2A5F, little-endian.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
const BUFFER_BYTES: usize = 256 << 10;
/// Bytes read at once, which a core's cache holds.
const STEP_BYTES: usize = 512 << 10;

/// Decompressed bytes. An error comes after all bytes that could be read before it.
pub(super) struct Stream {
    inner: Box<dyn Read + Send>,
    pushed: Cursor<Vec<u8>>,
    failed: Option<io::Error>,
}

/// Counts the stored bytes taken, for progress.
struct Counting<R> {
    inner: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.taken.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl Stream {
    pub(super) fn open(input: &Input, taken: &Arc<AtomicU64>) -> io::Result<Self> {
        if input.is_stdin() { Self::of(io::stdin(), taken) } else { Self::of(File::open(&input.path)?, taken) }
    }

    fn of(reader: impl Read + Send + 'static, taken: &Arc<AtomicU64>) -> io::Result<Self> {
        let mut reader = Counting { inner: reader, taken: Arc::clone(taken) };
        let mut magic = [0; 4];
        let len = read_full(&mut reader, &mut magic)?;
        let magic = &magic[..len];
        let whole: Chain<Cursor<Vec<u8>>, _> = Cursor::new(magic.to_vec()).chain(reader);
        let buffered = BufReader::with_capacity(BUFFER_BYTES, whole);
        let inner: Box<dyn Read + Send> = if magic.starts_with(&GZIP) {
            Box::new(MultiGzDecoder::new(buffered))
        } else if magic == ZSTD || (magic.len() == 4 && magic[0] & 0xf0 == 0x50 && magic[1..] == ZSTD_SKIPPABLE) {
            Box::new(zstd::stream::read::Decoder::with_buffer(buffered)?)
        } else {
            Box::new(buffered)
        };
        Ok(Self { inner, pushed: Cursor::default(), failed: None })
    }

    /// Fills the buffer as far as there are bytes; short only at the end or before an error,
    /// which the next call returns.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill_by_steps(buffer, &mut |_| {})
    }

    /// The same; `seen` is shown what is filled whenever a piece has come, while a core's cache holds that.
    pub(super) fn fill_by_steps(&mut self, buffer: &mut [u8], seen: &mut dyn FnMut(&[u8])) -> io::Result<usize> {
        let mut filled = read_full(&mut self.pushed, buffer)?;
        seen(&buffer[..filled]);
        if filled < buffer.len()
            && let Some(error) = self.failed.take()
        {
            if filled == 0 && !buffer.is_empty() {
                return Err(error);
            }
            self.failed = Some(error);
            return Ok(filled);
        }
        while filled < buffer.len() {
            let end = buffer.len().min(filled + STEP_BYTES);
            match self.inner.read(&mut buffer[filled..end]) {
                Ok(0) => break,
                Ok(read) => {
                    filled += read;
                    seen(&buffer[..filled]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if filled == 0 => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        Ok(filled)
    }

    /// What broke the stream, if its last bytes have been read and it did not end.
    pub(super) fn failure(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    /// The first bytes, which stay to be read.
    pub(super) fn peek(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        let mut head = vec![0; bytes];
        let len = match self.fill(&mut head) {
            Ok(len) => len,
            Err(error) => {
                self.failed = Some(error);
                0
            }
        };
        head.truncate(len);
        self.pushed = Cursor::new(head.clone());
        Ok(head)
    }
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::io::Write;

    fn gz(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: Vec<u8>) -> (Vec<u8>, bool) {
        let mut stream = Stream::of(Cursor::new(bytes), &Arc::default()).unwrap();
        assert!(stream.peek(10).unwrap().len() <= 10);
        let (mut all, mut buffer) = (Vec::new(), [0; 1000]);
        loop {
            match stream.fill(&mut buffer) {
                Ok(0) => return (all, true),
                Ok(len) => all.extend_from_slice(&buffer[..len]),
                Err(_) => return (all, false),
            }
        }
    }

    #[test]
    fn members_and_frames_follow_each_other() {
        let text: Vec<u8> = (0..100_000_u32).flat_map(|number| format!("{number}\n").into_bytes()).collect();
        let (left, right) = text.split_at(50_000);
        let zst = |bytes| zstd::encode_all(bytes, 1).unwrap();
        assert_eq!(read(text.clone()), (text.clone(), true));
        assert_eq!(read([gz(left), gz(right)].concat()), (text.clone(), true));
        assert_eq!(read([zst(left), zst(right)].concat()), (text.clone(), true));
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9].to_vec();
        assert_eq!(read([skippable, zst(left), zst(right)].concat()), (text.clone(), true));
        for empty in [Vec::new(), gz(b""), zst(b"")] {
            assert_eq!(read(empty), (Vec::new(), true));
        }
        for cut in [gz(&text), zst(&text)] {
            let (bytes, whole) = read(cut[..cut.len() / 2].to_vec());
            assert!(!whole);
            assert!(!bytes.is_empty() && text.starts_with(&bytes), "{}", bytes.len());
        }
        assert!(!read(ZSTD.to_vec()).1);
    }
}
