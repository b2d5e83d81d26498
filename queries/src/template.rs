//! The query files: named statements with pieces that the request fills in.
//!
//! Only four kinds of piece exist: columns that the contract declares (quoted),
//! months and numbers that this crate writes, and `$n` for the values of
//! filters, which DataFusion binds. Nothing that a user typed becomes SQL text.

use ameles_core::{Day, Month};
use datafusion::common::ScalarValue;

use crate::{Filter, QueryError};

/// A file of `queries/`.
#[derive(Clone, Copy, Debug)]
pub struct QueryFile {
    /// Its name.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

macro_rules! files {
    ($($constant:ident = $file:literal),* $(,)?) => {
        $(pub const $constant: QueryFile = QueryFile { name: $file, text: include_str!(concat!("../", $file)) };)*
        /// All files.
        #[cfg(test)]
        pub const ALL: &[QueryFile] = &[$($constant),*];
    };
}

files! {
    ACTIVATIONS = "activations.sql",
    INSTALLED_BASE = "installed_base.sql",
    INSTALLED_BASE_ACTIVE_IN = "installed_base_active_in.sql",
    DAU = "dau.sql",
    DAU_USERS = "dau_users.sql",
    ROLLING = "rolling.sql",
    ROLLING_USERS = "rolling_users.sql",
    STICKINESS = "stickiness.sql",
    STICKINESS_USERS = "stickiness_users.sql",
    MAU = "mau.sql",
    MAU_USERS = "mau_users.sql",
    MEASURE = "measure.sql",
    RETENTION = "retention.sql",
    GROWTH = "growth.sql",
}

/// What a request puts into a statement.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    /// Validated dimensions, in the order of the answer.
    pub by: &'a [String],
    /// On validated dimensions.
    pub filters: &'a [Filter],
    /// First and last month that rows are read for.
    pub months: (Month, Month),
    /// All months of the data.
    pub data_months: (Month, Month),
    /// Window of rolling metrics, in days.
    pub window: u32,
    /// `--active-in`, in days.
    pub active_in: u32,
    /// The measure's column.
    pub measure: &'a str,
    /// The smallest group.
    pub k: u32,
    /// Whether there is a table `links`.
    pub has_user: bool,
}

/// A statement ready to run, with the values of its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// The text.
    pub sql: String,
    /// `$1` and on.
    pub parameters: Vec<ScalarValue>,
}

impl QueryFile {
    /// The statement of that name, filled in.
    pub fn statement(self, name: &str, pieces: &Pieces<'_>) -> Result<Statement, QueryError> {
        let marker = format!("-- statement: {name}");
        let lines = self.text.lines().skip_while(|line| *line != marker).skip(1).take_while(|line| !line.starts_with("-- statement:"));
        let mut template = String::new();
        for line in lines.filter(|line| !line.starts_with("--")) {
            let (text, condition) = line.split_once(" -- if ").unwrap_or((line, ""));
            match condition {
                "user" if !pieces.has_user => continue,
                "" | "user" => {}
                _ => return Err(self.broken(format!("unknown condition {condition:?}"))),
            }
            template.push_str(text);
            template.push('\n');
        }
        if template.trim().is_empty() {
            return Err(self.broken(format!("no statement {name:?}")));
        }
        let mut parameters = Vec::new();
        let filter = filter_text(pieces.filters, &mut parameters);
        let sql = self.fill(&template, pieces, &filter)?;
        // Only a statement that has the filter has its parameters.
        let parameters = if template.contains("{filter}") { parameters } else { Vec::new() };
        Ok(Statement { sql, parameters })
    }

