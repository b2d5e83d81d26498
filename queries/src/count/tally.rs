//! Counting per bit: how many masks have each of 64 bits.

/// Counts of each bit. Sixteen masks are added at once, as binary numbers that stand upright: plane `i` holds bit `i` of each count.
#[derive(Clone)]
pub struct Tally {
    waiting: [u64; 16],
    waiting_count: usize,
    planes: [u64; 8],
    counts: [u64; 64],
}

impl Default for Tally {
    fn default() -> Self {
        Self { waiting: [0; 16], waiting_count: 0, planes: [0; 8], counts: [0; 64] }
    }
}

/// Three bits of one weight as one of that weight and one of twice it.
const fn add(a: u64, b: u64, c: u64) -> (u64, u64) {
    let half = a ^ b;
    (half ^ c, (a & b) | (half & c))
}

impl Tally {
    /// Counts a mask's bits.
    #[inline]
    pub fn add(&mut self, mask: u64) {
        self.waiting[self.waiting_count & 15] = mask;
        self.waiting_count += 1;
        if self.waiting_count == 16 {
            let masks = self.waiting;
            self.fold(&masks);
            self.waiting_count = 0;
        }
    }

    /// Counts the bits of several.
    pub fn add_all(&mut self, masks: &[u64]) {
        let (groups, rest) = masks.as_chunks::<16>();
        groups.iter().for_each(|group| self.fold(group));
        rest.iter().for_each(|mask| self.add(*mask));
    }

    #[inline]
    fn fold(&mut self, w: &[u64; 16]) {
        let [ones, twos, fours, eights, higher @ ..] = &mut self.planes;
        let mut carries = [0; 8];
        for (carry, pair) in carries.iter_mut().zip(w.as_chunks::<2>().0) {
            (*ones, *carry) = add(*ones, pair[0], pair[1]);
        }
        let mut carries_2 = [0; 4];
        for (carry, pair) in carries_2.iter_mut().zip(carries.as_chunks::<2>().0) {
            (*twos, *carry) = add(*twos, pair[0], pair[1]);
        }
        let (sum, first) = add(*fours, carries_2[0], carries_2[1]);
        let (sum, second) = add(sum, carries_2[2], carries_2[3]);
        *fours = sum;
        let (sum, mut carry) = add(*eights, first, second);
        *eights = sum;
        for plane in higher {
            (*plane, carry) = (*plane ^ carry, *plane & carry);
        }
        while carry != 0 {
            self.counts[carry.trailing_zeros() as usize] += 256;
            carry &= carry - 1;
        }
    }

    /// The count of each bit.
    pub fn counts(&self) -> [u64; 64] {
        let mut counts = self.counts;
        for (bit, count) in counts.iter_mut().enumerate() {
            let planes = self.planes.iter().enumerate().map(|(plane, bits)| (bits >> bit & 1) << plane);
            let waiting = self.waiting.iter().take(self.waiting_count).map(|mask| mask >> bit & 1);
            *count += planes.chain(waiting).sum::<u64>();
        }
        counts
    }
}

/// The bits of a mask, ascending.
pub fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (mask != 0).then(|| mask.trailing_zeros() as usize);
        mask &= mask.wrapping_sub(1);
        bit
    })
}

/// `ameles_core::window_mask`, whose loop over the window's days is here one over its binary digits.
#[inline(always)]
pub fn window_mask(days: u32, next: u32, month_days: u32, window: u32) -> u64 {
    let mut mask = u64::from(days);
    let mut covered = 1;
    while covered * 2 <= window {
        mask |= mask << covered;
        covered *= 2;
    }
    mask |= mask << (window - covered);
    let own = (1_u64 << month_days) - 1;
    // All days of the next month before its own first active one.
    let before_next = (u64::from(next) | 1 << 33).trailing_zeros();
    mask & (own | (((1_u64 << before_next) - 1) << month_days))
}

/// The masks of many rows, with the same month after each.
pub fn window_masks(days: &[u32], next: &[u32], month_days: u32, window: u32, out: &mut Vec<u64>) {
    // A loop for each window that there is: the shifts are known when it is compiled.
    fn all<const WINDOW: u32>(days: &[u32], next: &[u32], month_days: u32, out: &mut Vec<u64>) {
        out.extend(days.iter().zip(next).map(|(days, next)| window_mask(*days, *next, month_days, WINDOW)));
    }
    match window {
        7 => all::<7>(days, next, month_days, out),
        28 => all::<28>(days, next, month_days, out),
        _ => out.extend(days.iter().zip(next).map(|(days, next)| window_mask(*days, *next, month_days, window))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_each_bit() {
        let mut number = 1_u64;
        for length in [0, 1, 15, 16, 17, 255, 256, 300, 5_000] {
            let (mut tally, mut at_once, mut expected) = (Tally::default(), Tally::default(), [0; 64]);
            let mut masks = Vec::new();
            for _ in 0..length {
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let mask = number ^ number >> 29 | 1 << 63;
                tally.add(mask);
                masks.push(mask);
                bits(mask).for_each(|bit| expected[bit] += 1);
            }
            masks.chunks(37).for_each(|part| at_once.add_all(part));
            assert_eq!((tally.counts(), at_once.counts()), (expected, expected), "{length}");
        }
    }

    #[test]
    fn windows_are_those_of_the_core() {
        let mut number = 7_u64;
        for _ in 0..20_000 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let length = 28 + (number >> 60) as u32 % 4;
            let days = (number >> 20) as u32 & ((1 << length) - 1);
            let next = if number >> 59 & 1 == 0 { 0 } else { (number >> 7) as u32 & 0x7fff_ffff };
            let next = next & next.wrapping_shl((number >> 3) as u32 % 31) & 0x7fff_ffff;
            for window in [1, 2, 7, 13, 27, 28] {
                let mut masks = Vec::new();
                window_masks(&[days], &[next], length, window, &mut masks);
                assert_eq!(masks, [ameles_core::window_mask(days, next, length, window)]);
                assert_eq!(window_mask(days, next, length, window), ameles_core::window_mask(days, next, length, window));
            }
        }
    }
}
