//! A part: what became of one chunk of a source, in its order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use ameles_core::{DeviceId, Reason, Tally, Timestamp, UserId};
use ameles_ledger::{ConsentEvent, NewRequest};

use super::columns::{Cell, ColumnSet};
use super::dictionary::{Dictionaries, Known};
use super::quarantine::{HourlyCounts, QuarantineRow};
use super::words::Words;
use crate::decode::{Decoded, Rejection};

/// Buckets that are counted; of more, which only times spread over decades make, the rows are compared.
const BUCKETS_COUNTED_MAX: usize = 1 << 14;

/// What a row needs decided in order, because grants and withdrawals before it may matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(u8);

impl Flags {
    /// Covered by a suppression as far as the worker knew.
    pub(crate) const SUPPRESSED: Self = Self(1);
    /// The ledger knows a grant or withdrawal of the device or the user.
    pub(crate) const CONSENT_KNOWN: Self = Self(2);
    /// Lacks the stamp that its regime asks for.
    pub(crate) const NO_STAMP: Self = Self(4);
    /// Its month has closed.
    pub(crate) const TOO_LATE: Self = Self(8);

    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
    /// Whether the decision has to wait for its turn.
    pub(crate) const fn waits(self) -> bool {
        self.has(Self(Self::SUPPRESSED.0 | Self::CONSENT_KNOWN.0))
    }
}

/// The keys of an admitted event; zero where there is no user or event id,
/// which no keyed hash ever is in practice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) device: u128,
    pub(crate) user: u128,
    pub(crate) event_key: u128,
    pub(crate) ts: i64,
    /// Its line, counted from the part's first.
    pub(crate) line: u32,
}

impl Row {
    pub(crate) const fn device_id(&self) -> DeviceId {
        DeviceId::from_bytes(self.device.to_be_bytes())
    }
    pub(crate) const fn user_id(&self) -> Option<UserId> {
        if self.user == 0 { None } else { Some(UserId::from_bytes(self.user.to_be_bytes())) }
    }
}

/// A grant or withdrawal, and how many rows stand before it in the part.
#[derive(Debug, Clone)]
pub(crate) struct ConsentRow {
    pub(crate) before: usize,
    pub(crate) event: ConsentEvent,
    /// A suppression covered the subject as far as the worker knew: a grant may lift it.
    pub(crate) suppressed: bool,
    /// A withdrawal whose regime asks for an erasure as well.
    pub(crate) erasure: Option<NewRequest>,
}

/// Room for a part's rows that one thread uses again and again: it stays in the
/// core's cache, and the system has not to give new memory for each chunk.
#[derive(Default)]
pub(crate) struct Room {
    rows: Vec<Row>,
    words: Vec<u32>,
}

/// What became of one chunk.
pub(crate) struct Part {
    pub(crate) source: Arc<str>,
    pub(crate) arrival: Timestamp,
    pub(crate) rows: Vec<Row>,
    words: Words,
    pub(crate) dictionaries: Arc<Dictionaries>,
    groups: Option<Groups>,
    pub(crate) first_line: u64,
    /// Lines, where they are counted: rows, rejected ones, and empty ones.
    pub(crate) lines: u64,
    pub(crate) flagged: Vec<(usize, Flags)>,
    /// Rows that were taken out again, by place; empty when there are none.
    dropped: Vec<bool>,
    /// The place that each row had when [`Self::remember_order`] was called; empty unless it was.
    arrivals: Vec<u32>,
    pub(crate) consents: Vec<ConsentRow>,
    /// Rows of `quarantine`.
    pub(crate) rejected: Vec<QuarantineRow>,
    /// Counts of the reasons that must name nobody.
    pub(crate) counted: HourlyCounts,
    pub(crate) tally: Tally,
    /// Quarantine has its rejected lines from an earlier run that broke off: they are counted, not explained again.
    pub(crate) explained: bool,
    /// The partition, where the source is Kafka: "lines" are offsets then.
    pub(crate) partition: Option<i32>,
    /// For a reply: line, reason, field.
    pub(crate) errors: Vec<(u64, Rejection)>,
    errors_max: usize,
    /// Word and dictionary of `partner`, for the hourly counts.
    partner_cell: Option<(usize, usize)>,
}

