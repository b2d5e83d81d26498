//! What a report was made from, and the folder that it lies in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ameles_core::Month;
use ring::digest;
use serde::{Deserialize, Serialize};

use crate::ReportError;

/// The manifest's file.
pub const MANIFEST: &str = "manifest.json";
/// The format that this version writes.
pub const FORMAT: u32 = 1;

/// `manifest.json`. It names versions, never a time: the same versions give the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `FORMAT`.
    pub format: u32,
    /// The report's name.
    pub report: String,
    /// Its month.
    pub month: Month,
    /// Whether the month was complete.
    pub complete: bool,
    /// The contract's name and version.
    pub contract: String,
    /// The policy's version.
    pub policy: String,
    /// The smallest group.
    pub k: u32,
    /// Each table's version.
    pub tables: BTreeMap<String, i64>,
    /// The state of the suppressions.
    pub suppression_sequence: u64,
    /// Every other file of the folder.
    pub files: Vec<FileEntry>,
}

/// One file of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content, as hex.
    pub sha256: String,
}

impl FileEntry {
    pub(crate) fn of(name: &str, content: &[u8]) -> Self {
        let sha256 = hex::encode(digest::digest(&digest::SHA256, content));
        Self { name: name.to_owned(), bytes: content.len() as u64, sha256 }
    }
}

/// A finished report among others.
#[derive(Clone, Debug, Serialize)]
pub struct StoredReport {
    /// The folder's name.
    pub id: String,
    /// Its manifest.
    #[serde(flatten)]
    pub manifest: Manifest,
}

/// Whether a text may name a report's folder or file: no separators, nothing hidden, nothing above.
pub fn is_plain_name(text: &str) -> bool {
    (1..=96).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// The reports in a folder, newest month first, then by name. A folder without a readable manifest is none.
pub fn stored_reports(folder: &Path) -> Vec<StoredReport> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut reports: Vec<StoredReport> = entries
        .flatten()
        .filter_map(|entry| {
            let id = entry.file_name().into_string().ok().filter(|name| is_plain_name(name))?;
            let text = std::fs::read(entry.path().join(MANIFEST)).ok()?;
            Some(StoredReport { id, manifest: serde_json::from_slice(&text).ok()? })
        })
        .collect();
    reports.sort_by(|a, b| b.manifest.month.cmp(&a.manifest.month).then_with(|| a.id.cmp(&b.id)));
    reports
}

/// A file of a stored report, if its manifest lists it.
pub fn stored_file(folder: &Path, id: &str, file: &str) -> Option<Vec<u8>> {
    if !is_plain_name(id) || !is_plain_name(file) {
        return None;
    }
    let report = folder.join(id);
    let text = std::fs::read(report.join(MANIFEST)).ok()?;
    let manifest: Manifest = serde_json::from_slice(&text).ok()?;
    if file == MANIFEST {
        return Some(text);
    }
    manifest.files.iter().find(|entry| entry.name == file).and_then(|entry| std::fs::read(report.join(&entry.name)).ok())
}

/// Writes all files into a folder beside `out`, then puts it in `out`'s place at once.
pub(crate) fn publish(out: &Path, files: &[(String, Vec<u8>)]) -> Result<(), ReportError> {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let parent = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let name = out.file_name().and_then(|name| name.to_str()).unwrap_or("report").trim_start_matches('.').to_owned();
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |cause| ReportError::Write { path, cause }
    };
    std::fs::create_dir_all(&parent).map_err(failed(&parent))?;
    let occupied = out.is_dir() && std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    if out.is_file() || (occupied && !out.join(MANIFEST).is_file()) {
        return Err(ReportError::Occupied(out.to_path_buf()));
    }
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let partial = parent.join(format!(".{name}.{}.{run}.partial", std::process::id()));
    let replaced = parent.join(format!(".{name}.{}.{run}.replaced", std::process::id()));
    let written = write_all(&partial, files).and_then(|()| {
        if occupied {
            std::fs::rename(out, &replaced).map_err(failed(out))?;
        }
        std::fs::rename(&partial, out).map_err(failed(out))?;
        sync(&parent)
    });
    if written.is_err() {
        // Best effort: the error that matters is the first one.
        let _ = std::fs::remove_dir_all(&partial);
        if occupied && !out.exists() {
            let _ = std::fs::rename(&replaced, out);
        }
    }
    let _ = std::fs::remove_dir_all(&replaced);
    written
}

