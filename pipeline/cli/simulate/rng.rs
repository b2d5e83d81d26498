//! Numbers that depend on the seed alone, on every machine and in every version
//! of every crate: the generator's bytes are part of what tests rely on.

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function (Steele, Lea, Flood 2014): one-to-one, and each
/// bit of the result depends on each bit of the input.
pub const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// SplitMix64.
pub struct Rng(u64);

impl Rng {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }
    pub const fn next(&mut self) -> u64 {
        let value = mix(self.0);
        self.0 = self.0.wrapping_add(STEP);
        value
    }
    /// A number below `bound`, which must not be 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next() >> 32) * bound) >> 32
    }
    pub const fn chance(&mut self, chance: Chance) -> bool {
        chance.0 != 0 && self.next() < chance.0
    }
}

/// A probability as a bound on random numbers.
#[derive(Clone, Copy)]
pub struct Chance(u64);

impl Chance {
    /// Of a share between 0 and 1.
    pub fn new(share: f64) -> Self {
        Self((share.clamp(0.0, 1.0) * u64::MAX as f64) as u64)
    }
}
