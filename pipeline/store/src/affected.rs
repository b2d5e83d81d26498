//! Whom and what an erasure touches.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use ameles_core::{DeviceId, Month, SuppressionSet, Timestamp, UserId};
use ameles_schemas::Table;
use arrow::datatypes::{Schema, SchemaRef};
use hashbrown::HashSet;

use crate::files::{Rows, RunReader, column, optional_pseudonyms, pseudonyms};
use crate::recover::not_rolled_up;
use crate::splice::find::{devices_in, rows_of_devices};
use crate::splice::month::parallel;
use crate::{DataFile, Snapshot, StoreError, Warehouse};

/// What the erasure of some subjects touches.
#[derive(Clone, Debug, Default)]
pub struct Affected {
    /// Devices of which some row goes: the subjects themselves and the devices of the users among them.
    pub devices: HashSet<DeviceId>,
    /// Devices where no user but erased ones was ever seen: their events without a user go as well.
    pub userless_devices: HashSet<DeviceId>,
    /// Months with rows of those devices.
    pub months: BTreeSet<Month>,
    /// Users who are not erased but whose events go with an erased device.
    pub other_users: u64,
    /// Rows of `events` that go.
    pub rows: u64,
    /// Files of `events` in which they were looked for.
    pub looked_in: HashSet<String>,
}

/// Finds what the erasure of `suppressions`' subjects touches; every entry counts, pending or not.
///
/// # Errors
/// When storage fails.
pub async fn affected(warehouse: &Warehouse, suppressions: &SuppressionSet) -> Result<Affected, StoreError> {
    find(warehouse, suppressions, None).await
}

/// The same without counting other users, and as if the files of `events` in `seen` held none of the subjects' rows.
///
/// # Errors
/// When storage fails.
pub async fn affected_beyond(warehouse: &Warehouse, suppressions: &SuppressionSet, seen: HashSet<String>) -> Result<Affected, StoreError> {
    find(warehouse, suppressions, Some(seen)).await
}

async fn find(warehouse: &Warehouse, suppressions: &SuppressionSet, seen: Option<HashSet<String>>) -> Result<Affected, StoreError> {
    // So that a batch which had not seen the request is in the snapshot.
    warehouse.barrier().await?;
    let snapshot = warehouse.snapshot().await?;
    let (warehouse, suppressions) = (warehouse.clone(), suppressions.clone());
    tokio::task::spawn_blocking(move || {
        let found = resolve_and_count(&warehouse, &snapshot, &suppressions, seen.is_none())?;
        let mut affected = Affected { other_users: found.other_users, ..Affected::default() };
        affected.devices.extend(suppressions.touched_devices());
        affected.devices.extend(found.devices.iter().copied());
        affected.userless_devices.extend(found.userless.iter().copied().chain(suppressions.userless_devices()));
        let set = suppressions.with_userless(found.userless, Timestamp::MAX);
        count(&warehouse, &snapshot, &set, &seen.unwrap_or_default(), &mut affected)?;
        Ok(affected)
    })
    .await?
}

/// Whether all rows of all devices of a set go, so that a row's device alone tells whether it does.
pub fn takes_whole_devices(set: &SuppressionSet) -> bool {
    set.users().next().is_none() && set.userless_devices().next().is_none() && set.devices().all(|id| set.covers_device(id))
}

/// The devices of some users.
#[derive(Default)]
pub(crate) struct Resolved {
    pub(crate) devices: HashSet<DeviceId>,
    pub(crate) userless: HashSet<DeviceId>,
    pub(crate) other_users: u64,
}

/// Finds the suppressed users' devices by `links`, and by the events whose links are still to be committed.
pub(crate) fn resolve(warehouse: &Warehouse, snapshot: &Snapshot, set: &SuppressionSet) -> Result<Resolved, StoreError> {
    resolve_and_count(warehouse, snapshot, set, false)
}

fn resolve_and_count(warehouse: &Warehouse, snapshot: &Snapshot, set: &SuppressionSet, count_others: bool) -> Result<Resolved, StoreError> {
    let mut found = Resolved::default();
    if !warehouse.tables().has_user {
        return Ok(found);
    }
    let users: HashSet<u128> = set.users().map(|user| user.as_u128()).collect();
    let erased: HashSet<u128> = set.devices().map(|device| device.as_u128()).collect();
    let mut devices: HashSet<u128> = HashSet::new();
    if !users.is_empty() {
        each_link(warehouse, snapshot, |user, device| {
            if users.contains(&user) {
                devices.insert(device);
            }
        })?;
    }
    if devices.is_empty() && erased.is_empty() {
        return Ok(found);
    }
    if users.is_empty() && not_rolled_up(snapshot, Table::Links).is_empty() {
        if count_others {
            found.other_users = users_of(warehouse, snapshot, &sorted(set.devices().map(|device| *device.as_bytes())))?;
        }
        return Ok(found);
    }
    let mut shared: HashSet<u128> = HashSet::new();
    let mut others: HashSet<u128> = HashSet::new();
    each_link(warehouse, snapshot, |user, device| {
        if !users.contains(&user) {
            if devices.contains(&device) {
                shared.insert(device);
            }
            if erased.contains(&device) {
                others.insert(user);
            }
        }
    })?;
    let id = |device: &u128| DeviceId::from_bytes(device.to_be_bytes());
    found.userless = devices.difference(&shared).map(id).collect();
    found.devices = devices.iter().map(id).collect();
    found.other_users = others.len() as u64;
    Ok(found)
}

