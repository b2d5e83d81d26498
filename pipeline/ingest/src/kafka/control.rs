//! What the assembler tells the reading thread, and how work travels between them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use super::lane::{Chunk, LaneId};

/// What the reading thread sends down the line, in order.
pub(super) enum Work {
    Chunk(Chunk),
    /// Commit all that came before, then tell whether that went well.
    Flush(mpsc::SyncSender<bool>),
    /// All that came before and is not being committed yet is void: it is read again.
    Anew,
    /// Partitions were placed, and whether there is something to read in them.
    Gained(Vec<(Arc<LaneId>, bool)>),
    /// Partitions are another's now.
    Gone(Vec<Arc<LaneId>>),
}

impl Work {
    /// Bytes that it keeps in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Chunk(chunk) => chunk.bytes.len() + size_of_val(chunk.messages.as_slice()),
            _ => 0,
        }
    }
}

/// A batch failed: everything is to be read again from what the log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadAgain {
    /// Another process had committed the partition meanwhile: nothing is wrong with the storage.
    pub(super) moved: bool,
}

#[derive(Default)]
pub(super) struct Told {
    pub(super) read_again: Option<ReadAgain>,
    /// Positions committed since, for the group's own offsets.
    pub(super) committed: Vec<(Arc<LaneId>, i64)>,
    pub(super) stop: bool,
}

/// Signals to the reading thread.
#[derive(Default)]
pub(super) struct Control {
    told: Mutex<Told>,
    news: AtomicBool,
    stopping: AtomicBool,
}

impl Control {
    fn tell(&self, change: impl FnOnce(&mut Told)) {
        let mut told: MutexGuard<'_, Told> = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut told);
        self.news.store(true, Ordering::Release);
    }

    pub(super) fn read_again(&self, why: ReadAgain) {
        self.tell(|told| told.read_again = Some(why));
    }

    pub(super) fn committed(&self, positions: impl Iterator<Item = (Arc<LaneId>, i64)>) {
        self.tell(|told| {
            for (lane, position) in positions {
                match told.committed.iter_mut().find(|(known, _)| known.app == lane.app) {
                    Some(known) => known.1 = position,
                    None => told.committed.push((lane, position)),
                }
            }
        });
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.tell(|told| told.stop = true);
    }

    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// What was told since the last time, if anything.
    pub(super) fn take(&self) -> Option<Told> {
        if !self.news.swap(false, Ordering::AcqRel) {
            return None;
        }
        Some(std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// How long to wait before the next attempt: doubled from `first` up to `longest`.
pub(super) fn backoff(attempt: u32, first: Duration, longest: Duration) -> Duration {
    first.saturating_mul(1 << attempt.min(16)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound() {
        let wait = |attempt| backoff(attempt, Duration::from_millis(100), Duration::from_secs(30)).as_millis();
        assert_eq!([wait(0), wait(1), wait(5), wait(30), wait(u32::MAX)], [100, 200, 3_200, 30_000, 30_000]);
    }
}
