//! The job: a state machine whose state is on the ledger and in the tables. Each
//! step can be done again, and a run that was killed is simply begun again.
//! `docs/erasure.md` tells it in prose.

use std::collections::BTreeSet;

use ameles_core::Month;
use ameles_ledger::{LedgerError, RequestId, RequestState, RequestWithSubjects};
use ameles_schemas::Table;
use ameles_store::{DataFile, Maintainer, Rewrite, Snapshot, SpliceCounts};
use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use hashbrown::HashSet;
use serde::Serialize;

use crate::census::{Of, count_quarantine, count_rows, find_derived_files};
use crate::evidence::reconstruct;
use crate::record::{LeaderDetail, MonthEvidence, PlannedFile, RunRecord, StepDetail};
use crate::resolve::{Resolved, resolve};
use crate::{Eraser, ErasureError, Progress, Step};

/// Months rewritten side by side: while one waits for the disk another computes.
const MONTHS_AT_ONCE: usize = 2;
/// How often the ledger's write-ahead log is tried when others are reading it.
const FORGET_ATTEMPTS: u32 = 20;
/// How much longer than the grace a purge waits for replaced files.
const PURGE_SLACK_S: i64 = 30;

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunReport {
    /// The requests that it took up; none when none was open.
    pub requests: Vec<RequestOutcome>,
    /// Rows of `events` deleted.
    pub rows_erased: u64,
    /// Rows of `quarantine` deleted.
    pub quarantine_rows_erased: u64,
    /// Months rewritten.
    pub months: Vec<Month>,
    /// Files written in place of others.
    pub files_rewritten: u64,
    /// Files deleted from storage.
    pub files_deleted: u64,
    /// Their bytes.
    pub bytes_deleted: u64,
    /// What splicing took: pages and bytes copied and encoded again.
    pub spliced: SpliceCounts,
    /// Another process carried it out.
    pub handed_over: bool,
}

/// What became of one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RequestOutcome {
    /// Its id.
    pub id: RequestId,
    /// Its state now.
    pub state: RequestState,
    /// Rows of `events` that were found of it.
    pub rows: u64,
    /// What its certificate warns of.
    pub warnings: Vec<String>,
}

impl Eraser {
    /// Carries out all open requests, here or, where another process maintains the
    /// warehouse, there.
    ///
    /// # Errors
    /// When a step fails: its requests stay open, with the error on the ledger, and the
    /// next run goes on from there.
    pub fn run<'a>(&'a self, actor: &'a str, progress: &'a dyn Progress) -> BoxFuture<'a, Result<RunReport, ErasureError>> {
        async move {
            match self.warehouse.try_maintainer(&*self.random).await? {
                Some(mut maintainer) => self.run_with(&mut maintainer, actor, progress).await,
                None => crate::handover::follow(self, actor, progress).await,
            }
        }
        .boxed()
    }

    /// Carries out all open requests as the warehouse's maintainer: what `serve` calls on its schedule.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_with<'a>(
        &'a self,
        maintainer: &'a mut Maintainer,
        actor: &'a str,
        progress: &'a dyn Progress,
    ) -> BoxFuture<'a, Result<RunReport, ErasureError>> {
        async move {
            progress.begin(Step::Begin, "taking up open requests", 0);
            let Some(mut run) = Run::begin(self, actor, progress).await? else { return Ok(RunReport::default()) };
            match run.carry_out(maintainer).await {
                Ok(report) => Ok(report),
                Err(error) => {
                    tracing::error!(step = run.step.as_str(), error = error.chain(), "erasure stopped; its requests stay open");
                    run.record_error(&error).await;
                    Err(ErasureError::Stopped { step: run.step, source: Box::new(error) })
                }
            }
        }
        .boxed()
    }
}

/// One run.
pub(crate) struct Run<'a> {
    pub eraser: &'a Eraser,
    pub progress: &'a dyn Progress,
    pub requests: Vec<RequestWithSubjects>,
    pub record: RunRecord,
    leader: usize,
    /// The other requests are known to follow the leader.
    followed: bool,
    step: Step,
}

impl<'a> Run<'a> {
    async fn begin(eraser: &'a Eraser, actor: &str, progress: &'a dyn Progress) -> Result<Option<Self>, ErasureError> {
        let requests = eraser.ledger.begin_run(actor).await?;
        if requests.is_empty() {
            return Ok(None);
        }
        let mut run = Self { eraser, progress, requests, record: RunRecord::default(), leader: 0, followed: false, step: Step::Begin };
        run.take_over().await?;
        Ok(Some(run))
    }