fn write_all(folder: &Path, files: &[(String, Vec<u8>)]) -> Result<(), ReportError> {
    use std::io::Write;
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |cause| ReportError::Write { path, cause }
    };
    std::fs::create_dir(folder).map_err(failed(folder))?;
    for (name, content) in files {
        let path = folder.join(name);
        let mut file = std::fs::File::create_new(&path).map_err(failed(&path))?;
        file.write_all(content).and_then(|()| file.sync_all()).map_err(failed(&path))?;
    }
    sync(folder)
}

fn sync(folder: &Path) -> Result<(), ReportError> {
    let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|cause| ReportError::Write { path: folder.to_path_buf(), cause })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn manifest(files: Vec<FileEntry>) -> Vec<u8> {
        let manifest = Manifest {
            format: FORMAT,
            report: "monthly-activity".to_owned(),
            month: "2018-09".parse().unwrap(),
            complete: true,
            contract: "device_event v1".to_owned(),
            policy: "1".to_owned(),
            k: 10,
            tables: BTreeMap::new(),
            suppression_sequence: 0,
            files,
        };
        serde_json::to_vec(&manifest).unwrap()
    }

    #[test]
    fn names_cannot_leave_the_folder() {
        for name in ["report.html", "monthly-activity-2018-09", "card.csv"] {
            assert!(is_plain_name(name), "{name}");
        }
        for name in ["", ".", "..", ".hidden", "a/b", "a\\b", "%2e%2e", "a b", "a\0b"] {
            assert!(!is_plain_name(name), "{name:?}");
        }
    }

    #[test]
    fn only_what_a_manifest_lists_is_served() {
        let home = tempfile::tempdir().unwrap();
        let entry = FileEntry::of("card.csv", b"a\n");
        publish(&home.path().join("r"), &[("card.csv".to_owned(), b"a\n".to_vec()), (MANIFEST.to_owned(), manifest(vec![entry]))]).unwrap();
        std::fs::write(home.path().join("r/extra.txt"), b"x").unwrap();
        assert_eq!(stored_file(home.path(), "r", "card.csv").unwrap(), b"a\n");
        assert!(stored_file(home.path(), "r", MANIFEST).is_some());
        for (id, file) in [("r", "extra.txt"), ("..", "r"), ("r", "../r/card.csv"), ("none", "card.csv")] {
            assert!(stored_file(home.path(), id, file).is_none(), "{id}/{file}");
        }
        assert_eq!(stored_reports(home.path()).len(), 1);
    }

    #[test]
    fn a_report_is_replaced_whole_and_other_folders_are_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("r");
        publish(&out, &[("old.csv".to_owned(), vec![1]), (MANIFEST.to_owned(), manifest(Vec::new()))]).unwrap();
        publish(&out, &[("new.csv".to_owned(), vec![2]), (MANIFEST.to_owned(), manifest(Vec::new()))]).unwrap();
        assert!(!out.join("old.csv").exists() && out.join("new.csv").exists());
        let mine = home.path().join("mine");
        std::fs::create_dir(&mine).unwrap();
        publish(&mine, &[(MANIFEST.to_owned(), manifest(Vec::new()))]).unwrap();
        let precious = home.path().join("precious");
        std::fs::create_dir(&precious).unwrap();
        std::fs::write(precious.join("thesis.txt"), b"x").unwrap();
        assert!(matches!(publish(&precious, &[]), Err(ReportError::Occupied(_))));
        assert!(precious.join("thesis.txt").exists());
        let left: Vec<_> = std::fs::read_dir(home.path())
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with('.'))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
