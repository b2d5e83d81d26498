//! What may become a row: identifiers turned into pseudonyms, then suppression,
//! consent, closed months.
//!
//! A worker decides all that depends on the event alone. What a grant or
//! withdrawal earlier in the same source may change is flagged, and decided in
//! the source's order by `Ordered`.

mod identifier;
mod ordered;

use std::sync::Arc;

use ameles_core::{DeviceId, EventKey, Month, Reason, Subject, SuppressionSet, Timestamp, UserId};
use ameles_ledger::{ConsentBook, ConsentEvent, ConsentSource, NewRequest};
use ameles_pseudonym::DomainHasher;
use ameles_schemas::{Collection, Contract, OnWithdrawal, Policy, Regime};

pub(crate) use identifier::{Identifier, Unusable};
use identifier::{Keys, Named};
pub(crate) use ordered::Ordered;

use crate::batch::{ColumnSet, Flags, Known, Part, Room, Row};
use crate::decode::{Decoded, Decoder, Rejection, Scratch};
use crate::lines::Line;
use crate::undeclared::UndeclaredCounter;

/// How far ahead of its arrival an event may lie.
const AHEAD_SECS: i64 = 24 * 3600;
/// The event that grants.
const GRANTED: &str = "consent_granted";
/// The event that withdraws.
const WITHDRAWN: &str = "consent_withdrawn";

/// What admission knows at one moment.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) suppressions: Arc<SuppressionSet>,
    pub(crate) consents: Arc<ConsentBook>,
    /// Nobody has ever granted or withdrawn: asking the book costs more than knowing.
    pub(crate) consents_empty: bool,
    pub(crate) arrival: Timestamp,
    /// Months before have closed; none for files, which are never too late.
    pub(crate) closed_before: Option<Month>,
}

/// The rules of one contract and policy. Shared by all threads.
pub(crate) struct Admission {
    pub(crate) decoder: Decoder,
    pub(crate) policy: Arc<Policy>,
    pub(crate) device: Identifier,
    pub(crate) user: Option<Identifier>,
    pub(crate) event_id: Option<Identifier>,
    pub(crate) columns: Arc<ColumnSet>,
    /// Fields that are hashed or cut to be stored, and may turn out unusable.
    pub(crate) may_refuse: Vec<usize>,
}

/// Reused from line to line by one thread.
pub(crate) struct Worker {
    pub(crate) scratch: Scratch,
    pub(crate) known: Known,
    pub(crate) undeclared: UndeclaredCounter,
    /// For the rows of the part in hand.
    pub(crate) room: Room,
}

impl Worker {
    pub(crate) fn new(k: u32) -> Self {
        Self { scratch: Scratch::default(), known: Known::default(), undeclared: UndeclaredCounter::new(k), room: Room::default() }
    }
}

impl View {
    pub(crate) fn new(
        suppressions: Arc<SuppressionSet>,
        consents: Arc<ConsentBook>,
        arrival: Timestamp,
        closed_before: Option<Month>,
    ) -> Self {
        Self { suppressions, consents_empty: consents.is_empty(), consents, arrival, closed_before }
    }
}

impl Admission {
    fn contract(&self) -> &Contract {
        self.decoder.contract()
    }

    /// Decides one line, if it is an event at all. `only_partner` limits who may be spoken for.
    pub(crate) fn line(&self, worker: &mut Worker, view: &View, only_partner: Option<&str>, line: &[u8], number: u64, part: &mut Part) {
        self.checked_line(worker, view, only_partner, Line::Bytes(line), number, part);
    }

    /// As [`Self::line`], with what is known of the line.
    pub(crate) fn checked_line(
        &self,
        worker: &mut Worker,
        view: &View,
        only_partner: Option<&str>,
        line: Line<'_>,
        number: u64,
        part: &mut Part,
    ) {
        if line.bytes().iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let Worker { scratch, known, undeclared, .. } = worker;
        let decoded = match line {
            Line::Text(text) => self.decoder.decode_text(scratch, text),
            Line::Bytes(bytes) => self.decoder.decode(scratch, bytes),
        };
        let rejection = match decoded {
            Ok(event) => match self.event(&event, known, view, only_partner, number, part) {
                Ok(device) => {
                    if event.undeclared_count() > 0 {
                        undeclared.note(&event, Some(device));
                    }
                    return;
                }
                Err(rejection) => rejection,
            },
            Err(rejection) => rejection,
        };
        let (partner, device) = self.salvage(scratch, undeclared, view, line.bytes());
        part.reject(rejection, number, partner.as_deref(), device);
    }

