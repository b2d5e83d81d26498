//! Several SHA-256 at once, on x86-64 processors with SHA extensions: HMACs of
//! short messages, and the hashes of whole files.
//!
//! A round of SHA-256 waits for the one before: the instruction for two rounds
//! takes four cycles and could begin every second one. Two or three messages
//! that know nothing of each other fill the gaps.
//!
//! The rounds follow FIPS 180-4, section 6.2.2; the arrangement of the state in
//! two registers is the instructions' own (Intel SDM, SHA256RNDS2).
//!
//! Where there is AVX-512, sixteen messages under one key go side by side
//! instead, in less than half the time (`sixteen`).
//!
//! This is the only file with `unsafe`: the three calls into code that the
//! processor must be able to run, made after asking it.
#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_cvtsi128_si64, _mm_extract_epi64, _mm_set_epi32, _mm_set_epi64x,
    _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
};

use crate::sixteen;

/// SHA-256's round constants: FIPS 180-4, section 4.2.2.
pub(crate) const ROUND_CONSTANTS: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];

/// The outer hash's message behind the inner digest: the padding and the length of both blocks in bits.
pub(crate) const OUTER_TAIL: [u32; 8] = [0x8000_0000, 0, 0, 0, 0, 0, 0, (64 + 32) * 8];

/// Bytes of a block.
const BLOCK_BYTES: usize = 64;

/// One HMAC to compute.
pub struct Short<'a> {
    /// The state after the inner padded key.
    pub inner: &'a [u32; 8],
    /// The state after the outer padded key.
    pub outer: &'a [u32; 8],
    /// The message's only block, padded: its bytes in order, sixteen to a number, the first lowest.
    pub block: [u128; 4],
}

#[inline]
fn is_able() -> bool {
    std::arch::is_x86_feature_detected!("sha")
        && std::arch::is_x86_feature_detected!("sse4.1")
        && std::arch::is_x86_feature_detected!("ssse3")
}

