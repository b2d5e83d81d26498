//! A part: what became of one chunk of a source, in its order.

use std::sync::Arc;

use ameles_core::{DeviceId, Reason, Tally, Timestamp, UserId};
use ameles_ledger::{ConsentEvent, NewRequest};
use arrow::array::ArrayRef;

use super::quarantine::{HourlyCounts, QuarantineRow};
use super::{ColumnPlan, Columns};
use crate::decode::{Decoded, Rejection};

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

/// What became of one chunk.
pub(crate) struct Part {
    pub(crate) source: Arc<str>,
    pub(crate) arrival: Timestamp,
    pub(crate) rows: Vec<Row>,
    /// Line of each row, counted from `first_line`.
    lines: Vec<u32>,
    pub(crate) first_line: u64,
    pub(crate) flagged: Vec<(usize, Flags)>,
    /// Rows that were taken out again, by place; empty when there are none.
    dropped: Vec<bool>,
    columns: Columns,
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
    /// Where rows stand in `partner`, for the hourly counts.
    partner_column: Option<usize>,
    /// The columns once finished.
    pub(crate) arrays: Vec<ArrayRef>,
}

impl Part {
    pub(crate) fn new(
        source: Arc<str>,
        arrival: Timestamp,
        first_line: u64,
        plans: &[ColumnPlan],
        partner_field: Option<usize>,
        rows: usize,
        errors_max: usize,
    ) -> Self {
        Self {
            source,
            arrival,
            rows: Vec::with_capacity(rows),
            lines: Vec::with_capacity(rows),
            first_line,
            flagged: Vec::new(),
            dropped: Vec::new(),
            columns: Columns::new(plans, rows),
            consents: Vec::new(),
            rejected: Vec::new(),
            counted: HourlyCounts::default(),
            tally: Tally::default(),
            explained: false,
            partition: None,
            errors: Vec::new(),
            errors_max,
            // Behind the type.
            partner_column: partner_field.and_then(|field| plans.iter().position(|plan| plan.field() == field)).map(|at| at + 1),
            arrays: Vec::new(),
        }
    }

    /// Takes an event in; it counts as accepted until it is dropped again.
    pub(crate) fn accept(&mut self, row: Row, line: u64, flags: Flags, plans: &[ColumnPlan], event_type: &str, event: &Decoded<'_>) {
        if flags.waits() {
            self.flagged.push((self.rows.len(), flags));
        }
        self.rows.push(row);
        self.lines.push(line.saturating_sub(self.first_line) as u32);
        self.columns.push(plans, event_type, event);
        self.tally.accept(1);
    }

    /// Notes a grant or withdrawal.
    pub(crate) fn consent(&mut self, event: ConsentEvent, suppressed: bool, erasure: Option<NewRequest>) {
        self.consents.push(ConsentRow { before: self.rows.len(), event, suppressed, erasure });
        self.tally.accept(1);
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

    /// No more events will come: makes the columns.
    pub(crate) fn finish(&mut self) {
        self.arrays = self.columns.finish();
    }

    /// The columns have been copied: gives back all but what [`Self::partner`] reads.
    pub(crate) fn release(&mut self) {
        for (at, array) in self.arrays.iter_mut().enumerate() {
            if Some(at) != self.partner_column {
                *array = arrow::array::new_empty_array(array.data_type());
            }
        }
    }

    /// Takes a row out again, for a reason found later.
    pub(crate) fn drop_row(&mut self, at: usize, reason: Reason) {
        if self.is_dropped(at) {
            return;
        }
        if self.dropped.is_empty() {
            self.dropped.resize(self.rows.len(), false);
        }
        self.dropped[at] = true;
        self.tally.reclassify(reason, 1);
        let partner = self.partner(at).map(str::to_owned);
        let (line, device) = (self.line(at), self.rows[at].device_id());
        self.explain(Rejection::whole(reason), line, partner.as_deref(), Some(device));
    }

    pub(crate) fn is_dropped(&self, at: usize) -> bool {
        self.dropped.get(at).copied().unwrap_or(false)
    }

    /// The line of a row.
    pub(crate) fn line(&self, at: usize) -> u64 {
        self.first_line + u64::from(self.lines[at])
    }

    /// The partner of a row, once finished.
    pub(crate) fn partner(&self, at: usize) -> Option<&str> {
        use arrow::array::{Array, AsArray};
        let array = self.arrays.get(self.partner_column?)?.as_string_opt::<i32>()?;
        array.is_valid(at).then(|| array.value(at))
    }

    /// Rows that are still in.
    pub(crate) fn kept(&self) -> usize {
        self.rows.len() - self.dropped.iter().filter(|dropped| **dropped).count()
    }
}
