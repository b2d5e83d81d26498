//! Counts, request by request, the rows that an erasure takes: a certificate speaks
//! of one request, while a run rewrites each month once for all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ameles_core::{DeviceId, Month, SuppressionSet, Timestamp, UserId};
use ameles_schemas::{Table, column};
use ameles_store::{DataFile, Snapshot, Warehouse, devices_in, rows_of_devices};
use arrow::array::{Array, BinaryArray, RecordBatch, TimestampMicrosecondArray};
use hashbrown::{HashMap, HashSet};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::ErasureError;

const BATCH_ROWS: usize = 65_536;

/// Whom a run erases, and which of its requests each belongs to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Targets {
    /// Devices named by requests (by their place in the run).
    pub devices: HashMap<DeviceId, Vec<u32>>,
    /// Users named by requests.
    pub users: HashMap<UserId, Vec<u32>>,
    /// Devices whose events without a user go with a user.
    pub userless: HashMap<DeviceId, Vec<u32>>,
    /// What exactly is covered, times included.
    pub covered: Arc<SuppressionSet>,
    /// Whether a row's device alone tells that it goes.
    pub whole: bool,
    /// How many requests there are.
    pub requests: usize,
}

/// Who is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Of {
    /// The subjects.
    Subjects,
    /// Other users too whose rows go: their column is read where nothing else asks for it.
    SubjectsAndOthers,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Census {
    /// For each request, rows by month.
    pub by_request: Vec<BTreeMap<Month, u64>>,
    /// Files with rows of each request, by table and path below the table's folder.
    pub files_by_request: Vec<BTreeSet<(Table, String)>>,
    /// Devices of which rows go, and the requests that take them.
    pub requests_of: HashMap<DeviceId, Vec<u32>>,
    /// Rows that go, each once.
    pub rows: u64,
    /// Files that hold such rows.
    pub files: u64,
    /// Users who are not erased themselves and of whose events some go.
    pub other_users: HashSet<UserId>,
    /// Months with rows that go.
    pub months: BTreeSet<Month>,
}

impl Census {
    fn new(requests: usize) -> Self {
        Self { by_request: vec![BTreeMap::new(); requests], files_by_request: vec![BTreeSet::new(); requests], ..Self::default() }
    }
    fn add(&mut self, other: Self) {
        for (mine, theirs) in self.by_request.iter_mut().zip(other.by_request) {
            for (month, rows) in theirs {
                *mine.entry(month).or_default() += rows;
            }
        }
        for (mine, theirs) in self.files_by_request.iter_mut().zip(other.files_by_request) {
            mine.extend(theirs);
        }
        self.rows += other.rows;
        self.files += other.files;
        self.other_users.extend(other.other_users);
        self.months.extend(other.months);
        for (device, theirs) in other.requests_of {
            let mine = self.requests_of.entry(device).or_default();
            mine.extend(theirs);
            mine.sort_unstable();
            mine.dedup();
        }
    }
}

/// Counts what `targets` takes of `files` (of `events`). With `devices`, sorted, only pages are read that may hold one of them; all without.
pub(crate) async fn count_rows(
    warehouse: &Warehouse,
    files: &[DataFile],
    targets: Arc<Targets>,
    devices: Option<(Arc<Vec<[u8; 16]>>, Of)>,
) -> Result<Census, ErasureError> {
    let (owned, requests) = (warehouse.clone(), targets.requests);
    let parts = each_file(files.to_vec(), move |file| count_file(&owned, file, &targets, devices.as_ref())).await?;
    let mut census = Census::new(requests);
    for part in parts {
        census.add(part);
    }
    Ok(census)
}

