//! A filter of the fingerprints of one run: says "not there" without touching the disk.

/// Words of a block; each key sets one bit in each, and looks at one cache line.
const WORDS: usize = 8;
/// Bits of a fingerprint that choose a word's bit.
const WORD_BITS: u32 = 6;
const BLOCK_BYTES: usize = WORDS * 8;
/// How often a filter can be folded: the number of its blocks is a multiple of two to this power.
const FOLDS: u32 = 4;

/// A split-block Bloom filter that can be made half as large without its keys.
///
/// The block is chosen by multiplication, so that two neighbours become one
/// when their number is halved.
#[derive(Debug)]
pub(super) struct Filter {
    blocks: Vec<Block>,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Block([u64; WORDS]);

impl Filter {
    /// For so many keys with so many bits each; one without bits lets everything through.
    pub(super) fn new(keys: usize, bits: usize) -> Self {
        let step = 1 << FOLDS;
        let blocks = if bits == 0 { 0 } else { keys.saturating_mul(bits).div_ceil(8 * BLOCK_BYTES).next_multiple_of(step).max(step) };
        Self { blocks: vec![Block::default(); blocks] }
    }

    pub(super) fn insert(&mut self, fingerprint: u128) {
        let at = self.block_of(fingerprint);
        if let Some(Block(words)) = self.blocks.get_mut(at) {
            for (number, word) in (0..).zip(words) {
                *word |= bit(fingerprint, number);
            }
        }
    }

    /// False only when the key was never inserted.
    pub(super) fn may_contain(&self, fingerprint: u128) -> bool {
        let Some(Block(words)) = self.blocks.get(self.block_of(fingerprint)) else { return true };
        let missing = (0..).zip(words).fold(0, |missing, (number, word)| missing | (!word & bit(fingerprint, number)));
        missing == 0
    }

    /// Halves it at the price of more false alarms; false when there is nothing left to give.
    pub(super) fn fold(&mut self) -> bool {
        if self.blocks.is_empty() {
            return false;
        }
        if self.blocks.len() % 2 == 1 {
            self.blocks = Vec::new();
            return true;
        }
        let half = self.blocks.len() / 2;
        for at in 0..half {
            let (Block(left), Block(right)) = (self.blocks[2 * at], self.blocks[2 * at + 1]);
            self.blocks[at] = Block(std::array::from_fn(|word| left[word] | right[word]));
        }
        self.blocks.truncate(half);
        self.blocks.shrink_to_fit();
        true
    }

    pub(super) fn bytes(&self) -> usize {
        self.blocks.len() * BLOCK_BYTES
    }

    fn block_of(&self, fingerprint: u128) -> usize {
        let leading = (fingerprint >> 64) as u64;
        ((u128::from(leading) * self.blocks.len() as u128) >> 64) as usize
    }
}

/// By the low half: the leading half chooses the block.
const fn bit(fingerprint: u128, word: u32) -> u64 {
    1 << ((fingerprint as u64 >> (word * WORD_BITS)) & 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(seed: u128, count: u128) -> impl Iterator<Item = u128> {
        (1..=count).map(move |key| {
            (key ^ seed << 64)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)
                .rotate_left(41)
                .wrapping_mul(0xDA94_2042_E4DD_58B5_9E37_79B9_7F4A_7C15)
        })
    }

    #[test]
    fn folded_it_forgets_nothing_and_lets_more_through() {
        let mut filter = Filter::new(10_000, 16);
        keys(1, 10_000).for_each(|key| filter.insert(key));
        let mut before = 0;
        for folds in 0..10 {
            assert!(keys(1, 10_000).all(|key| filter.may_contain(key)), "{folds} folds");
            let false_alarms = keys(2, 10_000).filter(|key| filter.may_contain(*key)).count();
            assert!(false_alarms >= before);
            assert!(folds > 0 || false_alarms < 60, "{false_alarms} of 10,000 at 16 bits");
            assert!(folds > 1 || false_alarms < 600, "{false_alarms} of 10,000 at 8 bits");
            before = false_alarms;
            if !filter.fold() {
                assert_eq!((filter.bytes(), false_alarms), (0, 10_000));
                return;
            }
        }
        unreachable!("a filter folds to nothing");
    }
}
