//! How a command ends when it does not end well.

use std::process::ExitCode;

use ameles_queries::EngineError;

/// Done.
pub const DONE: u8 = 0;
/// Failed.
pub const FAILED: u8 = 1;
/// Wrong usage or configuration.
pub const USAGE: u8 = 2;
/// Done, but events were rejected and `--strict` was given.
pub const REJECTED: u8 = 3;

/// An error with the exit code that says which kind it is.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl Failure {
    /// The command was right and did not succeed.
    pub fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self { code: FAILED, error: error.into() }
    }
    /// The arguments or the configuration are wrong.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { code: USAGE, error: error.into() }
    }
    /// Wrong usage, told in words.
    pub fn misuse(message: impl Into<String>) -> Self {
        Self { code: USAGE, error: anyhow::anyhow!(message.into()) }
    }
    /// Adds what was being done.
    #[must_use]
    pub fn context(self, doing: impl std::fmt::Display + Send + Sync + 'static) -> Self {
        Self { code: self.code, error: self.error.context(doing) }
    }
    /// The error without its exit code.
    pub fn into_error(self) -> anyhow::Error {
        self.error
    }
    /// The error, for a record of it.
    pub const fn error(&self) -> &anyhow::Error {
        &self.error
    }
    /// Prints the error with its causes to standard error.
    #[expect(clippy::print_stderr, reason = "the place where errors reach the user")]
    pub fn report(&self) -> ExitCode {
        eprintln!("error: {}", told(&self.error));
        ExitCode::from(self.code)
    }
}

/// An error and its causes, without those that it has told already.
fn told(error: &anyhow::Error) -> String {
    let mut causes = error.chain();
    let mut text = causes.next().map(ToString::to_string).unwrap_or_default();
    for cause in causes.filter(|cause| !cause.is::<EngineError>()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::failed(error)
    }
}

/// Which errors of the crates below the caller can put right: exit code 2 instead of 1.
pub trait Usage: Into<anyhow::Error> {
    /// Whether arguments or input lists are at fault.
    fn is_usage(&self) -> bool;
    /// The failure with its exit code.
    fn into_failure(self) -> Failure {
        if self.is_usage() { Failure::usage(self) } else { Failure::failed(self) }
    }
}

impl Usage for ameles_queries::QueryError {
    fn is_usage(&self) -> bool {
        !matches!(self, Self::TimedOut { .. } | Self::TooManyRows { .. }) && self.is_callers_fault()
    }
}

impl Usage for ameles_ingest::IngestError {
    fn is_usage(&self) -> bool {
        matches!(self, Self::Unreadable { .. } | Self::NothingFound { .. })
    }
}

impl Usage for ameles_erasure::ErasureError {
    fn is_usage(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::List { .. } | Self::Identify(_) | Self::NoCertificate(_) => true,
            Self::Ledger(error) => error.is_usage(),
            _ => false,
        }
    }
}

impl Usage for ameles_ledger::LedgerError {
    fn is_usage(&self) -> bool {
        matches!(self, Self::Invalid { .. } | Self::NoSuchToken(_) | Self::TokenExists(_))
    }
}

impl Usage for ameles_reports::ReportError {
    fn is_usage(&self) -> bool {
        match self {
            Self::UnknownReport(_) | Self::NoData { .. } | Self::Occupied(_) => true,
            Self::Query(error) => error.is_usage(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::anyhow!("no such file").context("cannot read x: no such file").context("cannot open the home");
        assert_eq!(told(&error), "cannot open the home: cannot read x: no such file");
    }
}
