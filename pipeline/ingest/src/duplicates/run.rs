//! Sorted runs of fingerprints on the disk.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use super::filter::Filter;
use super::spill::{DuplicateError, SpillFolder};

/// Bytes of a fingerprint, big-endian, so that the order of bytes is theirs.
const ENTRY_BYTES: usize = 16;
/// Fingerprints that are read at once; of each page the first's leading half is kept in memory.
const PAGE_ENTRIES: usize = 256;
const PAGE_BYTES: usize = PAGE_ENTRIES * ENTRY_BYTES;
/// Pages that a merge reads, or a writer writes, at once.
const PAGES_AT_ONCE: usize = 16;

/// A sorted run; its file has no name and ends with it.
#[derive(Debug)]
pub(super) struct Run {
    file: File,
    len: usize,
    /// The leading half of each page's first fingerprint.
    pages: Vec<u64>,
    filter: Filter,
    /// How often its fingerprints have been merged.
    pub(super) level: u32,
}

/// The page read last, of one run: asked in order, each page is read once.
#[derive(Debug, Default)]
pub(super) struct Page {
    number: Option<usize>,
    bytes: Vec<u8>,
}

impl Run {
    /// Whether the fingerprint is in it.
    pub(super) fn contains(&self, fingerprint: u128, page: &mut Page, folder: &SpillFolder) -> Result<bool, DuplicateError> {
        if !self.filter.may_contain(fingerprint) {
            return Ok(false);
        }
        let leading = (fingerprint >> 64) as u64;
        // More than one page only where two fingerprints share their leading half.
        let first = self.pages.partition_point(|start| *start < leading).saturating_sub(1);
        let end = self.pages.partition_point(|start| *start <= leading);
        for number in first..end {
            if page.number != Some(number) {
                self.read(number, 1, &mut page.bytes, folder)?;
                page.number = Some(number);
            }
            let (entries, _) = page.bytes.as_chunks::<ENTRY_BYTES>();
            if entries.binary_search(&fingerprint.to_be_bytes()).is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn read(&self, page: usize, pages: usize, bytes: &mut Vec<u8>, folder: &SpillFolder) -> Result<(), DuplicateError> {
        let first = page * PAGE_ENTRIES;
        let entries = self.len.saturating_sub(first).min(pages * PAGE_ENTRIES);
        bytes.resize(entries * ENTRY_BYTES, 0);
        self.file.read_exact_at(bytes, (first * ENTRY_BYTES) as u64).map_err(|cause| folder.failed("reading", cause))
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.filter.bytes() + self.pages.len() * size_of::<u64>()
    }

    pub(super) fn filter_bytes(&self) -> usize {
        self.filter.bytes()
    }

    /// From now on every question goes to the disk.
    pub(super) fn drop_filter(&mut self) {
        self.filter = Filter::new(0, 0);
    }

    /// See [`Filter::fold`].
    pub(super) fn fold(&mut self) -> bool {
        self.filter.fold()
    }

    /// One run of several; a fingerprint that is in more than one is in it once.
    pub(super) fn merge(runs: &[Self], bits: usize, folder: &SpillFolder) -> Result<Self, DuplicateError> {
        let level = runs.iter().map(|run| run.level).max().unwrap_or(0) + 1;
        let mut writer = RunWriter::new(runs.iter().map(Self::len).sum(), bits, level, folder)?;
        let mut cursors = runs.iter().map(|run| Cursor::start(run, folder)).collect::<Result<Vec<_>, _>>()?;
        // A few heads: the least of them is found faster than a heap is kept.
        while let Some(least) = cursors.iter().filter_map(|cursor| cursor.head).min() {
            writer.push(least)?;
            for cursor in &mut cursors {
                if cursor.head == Some(least) {
                    cursor.advance(folder)?;
                }
            }
        }
        writer.finish()
    }
}

/// Reads a run from its beginning.
struct Cursor<'a> {
    run: &'a Run,
    head: Option<u128>,
    bytes: Vec<u8>,
    /// The next entry in `bytes`.
    next: usize,
    next_page: usize,
}

impl<'a> Cursor<'a> {
    fn start(run: &'a Run, folder: &SpillFolder) -> Result<Self, DuplicateError> {
        let mut cursor = Self { run, head: None, bytes: Vec::new(), next: 0, next_page: 0 };
        cursor.advance(folder)?;
        Ok(cursor)
    }

