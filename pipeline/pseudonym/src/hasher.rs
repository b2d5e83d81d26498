//! HMAC-SHA-256 (RFC 2104, FIPS 198-1) from precomputed states.
//!
//! The key's two padded blocks are compressed once per key instead of once per
//! event, which halves the cost of hashing a short identifier.

use std::fmt;

#[cfg(target_arch = "x86_64")]
use ameles_core::side_by_side::{self, Short};
use ameles_core::{Domain, EventKey, Pseudonym, SHA256_INITIAL};
use sha2::compress256;
use sha2::digest::generic_array::GenericArray;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::SecretKey32;

const BLOCK_BYTES: usize = 64;
const DIGEST_BYTES: usize = 32;
/// Where the message's length in bits stands in its last block.
const LENGTH_AT: usize = 56;
const INNER_PAD: u8 = 0x36;
const OUTER_PAD: u8 = 0x5c;

/// Padding after the inner digest, with the outer message's length in bits.
const OUTER_TAIL: [u8; BLOCK_BYTES] = {
    let mut block = [0; BLOCK_BYTES];
    block[DIGEST_BYTES] = 0x80;
    let bits = ((BLOCK_BYTES + DIGEST_BYTES) as u16 * 8).to_be_bytes();
    block[BLOCK_BYTES - 2] = bits[0];
    block[BLOCK_BYTES - 1] = bits[1];
    block
};

/// Turns the normalised identifiers of one domain and key epoch into
/// pseudonyms. As secret as the key: its states are wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DomainHasher {
    inner: [u32; 8],
    outer: [u32; 8],
}

impl DomainHasher {
    /// For one key.
    pub fn new(key: &SecretKey32) -> Self {
        Self { inner: padded(key, INNER_PAD), outer: padded(key, OUTER_PAD) }
    }

    /// The pseudonym of an identifier that [`normalise`](crate::normalise) has spelt.
    pub fn pseudonym<D: Domain>(&self, normalised: &str) -> Pseudonym<D> {
        Pseudonym::from_bytes(self.bytes16(normalised.as_bytes()))
    }

    /// The key of an event id, from the hasher of the domain `event`.
    pub fn event_key(&self, event_id: &str) -> EventKey {
        EventKey(self.bytes16(event_id.as_bytes()))
    }

