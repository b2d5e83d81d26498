//! What a run would do, without doing it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ameles_core::{DeviceId, Month, SuppressionSet};
use ameles_schemas::{Table, column};
use ameles_store::{ReadView, estimate_rewrite};
use arrow::array::{Array, AsArray, BinaryArray, RecordBatch};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};

use crate::census::{Of, count_quarantine, count_rows};
use crate::resolve::resolve;
use crate::{Eraser, ErasureError};

/// Bytes a second that are decoded, encoded, compared and decoded again, roughly; an estimate is all it is for.
const ENCODED_BYTES_PER_S: u64 = 8 << 20;
/// Bytes a second that are copied, compared and hashed.
const COPIED_BYTES_PER_S: u64 = 128 << 20;

/// What a run would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// Requests that it would take up.
    pub requests: u64,
    /// Of them, those of which no row is found.
    pub requests_without_rows: u64,
    /// Rows of `events` that would go.
    pub rows: u64,
    /// Rows of `quarantine` that would go.
    pub quarantine_rows: u64,
    /// Months that would be rewritten.
    pub months: Vec<Month>,
    /// Files that would be replaced.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of them, the bytes that would be decoded and encoded again; the others are copied.
    #[serde(default)]
    pub bytes_encoded: u64,
    /// How long it would take, roughly, the grace before replaced files are deleted included.
    pub seconds: u64,
    /// Devices of which rows would go.
    pub devices: u64,
    /// Of them, devices where events without a user would go with their only user.
    pub userless_devices: u64,
    /// Users who did not ask, but of whose events some would go with an erased device.
    pub other_users: u64,
    /// The numbers that would change, against what they would be had nobody asked.
    pub numbers: Vec<NumberChange>,
}

/// One number of one month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberChange {
    /// The month.
    pub month: Month,
    /// `mau`, `activations`, or a measure's name.
    pub metric: String,
    /// With the subjects; none where only the change is counted.
    pub before: Option<u64>,
    /// Without them.
    pub after: Option<u64>,
    /// The difference.
    pub change: i64,
}

impl Eraser {
    /// What [`Eraser::run`] would do now. Changes nothing.
    ///
    /// # Errors
    /// When storage or the ledger fails.
    pub fn preview<'a>(&'a self) -> BoxFuture<'a, Result<Preview, ErasureError>> {
        async move {
            let requests = self.ledger.open_requests().await?;
            if requests.is_empty() {
                return Ok(Preview::default());
            }
            let resolved = resolve(self, &requests, &HashSet::new()).await?;
            let (root, snapshot) = (self.warehouse.root(), &resolved.snapshot);
            let files: Vec<_> = resolved.event_files().cloned().collect();
            let census =
                count_rows(&self.warehouse, &files, resolved.targets.clone(), Some((resolved.devices(), Of::SubjectsAndOthers))).await?;
            let (quarantine_rows, _) = count_quarantine(root, snapshot.files(Table::Quarantine), resolved.targets.clone()).await?;
            let mut months = census.months;
            months.extend(resolved.affected.months.iter().copied());
            let mut rewrite = estimate_rewrite(&self.warehouse, snapshot, &months, &resolved.targets.covered).await?;
            for file in snapshot.files(Table::Quarantine).iter().filter(|_| quarantine_rows > 0) {
                rewrite.files += 1;
                rewrite.bytes += file.size;
                rewrite.bytes_encoded += file.size;
            }
            let copied = rewrite.bytes - rewrite.bytes_encoded.min(rewrite.bytes);
            let mut devices = resolved.affected.devices.clone();
            devices.extend(resolved.targets.devices.keys().chain(resolved.targets.userless.keys()).copied());
            let numbers = self.numbers(resolved.targets.covered.clone(), &devices).await?;
            Ok(Preview {
                requests: requests.len() as u64,
                requests_without_rows: census.by_request.iter().filter(|months| months.is_empty()).count() as u64,
                rows: census.rows,
                quarantine_rows,
                months: months.into_iter().collect(),
                files: rewrite.files,
                bytes: rewrite.bytes,
                bytes_encoded: rewrite.bytes_encoded,
                seconds: self.settings.purge_grace_s + 1 + rewrite.bytes_encoded / ENCODED_BYTES_PER_S + copied / COPIED_BYTES_PER_S,
                devices: resolved.affected.devices.len() as u64,
                userless_devices: resolved.targets.userless.len() as u64,
                other_users: census.other_users.len() as u64,
                numbers,
            })
        }
        .boxed()
    }

    /// Compares the tables with and without what is covered.
    async fn numbers(&self, covered: Arc<SuppressionSet>, touched: &HashSet<DeviceId>) -> Result<Vec<NumberChange>, ErasureError> {
        let with = ReadView::open(&self.warehouse, Arc::new(SuppressionSet::default())).await?;
        let without = ReadView::open(&self.warehouse, covered).await?;
        let (before, after) = (self.totals(&with).await?, self.totals(&without).await?);
        let mut changes = Vec::new();
        for (key @ (month, metric), before) in &before {
            let after = after.get(key).copied().unwrap_or(0);
            if *before != after {
                let (before, after) = (Some(*before), Some(after));
                changes.push(NumberChange { month: *month, metric: metric.clone(), before, after, change: difference(before, after) });
            }
        }
        let (before, after) = (activations(&with, touched).await?, activations(&without, touched).await?);
        let months: std::collections::BTreeSet<Month> = before.keys().chain(after.keys()).copied().collect();
        for month in months {
            let change = difference(before.get(&month).copied(), after.get(&month).copied());
            if change != 0 {
                changes.push(NumberChange { month, metric: "activations".to_owned(), before: None, after: None, change });
            }
        }
        changes.sort_by(|left, right| (left.month, &left.metric).cmp(&(right.month, &right.metric)));
        Ok(changes)
    }

    /// Active devices and measures of each month.
    async fn totals(&self, view: &Arc<ReadView>) -> Result<BTreeMap<(Month, String), u64>, ErasureError> {
        let measures = &self.warehouse.tables().measures;
        let mut columns = vec![column::DEVICE];
        columns.extend(measures.iter().map(|measure| measure.name.as_str()));
        let mut totals = BTreeMap::new();
        for month in view.months(Table::Activity) {
            let mut stream = view.month_stream(Table::Activity, month, Some(&columns))?;
            while let Some(batch) = stream.next().await {
                let batch = batch.map_err(ameles_store::StoreError::from)?;
                *totals.entry((month, "mau".to_owned())).or_default() += batch.num_rows() as u64;
                for measure in measures {
                    *totals.entry((month, measure.name.clone())).or_default() += sum_of(&batch, &measure.name);
                }
            }
        }
        Ok(totals)
    }
}

