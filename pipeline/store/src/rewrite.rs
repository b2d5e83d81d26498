//! One month made anew: settling and erasure are this one operation. `compact` makes a part of a month anew in the same way.

use std::sync::Arc;

use ameles_core::{Month, SuppressionSet};
use ameles_schemas::Table;
use async_trait::async_trait;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hashbrown::HashSet;
use serde::{Deserialize, Serialize};

use crate::append::{batch_of, derived_tables};
use crate::commit::{Decision, Landed, Plan};
use crate::files::{Written, evidence};
use crate::log::{Change, LogState};
use crate::names::{self, Keys, Origin, Source};
use crate::progress::counted;
use crate::settle::{Job, Settled};
use crate::snapshot::{of_month, one_generation};
use crate::splice::Stop;
use crate::splice::month::{SplicedMonth, Splicing};
use crate::splice::replace::Replaced;
use crate::{DataFile, Maintainer, Snapshot, SpliceCounts, StoreError, Warehouse, durable};

/// Told how many rows have been read since it was told last.
pub type RowProgress<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// How a month is rewritten.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    /// Rows that it covers are dropped.
    pub suppressed: Arc<SuppressionSet>,
    /// The month has closed: event keys are dropped.
    pub closed: bool,
}

/// A file as evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEvidence {
    /// Relative to the table's folder.
    pub path: String,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What happened to a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableChange {
    /// The table's name.
    pub table: String,
    /// Its version before.
    pub version_before: i64,
    /// Its version after; the same when nothing changed.
    pub version_after: i64,
    /// Rows of what was replaced.
    pub rows_before: u64,
    /// Rows of what replaces it.
    pub rows_after: u64,
    /// Files replaced.
    pub removed: Vec<FileEvidence>,
    /// Files written.
    pub added: Vec<FileEvidence>,
}

/// Rows dropped as repeats.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Repeats {
    /// The lease that had written them; none for rows settled before.
    pub lease: Option<String>,
    /// Their partner, where they have one.
    pub partner: Option<String>,
    /// How many.
    pub rows: u64,
}

/// What a rewrite did.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MonthRewrite {
    /// Rows dropped as repeats.
    pub duplicates: u64,
    /// The same by who had written them and for whom; known right after the rewriting only.
    #[serde(skip)]
    pub duplicates_by: Vec<Repeats>,
    /// Rows dropped because they fall under `suppressed`.
    pub erased_rows: u64,
    /// Rows of `events` in the month afterwards.
    pub rows_after: u64,
    /// The tables.
    pub tables: Vec<TableChange>,
    /// What splicing took, where files were spliced and not written anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spliced: Option<SpliceCounts>,
}

