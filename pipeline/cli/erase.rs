//! `ameles erase`

use std::fmt;
use std::io::{self, IsTerminal, Read as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

use ameles_core::{Day, Limits, SubjectKind, Timestamp};
use ameles_erasure::{CertificateError, Eraser, ListSubmission, Preview, Progress, Step, SubmitOptions, VerifyReport, check_certificate};
use ameles_ledger::{Request, RequestFilter, RequestId};
use ameles_pseudonym::RawIdentifier;
use anyhow::{Context, anyhow};

use crate::args::{EraseArgs, EraseCommand};
use crate::environment::Environment;
use crate::failure::{DONE, FAILED, Failure, Usage};
use crate::home::Location;
use crate::{maintenance, output};

const ACTOR: &str = "cli";

/// Runs one of the subcommands.
pub async fn run(home: &Location, args: EraseArgs) -> Result<ExitCode, Failure> {
    // Offline: needs no home.
    if let EraseCommand::CheckCertificate { file, public_key, json } = &args.command {
        return check(file, public_key, *json);
    }
    let environment = Environment::open(home).await?;
    let eraser = environment.eraser();
    match args.command {
        EraseCommand::Submit { device, user, file, regulation, received, reference, json } => {
            let received = received.map(|text| moment(&text)).transpose()?;
            let options = SubmitOptions { regulation: Some(regulation), received, reference, actor: ACTOR.to_owned() };
            submit(&eraser, asked(device, user), file.as_deref(), &options, json).await
        }
        EraseCommand::Run { json } => {
            let code = carry_out(&eraser, json).await?;
            maintenance::after_changes(&environment).await?;
            Ok(code)
        }
        EraseCommand::Preview { json } => {
            let preview = eraser.preview().await?;
            output::summary(json, &preview, Previewed(&preview))?;
            Ok(ExitCode::SUCCESS)
        }
        EraseCommand::Status { id, json } => show(&eraser.find(&id).await.map_err(Usage::into_failure)?, json),
        EraseCommand::List { overdue, json } => {
            let filter = RequestFilter { overdue, ..RequestFilter::default() };
            let requests = environment.ledger.requests(&filter).await?;
            output::summary(json, &serde_json::json!({ "requests": requests }), Requests(&requests))?;
            Ok(ExitCode::SUCCESS)
        }
        EraseCommand::Extend { id, reason, json } => {
            let id = eraser.find(&id).await.map_err(Usage::into_failure)?.id;
            show(&eraser.extend(id, &reason, ACTOR).await.map_err(Usage::into_failure)?, json)
        }
        EraseCommand::Cancel { id, json } => {
            let id = eraser.find(&id).await.map_err(Usage::into_failure)?.id;
            show(&eraser.cancel(id, ACTOR).await?, json)
        }
        EraseCommand::Certificate { id, output: file } => {
            let id = eraser.find(&id).await.map_err(Usage::into_failure)?.id;
            let certificate = eraser.certificate(id).await?;
            output::to(file.as_deref(), |out| Ok(out.write_all(certificate.as_bytes())?))?;
            Ok(ExitCode::SUCCESS)
        }
        EraseCommand::Verify { device, user, json } => {
            let identifiers = read_identifiers(&asked(device, user))?;
            let bar = Bar::start("verify");
            let report = eraser.verify(identifiers.into_iter().next(), &bar).await;
            bar.progress.finish();
            let report = report.map_err(Usage::into_failure)?;
            output::summary(json, &report, Verified(&report))?;
            Ok(ExitCode::from(if report.clean { DONE } else { FAILED }))
        }
        EraseCommand::CheckCertificate { file, public_key, json } => check(&file, &public_key, json),
    }
}

/// The kinds whose identifiers are to be read, in the order of the options.
fn asked(device: Option<String>, user: Option<String>) -> Vec<SubjectKind> {
    [(device, SubjectKind::Device), (user, SubjectKind::User)].into_iter().filter_map(|(option, kind)| option.map(|_| kind)).collect()
}

async fn submit(
    eraser: &Eraser,
    kinds: Vec<SubjectKind>,
    file: Option<&Path>,
    options: &SubmitOptions,
    json: bool,
) -> Result<ExitCode, Failure> {
    let list = match file {
        Some(path) if path == Path::new("-") => eraser.submit_list(io::stdin().lock(), options).await.map_err(Usage::into_failure)?,
        Some(path) => {
            let reader = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display())).map_err(Failure::usage)?;
            eraser.submit_list(reader, options).await.map_err(Usage::into_failure)?
        }
        None => {
            if kinds.is_empty() {
                return Err(Failure::misuse(
                    "name whom to erase: --device - or --user - with the identifier on standard input, or --file FILE",
                ));
            }
            let requests = eraser.submit(read_identifiers(&kinds)?, options).await.map_err(Usage::into_failure)?;
            ListSubmission { requests, refused: Vec::new() }
        }
    };
    output::summary(json, &list, Submitted(&list))?;
    for row in &list.refused {
        tracing::error!("line {}: {}", row.line, row.reason);
    }
    Ok(ExitCode::from(if list.refused.is_empty() { DONE } else { FAILED }))
}

