//! One assigned partition: where it stands, and the messages read of it that are not yet on their way.

use std::sync::Arc;
use std::time::Instant;

use ameles_schemas::Table;
use ameles_store::Snapshot;

/// The position that means "from the beginning, wherever that is": what `ameles kafka reset` leaves, since a Delta
/// transaction can be overwritten and not removed. It is Kafka's own number for the earliest offset.
pub(crate) const BEGINNING: i64 = -2;

/// Bytes of messages after which a chunk goes to a worker.
const CHUNK_BYTES: usize = 512 << 10;
/// Messages after which it does.
const CHUNK_MESSAGES: usize = 4096;

/// A partition and what it is called.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LaneId {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    /// The id of its position in the log: `kafka:{cluster id}:{topic}:{partition}`.
    pub(super) app: String,
    /// What quarantine calls the topic.
    pub(super) source: Arc<str>,
    /// For the watermark; never used for another.
    pub(super) number: u32,
}

/// The id of a partition's position.
pub(crate) fn app_id(cluster: &str, topic: &str, partition: i32) -> String {
    format!("kafka:{cluster}:{topic}:{partition}")
}

/// One message of a chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message {
    /// Where its payload ends in the chunk's bytes; it begins where the one before ends.
    pub(super) end: u32,
    /// Its offset, counted from the chunk's first.
    pub(super) offset: u32,
    /// Its payload is longer than an event may be, and was not taken.
    pub(super) too_large: bool,
}

/// Messages of one partition in their order.
pub(super) struct Chunk {
    pub(super) lane: Arc<LaneId>,
    /// Where the position must stand.
    pub(super) before: Option<i64>,
    /// The first message's offset.
    pub(super) first: i64,
    /// The next offset to read.
    pub(super) after: i64,
    pub(super) bytes: Vec<u8>,
    pub(super) messages: Vec<Message>,
    /// Quarantine has their rejections from an earlier batch that broke off.
    pub(super) explained: bool,
}

/// Why a partition is not read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The position lies beyond the end.
    Beyond { position: i64, high: i64 },
    /// What comes next has been deleted.
    Lost { position: i64, low: i64 },
    /// The broker says that the topic is another one of the same name.
    Recreated { position: i64 },
}

/// An assigned partition.
pub(super) struct Lane {
    pub(super) id: Arc<LaneId>,
    /// The position that all read so far leads to, as the log has it.
    pub(super) position: Option<i64>,
    /// The position in the log when it was last read there.
    pub(super) found: Option<i64>,
    /// Up to here quarantine has what is rejected.
    explained_until: i64,
    pub(super) stopped: Option<Stopped>,
    /// Whether the position has been compared with what the broker has since it was taken from the log.
    pub(super) checked: bool,
    /// The position at the last comparison: where it is still the same, nothing has come.
    pub(super) checked_at: Option<i64>,
    open: Option<Chunk>,
    pub(super) opened: Option<Instant>,
}

impl Lane {
    pub(super) fn new(id: LaneId) -> Self {
        Self {
            id: Arc::new(id),
            position: None,
            found: None,
            explained_until: i64::MIN,
            stopped: None,
            checked: false,
            checked_at: None,
            open: None,
            opened: None,
        }
    }

    /// Goes to where the log stands; what was read and not sent is forgotten.
    pub(super) fn place(&mut self, snapshot: &Snapshot) {
        self.found = snapshot.txn(Table::Events, &self.id.app);
        self.position = self.found;
        self.explained_until = snapshot.txn(Table::Quarantine, &self.id.app).unwrap_or(i64::MIN);
        self.stopped = None;
        self.checked = false;
        (self.open, self.opened) = (None, None);
    }

    /// The next offset to read; `None` from the beginning.
    pub(super) fn offset(&self) -> Option<i64> {
        self.position.filter(|position| *position >= 0)
    }

    /// What is wrong with the position, given the partition's first and next offset.
    pub(super) fn fault(&self, low: i64, high: i64) -> Option<Stopped> {
        let position = self.offset()?;
        if position > high {
            return Some(Stopped::Beyond { position, high });
        }
        (position < low).then_some(Stopped::Lost { position, low })
    }

