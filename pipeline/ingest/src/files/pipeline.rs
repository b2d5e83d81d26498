//! Threads and channels of a file ingest.
//!
//! One thread reads, some decode and admit, this task puts the parts in order
//! and decides what depends on order, another task sorts and commits the batch
//! before while the next one grows. Every channel is bounded.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc as blocking};

use ameles_core::{Month, Reason, SharedClock, SharedRandom, Tally, Timestamp};
use ameles_store::{Settling, Txn, Warehouse};
use tokio::sync::mpsc;

use super::discover::Input;
use super::reader::{Pool, Read, Reader, Stopped};
use super::{FileError, FileOptions, FileOutcome, FileReport};
use crate::admission::{Admission, Intake, Ordered, View, Worker};
use crate::batch::{Part, RANGE_BITS};
use crate::commit::{Batch, Committer};
use crate::decode::{Rejection, without_mark};
use crate::lines::{Line, TextLines};
use crate::undeclared::UndeclaredCounter;
use crate::{IngestEnv, IngestError, Progress, is_closed};

/// Chunks that wait for a worker, and parts that wait for the assembler, per worker.
const WAITING_PER_WORKER: usize = 2;
/// Rejected rows in one commit.
const REJECTED_MAX: usize = 1 << 20;
/// A batch waits no longer than this for more, in seconds: input may come slowly.
const BATCH_AGE_MAX_S: i64 = 60;
/// Batches that are in memory at once where they are small: one grows, one waits, one is committed.
const BATCHES_AT_ONCE: usize = 3;

/// What a worker hands on, with its place in the order read.
struct Done {
    at: u64,
    outcome: Outcome,
}

enum Outcome {
    Told(Read),
    Part { file: usize, part: Box<Part>, txns: Vec<Txn> },
}

/// Reads, decodes and commits everything; the months touched come back for settling.
pub(super) async fn run(
    env: &IngestEnv,
    inputs: Vec<Input>,
    options: &FileOptions,
    progress: &dyn Progress,
    committer: Committer,
) -> Result<(FileReport, BTreeSet<Month>, Committer), IngestError> {
    let suppressions = env.ledger.suppressions().await.map_err(IngestError::ledger)?;
    let consents = env.ledger.consents().await.map_err(IngestError::ledger)?;
    let ordered = Ordered::new(env.ledger.clone(), Arc::clone(&suppressions), Arc::clone(&consents));
    let view = View::new(suppressions, consents, env.clock.now(), None);
    let shared = Arc::new(Shared {
        admission: Arc::clone(&env.admission),
        view: RwLock::new(view),
        undeclared: Mutex::new(UndeclaredCounter::new(env.k)),
        k: env.k,
    });
    let taken = Arc::new(AtomicU64::new(0));
    let paths: Vec<PathBuf> = inputs.iter().map(|input| input.path.clone()).collect();
    let mut done = start(env, inputs, options, &shared, &taken).await?;
    let mut assembler = Assembler {
        env,
        shared: &shared,
        ordered,
        batch: Batch::default(),
        batch_files: Vec::new(),
        batch_memory: 0,
        batch_since: None,
        batch_rows: 0,
        batch_rejected: 0,
        report: FileReport::default(),
        outcome_of: vec![None; paths.len()],
        paths,
        received: 0,
        lines: 0,
        touched: BTreeSet::new(),
        settled: BTreeSet::new(),
        under_way: 0,
    };
    // The channel of one holds the batch that waits while another is committed.
    let (to_commit, batches) = mpsc::channel(1);
    let (committed_to, mut committed) = mpsc::unbounded_channel();
    let commits = Commits { committer, warehouse: env.warehouse.clone(), random: Arc::clone(&env.random), clock: Arc::clone(&env.clock) };
    let committing = tokio::spawn(commits.run(batches, committed_to));
    let mut waiting: BTreeMap<u64, Outcome> = BTreeMap::new();
    let mut next = 0;
    let assembled: Result<(), Halt> = async {
        while let Some(Done { at, outcome }) = done.recv().await {
            waiting.insert(at, outcome);
            while let Some(outcome) = waiting.remove(&next) {
                next += 1;
                assembler.take(outcome).await?;
                progress.advanced(taken.load(Ordering::Relaxed), assembler.received);
                if assembler.is_full() {
                    let large = assembler.batch_memory > env.limits.batch_bytes_max / BATCHES_AT_ONCE;
                    assembler.flush(&to_commit, false).await?;
                    // A large batch has the memory, and the cores, for itself.
                    while large && assembler.under_way > 0 {
                        assembler.note(&committed.recv().await.ok_or(Halt::Commit)?);
                    }
                }
            }
            while let Ok(batch) = committed.try_recv() {
                assembler.note(&batch);
            }
        }
        if waiting.is_empty() {
            progress.message("writing");
        }
        assembler.flush(&to_commit, true).await
    }
    .await;
    // Threads and the committing task end when their channels close.
    drop((done, to_commit));
    let committer = committing.await.map_err(|error| IngestError::Worker(error.to_string()))?;
    if let Err(Halt::Error(error)) = assembled {
        return Err(error);
    }
    let committer = committer?;
    if !waiting.is_empty() {
        return Err(IngestError::Worker("a part of the input is missing".to_owned()));
    }
    while let Some(batch) = committed.recv().await {
        assembler.note(&batch);
    }
    let Assembler { mut report, touched, settled, .. } = assembler;
    report.months = settled.into_iter().collect();
    report.undeclared = shared.undeclared.lock().unwrap_or_else(PoisonError::into_inner).report();
    Ok((report, touched, committer))
}

