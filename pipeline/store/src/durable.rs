//! Writes that are on the disk when they return: file first, then its directory.
//!
//! `object_store`'s local store never calls fsync, and a log entry that a power
//! cut takes away after it was acknowledged is an event lost. A file is staged
//! under a name that listings hide, synced, and only then linked or renamed
//! into place, so that nobody can build on an entry that is not durable yet.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result, UploadPart,
};

use crate::disk;

/// Folders whose names are known to be on the disk: five tables' months of decades.
const SYNCED_MAX: usize = 4_096;

/// What is to happen when the file is there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IfThere {
    Replace,
    Fail,
}

/// Writes a file durably; with `IfThere::Fail` exactly one of several writers succeeds, the others get `AlreadyExists`.
pub(crate) fn put_file(path: &FsPath, chunks: &[Bytes], if_there: IfThere) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    put_file_unnamed(path, chunks, if_there)?;
    sync_directory(directory)
}

/// The same for one of many files: what is in it is on the disk, its name only after `sync_directory` of its folder.
pub(crate) fn put_file_unnamed(path: &FsPath, chunks: &[Bytes], if_there: IfThere) -> io::Result<()> {
    Staged::write(path, chunks)?.put(if_there)
}

/// A file that has been written, but has neither been synced nor got its name; it goes away where it gets none.
#[derive(Debug)]
pub(crate) struct Staged {
    file: fs::File,
    staged: PathBuf,
    path: PathBuf,
    named: bool,
}

impl Staged {
    pub(crate) fn write(path: &FsPath, chunks: &[Bytes]) -> io::Result<Self> {
        let directory = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        make_directory(directory)?;
        let staged = staging_path(path);
        // A name that is taken is somebody else's: only what was written here is taken away again.
        let file = disk::write_new(&staged, chunks)?;
        Ok(Self { file, staged, path: path.to_owned(), named: false })
    }

    /// Where it will be.
    pub(crate) fn path(&self) -> &FsPath {
        &self.path
    }

    /// Reads what stands in it, behind what `into` holds.
    pub(crate) fn read(&self, into: &mut Vec<u8>) -> io::Result<()> {
        fs::File::open(&self.staged)?.read_to_end(into).map(drop)
    }

    /// Syncs it and gives it its name, which is on the disk after `sync_directory` of its folder.
    pub(crate) fn put(mut self, if_there: IfThere) -> io::Result<()> {
        disk::sync_file(&self.file, &self.staged)?;
        match if_there {
            IfThere::Replace => disk::rename(&self.staged, &self.path),
            IfThere::Fail => disk::hard_link(&self.staged, &self.path).and_then(|()| disk::remove_file(&self.staged)),
        }?;
        self.named = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.named {
            // What cannot be taken away is an orphan, which a purge finds by its name.
            let _ = disk::remove_file(&self.staged);
        }
    }
}

/// `object_store` hides names that end in `#` and digits.
fn staging_path(path: &FsPath) -> PathBuf {
    static STAGED: AtomicU64 = AtomicU64::new(0);
    let mut name = path.as_os_str().to_owned();
    name.push(format!("#{}{:09}", std::process::id(), STAGED.fetch_add(1, Ordering::Relaxed)));
    PathBuf::from(name)
}

