//! Keys, domains and pseudonyms: the only crate that sees a raw identifier.
//!
//! A pseudonym is the first 16 bytes of HMAC-SHA-256(domain key, normalised
//! identifier). Each domain has keys of its own, in epochs; all keys lie sealed
//! in one keyring file under a key-encryption key that is kept elsewhere.
//! Ingest and erasure share [`normalise`] and the keyring, so that an identifier
//! typed by hand meets the one that a device sent.

mod hasher;
mod identify;
mod kek;
mod keyring;
mod keyring_file;
mod normalise;
mod raw;
mod sealing;
mod secret;

pub use hasher::{DomainHasher, LANES, Waiting};
pub use identify::{IdentifyError, identify};
pub use kek::{KekError, KeyEncryptionKey};
pub use keyring::{EpochInfo, Keyring, KeyringError, PURPOSES};
pub use normalise::{is_plainly_normal, normalise};
pub use raw::{IdentifierError, RawIdentifier};
pub use secret::{SecretBytes, SecretKey32};