/// Why the assembler stops early.
enum Halt {
    /// The committing task has gone; it says why.
    Commit,
    Error(IngestError),
}

impl From<IngestError> for Halt {
    fn from(error: IngestError) -> Self {
        Self::Error(error)
    }
}

/// A batch on its way: the parts' files stand beside them.
struct Batched {
    batch: Batch,
    files: Vec<usize>,
    /// Nothing follows: a month that has only this batch is complete.
    last: bool,
}

/// What is told of a committed batch: months, and each part's file and tally.
struct Told {
    months: Vec<Month>,
    settled: Vec<Month>,
    tallies: Vec<(usize, Tally)>,
}

/// Commits batches one after the other.
struct Commits {
    committer: Committer,
    warehouse: Warehouse,
    random: SharedRandom,
    clock: SharedClock,
}

impl Commits {
    async fn run(mut self, mut batches: mpsc::Receiver<Batched>, told: mpsc::UnboundedSender<Told>) -> Result<Committer, IngestError> {
        while let Some(Batched { batch, files, last }) = batches.recv().await {
            // Where another process has the lock, settling waits for it later.
            let maintainer =
                if last { self.warehouse.try_maintainer(self.random.as_ref()).await.map_err(IngestError::store)? } else { None };
            let now = self.clock.now();
            let closed = |month| is_closed(month, now);
            let settling = maintainer.as_ref().map(|maintainer| Settling { maintainer, closed: &closed });
            let committed = self.committer.commit_settling(batch, settling).await?;
            let tallies = files.into_iter().zip(committed.parts.iter().map(|part| part.tally)).collect();
            if last {
                // Beside what is left to do; here and now where there is no thread to be had.
                let _ = std::thread::Builder::new().spawn(move || drop(committed.parts));
            } else {
                give_back(committed.parts);
            }
            let _ = told.send(Told { months: committed.months, settled: committed.settled, tallies });
        }
        Ok(self.committer)
    }
}

/// Gives the memory of a batch back on all cores: of a gigabyte that takes a while.
fn give_back(mut parts: Vec<Part>) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let of_thread = parts.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        while parts.len() > of_thread {
            let some = parts.split_off(parts.len() - of_thread);
            scope.spawn(move || drop(some));
        }
        drop(parts);
    });
}

/// What the workers share.
struct Shared {
    admission: Arc<Admission>,
    view: RwLock<View>,
    undeclared: Mutex<UndeclaredCounter>,
    k: u32,
}

