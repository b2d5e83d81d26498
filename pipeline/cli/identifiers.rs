//! The refusal of identifiers on the command line.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::failure::{Failure, USAGE};

const IDENTIFIER_HINT: &str = "an identifier does not belong on the command line, where `ps` and the shell's history keep it: \
     write --device - or --user - and give it on standard input, or use --file";

/// Refuses what could be an identifier among the arguments of `erase submit`
/// and `erase verify`, before a parser could echo it.
pub fn refuse_identifiers(args: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let args: Vec<String> = args.into_iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let Some(at) = args.iter().position(|arg| arg == "submit" || arg == "verify") else { return Ok(()) };
    if !args[..at].iter().any(|arg| arg == "erase") {
        return Ok(());
    }
    let mut rest = args[at + 1..].iter();
    while let Some(arg) = rest.next() {
        let given = match arg.split_once('=') {
            Some(("--device" | "--user", value)) => Some(value),
            _ if arg == "--device" || arg == "--user" => rest.next().map(String::as_str),
            _ if arg.starts_with('-') => {
                if takes_value(arg) {
                    rest.next();
                }
                None
            }
            _ => Some(arg.as_str()),
        };
        if given.is_some_and(|value| value != "-") {
            return Err(Failure::misuse(IDENTIFIER_HINT));
        }
    }
    Ok(())
}

fn takes_value(option: &str) -> bool {
    !option.contains('=') && matches!(option, "--file" | "--regulation" | "--received" | "--reference" | "--home")
}

/// Prints a usage error; under `erase` without what was typed.
#[expect(clippy::print_stderr, reason = "the place where errors reach the user")]
pub fn usage_error(error: &clap::Error, args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let echo_is_safe = !error.use_stderr() || !args.into_iter().any(|arg| arg == "erase");
    if echo_is_safe {
        error.exit()
    }
    eprintln!("error: {}; see `ameles erase --help`\n{IDENTIFIER_HINT}", error.kind());
    ExitCode::from(USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> bool {
        refuse_identifiers(line.split(' ').map(OsString::from)).is_err()
    }

    #[test]
    fn identifiers_among_the_arguments_are_refused() {
        assert!(refused("ameles erase submit --device 800000002492"));
        assert!(refused("ameles erase submit --device=800000002492"));
        assert!(refused("ameles --home x erase submit --user u1 --regulation gdpr"));
        assert!(refused("ameles erase submit 800000002492"));
        assert!(refused("ameles erase verify --device 1"));
        assert!(!refused("ameles erase submit --device -"));
        assert!(!refused("ameles erase submit --reference CASE-1 --file x.csv --home y"));
        assert!(!refused("ameles erase status 7b1c"));
        assert!(!refused("ameles ingest submit.ndjson"));
    }
}
