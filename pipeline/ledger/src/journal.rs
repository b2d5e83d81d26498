//! The journal outside the home: an append-only file from which a restored ledger gets back what it forgot.
//!
//! One JSON line an entry: number, instant, kind, the acts sealed with
//! AES-256-GCM, and an HMAC over all of it and over the line before. A write of
//! many acts takes several lines; all but the last say `more`, and a group
//! without its end counts as never written, like a last line without its end:
//! nothing can have relied on it, since the ledger commits only after fsync.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ameles_core::{Random, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::act::Act;
use crate::audit::Head;
use crate::keys::{Keys, open, seal};
use crate::{JournalError, LedgerError};

/// The longest line that is read; what is written stays far below.
const LINE_BYTES_MAX: u64 = 256 << 20;
/// How many acts one line holds at most.
const ACTS_PER_LINE_MAX: usize = 500;

/// A place in the file: the line that begins at `line` and ends before `end`. All zero before the first line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub line: u64,
    pub end: u64,
    pub seq: u64,
    pub mac: [u8; 32],
}

/// A line as read, its seal opened.
#[derive(Debug)]
pub(crate) struct Line {
    pub at: Timestamp,
    pub acts: Vec<Act>,
    /// The audit chain's head before these acts.
    pub from: Head,
    /// The audit chain's head after these acts.
    pub head: Head,
    pub position: Position,
}

#[derive(Serialize, Deserialize)]
struct RawLine {
    seq: u64,
    at: Timestamp,
    kind: String,
    more: bool,
    prev: String,
    sealed: String,
    mac: String,
}

#[derive(Serialize, Deserialize)]
struct Body {
    from: Head,
    acts: Vec<Act>,
    head: Head,
}

/// Where the journal lies and with what it is read.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    keys: Arc<Keys>,
}

/// What the file holds after an anchor.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The last whole group's last line.
    pub end: Position,
    /// The audit chain's head there.
    pub head: Head,
}

/// The journal, locked against other writers until dropped.
#[derive(Debug)]
pub(crate) struct Locked {
    journal: Journal,
    file: File,
    pub end: Position,
    pub head: Head,
}

impl Journal {
    pub fn new(path: PathBuf, keys: Arc<Keys>) -> Self {
        Self { path, keys }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's length; none where there is no file.
    pub fn length(&self) -> Result<Option<u64>, JournalError> {
        match std::fs::metadata(&self.path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.io("look at", source)),
        }
    }

    /// Locks the file, made where the ledger has never written one, and reads what follows the anchor.
    pub fn lock(&self, anchor: Position) -> Result<(Locked, Vec<Line>), JournalError> {
        let file = OpenOptions::new().read(true).write(true).create(anchor.seq == 0).truncate(false).mode(0o600).open(&self.path).map_err(
            |source| match source.kind() {
                ErrorKind::NotFound if anchor.seq > 0 => JournalError::Missing(self.path.clone()),
                _ => self.io("open", source),
            },
        )?;
        file.lock().map_err(|source| self.io("lock", source))?;
        let mut lines = Vec::new();
        let tail = self.walk(&file, anchor, &mut |line| lines.push(line))?;
        Ok((Locked { journal: self.clone(), file, end: tail.end, head: tail.head }, lines))
    }

    /// Reads what follows the anchor without holding writers up.
    pub fn read(&self, anchor: Position, visit: &mut dyn FnMut(Line)) -> Result<Tail, JournalError> {
        let file = File::open(&self.path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => JournalError::Missing(self.path.clone()),
            _ => self.io("open", source),
        })?;
        self.walk(&file, anchor, visit)
    }

    fn walk(&self, file: &File, anchor: Position, visit: &mut dyn FnMut(Line)) -> Result<Tail, JournalError> {
        let length = file.metadata().map_err(|source| self.io("look at", source))?.len();
        if length < anchor.end {
            return Err(JournalError::Behind(self.path.clone()));
        }
        let mut reader = BufReader::with_capacity(1 << 16, file);
        reader.seek(SeekFrom::Start(anchor.line)).map_err(|source| self.io("read", source))?;
        let mut tail = Tail { end: anchor, head: Head::default() };
        let mut before = Position { end: anchor.line, ..anchor };
        if anchor.seq > 0 {
            let known = self.read_line(&mut reader)?;
            let line = known
                .as_deref()
                .and_then(|bytes| self.decode(bytes, anchor.line, None).ok())
                .filter(|(line, _)| line.position == anchor)
                .ok_or_else(|| self.damaged(anchor.line, "this is not the line that the ledger knows"))?;
            tail.head = line.0.head;
            before = anchor;
        }
        let mut group = Vec::new();
        while let Some(bytes) = self.read_line(&mut reader)? {
            let (line, more) = self.decode(&bytes, before.end, Some(before))?;
            before = line.position;
            group.push(line);
            if !more {
                for line in group.drain(..) {
                    tail = Tail { end: line.position, head: line.head };
                    visit(line);
                }
            }
        }
        Ok(tail)
    }

    /// The next line with its end; none where there is none, or only a torn one.
    fn read_line(&self, reader: &mut BufReader<&File>) -> Result<Option<Vec<u8>>, JournalError> {
        let mut bytes = Vec::new();
        reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).map_err(|source| self.io("read", source))?;
        if bytes.len() as u64 == LINE_BYTES_MAX {
            return Err(self.io("read", std::io::Error::other("a line is longer than any that was ever written")));
        }
        Ok((bytes.last() == Some(&b'\n')).then_some(bytes))
    }

    /// Opens a line that begins at `offset` and follows `before`, which is not looked at where the anchor itself is read.
    fn decode(&self, bytes: &[u8], offset: u64, before: Option<Position>) -> Result<(Line, bool), JournalError> {
        let damaged = |what| self.damaged(offset, what);
        let raw: RawLine = serde_json::from_slice(bytes).map_err(|_| damaged("the line is no journal entry"))?;
        let mut prev = [0; 32];
        let mut mac = [0; 32];
        hex::decode_to_slice(&raw.prev, &mut prev).map_err(|_| damaged("the chain's hash is no hash"))?;
        hex::decode_to_slice(&raw.mac, &mut mac).map_err(|_| damaged("the signature is no signature"))?;
        let sealed = STANDARD.decode(&raw.sealed).map_err(|_| damaged("the sealed part is not base64"))?;
        let signed = signed_bytes(raw.seq, raw.at, &raw.kind, raw.more, &prev, &sealed);
        if hmac::verify(&self.keys.journal_sign, &signed, &mac).is_err() {
            return Err(match before {
                Some(Position { seq: 0, .. }) => JournalError::Foreign(self.path.clone()),
                _ => damaged("the signature is wrong"),
            });
        }
        if before.is_some_and(|before| raw.seq != before.seq + 1 || prev != before.mac) {
            return Err(damaged("the line does not follow from the one before"));
        }
        let plain = open(&self.keys.journal_seal, &sealed, &raw.seq.to_be_bytes()).ok_or_else(|| damaged("the seal is broken"))?;
        let body: Body = serde_json::from_slice(&plain).map_err(|_| damaged("the sealed part is of a later version"))?;
        let position = Position { line: offset, end: offset + bytes.len() as u64, seq: raw.seq, mac };
        Ok((Line { at: raw.at, acts: body.acts, from: body.from, head: body.head, position }, raw.more))
    }

    fn damaged(&self, offset: u64, what: &'static str) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), offset, what }
    }

    fn io(&self, doing: &'static str, source: std::io::Error) -> JournalError {
        JournalError::Io { doing, path: self.path.clone(), source }
    }
}