    fn advance(&mut self, folder: &SpillFolder) -> Result<(), DuplicateError> {
        if self.next * ENTRY_BYTES == self.bytes.len() {
            self.run.read(self.next_page, PAGES_AT_ONCE, &mut self.bytes, folder)?;
            self.next_page += PAGES_AT_ONCE;
            self.next = 0;
        }
        let (entries, _) = self.bytes.as_chunks::<ENTRY_BYTES>();
        self.head = entries.get(self.next).map(|entry| u128::from_be_bytes(*entry));
        self.next += usize::from(self.head.is_some());
        Ok(())
    }
}

/// Writes a run; what is pushed must rise.
pub(super) struct RunWriter<'a> {
    run: Run,
    buffer: Vec<u8>,
    folder: &'a SpillFolder,
}

impl<'a> RunWriter<'a> {
    /// For at most `len` fingerprints, with `bits` each in the filter.
    pub(super) fn new(len: usize, bits: usize, level: u32, folder: &'a SpillFolder) -> Result<Self, DuplicateError> {
        let pages = Vec::with_capacity(len.div_ceil(PAGE_ENTRIES));
        let run = Run { file: folder.file()?, len: 0, pages, filter: Filter::new(len, bits), level };
        Ok(Self { run, buffer: Vec::with_capacity(PAGES_AT_ONCE * PAGE_BYTES), folder })
    }

    pub(super) fn push(&mut self, fingerprint: u128) -> Result<(), DuplicateError> {
        if self.run.len.is_multiple_of(PAGE_ENTRIES) {
            self.run.pages.push((fingerprint >> 64) as u64);
        }
        self.run.filter.insert(fingerprint);
        self.run.len += 1;
        self.buffer.extend_from_slice(&fingerprint.to_be_bytes());
        if self.buffer.len() == PAGES_AT_ONCE * PAGE_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DuplicateError> {
        self.run.file.write_all(&self.buffer).map_err(|cause| self.folder.failed("writing", cause))?;
        self.buffer.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Run, DuplicateError> {
        self.flush()?;
        Ok(self.run)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn finds_what_it_has_across_pages_that_share_a_leading_half() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = SpillFolder::open(temporary.path()).unwrap();
        let mut page = Page::default();
        // 1,000 under one leading half, so that three pages begin with it.
        let number = |at: u128| ((at / 1_000 + 1) << 64) | ((at % 1_000) * 2);
        for bits in [0, 16] {
            let mut writer = RunWriter::new(3_000, bits, 0, &folder).unwrap();
            (0..3_000).for_each(|at| writer.push(number(at)).unwrap());
            let run = writer.finish().unwrap();
            for at in 0..3_000 {
                assert!(run.contains(number(at), &mut Page::default(), &folder).unwrap(), "{at}");
                assert!(!run.contains(number(at) + 1, &mut page, &folder).unwrap(), "{at}");
            }
            assert!(!run.contains(1, &mut page, &folder).unwrap() && !run.contains(u128::MAX, &mut page, &folder).unwrap());
            page = Page::default();
        }
    }

    #[test]
    fn merging_keeps_all_once() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = SpillFolder::open(temporary.path()).unwrap();
        let run = |step: u128, len: u128| {
            let mut writer = RunWriter::new(10, 16, 0, &folder).unwrap();
            (1..=len).for_each(|at| writer.push((at * step) << 70).unwrap());
            writer.finish().unwrap()
        };
        let merged = Run::merge(&[run(2, 9_000), run(3, 6_000), run(5, 1), run(7, 0)], 16, &folder).unwrap();
        let expected: std::collections::BTreeSet<u128> =
            (1..=9_000).map(|at| at * 2).chain((1..=6_000).map(|at| at * 3)).chain([5]).collect();
        assert_eq!((merged.len(), merged.level), (expected.len(), 1));
        assert!(expected.iter().all(|at| merged.contains(at << 70, &mut Page::default(), &folder).unwrap()));
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "no file has a name");
    }
}
