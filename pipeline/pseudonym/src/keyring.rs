//! The keyring: domain keys in epochs, purposes, the signing key.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use ameles_core::{Clock, Random, RandomUnavailable, Timestamp};
use ring::signature::{Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

use crate::keyring_file::{self, Content, SealedEpoch, SealedSigning};
use crate::sealing::{Entry, NotOpened, Sealer};
use crate::{DomainHasher, KeyEncryptionKey, SecretBytes, SecretKey32};

/// The keys that are no domain's: `suppression` and `alias` hide what the
/// ledger and quarantine must name, `journal` and `audit` seal and chain.
pub const PURPOSES: [&str; 4] = ["suppression", "alias", "journal", "audit"];

/// The first epoch of each domain.
const FIRST_EPOCH: u32 = 1;
const DOMAIN_CHARS_MAX: usize = 64;

/// The keyring cannot be made, read or changed. Never shows key material.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// A file operation failed.
    #[error("cannot {action} the keyring {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The keyring's file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// There is a keyring already; without it all stored pseudonyms are unreachable.
    #[error("the keyring {} exists and is not overwritten: stored pseudonyms depend on it", path.display())]
    Exists {
        /// The keyring's file.
        path: PathBuf,
    },
    /// The key-encryption key is not the one that sealed the file.
    #[error("the key-encryption key does not open the keyring {}: give the key that was made with it, by default <home>.key, or restore both from the same backup", path.display())]
    WrongKey {
        /// The keyring's file.
        path: PathBuf,
    },
    /// The key is right and the content is not what was written with it.
    #[error("the keyring {} has been changed or damaged ({entry}): restore it from a backup; no key in it is used", path.display())]
    Tampered {
        /// The keyring's file.
        path: PathBuf,
        /// Which part.
        entry: String,
    },
    /// Not a keyring's JSON.
    #[error("{} is not a keyring, or is damaged: restore it from a backup", path.display())]
    Format {
        /// The keyring's file.
        path: PathBuf,
        /// What the parser found.
        #[source]
        source: serde_json::Error,
    },
    /// Another format.
    #[error("{} is not a keyring of format version 1 (found version {found}): use the version of ameles that wrote it, or a later one", path.display())]
    Version {
        /// The keyring's file.
        path: PathBuf,
        /// The version that the file names.
        found: u32,
    },
    /// No such domain.
    #[error("the keyring has no domain {domain:?}; domains come from the data contract: open the home with a contract that names it")]
    UnknownDomain {
        /// The domain asked for.
        domain: String,
    },
    /// No such purpose.
    #[error("the keyring has no key for the purpose {purpose:?}")]
    UnknownPurpose {
        /// The purpose asked for.
        purpose: String,
    },
    /// A name that cannot be a domain's.
    #[error("not a domain name: {name:?}; use 1 to 64 of a-z, A-Z, 0-9, '_', '-' and '.'")]
    DomainName {
        /// The name.
        name: String,
    },
    /// The domain's epochs are used up.
    #[error("the domain {domain:?} has no further epoch")]
    EpochsUsedUp {
        /// The domain.
        domain: String,
    },
    /// No randomness to make a key from.
    #[error("cannot make a key")]
    Random(#[from] RandomUnavailable),
    /// ring refused a key that is right by construction.
    #[error("the cryptographic library refused a key")]
    Library,
}

impl From<NotOpened> for KeyringError {
    fn from(_: NotOpened) -> Self {
        Self::Library
    }
}

/// One key epoch of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochInfo {
    /// The epoch's number, from 1.
    pub epoch: u32,
    /// When its key was made.
    pub created: Timestamp,
}

struct Epoch {
    info: EpochInfo,
    hasher: DomainHasher,
}