    /// The first 16 bytes of the keyed hash.
    pub fn bytes16(&self, message: &[u8]) -> [u8; 16] {
        let state = self.state(message);
        let mut bytes = [0; 16];
        for (into, word) in bytes.chunks_exact_mut(4).zip(state) {
            into.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// The first 16 bytes of several keyed hashes, each of a hasher of its own
    /// or the same: less than one after the other takes, where the messages are short.
    pub fn bytes16_each<const N: usize>(pairs: [(&Self, &[u8]); N]) -> [[u8; 16]; N] {
        #[cfg(target_arch = "x86_64")]
        if pairs.iter().all(|(_, message)| message.len() < LENGTH_AT) {
            let messages = pairs.map(|(hasher, message)| Short { inner: &hasher.inner, outer: &hasher.outer, block: only_block(message) });
            if let Some(keys) = side_by_side::bytes16(&messages) {
                return keys;
            }
        }
        pairs.map(|(hasher, message)| hasher.bytes16(message))
    }

    /// The first 16 bytes of the keyed hash of each of the first `count` messages, as a number, the first byte highest; what
    /// comes behind them means nothing. Where the processor has AVX-512, many take less than half the time of one after the
    /// other.
    pub fn numbers(&self, waiting: &Waiting, count: usize) -> [u128; LANES] {
        #[cfg(target_arch = "x86_64")]
        if count > FEW
            && let Some(numbers) = side_by_side::sixteen(&self.inner, &self.outer, &waiting.0)
        {
            return numbers;
        }
        let mut numbers = [0; LANES];
        let fours = numbers.as_chunks_mut().0.iter_mut().zip(waiting.0.as_chunks().0);
        for (four, blocks) in fours.take(count.div_ceil(4)) {
            *four = self.four(blocks);
        }
        numbers
    }

    /// Of messages' only blocks.
    fn four(&self, blocks: &[[u8; BLOCK_BYTES]; 4]) -> [u128; 4] {
        #[cfg(target_arch = "x86_64")]
        if let Some(keys) = side_by_side::bytes16(&blocks.map(|block| Short {
            inner: &self.inner,
            outer: &self.outer,
            block: std::array::from_fn(|at| u128::from_le_bytes(block.as_chunks().0[at])),
        })) {
            return keys.map(u128::from_be_bytes);
        }
        blocks.map(|block| self.number(&block))
    }

    fn number(&self, block: &[u8; BLOCK_BYTES]) -> u128 {
        let mut state = self.inner;
        compress256(&mut state, std::slice::from_ref(GenericArray::from_slice(block)));
        self.outer(&state).iter().take(4).fold(0, |number, word| number << 32 | u128::from(*word))
    }

    /// The whole keyed hash.
    pub fn bytes32(&self, message: &[u8]) -> [u8; 32] {
        digest(self.state(message))
    }

    fn state(&self, message: &[u8]) -> [u32; 8] {
        let mut state = self.inner;
        let mut chunks = message.chunks_exact(BLOCK_BYTES);
        for chunk in chunks.by_ref() {
            compress256(&mut state, std::slice::from_ref(GenericArray::from_slice(chunk)));
        }
        finish(&mut state, chunks.remainder(), BLOCK_BYTES + message.len());
        self.outer(&state)
    }

    /// The state after the outer hash's only block: the inner digest, padded.
    fn outer(&self, inner: &[u32; 8]) -> [u32; 8] {
        let mut block = OUTER_TAIL;
        for (into, word) in block.chunks_exact_mut(4).zip(inner) {
            into.copy_from_slice(&word.to_be_bytes());
        }
        let mut outer = self.outer;
        compress256(&mut outer, std::slice::from_ref(GenericArray::from_slice(&block)));
        outer
    }
}

/// Messages that [`DomainHasher::numbers`] hashes at once.
pub const LANES: usize = 16;
/// So few are hashed sooner without AVX-512, which hashes all lanes whether they are needed or not.
#[cfg(target_arch = "x86_64")]
const FEW: usize = 4;

/// Short messages of one domain that wait to be hashed together, each as its only block; wiped on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Waiting([[u8; BLOCK_BYTES]; LANES]);

impl Default for Waiting {
    fn default() -> Self {
        Self([[0; BLOCK_BYTES]; LANES])
    }
}

impl Waiting {
    /// Whether a message is short enough to wait.
    #[inline]
    pub const fn takes(message: &[u8]) -> bool {
        message.len() < LENGTH_AT
    }

    /// Puts a message down in the place of whatever was there. Nothing where there is no such place, or the message is none
    /// that it [takes](Self::takes).
    #[inline]
    pub fn put(&mut self, lane: usize, message: &[u8]) {
        if let (Some(block), true) = (self.0.get_mut(lane), Self::takes(message)) {
            put_block(block, message);
        }
    }
}

/// A message of at most 55 bytes behind a block of key, with the padding of FIPS 180-4, section 5.1.1.
#[inline]
fn put_block(block: &mut [u8; BLOCK_BYTES], message: &[u8]) {
    *block = [0; BLOCK_BYTES];
    let length = message.len();
    // In pieces of a length that the compiler knows: the last one overlaps the one before it.
    if let Some(last) = message.last_chunk::<16>() {
        block.as_chunks_mut().0.iter_mut().zip(message.as_chunks::<16>().0).for_each(|(into, whole)| *into = *whole);
        block[length - last.len()..length].copy_from_slice(last);
    } else if let Some((first, last)) = message.first_chunk::<8>().zip(message.last_chunk::<8>()) {
        block[..first.len()].copy_from_slice(first);
        block[length - last.len()..length].copy_from_slice(last);
    } else {
        block[..length].copy_from_slice(message);
    }
    block[length] = 0x80;
    block[LENGTH_AT..].copy_from_slice(&((BLOCK_BYTES + length) as u64 * 8).to_be_bytes());
}

/// Says only what it is.
impl fmt::Debug for DomainHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DomainHasher(…)")
    }
}

