//! Rules of what callers hand in. An error never repeats the value.

use crate::LedgerError;

fn check(right: bool, what: &'static str, rule: &'static str) -> Result<(), LedgerError> {
    if right { Ok(()) } else { Err(LedgerError::Invalid { what, rule }) }
}

fn within(text: &str, max: usize, allowed: impl Fn(char) -> bool) -> bool {
    !text.is_empty() && text.chars().count() <= max && text.chars().all(allowed)
}

pub(crate) fn reference(text: &str) -> Result<(), LedgerError> {
    check(within(text, 64, |c| c.is_ascii_alphanumeric() || c == '-'), "the reference", "[A-Za-z0-9-]{1,64}")
}

pub(crate) fn regulation(text: &str) -> Result<(), LedgerError> {
    check(within(text, 32, |c| c.is_ascii_alphanumeric() || "._-".contains(c)), "the regulation", "[A-Za-z0-9._-]{1,32}")
}

pub(crate) fn actor(text: &str) -> Result<(), LedgerError> {
    check(within(text, 80, |c| !c.is_control()), "the actor", "1 to 80 characters, no control characters")
}

pub(crate) fn action(text: &str) -> Result<(), LedgerError> {
    check(within(text, 64, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "the action", "[a-z0-9_]{1,64}")
}

pub(crate) fn reason(text: &str) -> Result<(), LedgerError> {
    check(within(text, 200, |c| !c.is_control()) && !text.trim().is_empty(), "the reason", "1 to 200 characters in one line")
}

pub(crate) fn step(text: &str) -> Result<(), LedgerError> {
    check(within(text, 64, |c| !c.is_control()), "the step", "1 to 64 characters, no control characters")
}

pub(crate) fn token_name(text: &str) -> Result<(), LedgerError> {
    check(within(text, 64, |c| c.is_ascii_alphanumeric() || "._-".contains(c)), "the token's name", "[A-Za-z0-9._-]{1,64}")
}

pub(crate) fn partner(text: &str) -> Result<(), LedgerError> {
    check(within(text, 64, |c| !c.is_control()), "the partner", "1 to 64 characters, no control characters")
}

pub(crate) fn report_name(text: &str) -> Result<(), LedgerError> {
    check(within(text, 64, |c| c.is_ascii_alphanumeric() || "._-".contains(c)), "the report's name", "[A-Za-z0-9._-]{1,64}")
}

pub(crate) fn setting_key(text: &str) -> Result<(), LedgerError> {
    check(within(text, 128, |c| !c.is_control()), "the setting's key", "1 to 128 characters, no control characters")
}

pub(crate) fn setting_value(text: &str) -> Result<(), LedgerError> {
    check(text.len() <= 1 << 20, "the setting's value", "at most 1 MiB")
}

pub(crate) fn detail(text: &str) -> Result<(), LedgerError> {
    check(text.len() <= 16 << 10, "the detail", "at most 16 KiB of JSON")
}

pub(crate) fn stored_json(text: &str) -> Result<(), LedgerError> {
    check(text.len() <= 16 << 20, "the JSON to be stored", "at most 16 MiB")
}

pub(crate) fn terms(policy: Option<&str>, purposes: &[String]) -> Result<(), LedgerError> {
    let policy = policy.is_none_or(|policy| within(policy, 64, |c| !c.is_control()));
    let purposes = purposes.len() <= 32 && purposes.iter().all(|purpose| within(purpose, 64, |c| !c.is_control()));
    check(policy && purposes, "the consent", "a policy version and at most 32 purposes of 1 to 64 characters")
}

pub(crate) fn that(right: bool, what: &'static str, rule: &'static str) -> Result<(), LedgerError> {
    check(right, what, rule)
}
