//! The operations by which anything comes to be on the disk, or goes.
//!
//! A file's bytes are on it once the file was synced, and its name once its
//! folder was. Tests put a disk underneath that forgets, at a power cut, what
//! was not.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::path::Path;

use bytes::Bytes;

/// Writes a file that must not be there yet.
pub(crate) fn write_new(path: &Path, chunks: &[Bytes]) -> io::Result<File> {
    #[cfg(test)]
    if let Some(disk) = crate::tests::forgetful::disk_of(path) {
        return disk.write_new(path, chunks);
    }
    write_new_file(path, chunks)
}

pub(crate) fn write_new_file(path: &Path, chunks: &[Bytes]) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    match write_all(&mut file, chunks) {
        Ok(()) => Ok(file),
        Err(error) => {
            // A part of it, where the disk is full, would take the room of others.
            let _ = fs::remove_file(path);
            Err(error)
        }
    }
}

/// Many at once: a spliced file has hundreds of pieces.
fn write_all(file: &mut File, chunks: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = chunks.iter().filter(|chunk| !chunk.is_empty()).map(|chunk| IoSlice::new(chunk)).collect();
    let mut left = slices.as_mut_slice();
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Syncs a file's bytes; `path` is where it was written.
pub(crate) fn sync_file(file: &File, path: &Path) -> io::Result<()> {
    #[cfg(test)]
    if let Some(disk) = crate::tests::forgetful::disk_of(path) {
        return disk.sync_file(path);
    }
    let _ = path;
    file.sync_all()
}

/// Syncs the names in a folder.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    #[cfg(test)]
    if let Some(disk) = crate::tests::forgetful::disk_of(directory) {
        return disk.sync_directory(directory);
    }
    File::open(directory)?.sync_all()
}

pub(crate) fn create_directory(directory: &Path) -> io::Result<()> {
    #[cfg(test)]
    if let Some(disk) = crate::tests::forgetful::disk_of(directory) {
        return disk.create_directory(directory);
    }
    fs::create_dir(directory)
}

pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(test)]
    if let Some(disk) = crate::tests::forgetful::disk_of(to) {
        return disk.rename(from, to);
    }
    fs::rename(from, to)
}

/// Gives a file a second name, which must not be there yet.
pub(crate) fn hard_link(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(test)]
    if let Some(disk) = crate::tests::forgetful::disk_of(to) {
        return disk.hard_link(from, to);
    }
    fs::hard_link(from, to)
}

pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    if let Some(disk) = crate::tests::forgetful::disk_of(path) {
        return disk.remove_file(path);
    }
    fs::remove_file(path)
}
