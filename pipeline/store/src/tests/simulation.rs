//! Thousands of small steps against a model in memory: appends of several leases
//! with repeats, suppressions, erasures, merges, settling, purges, and crashes at
//! any failpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ameles_core::{Month, SeededRandom, SharedClock, SuppressedSubject, SuppressionEntry, SuppressionSet, SystemClock, Timestamp};
use ameles_schemas::Table;

use super::compaction::{assert_few, assert_functions_of_events};
use super::forgetful::{Disk, below};
use super::support::*;
use crate::failpoints::POINTS;
use crate::{Append, Maintainer, Rewrite, StoreError, Txn, Warehouse, WriterLease, affected};

const RUNS_MAX: usize = 4;
const LEASES: usize = 3;
const DEVICES: u64 = 40;

struct Simulation {
    world: World,
    /// Only for its speed: nothing is synced on it.
    _disk: Arc<Disk>,
    random: SeededRandom,
    leases: Vec<Option<WriterLease>>,
    maintainer: Option<Maintainer>,
    positions: [i64; LEASES],
    next_key: u32,
    /// Accepted events of each month in the order of their commits, repeats left out.
    model: BTreeMap<Month, Vec<Event>>,
    /// Devices whose erasure is asked for, and those it has been carried out for.
    pending: BTreeSet<u32>,
    erased: BTreeSet<u32>,
    sequence: u64,
    crashes: u32,
    merges: u64,
}

fn months() -> [Month; 3] {
    ["2018-07", "2018-08", "2018-09"].map(month)
}