impl Locked {
    /// Appends the acts as one group and returns where it ends, once it is on disk.
    /// `heads` gives the audit chain's head after each act.
    pub fn append(&mut self, at: Timestamp, acts: Vec<Act>, heads: &[Head], random: &dyn Random) -> Result<Position, LedgerError> {
        let (bytes, end) = self.encode(at, acts, heads, random)?;
        let start = self.end.end;
        let wrote = self.write(start, &bytes);
        if let Err(error) = wrote {
            // What the caller is told has failed must not come back by a replay.
            if self.file.set_len(start).and_then(|()| self.file.sync_all()).is_err() {
                tracing::warn!("a failed entry could not be taken back from the journal; it will be replayed");
            }
            return Err(error.into());
        }
        self.end = end;
        if let Some(head) = heads.last() {
            self.head = *head;
        }
        Ok(end)
    }

    fn encode(&self, at: Timestamp, acts: Vec<Act>, heads: &[Head], random: &dyn Random) -> Result<(Vec<u8>, Position), LedgerError> {
        let keys = &self.journal.keys;
        let mut bytes = Vec::new();
        let mut end = self.end;
        let mut left = acts;
        let mut from = self.head;
        let mut done = 0;
        while !left.is_empty() {
            let rest = left.split_off(left.len().min(ACTS_PER_LINE_MAX));
            let kind = left.first().map_or("audit", |act| act.op.kind()).to_owned();
            done += left.len();
            let head = heads.get(done - 1).copied().unwrap_or(from);
            let body = serde_json::to_vec(&Body { from, acts: left, head })
                .map_err(|_| LedgerError::Damaged("an act cannot be written as JSON"))?;
            from = head;
            left = rest;
            let (seq, more) = (end.seq + 1, !left.is_empty());
            let sealed = seal(&keys.journal_seal, &body, &seq.to_be_bytes(), random)?;
            let signed = signed_bytes(seq, at, &kind, more, &end.mac, &sealed);
            let mut mac = [0; 32];
            mac.copy_from_slice(hmac::sign(&keys.journal_sign, &signed).as_ref());
            let raw = RawLine { seq, at, kind, more, prev: hex::encode(end.mac), sealed: STANDARD.encode(&sealed), mac: hex::encode(mac) };
            let begin = self.end.end + bytes.len() as u64;
            serde_json::to_writer(&mut bytes, &raw).map_err(|_| LedgerError::Damaged("a line cannot be written as JSON"))?;
            bytes.push(b'\n');
            end = Position { line: begin, end: self.end.end + bytes.len() as u64, seq, mac };
        }
        Ok((bytes, end))
    }

    fn write(&mut self, start: u64, bytes: &[u8]) -> Result<(), JournalError> {
        let io = |source| self.journal.io("write", source);
        // A torn tail of a crash is cut off.
        self.file.set_len(start).map_err(io)?;
        self.file.seek(SeekFrom::Start(start)).map_err(io)?;
        self.file.write_all(bytes).map_err(io)?;
        self.file.sync_all().map_err(io)?;
        if start == 0 {
            sync_folder(&self.journal.path).map_err(io)?;
        }
        Ok(())
    }
}

/// Makes a new file's name durable.
pub(crate) fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()
}

fn signed_bytes(seq: u64, at: Timestamp, kind: &str, more: bool, prev: &[u8; 32], sealed: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 + kind.len() + sealed.len());
    bytes.extend_from_slice(b"ameles journal 1\0");
    bytes.extend_from_slice(&seq.to_be_bytes());
    bytes.extend_from_slice(&at.micros().to_be_bytes());
    bytes.extend_from_slice(&(kind.len() as u64).to_be_bytes());
    bytes.extend_from_slice(kind.as_bytes());
    bytes.push(u8::from(more));
    bytes.extend_from_slice(prev);
    bytes.extend_from_slice(sealed);
    bytes
}
