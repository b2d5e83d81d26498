//! Sixteen HMAC-SHA-256 of short messages under one key, each in a lane of
//! AVX-512's registers: what one instruction does, it does to all of them.
//!
//! The rounds follow FIPS 180-4, section 6.2.2, word by word.

#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::{
    __m512i, _mm_cvtsi128_si64, _mm_extract_epi64, _mm512_add_epi32, _mm512_extracti32x4_epi32, _mm512_ror_epi32, _mm512_set_epi64,
    _mm512_set1_epi32, _mm512_set4_epi32, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_shuffle_i32x4, _mm512_srli_epi32,
    _mm512_ternarylogic_epi32, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use crate::side_by_side::{OUTER_TAIL, ROUND_CONSTANTS};

/// Messages hashed at once.
pub(crate) const LANES: usize = 16;

/// `a ^ b ^ c`, as a table of what each three bits give.
const XOR: i32 = 0x96;
/// `(e & f) ^ (!e & g)`.
const CHOOSE: i32 = 0xca;
/// `(a & b) ^ (a & c) ^ (b & c)`.
const MAJORITY: i32 = 0xe8;

// No closures below: each is a function of its own, which may lack the features.
/// The first 16 bytes of each HMAC as a number, the first byte highest.
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn hmacs(inner: &[u32; 8], outer: &[u32; 8], blocks: &[[u8; 64]; LANES]) -> [u128; LANES] {
    let big_endian = _mm512_set4_epi32(0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203);
    let mut words = [_mm512_setzero_si512(); LANES];
    for lane in 0..LANES {
        words[lane] = _mm512_shuffle_epi8(load(&blocks[lane]), big_endian);
    }
    transpose(&mut words);
    let mut state = same_for_all(inner);
    compress(&mut state, &mut words);
    let tail = same_for_all(&OUTER_TAIL);
    words[..8].copy_from_slice(&state);
    words[8..].copy_from_slice(&tail);
    state = same_for_all(outer);
    compress(&mut state, &mut words);
    numbers(&state)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(block: &[u8; 64]) -> __m512i {
    let (words, _) = block.as_chunks::<8>();
    let mut quarters = [0; 8];
    for at in 0..8 {
        quarters[at] = i64::from_le_bytes(words[at]);
    }
    let [a, b, c, d, e, f, g, h] = quarters;
    _mm512_set_epi64(h, g, f, e, d, c, b, a)
}

/// Each word in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn same_for_all(words: &[u32; 8]) -> [__m512i; 8] {
    let mut all = [_mm512_setzero_si512(); 8];
    for at in 0..8 {
        all[at] = _mm512_set1_epi32(words[at] as i32);
    }
    all
}

/// A block of each lane, word by word, becomes each word of all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: &mut [__m512i; LANES]) {
    let mut pairs = *rows;
    for at in 0..8 {
        pairs[2 * at] = _mm512_unpacklo_epi32(rows[2 * at], rows[2 * at + 1]);
        pairs[2 * at + 1] = _mm512_unpackhi_epi32(rows[2 * at], rows[2 * at + 1]);
    }
    // Of four rows, the quarter q of `fours[4 * at + n]` holds column `4 * q + n`.
    let mut fours = pairs;
    for at in 0..4 {
        fours[4 * at] = _mm512_unpacklo_epi64(pairs[4 * at], pairs[4 * at + 2]);
        fours[4 * at + 1] = _mm512_unpackhi_epi64(pairs[4 * at], pairs[4 * at + 2]);
        fours[4 * at + 2] = _mm512_unpacklo_epi64(pairs[4 * at + 1], pairs[4 * at + 3]);
        fours[4 * at + 3] = _mm512_unpackhi_epi64(pairs[4 * at + 1], pairs[4 * at + 3]);
    }
    for n in 0..4 {
        let (first, second, third, fourth) = (fours[n], fours[4 + n], fours[8 + n], fours[12 + n]);
        let even = [_mm512_shuffle_i32x4::<0x88>(first, second), _mm512_shuffle_i32x4::<0x88>(third, fourth)];
        let odd = [_mm512_shuffle_i32x4::<0xdd>(first, second), _mm512_shuffle_i32x4::<0xdd>(third, fourth)];
        rows[n] = _mm512_shuffle_i32x4::<0x88>(even[0], even[1]);
        rows[4 + n] = _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]);
        rows[8 + n] = _mm512_shuffle_i32x4::<0xdd>(even[0], even[1]);
        rows[12 + n] = _mm512_shuffle_i32x4::<0xdd>(odd[0], odd[1]);
    }
}