fn padded(key: &SecretKey32, pad: u8) -> [u32; 8] {
    let mut block = [pad; BLOCK_BYTES];
    for (byte, key_byte) in block.iter_mut().zip(key.expose()) {
        *byte ^= key_byte;
    }
    let mut state = SHA256_INITIAL;
    compress256(&mut state, std::slice::from_ref(GenericArray::from_slice(&block)));
    block.zeroize();
    state
}

/// A message of at most 55 bytes behind a block of key, with the padding of FIPS 180-4, section 5.1.1:
/// its bytes in order, sixteen to a number, the first lowest.
///
/// Put together in registers: written to memory byte by byte it could not be read sixteen at a time at once.
#[inline]
fn only_block(message: &[u8]) -> [u128; 4] {
    let mut block = [0; 4];
    let (whole, rest) = message.as_chunks::<16>();
    for (into, bytes) in block.iter_mut().zip(whole) {
        *into = u128::from_le_bytes(*bytes);
    }
    // What the last sixteen bytes hold before the rest is shifted out.
    let last = match message.last_chunk::<16>() {
        Some(_) if rest.is_empty() => 0,
        Some(bytes) => u128::from_le_bytes(*bytes) >> (8 * (16 - rest.len())),
        None => short_number(message),
    };
    // At most three are whole, because there are at most 55 bytes.
    block[whole.len() % 4] = last | 0x80 << (8 * rest.len());
    block[3] |= u128::from(((BLOCK_BYTES + message.len()) as u64 * 8).swap_bytes()) << 64;
    block
}

/// Up to 15 bytes as a number, the first lowest.
#[inline]
fn short_number(bytes: &[u8]) -> u128 {
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        // Bytes that stand in both are the same in both.
        return u128::from(u64::from_le_bytes(*first)) | u128::from(u64::from_le_bytes(*last)) << (8 * (bytes.len() - 8));
    }
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// Compresses the message's last bytes with the padding of FIPS 180-4, section 5.1.1.
fn finish(state: &mut [u32; 8], rest: &[u8], message_bytes: usize) {
    let mut block = [0; BLOCK_BYTES];
    block[..rest.len()].copy_from_slice(rest);
    block[rest.len()] = 0x80;
    if rest.len() >= LENGTH_AT {
        compress256(state, std::slice::from_ref(GenericArray::from_slice(&block)));
        block = [0; BLOCK_BYTES];
    }
    block[LENGTH_AT..].copy_from_slice(&(message_bytes as u64 * 8).to_be_bytes());
    compress256(state, std::slice::from_ref(GenericArray::from_slice(&block)));
}

