//! Keys, seals and lookup hashes: how a pseudonym stands in the ledger without being readable there.

use std::fmt;

use ameles_core::{DeviceId, Random, Subject, SuppressedSubject, UserId};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use zeroize::ZeroizeOnDrop;

use crate::LedgerError;

/// The ledger's secrets, which the keyring keeps.
#[derive(Clone, ZeroizeOnDrop)]
pub struct LedgerKeys {
    /// Seals the subjects of suppressions and consents.
    pub suppression: [u8; 32],
    /// Seals and signs the journal.
    pub journal: [u8; 32],
    /// Signs the audit chain.
    pub audit: [u8; 32],
}

impl LedgerKeys {
    /// From the keyring's purposes `suppression`, `journal` and `audit`.
    pub const fn new(suppression: [u8; 32], journal: [u8; 32], audit: [u8; 32]) -> Self {
        Self { suppression, journal, audit }
    }
}

impl fmt::Debug for LedgerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LedgerKeys(…)")
    }
}

/// A keyed hash of a subject: finds its rows without naming it.
pub(crate) type Lookup = [u8; 16];

/// What the ledger's secrets are used for, each use with a key of its own.
pub(crate) struct Keys {
    subject_seal: LessSafeKey,
    subject_lookup: hmac::Key,
    pub(crate) journal_seal: LessSafeKey,
    pub(crate) journal_sign: hmac::Key,
    pub(crate) audit: hmac::Key,
    pub(crate) issued_seal: LessSafeKey,
    pub(crate) issued_name: hmac::Key,
    check: [u8; 32],
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    pub(crate) fn derive(secrets: &LedgerKeys) -> Result<Self, LedgerError> {
        let aead = |secret, label| {
            UnboundKey::new(&AES_256_GCM, &derive(secret, label))
                .map(LessSafeKey::new)
                .map_err(|_| LedgerError::Damaged("a key has the wrong length"))
        };
        Ok(Self {
            subject_seal: aead(&secrets.suppression, "subject seal")?,
            subject_lookup: hmac_key(&secrets.suppression, "subject lookup"),
            journal_seal: aead(&secrets.journal, "journal seal")?,
            journal_sign: hmac_key(&secrets.journal, "journal sign"),
            audit: hmac_key(&secrets.audit, "audit chain"),
            issued_seal: aead(&secrets.suppression, "issued seal")?,
            issued_name: hmac_key(&secrets.suppression, "issued name"),
            check: derive(&[secrets.suppression, secrets.journal, secrets.audit].concat(), "key check"),
        })
    }

    /// Tells the right keys from others without telling them.
    pub(crate) const fn check(&self) -> &[u8; 32] {
        &self.check
    }

    pub(crate) fn lookup(&self, subject: SuppressedSubject) -> Lookup {
        let tag = hmac::sign(&self.subject_lookup, &encode_subject(subject));
        let mut lookup = [0; 16];
        lookup.copy_from_slice(&tag.as_ref()[..16]);
        lookup
    }

    pub(crate) fn lookup_subject(&self, subject: Subject) -> Lookup {
        self.lookup(subject.into())
    }

    /// Seals a subject; `place` binds the seal to its row, so that rows cannot be swapped.
    pub(crate) fn seal_subject(&self, subject: SuppressedSubject, place: &[u8], random: &dyn Random) -> Result<Vec<u8>, LedgerError> {
        seal(&self.subject_seal, &encode_subject(subject), place, random)
    }

    pub(crate) fn open_subject(&self, sealed: &[u8], place: &[u8]) -> Result<SuppressedSubject, LedgerError> {
        open(&self.subject_seal, sealed, place)
            .and_then(|plain| decode_subject(&plain))
            .ok_or(LedgerError::Damaged("a sealed subject does not open"))
    }
}

fn derive(secret: &[u8], label: &str) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), format!("ameles ledger 1 {label}").as_bytes());
    let mut key = [0; 32];
    key.copy_from_slice(tag.as_ref());
    key
}

fn hmac_key(secret: &[u8], label: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &derive(secret, label))
}

/// Nonce, ciphertext and tag in one.
pub(crate) fn seal(key: &LessSafeKey, plain: &[u8], place: &[u8], random: &dyn Random) -> Result<Vec<u8>, LedgerError> {
    let mut nonce = [0; NONCE_LEN];
    random.fill(&mut nonce)?;
    let mut sealed = Vec::with_capacity(NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(plain);
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut sealed[NONCE_LEN..])
        .map_err(|_| LedgerError::Damaged("a value is too long to be sealed"))?;
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

/// What was sealed, where key, place and bytes are the same.
pub(crate) fn open(key: &LessSafeKey, sealed: &[u8], place: &[u8]) -> Option<Vec<u8>> {
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut body = body.to_vec();
    let length = key.open_in_place(nonce, Aad::from(place), &mut body).ok()?.len();
    body.truncate(length);
    Some(body)
}

/// One byte for the kind, then the pseudonym.
pub(crate) fn encode_subject(subject: SuppressedSubject) -> [u8; 17] {
    let (kind, bytes) = match &subject {
        SuppressedSubject::Device(id) => (b'd', id.as_bytes()),
        SuppressedSubject::User(id) => (b'u', id.as_bytes()),
        SuppressedSubject::UserlessOn(id) => (b'l', id.as_bytes()),
    };
    let mut encoded = [kind; 17];
    encoded[1..].copy_from_slice(bytes);
    encoded
}

pub(crate) fn decode_subject(encoded: &[u8]) -> Option<SuppressedSubject> {
    let (kind, bytes) = encoded.split_first()?;
    Some(match kind {
        b'd' => SuppressedSubject::Device(DeviceId::from_slice(bytes).ok()?),
        b'u' => SuppressedSubject::User(UserId::from_slice(bytes).ok()?),
        b'l' => SuppressedSubject::UserlessOn(DeviceId::from_slice(bytes).ok()?),
        _ => return None,
    })
}
