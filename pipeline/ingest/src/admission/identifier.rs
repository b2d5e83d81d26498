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
    hasher: DomainHasher,
    fold_case: bool,
    bytes_max: usize,
}

impl Identifier {
    pub(crate) const fn new(hasher: DomainHasher, fold_case: bool, bytes_max: usize) -> Self {
        Self { hasher, fold_case, bytes_max }
    }

    /// The field's keyed hash; `None` where the event has none.
    pub(crate) fn key(&self, event: &Decoded<'_>, field: usize) -> Result<Option<[u8; 16]>, Unusable> {
        let Some(mut raw) = event.identifier(field) else {
            return Ok(None);
        };
        let mut normalised = normalise(&raw, self.fold_case);
        let usable = !normalised.is_empty() && normalised.len() <= self.bytes_max;
        let key = usable.then(|| self.hasher.bytes16(normalised.as_bytes()));
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
