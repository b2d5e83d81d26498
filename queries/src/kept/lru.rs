//! Values up to so many bytes together; who was asked for longest ago goes first.

use std::collections::BTreeMap;
use std::hash::Hash;

use hashbrown::HashMap;

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: usize,
    /// When it was asked for last, by count of questions.
    used: u64,
}

#[derive(Debug)]
pub(super) struct Lru<K, V> {
    bytes_max: usize,
    bytes: usize,
    clock: u64,
    entries: HashMap<K, Entry<V>>,
    by_use: BTreeMap<u64, K>,
}

impl<K: Clone + Eq + Hash, V: Clone + Default> Lru<K, V> {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, clock: 0, entries: HashMap::new(), by_use: BTreeMap::new() }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The key's value; a new one of so many bytes where there is none.
    pub(super) fn get_or_insert(&mut self, key: &K, bytes: usize) -> V {
        self.clock += 1;
        if let Some(entry) = self.entries.get_mut(key) {
            self.by_use.remove(&entry.used);
            entry.used = self.clock;
            self.by_use.insert(self.clock, key.clone());
            return entry.value.clone();
        }
        let value = V::default();
        self.entries.insert(key.clone(), Entry { value: value.clone(), bytes, used: self.clock });
        self.by_use.insert(self.clock, key.clone());
        self.bytes += bytes;
        self.make_room();
        value
    }

    /// Says what a value weighs now; it goes where that is too much.
    pub(super) fn weigh(&mut self, key: &K, bytes: usize) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        self.bytes = self.bytes - entry.bytes + bytes;
        entry.bytes = bytes;
        if bytes > self.bytes_max {
            // Alone too large: the others need not go for it.
            let used = entry.used;
            self.remove(used);
        }
        self.make_room();
    }

    fn make_room(&mut self) {
        while self.bytes > self.bytes_max
            && let Some((oldest, _)) = self.by_use.first_key_value()
        {
            self.remove(*oldest);
        }
    }

    fn remove(&mut self, used: u64) {
        if let Some(key) = self.by_use.remove(&used)
            && let Some(entry) = self.entries.remove(&key)
        {
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_asked_for_longest_ago_goes_first() {
        let mut lru: Lru<&str, u8> = Lru::new(100);
        for key in ["a", "b", "c"] {
            lru.get_or_insert(&key, 30);
        }
        lru.get_or_insert(&"a", 30);
        lru.get_or_insert(&"d", 30);
        assert_eq!(lru.bytes(), 90);
        let mut kept: Vec<&str> = lru.entries.keys().copied().collect();
        kept.sort_unstable();
        assert_eq!(kept, ["a", "c", "d"]);
    }

    #[test]
    fn bytes_are_bounded_whatever_is_weighed() {
        let mut lru: Lru<u32, u8> = Lru::new(1_000);
        for key in 0..200 {
            lru.get_or_insert(&key, 10);
            lru.weigh(&key, 10 + key as usize * 7);
            assert!(lru.bytes() <= 1_000);
            assert_eq!(lru.bytes(), lru.entries.values().map(|entry| entry.bytes).sum::<usize>());
            assert_eq!(lru.entries.len(), lru.by_use.len());
        }
        // What is too large by itself leaves the others where they are.
        let before = lru.entries.len();
        lru.get_or_insert(&999, 1);
        lru.weigh(&999, 5_000);
        assert_eq!(lru.entries.len(), before);
    }
}