/// Adds to a census of `events` the files of the other tables that hold rows of the devices that it found.
pub(crate) async fn find_derived_files(
    warehouse: &Warehouse,
    snapshot: &Snapshot,
    census: &mut Census,
    requests_of: HashMap<DeviceId, Vec<u32>>,
) -> Result<(), ErasureError> {
    let mut devices: Vec<[u8; 16]> = requests_of.keys().map(|device| *device.as_bytes()).collect();
    devices.sort_unstable();
    let (devices, requests_of) = (Arc::new(devices), Arc::new(requests_of));
    for table in [Table::Activity, Table::Links, Table::Devices] {
        let files = snapshot.files(table).iter().filter(|file| census.months.contains(&file.month));
        let (owned, devices, requests_of) = (warehouse.clone(), devices.clone(), requests_of.clone());
        let parts = each_file(files.cloned().collect(), move |file| {
            let rows = devices_in(&owned, table, file, &devices)?;
            let requests: HashSet<u32> = rows.iter().filter_map(|row| requests_of.get(&row.device)).flatten().copied().collect();
            Ok((file.path.clone(), requests))
        });
        for (path, requests) in parts.await? {
            for request in requests {
                if let Some(files) = census.files_by_request.get_mut(request as usize) {
                    files.insert((table, path.clone()));
                }
            }
        }
    }
    Ok(())
}

/// The devices of `users` among `links`, restricted to `wanted`.
pub(crate) async fn devices_of(
    root: &Path,
    files: &[DataFile],
    users: Arc<HashMap<UserId, Vec<u32>>>,
    wanted: Arc<HashSet<DeviceId>>,
) -> Result<HashMap<DeviceId, Vec<u32>>, ErasureError> {
    let folder = root.join(Table::Links.as_str());
    let parts = each_file(files.to_vec(), move |file| {
        let path = &folder.join(&file.path);
        let mut found: HashSet<(DeviceId, u32)> = HashSet::new();
        for batch in read_columns(path, &[column::USER, column::DEVICE])? {
            let (user, device) = (binary(&batch, column::USER, path)?, binary(&batch, column::DEVICE, path)?);
            for row in 0..batch.num_rows() {
                let Some(requests) = users.get(&UserId::from_slice(user.value(row))?) else { continue };
                let device = DeviceId::from_slice(device.value(row))?;
                if wanted.contains(&device) {
                    found.extend(requests.iter().map(|request| (device, *request)));
                }
            }
        }
        Ok(found)
    })
    .await?;
    let mut devices: HashMap<DeviceId, Vec<u32>> = HashMap::new();
    for (device, request) in parts.into_iter().flatten() {
        let requests = devices.entry(device).or_default();
        if !requests.contains(&request) {
            requests.push(request);
        }
    }
    Ok(devices)
}

/// Rows of `quarantine` that name a device of `targets`: each once, and by request.
pub(crate) async fn count_quarantine(root: &Path, files: &[DataFile], targets: Arc<Targets>) -> Result<(u64, Vec<u64>), ErasureError> {
    let folder = root.join(Table::Quarantine.as_str());
    let requests = targets.requests;
    let parts = each_file(files.to_vec(), move |file| {
        let path = &folder.join(&file.path);
        let (mut rows, mut by_request) = (0, vec![0; targets.requests]);
        for batch in read_columns(path, &[column::DEVICE])? {
            let device = binary(&batch, column::DEVICE, path)?;
            for row in (0..batch.num_rows()).filter(|row| device.is_valid(*row)) {
                let id = DeviceId::from_slice(device.value(row))?;
                let places = [targets.devices.get(&id), targets.userless.get(&id)];
                rows += u64::from(places.iter().any(Option::is_some));
                for place in places.into_iter().flatten().flatten() {
                    if let Some(rows) = by_request.get_mut(*place as usize) {
                        *rows += 1;
                    }
                }
            }
        }
        Ok((rows, by_request))
    })
    .await?;
    let mut total = (0, vec![0; requests]);
    for (rows, by_request) in parts {
        total.0 += rows;
        for (mine, theirs) in total.1.iter_mut().zip(by_request) {
            *mine += theirs;
        }
    }
    Ok(total)
}

