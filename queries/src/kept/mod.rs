//! Answers kept in memory, so that a question asked again and again (a
//! dashboard's, say) is computed once.
//!
//! An answer belongs to one snapshot: the version of each table and the sequence
//! number of the suppressions. Nothing but a commit or a new suppression changes
//! it, so within a snapshot it stays right, and only the newest snapshot's
//! answers are kept: the first question over a newer one drops all others. A
//! question over an older one, whose view was opened before, passes by.
//!
//! Only guarded answers are kept, each under its own `k`: what lies here has been
//! issued to somebody or might be, group by group, and none is below `k`. Who may
//! see everything is answered from the tables. A partner's limit is a filter of
//! the request, and so a question of its own.
//!
//! Of two who ask the same at once one computes and the other waits. An error is
//! kept for nobody.

mod lru;
#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use ameles_core::{Day, Month};
use arrow::record_batch::RecordBatch;
use tokio::sync::OnceCell;

use crate::{Completeness, MetricRequest, QueryError};
use lru::Lru;

/// One state of the tables and the suppressions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotId {
    /// Version of each table, in a fixed order.
    pub versions: Vec<i64>,
    /// The ledger's sequence number.
    pub sequence: u64,
}

impl SnapshotId {
    /// Whether nothing in it is older than in `other`.
    fn follows(&self, other: &Self) -> bool {
        self.sequence >= other.sequence
            && self.versions.len() == other.versions.len()
            && self.versions.iter().zip(&other.versions).all(|(mine, its)| mine >= its)
    }
}

/// A question within a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    request: MetricRequest,
    k: u32,
    /// `complete` changes with the watermark's day, and not within it.
    watermark: Day,
    closed_before: Month,
}

/// Not of all fields: what it leaves out is told apart by equality.
impl Hash for Question {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let MetricRequest { name, from, to, by, .. } = &self.request;
        (name, from, to, by, self.k).hash(state);
    }
}

impl Question {
    pub(crate) fn new(request: &MetricRequest, k: u32, completeness: Completeness) -> Self {
        let Completeness { watermark, closed_before } = completeness;
        Self { request: request.clone(), k, watermark: watermark.day(), closed_before }
    }

    /// Bytes in memory, about.
    fn bytes(&self) -> usize {
        let texts = |texts: &[String]| texts.iter().map(|text| text.len() + size_of::<String>()).sum::<usize>();
        let filters = self.request.filters.iter().map(|filter| filter.dim.len() + texts(&filter.values) + size_of_val(filter));
        size_of::<Self>() + self.request.name.len() + texts(&self.request.by) + filters.sum::<usize>()
    }
}

/// An answer that somebody computes, or has computed.
type Slot = Arc<OnceCell<RecordBatch>>;

/// Answers of the newest snapshot, up to so many bytes; shared by all who ask.
pub struct KeptAnswers {
    bytes_max: usize,
    k_min: u32,
    inner: Mutex<Inner>,
}

struct Inner {
    snapshot: Option<SnapshotId>,
    answers: Lru<Question, Slot>,
}

impl fmt::Debug for KeptAnswers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptAnswers").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

impl KeptAnswers {
    /// Room for so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, k_min: 0, inner: Mutex::new(Inner { snapshot: None, answers: Lru::new(bytes_max) }) }
    }

    /// The same for no answer with smaller groups than these: whoever may ask for one has it computed.
    #[must_use]
    pub const fn of_groups_from(mut self, k: u32) -> Self {
        self.k_min = k;
        self
    }

    /// Bytes of what is kept, about.
    pub fn bytes(&self) -> usize {
        self.lock().answers.bytes()
    }

    /// The answer as it was computed in this snapshot, or as `compute` gives it.
    pub(crate) async fn answer(
        &self,
        snapshot: &SnapshotId,
        question: Question,
        compute: impl Future<Output = Result<RecordBatch, QueryError>>,
    ) -> Result<RecordBatch, QueryError> {
        let Some(slot) = self.slot(snapshot, &question) else { return compute.await };
        let answer = slot.get_or_try_init(|| compute).await?.clone();
        let bytes = question.bytes() + answer.get_array_memory_size();
        let mut inner = self.lock();
        // A newer snapshot may have taken the place meanwhile.
        if inner.snapshot.as_ref() == Some(snapshot) {
            inner.answers.weigh(&question, bytes);
        }
        Ok(answer)
    }

    /// The question's place; none where a newer snapshot is known, or its groups are too small to be kept.
    fn slot(&self, snapshot: &SnapshotId, question: &Question) -> Option<Slot> {
        if question.k < self.k_min {
            return None;
        }
        let mut inner = self.lock();
        if inner.snapshot.as_ref() != Some(snapshot) {
            if inner.snapshot.as_ref().is_some_and(|known| !snapshot.follows(known)) {
                return None;
            }
            inner.answers = Lru::new(self.bytes_max);
            inner.snapshot = Some(snapshot.clone());
        }
        Some(inner.answers.get_or_insert(question, question.bytes()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
