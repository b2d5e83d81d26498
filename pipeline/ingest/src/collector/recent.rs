//! The memory of recent events, rebuilt from the warehouse at start.

use std::sync::Arc;

use ameles_core::Timestamp;
use ameles_schemas::{Table, column};
use ameles_store::ReadView;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use futures::TryStreamExt;

use crate::{DuplicateMemory, IngestEnv, IngestError};

/// Reads the events of the last days back into a memory.
pub(crate) async fn remember(env: &IngestEnv, fingerprints_max: usize) -> Result<DuplicateMemory, IngestError> {
    let mut memory = DuplicateMemory::new(fingerprints_max);
    if env.contract.roles().event_id.is_none() {
        return Ok(memory);
    }
    let now = env.clock.now();
    let from = DuplicateMemory::kept_from(now).start();
    let suppressions = env.ledger.suppressions().await.map_err(IngestError::ledger)?;
    let view = ReadView::open(&env.warehouse, Arc::clone(&suppressions)).await.map_err(IngestError::store)?;
    let recent = |last: Timestamp| last >= from;
    let months: std::collections::BTreeSet<_> = view
        .snapshot()
        .files(Table::Events)
        .iter()
        .filter(|file| file.ts.is_none_or(|(_, last)| recent(last)))
        .map(|file| file.month)
        .collect();
    for month in months {
        let columns = [column::DEVICE, column::TS, column::EVENT_KEY];
        let mut stream = view.month_stream(Table::Events, month, Some(&columns)).map_err(IngestError::store)?;
        while let Some(batch) = stream.try_next().await.map_err(IngestError::store)? {
            insert(&mut memory, &batch, from, now);
        }
    }
    Ok(memory)
}

fn insert(memory: &mut DuplicateMemory, batch: &RecordBatch, from: Timestamp, now: Timestamp) {
    let (Some(devices), Some(times), Some(keys)) = (
        batch.column(0).as_binary_opt::<i32>(),
        batch.column(1).as_primitive_opt::<TimestampMicrosecondType>(),
        batch.column(2).as_binary_opt::<i32>(),
    ) else {
        return;
    };
    let number = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).map(u128::from_be_bytes).unwrap_or(0);
    for at in 0..batch.num_rows() {
        let ts = Timestamp::from_micros(times.value(at));
        if ts >= from && keys.is_valid(at) {
            memory.insert(number(devices.value(at)), number(keys.value(at)), ts, now);
        }
    }
}