async fn start(
    env: &IngestEnv,
    inputs: Vec<Input>,
    options: &FileOptions,
    shared: &Arc<Shared>,
    taken: &Arc<AtomicU64>,
) -> Result<mpsc::Receiver<Done>, IngestError> {
    let workers = options.workers.max(1);
    let (to_workers, chunks) = blocking::sync_channel::<(u64, Read)>(workers * WAITING_PER_WORKER);
    let chunks = Arc::new(Mutex::new(chunks));
    let (to_assembler, done) = mpsc::channel(workers * WAITING_PER_WORKER);
    let snapshot = env.warehouse.snapshot().await.map_err(IngestError::store)?;
    let hasher = env.source_hasher.clone();
    let (alias, line_bytes_max) = (options.alias.as_deref().map(Arc::from), env.limits.line_bytes_max);
    let taken = Arc::clone(taken);
    tokio::task::spawn_blocking(move || {
        let mut at = 0;
        let mut reader =
            Reader { hasher: &hasher, snapshot: &snapshot, alias, line_bytes_max, taken, pool: Pool::default(), moved: HashMap::new() };
        // Stopped: the assembler has failed and says why.
        let _ = reader.run(&inputs, &mut |read| {
            let this = at;
            at += 1;
            to_workers.send((this, read)).map_err(|_| Stopped)
        });
    });
    for _ in 0..workers {
        let (chunks, shared, to_assembler) = (Arc::clone(&chunks), Arc::clone(shared), to_assembler.clone());
        let clock = Arc::clone(&env.clock);
        tokio::task::spawn_blocking(move || {
            let mut worker = Worker::new(shared.k);
            loop {
                let next = chunks.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok((at, read)) = next else { break };
                let mut view = shared.view.read().unwrap_or_else(PoisonError::into_inner).clone();
                view.arrival = clock.now();
                let outcome = decode(&shared.admission, &mut worker, &view, read);
                if to_assembler.blocking_send(Done { at, outcome }).is_err() {
                    break;
                }
            }
            shared.undeclared.lock().unwrap_or_else(PoisonError::into_inner).merge(worker.undeclared);
        });
    }
    Ok(done)
}

/// A worker's share: one chunk.
fn decode(admission: &Admission, worker: &mut Worker, view: &View, read: Read) -> Outcome {
    let chunk = match read {
        Read::Chunk(chunk) => chunk,
        told => return Outcome::Told(told),
    };
    let mut part =
        Part::new(Arc::clone(&chunk.source), view.arrival, 1, &admission.columns, admission.decoder.contract().roles().partner, 0, 0);
    part.use_room(&mut worker.room);
    part.explained = chunk.explained;
    let mut intake = Intake::new(admission, worker, view, None, &mut part);
    if chunk.oversized {
        intake.reject(Rejection::whole(Reason::TooLarge), 1);
    }
    let mut lines = u64::from(chunk.oversized);
    for line in TextLines::new(chunk.buffer.lines()) {
        lines += 1;
        let line = if lines == 1 && chunk.begins { Line::Bytes(without_mark(line.bytes())) } else { line };
        intake.line(line, lines);
    }
    drop(intake);
    part.lines = lines;
    if part.is_decided() {
        worker.room = part.group(RANGE_BITS);
    } else {
        part.finish();
    }
    Outcome::Part { file: chunk.file, part: Box::new(part), txns: chunk.txns }
}

/// Puts parts in order and into batches.
struct Assembler<'a> {
    env: &'a IngestEnv,
    shared: &'a Shared,
    ordered: Ordered,
    batch: Batch,
    /// The file of each part of the batch.
    batch_files: Vec<usize>,
    /// Bytes of memory.
    batch_memory: usize,
    /// When its first part came.
    batch_since: Option<Timestamp>,
    batch_rows: usize,
    batch_rejected: usize,
    report: FileReport,
    paths: Vec<PathBuf>,
    /// Where each file stands in the report, once opened.
    outcome_of: Vec<Option<usize>>,
    received: u64,
    /// Of the file that is read: those before the next part.
    lines: u64,
    touched: BTreeSet<Month>,
    /// Months that their only batch has settled.
    settled: BTreeSet<Month>,
    /// Batches handed on and not yet committed.
    under_way: usize,
}

