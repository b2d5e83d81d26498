//! What is remembered of an event: 128 bits that say nothing without this process's key.

use std::fmt;

use ameles_core::{Random, RandomUnavailable};
use siphasher::sip128::SipHasher24;
use zeroize::Zeroizing;

/// Makes fingerprints of (device, event key) by SipHash-2-4 with 128 bits out.
///
/// The key is drawn anew for each memory and never leaves the process. So what is
/// spilled can be tested for a pseudonym by nobody else, and by nobody at all once
/// the process has ended; it does not meet what an earlier process spilled; and
/// nobody can choose identifiers whose fingerprints meet.
pub(super) struct FingerprintKey(Zeroizing<[u8; 16]>);

impl FingerprintKey {
    pub(super) fn new(random: &dyn Random) -> Result<Self, RandomUnavailable> {
        let mut key = Zeroizing::new([0; 16]);
        random.fill(&mut *key)?;
        Ok(Self(key))
    }

    /// Spread evenly over all numbers but 0, whatever the identifiers.
    pub(super) fn of(&self, device: u128, event_key: u128) -> u128 {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&device.to_le_bytes());
        bytes[16..].copy_from_slice(&event_key.to_le_bytes());
        u128::from(SipHasher24::new_with_key(&self.0).hash(&bytes)).max(1)
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(…)")
    }
}
