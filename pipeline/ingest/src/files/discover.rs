//! From what was typed to the files that are read.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::IngestError;

/// What names of events end with, in a folder; after them `.gz` or `.zst`.
const EXTENSIONS: [&str; 3] = ["ndjson", "jsonl", "json"];
/// Folders below each other; more is taken for a loop of links.
const DEPTH_MAX: usize = 32;

/// One input, in the order read.
#[derive(Debug, Clone)]
pub(super) struct Input {
    /// `-` is standard input.
    pub(super) path: PathBuf,
    /// Bytes as stored, where that can be known.
    pub(super) bytes: Option<u64>,
    /// Can be opened again from its start.
    pub(super) regular: bool,
}

impl Input {
    pub(super) fn is_stdin(&self) -> bool {
        self.path.as_os_str() == "-"
    }
}

/// Expands patterns and folders and checks that everything can be read.
///
/// # Errors
/// For the first thing that is not there or cannot be read.
pub(super) fn discover(paths: &[PathBuf]) -> Result<Vec<Input>, IngestError> {
    let mut inputs = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            inputs.push(Input { path: path.clone(), bytes: None, regular: false });
            continue;
        }
        if path.exists() || !is_pattern(path) {
            add(path, &mut inputs)?;
            continue;
        }
        let found = expand(path)?;
        if found.is_empty() {
            return Err(IngestError::NothingFound { path: path.clone() });
        }
        for file in found {
            add(&file, &mut inputs)?;
        }
    }
    Ok(inputs)
}

fn unreadable(path: &Path, cause: io::Error) -> IngestError {
    IngestError::Unreadable { path: path.to_owned(), cause }
}

fn add(path: &Path, inputs: &mut Vec<Input>) -> Result<(), IngestError> {
    let metadata = fs::metadata(path).map_err(|cause| unreadable(path, cause))?;
    if metadata.is_dir() {
        let before = inputs.len();
        folder(path, 0, inputs)?;
        if inputs.len() == before {
            return Err(IngestError::NothingFound { path: path.to_owned() });
        }
        return Ok(());
    }
    file(path, &metadata, inputs)
}

fn file(path: &Path, metadata: &fs::Metadata, inputs: &mut Vec<Input>) -> Result<(), IngestError> {
    let regular = metadata.is_file();
    if regular {
        // A pipe is not opened twice: its writer would see it closed.
        File::open(path).map_err(|cause| unreadable(path, cause))?;
    }
    inputs.push(Input { path: path.to_owned(), bytes: regular.then_some(metadata.len()), regular });
    Ok(())
}

fn folder(path: &Path, depth: usize, inputs: &mut Vec<Input>) -> Result<(), IngestError> {
    if depth > DEPTH_MAX {
        return Err(unreadable(path, io::Error::other("folders lie too deep, or a link leads back")));
    }
    for entry in entries(path)? {
        let metadata = fs::metadata(&entry).map_err(|cause| unreadable(&entry, cause))?;
        if metadata.is_dir() {
            folder(&entry, depth + 1, inputs)?;
        } else if holds_events(&entry) {
            file(&entry, &metadata, inputs)?;
        }
    }
    Ok(())
}

/// What lies in a folder and is not hidden, sorted.
fn entries(path: &Path) -> Result<Vec<PathBuf>, IngestError> {
    let listed = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut found: Vec<PathBuf> = listed
        .map_err(|cause| unreadable(path, cause))?
        .into_iter()
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    Ok(found)
}

fn holds_events(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_ascii_lowercase();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    name.rsplit_once('.').is_some_and(|(_, extension)| EXTENSIONS.contains(&extension))
}

fn is_pattern(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.contains(['*', '?', '[']))
}

/// Expands `*`, `?` and `[…]`, component by component, as shells do.
fn expand(pattern: &Path) -> Result<Vec<PathBuf>, IngestError> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let name = match component {
            Component::Normal(name) => name,
            other => {
                found.iter_mut().for_each(|path| path.push(other));
                continue;
            }
        };
        let Some(wanted) = name.to_str().filter(|name| name.contains(['*', '?', '['])) else {
            found.iter_mut().for_each(|path| path.push(name));
            found.retain(|path| path.exists());
            continue;
        };
        let mut next = Vec::new();
        for path in found {
            let here = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
            if !here.is_dir() {
                continue;
            }
            let matching = entries(here)?.into_iter().filter_map(|entry| entry.file_name().map(|name| path.join(name)));
            next.extend(matching.filter(|entry| {
                entry.file_name().and_then(|name| name.to_str()).is_some_and(|name| matches(wanted.as_bytes(), name.as_bytes()))
            }));
        }
        found = next;
    }
    Ok(found)
}

/// Whether a name fits a pattern of `*`, `?`, `[a-z]`, `[!a-z]`.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|skip| matches(rest, &name[skip..])),
        Some((b'?', rest)) => !name.is_empty() && matches(rest, &name[1..]),
        Some((b'[', rest)) => {
            let (Some(end), Some((first, others))) = (rest.iter().skip(1).position(|byte| *byte == b']'), name.split_first()) else {
                return false;
            };
            let (class, after) = (&rest[..=end], &rest[end + 2..]);
            let (negated, class) = match class {
                [b'!' | b'^', class @ ..] => (true, class),
                class => (false, class),
            };
            in_class(class, *first) != negated && matches(after, others)
        }
        Some((byte, rest)) => name.first() == Some(byte) && matches(rest, &name[1..]),
    }
}

fn in_class(mut class: &[u8], byte: u8) -> bool {
    loop {
        class = match class {
            [low, b'-', high, rest @ ..] => {
                if (*low..=*high).contains(&byte) {
                    return true;
                }
                rest
            }
            [one, rest @ ..] => {
                if *one == byte {
                    return true;
                }
                rest
            }
            [] => return false,
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn names(inputs: &[Input]) -> Vec<String> {
        inputs.iter().map(|input| input.path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn patterns() {
        for (pattern, name, fits) in [
            ("*.ndjson", "a.ndjson", true),
            ("*.ndjson", "a.ndjson.gz", false),
            ("a?[0-9].*", "ab7.x", true),
            ("a?[!0-9].*", "ab7.x", false),
            ("[]a]", "]", true),
            ("[", "[", false),
            ("a*b*c", "aXbYbZc", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn folders_and_patterns_come_sorted_and_missing_things_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["b.ndjson.zst", "a.ndjson", "readme.txt", ".hidden.ndjson", "sub/c.jsonl"] {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        assert_eq!(names(&discover(&[root.to_owned()]).unwrap()), ["a.ndjson", "b.ndjson.zst", "c.jsonl"]);
        assert_eq!(names(&discover(&[root.join("*.ndjson*")]).unwrap()), ["a.ndjson", "b.ndjson.zst"]);
        assert_eq!(names(&discover(&[root.join("s*/?.jsonl"), root.join("readme.txt")]).unwrap()), ["c.jsonl", "readme.txt"]);
        assert!(matches!(discover(&[root.join("x*.ndjson")]), Err(IngestError::NothingFound { .. })));
        assert!(matches!(discover(&[root.join("nothing")]), Err(IngestError::Unreadable { .. })));
        assert!(discover(&[PathBuf::from("-")]).unwrap()[0].is_stdin());
    }
}
