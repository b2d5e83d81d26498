//! Events already taken in whose identifiers wait to be hashed, many of a kind
//! at once: that takes less than half the time of one after the other.

use ameles_core::Timestamp;
use ameles_pseudonym::{LANES, Waiting};
use zeroize::Zeroize;

use super::{Admission, Identifier, View, consent_known};
use crate::batch::{Flags, Part, Row};

/// Identifiers of one part that its rows have no keys of yet; wiped when the part is done.
#[derive(Default)]
pub(crate) struct Unhashed {
    devices: Queue,
    users: Queue,
    event_ids: Queue,
    /// The rows whose subjects have to be looked up once they have their keys.
    asking: Vec<usize>,
}

/// Identifiers of one domain, and where in the part their rows stand.
#[derive(Default)]
struct Queue {
    rows: [u32; LANES],
    count: usize,
    waiting: Waiting,
}

/// An event's identifiers as they are hashed.
#[derive(Clone, Copy)]
pub(crate) struct Identifiers<'a> {
    pub(crate) device: &'a [u8],
    pub(crate) user: Option<&'a [u8]>,
    pub(crate) event_id: Option<&'a [u8]>,
}

impl Queue {
    /// Notes an identifier; the keys of all come when there are as many as are hashed at once.
    #[inline(always)]
    fn put(&mut self, identifier: &Identifier, row: usize, text: &[u8], rows: &mut [Row], key: fn(&mut Row) -> &mut u128) {
        // A part has less than 2^32 lines.
        self.rows[self.count % LANES] = row as u32;
        self.waiting.put(self.count % LANES, text);
        self.count += 1;
        if self.count == LANES {
            self.settle(identifier, rows, key);
        }
    }

    #[inline(never)]
    fn settle(&mut self, identifier: &Identifier, rows: &mut [Row], key: fn(&mut Row) -> &mut u128) {
        if self.count == 0 {
            return;
        }
        let numbers = identifier.numbers(&self.waiting, self.count);
        for (row, number) in self.rows.iter().zip(numbers).take(self.count) {
            *key(&mut rows[*row as usize]) = number;
        }
        self.count = 0;
    }
}

fn device(row: &mut Row) -> &mut u128 {
    &mut row.device
}

fn user(row: &mut Row) -> &mut u128 {
    &mut row.user
}

fn event_key(row: &mut Row) -> &mut u128 {
    &mut row.event_key
}

impl Unhashed {
    /// Notes the identifiers of a row that has just been taken in, without user and event key where it names none.
    #[inline]
    pub(crate) fn put(&mut self, admission: &Admission, identifiers: Identifiers<'_>, row: usize, rows: &mut [Row]) {
        self.devices.put(&admission.device, row, identifiers.device, rows, device);
        if let Some((identifier, text)) = admission.user.as_ref().zip(identifiers.user) {
            self.users.put(identifier, row, text, rows, user);
        }
        if let Some((identifier, text)) = admission.event_id.as_ref().zip(identifiers.event_id) {
            self.event_ids.put(identifier, row, text, rows, event_key);
        }
    }

    /// Notes that a row's subjects may matter.
    pub(super) fn ask(&mut self, row: usize) {
        self.asking.push(row);
    }

    /// Gives all rows their keys, and flags those that have to be decided in order.
    pub(super) fn settle(&mut self, admission: &Admission, view: &View, part: &mut Part) {
        self.devices.settle(&admission.device, &mut part.rows, device);
        if let Some(identifier) = &admission.user {
            self.users.settle(identifier, &mut part.rows, user);
        }
        if let Some(identifier) = &admission.event_id {
            self.event_ids.settle(identifier, &mut part.rows, event_key);
        }
        // Workers are kept for other parts, and no identifier with them.
        for queue in [&mut self.devices, &mut self.users, &mut self.event_ids] {
            queue.waiting.zeroize();
        }
        if self.asking.is_empty() {
            return;
        }
        for at in self.asking.drain(..) {
            let row = &part.rows[at];
            let (device, user, ts) = (row.device_id(), row.user_id(), Timestamp::from_micros(row.ts));
            let mut flags = Flags::default();
            if view.suppressions.covers(device, user, ts) {
                flags = flags.with(Flags::SUPPRESSED);
            }
            if !view.consents_empty && consent_known(&view.consents, device, user) {
                flags = flags.with(Flags::CONSENT_KNOWN);
            }
            if flags.waits() {
                part.flagged.push((at, flags));
            }
        }
        // Others were flagged as they came.
        part.flagged.sort_unstable_by_key(|(at, _)| *at);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ameles_ledger::ConsentBook;

    use super::*;
    use crate::testing::{Home, at};

    #[tokio::test(flavor = "multi_thread")]
    async fn no_identifier_is_kept_when_a_part_is_done() {
        let home = Home::new().await;
        let admission = &home.env.admission;
        let view = View::new(Arc::default(), Arc::new(ConsentBook::default()), at("2018-09-01T00:00:00Z"), None);
        let mut unhashed = Unhashed::default();
        for count in [1, LANES - 1, LANES, LANES + 3] {
            let mut part = Part::new("test".into(), view.arrival, 1, &admission.columns, None, count, 0);
            part.rows.resize(count, Row { device: 0, user: 0, event_key: 0, ts: 0, line: 0 });
            let identifiers = Identifiers { device: b"d1", user: Some(b"u1"), event_id: Some(b"e1") };
            for row in 0..count {
                unhashed.put(admission, identifiers, row, &mut part.rows);
            }
            unhashed.settle(admission, &view, &mut part);
            assert!(part.rows.iter().all(|row| row.device_id() == home.device("d1") && row.user_id() == Some(home.user("u1"))));
            for queue in [&unhashed.devices, &unhashed.users, &unhashed.event_ids] {
                let (kept, nothing) = (&queue.waiting, &Waiting::default());
                assert_eq!(admission.device.numbers(kept, LANES), admission.device.numbers(nothing, LANES), "{count}");
            }
        }
    }
}
