//! A disk that forgets at a power cut what was not synced: a file's bytes are cut
//! short or zeroed, names made or taken away in a folder come back as they were.
//! Which of them, a seed decides; a file system may keep any.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ameles_core::{Random, SeededRandom};
use bytes::Bytes;

use crate::disk::write_new_file;

static DISKS: Mutex<Vec<Weak<Disk>>> = Mutex::new(Vec::new());

/// The disk that a path lies on, if it is one of these.
pub(crate) fn disk_of(path: &Path) -> Option<Arc<Disk>> {
    let disks = DISKS.lock().unwrap_or_else(PoisonError::into_inner);
    disks.iter().filter_map(Weak::upgrade).find(|disk| path.starts_with(&disk.root))
}

pub(crate) struct Disk {
    root: PathBuf,
    /// Keeps each file's bytes when its names are gone.
    kept: tempfile::TempDir,
    state: Mutex<State>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    File(u64),
    Folder,
}

/// One change of the names in a folder: it comes to pass as a whole or not at all.
#[derive(Clone, Debug)]
struct Change {
    gone: Option<PathBuf>,
    made: Option<(PathBuf, Entry)>,
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Entry>) {
        if let Some(gone) = &self.gone {
            names.remove(gone);
        }
        if let Some((path, entry)) = &self.made {
            names.insert(path.clone(), *entry);
        }
    }
}

#[derive(Default)]
struct State {
    /// Operations that will still be done; as many as come where it is none.
    left: Option<u64>,
    /// Says that it has synced, and has not.
    lies: Lies,
    /// The names as they are seen, and as they are on the disk.
    seen: BTreeMap<PathBuf, Entry>,
    durable: BTreeMap<PathBuf, Entry>,
    /// What is not synced yet, by folder, in order.
    pending: BTreeMap<PathBuf, Vec<Change>>,
    /// Whether a file's bytes are synced, by its number.
    synced: Vec<bool>,
}

/// What a disk says that it has synced and has not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Lies {
    #[default]
    Never,
    OfFiles,
    OfFolders,
}

/// What of the unsynced is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keeps {
    Nothing,
    /// The first changes of each folder.
    First,
    Some,
    All,
}

impl Disk {
    /// Takes the place of the file system under an empty folder.
    pub(crate) fn under(root: &Path) -> Arc<Self> {
        let root = root.canonicalize().unwrap();
        let disk = Arc::new(Self { root, kept: tempfile::tempdir().unwrap(), state: Mutex::default() });
        let mut disks = DISKS.lock().unwrap_or_else(PoisonError::into_inner);
        disks.retain(|disk| disk.strong_count() > 0);
        disks.push(Arc::downgrade(&disk));
        disk
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes after so many operations.
    pub(crate) fn cut_after(&self, operations: u64) {
        self.state().left = Some(operations);
    }

    pub(crate) fn lie(&self, of: Lies) {
        self.state().lies = of;
    }

    /// The power is back, and the folder is what the disk has kept.
    pub(crate) fn restart(&self, keeps: Keeps, random: &SeededRandom) {
        let mut state = self.state();
        let mut names = std::mem::take(&mut state.durable);
        for changes in std::mem::take(&mut state.pending).into_values() {
            let first = below(random, changes.len() as u64 + 1) as usize;
            for (at, change) in changes.iter().enumerate() {
                let kept = match keeps {
                    Keeps::Nothing => false,
                    Keeps::First => at < first,
                    Keeps::Some => below(random, 2) == 0,
                    Keeps::All => true,
                };
                if kept {
                    change.apply(&mut names);
                }
            }
        }
        // What lies in a folder that has gone has gone with it.
        let all = names.clone();
        let is_there = |path: &PathBuf| {
            path.ancestors().skip(1).take_while(|above| *above != self.root).all(|above| all.get(above) == Some(&Entry::Folder))
        };
        names.retain(|path, _| is_there(path));
        for (path, entry) in state.seen.iter().rev().filter(|(path, entry)| names.get(*path) != Some(*entry)) {
            let gone = if *entry == Entry::Folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            if let Err(error) = gone {
                assert_eq!(error.kind(), io::ErrorKind::NotFound, "{}", path.display());
            }
        }
        for (path, entry) in &names {
            let was_seen = state.seen.get(path) == Some(entry);
            match entry {
                Entry::Folder if !was_seen => fs::create_dir(path).unwrap(),
                Entry::Folder => {}
                Entry::File(number) => {
                    let kept = self.kept(*number);
                    if !state.synced[*number as usize] && keeps != Keeps::All {
                        let mut bytes = fs::read(&kept).unwrap();
                        match below(random, 3) {
                            0 => bytes.truncate(below(random, bytes.len() as u64 + 1) as usize),
                            1 => bytes.fill(0),
                            _ => {}
                        }
                        fs::write(&kept, bytes).unwrap();
                    }
                    if !was_seen {
                        fs::hard_link(&kept, path).unwrap();
                    }
                }
            }
        }
        state.synced.fill(true);
        (state.seen, state.durable, state.left) = (names.clone(), names, None);
    }

    fn kept(&self, number: u64) -> PathBuf {
        self.kept.path().join(number.to_string())
    }

    pub(crate) fn write_new(&self, path: &Path, chunks: &[Bytes]) -> io::Result<File> {
        let mut state = self.state();
        state.tick()?;
        let file = write_new_file(path, chunks)?;
        let number = state.synced.len() as u64;
        fs::hard_link(path, self.kept(number))?;
        state.synced.push(false);
        state.change(None, Some((path, Entry::File(number))));
        Ok(file)
    }

    pub(crate) fn sync_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.tick()?;
        if let (true, Some(Entry::File(number))) = (state.lies != Lies::OfFiles, state.seen.get(path).copied()) {
            state.synced[number as usize] = true;
        }
        Ok(())
    }

    pub(crate) fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.tick()?;
        if state.lies != Lies::OfFolders {
            for change in state.pending.remove(directory).unwrap_or_default() {
                change.apply(&mut state.durable);
            }
        }
        Ok(())
    }

    pub(crate) fn create_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.tick()?;
        fs::create_dir(directory)?;
        state.change(None, Some((directory, Entry::Folder)));
        Ok(())
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.tick()?;
        fs::rename(from, to)?;
        let entry = state.seen[from];
        state.change(Some(from), Some((to, entry)));
        Ok(())
    }

    pub(crate) fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.tick()?;
        fs::hard_link(from, to)?;
        let entry = state.seen[from];
        state.change(None, Some((to, entry)));
        Ok(())
    }

    pub(crate) fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.tick()?;
        fs::remove_file(path)?;
        state.change(Some(path), None);
        Ok(())
    }
}

impl State {
    fn tick(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => return Err(io::Error::other("the power is off")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    fn change(&mut self, gone: Option<&Path>, made: Option<(&Path, Entry)>) {
        let change = Change { gone: gone.map(Path::to_owned), made: made.map(|(path, entry)| (path.to_owned(), entry)) };
        change.apply(&mut self.seen);
        let folder = gone.or(made.map(|made| made.0)).and_then(Path::parent).unwrap();
        self.pending.entry(folder.to_owned()).or_default().push(change);
    }
}

/// A number below `end`.
pub(crate) fn below(random: &SeededRandom, end: u64) -> u64 {
    let mut bytes = [0; 8];
    random.fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes) % end.max(1)
}
