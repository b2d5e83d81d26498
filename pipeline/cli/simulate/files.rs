//! Where the lines go: standard output, a file, or several files in a folder.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use flate2::write::GzEncoder;

use super::generate::Sink;

/// Fast rather than small.
const ZSTD_LEVEL: i32 = 1;

/// How files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// Not at all: `.ndjson`.
    None,
    /// gzip: `.ndjson.gz`.
    Gz,
    /// Zstandard: `.ndjson.zst`.
    Zst,
}

impl Compression {
    /// As a file's name says.
    pub fn of_name(path: &Path) -> Self {
        match path.extension().and_then(std::ffi::OsStr::to_str) {
            Some("gz") => Self::Gz,
            Some("zst") => Self::Zst,
            _ => Self::None,
        }
    }
    const fn ending(self) -> &'static str {
        match self {
            Self::None => "ndjson",
            Self::Gz => "ndjson.gz",
            Self::Zst => "ndjson.zst",
        }
    }
}

enum Output {
    Plain(File),
    Gz(GzEncoder<File>),
    Zst(zstd::Encoder<'static, File>),
}

/// Open files, one a stream. A file that is there already is replaced.
pub struct Files(Vec<(PathBuf, Output)>);

impl Files {
    /// One file, compressed as its name says.
    pub fn single(path: &Path) -> anyhow::Result<Self> {
        Ok(Self(vec![(path.to_owned(), open(path, Compression::of_name(path))?)]))
    }

    /// `events-1.ndjson` and so on in a folder, which is made if need be.
    pub fn in_folder(folder: &Path, files: usize, compression: Compression) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let width = files.to_string().len();
        let named = |index: usize| folder.join(format!("events-{:0width$}.{}", index + 1, compression.ending()));
        let open = |index| open(&named(index), compression).map(|output| (named(index), output));
        Ok(Self((0..files).map(open).collect::<anyhow::Result<_>>()?))
    }

    /// Ends the compressed streams; gives the files' names.
    pub fn finish(self) -> anyhow::Result<Vec<PathBuf>> {
        let mut paths = Vec::with_capacity(self.0.len());
        for (path, output) in self.0 {
            let ended = match output {
                Output::Plain(_) => Ok(()),
                Output::Gz(encoder) => encoder.finish().map(drop),
                Output::Zst(encoder) => encoder.finish().map(drop),
            };
            ended.with_context(|| format!("cannot write {}", path.display()))?;
            paths.push(path);
        }
        Ok(paths)
    }
}

impl Sink for Files {
    fn piece(&mut self, stream: usize, bytes: &[u8]) -> io::Result<()> {
        let Some((path, output)) = self.0.get_mut(stream) else {
            return Err(io::Error::other("more streams than files"));
        };
        let written = match output {
            Output::Plain(file) => file.write_all(bytes),
            Output::Gz(encoder) => encoder.write_all(bytes),
            Output::Zst(encoder) => encoder.write_all(bytes),
        };
        written.map_err(|error| io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display())))
    }
}

fn open(path: &Path, compression: Compression) -> anyhow::Result<Output> {
    let context = || format!("cannot write {}", path.display());
    let file = File::create(path).with_context(context)?;
    Ok(match compression {
        Compression::None => Output::Plain(file),
        Compression::Gz => Output::Gz(GzEncoder::new(file, flate2::Compression::fast())),
        Compression::Zst => Output::Zst(zstd::Encoder::new(file, ZSTD_LEVEL).with_context(context)?),
    })
}
