//! The memory of recent events, rebuilt from the warehouse: at start, and of what others have committed since.

use ameles_core::Timestamp;
use ameles_schemas::{Table, column};
use ameles_store::{DataFile, ReadView, SNAPSHOTS_MAX, is_vanished_file};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use futures::TryStreamExt;

use crate::{DuplicateMemory, IngestEnv, IngestError};

/// Reads the events of the last days back into a memory of `bytes_max`.
///
/// # Errors
/// When the warehouse or the ledger cannot be read, or the memory cannot spill.
pub(crate) async fn remember(env: &IngestEnv, bytes_max: usize) -> Result<DuplicateMemory, IngestError> {
    let folder = env.warehouse.root().join("_ameles").join("spill");
    let mut memory = DuplicateMemory::new(bytes_max, &folder, env.random.as_ref())?;
    catch_up(env, &mut memory, None).await?;
    Ok(memory)
}

/// Reads what has been committed to `events` since the memory was last brought up, less what `own_lease` has written,
/// which the memory knows already: for whoever takes over a source that another process has committed for.
///
/// # Errors
/// As [`remember`]; what has been read until then stays.
pub(crate) async fn catch_up(env: &IngestEnv, memory: &mut DuplicateMemory, own_lease: Option<&str>) -> Result<(), IngestError> {
    if env.contract.roles().event_id.is_none() {
        return Ok(());
    }
    let mut attempt = 1;
    loop {
        match read(env, memory, own_lease).await {
            // An erasure or a compaction in another process has purged files of the view: a new one names others.
            Err(error) if is_vanished_file(&error) && attempt < SNAPSHOTS_MAX => attempt += 1,
            done => return done,
        }
    }
}

async fn read(env: &IngestEnv, memory: &mut DuplicateMemory, own_lease: Option<&str>) -> Result<(), IngestError> {
    let suppressions = env.ledger.suppressions().await.map_err(IngestError::ledger)?;
    let view = ReadView::open(&env.warehouse, suppressions).await.map_err(IngestError::store)?;
    let now = env.clock.now();
    let files = view.snapshot().files(Table::Events);
    // By event time, as the memory itself moves on: who sends three-day-old events is told of repeats after a restart too.
    let newest = files.iter().filter_map(|file| Some(file.ts?.1)).max().map_or(now, |newest| newest.min(now));
    let from = DuplicateMemory::kept_from(newest).start();
    // Times of commits rise strictly. A rewrite since then comes again as a whole: it may hold what others wrote.
    let since = memory.read_until;
    let is_new = |file: &&DataFile| since.is_none_or(|since| file.modified > since);
    let may_be_recent = |file: &&DataFile| file.ts.is_none_or(|(_, last)| last >= from);
    let is_anothers = |file: &&DataFile| own_lease.is_none() || file.lease() != own_lease;
    let has_keys = |file: &&DataFile| file.has_event_keys();
    let wanted: Vec<DataFile> = files.iter().filter(is_new).filter(has_keys).filter(may_be_recent).filter(is_anothers).cloned().collect();
    for of_month in wanted.chunk_by(|a, b| a.month == b.month) {
        let columns = [column::DEVICE, column::TS, column::EVENT_KEY];
        let mut stream = view.events_stream(of_month[0].month, of_month.to_vec(), &columns).map_err(IngestError::store)?;
        while let Some(batch) = stream.try_next().await.map_err(IngestError::store)? {
            insert(memory, &batch, from, now)?;
        }
    }
    memory.read_until = files.iter().map(|file| file.modified).max().max(since);
    Ok(())
}

fn insert(memory: &mut DuplicateMemory, batch: &RecordBatch, from: Timestamp, now: Timestamp) -> Result<(), IngestError> {
    let (Some(devices), Some(times), Some(keys)) = (
        batch.column(0).as_binary_opt::<i32>(),
        batch.column(1).as_primitive_opt::<TimestampMicrosecondType>(),
        batch.column(2).as_binary_opt::<i32>(),
    ) else {
        return Err(IngestError::Setup("the warehouse has events of another shape than the contract's".to_owned()));
    };
    let number = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).map(u128::from_be_bytes).unwrap_or(0);
    for at in 0..batch.num_rows() {
        let ts = Timestamp::from_micros(times.value(at));
        if ts >= from && keys.is_valid(at) {
            memory.insert(number(devices.value(at)), number(keys.value(at)), ts, now)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::fmt;
    use std::ops::Range;
    use std::sync::{Arc, Mutex};

    use ameles_core::{Clock, DeviceId, SharedClock, SuppressedSubject, SuppressionEntry, SuppressionSet, SystemRandom};
    use ameles_store::{Rewrite, Warehouse};

    use super::*;
    use crate::testing::{Home, at, lines};

    /// Whenever it is asked, another process has just erased one of these devices and purged what held it.
    struct Purging(Mutex<Vec<DeviceId>>, Warehouse);

    impl fmt::Debug for Purging {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Purging")
        }
    }

    impl Clock for Purging {
        fn now(&self) -> Timestamp {
            let now = at(crate::testing::NOW);
            if let Some(device) = self.0.lock().unwrap().pop() {
                let purge = async {
                    let subject = SuppressedSubject::Device(device);
                    let erased = SuppressionEntry { subject, received: now, pending: false, lifted_from: None };
                    let suppressed = Arc::new(SuppressionSet::new(1, [erased]));
                    let mut maintainer = self.1.try_maintainer(&SystemRandom).await.unwrap().unwrap();
                    for month in self.1.snapshot().await.unwrap().months(Table::Events) {
                        maintainer
                            .rewrite_month(month, &Rewrite { suppressed: Arc::clone(&suppressed), closed: false }, &|_| {})
                            .await
                            .unwrap();
                    }
                    let later = ameles_core::ManualClock::new(now.plus_secs(3_600));
                    maintainer.purge(0, &(Arc::new(later) as SharedClock)).await.unwrap();
                };
                tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(purge));
            }
            now
        }
    }

    /// A server that started while an erasure went on ended with "No such file or directory".
    #[tokio::test(flavor = "multi_thread")]
    async fn files_that_are_purged_meanwhile_are_looked_for_on_a_new_view() {
        let home = Home::new().await;
        home.ingest(&[home.write("a.ndjson", lines(0, 50))]).await;
        let remembered = remember(&home.env, 1 << 20).await.unwrap().len();
        assert!(remembered > 0);
        let devices = |numbers: Range<u32>| numbers.map(|number| home.device(&format!("device-{number}"))).collect();
        let purged = |numbers: Range<u32>| IngestEnv {
            contract: Arc::clone(&home.env.contract),
            admission: Arc::clone(&home.env.admission),
            source_hasher: home.env.source_hasher.clone(),
            ledger: home.env.ledger.clone(),
            warehouse: home.env.warehouse.clone(),
            clock: Arc::new(Purging(Mutex::new(devices(numbers)), home.warehouse.clone())),
            random: Arc::clone(&home.env.random),
            limits: home.env.limits,
            k: home.env.k,
        };
        let left = remember(&purged(1..SNAPSHOTS_MAX), 1 << 20).await.unwrap().len();
        assert!(left > 0 && left <= remembered);
        let Err(error) = remember(&purged(10..10 + SNAPSHOTS_MAX), 1 << 20).await else { panic!("the last view has lost its files too") };
        assert!(is_vanished_file(&error), "{error:?}");
    }
}
