//! Which file this is, told by its content, and how far it was ingested.
//!
//! A file is known by a keyed hash of its beginning, decompressed: its first
//! 64 KiB, or the longest power of two that it had when it was first seen, so
//! that a small file that has grown is still found. With it stand, as Delta
//! transactions of `events`:
//! - `file:{head}`: bytes ingested, always at the end of a line;
//! - `file-chain:{head}`: 63 bits of the keyed hash of all content up to there.
//!   A file that begins alike and then differs does not have it, and gets
//!   another number in its head's hash;
//! - `file-whole:{hash}`: this very content was once read to its end.

use std::io;

use ameles_pseudonym::DomainHasher;
use sha2::{Digest, Sha256};

use twox_hash::xxhash3_128;

use super::stream::Stream;

/// The beginning that is hashed, in bytes.
const HEAD_BYTES: usize = 64 << 10;
/// Hashes of 32 bytes that make up the digest's secret.
const SECRET_PARTS: u8 = 6;
const _: () = assert!(SECRET_PARTS as usize * 32 >= xxhash3_128::SECRET_MINIMUM_LENGTH);
/// Files that begin alike and are told apart.
const ALIKE_MAX: u32 = 256;
/// How much is read at once on the way to where a file goes on.
const STEP_BYTES: usize = 1 << 20;

/// Where transactions stand: committed, or read earlier in this run.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<i64>;

/// A running keyed hash of content, and how much there was.
///
/// XXH3 under a secret of our own is as fast as memory, but no pseudorandom function: what leaves this type is the keyed
/// hash of its 128 bits, so that nobody without the key learns anything of the content.
#[derive(Clone)]
pub(super) struct Content {
    digest: xxhash3_128::Hasher,
    key: DomainHasher,
    pub(super) bytes: u64,
}

