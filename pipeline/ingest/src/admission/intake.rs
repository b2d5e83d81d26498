//! Lines of one part, one after the other, into its rows.

use ameles_core::{DeviceId, EventKey, Reason, Subject, Timestamp, UserId};
use ameles_ledger::{ConsentEvent, ConsentSource};

use super::unhashed::{Identifiers, Unhashed};
use super::{AHEAD_SECS, Admission, GRANTED, Stamps, View, WITHDRAWN, Worker, consent_known};
use crate::batch::{Flags, Known, Part, Row};
use crate::decode::{Decoded, Rejection, Scratch};
use crate::lines::Line;
use crate::undeclared::UndeclaredCounter;

/// Takes lines into a part. Its rows have their keys once this is dropped.
pub(crate) struct Intake<'a> {
    scratch: &'a mut Scratch,
    undeclared: &'a mut UndeclaredCounter,
    events: Events<'a>,
}

/// Decoded events into rows.
struct Events<'a> {
    admission: &'a Admission,
    view: &'a View,
    only_partner: Option<&'a str>,
    known: &'a mut Known,
    unhashed: &'a mut Unhashed,
    stamps: &'a mut Stamps,
    part: &'a mut Part,
}

impl<'a> Intake<'a> {
    /// `only_partner` limits who may be spoken for.
    pub(crate) fn new(
        admission: &'a Admission,
        worker: &'a mut Worker,
        view: &'a View,
        only_partner: Option<&'a str>,
        part: &'a mut Part,
    ) -> Self {
        let Worker { scratch, known, unhashed, stamps, undeclared, .. } = worker;
        Self { scratch, undeclared, events: Events { admission, view, only_partner, known, unhashed, stamps, part } }
    }

    /// Decides one line, if it is an event at all.
    pub(crate) fn line(&mut self, line: Line<'_>, number: u64) {
        if line.bytes().iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let decoder = &self.events.admission.decoder;
        let decoded = match line {
            Line::Text(line, ahead) => decoder.decode_text(self.scratch, line, ahead),
            Line::Bytes(bytes) => decoder.decode(self.scratch, bytes),
        };
        let rejection = match decoded {
            Ok(event) => {
                let has_undeclared = event.undeclared_count() > 0;
                match self.events.event(&event, number, has_undeclared && self.undeclared.asks_for_device(&event)) {
                    Ok(device) => {
                        if has_undeclared {
                            self.undeclared.note(&event, device);
                        }
                        return;
                    }
                    Err(rejection) => rejection,
                }
            }
            Err(rejection) => rejection,
        };
        let (partner, device) = self.salvage(line.bytes());
        self.events.part.reject(rejection, number, partner.as_deref(), device);
    }

    /// Counts what never was a line of the contract's.
    pub(crate) fn reject(&mut self, rejection: Rejection, number: u64) {
        self.events.part.reject(rejection, number, None, None);
    }

    /// What a rejected line still says validly: partner and device. A suppressed device is named nowhere.
    fn salvage(&mut self, line: &[u8]) -> (Option<Box<str>>, Option<DeviceId>) {
        let Events { admission, view, .. } = self.events;
        let roles = admission.contract().roles();
        let device_ok = admission.decoder.field_ok(self.scratch, line, roles.device);
        let partner_field = roles.partner.filter(|field| admission.decoder.field_ok(self.scratch, line, *field));
        let Some(event) = admission.decoder.salvage(self.scratch, line) else {
            return (None, None);
        };
        let device = device_ok.then(|| admission.device.key(&event, roles.device).ok().flatten()).flatten().map(DeviceId::from_bytes);
        let device = device.filter(|device| !view.suppressions.covers_device(*device));
        if event.undeclared_count() > 0 {
            self.undeclared.note(&event, device);
        }
        (partner_field.and_then(|field| event.text(field)).map(Box::from), device)
    }
}

impl Drop for Intake<'_> {
    fn drop(&mut self) {
        let Events { admission, view, unhashed, part, .. } = &mut self.events;
        unhashed.settle(admission, view, part);
    }
}

