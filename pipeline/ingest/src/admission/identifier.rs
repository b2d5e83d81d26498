//! The one place where an identifier as sent becomes a keyed hash.

use std::borrow::Cow;

use ameles_pseudonym::{DomainHasher, LANES, Waiting, is_plainly_normal, normalise};
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
    chars_max: usize,
}

impl Identifier {
    pub(crate) const fn new(hasher: DomainHasher, fold_case: bool, chars_max: usize) -> Self {
        Self { hasher, epochs: Vec::new(), fold_case, chars_max }
    }

    #[inline]
    fn is_short(&self, text: &str) -> bool {
        text.len() <= self.chars_max || text.chars().count() <= self.chars_max
    }

    /// This one, able to name a subject under every key epoch.
    pub(crate) fn with_epochs(mut self, epochs: Vec<(u32, DomainHasher)>) -> Self {
        self.epochs = epochs;
        self
    }

    /// The field's keyed hash; `None` where the event has none.
    pub(crate) fn key(&self, event: &Decoded<'_>, field: usize) -> Result<Option<[u8; 16]>, Unusable> {
        Ok(self.spelt(event, field)?.map(|spelt| self.hasher.bytes16(spelt.bytes())))
    }

    /// The field's keyed hash under every epoch.
    pub(crate) fn all_keys(&self, event: &Decoded<'_>, field: usize) -> Vec<(u32, [u8; 16])> {
        let of_all = |spelt: &Spelt<'_>| self.epochs.iter().map(|(epoch, hasher)| (*epoch, hasher.bytes16(spelt.bytes()))).collect();
        self.spelt(event, field).ok().flatten().as_ref().map(of_all).unwrap_or_default()
    }

    /// The field's identifier where it is hashed as it was sent, which is seen at a glance, and may wait for others;
    /// `None` says nothing.
    #[inline]
    pub(crate) fn as_sent<'a>(&self, event: &Decoded<'a>, field: usize) -> Option<&'a [u8]> {
        let raw = event.plain_bytes(field)?;
        let usable = (1..=self.chars_max).contains(&raw.len()) && Waiting::takes(raw) && is_plainly_normal(raw, self.fold_case);
        usable.then_some(raw)
    }

    /// The keyed hashes of the first `count` identifiers that have waited for each other, as numbers.
    pub(crate) fn numbers(&self, waiting: &Waiting, count: usize) -> [u128; LANES] {
        self.hasher.numbers(waiting, count)
    }

    /// The field's identifier as it is hashed; `None` where the event has none.
    pub(crate) fn spelt<'a>(&self, event: &Decoded<'a>, field: usize) -> Result<Option<Spelt<'a>>, Unusable> {
        let Some(raw) = event.identifier(field) else {
            return Ok(None);
        };
        let spelt = Spelt(match raw {
            Cow::Borrowed(raw) => normalise(raw, self.fold_case),
            Cow::Owned(mut raw) => {
                let spelt = normalise(&raw, self.fold_case).into_owned();
                raw.zeroize();
                Cow::Owned(spelt)
            }
        });
        let usable = !spelt.0.is_empty() && self.is_short(&spelt.0);
        usable.then_some(Some(spelt)).ok_or(Unusable)
    }
}

/// An identifier as it is hashed, wiped on drop where it is a copy.
pub(crate) struct Spelt<'a>(Cow<'a, str>);

impl Spelt<'_> {
    fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Drop for Spelt<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(owned) = &mut self.0 {
            owned.zeroize();
        }
    }
}

/// An identifier, and what hashes it.
pub(crate) type Named<'a> = (&'a Identifier, Spelt<'a>);

/// The keyed hashes of an event's device, user and id: together they take less
/// than one after the other.
pub(crate) fn keys(device: &Named<'_>, user: Option<&Named<'_>>, event_id: Option<&Named<'_>>) -> Keys {
    fn each<const N: usize>(named: [&Named<'_>; N]) -> [[u8; 16]; N] {
        DomainHasher::bytes16_each(named.map(|(identifier, spelt)| (&identifier.hasher, spelt.bytes())))
    }
    match (user, event_id) {
        (Some(user), Some(event_id)) => {
            let [device, user, event_id] = each([device, user, event_id]);
            Keys { device, user: Some(user), event_id: Some(event_id) }
        }
        (Some(user), None) => {
            let [device, user] = each([device, user]);
            Keys { device, user: Some(user), event_id: None }
        }
        (None, Some(event_id)) => {
            let [device, event_id] = each([device, event_id]);
            Keys { device, user: None, event_id: Some(event_id) }
        }
        (None, None) => Keys { device: each([device])[0], user: None, event_id: None },
    }
}

/// An event's keyed hashes.
pub(crate) struct Keys {
    pub(crate) device: [u8; 16],
    pub(crate) user: Option<[u8; 16]>,
    pub(crate) event_id: Option<[u8; 16]>,
}