/// Reads one line for each kind from standard input, or asks for it without echo.
fn read_identifiers(kinds: &[SubjectKind]) -> Result<Vec<(SubjectKind, RawIdentifier)>, Failure> {
    if kinds.is_empty() {
        // What stands there is not for us: the command may be one of a loop over lines.
        return Ok(Vec::new());
    }
    let mut input = io::stdin().lock();
    let mut identifiers = Vec::with_capacity(kinds.len());
    for kind in kinds {
        let quiet = NoEcho::on_terminal(*kind);
        let identifier = RawIdentifier::from_reader(&mut input, &Limits::default()).map_err(Failure::usage)?;
        drop(quiet);
        identifiers.push((*kind, identifier));
    }
    // Whoever hands in a list by mistake must not believe that all of it was entered.
    let mut more = [0; 1];
    while !io::stdin().is_terminal() && input.read(&mut more).map_err(Failure::usage)? > 0 {
        if !more[0].is_ascii_whitespace() {
            return Err(Failure::misuse(
                "standard input has more lines than were asked for; give a list with --file - and the header kind,identifier",
            ));
        }
    }
    Ok(identifiers)
}

/// A terminal that does not echo, until dropped.
struct NoEcho(rustix::termios::Termios);

impl NoEcho {
    #[expect(clippy::print_stderr, reason = "a prompt on the terminal")]
    fn on_terminal(kind: SubjectKind) -> Option<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        if !io::stdin().is_terminal() {
            return None;
        }
        let before = tcgetattr(io::stdin()).ok()?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet).ok()?;
        eprint!("{kind}: ");
        Some(Self(before))
    }
}

impl Drop for NoEcho {
    #[expect(clippy::print_stderr, reason = "a prompt on the terminal")]
    fn drop(&mut self) {
        // A terminal that has gone has no echo to restore.
        let _gone = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Flush, &self.0);
        eprintln!();
    }
}

async fn carry_out(eraser: &Eraser, json: bool) -> Result<ExitCode, Failure> {
    let bar = Bar::start("erase");
    let report = eraser.run(ACTOR, &bar).await;
    bar.progress.finish();
    let report = report?;
    let mut text = format!(
        "{} requests completed\n{} rows erased in {} months\n{} files rewritten, {} deleted",
        report.requests.len(),
        report.rows_erased,
        report.months.len(),
        report.files_rewritten,
        report.files_deleted
    );
    if report.requests.is_empty() {
        text = "nothing is pending".to_owned();
    }
    output::summary(json, &report, text)?;
    // One line a kind of warning: a list of a hundred thousand would bury what matters. Each stands in its certificate.
    let mut warnings = std::collections::BTreeMap::<&str, (usize, RequestId)>::new();
    for request in &report.requests {
        for warning in &request.warnings {
            warnings.entry(warning).or_insert((0, request.id)).0 += 1;
        }
    }
    for (warning, (requests, id)) in warnings {
        tracing::warn!("{requests} requests, such as {id}: {warning}");
    }
    let done = report.requests.iter().all(|request| !request.state.is_open());
    Ok(ExitCode::from(if done { DONE } else { FAILED }))
}

fn show(request: &Request, json: bool) -> Result<ExitCode, Failure> {
    output::summary(json, request, Requests(std::slice::from_ref(request)))?;
    if let Some(error) = Eraser::last_error(request) {
        tracing::error!("the last run stopped: {error}");
    }
    Ok(ExitCode::SUCCESS)
}

