//! Parquet's encodings read: the counterpart of `encode::bits`.

use super::Stop;

const SHORT: Stop = Stop::Damaged("a page ends within a value");

fn varint(bytes: &[u8], at: &mut usize) -> Result<u64, Stop> {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let byte = *bytes.get(*at).ok_or(SHORT)?;
        *at += 1;
        if shift > 63 {
            return Err(Stop::Damaged("a number in a page is too long"));
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
        shift += 7;
    }
}

fn zigzag(bytes: &[u8], at: &mut usize) -> Result<i64, Stop> {
    let value = varint(bytes, at)?;
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

/// The next `length` bytes.
pub(crate) fn take<'a>(bytes: &'a [u8], at: &mut usize, length: usize) -> Result<&'a [u8], Stop> {
    let end = at.checked_add(length).ok_or(SHORT)?;
    let taken = bytes.get(*at..end).ok_or(SHORT)?;
    *at = end;
    Ok(taken)
}

/// A length of 32 bits.
pub(crate) fn length(bytes: &[u8], at: &mut usize) -> Result<usize, Stop> {
    let four = take(bytes, at, 4)?;
    Ok(four.first_chunk().map_or(0, |four| u32::from_le_bytes(*four)) as usize)
}

/// `count` codes of `width` bits from runs and packed groups of eight (RLE = 3).
pub(crate) fn hybrid(bytes: &[u8], width: u32, count: usize) -> Result<Vec<u32>, Stop> {
    if width > 32 {
        return Err(Stop::Damaged("codes are wider than 32 bits"));
    }
    let mut codes = Vec::with_capacity(count + 8);
    let (mut at, mask) = (0, u32::MAX.checked_shr(32 - width).unwrap_or(0));
    while codes.len() < count {
        let head = varint(bytes, &mut at)?;
        let left = count - codes.len();
        if head & 1 == 0 {
            let run = usize::try_from(head >> 1).unwrap_or(usize::MAX).min(left);
            let mut code = [0; 4];
            let stored = take(bytes, &mut at, width.div_ceil(8) as usize)?;
            code.iter_mut().zip(stored).for_each(|(place, byte)| *place = *byte);
            codes.resize(codes.len() + run, u32::from_le_bytes(code) & mask);
            if run == 0 {
                return Err(Stop::Damaged("a run of codes is empty"));
            }
        } else {
            let groups = usize::try_from(head >> 1).unwrap_or(usize::MAX);
            let wanted = groups.min(left.div_ceil(8));
            if wanted == 0 {
                return Err(Stop::Damaged("a group of codes is empty"));
            }
            // Some writers leave out the end of the last group.
            let available = wanted.saturating_mul(width as usize).min(bytes.len() - at);
            unpack_groups(take(bytes, &mut at, available)?, width, wanted, &mut codes);
            at = (at + (groups - wanted).saturating_mul(width as usize)).min(bytes.len());
            codes.truncate(count);
        }
    }
    Ok(codes)
}

fn unpack_groups(packed: &[u8], width: u32, groups: usize, codes: &mut Vec<u32>) {
    let mask = u64::from(u32::MAX.checked_shr(32 - width).unwrap_or(0));
    for group in 0..groups {
        let bytes = packed.get(group * width as usize..).unwrap_or_default();
        // Eight codes are `width` bytes, each at most 5 of them: so a word of 8 bytes at any code's first byte holds it.
        let mut words = [0_u8; 40];
        let there = bytes.len().min(width as usize);
        words[..there].copy_from_slice(&bytes[..there]);
        for code in 0..8 {
            let bit = code * width as usize;
            let word = words.get(bit / 8..).and_then(<[u8]>::first_chunk).map_or(0, |word| u64::from_le_bytes(*word));
            codes.push((word >> (bit % 8) & mask) as u32);
        }
    }
}

/// Packed differences (DELTA_BINARY_PACKED = 5); `at` moves behind them.
pub(crate) fn deltas(bytes: &[u8], at: &mut usize, count_max: usize) -> Result<Vec<i64>, Stop> {
    let block = varint(bytes, at)? as usize;
    let miniblocks = varint(bytes, at)? as usize;
    let count = varint(bytes, at)? as usize;
    let first = zigzag(bytes, at)?;
    if miniblocks == 0
        || miniblocks > 1 << 10
        || block == 0
        || block > 1 << 20
        || !block.is_multiple_of(miniblocks * 32)
        || count > count_max
    {
        return Err(Stop::Damaged("packed differences have an impossible header"));
    }
    let each = block / miniblocks;
    let mut values = Vec::with_capacity(count);
    if count == 0 {
        return Ok(values);
    }
    values.push(first);
    let mut last = first;
    let mut padded = vec![0_u8; each * 8 + 16];
    while values.len() < count {
        let least = zigzag(bytes, at)?;
        let widths = take(bytes, at, miniblocks)?;
        for width in widths {
            let left = count - values.len();
            if left == 0 {
                break;
            }
            let width = u32::from(*width);
            if width > 64 {
                return Err(Stop::Damaged("differences are wider than 64 bits"));
            }
            let packed = take(bytes, at, width as usize * each / 8)?;
            if width == 0 {
                for _ in 0..left.min(each) {
                    last = last.wrapping_add(least);
                    values.push(last);
                }
                continue;
            }
            padded[..packed.len()].copy_from_slice(packed);
            let mask = u64::MAX >> (64 - width);
            for number in 0..left.min(each) {
                let bit = number * width as usize;
                let rest = padded.get(bit / 8..).unwrap_or_default();
                // A word of 8 bytes holds it whichever bit it begins at, if it is not wider than this.
                let packed = if width <= 57 {
                    rest.first_chunk().map_or(0, |word| u64::from_le_bytes(*word)) >> (bit % 8)
                } else {
                    (rest.first_chunk().map_or(0, |word| u128::from_le_bytes(*word)) >> (bit % 8)) as u64
                };
                last = last.wrapping_add(least).wrapping_add((packed & mask) as i64);
                values.push(last);
            }
        }
    }
    Ok(values)
}

