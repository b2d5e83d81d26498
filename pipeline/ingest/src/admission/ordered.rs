//! What has to be decided in the order of arrival: a withdrawal concerns what
//! comes after it, a grant lifts for what comes after it.

use std::sync::Arc;

use ameles_core::{DeviceId, Reason, Subject, SuppressionSet, Timestamp, UserId};
use ameles_ledger::{ConsentBook, ConsentEvent, Ledger, NewRequest};
use hashbrown::{HashMap, HashSet};

use crate::IngestError;
use crate::batch::{ConsentRow, Flags, Part, Row};

/// Grants and withdrawals seen but maybe not yet in the workers' view, and what is to be told to the ledger.
pub(crate) struct Ordered {
    ledger: Ledger,
    suppressions: Arc<SuppressionSet>,
    book: Arc<ConsentBook>,
    /// By subject, sorted by time; at the same instant a withdrawal last, so that it wins.
    seen: HashMap<Subject, Vec<(Timestamp, bool)>>,
    /// Not yet recorded.
    unrecorded: Vec<ConsentEvent>,
    /// Withdrawals that ask for an erasure as well, not yet submitted.
    erasures: Vec<NewRequest>,
    /// Whose these are.
    erasing: HashSet<Subject>,
    /// The book's sequence number that holds all of `seen`; the largest while there is none.
    recorded_sequence: u64,
    /// Subjects whose events were dropped, to be told at the next commit.
    drops: HashSet<Subject>,
}

/// Subjects noted as dropped between two commits; the rest is noted by later ones.
const DROPS_MAX: usize = 100_000;

impl Ordered {
    pub(crate) fn new(ledger: Ledger, suppressions: Arc<SuppressionSet>, book: Arc<ConsentBook>) -> Self {
        Self {
            ledger,
            suppressions,
            book,
            seen: HashMap::new(),
            unrecorded: Vec::new(),
            erasures: Vec::new(),
            erasing: HashSet::new(),
            recorded_sequence: 0,
            drops: HashSet::new(),
        }
    }

    /// The suppressions and consents now, for the next view.
    pub(crate) fn view(&self) -> (Arc<SuppressionSet>, Arc<ConsentBook>) {
        (Arc::clone(&self.suppressions), Arc::clone(&self.book))
    }

    /// Reads what other processes have written meanwhile.
    pub(crate) async fn refresh(&mut self) -> Result<(), IngestError> {
        self.suppressions = self.ledger.suppressions().await.map_err(IngestError::ledger)?;
        self.book = self.ledger.consents().await.map_err(IngestError::ledger)?;
        if self.unrecorded.is_empty() && !self.seen.is_empty() && self.recorded_sequence == u64::MAX {
            self.recorded_sequence = self.book.sequence();
        }
        Ok(())
    }

    /// Forgets what the ledger's book holds by now, if the parts to come were all admitted under a book of `sequence` or later.
    pub(crate) fn forget_recorded(&mut self, sequence: u64) {
        if self.unrecorded.is_empty() && sequence >= self.recorded_sequence {
            self.seen.clear();
        }
    }

    /// Decides the flagged rows of the next part, and takes its grants and withdrawals.
    pub(crate) async fn part(&mut self, part: &mut Part) -> Result<(), IngestError> {
        if part.flagged.is_empty() && part.consents.is_empty() && self.seen.is_empty() {
            return Ok(());
        }
        let consents = std::mem::take(&mut part.consents);
        let flagged = std::mem::take(&mut part.flagged);
        let mut flags_at = flagged.iter().peekable();
        let mut next = consents.into_iter().peekable();
        for at in 0..part.rows.len() {
            while let Some(consent) = next.next_if(|consent| consent.before <= at) {
                self.consent(consent).await?;
            }
            let flags = flags_at.next_if(|(row, _)| *row == at).map_or(Flags::default(), |(_, flags)| *flags);
            if flags == Flags::default() && !self.seen_either(&part.rows[at]) {
                continue;
            }
            if let Some(reason) = self.row(part, at, flags) {
                part.drop_row(at, reason);
            }
        }
        for consent in next {
            self.consent(consent).await?;
        }
        Ok(())
    }

    fn seen_either(&self, row: &Row) -> bool {
        let seen = |subject| self.seen.contains_key(&subject);
        !self.seen.is_empty() && (seen(Subject::Device(row.device_id())) || row.user_id().is_some_and(|user| seen(Subject::User(user))))
    }

