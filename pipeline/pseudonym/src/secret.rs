//! Secrets that cannot be printed and do not outlive their use.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// A key of 32 bytes; wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey32([u8; 32]);

impl SecretKey32 {
    /// Wraps key bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The key's bytes. Whoever copies them wipes the copy.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
    pub(crate) const fn expose_mut(&mut self) -> &mut [u8; 32] {
        &mut self.0
    }
}

impl fmt::Debug for SecretKey32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey32(…)")
    }
}

/// Secret bytes of any length, a PKCS#8 document say; wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Wraps secret bytes.
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
    /// The bytes. Whoever copies them wipes the copy.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(…)")
    }
}