/// The first 16 bytes of each HMAC; `None` where the processor lacks the instructions.
#[inline]
pub fn bytes16<const N: usize>(messages: &[Short<'_>; N]) -> Option<[[u8; 16]; N]> {
    // SAFETY: `hmacs` asks nothing of its caller but that the processor has the
    // three features, which it has just said. It takes and returns plain values:
    // no pointer is made, all indices are checked or constant.
    if is_able() { Some(unsafe { hmacs(messages) }) } else { None }
}

/// Messages that [`sixteen`] hashes together.
pub const LANES: usize = sixteen::LANES;

/// The first 16 bytes of HMACs under one key as numbers, the first byte highest; each message is its only block, padded.
/// `None` where the processor lacks the instructions.
#[inline]
pub fn sixteen(inner: &[u32; 8], outer: &[u32; 8], blocks: &[[u8; BLOCK_BYTES]; LANES]) -> Option<[u128; LANES]> {
    let is_able = std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512bw");
    // SAFETY: as above, with these two features.
    if is_able { Some(unsafe { sixteen::hmacs(inner, outer, blocks) }) } else { None }
}

/// Takes blocks of 64 bytes into each state, as many as the message with the fewest has, and says how many these are;
/// `None` where the processor lacks the instructions.
pub(crate) fn absorb<const N: usize>(states: &mut [[u32; 8]; N], messages: &[&[u8]; N]) -> Option<usize> {
    // SAFETY: as above; the messages are read through checked slices.
    if is_able() { Some(unsafe { absorb_blocks(states, messages) }) } else { None }
}

/// A hash state as the instructions want it.
#[derive(Clone, Copy)]
struct State {
    abef: __m128i,
    cdgh: __m128i,
}

// Plain loops and no closures below: a closure or an adapter is a function of its
// own, which may lack the features or stand in another of the compiler's units,
// and then each instruction becomes a call.
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn hmacs<const N: usize>(messages: &[Short<'_>; N]) -> [[u8; 16]; N] {
    let mut states = [State::zero(); N];
    let mut blocks = [[_mm_setzero_si128(); 4]; N];
    for lane in 0..N {
        states[lane] = State::new(messages[lane].inner);
        blocks[lane] = words(&messages[lane].block);
    }
    compress(&mut states, &mut blocks);
    for lane in 0..N {
        let (abcd, efgh) = states[lane].in_order();
        blocks[lane] = [abcd, efgh, quad(&OUTER_TAIL, 0), quad(&OUTER_TAIL, 4)];
        states[lane] = State::new(messages[lane].outer);
    }
    compress(&mut states, &mut blocks);
    let mut keys = [[0; 16]; N];
    for lane in 0..N {
        let abcd = big_endian(states[lane].in_order().0);
        let (low, high) = (_mm_cvtsi128_si64(abcd) as u64, _mm_extract_epi64::<1>(abcd) as u64);
        keys[lane] = (u128::from(high) << 64 | u128::from(low)).to_le_bytes();
    }
    keys
}

#[target_feature(enable = "sha,sse4.1,ssse3")]
fn absorb_blocks<const N: usize>(states: &mut [[u32; 8]; N], messages: &[&[u8]; N]) -> usize {
    let mut count = usize::MAX;
    let mut inside = [State::zero(); N];
    for lane in 0..N {
        count = count.min(messages[lane].len() / BLOCK_BYTES);
        inside[lane] = State::new(&states[lane]);
    }
    let mut blocks = [[_mm_setzero_si128(); 4]; N];
    for block in 0..count {
        for lane in 0..N {
            let (numbers, _) = messages[lane][block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES].as_chunks::<16>();
            for at in 0..4 {
                let number = u128::from_le_bytes(numbers[at]);
                blocks[lane][at] = big_endian(_mm_set_epi64x((number >> 64) as i64, number as i64));
            }
        }
        compress(&mut inside, &mut blocks);
    }
    for lane in 0..N {
        let (abcd, efgh) = inside[lane].in_order();
        for (half, words) in [abcd, efgh].into_iter().enumerate() {
            let (low, high) = (_mm_cvtsi128_si64(words) as u64, _mm_extract_epi64::<1>(words) as u64);
            for (at, word) in [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32].into_iter().enumerate() {
                states[lane][half * 4 + at] = word;
            }
        }
    }
    count
}

/// One block into each state.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn compress<const N: usize>(states: &mut [State; N], words: &mut [[__m128i; 4]; N]) {
    let before = *states;
    /// Written out, so that no word is looked up by a number at run time.
    macro_rules! four_rounds_each {
        ($($group:literal)*) => { $(four_rounds::<$group, N>(states, words);)* };
    }
    four_rounds_each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    for lane in 0..N {
        states[lane].abef = _mm_add_epi32(states[lane].abef, before[lane].abef);
        states[lane].cdgh = _mm_add_epi32(states[lane].cdgh, before[lane].cdgh);
    }
}

/// Rounds `4 * GROUP` to `4 * GROUP + 3`, and the words that they take.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn four_rounds<const GROUP: usize, const N: usize>(states: &mut [State; N], words: &mut [[__m128i; 4]; N]) {
    let constants = quad(&ROUND_CONSTANTS, GROUP * 4);
    for lane in 0..N {
        let (state, words) = (&mut states[lane], &mut words[lane]);
        // Word group t lies at t modulo 4, until group t + 4 takes its place.
        if GROUP >= 4 {
            let (two, three) = (words[(GROUP + 2) % 4], words[(GROUP + 3) % 4]);
            let sum = _mm_add_epi32(_mm_sha256msg1_epu32(words[GROUP % 4], words[(GROUP + 1) % 4]), _mm_alignr_epi8::<4>(three, two));
            words[GROUP % 4] = _mm_sha256msg2_epu32(sum, three);
        }
        let input = _mm_add_epi32(words[GROUP % 4], constants);
        state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, input);
        state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, _mm_shuffle_epi32::<0b00_00_11_10>(input));
    }
}

impl State {
    #[inline]
    #[target_feature(enable = "sse2")]
    fn zero() -> Self {
        Self { abef: _mm_setzero_si128(), cdgh: _mm_setzero_si128() }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn new(words: &[u32; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = *words;
        Self { abef: _mm_set_epi32(a as i32, b as i32, e as i32, f as i32), cdgh: _mm_set_epi32(c as i32, d as i32, g as i32, h as i32) }
    }

    /// The words A to D, and E to H.
    #[inline]
    #[target_feature(enable = "sse4.1,ssse3")]
    fn in_order(self) -> (__m128i, __m128i) {
        let abef = _mm_shuffle_epi32::<0b00_01_10_11>(self.abef);
        let ghcd = _mm_shuffle_epi32::<0b10_11_00_01>(self.cdgh);
        (_mm_blend_epi16::<0b1111_0000>(abef, ghcd), _mm_alignr_epi8::<8>(ghcd, abef))
    }
}

/// A block's sixteen words.
#[inline]
#[target_feature(enable = "ssse3")]
fn words(block: &[u128; 4]) -> [__m128i; 4] {
    let mut words = [_mm_setzero_si128(); 4];
    for at in 0..4 {
        words[at] = big_endian(_mm_set_epi64x((block[at] >> 64) as i64, block[at] as i64));
    }
    words
}

/// Each word's bytes the other way round.
#[inline]
#[target_feature(enable = "ssse3")]
fn big_endian(words: __m128i) -> __m128i {
    _mm_shuffle_epi8(words, _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203))
}

/// Four words from `at`.
#[inline]
#[target_feature(enable = "sse2")]
fn quad<const LEN: usize>(words: &[u32; LEN], at: usize) -> __m128i {
    _mm_set_epi32(words[at + 3] as i32, words[at + 2] as i32, words[at + 1] as i32, words[at] as i32)
}