/// All keys of a home, opened. Changes are written, under a lock that processes
/// share, before they can be used; a process sees another's changes by [`Keyring::reload`].
pub struct Keyring {
    path: PathBuf,
    kek: KeyEncryptionKey,
    domains: BTreeMap<String, Vec<Epoch>>,
    purposes: BTreeMap<String, SecretKey32>,
    signing: SecretBytes,
    public_key: [u8; 32],
}

impl Keyring {
    /// Makes a keyring with the first epoch of each domain, a key for each
    /// purpose and a signing key, and writes it to a new file.
    ///
    /// # Errors
    /// When the file exists, cannot be written durably, a name cannot be a
    /// domain's, or there is no randomness.
    pub fn create(
        path: &Path,
        kek: &KeyEncryptionKey,
        domains: &[&str],
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<Self, KeyringError> {
        let _lock = keyring_file::lock(path)?;
        if path.symlink_metadata().is_ok() {
            return Err(KeyringError::Exists { path: path.to_owned() });
        }
        let sealer = Sealer::new(kek)?;
        let mut content = Content { domains: BTreeMap::new(), purposes: BTreeMap::new(), signing: new_signing_key(&sealer, random)? };
        add_missing(&mut content, domains, &sealer, clock, random)?;
        keyring_file::write(path, &key_id(kek), &sealer, &content)?;
        Self::unseal(path, kek, &sealer, &content)
    }

    /// Opens a keyring.
    ///
    /// # Errors
    /// When the key is another one, or the file has been changed, is damaged,
    /// of another format, or cannot be read.
    pub fn open(path: &Path, kek: &KeyEncryptionKey) -> Result<Self, KeyringError> {
        let sealer = Sealer::new(kek)?;
        let content = keyring_file::read(path, &key_id(kek), &sealer)?;
        Self::unseal(path, kek, &sealer, &content)
    }

    /// Reads the file again: another process may have added an epoch.
    ///
    /// # Errors
    /// As [`Keyring::open`]; this keyring then stays as it was.
    pub fn reload(&mut self) -> Result<(), KeyringError> {
        *self = Self::open(&self.path, &self.kek)?;
        Ok(())
    }

    /// Makes the first epoch of each domain that has none, and keys for purposes that an earlier version did not know.
    ///
    /// # Errors
    /// When a name cannot be a domain's, the file cannot be read or written, or there is no randomness.
    pub fn ensure_domains(&mut self, domains: &[&str], clock: &dyn Clock, random: &dyn Random) -> Result<(), KeyringError> {
        let known = domains.iter().all(|name| self.domains.contains_key(*name));
        if known && PURPOSES.iter().all(|name| self.purposes.contains_key(*name)) {
            return Ok(());
        }
        self.change(|content, sealer| add_missing(content, domains, sealer, clock, random))
    }

    /// Begins a new epoch of a domain: its pseudonyms can no longer be joined to
    /// earlier ones. Data under earlier epochs stays reachable for erasure.
    ///
    /// # Errors
    /// When there is no such domain, the file cannot be read or written, or there is no randomness.
    pub fn rotate(&mut self, domain: &str, clock: &dyn Clock, random: &dyn Random) -> Result<u32, KeyringError> {
        self.change(|content, sealer| {
            let epochs = content.domains.get_mut(domain).ok_or_else(|| unknown(domain))?;
            let last = epochs.last().map_or(0, |epoch| epoch.epoch);
            let next = last.checked_add(1).ok_or_else(|| KeyringError::EpochsUsedUp { domain: domain.to_owned() })?;
            epochs.push(new_epoch(domain, next, sealer, clock, random)?);
            Ok(next)
        })
    }

    /// The hasher of a domain's current epoch.
    ///
    /// # Errors
    /// When there is no such domain.
    pub fn hasher(&self, domain: &str) -> Result<DomainHasher, KeyringError> {
        self.epochs_of(domain)?.last().map(|epoch| epoch.hasher.clone()).ok_or_else(|| unknown(domain))
    }

    /// The hashers of all epochs of a domain, oldest first.
    ///
    /// # Errors
    /// When there is no such domain.
    pub fn hashers_all_epochs(&self, domain: &str) -> Result<Vec<(u32, DomainHasher)>, KeyringError> {
        Ok(self.epochs_of(domain)?.iter().map(|epoch| (epoch.info.epoch, epoch.hasher.clone())).collect())
    }

    /// The epochs of a domain, oldest first.
    ///
    /// # Errors
    /// When there is no such domain.
    pub fn epochs(&self, domain: &str) -> Result<Vec<EpochInfo>, KeyringError> {
        Ok(self.epochs_of(domain)?.iter().map(|epoch| epoch.info).collect())
    }

    /// The domains, by name.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.domains.keys().map(String::as_str)
    }