impl Simulation {
    async fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("warehouse");
        std::fs::create_dir(&root).unwrap();
        let disk = Disk::under(&root);
        let warehouse = Warehouse::create(&root, tables()).await.unwrap();
        let world = World { folder, warehouse, random: SeededRandom::new(seed + 100), suppressed: Suppressed::default() };
        Self {
            world,
            _disk: disk,
            random: SeededRandom::new(seed),
            leases: (0..LEASES).map(|_| None).collect(),
            maintainer: None,
            positions: [0; LEASES],
            next_key: 1,
            model: BTreeMap::new(),
            pending: BTreeSet::new(),
            erased: BTreeSet::new(),
            sequence: 0,
            crashes: 0,
            merges: 0,
        }
    }

    fn below(&self, end: u64) -> u64 {
        below(&self.random, end)
    }

    fn set(&self) -> SuppressionSet {
        let entry = |pending: bool| {
            move |number: &u32| SuppressionEntry {
                subject: SuppressedSubject::Device(device(*number)),
                received: Timestamp::MAX,
                pending,
                lifted_from: None,
            }
        };
        SuppressionSet::new(self.sequence, self.pending.iter().map(entry(true)).chain(self.erased.iter().map(entry(false))))
    }

    fn suppressions_changed(&mut self) {
        self.sequence += 1;
        self.world.suppressed.set(self.set());
    }

    /// New events and repeats of old ones: as they were, or with another time.
    fn some_events(&mut self, month: Month) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..=self.below(9) {
            let known = self.model.get(&month).map_or(0, Vec::len) as u64;
            if known > 0 && self.below(4) == 0 {
                let mut repeat = self.model[&month][self.below(known) as usize];
                if self.below(2) == 0 {
                    repeat.at = self.below(2_500_000) as i64;
                }
                // One key once in a batch, so that nothing but the order of commits tells which is first.
                if !events.iter().any(|event: &Event| event.key == repeat.key) {
                    events.push(repeat);
                }
            } else {
                events.push(event(self.below(DEVICES) as u32, self.below(2_500_000) as i64, self.next_key));
                self.next_key += 1;
            }
        }
        events
    }

    async fn append(&mut self) -> Result<(), StoreError> {
        let writer = self.below(LEASES as u64) as usize;
        let first = self.below(3) as usize;
        let both = self.below(4) == 0;
        let mut batches = vec![(months()[first], self.some_events(months()[first]))];
        if both {
            let other = months()[(first + 1) % 3];
            batches.push((other, self.some_events(other)));
        }
        if self.leases[writer].is_none() {
            self.leases[writer] = Some(self.world.lease().await);
        }
        let app = format!("file:{writer}");
        let at = self.positions[writer];
        let append = Append {
            events: batches.iter().map(|(month, events)| (*month, batch(&tables(), *month, events))).collect(),
            quarantine: (self.below(3) == 0).then(|| quarantine(&[(months()[first], Some(self.below(DEVICES) as u32))])),
            txns: vec![Txn { app: app.clone(), before: (at > 0).then_some(at), after: at + 1 }],
        };
        let Some(lease) = self.leases[writer].as_mut() else { unreachable!() };
        let appended = lease.append(append, &self.world.suppressed).await;
        if appended.is_err() {
            self.leases[writer] = None;
        }
        // The tables say whether it is in, acknowledged or not.
        self.positions[writer] = self.world.warehouse.snapshot().await?.txn(Table::Events, &app).unwrap_or_default();
        assert!(appended.is_err() || self.positions[writer] == at + 1);
        if self.positions[writer] == at + 1 {
            for (month, events) in batches {
                let model = self.model.entry(month).or_default();
                for event in events {
                    let suppressed = self.pending.contains(&event.device) || self.erased.contains(&event.device);
                    if !suppressed && !model.iter().any(|known| (known.device, known.key) == (event.device, event.key)) {
                        model.push(event);
                    }
                }
            }
        }
        appended.map(drop)
    }

    async fn maintainer(&mut self) -> Result<Maintainer, StoreError> {
        match self.maintainer.take() {
            Some(maintainer) => Ok(maintainer),
            None => {
                let mut maintainer = self.world.maintainer().await;
                maintainer.recover().await?;
                Ok(maintainer)
            }
        }
    }

    async fn maintain(&mut self, what: u64) -> Result<(), StoreError> {
        let mut maintainer = self.maintainer().await?;
        let carried_out = Arc::new(self.set().carried_out());
        match what {
            0 => {
                maintainer.purge(0, &(Arc::new(SystemClock) as SharedClock)).await?;
            }
            1 => {
                let month = months()[self.below(3) as usize];
                maintainer.rewrite_month(month, &Rewrite { suppressed: carried_out, closed: false }, &|_| {}).await?;
            }
            2 => {
                let set = self.set();
                let found = affected(&self.world.warehouse, &set).await?;
                let suppressed = Arc::new(set);
                for month in found.months {
                    maintainer.rewrite_month(month, &Rewrite { suppressed: Arc::clone(&suppressed), closed: false }, &|_| {}).await?;
                }
                maintainer.erase_quarantine(&found.devices).await?;
                self.erased.append(&mut self.pending);
                self.suppressions_changed();
            }
            _ => {
                for month in months() {
                    self.merges += maintainer.compact_month(month, RUNS_MAX, &self.world.suppressed, &|_| {}).await?.merges;
                }
                self.merges += maintainer.compact_quarantine(RUNS_MAX, &self.world.suppressed).await?.merges;
                let snapshot = self.world.warehouse.snapshot().await?;
                assert_few(&snapshot, RUNS_MAX);
            }
        }
        self.maintainer = Some(maintainer);
        Ok(())
    }

    async fn step(&mut self) {
        let point = (self.below(25) == 0).then(|| POINTS[self.below(POINTS.len() as u64) as usize]);
        self.world.warehouse.fail_at(point);
        let done = match self.below(100) {
            0 => {
                if self.erased.len() + self.pending.len() < DEVICES as usize / 2 {
                    let device = self.below(DEVICES) as u32;
                    self.pending.insert(device);
                    self.erased.remove(&device);
                    self.model.values_mut().for_each(|events| events.retain(|event| event.device != device));
                    self.suppressions_changed();
                }
                Ok(())
            }
            1 => self.maintain(0).await,
            2 => self.maintain(1).await,
            3 if !self.pending.is_empty() => self.maintain(2).await,
            4..=24 => self.maintain(3).await,
            _ => self.append().await,
        };
        self.world.warehouse.fail_at(None);
        if let Err(error) = done {
            assert!(error.to_string().contains("failpoint"), "{error}");
            self.crashes += 1;
            // The process has gone with all that it held, and comes back.
            self.leases.iter_mut().for_each(|lease| drop(lease.take()));
            self.maintainer = None;
            self.world.warehouse = Warehouse::open(self.world.root(), tables()).await.unwrap();
            self.maintainer = Some(self.maintainer().await.unwrap());
            self.check().await;
        }
    }

    /// Whatever has been merged: the tables are functions of the events, and the events are the model's with some repeats.
    async fn check(&self) {
        let view = self.world.view().await;
        assert_functions_of_events(&view).await;
        let mut expected = BTreeSet::new();
        for (month, events) in &self.model {
            for event in events {
                expected.insert((month.first_day().to_string(), hex::encode(device(event.device).as_bytes()), event.key.unwrap()));
            }
        }
        let found: BTreeSet<_> = rows(&view, Table::Events).await.iter().map(|line| identity(line)).collect();
        assert_eq!(found, expected);
    }

    async fn end(mut self) {
        let carried_out = Arc::new(self.set().carried_out());
        self.check().await;
        let mut maintainer = self.maintainer().await.unwrap();
        for month in months() {
            maintainer.rewrite_month(month, &Rewrite { suppressed: Arc::clone(&carried_out), closed: false }, &|_| {}).await.unwrap();
        }
        for table in [Table::Activity, Table::Links, Table::Devices] {
            let expected: Vec<String> = self.model.iter().flat_map(|(month, events)| Model::of(*month, events).rows(table)).collect();
            assert_eq!(self.world.rows(table).await, expected, "{table}");
        }
        assert_eq!(self.world.rows(Table::Events).await.len(), self.model.values().map(Vec::len).sum::<usize>());
        drop(std::mem::take(&mut self.leases));
        maintainer.purge(0, &(Arc::new(SystemClock) as SharedClock)).await.unwrap();
        let (there, named) = files(&self.world).await;
        assert_eq!(there, named);
    }
}

/// Month, device and key of an event's line.
fn identity(line: &str) -> (String, String, u32) {
    let words: Vec<&str> = line.split(' ').collect();
    let key = words.iter().find(|word| word.len() == 32 && word.ends_with("6b6b6b6b")).unwrap();
    let number = u32::from_str_radix(&key[8..16], 16).unwrap();
    ((*words.last().unwrap()).to_owned(), words[0].to_owned(), number)
}

/// `AMELES_SIMULATION_SEEDS` says how many seeds are played, `AMELES_SIMULATION_STEPS` how many steps each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_the_tables_are_the_model() {
    let from_environment = |name: &str, otherwise: u64| std::env::var(name).map_or(otherwise, |text| text.parse().unwrap());
    for seed in 1..=from_environment("AMELES_SIMULATION_SEEDS", 2) {
        let mut simulation = Simulation::new(seed).await;
        for step in 0..from_environment("AMELES_SIMULATION_STEPS", 400) {
            simulation.step().await;
            if step % 100 == 99 {
                simulation.check().await;
            }
        }
        assert!(
            simulation.crashes > 0 && simulation.merges > 20,
            "seed {seed}: {} crashes, {} merges",
            simulation.crashes,
            simulation.merges
        );
        simulation.end().await;
    }
}
