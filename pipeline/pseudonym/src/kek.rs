//! The key-encryption key: the one secret that opens the keyring.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ameles_core::{Random, RandomUnavailable};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::hmac;
use zeroize::{Zeroize, Zeroizing};

use crate::SecretKey32;

const KEY_BYTES: usize = 32;
/// Far more than a key takes; a larger file is not one.
const FILE_BYTES_MAX: u64 = 1_024;

const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// The key that seals the keyring; wiped on drop.
#[derive(Clone)]
pub struct KeyEncryptionKey(SecretKey32);

/// The key-encryption key cannot be made or read. Never shows key material.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// A file operation failed.
    #[error("cannot {action} the key file {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The key file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// There is a file already, and its key may be the only one that opens a keyring.
    #[error("{} exists and is not overwritten: a keyring may depend on it; name another file or move it away", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Others may read the key.
    #[error("{} may be used by others (mode {mode:04o}); run: chmod 600 {}", path.display(), path.display())]
    Readable {
        /// The key file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds no key.
    #[error("{} holds no key", path.display())]
    Content {
        /// The key file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<KekError>,
    },
    /// The text is no key.
    #[error("a key-encryption key is 32 bytes in base64 (44 characters); make one with: head -c 32 /dev/urandom | base64")]
    NotAKey,
    /// No randomness to make a key from.
    #[error("cannot make a key")]
    Random(#[from] RandomUnavailable),
}

impl KeyEncryptionKey {
    /// Makes a key and writes it to a new file that only its owner may read.
    ///
    /// # Errors
    /// When the file exists, cannot be written durably, or there is no randomness.
    pub fn create(path: &Path, random: &dyn Random) -> Result<Self, KekError> {
        let mut key = SecretKey32::new([0; KEY_BYTES]);
        random.fill(key.expose_mut())?;
        let mut text = Zeroizing::new(BASE64.encode(key.expose()));
        text.push('\n');
        let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(KekError::Exists { path: path.to_owned() });
            }
            Err(source) => return Err(KekError::Io { action: "create", path: path.to_owned(), source }),
        };
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| sync_folder_of(path));
        if let Err(source) = written {
            // Half a key would block the next attempt; this file is ours, made a moment ago.
            let _ = std::fs::remove_file(path);
            return Err(KekError::Io { action: "write", path: path.to_owned(), source });
        }
        Ok(Self(key))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// When anyone but its owner may use the file, or it holds no key.
    pub fn load(path: &Path) -> Result<Self, KekError> {
        let failed = |source| KekError::Io { action: "read", path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        // Of the open file, not of the path: a path can be exchanged in between.
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KekError::Readable { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize + 1));
        let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
        let content = |source| KekError::Content { path: path.to_owned(), source: Box::new(source) };
        match read {
            Ok(_) => Self::from_base64(&text).map_err(content),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Err(content(KekError::NotAKey)),
            Err(source) => Err(failed(source)),
        }
    }

    /// Reads a key from its base64 text, as an environment variable or a
    /// command's output gives it; blanks around it and missing padding are fine.
    ///
    /// # Errors
    /// When the text is not 32 bytes in base64.
    pub fn from_base64(text: &str) -> Result<Self, KekError> {
        let bytes = Zeroizing::new(BASE64.decode(text.trim()).map_err(|_| KekError::NotAKey)?);
        let mut key = SecretKey32::new([0; KEY_BYTES]);
        if bytes.len() != KEY_BYTES {
            return Err(KekError::NotAKey);
        }
        key.expose_mut().copy_from_slice(&bytes);
        Ok(Self(key))
    }

    /// A key for one use of this key, so that no two uses share key material.
    pub(crate) fn derive(&self, label: &str) -> SecretKey32 {
        let mut bytes = self.tag(label.as_bytes());
        let derived = SecretKey32::new(bytes);
        bytes.zeroize();
        derived
    }

    /// Tells two keys apart without saying anything about either.
    pub(crate) fn fingerprint(&self) -> [u8; 8] {
        let tag = self.tag(b"ameles key id v1");
        let mut id = [0; 8];
        id.copy_from_slice(&tag[..8]);
        id
    }

    fn tag(&self, message: &[u8]) -> [u8; 32] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, self.0.expose()), message);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }
}

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyEncryptionKey(…)")
    }
}

/// Makes the name of a file that was just written durable.
pub(crate) fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::fs::Permissions;

    use ameles_core::SeededRandom;

    use super::*;

    #[test]
    fn a_new_key_file_is_the_owners_alone_and_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("home.key");
        let made = KeyEncryptionKey::create(&path, &SeededRandom::new(1)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = KeyEncryptionKey::load(&path).unwrap();
        assert_eq!(made.0.expose(), read.0.expose());
        assert_eq!(format!("{made:?}"), "KeyEncryptionKey(…)");
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("home.key");
        std::fs::write(&path, "precious").unwrap();
        let error = KeyEncryptionKey::create(&path, &SeededRandom::new(1)).unwrap_err();
        assert!(matches!(error, KekError::Exists { .. }));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_file_that_others_may_use_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("home.key");
        KeyEncryptionKey::create(&path, &SeededRandom::new(1)).unwrap();
        for mode in [0o644, 0o640, 0o604, 0o602] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = KeyEncryptionKey::load(&path).unwrap_err().to_string();
            assert!(error.contains("chmod 600") && error.contains("home.key"), "{error}");
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(KeyEncryptionKey::load(&path).is_ok());
    }

    #[test]
    fn text_that_is_no_key_is_refused_without_showing_it() {
        let key = BASE64.encode([9_u8; 32]);
        assert!(KeyEncryptionKey::from_base64(&format!("  {key}\n")).is_ok());
        assert!(KeyEncryptionKey::from_base64(key.trim_end_matches('=')).is_ok());
        for text in ["", "hunter2hunter2", &BASE64.encode([9_u8; 31]), &BASE64.encode([9_u8; 33])] {
            let error = KeyEncryptionKey::from_base64(text).unwrap_err();
            assert!(matches!(error, KekError::NotAKey));
            assert!(!error.to_string().contains("hunter2"));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("home.key");
        std::fs::write(&path, b"\xff\xff").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(KeyEncryptionKey::load(&path), Err(KekError::Content { .. })));
    }
}
