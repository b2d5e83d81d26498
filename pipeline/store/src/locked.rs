//! Reading files on which SQLite holds locks for this process.
//!
//! POSIX takes *all* of a process's locks on a file away when the process closes
//! *any* descriptor of it (<https://sqlite.org/howtocorrupt.html>, 2.2). Whoever
//! opens a database's file to read its bytes, and closes it again, leaves SQLite
//! without the locks that it believes to hold: the next process takes itself for
//! the only one and deletes the log that this one writes to. So such a file is
//! opened once, by what it is and not by its name, and never closed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Device and inode.
type Identity = (u64, u64);

/// Open until the process ends: at most three for each time that the database's log was made anew.
static OPEN: Mutex<BTreeMap<Identity, Vec<File>>> = Mutex::new(BTreeMap::new());

/// A SQLite database that this process has open, and the files beside it.
#[derive(Clone, Debug, Default)]
pub struct Locked {
    files: Vec<PathBuf>,
}

impl Locked {
    /// The files of the database at `path`.
    pub fn database(path: &Path) -> Self {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
        let beside = |suffix: &str| {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(suffix);
            folder.join(name)
        };
        Self { files: ["", "-wal", "-shm", "-journal"].map(beside).into() }
    }

    /// Whether `path` leads to one of the files, by this name or another.
    fn holds(&self, path: &Path) -> io::Result<bool> {
        let folder = || path.parent().and_then(|folder| folder.canonicalize().ok());
        let is_named = |file: &PathBuf| file.file_name() == path.file_name() && file.parent() == folder().as_deref();
        if self.files.iter().any(is_named) {
            return Ok(true);
        }
        let found = identity(&fs::metadata(path)?);
        Ok(self.files.iter().filter_map(|file| fs::metadata(file).ok()).any(|file| identity(&file) == found))
    }

    /// The bytes of a file, whether it is one of these or not.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if !self.files.is_empty() && self.holds(path)? { read_kept_open(path) } else { fs::read(path) }
    }
}

fn identity(metadata: &fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

fn read_kept_open(path: &Path) -> io::Result<Vec<u8>> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = open.get(&identity(&fs::metadata(path)?)).and_then(|files| files.first());
    if let Some(file) = known {
        return read_all(file);
    }
    let file = File::open(path)?;
    // Another file may have taken the name meanwhile, even one that is open already: then both stay open.
    let identity = identity(&file.metadata()?);
    let files = open.entry(identity).or_default();
    files.push(file);
    files.first().map_or_else(|| Ok(Vec::new()), read_all)
}

/// From the beginning, wherever the descriptor stands.
fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
    let mut done = 0;
    while let Some(left) = bytes.get_mut(done..).filter(|left| !left.is_empty()) {
        match file.read_at(left, done as u64)? {
            0 => break,
            read => done += read,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn descriptors_of(path: &Path) -> usize {
        let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        links.filter(|link| link == path).count()
    }

    #[test]
    fn a_databases_files_are_opened_once_and_stay_open_by_whatever_name() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let (database, other, linked) = (folder.join("a.db"), folder.join("b.db"), folder.join("linked"));
        fs::write(&database, b"first").unwrap();
        fs::write(&other, b"other").unwrap();
        fs::hard_link(&database, &linked).unwrap();
        let locked = Locked::database(&database);
        assert_eq!(locked.read(&other).unwrap(), b"other");
        assert_eq!((descriptors_of(&database), descriptors_of(&other)), (0, 0));
        assert_eq!(locked.read(&database).unwrap(), b"first");
        fs::write(&database, b"second, longer").unwrap();
        for path in [&linked, &database] {
            assert_eq!(locked.read(path).unwrap(), b"second, longer");
            assert_eq!(descriptors_of(&database), 1);
        }
        // Another file of the same name is opened as well, and the first one is not closed.
        fs::write(folder.join("new"), b"third").unwrap();
        fs::rename(folder.join("new"), &database).unwrap();
        assert_eq!(locked.read(&database).unwrap(), b"third");
        assert_eq!(descriptors_of(&database), 1);
        assert_eq!(locked.read(&linked).unwrap(), b"second, longer");
        assert!(locked.read(&folder.join("a.db-wal")).is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
    }
}