/// The words A to D of each lane as a number, A highest.
#[inline]
#[target_feature(enable = "avx512f")]
fn numbers(state: &[__m512i; 8]) -> [u128; LANES] {
    let (low, high) = (_mm512_unpacklo_epi32(state[3], state[2]), _mm512_unpacklo_epi32(state[1], state[0]));
    let (low_too, high_too) = (_mm512_unpackhi_epi32(state[3], state[2]), _mm512_unpackhi_epi32(state[1], state[0]));
    // The quarter q of `of_lanes[n]` is lane `4 * q + n`.
    let of_lanes = [
        _mm512_unpacklo_epi64(low, high),
        _mm512_unpackhi_epi64(low, high),
        _mm512_unpacklo_epi64(low_too, high_too),
        _mm512_unpackhi_epi64(low_too, high_too),
    ];
    let mut numbers = [0; LANES];
    for n in 0..4 {
        let quarters = [
            _mm512_extracti32x4_epi32::<0>(of_lanes[n]),
            _mm512_extracti32x4_epi32::<1>(of_lanes[n]),
            _mm512_extracti32x4_epi32::<2>(of_lanes[n]),
            _mm512_extracti32x4_epi32::<3>(of_lanes[n]),
        ];
        for quarter in 0..4 {
            let (low, high) = (_mm_cvtsi128_si64(quarters[quarter]) as u64, _mm_extract_epi64::<1>(quarters[quarter]) as u64);
            numbers[4 * quarter + n] = u128::from(high) << 64 | u128::from(low);
        }
    }
    numbers
}

/// One block into each lane's state.
#[inline]
#[target_feature(enable = "avx512f")]
fn compress(state: &mut [__m512i; 8], words: &mut [__m512i; LANES]) {
    let before = *state;
    /// Written out, so that no word is looked up by a number at run time.
    macro_rules! rounds {
        ($($round:literal)*) => { $(round::<$round>(state, words);)* };
    }
    rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
    rounds!(32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63);
    for at in 0..8 {
        state[at] = _mm512_add_epi32(state[at], before[at]);
    }
}

/// One round, and the word that it takes.
#[inline]
#[target_feature(enable = "avx512f")]
fn round<const ROUND: usize>(state: &mut [__m512i; 8], words: &mut [__m512i; LANES]) {
    // Word t lies at t modulo 16, until word t + 16 takes its place.
    let word = if ROUND < LANES {
        words[ROUND]
    } else {
        let (near, far) = (words[(ROUND + 14) % LANES], words[(ROUND + 1) % LANES]);
        let of_near =
            _mm512_ternarylogic_epi32::<XOR>(_mm512_ror_epi32::<17>(near), _mm512_ror_epi32::<19>(near), _mm512_srli_epi32::<10>(near));
        let of_far = _mm512_ternarylogic_epi32::<XOR>(_mm512_ror_epi32::<7>(far), _mm512_ror_epi32::<18>(far), _mm512_srli_epi32::<3>(far));
        let plain = _mm512_add_epi32(words[ROUND % LANES], words[(ROUND + 9) % LANES]);
        words[ROUND % LANES] = _mm512_add_epi32(plain, _mm512_add_epi32(of_near, of_far));
        words[ROUND % LANES]
    };
    let [a, b, c, d, e, f, g, h] = *state;
    let of_e = _mm512_ternarylogic_epi32::<XOR>(_mm512_ror_epi32::<6>(e), _mm512_ror_epi32::<11>(e), _mm512_ror_epi32::<25>(e));
    let of_a = _mm512_ternarylogic_epi32::<XOR>(_mm512_ror_epi32::<2>(a), _mm512_ror_epi32::<13>(a), _mm512_ror_epi32::<22>(a));
    let input = _mm512_add_epi32(word, _mm512_set1_epi32(ROUND_CONSTANTS[ROUND] as i32));
    let choice = _mm512_add_epi32(of_e, _mm512_ternarylogic_epi32::<CHOOSE>(e, f, g));
    let first = _mm512_add_epi32(_mm512_add_epi32(h, input), choice);
    let second = _mm512_add_epi32(of_a, _mm512_ternarylogic_epi32::<MAJORITY>(a, b, c));
    *state = [_mm512_add_epi32(first, second), a, b, c, _mm512_add_epi32(d, first), e, f, g];
}
