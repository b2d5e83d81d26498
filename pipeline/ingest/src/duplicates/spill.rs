//! Where fingerprints go that memory has no room for.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ameles_core::RandomUnavailable;

/// The memory of recent events could not be kept whole. Nothing is forgotten: what could not be written stays in memory.
#[derive(Debug, thiserror::Error)]
pub enum DuplicateError {
    /// Its spill failed.
    #[error("failed {doing} the spill of recent events in {path}; make room there or mend the disk, then send the events again")]
    Spill {
        /// What was tried, as in "writing".
        doing: &'static str,
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// There is no randomness for its key.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
}

/// A folder for files without a name: each is unlinked as soon as it is open, so that it ends with the process, however that ends.
#[derive(Debug, Clone)]
pub(super) struct SpillFolder {
    path: PathBuf,
}

impl SpillFolder {
    /// Makes the folder, for the owner's eyes only, and wipes what a crash between making and unlinking a file has left.
    pub(super) fn open(path: &Path) -> Result<Self, DuplicateError> {
        let folder = Self { path: path.to_owned() };
        folder.prepare().map_err(|cause| folder.failed("opening", cause))?;
        Ok(folder)
    }

    fn prepare(&self) -> io::Result<()> {
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        fs::set_permissions(&self.path, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&self.path)? {
            unlink(&entry?.path())?;
        }
        Ok(())
    }

    /// A new file, open for writing and reading.
    pub(super) fn file(&self) -> Result<File, DuplicateError> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let path = self.path.join(format!("{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)));
        let make = || {
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            unlink(&path)?;
            Ok(file)
        };
        make().map_err(|cause| self.failed("making a file in", cause))
    }

    pub(super) fn failed(&self, doing: &'static str, cause: io::Error) -> DuplicateError {
        DuplicateError::Spill { doing, path: self.path.clone(), cause }
    }
}

/// Another process that opens the folder may have been first.
fn unlink(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