/// Activations by month, of the devices touched only: those of the others do not change.
async fn activations(view: &Arc<ReadView>, touched: &HashSet<DeviceId>) -> Result<HashMap<Month, u64>, ErasureError> {
    let mut first: HashMap<DeviceId, i64> = HashMap::new();
    for month in view.months(Table::Devices) {
        let mut stream = view.month_stream(Table::Devices, month, Some(&[column::DEVICE, column::ACTIVATED_TS]))?;
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(ameles_store::StoreError::from)?;
            let device = batch.column_by_name(column::DEVICE).and_then(|column| column.as_any().downcast_ref::<BinaryArray>());
            let ts = batch.column_by_name(column::ACTIVATED_TS).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
            let (Some(device), Some(ts)) = (device, ts) else {
                return Err(ErasureError::Column { path: Table::Devices.as_str().to_owned(), column: column::ACTIVATED_TS });
            };
            for row in 0..batch.num_rows() {
                let id = DeviceId::from_slice(device.value(row))?;
                if touched.contains(&id) {
                    let at = ts.value(row);
                    first.entry(id).and_modify(|known| *known = (*known).min(at)).or_insert(at);
                }
            }
        }
    }
    let mut by_month = HashMap::new();
    for at in first.into_values() {
        *by_month.entry(ameles_core::Timestamp::from_micros(at).month()).or_default() += 1;
    }
    Ok(by_month)
}

fn sum_of(batch: &RecordBatch, name: &str) -> u64 {
    let Some(lists) = batch.column_by_name(name).and_then(|column| column.as_list_opt::<i32>()) else { return 0 };
    let offsets = lists.value_offsets();
    let Some(counts) = lists.values().as_primitive_opt::<Int32Type>() else { return 0 };
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { return 0 };
    let range = usize::try_from(*first).unwrap_or(0)..usize::try_from(*last).unwrap_or(0);
    counts.values().get(range).unwrap_or(&[]).iter().map(|count| u64::try_from(*count).unwrap_or(0)).sum()
}

fn difference(before: Option<u64>, after: Option<u64>) -> i64 {
    let signed = |value: Option<u64>| i64::try_from(value.unwrap_or(0)).unwrap_or(i64::MAX);
    signed(after) - signed(before)
}
