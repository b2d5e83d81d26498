//! Keyed identifiers. None of these types can hold a raw identifier.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

/// A pseudonymisation domain that the type system tells apart.
pub trait Domain: 'static {
    /// The domain's name as contracts and the keyring spell it.
    const NAME: &'static str;
}

/// The domain of device identifiers.
pub enum Device {}
/// The domain of user identifiers.
pub enum User {}

impl Domain for Device {
    const NAME: &'static str = "device";
}
impl Domain for User {
    const NAME: &'static str = "user";
}

/// The first 16 bytes of HMAC-SHA-256(domain key, normalised identifier).
pub struct Pseudonym<D: Domain>([u8; 16], PhantomData<fn() -> D>);

/// A device's pseudonym.
pub type DeviceId = Pseudonym<Device>;
/// A user's pseudonym.
pub type UserId = Pseudonym<User>;

/// Bytes that are not an identifier of ours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a pseudonym has 16 bytes, found {found}")]
pub struct IdError {
    /// How many bytes were found.
    pub found: usize,
}

impl<D: Domain> Pseudonym<D> {
    /// Wraps 16 bytes that are already keyed.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes, PhantomData)
    }

    /// Wraps a column's value.
    ///
    /// # Errors
    /// When the value is not 16 bytes long.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
        <[u8; 16]>::try_from(bytes).map(Self::from_bytes).map_err(|_| IdError { found: bytes.len() })
    }

    /// The 16 bytes, as stored.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The bytes as a number whose order is the order of the bytes.
    pub const fn as_u128(&self) -> u128 {
        u128::from_be_bytes(self.0)
    }
}

impl<D: Domain> Clone for Pseudonym<D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Domain> Copy for Pseudonym<D> {}
impl<D: Domain> PartialEq for Pseudonym<D> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<D: Domain> Eq for Pseudonym<D> {}
impl<D: Domain> PartialOrd for Pseudonym<D> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<D: Domain> Ord for Pseudonym<D> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<D: Domain> Hash for Pseudonym<D> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.as_u128());
    }
}
/// Shows the domain only: a pseudonym still singles out a person.
impl<D: Domain> fmt::Debug for Pseudonym<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:…", D::NAME)
    }
}

/// A 16-byte keyed hash of an `event_id`, kept until its month has closed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EventKey(pub [u8; 16]);

/// What kind of subject an erasure request names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectKind {
    /// A device.
    Device,
    /// A user.
    User,
}

impl SubjectKind {
    /// `device` or `user`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Device => Device::NAME,
            Self::User => User::NAME,
        }
    }
}

impl fmt::Display for SubjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A device or a user whose data can be erased.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Subject {
    /// A device.
    Device(DeviceId),
    /// A user.
    User(UserId),
}

impl Subject {
    /// The subject's kind.
    pub const fn kind(&self) -> SubjectKind {
        match self {
            Self::Device(_) => SubjectKind::Device,
            Self::User(_) => SubjectKind::User,
        }
    }

    /// The pseudonym's 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        match self {
            Self::Device(id) => id.as_bytes(),
            Self::User(id) => id.as_bytes(),
        }
    }
}
