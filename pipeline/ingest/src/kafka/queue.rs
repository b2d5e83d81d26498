//! Work on its way from the reading thread to the decoding ones: in order, bounded in bytes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Buffers kept to be filled again.
const SPARE_MAX: usize = 32;

/// A queue with one end for the reader and one for all workers.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    bytes_max: usize,
}

struct State<T> {
    waiting: VecDeque<(u64, usize, T)>,
    /// Of what waits and of what is being decoded.
    bytes: usize,
    next: u64,
    closed: bool,
    spare: Vec<Vec<u8>>,
}

impl<T> Queue<T> {
    pub(super) fn new(bytes_max: usize) -> Self {
        let state = State { waiting: VecDeque::new(), bytes: 0, next: 0, closed: false, spare: Vec::new() };
        Self { state: Mutex::new(state), changed: Condvar::new(), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts work at the end, once there is room for it; gives it back when there was none for so long.
    pub(super) fn push(&self, work: T, bytes: usize, wait: Duration) -> Result<(), T> {
        let until = Instant::now() + wait;
        let mut state = self.lock();
        while bytes > 0 && state.bytes > 0 && state.bytes + bytes > self.bytes_max {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(work);
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let place = state.next;
        state.next += 1;
        state.bytes += bytes;
        state.waiting.push_back((place, bytes, work));
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Takes the next work with its place in the order, and what `with` gives at that moment: what is taken later
    /// never sees an older value. `None` once closed and empty.
    pub(super) fn pop<V>(&self, with: impl FnOnce() -> V) -> Option<(u64, usize, T, V)> {
        let mut state = self.lock();
        loop {
            if let Some((place, bytes, work)) = state.waiting.pop_front() {
                return Some((place, bytes, work, with()));
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The work is done: its bytes make room, its buffer serves again.
    pub(super) fn done(&self, bytes: usize, mut buffer: Vec<u8>) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
        if buffer.capacity() > 0 && state.spare.len() < SPARE_MAX {
            buffer.clear();
            state.spare.push(buffer);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// An empty buffer, used before if there is one.
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.lock().spare.pop().unwrap_or_default()
    }

    /// No more work will come.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const NOT_AT_ALL: Duration = Duration::ZERO;

    #[test]
    fn is_bounded_in_bytes_until_the_work_is_done() {
        let queue = Queue::new(10);
        queue.push("a", 6, NOT_AT_ALL).unwrap();
        assert_eq!(queue.push("b", 6, NOT_AT_ALL), Err("b"));
        queue.push("marker", 0, NOT_AT_ALL).unwrap();
        let (place, bytes, work, ()) = queue.pop(|| ()).unwrap();
        assert_eq!((place, bytes, work), (0, 6, "a"));
        assert_eq!(queue.push("b", 6, NOT_AT_ALL), Err("b"), "it is being decoded");
        queue.done(6, Vec::with_capacity(3));
        queue.push("b", 6, NOT_AT_ALL).unwrap();
        assert_eq!(queue.buffer().capacity(), 3);
        queue.close();
        assert_eq!(queue.pop(|| ()).unwrap().2, "marker");
        assert_eq!(queue.pop(|| ()).unwrap().0, 2);
        assert!(queue.pop(|| ()).is_none());
    }

    #[test]
    fn one_piece_of_work_always_fits() {
        let queue = Queue::new(10);
        queue.push("large", 100, NOT_AT_ALL).unwrap();
        assert_eq!(queue.pop(|| ()).unwrap().2, "large");
    }
}
