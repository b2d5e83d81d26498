//! Randomness, injected so that a run can be repeated from its seed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use ring::rand::SecureRandom;

/// Fills buffers with random bytes.
pub trait Random: Send + Sync + fmt::Debug {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// When the operating system gives no randomness: no key or token may be made then.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomUnavailable>;
}

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("the operating system gave no random bytes")]
pub struct RandomUnavailable;

/// A source of randomness that is handed around.
pub type SharedRandom = Arc<dyn Random>;

/// The operating system's cryptographic generator.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomUnavailable> {
        ring::rand::SystemRandom::new().fill(bytes).map_err(|_| RandomUnavailable)
    }
}

/// The same bytes for the same seed.
pub struct SeededRandom(Mutex<StdRng>);

impl SeededRandom {
    /// Starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl fmt::Debug for SeededRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeededRandom")
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomUnavailable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
        Ok(())
    }
}