fn check(file: &Path, public_key: &str, json: bool) -> Result<ExitCode, Failure> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display())).map_err(Failure::usage)?;
    let key = match std::fs::read(public_key) {
        Ok(bytes) => bytes,
        Err(_) => public_key.as_bytes().to_vec(),
    };
    let verdict = check_certificate(&text, &key).map_err(|error| match error {
        CertificateError::PublicKey => Failure::usage(error),
        error => Failure::failed(error).context("the certificate does not hold"),
    })?;
    let sentence = if verdict.genuine { "the signature holds" } else { "NOT GENUINE" };
    output::summary(json, &verdict, [&[sentence.to_owned()], &verdict.problems[..]].concat().join("\n"))?;
    Ok(ExitCode::from(if verdict.genuine { DONE } else { FAILED }))
}

/// A day or a time.
fn moment(text: &str) -> Result<Timestamp, Failure> {
    text.parse::<Timestamp>()
        .or_else(|_| text.parse::<Day>().map(Day::start))
        .map_err(|_| Failure::usage(anyhow!("--received: write a day such as 2018-07-31 or a time such as 2018-07-31T12:00:00Z")))
}

struct Bar {
    progress: output::Progress,
    state: Mutex<(String, u64, u64)>,
}

impl Bar {
    fn start(what: &'static str) -> Self {
        Self { progress: output::Progress::start(what, false), state: Mutex::default() }
    }
}

impl Progress for Bar {
    fn begin(&self, _step: Step, what: &str, total: u64) {
        let Ok(mut state) = self.state.lock() else { return };
        *state = (what.to_owned(), 0, total);
        self.progress.update(0, total, &|| what.to_owned());
    }
    fn advance(&self, units: u64) {
        let Ok(mut state) = self.state.lock() else { return };
        state.1 += units;
        self.progress.update(state.1, state.2, &|| state.0.clone());
    }
}

struct Submitted<'a>(&'a ListSubmission);

impl fmt::Display for Submitted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.0.requests.iter().map(ToString::to_string).collect();
        f.write_str(&ids.join("\n"))
    }
}

struct Requests<'a>(&'a [Request]);

impl fmt::Display for Requests<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<36} {:<7} {:<11} {:<20} {:<20} reference", "id", "kind", "state", "received", "due")?;
        for request in self.0 {
            let (received, due) = (request.received.to_string(), request.due.to_string());
            let reference = request.reference.as_deref().unwrap_or("");
            write!(
                f,
                "\n{} {:<7} {:<11} {received:<20.20} {due:<20.20} {reference}",
                request.id,
                request.kind.as_str(),
                request.state.as_str()
            )?;
        }
        Ok(())
    }
}

struct Previewed<'a>(&'a Preview);

impl fmt::Display for Previewed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let preview = self.0;
        write!(
            f,
            "requests {} ({} of them without rows)\nrows {} of events, {} of quarantine\nfiles {} ({} bytes) in {} months\nabout {} s\n\
             devices {} ({} with events that name nobody)\nother users touched {}",
            preview.requests,
            preview.requests_without_rows,
            preview.rows,
            preview.quarantine_rows,
            preview.files,
            preview.bytes,
            preview.months.len(),
            preview.seconds,
            preview.devices,
            preview.userless_devices,
            preview.other_users
        )?;
        for number in &preview.numbers {
            write!(f, "\n{} {}: {:+}", number.month, number.metric, number.change)?;
            if let (Some(before), Some(after)) = (number.before, number.after) {
                write!(f, " ({before} to {after})")?;
            }
        }
        Ok(())
    }
}

struct Verified<'a>(&'a VerifyReport);

impl fmt::Display for Verified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        write!(
            f,
            "{} Parquet files decoded ({} rows), {} other files read, {} bytes in all\n\
             looked for {} pseudonyms of completed erasures, {} of pending ones, {} asked for\n{}",
            report.files_decoded,
            report.rows_decoded,
            report.files_searched,
            report.bytes_read,
            report.subjects_completed,
            report.subjects_pending,
            report.subjects_asked,
            match (report.clean, report.pending.is_empty()) {
                (false, _) => "REMAINS:",
                (true, true) => "nothing remains",
                (true, false) => "nothing remains of what is completed or was asked for",
            }
        )?;
        for finding in &report.remains {
            write!(f, "\n  {}: {}", finding.path, finding.what)?;
        }
        if !report.pending.is_empty() {
            write!(f, "\npending erasures still have {} rows of events, in all {} places", report.rows_pending, report.pending.len())?;
        }
        Ok(())
    }
}
