//! Parquet's integer encodings, read: the hybrid of runs and packed bits, and packed deltas; the counterpart of `encode::bits`.
//!
//! `bytes` may hold [`super::pages::PADDING`] bytes more than the values: whole words are loaded. What cannot be is `None`.

/// An unsigned integer of variable length.
pub(crate) fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn zigzag(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let value = varint(bytes, at)?;
    Some((value >> 1) as i64 ^ -((value & 1) as i64))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk::<8>()?))
}

/// Runs and packed groups of numbers of `width` bits, read piece by piece.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hybrid {
    width: u32,
    at: usize,
    end: usize,
    /// Numbers left of the run at hand, and which.
    run: usize,
    value: u32,
    /// Numbers left of the packed groups at hand, and the bit at which the next one begins.
    packed: usize,
    bit: usize,
}

impl Hybrid {
    /// Of the bytes `at..end`.
    pub(crate) fn new(width: u32, at: usize, end: usize) -> Option<Self> {
        (width <= 32).then_some(Self { width, at, end, ..Self::default() })
    }

    /// Whether all of the next `count` numbers are one run of `value`.
    pub(crate) fn is_run_of(&mut self, bytes: &[u8], value: u32, count: usize) -> Option<bool> {
        if self.run == 0 && self.packed == 0 {
            self.begin(bytes)?;
        }
        Some(self.run >= count && self.value == value)
    }

    /// Fills `out`.
    pub(crate) fn read(&mut self, bytes: &[u8], mut out: &mut [u32]) -> Option<()> {
        while !out.is_empty() {
            if self.run > 0 {
                let count = self.run.min(out.len());
                let (now, later) = out.split_at_mut(count);
                now.fill(self.value);
                self.run -= count;
                out = later;
            } else if self.packed > 0 {
                let count = self.packed.min(out.len());
                let (now, later) = out.split_at_mut(count);
                self.unpack(bytes, now)?;
                self.packed -= count;
                out = later;
            } else {
                self.begin(bytes)?;
            }
        }
        Some(())
    }

    fn begin(&mut self, bytes: &[u8]) -> Option<()> {
        if self.at >= self.end {
            return None;
        }
        let head = varint(bytes, &mut self.at)?;
        let count = usize::try_from(head >> 1).ok()?;
        if head & 1 == 1 {
            self.packed = count.checked_mul(8)?;
            self.bit = self.at * 8;
            self.at = self.at.checked_add(count.checked_mul(self.width as usize)?)?;
        } else {
            let size = self.width.div_ceil(8) as usize;
            let mut value = [0; 4];
            value.get_mut(..size)?.copy_from_slice(bytes.get(self.at..self.at + size)?);
            (self.run, self.value) = (count, u32::from_le_bytes(value));
            self.at += size;
        }
        (self.at <= self.end).then_some(())
    }

    fn unpack(&mut self, bytes: &[u8], out: &mut [u32]) -> Option<()> {
        let width = self.width as usize;
        let mask = ((1_u64 << width) - 1) as u32;
        let one = |bit: usize| Some((word(bytes, bit / 8)? >> (bit % 8)) as u32 & mask);
        // Groups of eight begin at a whole byte.
        let head = out.len().min(self.packed % 8);
        let (first, rest) = out.split_at_mut(head);
        for place in first {
            *place = one(self.bit)?;
            self.bit += width;
        }
        let (groups, last) = rest.as_chunks_mut::<8>();
        if width <= 8 {
            for group in groups {
                let packed = word(bytes, self.bit / 8)?;
                for (number, place) in group.iter_mut().enumerate() {
                    *place = (packed >> (number * width)) as u32 & mask;
                }
                self.bit += 8 * width;
            }
        } else {
            for group in groups {
                let packed = bytes.get(self.bit / 8..)?.get(..width + 8)?;
                for (number, place) in group.iter_mut().enumerate() {
                    let bit = number * width;
                    *place = (word(packed, bit / 8)? >> (bit % 8)) as u32 & mask;
                }
                self.bit += 8 * width;
            }
        }
        for place in last {
            *place = one(self.bit)?;
            self.bit += width;
        }
        Some(())
    }
}

/// What stands before packed deltas.
struct DeltaHead {
    block: usize,
    miniblocks: usize,
    count: usize,
    first: i64,
}

