//! Names of data files: they tell where a file came from, whatever becomes of the log.
//!
//! - `month=2018-07-01/e-{lease}-{batch}-{part}.parquet`: one batch's own run of
//!   `events` (`a` activity, `l` links, `d` devices, `q` quarantine). A run of
//!   `events` also says which tables its roll-up has rows in, as in
//!   `e-{lease}-{batch}-{part}-ald.parquet`: so a roll-up that never came to pass
//!   shows without reading the rows.
//! - `month=2018-07-01/s-{generation}-{part}-{keys}.parquet`: settled.
//!   A file that an erasure has spliced keeps all of that and has a revision besides:
//!   `s-{generation}-{part}-{keys}-{revision}.parquet`.
//! - `month=2018-07-01/m-{generation}-{tier}-{part}.parquet`: several runs that were
//!   neighbours in the order of their commits, merged into one that stands in their place.
//!
//! No name is ever used twice: readers cache by name.

use ameles_core::{Day, Month};
use ameles_schemas::Table;

/// What a settled run's event keys are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keys {
    /// As they came: the month was open.
    Kept,
    /// Dropped: the month had closed.
    Dropped,
    /// The month was reopened: rows without a key were there when it closed.
    Mixed,
}

/// What a file's name tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// A batch's own run.
    Run { lease: String, batch: u64, part: u32 },
    /// Settled.
    Settled { generation: String, part: u32, keys: Keys },
    /// Several runs merged; the tier is one more than theirs, and a batch's own run has tier 0.
    Merged { generation: String, tier: u32, part: u32 },
}

/// What a file's rows come from: in the tables that are rolled up from `events` a file belongs to the run of `events` of the same source.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Source<'a> {
    Batch(&'a str, u64),
    Generation(&'a str),
}

impl Origin {
    pub(crate) fn source(&self) -> Source<'_> {
        match self {
            Self::Run { lease, batch, .. } => Source::Batch(lease, *batch),
            Self::Settled { generation, .. } | Self::Merged { generation, .. } => Source::Generation(generation),
        }
    }
}

/// A file's month and origin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FileName {
    pub(crate) month: Month,
    pub(crate) origin: Origin,
    /// Tables that the batch's roll-up has rows in (`events` only).
    pub(crate) rolled_up: Vec<Table>,
}

const fn letter(table: Table) -> char {
    match table {
        Table::Events => 'e',
        Table::Activity => 'a',
        Table::Links => 'l',
        Table::Devices => 'd',
        Table::Quarantine => 'q',
    }
}

/// `2018-07-01`: the partition's value.
pub(crate) fn partition_value(month: Month) -> String {
    month.first_day().to_string()
}

/// The folder of a month in its table.
pub(crate) fn partition_folder(month: Month) -> String {
    format!("month={}", partition_value(month))
}

pub(crate) fn run_path(table: Table, month: Month, lease: &str, batch: u64, part: u32, rolled_up: &[Table]) -> String {
    let mut path = format!("{}/{}-{lease}-{batch}-{part}", partition_folder(month), letter(table));
    if table == Table::Events {
        path.push('-');
        path.extend(rolled_up.iter().map(|table| letter(*table)));
    }
    path.push_str(".parquet");
    path
}

const fn keys_letter(keys: Keys) -> char {
    match keys {
        Keys::Kept => 'k',
        Keys::Dropped => 'c',
        Keys::Mixed => 'r',
    }
}

pub(crate) fn settled_path(month: Month, generation: &str, part: u32, keys: Keys) -> String {
    format!("{}/s-{generation}-{part}-{}.parquet", partition_folder(month), keys_letter(keys))
}

/// A file that takes the place of a settled one.
pub(crate) fn spliced_path(month: Month, generation: &str, part: u32, keys: Keys, revision: &str) -> String {
    format!("{}/s-{generation}-{part}-{}-{revision}.parquet", partition_folder(month), keys_letter(keys))
}