    fn fill(self, template: &str, pieces: &Pieces<'_>, filter: &str) -> Result<String, QueryError> {
        let mut sql = String::with_capacity(template.len() * 2);
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            let (piece, after) = after.split_once('}').ok_or_else(|| self.broken("an unclosed piece".to_owned()))?;
            sql.push_str(before);
            let each =
                |text: &dyn Fn(usize, &String) -> String| pieces.by.iter().enumerate().map(|(at, dim)| text(at, dim)).collect::<String>();
            let filled = match piece {
                "dims" => each(&|at, dim| format!("a.{} AS d{at}, ", quoted(dim))),
                "by" => each(&|_, dim| format!("a.{}, ", quoted(dim))),
                "d" => each(&|at, _| format!("d{at}, ")),
                "filter" => filter.to_owned(),
                "from" => date(pieces.months.0.first_day()),
                "to" => date(pieces.months.1.first_day()),
                "months" => months(pieces.data_months),
                "window" => pieces.window.to_string(),
                "active_in" => pieces.active_in.to_string(),
                "reach" => (pieces.active_in + 30).to_string(),
                "measure" => quoted(pieces.measure),
                "k" => pieces.k.to_string(),
                _ => return Err(self.broken(format!("unknown piece {piece:?}"))),
            };
            sql.push_str(&filled);
            rest = after;
        }
        sql.push_str(rest);
        Ok(sql)
    }

    fn broken(self, what: String) -> QueryError {
        QueryError::QueryFile { file: self.name, what }
    }
}

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

fn date(day: Day) -> String {
    format!("DATE '{day}'")
}

fn months((first, last): (Month, Month)) -> String {
    let each = (first.epoch_months()..=last.epoch_months()).map(Month::from_epoch_months);
    each.map(|month| format!("({})", date(month.first_day()))).collect::<Vec<_>>().join(", ")
}

fn filter_text(filters: &[Filter], parameters: &mut Vec<ScalarValue>) -> String {
    let mut text = String::new();
    for filter in filters {
        let column = format!("a.{}", quoted(&filter.dim));
        let values: Vec<String> = filter
            .values
            .iter()
            .map(|value| {
                parameters.push(ScalarValue::Utf8(Some(value.clone())));
                format!("${}", parameters.len())
            })
            .collect();
        let values = values.join(", ");
        text.push_str(&if filter.negate {
            format!(" AND ({column} IS NULL OR {column} NOT IN ({values}))")
        } else {
            format!(" AND {column} IN ({values})")
        });
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn pieces<'a>(by: &'a [String], filters: &'a [Filter]) -> Pieces<'a> {
        let months = (Month::from_epoch_months(582), Month::from_epoch_months(584));
        Pieces { by, filters, months, data_months: months, window: 7, active_in: 30, measure: "wakes", k: 10, has_user: true }
    }

    #[test]
    fn typed_text_never_becomes_sql() {
        let by = vec!["odd\"name".to_owned()];
        let filters = vec!["product!=x') OR 1=1 --,y".parse::<Filter>().unwrap()];
        let statement = DAU.statement("value", &pieces(&by, &filters)).unwrap();
        assert!(statement.sql.contains("a.\"odd\"\"name\" AS d0, "));
        assert!(statement.sql.contains("NOT IN ($1, $2)"));
        assert!(!statement.sql.contains("1=1"));
        assert_eq!(statement.parameters.len(), 2);
    }

    #[test]
    fn every_file_says_what_it_is_and_fills() {
        for file in ALL {
            for key in ["question", "grain", "inputs", "owner"] {
                assert!(file.text.lines().any(|line| line.starts_with(&format!("-- {key}: "))), "{}: {key}", file.name);
            }
            for name in ["value", "people"] {
                for has_user in [true, false] {
                    let by = vec!["country".to_owned()];
                    let statement = file.statement(name, &Pieces { has_user, ..pieces(&by, &[]) }).unwrap();
                    assert!(!statement.sql.contains(['{', '}']), "{}", file.name);
                    assert!(has_user || file.name.ends_with("_users.sql") || !statement.sql.contains("links"), "{}", file.name);
                }
            }
        }
    }
}
