//! The one place where an identifier as sent becomes a keyed hash.

use std::borrow::Cow;

use ameles_pseudonym::{DomainHasher, normalise};
use zeroize::Zeroize;

use crate::decode::Decoded;

/// An identifier of which nothing is left, or too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unusable;

/// Hashes one field's identifiers.
pub(crate) struct Identifier {
    /// Of the current key epoch.
    hasher: DomainHasher,
    /// Of every epoch that may still have data, the current one included.
    epochs: Vec<(u32, DomainHasher)>,
    fold_case: bool,
    bytes_max: usize,
}

impl Identifier {
    pub(crate) const fn new(hasher: DomainHasher, fold_case: bool, bytes_max: usize) -> Self {
        Self { hasher, epochs: Vec::new(), fold_case, bytes_max }
    }

    /// This one, able to name a subject under every key epoch.
    pub(crate) fn with_epochs(mut self, epochs: Vec<(u32, DomainHasher)>) -> Self {
        self.epochs = epochs;
        self
    }

    /// The field's keyed hash; `None` where the event has none.
    pub(crate) fn key(&self, event: &Decoded<'_>, field: usize) -> Result<Option<[u8; 16]>, Unusable> {
        self.normalised(event, field, |identifier| self.hasher.bytes16(identifier))
    }

    /// The field's keyed hash under every epoch.
    pub(crate) fn all_keys(&self, event: &Decoded<'_>, field: usize) -> Vec<(u32, [u8; 16])> {
        let of_all = |identifier: &[u8]| self.epochs.iter().map(|(epoch, hasher)| (*epoch, hasher.bytes16(identifier))).collect();
        self.normalised(event, field, of_all).ok().flatten().unwrap_or_default()
    }

    fn normalised<T>(&self, event: &Decoded<'_>, field: usize, hash: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, Unusable> {
        let Some(mut raw) = event.identifier(field) else {
            return Ok(None);
        };
        let mut normalised = normalise(&raw, self.fold_case);
        let usable = !normalised.is_empty() && normalised.len() <= self.bytes_max;
        let key = usable.then(|| hash(normalised.as_bytes()));
        wipe(&mut normalised);
        wipe(&mut raw);
        key.map(Some).ok_or(Unusable)
    }
}

fn wipe(text: &mut Cow<'_, str>) {
    if let Cow::Owned(owned) = text {
        owned.zeroize();
    }
}
