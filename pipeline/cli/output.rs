//! What a command shows: summaries on standard output, progress and logs on standard error.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::failure::Failure;

/// One JSON object on standard output where `json` is set, else lines for a person.
pub fn summary(json: bool, value: &impl Serialize, human: impl fmt::Display) -> Result<(), Failure> {
    let text = if json { serde_json::to_string(value)? } else { human.to_string() };
    to(None, |out| Ok(writeln!(out, "{text}")?))
}

/// Runs `write` on standard output or on a file.
pub fn to(output: Option<&Path>, write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> Result<(), Failure> {
    match output {
        None => {
            let mut out = BufWriter::new(io::stdout().lock());
            match write(&mut out).and_then(|()| Ok(out.flush()?)) {
                // A reader such as `head` that has seen enough is no failure.
                Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => Ok(()),
                other => other.map_err(Failure::failed),
            }
        }
        Some(path) => {
            let file = File::create(path).map_err(|error| anyhow::Error::new(error).context(format!("cannot write {}", path.display())))?;
            let mut out = BufWriter::new(file);
            write(&mut out)?;
            out.flush()?;
            Ok(())
        }
    }
}

/// A progress bar on a terminal, plain lines elsewhere.
pub struct Progress {
    bar: ProgressBar,
    plain: Option<Mutex<Plain>>,
    what: &'static str,
}

struct Plain {
    started: Instant,
    said: Option<Instant>,
}

const SAY_EVERY: Duration = Duration::from_secs(5);

impl Progress {
    /// Starts to show `what`, whose total may come later.
    pub fn start(what: &'static str, quiet: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        let bar = ProgressBar::new(0);
        if quiet || !terminal {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        } else if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {percent:>3}% {msg} {eta} left") {
            bar.set_style(style);
            bar.set_prefix(what);
        }
        let plain = (!quiet && !terminal).then(|| Mutex::new(Plain { started: Instant::now(), said: None }));
        Self { bar, plain, what }
    }

    /// `done` of `total` bytes or steps; 0 is an unknown total.
    pub fn update(&self, done: u64, total: u64, message: &dyn Fn() -> String) {
        self.bar.set_length(total.max(done));
        self.bar.set_position(done);
        if !self.bar.is_hidden() {
            self.bar.set_message(message());
        }
        let Some(plain) = &self.plain else { return };
        let Ok(mut plain) = plain.lock() else { return };
        if plain.said.unwrap_or(plain.started).elapsed() >= SAY_EVERY {
            plain.said = Some(Instant::now());
            let percent = (done.saturating_mul(100)).checked_div(total).unwrap_or(0);
            tracing::info!("{}: {percent} % {}", self.what, message());
        }
    }

    /// Clears the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
