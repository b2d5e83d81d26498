//! Fields that the contract does not declare: dropped, counted, and named only
//! where the name can be no identifier.
//!
//! A JSON key may itself be an identifier. So a name is shown only if it looks
//! like a field's and came from at least k devices; until then the devices are
//! kept, as pseudonyms, in memory only.

use ameles_core::DeviceId;
use hashbrown::{HashMap, HashSet};

use crate::decode::Decoded;

/// Names watched at once; the rest is counted without a name.
const NAMES_MAX: usize = 1000;

/// Undeclared fields of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UndeclaredReport {
    /// Values dropped, named or not.
    pub dropped: u64,
    /// Names that look like a field's and came from at least k devices, sorted.
    pub named: Vec<UndeclaredField>,
}

/// An undeclared field that many devices send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndeclaredField {
    /// The key as sent, dotted below a declared object.
    pub name: String,
    /// How often it was dropped.
    pub dropped: u64,
}

/// Counts undeclared fields; one per worker, merged at the end.
#[derive(Clone)]
pub(crate) struct UndeclaredCounter {
    k: usize,
    dropped: u64,
    names: HashMap<String, Seen>,
    name: String,
}

#[derive(Clone, Default)]
struct Seen {
    dropped: u64,
    /// At most k of them.
    devices: HashSet<u128>,
}

impl UndeclaredCounter {
    pub(crate) fn new(k: u32) -> Self {
        Self { k: k.max(1) as usize, dropped: 0, names: HashMap::new(), name: String::new() }
    }

    /// Whether it matters whose event this is: not where each of its names came from enough devices already.
    pub(crate) fn asks_for_device(&mut self, event: &Decoded<'_>) -> bool {
        event.undeclared().any(|(prefix, key)| {
            let seen = self.names.get(named(&mut self.name, prefix, key));
            seen.map_or(self.names.len() < NAMES_MAX, |seen| seen.devices.len() < self.k)
        })
    }

    /// Counts what an event held besides the declared; its device where known.
    pub(crate) fn note(&mut self, event: &Decoded<'_>, device: Option<DeviceId>) {
        self.dropped += event.undeclared_count();
        for (prefix, key) in event.undeclared() {
            let name = named(&mut self.name, prefix, key);
            if !self.names.contains_key(name) {
                // Nobody's name is not watched.
                if self.names.len() >= NAMES_MAX || device.is_none() {
                    continue;
                }
                self.names.insert(name.to_owned(), Seen::default());
            }
            if let Some(seen) = self.names.get_mut(name) {
                seen.dropped += 1;
                if seen.devices.len() < self.k {
                    seen.devices.extend(device.map(|device| device.as_u128()));
                }
            }
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.dropped += other.dropped;
        for (name, theirs) in other.names {
            if self.names.len() >= NAMES_MAX && !self.names.contains_key(&name) {
                continue;
            }
            let seen = self.names.entry(name).or_default();
            seen.dropped += theirs.dropped;
            for device in theirs.devices {
                if seen.devices.len() >= self.k {
                    break;
                }
                seen.devices.insert(device);
            }
        }
    }

    pub(crate) fn report(&self) -> UndeclaredReport {
        let mut named: Vec<UndeclaredField> = self
            .names
            .iter()
            .filter(|(_, seen)| seen.devices.len() >= self.k)
            .map(|(name, seen)| UndeclaredField { name: name.clone(), dropped: seen.dropped })
            .collect();
        named.sort_by(|left, right| left.name.cmp(&right.name));
        UndeclaredReport { dropped: self.dropped, named }
    }
}

/// A name with what stands before it.
fn named<'a>(name: &'a mut String, prefix: &str, key: &str) -> &'a str {
    name.clear();
    name.push_str(prefix);
    name.push_str(key);
    name
}