impl Assembler<'_> {
    async fn take(&mut self, outcome: Outcome) -> Result<(), IngestError> {
        match outcome {
            Outcome::Told(read) => self.told(read),
            Outcome::Part { file, mut part, txns } => {
                part.stand_behind(self.lines);
                self.lines += part.lines;
                self.ordered.part(&mut part).await?;
                self.publish();
                self.received += part.tally.received();
                self.batch_memory += part.memory();
                self.batch_since.get_or_insert(part.arrival);
                self.batch_rows += part.kept();
                self.batch_rejected += part.rejected.len();
                self.batch.advance(txns);
                self.batch.parts.push(*part);
                self.batch_files.push(file);
            }
        }
        Ok(())
    }

    fn told(&mut self, read: Read) {
        match read {
            Read::Opened { file, source, skipped, lines } => {
                self.lines = lines;
                if let Some(place) = self.outcome_of.get_mut(file) {
                    *place = Some(self.report.files.len());
                }
                self.report.files.push(FileOutcome {
                    path: self.paths.get(file).cloned().unwrap_or_default(),
                    source: source.to_string(),
                    skipped_bytes: skipped,
                    bytes: 0,
                    tally: Tally::default(),
                });
            }
            Read::Closed { file, bytes } => {
                if let Some(outcome) = self.outcome(file) {
                    outcome.bytes = bytes;
                }
            }
            Read::Broken { file, message, offset } => {
                if let Some(outcome) = self.outcome(file) {
                    outcome.bytes = offset.saturating_sub(outcome.skipped_bytes);
                }
                let path = self.paths.get(file).map(|path| path.display().to_string()).unwrap_or_default();
                self.report.errors.push(FileError { path, message, line: self.lines, offset });
            }
            Read::Chunk(_) => {}
        }
    }

    fn outcome(&mut self, file: usize) -> Option<&mut FileOutcome> {
        let at = self.outcome_of.get(file).copied().flatten()?;
        self.report.files.get_mut(at)
    }

    fn is_full(&self) -> bool {
        let old = self.batch_since.is_some_and(|since| self.env.clock.now() > since.plus_secs(BATCH_AGE_MAX_S));
        let limits = &self.env.limits;
        old || self.batch_rows >= limits.batch_rows_max
            || self.batch_memory >= limits.batch_bytes_max
            || self.batch_rejected >= REJECTED_MAX
    }

    /// Lets the workers know what the ledger says now.
    fn publish(&self) {
        let (suppressions, consents) = self.ordered.view();
        let mut view = self.shared.view.write().unwrap_or_else(PoisonError::into_inner);
        if view.suppressions.sequence() != suppressions.sequence() || view.consents.sequence() != consents.sequence() {
            *view = View::new(suppressions, consents, view.arrival, None);
        }
    }

    async fn flush(&mut self, to: &mpsc::Sender<Batched>, last: bool) -> Result<(), Halt> {
        // Grants and withdrawals first: if the commit fails they are recorded again, which changes nothing.
        self.ordered.record().await?;
        self.ordered.note_drops(self.env.clock.now()).await?;
        self.ordered.refresh().await?;
        self.publish();
        let batch = std::mem::take(&mut self.batch);
        let files = std::mem::take(&mut self.batch_files);
        (self.batch_memory, self.batch_rows, self.batch_rejected, self.batch_since) = (0, 0, 0, None);
        self.under_way += 1;
        to.send(Batched { batch, files, last }).await.map_err(|_| Halt::Commit)
    }

    fn note(&mut self, batch: &Told) {
        self.under_way -= 1;
        self.touched.extend(batch.months.iter().filter(|month| !batch.settled.contains(month)));
        self.settled.extend(&batch.settled);
        for (file, tally) in &batch.tallies {
            self.report.tally.add(tally);
            if let Some(outcome) = self.outcome(*file) {
                outcome.tally.add(tally);
            }
        }
    }
}
