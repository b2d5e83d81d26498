//! Parquet's integer encodings: variable-length integers, the hybrid of runs and packed bits, and packed deltas.
//!
//! Format: "Encodings" of the Parquet specification (RLE = 3, DELTA_BINARY_PACKED = 5).

use arrow::buffer::NullBuffer;

/// Values of a block of deltas, and of each of its miniblocks.
const BLOCK: usize = 128;
const MINIBLOCK: usize = 32;

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Bits that hold every number up to `largest`; at least one, for readers that do not expect none.
pub(crate) const fn width_of(largest: u32) -> u32 {
    if largest == 0 { 1 } else { u32::BITS - largest.leading_zeros() }
}

/// Codes of `width` bits as runs of equal ones and groups of eight packed ones.
pub(crate) fn put_hybrid(out: &mut Vec<u8>, codes: &[u32], width: u32) {
    let (mut done, mut at) = (0, 0);
    while let Some(group) = codes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        // Without early exit, so that it becomes a comparison of vectors.
        let first = group[0];
        if group.iter().fold(0, |differs, code| differs | (code ^ first)) != 0 {
            at += 8;
            continue;
        }
        let run = 8 + run_of(codes.get(at + 8..).unwrap_or_default(), first);
        put_packed_groups(out, codes.get(done..at).unwrap_or_default(), width);
        put_run(out, run, first, width);
        at += run;
        done = at;
    }
    put_packed_groups(out, codes.get(done..).unwrap_or_default(), width);
}

/// How many of the first codes are `code`.
fn run_of(codes: &[u32], code: u32) -> usize {
    let groups = codes.chunks_exact(8).take_while(|group| group.iter().fold(0, |differs, other| differs | (other ^ code)) == 0).count();
    groups * 8 + codes.iter().skip(groups * 8).take_while(|other| **other == code).count()
}

fn put_run(out: &mut Vec<u8>, run: usize, code: u32, width: u32) {
    put_varint(out, (run as u64) << 1);
    out.extend(code.to_le_bytes().iter().take(width.div_ceil(8) as usize));
}

/// Codes in groups of eight, the last one filled up with zeros.
fn put_packed_groups(out: &mut Vec<u8>, codes: &[u32], width: u32) {
    if codes.is_empty() {
        return;
    }
    put_varint(out, (codes.len().div_ceil(8) as u64) << 1 | 1);
    let (groups, rest) = codes.as_chunks::<8>();
    for group in groups {
        put_group(out, group, width);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        for (place, code) in last.iter_mut().zip(rest) {
            *place = *code;
        }
        put_group(out, &last, width);
    }
}

fn put_group(out: &mut Vec<u8>, group: &[u32; 8], width: u32) {
    if width <= 8 {
        let packed = group.iter().rev().fold(0_u64, |packed, code| packed << width | u64::from(*code));
        out.extend(packed.to_le_bytes().iter().take(width as usize));
    } else if width <= 16 {
        let four = |codes: &[u32]| codes.iter().rev().fold(0_u64, |packed, code| packed << width | u64::from(*code));
        let packed = u128::from(four(&group[..4])) | u128::from(four(&group[4..])) << (4 * width);
        out.extend(packed.to_le_bytes().iter().take(width as usize));
    } else {
        let (mut packed, mut bits) = (0_u64, 0);
        for code in group {
            packed |= u64::from(*code) << bits;
            bits += width;
            while bits >= 8 {
                out.push(packed as u8);
                packed >>= 8;
                bits -= 8;
            }
        }
    }
}