    /// What a rejected line still says validly: partner and device. A suppressed device is named nowhere.
    fn salvage(
        &self,
        scratch: &mut Scratch,
        undeclared: &mut UndeclaredCounter,
        view: &View,
        line: &[u8],
    ) -> (Option<Box<str>>, Option<DeviceId>) {
        let roles = self.contract().roles();
        let device_ok = self.decoder.field_ok(scratch, line, roles.device);
        let partner_field = roles.partner.filter(|field| self.decoder.field_ok(scratch, line, *field));
        let Some(event) = self.decoder.salvage(scratch, line) else {
            return (None, None);
        };
        let device = device_ok.then(|| self.device.key(&event, roles.device).ok().flatten()).flatten().map(DeviceId::from_bytes);
        let device = device.filter(|device| !view.suppressions.covers_device(*device));
        if event.undeclared_count() > 0 {
            undeclared.note(&event, device);
        }
        (partner_field.and_then(|field| event.text(field)).map(Box::from), device)
    }

    fn event(
        &self,
        event: &Decoded<'_>,
        known: &mut Known,
        view: &View,
        only_partner: Option<&str>,
        number: u64,
        part: &mut Part,
    ) -> Result<DeviceId, Rejection> {
        let roles = self.contract().roles();
        let ts = event.time(roles.time).ok_or(Rejection::of(Reason::MissingField, roles.time))?;
        if ts > view.arrival.plus_secs(AHEAD_SECS) {
            return Err(Rejection::of(Reason::FromFuture, roles.time));
        }
        if let Some(partner) = only_partner
            && roles.partner.and_then(|field| event.text(field)) != Some(partner)
        {
            return Err(Rejection { reason: Reason::InvalidValue, field: roles.partner });
        }
        let keys = self.keys(event)?;
        let device = DeviceId::from_bytes(keys.device);
        let user = keys.user.map(UserId::from_bytes);
        let event_key = keys.event_id.map(EventKey);
        for at in &self.may_refuse {
            let plan = &self.columns.plans()[*at];
            if plan.refuses(event) {
                return Err(Rejection::of(Reason::InvalidValue, plan.field()));
            }
        }
        let event_type = event.text(roles.event_type).ok_or(Rejection::of(Reason::MissingField, roles.event_type))?;
        let suppressed = !view.suppressions.is_empty() && view.suppressions.covers(device, user, ts);
        if event_type == GRANTED || event_type == WITHDRAWN {
            return self.consent(event, event_type == GRANTED, device, user, ts, suppressed, view, part).map(|()| device);
        }
        let mut flags = Flags::default();
        if suppressed {
            flags = flags.with(Flags::SUPPRESSED);
        }
        if !view.consents_empty && consent_known(&view.consents, device, user) {
            flags = flags.with(Flags::CONSENT_KNOWN);
        }
        if !self.stamp_ok(event) {
            flags = flags.with(Flags::NO_STAMP);
        }
        if view.closed_before.is_some_and(|open| ts.month() < open) {
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
        let row = Row {
            device: device.as_u128(),
            user: user.map_or(0, |user| user.as_u128()),
            event_key: event_key.map_or(0, |key| u128::from_be_bytes(key.0)),
            ts: ts.micros(),
            line: u32::try_from(number.saturating_sub(part.first_line)).unwrap_or(u32::MAX),
        };
        part.accept(row, flags, &self.columns, known, event);
        Ok(device)
    }

    /// The keyed hashes of the event's identifiers. The first that is unusable is at fault: device, user, event id.
    pub(crate) fn keys(&self, event: &Decoded<'_>) -> Result<Keys, Rejection> {
        let roles = self.contract().roles();
        // Most events name all three plainly.
        if let (Some((user, user_field)), Some((event_id, event_id_field))) =
            (self.user.as_ref().zip(roles.user), self.event_id.as_ref().zip(roles.event_id))
            && let (Some(device), Some(user), Some(event_id)) =
                (self.device.as_sent(event, roles.device), user.as_sent(event, user_field), event_id.as_sent(event, event_id_field))
        {
            let [device, user, event_id] = DomainHasher::bytes16_each([device, user, event_id]);
            return Ok(Keys { device, user: Some(user), event_id: Some(event_id) });
        }
        self.keys_however_spelt(event)
    }

    #[inline(never)]
    fn keys_however_spelt(&self, event: &Decoded<'_>) -> Result<Keys, Rejection> {
        let roles = self.contract().roles();
        let device = spelt(&self.device, event, roles.device)?.ok_or(Rejection::of(Reason::MissingField, roles.device))?;
        let user = self.user.as_ref().zip(roles.user).map_or(Ok(None), |(identifier, field)| spelt(identifier, event, field))?;
        let event_id =
            self.event_id.as_ref().zip(roles.event_id).map_or(Ok(None), |(identifier, field)| spelt(identifier, event, field))?;
        Ok(identifier::keys(&device, user.as_ref(), event_id.as_ref()))
    }

    /// A grant or withdrawal: the user's where the event names one, else the device's.
    #[expect(clippy::too_many_arguments, reason = "all of them come from one event")]
    fn consent(
        &self,
        event: &Decoded<'_>,
        granted: bool,
        device: DeviceId,
        user: Option<UserId>,
        ts: Timestamp,
        suppressed: bool,
        view: &View,
        part: &mut Part,
    ) -> Result<(), Rejection> {
        let roles = self.contract().roles();
        let subject = user.map_or(Subject::Device(device), Subject::User);
        let policy = roles.consent_policy.and_then(|field| event.text(field)).map(str::to_owned);
        let purposes = roles.consent_purposes.map(|field| event.list(field).map(str::to_owned).collect()).unwrap_or_default();
        let consent = ConsentEvent { subject, granted, at: ts, policy, purposes, source: ConsentSource::Event };
        if granted {
            part.consent(consent, suppressed, None);
        } else if view.suppressions.covers_subject(subject, ts) {
            // Nothing of a suppressed subject is collected. The ledger alone is told, for its request may be cancelled.
            part.note_withdrawal(consent);
            return Err(Rejection::whole(Reason::Suppressed));
        } else {
            // Whoever else is suppressed that the event names: it withdraws for its own subject.
            let erasure = self.erasure(event, subject, part.arrival);
            part.consent(consent, false, erasure);
        }
        Ok(())
    }

    /// The erasure that a withdrawal asks for where its regime says `on_withdrawal = "erase"`.
    fn erasure(&self, event: &Decoded<'_>, subject: Subject, received: Timestamp) -> Option<NewRequest> {
        let roles = self.contract().roles();
        let regime = self.policy.regime(roles.country.and_then(|field| event.text(field)));
        if regime.on_withdrawal != OnWithdrawal::Erase {
            return None;
        }
        let subjects = match subject {
            Subject::Device(_) => self.device.all_keys(event, roles.device).into_iter().map(device_subject).collect(),
            Subject::User(_) => self.user.as_ref()?.all_keys(event, roles.user?).into_iter().map(user_subject).collect(),
        };
        Some(NewRequest {
            subjects,
            kind: subject.kind(),
            regulation: regime.name.clone(),
            received,
            due: received.plus_months(i32::try_from(regime.erasure_months).unwrap_or(1)),
            reference: None,
            actor: WITHDRAWN.to_owned(),
        })
    }

    /// Whether the event carries the stamp that its regime asks for.
    fn stamp_ok(&self, event: &Decoded<'_>) -> bool {
        let roles = self.contract().roles();
        if roles.consent.is_none() {
            return true; // the contract says on what basis
        }
        let regime = self.policy.regime(roles.country.and_then(|field| event.text(field)));
        match regime.collection {
            Collection::OptOut => true,
            Collection::OptIn => self.stamp_covers(event, regime),
        }
    }

    fn stamp_covers(&self, event: &Decoded<'_>, regime: &Regime) -> bool {
        let roles = self.contract().roles();
        if !roles.consent.is_some_and(|field| event.is_object(field)) {
            return false;
        }
        let policy = roles.consent_policy.and_then(|field| event.text(field));
        let policy_ok = regime.min_policy.as_deref().is_none_or(|min| policy.is_some_and(|policy| policy >= min));
        let purpose_ok =
            |purpose: &String| roles.consent_purposes.is_some_and(|field| event.list(field).any(|stamped| stamped == purpose.as_str()));
        policy_ok && regime.purposes.iter().all(purpose_ok)
    }
}

/// A field's identifier, ready to be hashed.
fn spelt<'a>(identifier: &'a Identifier, event: &Decoded<'a>, field: usize) -> Result<Option<Named<'a>>, Rejection> {
    let spelt = identifier.spelt(event, field).map_err(|Unusable| Rejection::of(Reason::InvalidValue, field))?;
    Ok(spelt.map(|spelt| (identifier, spelt)))
}

const fn device_subject((epoch, key): (u32, [u8; 16])) -> (u32, Subject) {
    (epoch, Subject::Device(DeviceId::from_bytes(key)))
}

const fn user_subject((epoch, key): (u32, [u8; 16])) -> (u32, Subject) {
    (epoch, Subject::User(UserId::from_bytes(key)))
}

/// Whether the ledger knows a grant or withdrawal of either.
fn consent_known(book: &ConsentBook, device: DeviceId, user: Option<UserId>) -> bool {
    let known = |subject| book.state_at(subject, Timestamp::MAX).is_some();
    known(Subject::Device(device)) || user.is_some_and(|user| known(Subject::User(user)))
}
