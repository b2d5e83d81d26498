//! Power cuts on a disk that forgets: nothing acknowledged is lost, nothing is
//! doubled, and no log names a file that is not whole.

use std::path::PathBuf;
use std::sync::Arc;

use ameles_core::{SeededRandom, SharedClock, SystemClock};
use ameles_schemas::Table;

use super::forgetful::{Disk, Keeps, Lies, below};
use super::support::*;
use crate::{Append, Maintainer, Rewrite, StoreError, Warehouse, WriterLease};

const SOURCE: &str = "file:abc";

/// What was sent, and how much of it was acknowledged.
struct Sent {
    folder: tempfile::TempDir,
    disk: Arc<Disk>,
    random: SeededRandom,
    suppressed: Suppressed,
    /// Each batch's events by month, and its rows of quarantine.
    batches: Vec<([Vec<Event>; 2], usize)>,
    acknowledged: usize,
}

fn months() -> [ameles_core::Month; 2] {
    [month("2018-07"), month("2018-08")]
}

impl Sent {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("warehouse")).unwrap();
        let disk = Disk::under(&folder.path().join("warehouse"));
        let random = SeededRandom::new(seed);
        Self { folder, disk, random, suppressed: Suppressed::default(), batches: Vec::new(), acknowledged: 0 }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("warehouse")
    }

    fn below(&self, end: u64) -> u64 {
        below(&self.random, end)
    }

    /// Sends a batch from where the source stands.
    async fn send(&mut self, lease: &mut WriterLease, at: usize) -> Result<(), StoreError> {
        if at == self.batches.len() {
            let first = 1 + at as u32 * 100;
            let count = |most| self.below(most) as u32;
            let events = [events(12, 1 + count(8), first), events(12, count(5), first + 50)];
            self.batches.push((events, count(3) as usize));
        }
        let (events, rejected) = &self.batches[at];
        let before = (at > 0).then_some(at as i64);
        let append = Append {
            events: months().into_iter().zip(events).map(|(month, events)| (month, batch(&tables(), month, events))).collect(),
            quarantine: (*rejected > 0).then(|| quarantine(&vec![(months()[0], Some(at as u32)); *rejected])),
            txns: vec![crate::Txn { app: SOURCE.into(), before, after: at as i64 + 1 }],
        };
        lease.append(append, &self.suppressed).await?;
        self.acknowledged = at + 1;
        Ok(())
    }

    /// Works until the power goes, or for some steps.
    async fn live(&mut self, steps: u64) -> Result<(), StoreError> {
        let warehouse = Warehouse::create(&self.root(), tables()).await?;
        let clock: SharedClock = Arc::new(SystemClock);
        let mut lease = warehouse.lease(&self.random).await?;
        let mut maintainer = warehouse.try_maintainer(&self.random).await?.expect("nobody else maintains");
        maintainer.recover().await?;
        for _ in 0..steps {
            match self.below(16) {
                0 => {
                    maintainer.purge(0, &clock).await?;
                }
                1 => drop(maintainer.rewrite_month(months()[self.below(2) as usize], &Rewrite::default(), &|_| {}).await?),
                2..=4 => {
                    maintainer.compact_month(months()[self.below(2) as usize], 3, &self.suppressed, &|_| {}).await?;
                }
                5 => {
                    maintainer.compact_quarantine(3, &self.suppressed).await?;
                }
                _ => {
                    let at = self.position(&warehouse).await?;
                    self.send(&mut lease, at).await?;
                }
            }
        }
        Ok(())
    }

    async fn position(&self, warehouse: &Warehouse) -> Result<usize, StoreError> {
        Ok(warehouse.snapshot().await?.txn(Table::Events, SOURCE).map_or(0, |at| at as usize))
    }

    /// The tables are those of the first batches, the acknowledged ones among them.
    async fn check(&self) -> Maintainer {
        let warehouse = Warehouse::create(&self.root(), tables()).await.unwrap();
        let mut maintainer = warehouse.try_maintainer(&self.random).await.unwrap().unwrap();
        maintainer.recover().await.unwrap();
        let stored = self.position(&warehouse).await.unwrap();
        assert!((self.acknowledged..=self.batches.len()).contains(&stored), "{stored} of {} stored", self.acknowledged);
        let snapshot = warehouse.snapshot().await.unwrap();
        let rejected = snapshot.txn(Table::Quarantine, SOURCE).map_or(0, |at| at as usize);
        assert!(rejected == 0 || rejected <= self.batches.len());
        let counted: usize = self.batches[..stored.max(rejected)].iter().map(|batch| batch.1).sum();
        assert_eq!(snapshot.files(Table::Quarantine).iter().map(|file| file.rows as usize).sum::<usize>(), counted);
        let view = crate::ReadView::open(&warehouse, Arc::default()).await.unwrap();
        let mut expected = [Vec::new(), Vec::new()];
        for (events, _) in &self.batches[..stored] {
            (0..2).for_each(|at| expected[at].extend_from_slice(&events[at]));
        }
        for table in [Table::Activity, Table::Links, Table::Devices] {
            let model: Vec<String> = (0..2).flat_map(|at| Model::of(months()[at], &expected[at]).rows(table)).collect();
            assert_eq!(rows(&view, table).await, model, "{table}");
        }
        let mut found = rows(&view, Table::Events).await;
        assert_eq!(rows(&view, Table::Quarantine).await.len(), counted);
        let count = found.len();
        found.sort();
        found.dedup();
        assert_eq!((found.len(), count), (count, expected.iter().map(Vec::len).sum::<usize>()), "no event is doubled");
        maintainer
    }
}