impl Content {
    /// Nothing yet.
    pub(super) fn new(hasher: &DomainHasher) -> Self {
        let mut secret = Vec::with_capacity(SECRET_PARTS as usize * 32);
        for part in 0..SECRET_PARTS {
            secret.extend_from_slice(&hasher.bytes32(&[&b"ameles file content 3"[..], &[part]].concat()));
        }
        // A secret that is long enough is never refused.
        let digest = xxhash3_128::Hasher::with_seed_and_secret(0, secret).unwrap_or_default();
        Self { digest, key: hasher.clone(), bytes: 0 }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.digest.write(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// The chained hash up to here, as a transaction's value.
    pub(super) fn chain(&self) -> i64 {
        let [a, b, c, d, e, f, g, h, ..] = self.hash();
        i64::from_be_bytes([a, b, c, d, e, f, g, h]) & i64::MAX
    }

    /// The transaction that says that exactly this was read to its end.
    pub(super) fn whole_app(&self) -> String {
        // Other bytes of the hash than the chain's.
        format!("file-whole:{}", hex::encode(&self.hash()[16..]))
    }

    fn hash(&self) -> [u8; 32] {
        let (length, digest) = (self.bytes.to_be_bytes(), self.digest.finish_128().to_be_bytes());
        self.key.bytes32(&[b"ameles file content hash 3\0", &length[..], &digest].concat())
    }
}

/// Content that was ingested before, and its lines.
struct Before {
    content: Content,
    lines: u64,
}

impl Before {
    fn update(&mut self, bytes: &[u8]) {
        self.content.update(bytes);
        self.lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
    }
}

/// A file's name in transactions and quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    head: String,
}

impl Identity {
    fn new(hasher: &DomainHasher, head: &[u8], number: u32) -> Self {
        let mut message = b"ameles file head 1\0".to_vec();
        message.extend_from_slice(&(head.len() as u64).to_be_bytes());
        message.extend_from_slice(&number.to_be_bytes());
        message.extend_from_slice(&Sha256::digest(head));
        Self { head: hex::encode(hasher.bytes16(&message)) }
    }
    /// The transaction of the bytes ingested.
    pub(super) fn app(&self) -> String {
        format!("file:{}", self.head)
    }
    /// The transaction of the chained hash.
    pub(super) fn chain_app(&self) -> String {
        format!("file-chain:{}", self.head)
    }
    /// What quarantine calls the file: 8 hex digits of its keyed hash.
    pub(super) fn source(&self) -> String {
        format!("file:{}", &self.head[..8])
    }
}

/// Where a file goes on.
pub(super) struct Resolved {
    pub(super) identity: Identity,
    /// What was ingested before: all of it stands in front of the stream's next byte.
    pub(super) content: Content,
    /// Line ends in it.
    pub(super) lines: u64,
    /// The transactions' present values: bytes, chain.
    pub(super) before: Option<(i64, i64)>,
}

/// What a look at a file's beginning says.
pub(super) enum Found {
    /// Go on reading the stream.
    Here(Resolved),
    /// Open the file again and skip to `content.bytes`.
    Again(Resolved),
    /// All of this content was ingested before.
    Known(Identity, u64),
}

struct Candidate {
    identity: Identity,
    bytes: u64,
    chain: i64,
}

/// Finds out which file a fresh stream is.
///
/// # Errors
/// When the stream fails before its first byte.
pub(super) fn resolve(stream: &mut Stream, hasher: &DomainHasher, lookup: Lookup<'_>) -> io::Result<Found> {
    let head = stream.peek(HEAD_BYTES)?;
    let (fresh, mut candidates) = candidates(&head, hasher, lookup);
    let unread = |identity| Resolved { identity, content: Content::new(hasher), lines: 0, before: None };
    if candidates.is_empty() {
        return Ok(Found::Here(unread(fresh)));
    }
    candidates.sort_by_key(|candidate| candidate.bytes);
    let mut walked = Before { content: Content::new(hasher), lines: 0 };
    let mut best: Option<Resolved> = None;
    // What stands in the beginning, which has been looked at and not taken, needs not be read: a stream cannot be read twice.
    let (mut taken, all_seen) = (0, head.len() < HEAD_BYTES);
    for candidate in candidates {
        let end = usize::try_from(candidate.bytes).unwrap_or(usize::MAX).min(head.len());
        let begin = usize::try_from(walked.content.bytes).unwrap_or(usize::MAX);
        walked.update(head.get(begin..end).unwrap_or_default());
        let reached = if walked.content.bytes == candidate.bytes || all_seen {
            Ok(walked.content.bytes == candidate.bytes)
        } else {
            skip(stream, walked.content.bytes - taken)
                .and_then(|()| advance(stream, &mut walked, candidate.bytes))
                .inspect(|_| taken = walked.content.bytes)
        };
        match reached {
            Ok(true) => {}
            Ok(false) if lookup(&walked.content.whole_app()).is_some() => {
                return Ok(Found::Known(candidate.identity, walked.content.bytes));
            }
            // Shorter than what was ingested, or broken before: read anew, what breaks breaks again.
            Ok(false) | Err(_) => {
                if !all_seen {
                    taken = walked.content.bytes;
                }
                break;
            }
        }
        if walked.content.chain() == candidate.chain {
            let bytes = i64::try_from(candidate.bytes).unwrap_or(i64::MAX);
            best = Some(Resolved {
                identity: candidate.identity,
                content: walked.content.clone(),
                lines: walked.lines,
                before: Some((bytes, candidate.chain)),
            });
        }
    }
    let resolved = best.unwrap_or_else(|| unread(fresh));
    Ok(match resolved.content.bytes.checked_sub(taken) {
        Some(left) => {
            skip(stream, left)?;
            Found::Here(resolved)
        }
        None => Found::Again(resolved),
    })
}

/// The identity that a new file would get, and the known ones that begin alike.
fn candidates(head: &[u8], hasher: &DomainHasher, lookup: Lookup<'_>) -> (Identity, Vec<Candidate>) {
    let longest = if head.is_empty() { 0 } else { 1 << head.len().min(HEAD_BYTES).ilog2() };
    let mut fresh = None;
    let mut known = Vec::new();
    let mut len = longest;
    while len > 0 {
        for number in 0..ALIKE_MAX {
            let identity = Identity::new(hasher, &head[..len], number);
            let (Some(bytes), Some(chain)) = (lookup(&identity.app()), lookup(&identity.chain_app())) else {
                fresh.get_or_insert(identity);
                break;
            };
            known.push(Candidate { identity, bytes: u64::try_from(bytes).unwrap_or(0), chain });
        }
        len /= 2;
    }
    (fresh.unwrap_or_else(|| Identity::new(hasher, &head[..longest], 0)), known)
}

/// Reads on to `bytes`; false when the stream ends (or breaks) before.
fn advance(stream: &mut Stream, walked: &mut Before, bytes: u64) -> io::Result<bool> {
    let mut buffer = vec![0; STEP_BYTES];
    while walked.content.bytes < bytes {
        let wanted = usize::try_from(bytes - walked.content.bytes).unwrap_or(STEP_BYTES).min(STEP_BYTES);
        match stream.fill(&mut buffer[..wanted])? {
            0 => return Ok(false),
            read => walked.update(&buffer[..read]),
        }
    }
    Ok(true)
}

/// Skips what was ingested before, in a stream just opened.
///
/// # Errors
/// When the stream ends or breaks before.
pub(super) fn skip(stream: &mut Stream, bytes: u64) -> io::Result<()> {
    let mut left = bytes;
    let mut buffer = vec![0; STEP_BYTES];
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(STEP_BYTES).min(STEP_BYTES);
        match stream.fill(&mut buffer[..wanted])? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read")),
            read => left -= read as u64,
        }
    }
    Ok(())
}