    fn row(&mut self, part: &Part, at: usize, flags: Flags) -> Option<Reason> {
        let row = &part.rows[at];
        let (device, user, ts) = (row.device_id(), row.user_id(), Timestamp::from_micros(row.ts));
        if flags.has(Flags::SUPPRESSED) && self.suppressions.covers(device, user, ts) {
            self.note_drop(device, user);
            return Some(Reason::Suppressed);
        }
        if flags.has(Flags::NO_STAMP) || self.withdrawn(device, user, ts, part.arrival) {
            return Some(Reason::NoConsent);
        }
        flags.has(Flags::TOO_LATE).then_some(Reason::TooLate)
    }

    fn note_drop(&mut self, device: DeviceId, user: Option<UserId>) {
        if self.drops.len() < DROPS_MAX {
            self.drops.insert(Subject::Device(device));
            self.drops.extend(user.map(Subject::User));
        }
    }

    /// Whether a withdrawal is in force at the event's time or at its arrival.
    fn withdrawn(&self, device: DeviceId, user: Option<UserId>, ts: Timestamp, arrival: Timestamp) -> bool {
        let of = |subject| self.withdrawn_by(subject, ts, arrival);
        of(Subject::Device(device)) || user.is_some_and(|user| of(Subject::User(user)))
    }

    fn withdrawn_by(&self, subject: Subject, ts: Timestamp, arrival: Timestamp) -> bool {
        let seen = self.seen.get(&subject).map_or(&[][..], Vec::as_slice);
        let then = self.book.state_at(subject, ts).map(|state| (state.at, !state.granted));
        let now = self.book.state_now(subject, arrival).map(|state| (state.at, !state.granted));
        let seen_until = |until: Timestamp| {
            let end = seen.partition_point(|(at, _)| *at <= until);
            end.checked_sub(1).map(|last| seen[last])
        };
        // A withdrawal dated ahead, by a fast clock, holds at once; a grant does not.
        let seen_now = seen.last().filter(|(at, withdrawn)| *withdrawn || *at <= arrival).copied().or_else(|| seen_until(arrival));
        // The later one counts; at the same instant a withdrawal, since false < true.
        let in_force = |book: Option<(Timestamp, bool)>, seen| book.max(seen).is_some_and(|(_, withdrawn)| withdrawn);
        in_force(then, seen_until(ts)) || in_force(now, seen_now)
    }

    async fn consent(&mut self, consent: ConsentRow) -> Result<(), IngestError> {
        let ConsentRow { event, suppressed, erasure, .. } = consent;
        // Once is enough, however often the withdrawal is sent. Whether it was withdrawn before does not tell whether it was
        // erased: that may have been under another regime.
        let asked = self.erasing.contains(&event.subject) || self.suppressions.covers_subject(event.subject, event.at);
        if let Some(erasure) = erasure.filter(|_| !asked) {
            self.erasing.insert(event.subject);
            self.erasures.push(erasure);
        }
        let history = self.seen.entry(event.subject).or_default();
        let entry = (event.at, !event.granted);
        let place = history.partition_point(|old| *old <= entry);
        history.insert(place, entry);
        self.unrecorded.push(event);
        self.recorded_sequence = u64::MAX;
        if suppressed {
            // It may lift a suppression for what comes next.
            self.record().await?;
            self.refresh().await?;
        }
        Ok(())
    }

    /// Tells the ledger of grants, withdrawals and dropped subjects. Repeating it after a crash changes nothing.
    pub(crate) async fn record(&mut self) -> Result<(), IngestError> {
        if !self.unrecorded.is_empty() {
            self.ledger.record_consents(&self.unrecorded).await.map_err(IngestError::ledger)?;
            self.unrecorded.clear();
        }
        if !self.erasures.is_empty() {
            // From here on the subject is suppressed: the commit that follows looks again.
            self.ledger.submit_all(std::mem::take(&mut self.erasures)).await.map_err(IngestError::ledger)?;
            self.suppressions = self.ledger.suppressions().await.map_err(IngestError::ledger)?;
            self.erasing.clear();
        }
        Ok(())
    }

    /// Starts the horizon of suppressions anew whose events were dropped.
    pub(crate) async fn note_drops(&mut self, now: Timestamp) -> Result<(), IngestError> {
        if !self.drops.is_empty() {
            let drops: Vec<Subject> = self.drops.drain().collect();
            self.ledger.note_drops(&drops, now).await.map_err(IngestError::ledger)?;
        }
        Ok(())
    }
}