impl Events<'_> {
    /// Nobody is suppressed, and nobody has ever granted or withdrawn.
    fn knows_nobody(&self) -> bool {
        self.view.suppressions.is_empty() && self.view.consents_empty
    }

    /// Takes an event in, or says why not. Its device comes back where it is asked for, or was at hand.
    fn event(&mut self, event: &Decoded<'_>, number: u64, asks_for_device: bool) -> Result<Option<DeviceId>, Rejection> {
        let roles = self.admission.contract().roles();
        let ts = event.time(roles.time).ok_or(Rejection::of(Reason::MissingField, roles.time))?;
        if ts > self.view.arrival.plus_secs(AHEAD_SECS) {
            return Err(Rejection::of(Reason::FromFuture, roles.time));
        }
        if let Some(partner) = self.only_partner
            && roles.partner.and_then(|field| event.text(field)) != Some(partner)
        {
            return Err(Rejection { reason: Reason::InvalidValue, field: roles.partner });
        }
        // Most events can wait to be hashed: whoever they name, they are taken in.
        match self.admission.plainly_named(event) {
            Some(identifiers) if !asks_for_device && !is_consent(event, roles.event_type) => self
                .taken_in(event, identifiers, ts, number)
                .map_or_else(|| self.hashed(event, ts, number).map(Some), |taken| taken.map(|()| None)),
            _ => self.hashed(event, ts, number).map(Some),
        }
    }

    /// Takes an event in before its identifiers are hashed; `None` where who they are may matter.
    #[inline]
    fn taken_in(&mut self, event: &Decoded<'_>, identifiers: Identifiers<'_>, ts: Timestamp, number: u64) -> Option<Result<(), Rejection>> {
        if let Err(rejection) = self.refuse(event) {
            return Some(Err(rejection));
        }
        if self.is_late(ts) {
            return None;
        }
        if !self.stamps.ok(self.admission, event) {
            return self.knows_nobody().then_some(Err(Rejection::whole(Reason::NoConsent)));
        }
        let at = self.part.rows.len();
        self.accept(event, Row { device: 0, user: 0, event_key: 0, ts: ts.micros(), line: 0 }, Flags::default(), number);
        self.unhashed.put(self.admission, identifiers, at, &mut self.part.rows);
        if !self.knows_nobody() {
            self.unhashed.ask(at);
        }
        Some(Ok(()))
    }

    /// Takes an event in whose identifiers are hashed first.
    #[inline(never)]
    fn hashed(&mut self, event: &Decoded<'_>, ts: Timestamp, number: u64) -> Result<DeviceId, Rejection> {
        let roles = self.admission.contract().roles();
        let keys = self.admission.keys(event)?;
        let device = DeviceId::from_bytes(keys.device);
        let user = keys.user.map(UserId::from_bytes);
        let event_key = keys.event_id.map(EventKey);
        self.refuse(event)?;
        let view = self.view;
        let suppressed = !view.suppressions.is_empty() && view.suppressions.covers(device, user, ts);
        if is_consent(event, roles.event_type) {
            let granted = event.text(roles.event_type) == Some(GRANTED);
            return self.consent(event, granted, (device, user), ts, suppressed).map(|()| device);
        }
        let mut flags = Flags::default();
        if suppressed {
            flags = flags.with(Flags::SUPPRESSED);
        }
        if !view.consents_empty && consent_known(&view.consents, device, user) {
            flags = flags.with(Flags::CONSENT_KNOWN);
        }
        if !self.stamps.ok(self.admission, event) {
            flags = flags.with(Flags::NO_STAMP);
        }
        if self.is_late(ts) {
            flags = flags.with(Flags::TOO_LATE);
        }
        if !flags.waits() {
            if flags.has(Flags::NO_STAMP) {
                return Err(Rejection::whole(Reason::NoConsent));
            }
            if flags.has(Flags::TOO_LATE) {
                return Err(Rejection::of(Reason::TooLate, roles.time));
            }
        }
        let (user, event_key) = (user.map_or(0, |user| user.as_u128()), event_key.map_or(0, |key| u128::from_be_bytes(key.0)));
        self.accept(event, Row { device: device.as_u128(), user, event_key, ts: ts.micros(), line: 0 }, flags, number);
        Ok(device)
    }

    /// What the contract admits but cannot be stored.
    #[inline]
    fn refuse(&self, event: &Decoded<'_>) -> Result<(), Rejection> {
        for at in &self.admission.may_refuse {
            let plan = &self.admission.columns.plans()[*at];
            if plan.refuses(event) {
                return Err(Rejection::of(Reason::InvalidValue, plan.field()));
            }
        }
        let event_type = self.admission.contract().roles().event_type;
        if event.is_text(event_type) { Ok(()) } else { Err(Rejection::of(Reason::MissingField, event_type)) }
    }

    #[inline]
    fn is_late(&self, ts: Timestamp) -> bool {
        self.view.closed_before.is_some_and(|open| ts.month() < open)
    }

    #[inline]
    fn accept(&mut self, event: &Decoded<'_>, row: Row, flags: Flags, number: u64) {
        let line = u32::try_from(number.saturating_sub(self.part.first_line)).unwrap_or(u32::MAX);
        self.part.accept(Row { line, ..row }, flags, &self.admission.columns, self.known, event);
    }

    /// A grant or withdrawal: the user's where the event names one, else the device's.
    fn consent(
        &mut self,
        event: &Decoded<'_>,
        granted: bool,
        (device, user): (DeviceId, Option<UserId>),
        ts: Timestamp,
        suppressed: bool,
    ) -> Result<(), Rejection> {
        let roles = self.admission.contract().roles();
        let subject = user.map_or(Subject::Device(device), Subject::User);
        let policy = roles.consent_policy.and_then(|field| event.text(field)).map(str::to_owned);
        let purposes = roles.consent_purposes.map(|field| event.list(field).map(str::to_owned).collect()).unwrap_or_default();
        let consent = ConsentEvent { subject, granted, at: ts, policy, purposes, source: ConsentSource::Event };
        if granted {
            self.part.consent(consent, suppressed, None);
        } else if self.view.suppressions.covers_subject(subject, ts) {
            // Nothing of a suppressed subject is collected. The ledger alone is told, for its request may be cancelled.
            self.part.note_withdrawal(consent);
            return Err(Rejection::whole(Reason::Suppressed));
        } else {
            // Whoever else is suppressed that the event names: it withdraws for its own subject.
            let erasure = self.admission.erasure(event, subject, self.part.arrival);
            self.part.consent(consent, false, erasure);
        }
        Ok(())
    }
}

#[inline]
fn is_consent(event: &Decoded<'_>, event_type: usize) -> bool {
    let text = event.plain_bytes(event_type).or_else(|| event.text(event_type).map(str::as_bytes));
    text.is_some_and(|text| text == GRANTED.as_bytes() || text == WITHDRAWN.as_bytes())
}
