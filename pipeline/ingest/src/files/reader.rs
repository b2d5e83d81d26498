//! The reading thread: files one after the other, cut into chunks of whole lines.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use ameles_pseudonym::DomainHasher;
use ameles_schemas::Table;
use ameles_store::{Snapshot, Txn};
use zeroize::Zeroize;

use super::discover::Input;
use super::identity::{Content, Found, Identity, Lookup, Resolved, resolve, skip};
use super::stream::Stream;
use crate::decode::{is_json, without_mark};

/// Decompressed bytes handed to a worker at once.
const CHUNK_BYTES: usize = 4 << 20;

/// Whole lines of one file.
pub(super) struct Chunk {
    pub(super) file: usize,
    pub(super) source: Arc<str>,
    pub(super) buffer: Buffer,
    /// It is the beginning of the content.
    pub(super) begins: bool,
    /// Instead of lines: one line that is longer than a chunk.
    pub(super) oversized: bool,
    /// Quarantine holds its rejected lines already: an earlier run ended between the two commits.
    pub(super) explained: bool,
    pub(super) txns: Vec<Txn>,
}

/// Bytes of a chunk; goes back to the pool when dropped.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    pool: Pool,
}

#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Free>>);

/// Buffers that wait to be used again. They hold identifiers: wiped at the end.
#[derive(Default)]
struct Free(Vec<Vec<u8>>);

impl Drop for Free {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Zeroize::zeroize);
    }
}

impl Pool {
    fn take(&self, bytes: usize) -> Buffer {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = free.0.pop();
        drop(free);
        let taken = match taken {
            Some(mut taken) => {
                taken.resize(bytes, 0);
                taken
            }
            // Not written before it is read into: a short file takes no more memory than it fills.
            None => vec![0; bytes],
        };
        Buffer { bytes: taken, len: 0, pool: self.clone() }
    }
}

impl Buffer {
    pub(super) fn lines(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).0.push(bytes);
    }
}

/// What the reader tells, in order.
pub(super) enum Read {
    /// A file begins; so many bytes and lines of it were ingested before.
    Opened { file: usize, source: Arc<str>, skipped: u64, lines: u64 },
    /// Lines.
    Chunk(Chunk),
    /// A file ends.
    Closed { file: usize, bytes: u64 },
    /// A file breaks off.
    Broken { file: usize, message: String, offset: u64 },
}

/// Nobody listens any more.
pub(super) struct Stopped;

pub(super) struct Reader<'a> {
    pub(super) hasher: &'a DomainHasher,
    pub(super) snapshot: &'a Snapshot,
    pub(super) alias: Option<Arc<str>>,
    pub(super) line_bytes_max: usize,
    /// Stored bytes taken so far.
    pub(super) taken: Arc<AtomicU64>,
    pub(super) pool: Pool,
    /// Transactions of this run, not yet in the snapshot.
    pub(super) moved: HashMap<String, i64>,
}

/// Where one file stands while it is read.
struct Position {
    identity: Identity,
    content: Content,
    before: Option<(i64, i64)>,
    /// How far quarantine has come: at least as far as the events.
    explained: u64,
}

impl Position {
    /// Whether quarantine holds everything up to here.
    const fn is_explained(&self) -> bool {
        self.content.bytes <= self.explained
    }
}

