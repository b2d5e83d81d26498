//! The keyring's file: format version 1, read strictly, replaced atomically.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ameles_core::Timestamp;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::kek::sync_folder_of;
use crate::keyring::KeyringError;
use crate::sealing::{Sealed, Sealer};

const FORMAT: &str = "ameles-keyring";
const VERSION: u32 = 1;
/// Thousands of epochs fit; a larger file is not a keyring.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What every version of the file says first.
#[derive(Deserialize)]
struct Header {
    format: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileV1 {
    format: String,
    version: u32,
    /// Tells a wrong key from a changed file.
    key_id: String,
    content: Content,
    /// Over `key_id` and `content`.
    authentication: String,
}

/// All that the file keeps. Its compact JSON, in this order of fields, is what
/// the authentication code covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Content {
    /// By domain, in order of epoch; the last one is current.
    pub(crate) domains: BTreeMap<String, Vec<SealedEpoch>>,
    pub(crate) purposes: BTreeMap<String, Sealed>,
    pub(crate) signing: SealedSigning,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SealedEpoch {
    pub(crate) epoch: u32,
    pub(crate) created: Timestamp,
    #[serde(rename = "key")]
    pub(crate) sealed: Sealed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SealedSigning {
    /// For whoever looks for the key that checks certificates.
    pub(crate) public_key: String,
    #[serde(rename = "key")]
    pub(crate) sealed: Sealed,
}

/// Reads and checks the file.
pub(crate) fn read(path: &Path, key_id: &str, sealer: &Sealer) -> Result<Content, KeyringError> {
    let failed = |source| KeyringError::Io { action: "read", path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    let format = |source| KeyringError::Format { path: path.to_owned(), source };
    let header: Header = serde_json::from_slice(&bytes).map_err(format)?;
    if header.format != FORMAT || header.version != VERSION {
        return Err(KeyringError::Version { path: path.to_owned(), found: header.version });
    }
    let file: FileV1 = serde_json::from_slice(&bytes).map_err(format)?;
    if file.key_id != key_id {
        return Err(KeyringError::WrongKey { path: path.to_owned() });
    }
    if !sealer.is_authentic(&covered(key_id, &file.content).map_err(format)?, &file.authentication) {
        return Err(KeyringError::Tampered { path: path.to_owned(), entry: "the file as a whole".to_owned() });
    }
    Ok(file.content)
}

/// Replaces the file by one step: whoever opens it finds the old or the new
/// one, and once this returns the new one survives a power cut.
pub(crate) fn write(path: &Path, key_id: &str, sealer: &Sealer, content: &Content) -> Result<(), KeyringError> {
    let format = |source| KeyringError::Format { path: path.to_owned(), source };
    let authentication = sealer.authenticate(&covered(key_id, content).map_err(format)?);
    let file = FileV1 { format: FORMAT.to_owned(), version: VERSION, key_id: key_id.to_owned(), content: content.clone(), authentication };
    let mut text = serde_json::to_vec_pretty(&file).map_err(format)?;
    text.push(b'\n');
    let failed = |source| KeyringError::Io { action: "write", path: path.to_owned(), source };
    let new = beside(path, ".new");
    // The lock is ours: what lies there is what a crash left.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
    out.write_all(&text).and_then(|()| out.sync_all()).map_err(failed)?;
    std::fs::rename(&new, path).and_then(|()| sync_folder_of(path)).map_err(failed)
}

/// Waits for the other process that is changing the keyring, if there is one.
/// The lock ends with the returned file.
pub(crate) fn lock(path: &Path) -> Result<File, KeyringError> {
    let failed = |source| KeyringError::Io { action: "lock", path: path.to_owned(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(beside(path, ".lock")).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn decode32(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn covered(key_id: &str, content: &Content) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = format!("{FORMAT} v{VERSION} {key_id}\n").into_bytes();
    serde_json::to_writer(&mut bytes, content)?;
    Ok(bytes)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
