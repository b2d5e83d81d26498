//! AES-256-GCM around each secret of the keyring, and one authentication code
//! around the whole file, so that no entry can be changed, swapped or taken out.

use ameles_core::{Random, RandomUnavailable};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{KeyEncryptionKey, SecretBytes};

/// A secret as it lies in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sealed {
    nonce: String,
    ciphertext: String,
}

/// What a secret is; bound to its ciphertext, so that no entry passes for another.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry<'a> {
    Domain { name: &'a str, epoch: u32 },
    Purpose { name: &'a str },
    Signing,
}

impl Entry<'_> {
    /// Shows what an error is about, and is the data that the seal covers.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Domain { name, epoch } => format!("domain/{name}/{epoch}"),
            Self::Purpose { name } => format!("purpose/{name}"),
            Self::Signing => "signing".to_owned(),
        }
    }
    fn associated(&self) -> String {
        format!("ameles keyring v1/{}", self.label())
    }
}

/// A secret did not open: another key, or other bytes than were sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotOpened;

/// The keys derived from the key-encryption key, in memory.
pub(crate) struct Sealer {
    aead: LessSafeKey,
    authentication: hmac::Key,
}

impl Sealer {
    pub(crate) fn new(kek: &KeyEncryptionKey) -> Result<Self, NotOpened> {
        let key = kek.derive("ameles keyring seal v1");
        let authentication = kek.derive("ameles keyring authentication v1");
        Ok(Self {
            aead: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| NotOpened)?),
            authentication: hmac::Key::new(hmac::HMAC_SHA256, authentication.expose()),
        })
    }

    pub(crate) fn seal(&self, entry: Entry<'_>, secret: &[u8], random: &dyn Random) -> Result<Sealed, RandomUnavailable> {
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce)?;
        let aad = Aad::from(entry.associated());
        let mut bytes = Zeroizing::new(Vec::with_capacity(secret.len() + AES_256_GCM.tag_len()));
        bytes.extend_from_slice(secret);
        // Fails for messages of 64 GiB only.
        self.aead.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut *bytes).map_err(|_| RandomUnavailable)?;
        Ok(Sealed { nonce: STANDARD.encode(nonce), ciphertext: STANDARD.encode(&*bytes) })
    }

    pub(crate) fn open(&self, entry: Entry<'_>, sealed: &Sealed) -> Result<SecretBytes, NotOpened> {
        let nonce = STANDARD.decode(&sealed.nonce).map_err(|_| NotOpened)?;
        let nonce = Nonce::try_assume_unique_for_key(&nonce).map_err(|_| NotOpened)?;
        let mut bytes = Zeroizing::new(STANDARD.decode(&sealed.ciphertext).map_err(|_| NotOpened)?);
        let plain = self.aead.open_in_place(nonce, Aad::from(entry.associated()), &mut bytes).map_err(|_| NotOpened)?;
        Ok(SecretBytes::new(plain.to_vec()))
    }

    /// The code over the whole file's content.
    pub(crate) fn authenticate(&self, content: &[u8]) -> String {
        STANDARD.encode(hmac::sign(&self.authentication, content))
    }

    /// Whether the content is what was written; compares in constant time.
    pub(crate) fn is_authentic(&self, content: &[u8], code: &str) -> bool {
        STANDARD.decode(code).is_ok_and(|tag| hmac::verify(&self.authentication, content, &tag).is_ok())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use ameles_core::SeededRandom;

    use super::*;

    #[test]
    fn a_secret_opens_only_as_what_it_was_sealed_as() {
        let kek = KeyEncryptionKey::from_base64(&STANDARD.encode([1; 32])).unwrap();
        let sealer = Sealer::new(&kek).unwrap();
        let entry = Entry::Domain { name: "device", epoch: 1 };
        let sealed = sealer.seal(entry, b"secret", &SeededRandom::new(1)).unwrap();
        assert_eq!(sealer.open(entry, &sealed).unwrap().expose(), b"secret");
        for other in [
            Entry::Domain { name: "device", epoch: 2 },
            Entry::Domain { name: "user", epoch: 1 },
            Entry::Purpose { name: "device" },
            Entry::Signing,
        ] {
            assert!(sealer.open(other, &sealed).is_err(), "{other:?}");
        }
    }
}