/// Definition levels of rows of an optional column, as a data page of version 1 begins: length, then runs of 1 (value) and 0 (null).
pub(crate) fn put_levels(out: &mut Vec<u8>, rows: usize, nulls: Option<&NullBuffer>) {
    let length_at = out.len();
    out.extend([0; 4]);
    match nulls.filter(|nulls| nulls.null_count() > 0) {
        None => put_run(out, rows, 1, 1),
        Some(nulls) if nulls.null_count() == rows => put_run(out, rows, 0, 1),
        Some(nulls) => {
            let chunks = nulls.inner().bit_chunks();
            let mut bits: Vec<u8> = chunks.iter().flat_map(u64::to_le_bytes).collect();
            bits.extend(chunks.remainder_bits().to_le_bytes());
            bits.truncate(rows.div_ceil(8));
            put_level_bits(out, &bits, rows);
        }
    }
    let length = (out.len() - length_at - 4) as u32;
    if let Some(place) = out.get_mut(length_at..length_at + 4) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

/// Levels of one bit are a validity bitmap already; long runs are shorter as such.
fn put_level_bits(out: &mut Vec<u8>, bits: &[u8], rows: usize) {
    const RUN_BYTES_MIN: usize = 4;
    let put_literal = |out: &mut Vec<u8>, literal: &[u8]| {
        if !literal.is_empty() {
            put_varint(out, (literal.len() as u64) << 1 | 1);
            out.extend_from_slice(literal);
        }
    };
    let (mut done, mut at) = (0, 0);
    while let Some(byte) = bits.get(at).copied() {
        let run = match byte {
            0 | 0xff => bits.iter().skip(at).take_while(|other| **other == byte).count(),
            _ => 1,
        };
        if run >= RUN_BYTES_MIN {
            put_literal(out, bits.get(done..at).unwrap_or_default());
            put_run(out, (run * 8).min(rows - at * 8), u32::from(byte & 1), 1);
            done = at + run;
        }
        at += run;
    }
    put_literal(out, bits.get(done..).unwrap_or_default());
}

/// DELTA_BINARY_PACKED: the first value, then blocks of differences, each packed with as many bits as its miniblock needs.
pub(crate) fn put_deltas<T: Copy + Into<i64>>(out: &mut Vec<u8>, values: &[T]) {
    let first = values.first().map_or(0, |first| (*first).into());
    put_delta_header(out, values.len(), first);
    let mut previous = first;
    for block in values.get(1..).unwrap_or_default().chunks(BLOCK) {
        let mut deltas = [0_i64; BLOCK];
        let mut least = i64::MAX;
        for (delta, value) in deltas.iter_mut().zip(block) {
            let value = (*value).into();
            *delta = value.wrapping_sub(previous);
            least = least.min(*delta);
            previous = value;
        }
        put_zigzag(out, least);
        let widths_at = out.len();
        out.extend([0; BLOCK / MINIBLOCK]);
        for (number, deltas) in deltas.as_chunks_mut::<MINIBLOCK>().0.iter_mut().enumerate().take(block.len().div_ceil(MINIBLOCK)) {
            let filled = (block.len() - number * MINIBLOCK).min(MINIBLOCK);
            let mut packed = [0_u64; MINIBLOCK];
            for (place, delta) in packed.iter_mut().zip(deltas.iter()).take(filled) {
                *place = delta.wrapping_sub(least) as u64;
            }
            let width = u64::BITS - packed.iter().fold(0, |all, value| all | value).leading_zeros();
            if let Some(place) = out.get_mut(widths_at + number) {
                *place = width as u8;
            }
            put_miniblock(out, &packed, width);
        }
    }
}

/// The same for `count` equal values.
pub(crate) fn put_equal_deltas(out: &mut Vec<u8>, value: i64, count: usize) {
    put_delta_header(out, count, value);
    for _ in 0..count.saturating_sub(1).div_ceil(BLOCK) {
        out.extend([0; 1 + BLOCK / MINIBLOCK]);
    }
}

fn put_delta_header(out: &mut Vec<u8>, count: usize, first: i64) {
    put_varint(out, BLOCK as u64);
    put_varint(out, (BLOCK / MINIBLOCK) as u64);
    put_varint(out, count as u64);
    put_zigzag(out, first);
}

fn put_miniblock(out: &mut Vec<u8>, values: &[u64; MINIBLOCK], width: u32) {
    let mut packed = [0_u8; MINIBLOCK * 8];
    let (words, _) = packed.as_chunks_mut::<8>();
    let (mut word, mut bits, mut at) = (0_u64, 0, 0);
    for value in values {
        word |= value << bits;
        bits += width;
        if bits >= u64::BITS {
            words[at] = word.to_le_bytes();
            at += 1;
            bits -= u64::BITS;
            word = if bits == 0 { 0 } else { value >> (width - bits) };
        }
    }
    if bits > 0 {
        words[at] = word.to_le_bytes();
    }
    out.extend_from_slice(&packed[..width as usize * MINIBLOCK / 8]);
}
