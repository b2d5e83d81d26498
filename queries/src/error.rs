//! What can go wrong with a question, with what would be right.

use ameles_core::CalendarError;
use ameles_ledger::LedgerError;
use ameles_store::StoreError;

/// A question that has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// There is no such metric.
    #[error("no metric {name:?}; there are {known}")]
    UnknownMetric {
        /// What was asked for.
        name: String,
        /// What exists.
        known: String,
    },
    /// There is no such dimension.
    #[error("no dimension {name:?}; there are {known}")]
    UnknownDimension {
        /// What was asked for.
        name: String,
        /// What exists.
        known: String,
    },
    /// A filter that cannot be read.
    #[error("cannot read the filter {0:?}; write it as DIM=a,b or DIM!=a,b")]
    BadFilter(String),
    /// Options that do not fit the metric or each other.
    #[error("{0}")]
    BadRequest(String),
    /// A date that is none.
    #[error(transparent)]
    Calendar(#[from] CalendarError),
    /// The privacy guard refuses the statement. `place` quotes it: for the
    /// reply, not for a log (see [`QueryError::for_log`]).
    #[error("refused by the rule `{rule}`: {place}")]
    Refused {
        /// The rule's name, as `docs/security.md` lists it.
        rule: &'static str,
        /// Where in the statement, and what would be allowed.
        place: String,
    },
    /// The answer took too long.
    #[error("the query took longer than {seconds} s and was stopped; ask for fewer months or columns")]
    TimedOut {
        /// The limit.
        seconds: u64,
    },
    /// The answer has too many rows.
    #[error("the answer has more than {rows} rows; aggregate further, or add a LIMIT")]
    TooManyRows {
        /// The limit.
        rows: usize,
    },
    /// One of our own query files is broken: a defect of ours.
    #[error("query file {file}: {what}")]
    QueryFile {
        /// The file.
        file: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The tables could not be read.
    #[error("cannot read the tables")]
    Store(#[from] StoreError),
    /// What was issued about closed months could not be read or kept, or there is no room for more of it.
    #[error("{}", if matches!(.0, LedgerError::IssuedFull { .. } | LedgerError::Contended) { .0.to_string() } else { "cannot look up what was issued about closed months".to_owned() })]
    Issued(#[from] LedgerError),
    /// The statement cannot be planned or run.
    #[error("{}", engine_text(.0))]
    Engine(#[from] datafusion::error::DataFusionError),
    /// An answer could not be formed.
    #[error("cannot form the answer")]
    Arrow(#[from] arrow::error::ArrowError),
    /// An answer could not be written as Parquet.
    #[error("cannot write parquet")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// An answer could not be written.
    #[error("cannot write the answer")]
    Io(#[from] std::io::Error),
}

/// What the engine says, in words for who wrote the statement; of memory, what to do.
fn engine_text(error: &datafusion::error::DataFusionError) -> String {
    use datafusion::error::DataFusionError as E;
    match error.find_root() {
        E::ResourcesExhausted(_) => {
            "the answer takes more memory than a query may have: ask for fewer months, or for fewer dimensions at once".to_owned()
        }
        E::SQL(error, _) => error.to_string(),
        _ => {
            let text = error.strip_backtrace();
            // A call that fits no function is told as a bug, with all that was tried; the end says what would fit.
            let text = text.find("No function matches").map_or(text.as_str(), |at| &text[at..]);
            text.strip_prefix("Error during planning: ").unwrap_or(text).replace("datafusion.public.", "")
        }
    }
}

impl QueryError {
    /// Whether the question is at fault (a 4xx), not the machine.
    pub fn is_callers_fault(&self) -> bool {
        match self {
            Self::Engine(error) => {
                use datafusion::error::DataFusionError as E;
                let root = error.find_root();
                match root {
                    // Arrow errors of a plan that runs are divisions by zero and casts; the engine's own, arguments that do not fit.
                    E::SQL(..)
                    | E::Plan(_)
                    | E::SchemaError(..)
                    | E::NotImplemented(_)
                    | E::Diagnostic(..)
                    | E::ArrowError(..)
                    | E::Execution(_)
                    | E::ResourcesExhausted(_) => true,
                    // What our tables fail with is not: the rest is a pattern, or a format, that cannot be read.
                    E::External(_) => !self.is_of_the_tables(),
                    _ => false,
                }
            }
            Self::Issued(error) => matches!(error, LedgerError::IssuedFull { .. } | LedgerError::Contended),
            Self::Store(_) | Self::Arrow(_) | Self::Parquet(_) | Self::Io(_) | Self::QueryFile { .. } => false,
            _ => true,
        }
    }

    /// Whether the tables could not be read, or the machine failed.
    fn is_of_the_tables(&self) -> bool {
        self.causes().any(|cause| cause.is::<StoreError>() || cause.is::<std::io::Error>() || cause.is::<parquet::errors::ParquetError>())
    }

    fn causes(&self) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
        std::iter::successors(Some(self as &(dyn std::error::Error + 'static)), |error| error.source())
    }

    /// Whether a file has gone since the snapshot, so that asking again on a new view helps.
    pub fn is_vanished_file(&self) -> bool {
        ameles_store::is_vanished_file(self)
    }

    /// The error for a log: without what the user typed, which may be an identifier.
    pub fn for_log(&self) -> String {
        match self {
            Self::Refused { rule, .. } => format!("refused by the rule `{rule}`"),
            Self::Engine(_) if self.is_callers_fault() => "the statement cannot be planned or run".to_owned(),
            // The engine quotes the statement; what our tables say does not.
            Self::Engine(_) => match self.causes().find_map(|cause| cause.downcast_ref::<StoreError>()) {
                Some(error) => format!("the tables cannot be read: {error}"),
                None => "the engine failed on a statement".to_owned(),
            },
            Self::UnknownMetric { .. } => "no such metric".to_owned(),
            Self::UnknownDimension { .. } => "no such dimension".to_owned(),
            Self::BadFilter(_) => "a filter that cannot be read".to_owned(),
            Self::BadRequest(_) | Self::Calendar(_) => "options that do not fit".to_owned(),
            other => other.to_string(),
        }
    }

    pub(crate) fn refused(rule: &'static str, place: impl Into<String>) -> Self {
        Self::Refused { rule, place: place.into() }
    }
}
