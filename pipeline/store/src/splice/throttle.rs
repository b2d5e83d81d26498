//! Keeps rewriting from taking the disk for itself.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many bytes a second, read and written, over all threads.
#[derive(Debug)]
pub(crate) struct Throttle {
    bytes_per_s: u64,
    /// When what has been spent so far will be paid for.
    paid_at: Mutex<Option<Instant>>,
}

impl Throttle {
    /// None means no limit.
    pub(crate) const fn new(bytes_per_s: Option<u64>) -> Self {
        Self {
            bytes_per_s: match bytes_per_s {
                Some(bytes) => bytes,
                None => 0,
            },
            paid_at: Mutex::new(None),
        }
    }

    /// How long to wait after so many bytes more, at `now`.
    fn wait(&self, bytes: u64, now: Instant) -> Duration {
        let Some(cost) = bytes.saturating_mul(1_000_000).checked_div(self.bytes_per_s).map(Duration::from_micros) else {
            return Duration::ZERO;
        };
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let until = paid_at.filter(|at| *at > now).unwrap_or(now) + cost;
        *paid_at = Some(until);
        until - now
    }

    /// Accounts for bytes, and waits until they are paid for.
    pub(crate) fn spend(&self, bytes: u64) {
        let wait = self.wait(bytes, Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_paid_for_one_after_the_other() {
        let now = Instant::now();
        let throttle = Throttle::new(Some(1_000));
        assert_eq!(throttle.wait(500, now), Duration::from_millis(500));
        // Another thread's, while the first are not paid for.
        assert_eq!(throttle.wait(1_000, now), Duration::from_millis(1_500));
        // What was not used is not saved up.
        assert_eq!(throttle.wait(100, now + Duration::from_secs(60)), Duration::from_millis(100));
        assert_eq!(Throttle::new(None).wait(u64::MAX, now), Duration::ZERO);
    }
}
