//! SHA-256 (FIPS 180-4) of several byte strings, in less time than one after the other takes.

use ring::digest;

#[cfg(target_arch = "x86_64")]
use crate::side_by_side::absorb;

/// SHA-256's initial hash value: FIPS 180-4, section 5.3.3.
pub const SHA256_INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Bytes of a block.
const BLOCK_BYTES: usize = 64;
/// Where the length in bits stands in the last block.
const LENGTH_AT: usize = 56;

/// The SHA-256 of one byte string.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// The SHA-256 of each of two byte strings. Where they are about as long as each other this takes little more time than one
/// of them alone.
pub fn sha256_pair(first: &[u8], second: &[u8]) -> [[u8; 32]; 2] {
    #[cfg(target_arch = "x86_64")]
    {
        let mut states = [SHA256_INITIAL; 2];
        if let Some(blocks) = absorb(&mut states, &[first, second]) {
            let done = blocks * BLOCK_BYTES;
            let ends = [finish(states[0], first, done), finish(states[1], second, done)];
            if let [Some(first), Some(second)] = ends {
                return [first, second];
            }
        }
    }
    [sha256(first), sha256(second)]
}

/// The hash of `bytes`, of which `done` are in the state.
#[cfg(target_arch = "x86_64")]
fn finish(state: [u32; 8], bytes: &[u8], done: usize) -> Option<[u8; 32]> {
    let left = bytes.get(done..)?;
    let mut state = [state];
    let blocks = absorb(&mut state, &[left])?;
    let left = left.get(blocks * BLOCK_BYTES..)?;
    // The rest, a one, zeros, and the length: in one block, or in two.
    let mut tail = [0; 2 * BLOCK_BYTES];
    tail.get_mut(..left.len())?.copy_from_slice(left);
    *tail.get_mut(left.len())? = 0x80;
    let end = if left.len() < LENGTH_AT { BLOCK_BYTES } else { 2 * BLOCK_BYTES };
    let bits = (bytes.len() as u64).wrapping_mul(8).to_be_bytes();
    tail.get_mut(end - bits.len()..end)?.copy_from_slice(&bits);
    absorb(&mut state, &[tail.get(..end)?])?;
    let mut hash = [0; 32];
    for (into, word) in hash.chunks_exact_mut(4).zip(state[0]) {
        into.copy_from_slice(&word.to_be_bytes());
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_at_once_are_what_each_is_alone() {
        let bytes: Vec<u8> = (0..1_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let lengths = (0..=200).chain([255, 256, 319, 320, 511, 512, 999, 1_000]);
        for first in lengths.clone() {
            for second in [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 500, 1_000 - first] {
                let (a, b) = (&bytes[..first], &bytes[1_000 - second..]);
                assert_eq!(sha256_pair(a, b), [sha256(a), sha256(b)], "{first} and {second} bytes");
            }
        }
    }

    /// FIPS 180-4's examples.
    #[test]
    fn known_hashes() {
        let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        let hex = |hash: [u8; 32]| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let [abc, long] = sha256_pair(b"abc", two_blocks);
        assert_eq!(hex(abc), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hex(long), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    }
}