    /// Reads what an interrupted run has recorded.
    async fn take_over(&mut self) -> Result<(), ErasureError> {
        let mut elsewhere = BTreeSet::new();
        let mut resumed = false;
        for place in 0..self.requests.len() {
            let Some(detail) = self.requests[place].request.step_detail.as_deref() else { continue };
            let detail: StepDetail = serde_json::from_str(detail).map_err(ErasureError::Record)?;
            if let Some(record) = detail.record {
                self.record.absorb(record);
                self.leader = place;
                resumed = true;
            }
            elsewhere.extend(detail.leader);
        }
        for request in &self.requests {
            elsewhere.remove(&request.request.id);
        }
        for leader in elsewhere {
            let Some(detail) = self.eraser.ledger.request(leader).await?.step_detail else { continue };
            let detail: StepDetail = serde_json::from_str(&detail).map_err(ErasureError::Record)?;
            if let Some(record) = detail.record {
                self.record.absorb(record);
                resumed = true;
            }
        }
        self.record.resumed += u32::from(resumed);
        Ok(())
    }

    async fn carry_out(&mut self, maintainer: &mut Maintainer) -> Result<RunReport, ErasureError> {
        maintainer.limit_io(self.eraser.settings.io_limit_mb_s.map(|mb| mb.saturating_mul(1 << 20)));
        // A crash may have left a month with events rewritten and its activity not.
        maintainer.recover().await?;
        self.done(Step::Begin).await?;
        let resolved = self.erase_rows(maintainer).await?;
        self.erase_quarantine(maintainer, &resolved).await?;
        self.purge(maintainer).await?;
        self.forget(&resolved).await?;
        self.verify(&resolved).await?;
        let report = self.certify(&resolved).await?;
        Ok(report)
    }

    /// Rewrites months until the present snapshot holds no row of the subjects.
    async fn erase_rows(&mut self, maintainer: &Maintainer) -> Result<Resolved, ErasureError> {
        let mut seen: HashSet<String> = HashSet::new();
        for round in 0..self.eraser.settings.rounds_max {
            self.enter(Step::Resolve, "finding rows of the subjects", 0);
            let resolved = resolve(self.eraser, &self.requests, &seen).await?;
            let snapshot = resolved.snapshot.clone();
            let widened = self.keep_userless(&resolved).await?;
            if round == 0 {
                reconstruct(self.eraser.warehouse.root(), &snapshot, &mut self.record).await?;
            }
            // What an earlier round has read or written need not be read again, unless more is covered now.
            let unread = |file: &&DataFile| widened || !seen.contains(&file.path);
            let files: Vec<DataFile> = resolved.event_files().filter(unread).cloned().collect();
            let warehouse = &self.eraser.warehouse;
            let mut census = count_rows(warehouse, &files, resolved.targets.clone(), Some((resolved.devices(), Of::Subjects))).await?;
            let requests_of = std::mem::take(&mut census.requests_of);
            find_derived_files(warehouse, &snapshot, &mut census, requests_of).await?;
            for (request, months) in self.requests.iter().zip(&census.by_request) {
                let id = request.request.id.to_string();
                for (month, rows) in months {
                    self.record.enter_found(&id, *month, *rows);
                }
            }
            let ids = self.requests.iter().map(|request| request.request.id.to_string());
            self.record.enter_files(ids.zip(&census.files_by_request));
            self.done(Step::Resolve).await?;

            let mut months = census.months;
            if round == 0 {
                months.extend(resolved.affected.months.iter().copied());
            }
            self.plan(&snapshot, &months).await?;
            if months.is_empty() {
                self.record.erased.get_or_insert(self.eraser.clock.now());
                return Ok(resolved);
            }
            seen.extend(files.into_iter().map(|file| file.path));
            // Nothing was found in those of the other months.
            seen.extend(resolved.affected.looked_in.iter().cloned());
            self.rewrite(maintainer, &resolved, &snapshot, &months, &mut seen).await?;
        }
        Err(ErasureError::StillArriving { rounds: self.eraser.settings.rounds_max })
    }

    /// Notes the devices whose events without a user go, before any link that tells so is gone.
    async fn keep_userless(&mut self, resolved: &Resolved) -> Result<bool, ErasureError> {
        let mut widened = false;
        for (request, devices) in self.requests.iter_mut().zip(&resolved.new_userless) {
            if !devices.is_empty() {
                self.eraser.ledger.add_userless(request.request.id, devices).await?;
                request.userless.extend(devices);
                widened = true;
            }
        }
        Ok(widened)
    }