/// The rows of one month whose devices begin with the same bits: neighbours once the part is grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    /// `Month::epoch_months`.
    pub(crate) month: i32,
    /// The device's leading bits.
    pub(crate) range: u32,
    /// Its first row.
    pub(crate) start: u32,
    /// Behind its last row.
    pub(crate) end: u32,
}

/// How a part's rows are grouped.
struct Groups {
    bits: u32,
    groups: Vec<Group>,
}

/// Places in ascending order of their bucket, those of one bucket in their order.
pub(super) fn stable_order(buckets: &[u32], count: usize) -> Vec<u32> {
    if count > BUCKETS_COUNTED_MAX {
        let mut order: Vec<u32> = (0..buckets.len() as u32).collect();
        order.sort_by_key(|at| buckets[*at as usize]);
        return order;
    }
    let mut places = vec![0_u32; count];
    for bucket in buckets {
        places[*bucket as usize] += 1;
    }
    let mut end = 0;
    for place in &mut places {
        end += *place;
        *place = end - *place;
    }
    let mut order = vec![0; buckets.len()];
    for (at, bucket) in (0..).zip(buckets) {
        let place = &mut places[*bucket as usize];
        order[*place as usize] = at;
        *place += 1;
    }
    order
}

/// The leading bits of a device.
pub(crate) const fn range_of(device: u128, bits: u32) -> u32 {
    if bits == 0 { 0 } else { (device >> (u128::BITS - bits)) as u32 }
}

impl Part {
    pub(crate) fn new(
        source: Arc<str>,
        arrival: Timestamp,
        first_line: u64,
        columns: &ColumnSet,
        partner_field: Option<usize>,
        rows: usize,
        errors_max: usize,
    ) -> Self {
        let partner_cell = partner_field.and_then(|field| columns.column_of(field)).and_then(|column| match columns.cells()[column] {
            Cell::Text { word, dictionary } => Some((word, dictionary)),
            _ => None,
        });
        Self {
            source,
            arrival,
            rows: Vec::with_capacity(rows),
            words: Words::new(columns.words(), rows, Vec::new()),
            dictionaries: columns.dictionaries(),
            groups: None,
            first_line,
            lines: 0,
            flagged: Vec::new(),
            dropped: Vec::new(),
            arrivals: Vec::new(),
            consents: Vec::new(),
            rejected: Vec::new(),
            counted: HourlyCounts::default(),
            tally: Tally::default(),
            explained: false,
            partition: None,
            errors: Vec::new(),
            errors_max,
            partner_cell,
        }
    }

    /// Takes rows into this room first; [`Self::group`] gives it back.
    pub(crate) fn use_room(&mut self, room: &mut Room) {
        self.rows = std::mem::take(&mut room.rows);
        self.rows.clear();
        self.words = Words::new(self.words.per_row(), 0, std::mem::take(&mut room.words));
    }

    /// Takes an event in; it counts as accepted until it is dropped again.
    pub(crate) fn accept(&mut self, row: Row, flags: Flags, columns: &ColumnSet, known: &mut Known, event: &Decoded<'_>) {
        if flags.waits() {
            self.flagged.push((self.rows.len(), flags));
        }
        columns.push(self.words.whole(self.rows.len()), &self.dictionaries, known, event);
        self.rows.push(row);
        self.tally.accept(1);
    }

    /// Notes a grant or withdrawal.
    pub(crate) fn consent(&mut self, event: ConsentEvent, suppressed: bool, erasure: Option<NewRequest>) {
        self.consents.push(ConsentRow { before: self.rows.len(), event, suppressed, erasure });
        self.tally.accept(1);
    }

    /// A withdrawal of somebody suppressed, for the ledger alone: it is counted as what it is rejected for.
    pub(crate) fn note_withdrawal(&mut self, event: ConsentEvent) {
        self.consents.push(ConsentRow { before: self.rows.len(), event, suppressed: false, erasure: None });
    }