impl DeltaHead {
    fn read(bytes: &[u8], at: &mut usize) -> Option<Self> {
        let block = usize::try_from(varint(bytes, at)?).ok()?;
        let miniblocks = usize::try_from(varint(bytes, at)?).ok()?;
        let count = usize::try_from(varint(bytes, at)?).ok()?;
        let first = zigzag(bytes, at)?;
        let fits = (1..=64).contains(&miniblocks) && block > 0 && block <= 1 << 16 && block.is_multiple_of(miniblocks * 8);
        fits.then_some(Self { block, miniblocks, count, first })
    }
}

/// What packed deltas are read as.
pub(crate) trait Narrow: Copy + Default {
    fn narrow(number: i64) -> Self;
}

impl Narrow for i64 {
    fn narrow(number: i64) -> Self {
        number
    }
}

impl Narrow for u8 {
    fn narrow(number: i64) -> Self {
        // What does not fit is refused as too large.
        if number as u64 > 0xff { Self::MAX } else { number as Self }
    }
}

/// DELTA_BINARY_PACKED from `at`, which ends behind it; up to `most` numbers.
pub(crate) fn read_deltas<T: Narrow>(bytes: &[u8], at: &mut usize, most: usize, out: &mut Vec<T>) -> Option<()> {
    let head = DeltaHead::read(bytes, at)?;
    out.clear();
    if head.count > most {
        return None;
    }
    if head.count == 0 {
        return Some(());
    }
    out.reserve(head.count + head.block);
    out.push(T::narrow(head.first));
    let mut last = head.first;
    let per = head.block / head.miniblocks;
    while out.len() < head.count {
        let least = zigzag(bytes, at)?;
        let widths = bytes.get(*at..*at + head.miniblocks)?;
        *at += head.miniblocks;
        for width in widths {
            if out.len() >= head.count {
                break;
            }
            let width = usize::from(*width);
            let start = out.len();
            out.resize(start + per, T::default());
            let numbers = out.get_mut(start..)?;
            match width {
                0 => {
                    for place in numbers {
                        last = last.wrapping_add(least);
                        *place = T::narrow(last);
                    }
                }
                1..=8 => {
                    let mask = (1_u64 << width) - 1;
                    let mut from = *at;
                    for group in numbers.as_chunks_mut::<8>().0 {
                        let packed = word(bytes, from)?;
                        for (number, place) in group.iter_mut().enumerate() {
                            last = last.wrapping_add(least).wrapping_add((packed >> (number * width) & mask) as i64);
                            *place = T::narrow(last);
                        }
                        from += width;
                    }
                }
                9..=57 => {
                    let mask = (1_u64 << width) - 1;
                    let packed = bytes.get(*at..*at + width * per / 8 + 8)?;
                    let mut bit = 0;
                    for place in numbers {
                        last = last.wrapping_add(least).wrapping_add((word(packed, bit / 8)? >> (bit % 8) & mask) as i64);
                        *place = T::narrow(last);
                        bit += width;
                    }
                }
                58..=64 => {
                    let mut bit = *at * 8;
                    for place in numbers {
                        let wide = u128::from_le_bytes(*bytes.get(bit / 8..)?.first_chunk::<16>()?);
                        let delta = (wide >> (bit % 8)) as u64 & (u64::MAX >> (64 - width));
                        last = last.wrapping_add(least).wrapping_add(delta as i64);
                        *place = T::narrow(last);
                        bit += width;
                    }
                }
                _ => return None,
            }
            *at += width * per / 8;
        }
    }
    out.truncate(head.count);
    Some(())
}

/// Passes over packed deltas; gives how many numbers they are, and the one that all are, if all are equal.
pub(crate) fn skip_deltas(bytes: &[u8], at: &mut usize) -> Option<(usize, Option<i64>)> {
    let head = DeltaHead::read(bytes, at)?;
    let per = head.block / head.miniblocks;
    let mut left = head.count.saturating_sub(1);
    let mut equal = true;
    while left > 0 {
        equal &= zigzag(bytes, at)? == 0;
        let widths = bytes.get(*at..*at + head.miniblocks)?;
        *at += head.miniblocks;
        for width in widths {
            if left == 0 {
                break;
            }
            equal &= *width == 0;
            *at += usize::from(*width) * per / 8;
            left = left.saturating_sub(per);
        }
    }
    Some((head.count, equal.then_some(head.first)))
}
