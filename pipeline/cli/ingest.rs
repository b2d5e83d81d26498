//! `ameles ingest`

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use ameles_core::{Reason, Tally};
use ameles_ingest::{FileOptions, FileReport, Progress};

use crate::args::IngestArgs;
use crate::environment::Environment;
use crate::failure::{DONE, FAILED, Failure, REJECTED, Usage};
use crate::home::Location;
use crate::{maintenance, output};

/// Ingests files and prints the summary.
pub async fn run(home: &Location, args: &IngestArgs) -> Result<ExitCode, Failure> {
    let environment = Environment::open(home).await?;
    environment.take_up_journal().await?;
    let options = FileOptions { alias: args.source.clone(), ..FileOptions::default() };
    let report = ingest(&environment, &args.paths, &options).await?;
    output::summary(args.json, &report.tally, Summary(&report))?;
    maintenance::after_changes(&environment).await?;
    for error in &report.errors {
        tracing::error!("{error}");
    }
    let code = match () {
        () if !report.errors.is_empty() => FAILED,
        () if args.strict && report.tally.rejected_total() > 0 => REJECTED,
        () => DONE,
    };
    Ok(ExitCode::from(code))
}

/// Ingests with a progress bar.
pub async fn ingest(environment: &Environment, paths: &[std::path::PathBuf], options: &FileOptions) -> Result<FileReport, Failure> {
    let env = environment.ingest()?;
    let bar = Bar { progress: output::Progress::start("ingest", false), state: Mutex::new(State::new()) };
    let result = ameles_ingest::ingest_files(&env, paths, options, &bar).await;
    bar.progress.finish();
    result.map_err(Usage::into_failure)
}

struct Bar {
    progress: output::Progress,
    state: Mutex<State>,
}

struct State {
    started: Instant,
    total: u64,
    bytes: u64,
    message: String,
}

impl State {
    fn new() -> Self {
        Self { started: Instant::now(), total: 0, bytes: 0, message: String::new() }
    }
}

impl Progress for Bar {
    fn total(&self, bytes: Option<u64>) {
        if let Ok(mut state) = self.state.lock() {
            state.total = bytes.unwrap_or(0);
        }
    }
    fn advanced(&self, bytes: u64, rows: u64) {
        let Ok(mut state) = self.state.lock() else { return };
        state.bytes = bytes;
        let rate = rows as f64 / state.started.elapsed().as_secs_f64().max(1e-3) / 1e6;
        self.progress.update(bytes, state.total, &|| format!("{rows} events, {rate:.2} M/s {}", state.message));
    }
    fn message(&self, text: &str) {
        let Ok(mut state) = self.state.lock() else { return };
        state.message = text.to_owned();
        self.progress.update(state.bytes, state.total, &|| text.to_owned());
    }
}

/// The summary for a person.
pub struct Summary<'a>(pub &'a FileReport);

impl std::fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&tally_lines(&self.0.tally))?;
        for file in self.0.files.iter().filter(|file| file.skipped_bytes > 0) {
            write!(f, "\n{}: {} bytes were ingested before", file.path.display(), file.skipped_bytes)?;
        }
        let undeclared = &self.0.undeclared;
        if undeclared.dropped > 0 {
            let named: Vec<_> = undeclared.named.iter().map(|field| format!("{} {}", field.name, field.dropped)).collect();
            write!(
                f,
                "\nundeclared fields dropped {}{}{}",
                undeclared.dropped,
                if named.is_empty() { "" } else { ": " },
                named.join(", ")
            )?;
        }
        Ok(())
    }
}

fn tally_lines(tally: &Tally) -> String {
    let mut text = format!("received {}\naccepted {}\nrejected {}", tally.received(), tally.accepted(), tally.rejected_total());
    for reason in Reason::ALL.into_iter().filter(|reason| tally.rejected(*reason) > 0) {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "\n  {reason} {}", tally.rejected(reason));
    }
    text
}