impl Maintainer {
    /// Merges all runs of a month into one, without repeats and without what `spec` covers, and makes its activity, links and devices anew.
    /// Two months may be rewritten at once.
    ///
    /// # Errors
    /// When rows that must stay would not, or storage fails before the commit to `events`: the month is then as it was.
    /// When it fails later, `recover` or the next rewrite ends it.
    pub fn rewrite_month<'a>(
        &'a self,
        month: Month,
        spec: &'a Rewrite,
        progress: RowProgress<'a>,
    ) -> BoxFuture<'a, Result<MonthRewrite, StoreError>> {
        async move {
            let _claim = self.claim(month)?;
            let warehouse = &self.warehouse;
            if !spec.suppressed.is_empty() {
                // Whoever had looked at the suppressions before this request came in has committed after this.
                warehouse.barrier().await?;
            }
            let snapshot = warehouse.snapshot().await?;
            let inputs = snapshot.month_files(Table::Events, month).to_vec();
            if spec.suppressed.is_empty() && is_as_wanted(&snapshot, warehouse, month, spec.closed) {
                return Ok(MonthRewrite { rows_after: inputs.iter().map(|file| file.rows).sum(), ..MonthRewrite::default() });
            }
            if !spec.suppressed.is_empty()
                && !inputs.is_empty()
                && is_as_wanted(&snapshot, warehouse, month, spec.closed)
                && let Some(rewrite) = self.splice(&snapshot, month, spec, progress).await?
            {
                return Ok(rewrite);
            }
            let round_of = |table: Table| snapshot.txn(table, &round_app(month));
            for table in derived_tables(warehouse.tables()) {
                // A rewrite that was interrupted differs in its round. Otherwise the events have expired: nothing can be made anew from them.
                if inputs.is_empty() && !snapshot.month_files(table, month).is_empty() && round_of(table) == round_of(Table::Events) {
                    return Err(StoreError::Batch(format!(
                        "{month} has rows in {table} but no events; rows of expired months cannot be erased yet"
                    )));
                }
            }
            let settled = self.merge(month, &inputs, None, spec, progress).await?;
            let untouched = settled.erased == 0 && settled.duplicates_by.is_empty();
            if untouched && is_as_wanted(&snapshot, warehouse, month, spec.closed) {
                // Nothing that was looked for is there: the files stay as they are.
                self.discard(&settled).await?;
                return Ok(MonthRewrite { rows_after: settled.rows_after, ..MonthRewrite::default() });
            }
            let mut tables = Vec::new();
            for table in Table::ALL.into_iter().filter(|table| settled.files.contains_key(table)) {
                let (landed, removed) = self.replace(&snapshot, table, month, &inputs, &settled, Scope::Month).await?;
                let folder = warehouse.table_folder(table);
                let hashed =
                    tokio::task::spawn_blocking(move || removed.iter().map(|file| evidence(&folder, file)).collect::<Result<Vec<_>, _>>())
                        .await??;
                tables.push(TableChange::new(table, landed, hashed, settled.files[&table].iter().map(Written::evidence).collect()));
                committed(warehouse, table)?;
            }
            let duplicates = settled.duplicates();
            let mut duplicates_by: Vec<Repeats> =
                settled.duplicates_by.into_iter().map(|((lease, partner), rows)| Repeats { lease, partner, rows }).collect();
            duplicates_by.sort();
            Ok(MonthRewrite {
                duplicates,
                duplicates_by,
                erased_rows: settled.erased,
                rows_after: settled.rows_after,
                tables,
                spliced: None,
            })
        }
        .boxed()
    }

    /// Takes what `spec` covers out of a month that is one settled run; none where its files are not of the shape for that.
    async fn splice(
        &self,
        snapshot: &Arc<Snapshot>,
        month: Month,
        spec: &Rewrite,
        progress: RowProgress<'_>,
    ) -> Result<Option<MonthRewrite>, StoreError> {
        let warehouse = &self.warehouse;
        let inputs = snapshot.month_files(Table::Events, month);
        let rows_before: u64 = inputs.iter().map(|file| file.rows).sum();
        let (owned, state, revision, suppressed) =
            (warehouse.clone(), Arc::clone(snapshot), self.next_generation(), Arc::clone(&spec.suppressed));
        let throttle = Arc::clone(&self.throttle);
        let work = move |progress| {
            let splicing = Splicing { warehouse: owned, snapshot: state, month, revision, suppressed, throttle, progress };
            match splicing.run() {
                Ok(spliced) => Ok(Some(spliced)),
                // What is damaged the other way finds as well, and says where.
                Err(Stop::Unsupported(what) | Stop::Damaged(what)) => {
                    tracing::warn!(%month, what, "the month is rewritten whole");
                    Ok(None)
                }
                Err(Stop::Mismatch(what)) => {
                    tracing::error!(%month, what, "an erasure would have changed rows that must stay");
                    Err(StoreError::Integrity { table: Table::Events.as_str(), month: month.to_string() })
                }
                Err(error) => Err(error.into_error(&names::partition_folder(month))),
            }
        };
        let Some(spliced) = counted(work, progress).await? else { return Ok(None) };
        let rows_after = rows_before - spliced.erased;
        if spliced.files.is_empty() {
            return Ok(Some(MonthRewrite { rows_after, ..MonthRewrite::default() }));
        }
        warehouse.failpoint("rewrite.events_written")?;
        warehouse.failpoint("rewrite.files_written")?;
        let round = 1 + warehouse_round(snapshot, warehouse, month);
        let SplicedMonth { files, erased, counts } = spliced;
        let mut tables = Vec::new();
        for table in [Table::Events].into_iter().chain(derived_tables(warehouse.tables())) {
            let mine: Vec<&Replaced> = files.iter().filter(|file| file.table == table).collect();
            let old: Vec<DataFile> = mine.iter().map(|file| file.old.clone()).collect();
            let written: Vec<Written> = mine.iter().filter_map(|file| file.new.clone()).collect();
            let mut plan = MonthPlan {
                warehouse,
                table,
                month,
                round,
                data_change: true,
                inputs: &old,
                written: &written,
                scope: Scope::Files,
                removed: Vec::new(),
            };
            let landed = warehouse.commit(table, &mut plan).await?;
            let removed = mine.iter().map(|file| file.evidence.clone()).collect();
            tables.push(TableChange::new(table, landed, removed, written.iter().map(Written::evidence).collect()));
            committed(warehouse, table)?;
        }
        Ok(Some(MonthRewrite { erased_rows: erased, rows_after, tables, spliced: Some(counts), ..MonthRewrite::default() }))
    }

    /// Writes the inputs as one run, with its roll-up, and commits nothing.
    pub(crate) async fn merge(
        &self,
        month: Month,
        inputs: &[DataFile],
        tier: Option<u32>,
        spec: &Rewrite,
        progress: RowProgress<'_>,
    ) -> Result<Settled, StoreError> {
        let (warehouse, inputs, generation) = (self.warehouse.clone(), inputs.to_vec(), self.next_generation());
        let (suppressed, closed) = (Arc::clone(&spec.suppressed), spec.closed);
        let work = move |progress| Job { warehouse, month, inputs, generation, suppressed, closed, tier, progress }.run();
        counted(work, progress).await
    }

    /// Puts what was written in a table in the place of what it was made of; gives that.
    pub(crate) async fn replace(
        &self,
        snapshot: &Snapshot,
        table: Table,
        month: Month,
        inputs: &[DataFile],
        settled: &Settled,
        scope: Scope,
    ) -> Result<(Landed, Vec<DataFile>), StoreError> {
        let mut plan = MonthPlan {
            warehouse: &self.warehouse,
            table,
            month,
            round: 1 + warehouse_round(snapshot, &self.warehouse, month),
            data_change: settled.duplicates() > 0 || settled.erased > 0,
            inputs,
            written: settled.files.get(&table).map_or(&[], Vec::as_slice),
            scope,
            removed: Vec::new(),
        };
        let landed = self.warehouse.commit(table, &mut plan).await?;
        Ok((landed, plan.removed))
    }

    pub(crate) async fn discard(&self, settled: &Settled) -> Result<(), StoreError> {
        let mut paths = Vec::new();
        for (table, written) in &settled.files {
            let folder = self.warehouse.table_folder(*table);
            paths.extend(written.iter().map(|written| folder.join(&written.file.path)));
        }
        let path = self.warehouse.root().display().to_string();
        let deleted = tokio::task::spawn_blocking(move || durable::delete_files(&paths)).await?;
        deleted.map(drop).map_err(|source| StoreError::Io { doing: "deleting from", path, source })
    }
}

