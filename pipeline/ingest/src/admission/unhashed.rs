//! Events already taken in whose identifiers wait to be hashed, sixteen events
//! at once: that takes less than half the time of one event after the other.

use ameles_core::Timestamp;
use ameles_pseudonym::{LANES, Waiting};

use super::{Admission, Identifier, View, consent_known};
use crate::batch::{Flags, Part};

/// Rows of one part without their keys, and the identifiers that these come from. They are wiped on drop.
#[derive(Default)]
pub(crate) struct Unhashed {
    /// Where in the part the rows stand.
    rows: [usize; LANES],
    count: usize,
    /// The rows' bits: whether the event named a user, and an event id.
    users_named: u16,
    event_ids_named: u16,
    devices: Waiting,
    users: Waiting,
    event_ids: Waiting,
}

/// An event's identifiers as they are hashed.
#[derive(Clone, Copy)]
pub(crate) struct Identifiers<'a> {
    pub(crate) device: &'a [u8],
    pub(crate) user: Option<&'a [u8]>,
    pub(crate) event_id: Option<&'a [u8]>,
}

impl Unhashed {
    pub(crate) const fn is_full(&self) -> bool {
        self.count == LANES
    }

    /// Notes a row that has just been taken in; nothing may be full.
    #[inline]
    pub(crate) fn put(&mut self, row: usize, identifiers: Identifiers<'_>) {
        let lane = self.count;
        self.rows[lane] = row;
        self.devices.put(lane, identifiers.device);
        if let Some(user) = identifiers.user {
            self.users.put(lane, user);
            self.users_named |= 1 << lane;
        }
        if let Some(event_id) = identifiers.event_id {
            self.event_ids.put(lane, event_id);
            self.event_ids_named |= 1 << lane;
        }
        self.count += 1;
    }

    /// Device, user and event key of each row noted; what stands where none was named means nothing.
    #[inline]
    fn keys(&self, admission: &Admission) -> [[u128; LANES]; 3] {
        let of = |identifier: Option<&Identifier>, waiting| identifier.map(|identifier| identifier.numbers(waiting)).unwrap_or_default();
        [
            admission.device.numbers(&self.devices),
            of(admission.user.as_ref(), &self.users),
            of(admission.event_id.as_ref(), &self.event_ids),
        ]
    }

    /// The keys of the rows noted, which are forgotten: for benchmarks.
    pub(crate) fn take(&mut self, admission: &Admission) -> [[u128; LANES]; 3] {
        let keys = self.keys(admission);
        self.forget();
        keys
    }

    const fn forget(&mut self) {
        (self.count, self.users_named, self.event_ids_named) = (0, 0, 0);
    }

    /// Gives the rows their keys, and flags those that have to be decided in order.
    pub(super) fn settle(&mut self, admission: &Admission, view: &View, part: &mut Part) {
        if self.count == 0 {
            return;
        }
        let [devices, users, event_ids] = self.keys(admission);
        let asks = !view.suppressions.is_empty() || !view.consents_empty;
        for lane in 0..self.count {
            let at = self.rows[lane];
            let row = &mut part.rows[at];
            row.device = devices[lane];
            row.user = if self.users_named >> lane & 1 == 1 { users[lane] } else { 0 };
            row.event_key = if self.event_ids_named >> lane & 1 == 1 { event_ids[lane] } else { 0 };
            if asks {
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
        }
        self.forget();
    }
}
