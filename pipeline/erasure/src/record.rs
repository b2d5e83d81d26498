//! What a run writes on the ledger as it goes, so that after `kill -9` the next
//! one goes on from there and the certificate still tells all of it.
//!
//! The run's record lies with one of its requests, the leader; the others point
//! to it. It holds counts, months, versions and file names: no pseudonym.

use std::collections::{BTreeMap, BTreeSet};

use ameles_core::{Month, Timestamp};
use ameles_ledger::RequestId;
use ameles_schemas::Table;
use ameles_store::{MonthRewrite, PurgeReport, TableChange};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::certificate::Verification;

/// A request's `step_detail`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StepDetail {
    /// The request that holds the run's record.
    pub leader: Option<RequestId>,
    /// Why the run stopped here, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The record, with the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RunRecord>,
}

/// A [`StepDetail`] of a leader, to be written.
#[derive(Debug, Serialize)]
pub(crate) struct LeaderDetail<'a> {
    pub leader: Option<RequestId>,
    pub record: &'a RunRecord,
}

/// What a run has done up to now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    /// How many runs before this one stopped midway.
    #[serde(default)]
    pub resumed: u32,
    /// Rows found, by request.
    #[serde(default)]
    pub found: BTreeMap<String, FoundRecord>,
    /// Data files that held rows of any request, as `table/path`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// What is to be rewritten: live files by month, then table.
    #[serde(default)]
    pub planned: BTreeMap<Month, BTreeMap<String, Vec<PlannedFile>>>,
    /// Tables' versions when the run was planned first.
    #[serde(default)]
    pub versions: BTreeMap<String, i64>,
    /// What was rewritten, in order.
    #[serde(default)]
    pub rewrites: Vec<MonthEvidence>,
    /// What was taken out of quarantine.
    #[serde(default)]
    pub quarantine: Vec<TableChange>,
    /// When the last rewriting ended.
    #[serde(default)]
    pub erased: Option<Timestamp>,
    /// When the purge ended.
    #[serde(default)]
    pub purged: Option<Timestamp>,
    /// What it deleted, over all attempts.
    #[serde(default)]
    pub purge: PurgeReport,
    /// How it was checked.
    #[serde(default)]
    pub verification: Option<Verification>,
}

/// Rows found of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FoundRecord {
    /// Rows of `events` by month.
    #[serde(default)]
    pub events: BTreeMap<Month, u64>,
    /// Rows of `quarantine`.
    #[serde(default)]
    pub quarantine: u64,
    /// Data files that held rows of it, by their places in the run's list.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub files: BTreeSet<u32>,
}

/// A live file that is to be replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlannedFile {
    /// Below the table's folder.
    pub path: String,
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A month's rewriting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MonthEvidence {
    /// The month.
    pub month: Month,
    /// The process died between the commit and this record: told from the tables afterwards.
    #[serde(default)]
    pub reconstructed: bool,
    /// What was done.
    pub rewrite: MonthRewrite,
}

impl RunRecord {
    /// Takes over what an earlier run has recorded.
    pub(crate) fn absorb(&mut self, earlier: Self) {
        self.resumed = self.resumed.max(earlier.resumed);
        // Places are those in the list that they came with.
        let places: Vec<u32> = earlier.files.into_iter().map(|file| self.place_of(file)).collect();
        for (request, mut found) in earlier.found {
            found.files = found.files.iter().filter_map(|place| places.get(*place as usize).copied()).collect();
            self.found.entry(request).or_insert(found);
        }
        for (month, tables) in earlier.planned {
            self.planned.entry(month).or_insert(tables);
        }
        for (table, version) in earlier.versions {
            self.versions.entry(table).and_modify(|mine| *mine = (*mine).min(version)).or_insert(version);
        }
        self.rewrites.extend(earlier.rewrites);
        self.quarantine.extend(earlier.quarantine);
        self.erased = self.erased.max(earlier.erased);
        self.purge.files += earlier.purge.files;
        self.purge.bytes += earlier.purge.bytes;
        self.purge.log_files += earlier.purge.log_files;
    }

    /// A file's place in the list of those that held rows.
    fn place_of(&mut self, file: String) -> u32 {
        let place = self.files.iter().position(|known| *known == file).unwrap_or_else(|| {
            self.files.push(file);
            self.files.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    /// Enters in which files the rows of requests were found.
    pub(crate) fn enter_files<'a>(&mut self, found: impl IntoIterator<Item = (String, &'a BTreeSet<(Table, String)>)>) {
        let mut places: HashMap<&(Table, String), u32> = HashMap::new();
        for (request, files) in found {
            for file in files {
                let place = match places.get(file) {
                    Some(place) => *place,
                    None => {
                        let place = self.place_of(format!("{}/{}", file.0, file.1));
                        places.insert(file, place);
                        place
                    }
                };
                self.found.entry(request.clone()).or_default().files.insert(place);
            }
        }
    }

    /// Enters what a count has found. In a month that was rewritten already these are rows
    /// that came later; in another they are the same rows, counted again.
    pub(crate) fn enter_found(&mut self, request: &str, month: Month, rows: u64) {
        let rewritten = self.rewrites.iter().any(|evidence| evidence.month == month);
        let known = self.found.entry(request.to_owned()).or_default().events.entry(month).or_default();
        *known = if rewritten { *known + rows } else { (*known).max(rows) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_counted_again_before_a_rewrite_are_not_counted_twice() {
        let month = Month::from_epoch_months(582);
        let mut record = RunRecord::default();
        record.enter_found("r", month, 7);
        record.enter_found("r", month, 7);
        assert_eq!(record.found["r"].events[&month], 7);
        record.rewrites.push(MonthEvidence { month, reconstructed: false, rewrite: MonthRewrite::default() });
        record.enter_found("r", month, 2);
        assert_eq!(record.found["r"].events[&month], 9);
    }

    #[test]
    fn a_record_comes_back_from_the_ledger_as_it_was() -> Result<(), serde_json::Error> {
        let month = Month::from_epoch_months(582);
        let mut record = RunRecord::default();
        record.enter_found("r", month, 7);
        record.planned.entry(month).or_default().insert("events".to_owned(), vec![PlannedFile { path: "a".to_owned(), rows: 1, bytes: 2 }]);
        let detail = StepDetail { leader: None, error: Some("x".to_owned()), record: Some(record) };
        assert_eq!(serde_json::from_str::<StepDetail>(&serde_json::to_string(&detail)?)?, detail);
        let nothing = RunRecord::default();
        let leader = LeaderDetail { leader: None, record: detail.record.as_ref().unwrap_or(&nothing) };
        let written = StepDetail { error: None, ..detail.clone() };
        assert_eq!(serde_json::to_string(&leader)?, serde_json::to_string(&written)?);
        Ok(())
    }
}
