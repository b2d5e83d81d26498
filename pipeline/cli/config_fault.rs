//! What is wrong with a value of `ameles.toml`, and in which line it stands.

use std::fmt;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value that cannot be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Section and key, with dots.
    key: String,
    /// What is wrong and what would be right.
    what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.what)
    }
}

impl Fault {
    pub fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self { key: key.into(), what: what.into() }
    }

    /// The error, with the place where the value stands: a line of the file, or a variable of the environment.
    pub fn at(self, file: &Path, text: &str, environment: &[(String, String)]) -> anyhow::Error {
        let variable = format!("AMELES__{}", self.key.replacen('.', "__", 1).to_ascii_uppercase());
        if environment.iter().any(|(name, _)| *name == variable) {
            return anyhow::anyhow!("{variable}: {self}");
        }
        match line_of(text, &self.key) {
            Some(line) => anyhow::anyhow!("{}, line {line}: {self}", file.display()),
            None => anyhow::anyhow!("{}: {self}", file.display()),
        }
    }
}

/// The line, from 1, in which a key stands; in a list of tables, the first of them that has it.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let start = place(document.get_ref(), key)?;
    Some(1 + text.get(..start)?.matches('\n').count())
}

fn place(table: &DeTable<'_>, key: &str) -> Option<usize> {
    for (name, value) in table.iter() {
        let name_of: &str = name.get_ref();
        if name_of == key {
            return Some(name.span().start);
        }
        // A key may have dots of its own, where it is quoted.
        let Some(rest) = key.strip_prefix(name_of).and_then(|rest| rest.strip_prefix('.')) else { continue };
        let inside = match value.get_ref() {
            DeValue::Table(table) => place(table, rest),
            DeValue::Array(tables) => tables.iter().map(Spanned::get_ref).find_map(|table| place(table.as_table()?, rest)),
            _ => None,
        };
        if inside.is_some() {
            return inside;
        }
    }
    None
}