impl TableChange {
    pub(crate) fn new(table: Table, landed: Landed, removed: Vec<FileEvidence>, added: Vec<FileEvidence>) -> Self {
        let rows = |files: &[FileEvidence]| files.iter().map(|file| file.rows).sum();
        Self {
            table: table.as_str().to_owned(),
            version_before: landed.before,
            version_after: landed.after,
            rows_before: rows(&removed),
            rows_after: rows(&added),
            removed,
            added,
        }
    }
}

/// Counts the rewrites of a month in each table: where the counts differ, one was interrupted.
pub(crate) fn round_app(month: Month) -> String {
    format!("month:{month}")
}

/// The last round that any table has seen.
pub(crate) fn warehouse_round(snapshot: &Snapshot, warehouse: &Warehouse, month: Month) -> i64 {
    let app = round_app(month);
    let tables = warehouse.tables().tables();
    tables.into_iter().filter_map(|table| snapshot.txn(table, &app)).max().unwrap_or_default()
}

/// Whether nothing is left to do for a month.
pub(crate) fn is_as_wanted(snapshot: &Snapshot, warehouse: &Warehouse, month: Month, closed: bool) -> bool {
    let inputs = snapshot.month_files(Table::Events, month);
    let keys_gone = |file: &DataFile| matches!(file.origin, Origin::Settled { keys: Keys::Dropped, .. });
    let derived_settled = derived_tables(warehouse.tables()).into_iter().all(|table| one_generation(snapshot.month_files(table, month)));
    one_generation(inputs) && derived_settled && in_line(snapshot, warehouse, month) && (!closed || inputs.iter().all(keys_gone))
}