    /// The key of a purpose, one of [`PURPOSES`].
    ///
    /// # Errors
    /// When there is no such purpose.
    pub fn secret(&self, purpose: &str) -> Result<SecretKey32, KeyringError> {
        self.purposes.get(purpose).cloned().ok_or_else(|| KeyringError::UnknownPurpose { purpose: purpose.to_owned() })
    }

    /// The Ed25519 key that signs certificates, as PKCS#8 version 2 (RFC 8410).
    ///
    /// # Errors
    /// None at present: an opened keyring has one.
    pub fn signing_key(&self) -> Result<SecretBytes, KeyringError> {
        Ok(self.signing.clone())
    }

    /// The Ed25519 public key that checks certificates.
    pub const fn public_key(&self) -> [u8; 32] {
        self.public_key
    }

    fn epochs_of(&self, domain: &str) -> Result<&[Epoch], KeyringError> {
        self.domains.get(domain).map(Vec::as_slice).ok_or_else(|| unknown(domain))
    }

    /// Changes the file's present content, not what this process read once.
    fn change<T>(&mut self, change: impl FnOnce(&mut Content, &Sealer) -> Result<T, KeyringError>) -> Result<T, KeyringError> {
        let _lock = keyring_file::lock(&self.path)?;
        let sealer = Sealer::new(&self.kek)?;
        let id = key_id(&self.kek);
        let before = keyring_file::read(&self.path, &id, &sealer)?;
        let mut content = before.clone();
        let result = change(&mut content, &sealer)?;
        if content != before {
            keyring_file::write(&self.path, &id, &sealer, &content)?;
        }
        *self = Self::unseal(&self.path, &self.kek, &sealer, &content)?;
        Ok(result)
    }

    fn unseal(path: &Path, kek: &KeyEncryptionKey, sealer: &Sealer, content: &Content) -> Result<Self, KeyringError> {
        let tampered = |entry: Entry<'_>| KeyringError::Tampered { path: path.to_owned(), entry: entry.label() };
        let mut domains = BTreeMap::new();
        for (name, sealed_epochs) in &content.domains {
            let mut epochs = Vec::with_capacity(sealed_epochs.len());
            for sealed in sealed_epochs {
                let entry = Entry::Domain { name, epoch: sealed.epoch };
                let key = open_key(sealer, entry, &sealed.sealed).ok_or_else(|| tampered(entry))?;
                let info = EpochInfo { epoch: sealed.epoch, created: sealed.created };
                epochs.push(Epoch { info, hasher: DomainHasher::new(&key) });
            }
            domains.insert(name.clone(), epochs);
        }
        let mut purposes = BTreeMap::new();
        for (name, sealed) in &content.purposes {
            let entry = Entry::Purpose { name };
            purposes.insert(name.clone(), open_key(sealer, entry, sealed).ok_or_else(|| tampered(entry))?);
        }
        let signing = sealer.open(Entry::Signing, &content.signing.sealed).map_err(|_| tampered(Entry::Signing))?;
        let pair = Ed25519KeyPair::from_pkcs8(signing.expose()).map_err(|_| tampered(Entry::Signing))?;
        let public_key = keyring_file::decode32(&content.signing.public_key)
            .filter(|key| key[..] == *pair.public_key().as_ref())
            .ok_or_else(|| tampered(Entry::Signing))?;
        Ok(Self { path: path.to_owned(), kek: kek.clone(), domains, purposes, signing, public_key })
    }
}