    /// Counts a rejection, and explains it where its reason may be explained.
    pub(crate) fn reject(&mut self, rejection: Rejection, line: u64, partner: Option<&str>, device: Option<DeviceId>) {
        self.tally.reject(rejection.reason, 1);
        self.explain(rejection, line, partner, device);
    }

    fn explain(&mut self, rejection: Rejection, line: u64, partner: Option<&str>, device: Option<DeviceId>) {
        let Rejection { reason, field } = rejection;
        if self.explained {
            return;
        }
        if reason.counted_only() {
            self.counted.add(self.arrival, &self.source, reason, partner, 1);
            return;
        }
        if self.errors.len() < self.errors_max {
            self.errors.push((line, rejection));
        }
        self.rejected.push(QuarantineRow {
            at: self.arrival,
            source: Arc::clone(&self.source),
            line: i64::try_from(line).ok(),
            partition: self.partition,
            reason,
            field,
            partner: partner.map(Box::from),
            device,
        });
    }

    /// Gives the lines the numbers that they have behind so many others, which were not known while they were read.
    pub(crate) fn stand_behind(&mut self, lines: u64) {
        self.first_line += lines;
        for row in &mut self.rejected {
            row.line = row.line.and_then(|line| line.checked_add_unsigned(lines));
        }
        for (line, _) in &mut self.errors {
            *line += lines;
        }
    }

    /// No more events will come: gives back room that was set aside for more.
    pub(crate) fn finish(&mut self) {
        self.rows.shrink_to_fit();
        self.words.shrink();
    }

    /// The bytes that the part keeps in memory, roughly.
    pub(crate) fn memory(&self) -> usize {
        self.rows.capacity() * size_of::<Row>() + self.words.memory() + self.rejected.len() * 2 * size_of::<QuarantineRow>()
    }

    /// Gives the texts the numbers that a newer generation of dictionaries has for them.
    pub(crate) fn renumber(&mut self, columns: &ColumnSet, newer: &Arc<Dictionaries>) {
        if Arc::ptr_eq(&self.dictionaries, newer) || self.words.per_row() == 0 {
            return;
        }
        let mut known = Known::default();
        known.follow(newer);
        let per_row = self.words.per_row();
        for row in self.words.whole(self.rows.len()).chunks_exact_mut(per_row) {
            for cell in columns.cells() {
                if let Cell::Text { word, dictionary } = *cell
                    && let Some(text) = self.dictionaries.text(dictionary, row[word])
                {
                    row[word] = known.number(dictionary, Some(&text));
                }
            }
        }
        self.dictionaries = Arc::clone(newer);
    }

    /// Whether nothing waits for its turn: the rows may change their places.
    pub(crate) fn is_decided(&self) -> bool {
        self.flagged.is_empty() && self.consents.is_empty()
    }

    /// Moves the rows of one month and one range of devices next to each other, in order of arrival within each.
    /// Nothing may wait for its turn any more. The room in which the rows were before comes back.
    pub(crate) fn group(&mut self, bits: u32) -> Room {
        if self.groups.as_ref().is_some_and(|groups| groups.bits == bits) {
            return Room::default();
        }
        let (months, month_of) = self.months();
        let buckets: Vec<u32> = self.rows.iter().zip(month_of).map(|(row, month)| month << bits | range_of(row.device, bits)).collect();
        let order = stable_order(&buckets, months.len() << bits);
        let mut groups: Vec<Group> = Vec::new();
        let mut start = 0;
        for same in order.chunk_by(|left, right| buckets[*left as usize] == buckets[*right as usize]) {
            let (bucket, end) = (buckets[same[0] as usize], start + same.len() as u32);
            let (month, range) = (months[(bucket >> bits) as usize], bucket & ((1 << bits) - 1));
            groups.push(Group { month, range, start, end });
            start = end;
        }
        let rows = order.iter().map(|at| self.rows[*at as usize]).collect();
        let words = self.words.pack(&order);
        if !self.dropped.is_empty() {
            self.dropped = order.iter().map(|at| self.dropped[*at as usize]).collect();
        }
        if !self.arrivals.is_empty() {
            self.arrivals = order.iter().map(|at| self.arrivals[*at as usize]).collect();
        }
        self.groups = Some(Groups { bits, groups });
        Room { rows: std::mem::replace(&mut self.rows, rows), words }
    }