/// Lengths as packed differences.
fn lengths(bytes: &[u8], at: &mut usize, count: usize) -> Result<Vec<usize>, Stop> {
    let lengths = deltas(bytes, at, count)?;
    if lengths.len() != count {
        return Err(Stop::Damaged("a page has another number of lengths than of values"));
    }
    lengths.into_iter().map(|length| usize::try_from(length).map_err(|_| Stop::Damaged("a length is negative"))).collect()
}

/// Values of variable length, one after the other, and where each ends.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Texts {
    pub(crate) ends: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Texts {
    pub(crate) fn get(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(at).and_then(|end| self.bytes.get(start..*end)).unwrap_or_default()
    }

    /// Whether each value has so many bytes.
    pub(crate) fn are_of<const N: usize>(&self) -> bool {
        self.bytes.len() == N * self.ends.len() && self.ends.iter().enumerate().all(|(at, end)| *end == N * (at + 1))
    }

    pub(crate) fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len());
    }
}

/// Length, bytes, length, bytes (PLAIN = 0).
pub(crate) fn plain_texts(bytes: &[u8], count: usize) -> Result<Texts, Stop> {
    let mut texts = Texts { ends: Vec::with_capacity(count), bytes: Vec::with_capacity(bytes.len()) };
    let mut at = 0;
    for _ in 0..count {
        let length = length(bytes, &mut at)?;
        texts.push(take(bytes, &mut at, length)?);
    }
    Ok(texts)
}

/// Lengths, then bytes (DELTA_LENGTH_BYTE_ARRAY = 6).
pub(crate) fn length_texts(bytes: &[u8], count: usize) -> Result<Texts, Stop> {
    let mut at = 0;
    let mut ends = lengths(bytes, &mut at, count)?;
    let mut end = 0_usize;
    for place in &mut ends {
        end = end.checked_add(*place).ok_or(SHORT)?;
        *place = end;
    }
    Ok(Texts { ends, bytes: take(bytes, &mut at, end)?.to_vec() })
}

/// What each value shares with the one before it, and the rest of it (DELTA_BYTE_ARRAY = 7).
pub(crate) fn prefix_texts(bytes: &[u8], count: usize) -> Result<Texts, Stop> {
    let mut at = 0;
    let prefixes = lengths(bytes, &mut at, count)?;
    let suffixes = lengths(bytes, &mut at, count)?;
    let mut texts = Texts { ends: Vec::with_capacity(count), bytes: Vec::with_capacity(count * 16) };
    let mut start = 0;
    for (prefix, suffix) in prefixes.into_iter().zip(suffixes) {
        let end = texts.bytes.len();
        if prefix > end - start {
            return Err(Stop::Damaged("a value shares more than there is"));
        }
        texts.bytes.extend_from_within(start..start + prefix);
        texts.bytes.extend_from_slice(take(bytes, &mut at, suffix)?);
        texts.ends.push(texts.bytes.len());
        start = end;
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encode::bits::{put_deltas, put_hybrid, width_of};

    proptest! {
        #[test]
        fn codes_come_back(codes in proptest::collection::vec(prop_oneof![Just(3_u32), 0_u32..70_000], 0..400)) {
            let width = width_of(codes.iter().copied().max().unwrap_or(0));
            let mut bytes = Vec::new();
            put_hybrid(&mut bytes, &codes, width);
            prop_assert_eq!(hybrid(&bytes, width, codes.len()).ok(), Some(codes));
        }

        #[test]
        fn differences_come_back(values in proptest::collection::vec(prop_oneof![any::<i64>(), -5_i64..5, Just(i64::MIN)], 0..400)) {
            let mut bytes = Vec::new();
            put_deltas(&mut bytes, &values);
            let length = bytes.len();
            bytes.extend([7; 3]);
            let mut at = 0;
            prop_assert_eq!(deltas(&bytes, &mut at, values.len()).ok(), Some(values));
            prop_assert_eq!(at, length);
        }

        /// Whatever the bytes: an error or some values, never a panic.
        #[test]
        fn damaged_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), width in 0_u32..40, count in 0_usize..300) {
            let _ = hybrid(&bytes, width, count);
            let _ = deltas(&bytes, &mut 0, count);
            let _ = plain_texts(&bytes, count);
            let _ = length_texts(&bytes, count);
            let _ = prefix_texts(&bytes, count);
            let _ = super::super::page::read_header(&bytes);
        }
    }
}