/// A process's life: what it still has under way ends with it.
fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

fn lives(seed: u64, count: u64) {
    let mut sent = Sent::new(seed);
    let mut cuts = 0;
    for life in 0..count {
        // Each step in the making of the tables and in what comes after is some life's last.
        sent.disk.cut_after(if life < 40 { life } else { 1 + (life * 37 + seed * 11) % 331 });
        cuts += u32::from(run(sent.live(60)).is_err());
        let keeps = [Keeps::Nothing, Keeps::First, Keeps::Some, Keeps::Some, Keeps::All][sent.below(5) as usize];
        sent.disk.restart(keeps, &sent.random);
        run(async { drop(sent.check().await) });
    }
    assert!(sent.acknowledged > 20 && cuts > 60, "{} batches, {cuts} cuts", sent.acknowledged);
    let snapshot = run(async {
        let mut maintainer = sent.check().await;
        maintainer.purge(0, &(Arc::new(SystemClock) as SharedClock)).await.unwrap();
        maintainer.warehouse().snapshot().await.unwrap()
    });
    for table in tables().tables() {
        let mut there = 0;
        for partition in std::fs::read_dir(sent.root().join(table.as_str())).unwrap().map(|entry| entry.unwrap()) {
            if partition.file_name() != "_delta_log" {
                there += std::fs::read_dir(partition.path()).unwrap().count();
            }
        }
        assert_eq!(there, snapshot.files(table).len(), "{table}: the rest is purged");
    }
}

/// `AMELES_POWER_CUTS` says how many cuts each seed takes.
#[test]
fn power_cuts_lose_nothing_acknowledged_and_double_nothing() {
    let count = std::env::var("AMELES_POWER_CUTS").map_or(90, |text| text.parse().unwrap());
    for seed in 1..=2 {
        lives(seed, count);
    }
}

#[tokio::test]
async fn a_disk_that_says_synced_and_is_not_loses_what_was_acknowledged() {
    let mut sent = Sent::new(5);
    let warehouse = Warehouse::create(&sent.root(), tables()).await.unwrap();
    sent.disk.lie(Lies::OfFolders);
    let mut lease = warehouse.lease(&sent.random).await.unwrap();
    sent.send(&mut lease, 0).await.unwrap();
    drop((lease, warehouse));
    sent.disk.restart(Keeps::Nothing, &sent.random);
    let warehouse = Warehouse::create(&sent.root(), tables()).await.unwrap();
    assert_eq!((sent.position(&warehouse).await.unwrap(), sent.acknowledged), (0, 1));
}

#[tokio::test]
async fn a_disk_that_keeps_names_without_their_bytes_leaves_tables_that_do_not_open() {
    let mut opened = 0;
    for seed in 1..=4 {
        let mut sent = Sent::new(seed);
        sent.disk.lie(Lies::OfFiles);
        let warehouse = Warehouse::create(&sent.root(), tables()).await.unwrap();
        let mut lease = warehouse.lease(&sent.random).await.unwrap();
        for at in 0..3 {
            sent.send(&mut lease, at).await.unwrap();
        }
        drop((lease, warehouse));
        sent.disk.restart(Keeps::Nothing, &sent.random);
        opened += u32::from(Warehouse::create(&sent.root(), tables()).await.is_ok());
    }
    assert!(opened < 4, "half files are what this disk is for");
}

/// Another writer has made the month's folder and has yet to sync its name.
#[tokio::test]
async fn a_folder_that_another_writer_has_just_made_is_synced_before_a_commit_names_what_is_in_it() {
    let mut sent = Sent::new(6);
    let warehouse = Warehouse::create(&sent.root(), tables()).await.unwrap();
    let root = sent.root().canonicalize().unwrap();
    for table in tables().tables() {
        for month in months() {
            sent.disk.create_directory(&root.join(table.as_str()).join(format!("month={}", month.first_day()))).unwrap();
        }
    }
    let mut lease = warehouse.lease(&sent.random).await.unwrap();
    for at in 0..4 {
        sent.send(&mut lease, at).await.unwrap();
    }
    drop((lease, warehouse));
    sent.disk.restart(Keeps::Nothing, &sent.random);
    drop(sent.check().await);
}