/// Whether a file's name is that of a write that has not been finished.
pub(crate) fn is_staged(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Makes a directory and those above it; when it returns, its name is on the disk.
///
/// One that is there may have been made a moment ago by a thread or a process
/// that has yet to sync its name: what is put into it would go with it. So the
/// name of each is synced here once.
pub(crate) fn make_directory(directory: &FsPath) -> io::Result<()> {
    static SYNCED: Mutex<BTreeMap<PathBuf, u64>> = Mutex::new(BTreeMap::new());
    let inode = || fs::metadata(directory).ok().filter(fs::Metadata::is_dir).map(|found| found.ino());
    let found = inode();
    if found.is_some() && SYNCED.lock().unwrap_or_else(PoisonError::into_inner).get(directory).copied() == found {
        return Ok(());
    }
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    if found.is_none() {
        if let Some(parent) = parent {
            make_directory(parent)?;
        }
        match disk::create_directory(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    match parent.map_or(Ok(()), sync_directory) {
        // It has been there from before, in a folder that is not ours to open.
        Err(error) if found.is_some() && error.kind() == io::ErrorKind::PermissionDenied => {}
        synced => synced?,
    }
    if let Some(inode) = inode() {
        let mut synced = SYNCED.lock().unwrap_or_else(PoisonError::into_inner);
        if synced.len() >= SYNCED_MAX {
            synced.clear();
        }
        synced.insert(directory.to_owned(), inode);
    }
    Ok(())
}

pub(crate) fn sync_directory(directory: &FsPath) -> io::Result<()> {
    disk::sync_directory(directory)
}

/// Deletes files as [`delete_files`] does, in no order: large ones take a core's time, for the kernel gives back what it kept of each.
pub(crate) fn delete_in_any_order(paths: &[PathBuf]) -> io::Result<u64> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = |of: usize| remove_files(paths.iter().skip(of).step_by(cores));
    let removed = std::thread::scope(|scope| {
        let shares: Vec<_> = (0..cores.min(paths.len())).map(|of| scope.spawn(move || share(of))).collect();
        let panicked = |_| Err(io::Error::other("a thread that deletes files panicked"));
        // All of them are waited for, whichever fails.
        let done: Vec<io::Result<u64>> = shares.into_iter().map(|share| share.join().unwrap_or_else(panicked)).collect();
        done.into_iter().sum()
    });
    sync_directories_of(paths)?;
    removed
}

/// Deletes files durably, in the given order; those that have gone already are no error. Returns how many there were.
pub(crate) fn delete_files(paths: &[PathBuf]) -> io::Result<u64> {
    let deleted = remove_files(paths.iter())?;
    sync_directories_of(paths)?;
    Ok(deleted)
}

fn remove_files<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> io::Result<u64> {
    let mut removed = 0;
    for path in paths {
        match disk::remove_file(path) {
            Ok(()) => removed += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

fn sync_directories_of(paths: &[PathBuf]) -> io::Result<()> {
    let directories: std::collections::BTreeSet<_> = paths.iter().filter_map(|path| path.parent()).collect();
    directories.into_iter().try_for_each(sync_directory)
}

/// The local file system from its root, durable: what deltalake is handed.
#[derive(Debug, Clone)]
pub(crate) struct DurableStore {
    local: Arc<LocalFileSystem>,
}

impl DurableStore {
    pub(crate) fn new() -> Self {
        Self { local: Arc::new(LocalFileSystem::new()) }
    }
    async fn durably(&self, location: &Path, payload: PutPayload, if_there: IfThere) -> Result<PutResult> {
        let path = self.local.path_to_filesystem(location)?;
        let shown = location.to_string();
        let chunks: Vec<Bytes> = payload.into_iter().collect();
        let done = tokio::task::spawn_blocking(move || put_file(&path, &chunks, if_there)).await;
        match done.map_err(|source| object_store::Error::JoinError { source })? {
            Ok(()) => Ok(PutResult { e_tag: None, version: None }),
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                Err(object_store::Error::AlreadyExists { path: shown, source: source.into() })
            }
            Err(source) => Err(object_store::Error::Generic { store: "durable", source: source.into() }),
        }
    }
}

impl fmt::Display for DurableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DurableStore")
    }
}

#[async_trait]
impl ObjectStore for DurableStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        match opts.mode {
            PutMode::Overwrite => self.durably(location, payload, IfThere::Replace).await,
            PutMode::Create => self.durably(location, payload, IfThere::Fail).await,
            PutMode::Update(_) => {
                Err(object_store::Error::NotImplemented { operation: "put with PutMode::Update".into(), implementer: self.to_string() })
            }
        }
    }

    async fn put_multipart_opts(&self, location: &Path, _opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(DurableUpload { store: self.clone(), location: location.clone(), parts: Vec::new() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.local.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.local.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let local = Arc::clone(&self.local);
        self.local
            .delete_stream(locations)
            .map(move |deleted| {
                let location = deleted?;
                let path = local.path_to_filesystem(&location)?;
                if let Some(directory) = path.parent() {
                    sync_directory(directory).map_err(|source| object_store::Error::Generic { store: "durable", source: source.into() })?;
                }
                Ok(location)
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.local.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.local.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.local.list_with_delimiter(prefix).await
    }

    /// By way of memory, so that the copy passes `put` and its syncs; `rename` is this and a delete.
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let bytes = self.local.get_opts(from, GetOptions::default()).await?.bytes().await?;
        let if_there = match options.mode {
            object_store::CopyMode::Overwrite => IfThere::Replace,
            object_store::CopyMode::Create => IfThere::Fail,
        };
        self.durably(to, bytes.into(), if_there).await.map(drop)
    }
}

/// Collects the parts (checkpoints are small) and puts them as one file.
#[derive(Debug)]
struct DurableUpload {
    store: DurableStore,
    location: Path,
    parts: Vec<Bytes>,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.extend(data);
        Box::pin(std::future::ready(Ok(())))
    }
    async fn complete(&mut self) -> Result<PutResult> {
        let payload: PutPayload = std::mem::take(&mut self.parts).into_iter().collect();
        self.store.durably(&self.location, payload, IfThere::Replace).await
    }
    async fn abort(&mut self) -> Result<()> {
        self.parts.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use object_store::ObjectStoreExt;

    #[test]
    fn of_two_writers_of_one_name_one_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/1.json");
        put_file(&path, &[Bytes::from_static(b"one")], IfThere::Fail).unwrap();
        let lost = put_file(&path, &[Bytes::from_static(b"two")], IfThere::Fail).unwrap_err();
        assert_eq!(lost.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        put_file(&path, &[Bytes::from_static(b"three")], IfThere::Replace).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no staged file stays behind");
    }

    #[tokio::test]
    async fn the_store_that_deltalake_gets_puts_copies_and_uploads() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableStore::new();
        let at = |name: &str| Path::from_absolute_path(folder.path().join(name)).unwrap();
        store.put_opts(&at("x"), "one".into(), PutMode::Create.into()).await.unwrap();
        assert!(matches!(
            store.put_opts(&at("x"), "two".into(), PutMode::Create.into()).await,
            Err(object_store::Error::AlreadyExists { .. })
        ));
        store.rename(&at("x"), &at("y")).await.unwrap();
        assert!(store.copy_if_not_exists(&at("y"), &at("y")).await.is_err());
        let mut upload = store.put_multipart(&at("z")).await.unwrap();
        upload.put_part("ab".into()).await.unwrap();
        upload.put_part("cd".into()).await.unwrap();
        upload.complete().await.unwrap();
        assert_eq!(fs::read(folder.path().join("z")).unwrap(), b"abcd");
        assert!(!folder.path().join("x").exists());
    }

    /// A process with the same number, in another container or from before a crash.
    #[test]
    fn a_staged_file_of_another_process_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.json");
        let next: u64 =
            staging_path(&path).to_str().unwrap().rsplit_once('#').unwrap().1[std::process::id().to_string().len()..].parse().unwrap();
        // Other tests stage files meanwhile: some of the names that come next are taken.
        for number in next..next + 2_000 {
            fs::write(format!("{}#{}{number:09}", path.display(), std::process::id()), b"theirs").unwrap();
        }
        let there = || fs::read_dir(folder.path()).unwrap().count();
        let taken = there();
        put_file(&path, &[Bytes::from_static(b"ours")], IfThere::Fail).unwrap_err();
        assert_eq!(there(), taken);
    }

    #[test]
    fn staged_names_are_told_apart() {
        assert!(is_staged("e-1-2.parquet#123000000001"));
        assert!(!is_staged("e-1-2.parquet"));
        assert!(!is_staged("e#x"));
    }
}