    /// Takes a message; gives a chunk that is full.
    pub(super) fn push(
        &mut self,
        offset: i64,
        payload: &[u8],
        bytes_max: usize,
        now: Instant,
        buffer: impl FnOnce() -> Vec<u8>,
    ) -> Option<Chunk> {
        if self.offset().is_some_and(|next| offset < next) {
            return None; // it has been read
        }
        let explained = offset < self.explained_until;
        let distance = self.open.as_ref().map(|chunk| offset - chunk.first);
        let fits =
            self.open.as_ref().is_none_or(|chunk| chunk.explained == explained) && distance.is_none_or(|from| from <= i64::from(u32::MAX));
        let full = if fits { None } else { self.close() };
        let chunk = self.open.get_or_insert_with(|| Chunk {
            lane: Arc::clone(&self.id),
            before: self.position,
            first: offset,
            after: offset,
            bytes: buffer(),
            messages: Vec::with_capacity(1024),
            explained,
        });
        self.opened.get_or_insert(now);
        let too_large = payload.len() > bytes_max;
        if !too_large {
            chunk.bytes.extend_from_slice(payload);
        }
        chunk.messages.push(Message { end: chunk.bytes.len() as u32, offset: (offset - chunk.first) as u32, too_large });
        chunk.after = offset + 1;
        self.position = Some(chunk.after);
        if full.is_some() || (chunk.bytes.len() < CHUNK_BYTES && chunk.messages.len() < CHUNK_MESSAGES) {
            return full;
        }
        self.close()
    }

    /// Gives what was read and not sent.
    pub(super) fn close(&mut self) -> Option<Chunk> {
        self.opened = None;
        self.open.take()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn lane() -> Lane {
        Lane::new(LaneId { topic: "t".into(), partition: 3, app: app_id("c", "t", 3), source: "s".into(), number: 0 })
    }

    fn push(lane: &mut Lane, offset: i64, payload: &[u8]) -> Option<Chunk> {
        lane.push(offset, payload, 100, Instant::now(), Vec::new)
    }

    #[test]
    fn chunks_follow_each_other_without_a_gap_and_a_repeated_offset_is_left_out() {
        let mut lane = lane();
        lane.position = Some(BEGINNING);
        assert!(push(&mut lane, 5, b"a").is_none());
        assert!(push(&mut lane, 5, b"a").is_none());
        assert!(push(&mut lane, 4, b"a").is_none());
        assert!(push(&mut lane, 9, &[b'x'; 101]).is_none());
        let chunk = lane.close().unwrap();
        assert_eq!((chunk.before, chunk.first, chunk.after, chunk.messages.len()), (Some(BEGINNING), 5, 10, 2));
        assert!(chunk.messages[1].too_large && chunk.bytes == b"a");
        push(&mut lane, 10, b"b");
        assert_eq!(lane.close().unwrap().before, Some(10));
    }

    #[test]
    fn what_quarantine_has_already_stands_in_a_chunk_of_its_own() {
        let mut lane = lane();
        lane.explained_until = 2;
        for offset in 0..2 {
            assert!(push(&mut lane, offset, b"a").is_none());
        }
        let explained = push(&mut lane, 2, b"b").unwrap();
        assert!(explained.explained && explained.after == 2);
        let rest = lane.close().unwrap();
        assert!(!rest.explained && rest.before == Some(2) && rest.after == 3);
    }

    #[test]
    fn a_distance_that_no_chunk_can_hold_begins_another() {
        let mut lane = lane();
        push(&mut lane, 0, b"a");
        let far = i64::from(u32::MAX) + 1;
        assert_eq!(push(&mut lane, far, b"b").unwrap().after, 1);
        assert_eq!(lane.close().unwrap().first, far);
    }

    #[test]
    fn a_position_outside_of_what_the_broker_has_is_a_fault() {
        let mut lane = lane();
        assert_eq!(lane.fault(7, 9), None, "from the beginning, wherever that is");
        lane.position = Some(BEGINNING);
        assert_eq!(lane.fault(7, 9), None);
        lane.position = Some(9);
        assert_eq!(lane.fault(7, 9), None);
        assert_eq!(lane.fault(0, 8), Some(Stopped::Beyond { position: 9, high: 8 }));
        assert_eq!(lane.fault(10, 12), Some(Stopped::Lost { position: 9, low: 10 }));
    }
}
