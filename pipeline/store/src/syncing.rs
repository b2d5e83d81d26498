//! Files that are synced and named beside the making of the next ones: a thread
//! that waits for the disk leaves a core idle.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};

use bytes::Bytes;

use crate::durable::{IfThere, Staged, sync_directory};

/// Written files that wait to be synced.
const WAITING_MAX: usize = 16;

/// Takes written files.
pub(crate) struct ToSync(mpsc::SyncSender<Staged>);

/// Where they come out.
pub(crate) struct Syncing(mpsc::Receiver<Staged>);

/// What could not be put on the disk.
#[derive(Debug)]
pub(crate) struct NotSynced {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

pub(crate) fn channel() -> (ToSync, Syncing) {
    let (to, from) = mpsc::sync_channel(WAITING_MAX);
    (ToSync(to), Syncing(from))
}

impl ToSync {
    /// Writes a file whose name nobody else may take; it is on the disk when [`Syncing::run`] has ended well.
    pub(crate) fn write(&self, path: &Path, bytes: Bytes) -> io::Result<()> {
        let staged = Staged::write(path, &[bytes])?;
        // What went wrong is told by the thread that has gone.
        self.0.send(staged).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Syncing {
    /// Syncs and names what comes until nothing more can, so many at once; when it returns, files and names are on the disk.
    pub(crate) fn run(self, threads: usize) -> Result<(), NotSynced> {
        let staged = Mutex::new(Some(self.0));
        let panicked = |_| Err(NotSynced { path: PathBuf::new(), source: io::Error::other("a thread that syncs files panicked") });
        let named: Vec<Result<BTreeSet<PathBuf>, NotSynced>> = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| name_all(&staged))).collect();
            let own = name_all(&staged);
            others.into_iter().map(|other| other.join().unwrap_or_else(panicked)).chain([own]).collect()
        });
        let mut folders = BTreeSet::new();
        for of_thread in named {
            folders.append(&mut of_thread?);
        }
        folders.into_iter().try_for_each(|path| sync_directory(&path).map_err(|source| NotSynced { path, source }))
    }
}

/// One thread's share; gives the folders in which there are new names. Where it fails, nothing more is taken.
fn name_all(staged: &Mutex<Option<mpsc::Receiver<Staged>>>) -> Result<BTreeSet<PathBuf>, NotSynced> {
    let lock = || staged.lock().unwrap_or_else(PoisonError::into_inner);
    let mut folders = BTreeSet::new();
    loop {
        let next = lock().as_ref().and_then(|staged| staged.recv().ok());
        let Some(next) = next else { return Ok(folders) };
        let path = next.path().to_owned();
        folders.extend(path.parent().map(Path::to_owned));
        if let Err(source) = next.put(IfThere::Fail) {
            lock().take();
            return Err(NotSynced { path, source });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn what_was_written_has_its_name_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let (to_sync, syncing) = channel();
        std::thread::scope(|scope| {
            let syncing = scope.spawn(|| syncing.run(3));
            for number in 0..3 * WAITING_MAX {
                let path = folder.path().join(format!("month={}/{number}", number % 3));
                to_sync.write(&path, Bytes::from(number.to_string())).unwrap();
            }
            drop(to_sync);
            syncing.join().unwrap().unwrap();
        });
        for number in 0..3 * WAITING_MAX {
            let path = folder.path().join(format!("month={}/{number}", number % 3));
            assert_eq!(std::fs::read_to_string(path).unwrap(), number.to_string());
        }
        let names = |month: &str| std::fs::read_dir(folder.path().join(month)).unwrap().count();
        assert_eq!(names("month=0") + names("month=1") + names("month=2"), 3 * WAITING_MAX, "nothing else stays");
    }

    #[test]
    fn a_file_that_cannot_be_named_stops_those_that_write() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        std::fs::write(&taken, "theirs").unwrap();
        let (to_sync, syncing) = channel();
        std::thread::scope(|scope| {
            let syncing = scope.spawn(|| syncing.run(1));
            to_sync.write(&taken, Bytes::from_static(b"ours")).unwrap();
            let refused = (0..2 * WAITING_MAX + 1).find_map(|number| {
                let written = to_sync.write(&folder.path().join(number.to_string()), Bytes::new());
                written.err()
            });
            drop(to_sync);
            let error = syncing.join().unwrap().unwrap_err();
            assert_eq!((error.path.as_path(), error.source.kind()), (taken.as_path(), io::ErrorKind::AlreadyExists));
            assert_eq!(refused.unwrap().kind(), io::ErrorKind::BrokenPipe);
        });
        assert_eq!(std::fs::read_to_string(&taken).unwrap(), "theirs");
        assert!(std::fs::read_dir(folder.path()).unwrap().all(|entry| !entry.unwrap().file_name().to_str().unwrap().contains('#')));
    }
}