    /// The rows' months in ascending order (`Month::epoch_months`), and each row's place among them.
    fn months(&self) -> (Vec<i32>, impl Iterator<Item = u32>) {
        let mut months: BTreeMap<i32, u32> = BTreeMap::new();
        // Events of one day come together: the month is looked for once per day.
        let mut before = (i32::MIN, 0);
        let seen: Vec<u32> = self
            .rows
            .iter()
            .map(|row| {
                let day = Timestamp::from_micros(row.ts).day();
                if before.0 != day.epoch_days() {
                    let next = months.len() as u32;
                    before = (day.epoch_days(), *months.entry(day.month().epoch_months()).or_insert(next));
                }
                before.1
            })
            .collect();
        let mut place = vec![0; months.len()];
        for (at, seen) in (0..).zip(months.values()) {
            place[*seen as usize] = at;
        }
        (months.into_keys().collect(), seen.into_iter().map(move |at| place[at as usize]))
    }

    /// The groups in ascending order; none before [`Self::group`].
    pub(crate) fn groups(&self) -> &[Group] {
        self.groups.as_ref().map_or(&[], |groups| &groups.groups)
    }

    /// Appends the words of some rows.
    pub(crate) fn read_words(&self, rows: Range<usize>, to: &mut Vec<u32>) {
        self.words.read(rows, to);
    }

    /// Takes a row out again, for a reason found later.
    pub(crate) fn drop_row(&mut self, at: usize, reason: Reason) {
        if self.is_dropped(at) {
            return;
        }
        self.mark(at, reason);
        let partner = self.partner(at);
        let (line, device) = (self.line(at), self.rows[at].device_id());
        self.explain(Rejection::whole(reason), line, partner.as_deref(), Some(device));
    }

    /// Takes a row out that repeats another of its batch; the batch's quarantine counts it.
    pub(crate) fn drop_repeat(&mut self, at: usize) {
        if !self.is_dropped(at) {
            self.mark(at, Reason::Duplicate);
        }
    }

    fn mark(&mut self, at: usize, reason: Reason) {
        if self.dropped.is_empty() {
            self.dropped.resize(self.rows.len(), false);
        }
        self.dropped[at] = true;
        self.tally.reclassify(reason, 1);
    }

    /// Whether any row was taken out.
    pub(crate) const fn has_dropped(&self) -> bool {
        !self.dropped.is_empty()
    }

    pub(crate) fn is_dropped(&self, at: usize) -> bool {
        self.dropped.get(at).copied().unwrap_or(false)
    }

    /// The line of a row.
    pub(crate) fn line(&self, at: usize) -> u64 {
        self.first_line + u64::from(self.rows[at].line)
    }

    /// The partner of a row.
    pub(crate) fn partner(&self, at: usize) -> Option<Arc<str>> {
        self.partner_text(self.words.word(at, self.partner_cell?.0))
    }

    /// The number of the partner in a row's words.
    pub(crate) fn partner_number(&self, words: &[u32]) -> Option<u32> {
        words.get(self.partner_cell?.0).copied()
    }

    /// The partner of that number.
    pub(crate) fn partner_text(&self, number: u32) -> Option<Arc<str>> {
        self.dictionaries.text(self.partner_cell?.1, number)
    }

    /// From now on the order in which the rows stand is remembered, wherever they move.
    pub(crate) fn remember_order(&mut self) {
        self.arrivals = (0..self.rows.len() as u32).collect();
    }

    /// Whether each row is still in, in the order that was to be remembered.
    pub(crate) fn kept_in_order(&self) -> Vec<bool> {
        let mut kept = vec![true; self.rows.len()];
        for (arrival, dropped) in self.arrivals.iter().zip(&self.dropped) {
            kept[*arrival as usize] = !dropped;
        }
        kept
    }

    /// Rows that are still in.
    pub(crate) fn kept(&self) -> usize {
        self.rows.len() - self.dropped.iter().filter(|dropped| **dropped).count()
    }
}