fn digest(state: [u32; 8]) -> [u8; DIGEST_BYTES] {
    let mut bytes = [0; DIGEST_BYTES];
    for (into, word) in bytes.chunks_exact_mut(4).zip(state) {
        into.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use ameles_core::Device;
    use proptest::prelude::*;
    use ring::hmac;

    use super::*;

    fn by_ring(key: &[u8; 32], message: &[u8]) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
    }

    #[test]
    fn agrees_with_ring_at_every_length() {
        let key = [0x5a; 32];
        let hasher = DomainHasher::new(&SecretKey32::new(key));
        let message: Vec<u8> = (0..300_u32).map(|byte| (byte * 7 + 3) as u8).collect();
        for length in 0..=message.len() {
            let expected = by_ring(&key, &message[..length]);
            assert_eq!(hasher.bytes32(&message[..length])[..], expected[..], "{length}");
            assert_eq!(hasher.bytes16(&message[..length])[..], expected[..16], "{length}");
        }
    }

    #[test]
    fn the_three_doors_give_the_same_bytes() {
        let hasher = DomainHasher::new(&SecretKey32::new([7; 32]));
        let bytes = hasher.bytes16(b"800000002492");
        assert_eq!(hasher.pseudonym::<Device>("800000002492").as_bytes(), &bytes);
        assert_eq!(hasher.event_key("800000002492").0, bytes);
    }

    #[test]
    fn several_at_once_agree_with_ring_at_every_pair_of_lengths() {
        let keys = [[0x5a; 32], [0x11; 32], [0xc3; 32]];
        let hashers = keys.map(|key| DomainHasher::new(&SecretKey32::new(key)));
        let message: Vec<u8> = (0..130_u32).map(|byte| (byte * 11 + 5) as u8).collect();
        let expected: Vec<Vec<Vec<u8>>> =
            keys.iter().map(|key| (0..=message.len()).map(|length| by_ring(key, &message[..length])[..16].to_vec()).collect()).collect();
        for one in 0..=message.len() {
            assert_eq!(DomainHasher::bytes16_each([(&hashers[0], &message[..one])])[0][..], expected[0][one][..]);
            for two in 0..=message.len() {
                let [first, second] = DomainHasher::bytes16_each([(&hashers[0], &message[..one]), (&hashers[1], &message[..two])]);
                assert_eq!((&first[..], &second[..]), (&expected[0][one][..], &expected[1][two][..]), "{one}, {two}");
            }
        }
    }

    #[test]
    fn those_that_waited_are_what_each_is_alone() {
        let hasher = DomainHasher::new(&SecretKey32::new([0xc3; 32]));
        let message: Vec<u8> = (0..130_u32).map(|byte| (byte * 13 + 1) as u8).collect();
        let mut waiting = Waiting::default();
        for first in 0..=LENGTH_AT {
            let messages: Vec<&[u8]> = (0..LANES).map(|lane| &message[lane..][..(first + lane * 5) % LENGTH_AT]).collect();
            for (lane, message) in messages.iter().enumerate() {
                waiting.put(lane, message);
            }
            let expected: Vec<u128> = messages.iter().map(|message| u128::from_be_bytes(hasher.bytes16(message))).collect();
            for count in 0..=LANES {
                assert_eq!(hasher.numbers(&waiting, count)[..count], expected[..count], "{first}, {count}");
            }
            assert_eq!(waiting.0.map(|block| hasher.number(&block))[..], expected[..], "{first}");
            let by_four = waiting.0.as_chunks().0.iter().flat_map(|blocks| hasher.four(blocks));
            assert_eq!(by_four.collect::<Vec<_>>(), expected, "{first}");
        }
        assert!(Waiting::takes(&message[..55]) && !Waiting::takes(&message[..56]));
        waiting.put(3, &message[..20]);
        waiting.put(3, &message[..56]);
        waiting.put(LANES, &message[..20]);
        assert_eq!(hasher.numbers(&waiting, LANES)[3], u128::from_be_bytes(hasher.bytes16(&message[..20])));
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", DomainHasher::new(&SecretKey32::new([7; 32]))), "DomainHasher(…)");
    }

    proptest! {
        #[test]
        fn several_at_once_agree_with_ring(
            keys: [[u8; 32]; 4],
            messages in prop::array::uniform4(prop::collection::vec(any::<u8>(), 0..70)),
        ) {
            let hashers = keys.map(|key| DomainHasher::new(&SecretKey32::new(key)));
            let expected: Vec<Vec<u8>> = keys.iter().zip(&messages).map(|(key, message)| by_ring(key, message)[..16].to_vec()).collect();
            let pair = |at: usize| (&hashers[at], messages[at].as_slice());
            prop_assert_eq!(DomainHasher::bytes16_each([pair(0), pair(1), pair(2)]).map(Vec::from).to_vec(), expected[..3].to_vec());
            prop_assert_eq!(DomainHasher::bytes16_each([pair(0), pair(1), pair(2), pair(3)]).map(Vec::from).to_vec(), expected);
        }

        #[test]
        fn agrees_with_ring(key: [u8; 32], message in prop::collection::vec(any::<u8>(), 0..300)) {
            let hasher = DomainHasher::new(&SecretKey32::new(key));
            prop_assert_eq!(hasher.bytes32(&message).to_vec(), by_ring(&key, &message));
        }
    }
}
