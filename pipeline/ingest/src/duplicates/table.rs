//! The fingerprints in memory: open addressing by their leading bits, in shards that grow one by one,
//! so that growing never needs twice the memory and the whole comes out in order, shard by shard.

/// Shards, by the leading bits.
const SHARD_BITS: u32 = 6;
const SHARDS: usize = 1 << SHARD_BITS;
/// Slots of a shard's first allocation.
const SLOTS_MIN: usize = 8;
/// Bytes of a slot; an empty one is zero, which no fingerprint is.
const SLOT_BYTES: usize = 16;

/// A set of fingerprints.
#[derive(Debug)]
pub(super) struct Table {
    shards: Vec<Shard>,
    len: usize,
    slots: usize,
}

#[derive(Debug, Default)]
struct Shard {
    slots: Vec<u128>,
    len: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), len: 0, slots: 0 }
    }
}

impl Table {
    pub(super) fn contains(&self, fingerprint: u128) -> bool {
        let slots = &self.shards[shard_of(fingerprint)].slots;
        !slots.is_empty() && slots[place(slots, fingerprint)] == fingerprint
    }

    /// Whether it is new.
    pub(super) fn insert(&mut self, fingerprint: u128) -> bool {
        let shard = &mut self.shards[shard_of(fingerprint)];
        let more = shard.growth(1);
        if more > 0 {
            shard.resize(shard.slots.len() + more);
            self.slots += more;
        }
        let new = shard.insert(fingerprint);
        self.len += usize::from(new);
        new
    }

    /// Takes many, sorted and all different. Room is made first: in their order they would
    /// otherwise crowd one end of a shard that is still small.
    pub(super) fn insert_sorted(&mut self, fingerprints: &[u128]) {
        for of_shard in fingerprints.chunk_by(|a, b| shard_of(*a) == shard_of(*b)) {
            let shard = &mut self.shards[shard_of(of_shard[0])];
            let more = shard.growth(of_shard.len());
            if more > 0 {
                shard.resize(shard.slots.len() + more);
                self.slots += more;
            }
            for fingerprint in of_shard {
                self.len += usize::from(shard.insert(*fingerprint));
            }
        }
    }

    /// Bytes that [`Self::insert_sorted`] of these adds.
    pub(super) fn growth(&self, fingerprints: &[u128]) -> usize {
        let by_shard = fingerprints.chunk_by(|a, b| shard_of(*a) == shard_of(*b));
        by_shard.map(|of_shard| self.shards[shard_of(of_shard[0])].growth(of_shard.len())).sum::<usize>() * SLOT_BYTES
    }

    /// Hands out all of them in order, a shard at a time; nothing is taken out.
    pub(super) fn each_sorted<E>(&self, mut each: impl FnMut(&[u128]) -> Result<(), E>) -> Result<(), E> {
        let mut sorted = Vec::new();
        for shard in &self.shards {
            sorted.clear();
            sorted.extend(shard.slots.iter().filter(|slot| **slot != 0));
            sorted.sort_unstable();
            each(&sorted)?;
        }
        Ok(())
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn bytes(&self) -> usize {
        self.slots * SLOT_BYTES
    }
}

impl Shard {
    /// The shard must have a free slot.
    fn insert(&mut self, fingerprint: u128) -> bool {
        let at = place(&self.slots, fingerprint);
        let new = self.slots[at] != fingerprint;
        self.slots[at] = fingerprint;
        self.len += usize::from(new);
        new
    }

    /// Slots that it needs to take so many more; if any, at least half as many as it has.
    fn growth(&self, more: usize) -> usize {
        let (slots, wanted) = (self.slots.len(), slots_for(self.len + more));
        if wanted <= slots { 0 } else { wanted.max(slots + slots / 2).max(SLOTS_MIN) - slots }
    }

    fn resize(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![0; slots]);
        for fingerprint in old.into_iter().filter(|slot| *slot != 0) {
            let at = place(&self.slots, fingerprint);
            self.slots[at] = fingerprint;
        }
    }
}

/// A quarter stays free, so that chains stay short.
const fn slots_for(len: usize) -> usize {
    len + len.div_ceil(3) + 1
}

const fn shard_of(fingerprint: u128) -> usize {
    (fingerprint >> (128 - SHARD_BITS)) as usize
}

/// Where a fingerprint stands, or would.
fn place(slots: &[u128], fingerprint: u128) -> usize {
    let leading = (fingerprint >> (64 - SHARD_BITS)) as u64;
    let mut at = ((u128::from(leading) * slots.len() as u128) >> 64) as usize;
    while slots[at] != 0 && slots[at] != fingerprint {
        at += 1;
        if at == slots.len() {
            at = 0;
        }
    }
    at
}