/// Whether a spliced file is what took the place of another: both are the same part of one settled run.
pub fn takes_the_place_of(new: &str, old: &str) -> bool {
    match (parse(new), parse(old)) {
        (Some(new), Some(old)) => new == old && matches!(new.origin, Origin::Settled { .. }),
        _ => false,
    }
}

pub(crate) fn merged_path(month: Month, generation: &str, tier: u32, part: u32) -> String {
    format!("{}/m-{generation}-{tier}-{part}.parquet", partition_folder(month))
}

/// Reads a path relative to its table; `None` for a file that is not ours.
pub(crate) fn parse(path: &str) -> Option<FileName> {
    let (folder, name) = path.split_once('/')?;
    let first = folder.strip_prefix("month=")?.parse::<Day>().ok()?;
    let month = first.month();
    let mut parts = name.strip_suffix(".parquet")?.split('-');
    let kind = parts.next()?;
    let (origin, rolled_up) = match kind {
        "s" => {
            let generation = parts.next()?.to_owned();
            let part = parts.next()?.parse().ok()?;
            let keys = match parts.next()? {
                "k" => Keys::Kept,
                "c" => Keys::Dropped,
                "r" => Keys::Mixed,
                _ => return None,
            };
            if parts.next().is_some_and(|revision| revision.is_empty() || !revision.bytes().all(|byte| byte.is_ascii_hexdigit())) {
                return None;
            }
            (Origin::Settled { generation, part, keys }, Vec::new())
        }
        "m" => {
            let generation = parts.next()?.to_owned();
            let tier = parts.next()?.parse().ok()?;
            let part = parts.next()?.parse().ok()?;
            (Origin::Merged { generation, tier, part }, Vec::new())
        }
        "e" | "a" | "l" | "d" | "q" => {
            let lease = parts.next()?.to_owned();
            let batch = parts.next()?.parse().ok()?;
            let part = parts.next()?.parse().ok()?;
            let letters = if kind == "e" { parts.next()? } else { "" };
            let rolled_up = Table::ALL.into_iter().filter(|table| letters.contains(letter(*table))).collect();
            (Origin::Run { lease, batch, part }, rolled_up)
        }
        _ => return None,
    };
    (parts.next().is_none() && first == month.first_day()).then_some(FileName { month, origin, rolled_up })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_come_back_as_they_were_made() {
        let month: Month = "2018-07".parse().unwrap();
        let run = run_path(Table::Events, month, "00ff00ff00ff", 7, 1, &[Table::Activity, Table::Devices]);
        assert_eq!(run, "month=2018-07-01/e-00ff00ff00ff-7-1-ad.parquet");
        let name = parse(&run).unwrap();
        assert_eq!(name.rolled_up, [Table::Activity, Table::Devices]);
        assert_eq!(name.origin, Origin::Run { lease: "00ff00ff00ff".into(), batch: 7, part: 1 });
        assert_eq!(parse(&run_path(Table::Links, month, "ab", 1, 0, &[])).unwrap().month, month);
        for keys in [Keys::Kept, Keys::Dropped, Keys::Mixed] {
            let name = parse(&settled_path(month, "ab01", 3, keys)).unwrap();
            assert_eq!(name.origin, Origin::Settled { generation: "ab01".into(), part: 3, keys });
            let spliced = spliced_path(month, "ab01", 3, keys, "ab09");
            assert_eq!(parse(&spliced).unwrap(), name);
            assert!(takes_the_place_of(&spliced, &settled_path(month, "ab01", 3, keys)));
            assert!(!takes_the_place_of(&spliced, &settled_path(month, "ab01", 4, keys)));
        }
        let merged = parse(&merged_path(month, "ab02", 2, 5)).unwrap();
        assert_eq!(merged.origin, Origin::Merged { generation: "ab02".into(), tier: 2, part: 5 });
        assert_eq!(parse("month=2018-07-02/s-ab-0-k.parquet"), None);
        assert_eq!(parse("month=2018-07-01/s-ab-0-k-.parquet"), None);
        assert_eq!(parse("month=2018-07-01/s-ab-0-k-09-09.parquet"), None);
        assert_eq!(parse("part-0001.parquet"), None);
    }
}