/// How many users were seen on devices.
fn users_of(warehouse: &Warehouse, snapshot: &Snapshot, devices: &Arc<Vec<[u8; 16]>>) -> Result<u64, StoreError> {
    let files: VecDeque<DataFile> = snapshot.files(Table::Links).iter().cloned().collect();
    let found = parallel(files, |_, file| {
        let links = rows_of_devices(warehouse, Table::Links, &file, devices)?;
        Ok(links.into_iter().filter_map(|link| link.user).collect::<HashSet<UserId>>())
    });
    let found = found.map_err(|stop| stop.into_error(Table::Links.as_str()))?;
    Ok(found.into_iter().flatten().collect::<HashSet<UserId>>().len() as u64)
}

fn each_link(warehouse: &Warehouse, snapshot: &Snapshot, mut each: impl FnMut(u128, u128)) -> Result<(), StoreError> {
    let in_events: Vec<DataFile> = not_rolled_up(snapshot, Table::Links).into_iter().cloned().collect();
    for (table, files) in [(Table::Links, snapshot.files(Table::Links).to_vec()), (Table::Events, in_events)] {
        let mut rows = RunReader::new(warehouse.table_folder(table), files, some_columns(warehouse, table, &["user", "device"])?);
        while let Some(batch) = rows.next_batch()? {
            let users = optional_pseudonyms(column(&batch, "user")?, "user")?;
            let devices = pseudonyms(column(&batch, "device")?, "device")?;
            for (user, device) in users.into_iter().zip(devices) {
                if let Some(user) = user {
                    each(user, device);
                }
            }
        }
    }
    Ok(())
}

/// Some of a table's columns, in the table's order.
pub(crate) fn some_columns(warehouse: &Warehouse, table: Table, names: &[&str]) -> Result<SchemaRef, StoreError> {
    let schema = warehouse.tables().file_schema(table);
    if let Some(unknown) = names.iter().find(|name| schema.field_with_name(name).is_err()) {
        return Err(StoreError::schema(table, format!("there is no column {unknown}")));
    }
    Ok(Arc::new(Schema::new(schema.fields().iter().filter(|field| names.contains(&field.name().as_str())).cloned().collect::<Vec<_>>())))
}

fn count(
    warehouse: &Warehouse,
    snapshot: &Snapshot,
    set: &SuppressionSet,
    seen: &HashSet<String>,
    affected: &mut Affected,
) -> Result<(), StoreError> {
    let devices = sorted(affected.devices.iter().chain(&affected.userless_devices).map(|device| *device.as_bytes()));
    if devices.is_empty() {
        return Ok(());
    }
    let files: VecDeque<DataFile> = snapshot.files(Table::Events).iter().filter(|file| !seen.contains(&file.path)).cloned().collect();
    affected.looked_in = files.iter().map(|file| file.path.clone()).collect();
    let whole = takes_whole_devices(set);
    let counted = parallel(files, |_, file| {
        let hits = if whole {
            devices_in(warehouse, Table::Events, &file, &devices)?.iter().map(|found| found.rows).sum()
        } else {
            let rows = rows_of_devices(warehouse, Table::Events, &file, &devices)?;
            rows.iter().filter(|row| set.covers(row.device, row.user, row.ts.unwrap_or(Timestamp::MAX))).count() as u64
        };
        Ok((file.month, hits))
    });
    for (month, hits) in counted.map_err(|stop| stop.into_error(Table::Events.as_str()))? {
        affected.rows += hits;
        if hits > 0 {
            affected.months.insert(month);
        }
    }
    // Months whose events have gone may still have activity, and a crash may have left some that events have no more.
    for table in crate::append::derived_tables(warehouse.tables()) {
        for month in snapshot.months(table) {
            if !snapshot.month_files(Table::Events, month).is_empty() || affected.months.contains(&month) {
                continue;
            }
            let schema = some_columns(warehouse, table, &["device"])?;
            let mut rows = RunReader::new(warehouse.table_folder(table), snapshot.month_files(table, month).to_vec(), schema);
            while let Some(batch) = rows.next_batch()? {
                let is_hit = |device: &u128| devices.binary_search(&device.to_be_bytes()).is_ok();
                if pseudonyms(column(&batch, "device")?, "device")?.iter().any(is_hit) {
                    affected.months.insert(month);
                }
            }
        }
    }
    Ok(())
}

/// Pseudonyms in order, each once.
pub(crate) fn sorted(devices: impl Iterator<Item = [u8; 16]>) -> Arc<Vec<[u8; 16]>> {
    let mut devices: Vec<[u8; 16]> = devices.collect();
    devices.sort_unstable();
    devices.dedup();
    Arc::new(devices)
}
