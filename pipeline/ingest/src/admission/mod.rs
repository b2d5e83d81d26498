//! What may become a row: identifiers turned into pseudonyms, then suppression,
//! consent, closed months.
//!
//! A worker decides all that depends on the event alone. What a grant or
//! withdrawal earlier in the same source may change is flagged, and decided in
//! the source's order by `Ordered`.

mod identifier;
mod intake;
mod ordered;
mod unhashed;

use std::sync::Arc;

use ameles_core::{DeviceId, Month, Reason, Subject, SuppressionSet, Timestamp, UserId};
use ameles_ledger::{ConsentBook, NewRequest};
use ameles_schemas::{Collection, Contract, OnWithdrawal, Policy, Regime};

pub(crate) use identifier::{Identifier, Unusable};
use identifier::{Keys, Named};
pub(crate) use intake::Intake;
pub(crate) use ordered::Ordered;
use unhashed::Identifiers;
pub(crate) use unhashed::Unhashed;

use crate::batch::{ColumnSet, Known, Room};
use crate::decode::{Decoded, Decoder, Rejection, Scratch};
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
    scratch: Scratch,
    known: Known,
    unhashed: Unhashed,
    stamps: Stamps,
    pub(crate) undeclared: UndeclaredCounter,
    /// For the rows of the part in hand.
    pub(crate) room: Room,
}

impl Worker {
    pub(crate) fn new(k: u32) -> Self {
        Self {
            scratch: Scratch::default(),
            known: Known::default(),
            unhashed: Unhashed::default(),
            stamps: Stamps::default(),
            undeclared: UndeclaredCounter::new(k),
            room: Room::default(),
        }
    }
}

/// Whether the stamp that events of a country had last is the one that its regime asks for.
#[derive(Default)]
struct Stamps {
    /// By the number of the country's text in the scratch: the stamp's number, and whether it will do.
    of_country: Vec<Option<(u64, bool)>>,
}

impl Stamps {
    /// As [`Admission::stamp_ok`], which is asked where the event's country and stamp have not just been seen together.
    #[inline]
    fn ok(&mut self, admission: &Admission, event: &Decoded<'_>) -> bool {
        let country = admission.contract().roles().country.and_then(|field| event.memo_id(field));
        let Some((stamp, country)) = event.stamp_number().zip(country) else { return admission.stamp_ok(event) };
        let country = country as usize;
        match self.of_country.get(country) {
            Some(Some((of, ok))) if *of == stamp => *ok,
            _ => {
                let ok = admission.stamp_ok(event);
                if self.of_country.len() <= country {
                    self.of_country.resize(country + 1, None);
                }
                self.of_country[country] = Some((stamp, ok));
                ok
            }
        }
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

    /// The event's identifiers where it names all of them plainly, or not at all; `None` says nothing.
    #[inline]
    pub(crate) fn plainly_named<'a>(&self, event: &Decoded<'a>) -> Option<Identifiers<'a>> {
        let roles = self.contract().roles();
        let named = |identifier: Option<&Identifier>, field: Option<usize>| match identifier.zip(field) {
            Some((identifier, field)) if !event.is_absent(field) => identifier.as_sent(event, field).map(Some),
            _ => Some(None),
        };
        Some(Identifiers {
            device: self.device.as_sent(event, roles.device)?,
            user: named(self.user.as_ref(), roles.user)?,
            event_id: named(self.event_id.as_ref(), roles.event_id)?,
        })
    }

    /// The keyed hashes of the event's identifiers, however they are spelt. The first that is unusable is at fault: device,
    /// user, event id.
    #[inline(never)]
    fn keys(&self, event: &Decoded<'_>) -> Result<Keys, Rejection> {
        let roles = self.contract().roles();
        let device = spelt(&self.device, event, roles.device)?.ok_or(Rejection::of(Reason::MissingField, roles.device))?;
        let user = self.user.as_ref().zip(roles.user).map_or(Ok(None), |(identifier, field)| spelt(identifier, event, field))?;
        let event_id =
            self.event_id.as_ref().zip(roles.event_id).map_or(Ok(None), |(identifier, field)| spelt(identifier, event, field))?;
        Ok(identifier::keys(&device, user.as_ref(), event_id.as_ref()))
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