fn count_file(
    warehouse: &Warehouse,
    file: &DataFile,
    targets: &Targets,
    devices: Option<&(Arc<Vec<[u8; 16]>>, Of)>,
) -> Result<Census, ErasureError> {
    let mut census = Census::new(targets.requests);
    if let Some((devices, of)) = devices {
        if targets.whole && *of == Of::Subjects {
            for found in devices_in(warehouse, Table::Events, file, devices)? {
                if targets.covered.covers_device(found.device) {
                    count_rows_of(&mut census, targets, found.device, None, file, found.rows);
                }
            }
        } else {
            for row in rows_of_devices(warehouse, Table::Events, file, devices)? {
                if targets.covered.covers(row.device, row.user, row.ts.unwrap_or(Timestamp::MAX)) {
                    count_rows_of(&mut census, targets, row.device, row.user, file, 1);
                }
            }
        }
        census.files = u64::from(census.rows > 0);
        return Ok(census);
    }
    let path = &warehouse.root().join(Table::Events.as_str()).join(&file.path);
    for batch in read_columns(path, &[column::DEVICE, column::TS, column::USER])? {
        let device = binary(&batch, column::DEVICE, path)?;
        let ts = column_as::<TimestampMicrosecondArray>(&batch, column::TS, path)?;
        let user = match batch.column_by_name(column::USER) {
            Some(_) => Some(binary(&batch, column::USER, path)?),
            None => None,
        };
        for row in 0..batch.num_rows() {
            let id = DeviceId::from_slice(device.value(row))?;
            let user = match user.filter(|column| column.is_valid(row)) {
                Some(column) => Some(UserId::from_slice(column.value(row))?),
                None => None,
            };
            if targets.covered.covers(id, user, Timestamp::from_micros(ts.value(row))) {
                count_rows_of(&mut census, targets, id, user, file, 1);
            }
        }
    }
    census.files = u64::from(census.rows > 0);
    Ok(census)
}

/// Enters rows of a device and a user in a file.
fn count_rows_of(census: &mut Census, targets: &Targets, device: DeviceId, user: Option<UserId>, file: &DataFile, rows: u64) {
    census.rows += rows;
    census.months.insert(file.month);
    let by_subject = match user {
        Some(user) => targets.users.get(&user),
        None => targets.userless.get(&device),
    };
    let by_device = targets.devices.get(&device);
    if let (Some(user), None, Some(_)) = (user, by_subject, by_device) {
        census.other_users.insert(user);
    }
    for request in by_device.into_iter().chain(by_subject).flatten() {
        if let Some(months) = census.by_request.get_mut(*request as usize) {
            *months.entry(file.month).or_default() += rows;
        }
        if let Some(files) = census.files_by_request.get_mut(*request as usize)
            && files.last().is_none_or(|(_, last)| *last != file.path)
        {
            files.insert((Table::Events, file.path.clone()));
        }
        let requests = census.requests_of.entry(device).or_default();
        if !requests.contains(request) {
            requests.push(*request);
        }
    }
}

fn read_columns(path: &Path, columns: &[&str]) -> Result<Vec<RecordBatch>, ErasureError> {
    let damaged = |source: parquet::errors::ParquetError| ErasureError::Parquet { path: file_name(path), source };
    let file = std::fs::File::open(path).map_err(|source| ErasureError::Io { doing: "reading", path: file_name(path), source })?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(damaged)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(damaged)?;
    reader.map(|batch| batch.map_err(ErasureError::Arrow)).collect()
}

fn binary<'a>(batch: &'a RecordBatch, name: &'static str, path: &Path) -> Result<&'a BinaryArray, ErasureError> {
    column_as::<BinaryArray>(batch, name, path)
}

fn column_as<'a, A: 'static>(batch: &'a RecordBatch, name: &'static str, path: &Path) -> Result<&'a A, ErasureError> {
    batch
        .column_by_name(name)
        .and_then(|column| column.as_any().downcast_ref::<A>())
        .ok_or_else(|| ErasureError::Column { path: file_name(path), column: name })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Runs `work` on every file, a few at once, and gives the results in any order.
async fn each_file<T, F>(files: Vec<DataFile>, work: F) -> Result<Vec<T>, ErasureError>
where
    T: Send + 'static,
    F: Fn(&DataFile) -> Result<T, ErasureError> + Send + Sync + 'static,
{
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8).min(files.len().max(1));
    let shared = Arc::new((files, AtomicUsize::new(0), work));
    let mut tasks = Vec::with_capacity(threads);
    for _ in 0..threads {
        let shared = Arc::clone(&shared);
        tasks.push(tokio::task::spawn_blocking(move || {
            let (files, next, work) = &*shared;
            let mut done = Vec::new();
            while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                done.push(work(file)?);
            }
            Ok::<_, ErasureError>(done)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}