/// Shows where it lies and which epochs there are, and no key.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epochs = |epochs: &Vec<Epoch>| epochs.iter().map(|epoch| epoch.info.epoch).collect::<Vec<_>>();
        let domains: BTreeMap<_, _> = self.domains.iter().map(|(name, of)| (name, epochs(of))).collect();
        f.debug_struct("Keyring").field("path", &self.path).field("epochs", &domains).finish_non_exhaustive()
    }
}

fn unknown(domain: &str) -> KeyringError {
    KeyringError::UnknownDomain { domain: domain.to_owned() }
}

fn key_id(kek: &KeyEncryptionKey) -> String {
    keyring_file::encode(&kek.fingerprint())
}

fn open_key(sealer: &Sealer, entry: Entry<'_>, sealed: &crate::sealing::Sealed) -> Option<SecretKey32> {
    let bytes = sealer.open(entry, sealed).ok()?;
    let mut key = SecretKey32::new([0; 32]);
    if bytes.expose().len() != key.expose().len() {
        return None;
    }
    key.expose_mut().copy_from_slice(bytes.expose());
    Some(key)
}

fn add_missing(
    content: &mut Content,
    domains: &[&str],
    sealer: &Sealer,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<(), KeyringError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    for name in domains {
        if name.is_empty() || name.len() > DOMAIN_CHARS_MAX || !name.bytes().all(fits) {
            return Err(KeyringError::DomainName { name: (*name).to_owned() });
        }
        if !content.domains.contains_key(*name) {
            let epoch = new_epoch(name, FIRST_EPOCH, sealer, clock, random)?;
            content.domains.insert((*name).to_owned(), vec![epoch]);
        }
    }
    for name in PURPOSES {
        if !content.purposes.contains_key(name) {
            let mut key = SecretKey32::new([0; 32]);
            random.fill(key.expose_mut())?;
            content.purposes.insert(name.to_owned(), sealer.seal(Entry::Purpose { name }, key.expose(), random)?);
        }
    }
    Ok(())
}

fn new_epoch(name: &str, epoch: u32, sealer: &Sealer, clock: &dyn Clock, random: &dyn Random) -> Result<SealedEpoch, KeyringError> {
    let mut key = SecretKey32::new([0; 32]);
    random.fill(key.expose_mut())?;
    let sealed = sealer.seal(Entry::Domain { name, epoch }, key.expose(), random)?;
    Ok(SealedEpoch { epoch, created: clock.now(), sealed })
}

/// From our own randomness: ring's generator takes none but ring's, and tests inject theirs.
fn new_signing_key(sealer: &Sealer, random: &dyn Random) -> Result<SealedSigning, KeyringError> {
    /// RFC 5958 with RFC 8410's algorithm identifier, up to the seed and from there to the public key.
    const BEFORE_SEED: [u8; 16] = [0x30, 0x51, 2, 1, 1, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    const BEFORE_PUBLIC: [u8; 3] = [0x81, 0x21, 0];
    let mut seed = SecretKey32::new([0; 32]);
    random.fill(seed.expose_mut())?;
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| KeyringError::Library)?;
    let public_key = pair.public_key().as_ref();
    let mut document = Zeroizing::new(Vec::with_capacity(BEFORE_SEED.len() + BEFORE_PUBLIC.len() + 64));
    for part in [&BEFORE_SEED[..], seed.expose(), &BEFORE_PUBLIC, public_key] {
        document.extend_from_slice(part);
    }
    let sealed = sealer.seal(Entry::Signing, &document, random)?;
    Ok(SealedSigning { public_key: keyring_file::encode(public_key), sealed })
}

#[cfg(test)]
#[path = "keyring_tests.rs"]
mod tests;