impl Reader<'_> {
    /// Reads all inputs; `send` hands on what was read, in order.
    pub(super) fn run(&mut self, inputs: &[Input], send: &mut dyn FnMut(Read) -> Result<(), Stopped>) -> Result<(), Stopped> {
        for (file, input) in inputs.iter().enumerate() {
            self.file(file, input, send)?;
        }
        Ok(())
    }

    fn file(&mut self, file: usize, input: &Input, send: &mut dyn FnMut(Read) -> Result<(), Stopped>) -> Result<(), Stopped> {
        let broken = |message: String| Read::Broken { file, message, offset: 0 };
        let (mut stream, resolved) = match self.open(input) {
            Ok(Opening::At(stream, resolved)) => (stream, *resolved),
            Ok(Opening::Known(identity, bytes)) => {
                let source = self.source(&identity);
                send(Read::Opened { file, source, skipped: bytes, lines: 0 })?;
                return send(Read::Closed { file, bytes: 0 });
            }
            Err(error) => return send(broken(explain(&error))),
        };
        let source = self.source(&resolved.identity);
        let explained = self.snapshot.txn(Table::Quarantine, &resolved.identity.app()).and_then(|bytes| u64::try_from(bytes).ok());
        let Resolved { identity, content, lines, before } = resolved;
        let mut position = Position { identity, content, before, explained: explained.unwrap_or(0) };
        let skipped = position.content.bytes;
        send(Read::Opened { file, source: Arc::clone(&source), skipped, lines })?;
        match self.lines(file, &source, &mut stream, &mut position, send)? {
            Ok(()) => send(Read::Closed { file, bytes: position.content.bytes - skipped }),
            Err(error) => send(Read::Broken { file, message: explain(&error), offset: position.content.bytes }),
        }
    }

    fn source(&self, identity: &Identity) -> Arc<str> {
        self.alias.clone().unwrap_or_else(|| identity.source().into())
    }

    fn open(&self, input: &Input) -> io::Result<Opening> {
        let lookup = |app: &str| self.stands(app);
        let lookup: Lookup<'_> = &lookup;
        let mut stream = Stream::open(input, &self.taken)?;
        match resolve(&mut stream, self.hasher, lookup)? {
            Found::Here(resolved) => Ok(Opening::At(stream, Box::new(resolved))),
            Found::Known(identity, bytes) => Ok(Opening::Known(identity, bytes)),
            Found::Again(resolved) if input.regular => {
                let mut stream = Stream::open(input, &Arc::default())?;
                skip(&mut stream, resolved.content.bytes)?;
                Ok(Opening::At(stream, Box::new(resolved)))
            }
            Found::Again(_) => Err(io::Error::other(
                "this stream begins like a file that was ingested before and then differs from it; \
                 save it as a file and ingest that",
            )),
        }
    }

    fn stands(&self, app: &str) -> Option<i64> {
        self.moved.get(app).copied().or_else(|| self.snapshot.txn(Table::Events, app))
    }

    /// Reads to the end, in chunks of whole lines. The inner result is the file's.
    fn lines(
        &mut self,
        file: usize,
        source: &Arc<str>,
        stream: &mut Stream,
        position: &mut Position,
        send: &mut dyn FnMut(Read) -> Result<(), Stopped>,
    ) -> Result<io::Result<()>, Stopped> {
        let chunk_bytes = CHUNK_BYTES.max(self.line_bytes_max + 2);
        let mut buffer = self.pool.take(chunk_bytes);
        let mut ended = false;
        loop {
            let begins = position.content.bytes == 0;
            // How much of the buffer's lines was taken into the content while they were read.
            let mut taken = 0;
            if !ended {
                let wanted = buffer.bytes.len() - buffer.len;
                let read = match self.fill(stream, position, &mut buffer, &mut taken) {
                    Ok(read) => read,
                    Err(error) => return Ok(Err(error)),
                };
                ended = read < wanted;
            }
            let line_end = if taken > 0 { Some(taken - 1) } else { last_line_end(&buffer, position) };
            if line_end.is_none() && !ended {
                let txns = match self.long_line(stream, position, &mut buffer) {
                    Ok(txns) => txns,
                    Err(error) => return Ok(Err(error)),
                };
                let (buffer, explained) = (self.pool.take(0), position.is_explained());
                send(Read::Chunk(Chunk { file, source: Arc::clone(source), buffer, begins, oversized: true, explained, txns }))?;
                continue;
            }
            if let Some(last) = line_end {
                let mut next = self.pool.take(chunk_bytes);
                let rest = buffer.len - (last + 1);
                next.bytes[..rest].copy_from_slice(&buffer.bytes[last + 1..buffer.len]);
                next.len = rest;
                buffer.len = last + 1;
                position.content.update(&buffer.lines()[taken..]);
                let (txns, explained) = (self.advance(position), position.is_explained());
                let source = Arc::clone(source);
                send(Read::Chunk(Chunk { file, source, buffer, begins, oversized: false, explained, txns }))?;
                buffer = next;
            }
            if ended && last_line_end(&buffer, position).is_none() {
                match stream.failure() {
                    None => break,
                    // What stands in the buffer is the part of a line that was cut: not consumed.
                    Some(error) => return Ok(Err(error)),
                }
            }
        }
        self.last_line(file, source, position, buffer, send).map(Ok)
    }

    /// Fills the buffer and takes the whole lines into the content as they come; `taken` says how many bytes of the buffer
    /// these are. Nothing is taken where quarantine is ahead, since the chunk may have to end before.
    fn fill(&mut self, stream: &mut Stream, position: &mut Position, buffer: &mut Buffer, taken: &mut usize) -> io::Result<usize> {
        let (begun, free) = buffer.bytes.split_at_mut(buffer.len);
        let ahead = position.explained > position.content.bytes;
        let (mut searched, mut ended) = (0, 0);
        let read = stream.fill_by_steps(free, &mut |filled| {
            let piece = std::mem::replace(&mut searched, filled.len());
            let Some(end) = memchr::memrchr(b'\n', &filled[piece..]).filter(|_| !ahead) else { return };
            if ended == 0 {
                position.content.update(begun);
            }
            let before = std::mem::replace(&mut ended, piece + end + 1);
            position.content.update(&filled[before..ended]);
        })?;
        if ended > 0 {
            *taken = begun.len() + ended;
        }
        buffer.len += read;
        Ok(read)
    }

    /// A line that fills a whole chunk: reads on to its end without keeping it.
    /// What follows it in the last piece read is kept in `buffer`.
    fn long_line(&mut self, stream: &mut Stream, position: &mut Position, buffer: &mut Buffer) -> io::Result<Vec<Txn>> {
        loop {
            if let Some(end) = buffer.lines().iter().position(|byte| *byte == b'\n') {
                position.content.update(&buffer.lines()[..=end]);
                let rest = end + 1..buffer.len;
                buffer.len = rest.len();
                buffer.bytes.copy_within(rest, 0);
                return Ok(self.advance(position));
            }
            position.content.update(buffer.lines());
            buffer.len = 0;
            match stream.fill(&mut buffer.bytes) {
                Ok(0) => return Ok(self.advance(position)),
                Ok(read) => buffer.len = read,
                Err(error) => return Err(error),
            }
        }
    }

    /// What is left at the end of a file: a line without an end, or nothing.
    ///
    /// If it is whole JSON it is taken. Otherwise it counts as malformed, but the position stays before it, so
    /// that it is read again once the file has grown. That the file was read to its end is noted all the same.
    fn last_line(
        &mut self,
        file: usize,
        source: &Arc<str>,
        position: &mut Position,
        buffer: Buffer,
        send: &mut dyn FnMut(Read) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        let begins = position.content.bytes == 0;
        let mut whole = position.content.clone();
        whole.update(buffer.lines());
        let app = whole.whole_app();
        if whole.bytes == 0 || self.stands(&app).is_some() {
            return Ok(());
        }
        let after = i64::try_from(whole.bytes).unwrap_or(i64::MAX);
        let mut txns = Vec::new();
        if !buffer.lines().is_empty() && (is_json(without_mark(buffer.lines())) || buffer.lines().iter().all(u8::is_ascii_whitespace)) {
            position.content = whole;
            txns = self.advance(position);
        }
        let explained = self.snapshot.txn(Table::Quarantine, &app).is_some();
        self.moved.insert(app.clone(), after);
        txns.push(Txn { app, before: None, after });
        send(Read::Chunk(Chunk { file, source: Arc::clone(source), buffer, begins, oversized: false, explained, txns }))
    }

    /// The transactions that say that all content up to here is ingested.
    fn advance(&mut self, position: &mut Position) -> Vec<Txn> {
        let after = (i64::try_from(position.content.bytes).unwrap_or(i64::MAX), position.content.chain());
        let before = position.before.replace(after);
        let txns = vec![
            Txn { app: position.identity.app(), before: before.map(|before| before.0), after: after.0 },
            Txn { app: position.identity.chain_app(), before: before.map(|before| before.1), after: after.1 },
        ];
        self.moved.extend(txns.iter().map(|txn| (txn.app.clone(), txn.after)));
        txns
    }
}

/// Where a chunk ends: behind the last line end, but not across the place up to which quarantine has come.
fn last_line_end(buffer: &Buffer, position: &Position) -> Option<usize> {
    let lines = buffer.lines();
    let explained = position.explained.checked_sub(position.content.bytes).and_then(|ahead| usize::try_from(ahead).ok());
    explained
        .filter(|ahead| *ahead > 0)
        .and_then(|ahead| lines.get(..ahead))
        .filter(|explained| explained.ends_with(b"\n"))
        .map(|explained| explained.len() - 1)
        .or_else(|| memchr::memrchr(b'\n', lines))
}

enum Opening {
    At(Stream, Box<Resolved>),
    Known(Identity, u64),
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the compressed data breaks off; get the file whole and ingest it again".to_owned(),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            format!("the compressed data is damaged ({error}); get the file whole and ingest it again")
        }
        _ => error.to_string(),
    }
}