/// Whether the rewrites of a month have come to pass in all tables alike.
pub(crate) fn in_line(snapshot: &Snapshot, warehouse: &Warehouse, month: Month) -> bool {
    let app = round_app(month);
    derived_tables(warehouse.tables()).into_iter().all(|table| snapshot.txn(table, &app) == snapshot.txn(Table::Events, &app))
}

/// A crash may come here.
pub(crate) fn committed(warehouse: &Warehouse, table: Table) -> Result<(), StoreError> {
    warehouse.failpoint(match table {
        Table::Events => "rewrite.events_committed",
        Table::Activity => "rewrite.activity_committed",
        Table::Links => "rewrite.links_committed",
        _ => "rewrite.devices_committed",
    })
}

/// What of a month is replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// All of it.
    Month,
    /// The inputs' runs and the rows that were rolled up from them.
    Runs,
    /// The inputs alone, which are files of the table itself.
    Files,
}

/// Replaces a month's files in one table.
struct MonthPlan<'a> {
    warehouse: &'a Warehouse,
    table: Table,
    month: Month,
    round: i64,
    data_change: bool,
    inputs: &'a [DataFile],
    written: &'a [Written],
    scope: Scope,
    removed: Vec<DataFile>,
}

#[async_trait]
impl Plan for MonthPlan<'_> {
    async fn decide(&mut self, state: &Arc<LogState>) -> Result<Decision, StoreError> {
        let app = round_app(self.month);
        if state.txns.get(&app) == Some(&self.round) {
            return Ok(Decision::Done);
        }
        self.removed = if self.table == Table::Events || self.scope == Scope::Files {
            self.inputs.to_vec()
        } else if self.scope == Scope::Runs {
            // A roll-up of theirs that has not come yet sees that its run has gone, and stays away.
            let sources: HashSet<Source<'_>> = self.inputs.iter().map(|file| file.origin.source()).collect();
            of_month(&state.files, self.month).iter().filter(|file| sources.contains(&file.origin.source())).cloned().collect()
        } else {
            // Read after `state`: a roll-up that is in `state` has its run in these events, unless a rewrite has taken it in.
            let events = self.warehouse.refresh(Table::Events).await?;
            let runs: HashSet<(&str, u64)> = of_month(&events.files, self.month).iter().filter_map(|file| batch_of(&file.origin)).collect();
            let goes = |file: &&DataFile| batch_of(&file.origin).is_none_or(|batch| !runs.contains(&batch));
            of_month(&state.files, self.month).iter().filter(goes).cloned().collect()
        };
        Ok(Decision::Commit(Change {
            operation: "rewrite",
            data_change: self.data_change,
            add: self.written.iter().map(|written| written.file.clone()).collect(),
            remove: self.removed.iter().map(|file| file.path.clone()).collect(),
            txns: vec![(app, self.round)],
            // A merged run stands where its last input stood: what was accepted after that stays behind it. A spliced file is a part of
            // its run as before.
            modified: (self.scope == Scope::Files || self.scope == Scope::Runs && self.table == Table::Events)
                .then(|| self.inputs.iter().map(|file| file.modified).max())
                .flatten(),
            schema: None,
        }))
    }
}