    async fn plan(&mut self, snapshot: &Snapshot, months: &BTreeSet<Month>) -> Result<(), ErasureError> {
        self.enter(Step::Plan, "noting what will be rewritten", 0);
        for table in self.eraser.warehouse.tables().tables() {
            self.record.versions.entry(table.as_str().to_owned()).or_insert(snapshot.version(table));
            for month in months {
                let planned = self.record.planned.entry(*month).or_default();
                if table != Table::Quarantine {
                    planned.entry(table.as_str().to_owned()).or_insert_with(|| planned_files(snapshot, table, *month));
                }
            }
        }
        self.done(Step::Plan).await
    }

    async fn rewrite(
        &mut self,
        maintainer: &Maintainer,
        resolved: &Resolved,
        snapshot: &Snapshot,
        months: &BTreeSet<Month>,
        seen: &mut HashSet<String>,
    ) -> Result<(), ErasureError> {
        let live = snapshot.files(Table::Events).iter().filter(|file| months.contains(&file.month));
        self.enter(Step::Rewrite, "rewriting months", live.map(|file| file.rows).sum());
        let progress = self.progress;
        let advance = move |rows: u64| progress.advance(rows);
        // Whether a month has closed is not for an erasure to say: keys that are there stay.
        let spec = Rewrite { suppressed: resolved.targets.covered.clone(), closed: false };
        let rewrite = |month: Month| {
            let (spec, advance) = (&spec, &advance);
            async move { (month, maintainer.rewrite_month(month, spec, advance).await) }
        };
        let mut waiting = months.iter().copied();
        let mut running: FuturesUnordered<_> = waiting.by_ref().take(MONTHS_AT_ONCE).map(rewrite).collect();
        // All that were begun are waited for, whichever fails, and what was done is noted.
        let mut failed = None;
        while let Some((month, done)) = running.next().await {
            let noted = match done {
                Ok(rewrite) => {
                    for change in rewrite.tables.iter().filter(|change| change.table == Table::Events.as_str()) {
                        seen.extend(change.added.iter().map(|file| file.path.clone()));
                    }
                    self.record.rewrites.push(MonthEvidence { month, reconstructed: false, rewrite });
                    self.record.erased = Some(self.eraser.clock.now());
                    self.save_leader().await.and_then(|()| self.eraser.faults.passed(Step::Rewrite))
                }
                Err(error) => Err(error.into()),
            };
            match noted {
                Ok(()) if failed.is_none() => running.extend(waiting.next().map(rewrite)),
                Ok(()) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn erase_quarantine(&mut self, maintainer: &Maintainer, resolved: &Resolved) -> Result<(), ErasureError> {
        self.enter(Step::Quarantine, "clearing the quarantine", 0);
        let snapshot = self.eraser.warehouse.snapshot().await?;
        let files = snapshot.files(Table::Quarantine);
        let (rows, by_request) = count_quarantine(self.eraser.warehouse.root(), files, resolved.targets.clone()).await?;
        if rows > 0 {
            for (request, rows) in self.requests.iter().zip(by_request) {
                self.record.found.entry(request.request.id.to_string()).or_default().quarantine += rows;
            }
            let change = maintainer.erase_quarantine(&resolved.quarantined).await?;
            self.record.quarantine.push(change);
            self.record.erased = Some(self.eraser.clock.now());
        }
        self.done(Step::Quarantine).await
    }

    /// Deletes what was replaced, waiting for queries that may still read it.
    async fn purge(&mut self, maintainer: &mut Maintainer) -> Result<(), ErasureError> {
        let grace_s = self.eraser.settings.purge_grace_s;
        self.enter(Step::Purge, "deleting replaced files and old log entries", 0);
        let give_up = self.eraser.clock.now().plus_secs(i64::try_from(grace_s).unwrap_or(i64::MAX)).plus_secs(PURGE_SLACK_S);
        loop {
            let purge = maintainer.purge(grace_s, &self.eraser.clock).await?;
            self.record.purge.files += purge.files;
            self.record.purge.bytes += purge.bytes;
            self.record.purge.log_files += purge.log_files;
            if purge.waiting == 0 {
                break;
            }
            let now = self.eraser.clock.now();
            if now >= give_up {
                return Err(ErasureError::PurgeWaiting { waiting: purge.waiting, grace_s });
            }
            let wait = purge.next_at.map_or(1_000_000, |at| at.micros().saturating_sub(now.micros()));
            // In short naps: the clock may be one that a test moves.
            let nap = u64::try_from(wait).unwrap_or(0).clamp(10_000, 1_000_000);
            tokio::time::sleep(std::time::Duration::from_micros(nap)).await;
        }
        self.record.purged = Some(self.eraser.clock.now());
        self.done(Step::Purge).await
    }

    async fn forget(&mut self, resolved: &Resolved) -> Result<(), ErasureError> {
        self.enter(Step::Forget, "forgetting consents", 0);
        let subjects: Vec<_> = resolved.gone_for_good.iter().chain(&resolved.lifted).copied().collect();
        let mut attempt = 1;
        loop {
            match self.eraser.ledger.forget_subject(&subjects).await {
                Ok(_) => break,
                Err(LedgerError::WalBusy) if attempt < FORGET_ATTEMPTS => {
                    attempt += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.done(Step::Forget).await
    }

    /// A step begins.
    pub(crate) fn enter(&mut self, step: Step, what: &str, total: u64) {
        self.step = step;
        tracing::debug!(step = step.as_str(), "a step of the erasure begins");
        self.progress.begin(step, what, total);
    }

    /// A step is done: it is put on the ledger.
    pub(crate) async fn done(&mut self, step: Step) -> Result<(), ErasureError> {
        self.save_leader().await?;
        let others: Vec<RequestId> = self.ids().filter(|id| *id != self.leader_id()).collect();
        if !others.is_empty() && !self.followed {
            let detail = StepDetail { leader: Some(self.leader_id()), ..StepDetail::default() };
            let detail = serde_json::to_string(&detail).map_err(ErasureError::Record)?;
            self.eraser.ledger.follow(&others, self.leader_id(), step.as_str(), &detail).await?;
            self.followed = true;
        }
        self.eraser.faults.passed(step)
    }

    async fn save_leader(&self) -> Result<(), ErasureError> {
        let detail = LeaderDetail { leader: Some(self.leader_id()), record: &self.record };
        let detail = serde_json::to_string(&detail).map_err(ErasureError::Record)?;
        self.eraser.ledger.set_step(self.leader_id(), self.step.as_str(), &detail).await?;
        Ok(())
    }

    /// Puts the error on the ledger; when even that fails, the caller still gets the first error.
    async fn record_error(&self, error: &ErasureError) {
        let mut detail = StepDetail { leader: Some(self.leader_id()), error: Some(error.chain()), record: None };
        let others: Vec<RequestId> = self.ids().filter(|id| *id != self.leader_id()).collect();
        let written = async {
            if !others.is_empty() {
                let text = serde_json::to_string(&detail).map_err(ErasureError::Record)?;
                self.eraser.ledger.set_step_all(&others, self.step.as_str(), &text).await?;
            }
            detail.record = Some(self.record.clone());
            let text = serde_json::to_string(&detail).map_err(ErasureError::Record)?;
            self.eraser.ledger.set_step(self.leader_id(), self.step.as_str(), &text).await?;
            Ok::<_, ErasureError>(())
        };
        if let Err(second) = written.await {
            tracing::error!(error = second.chain(), "the ledger could not note why the erasure stopped");
        }
    }

    fn ids(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.requests.iter().map(|request| request.request.id)
    }

    fn leader_id(&self) -> RequestId {
        self.requests[self.leader].request.id
    }

    /// What the run did, as the record tells it.
    pub(crate) fn report(&self, requests: Vec<RequestOutcome>) -> RunReport {
        let months: BTreeSet<Month> = self.record.rewrites.iter().map(|evidence| evidence.month).collect();
        let changes = self.record.rewrites.iter().flat_map(|evidence| &evidence.rewrite.tables).chain(&self.record.quarantine);
        RunReport {
            requests,
            rows_erased: self.record.rewrites.iter().map(|evidence| evidence.rewrite.erased_rows).sum(),
            quarantine_rows_erased: self.record.quarantine.iter().map(|change| change.rows_before.saturating_sub(change.rows_after)).sum(),
            months: months.into_iter().collect(),
            files_rewritten: changes.map(|change| change.added.len() as u64).sum(),
            files_deleted: self.record.purge.files,
            bytes_deleted: self.record.purge.bytes,
            spliced: self.record.rewrites.iter().filter_map(|evidence| evidence.rewrite.spliced).fold(
                SpliceCounts::default(),
                |mut all, counts| {
                    all.add(&counts);
                    all
                },
            ),
            handed_over: false,
        }
    }
}

fn planned_files(snapshot: &Snapshot, table: Table, month: Month) -> Vec<PlannedFile> {
    let planned = |file: &DataFile| PlannedFile { path: file.path.clone(), rows: file.rows, bytes: file.size };
    snapshot.files(table).iter().filter(|file| file.month == month).map(planned).collect()
}
