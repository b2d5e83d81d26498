//! Reads `policy.toml`, keeping the line of everything.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Collection, DEFAULT_REGIME, OnWithdrawal, Policy, PolicyError, PolicyFault, Regime, code_of};
use crate::nearest::nearest;

const TOP_KEYS: [&str; 3] = ["k", "regimes", "countries"];
const REGIME_KEYS: [&str; 9] =
    ["collection", "legal_basis", "min_policy", "purposes", "retention_days", "erasure_months", "extension_months", "on_withdrawal", "k"];
const K_MAX: u32 = 1_000_000;
const RETENTION_DAYS_MAX: u32 = 36_525;
const MONTHS_MAX: u32 = 12;
const BYTES_MAX: usize = 1 << 20;

struct Reader<'t> {
    text: &'t str,
    faults: Vec<PolicyFault>,
}

/// A table of the file, with where it stands and what it is called.
struct Section<'t> {
    path: String,
    span: Range<usize>,
    table: &'t DeTable<'t>,
}

pub(super) fn policy(text: &str) -> Result<Policy, PolicyError> {
    let mut reader = Reader { text, faults: Vec::new() };
    if text.len() > BYTES_MAX {
        reader.fault(&(0..0), "policy", format!("is larger than {BYTES_MAX} bytes"), "shorten it");
        return Err(PolicyError { faults: reader.faults });
    }
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            reader.fault(&span, "policy", format!("is not TOML: {}", error.message()), "correct it there");
            return Err(PolicyError { faults: reader.faults });
        }
    };
    let top = Section { path: String::new(), span: 0..0, table: document.get_ref() };
    reader.unknown_keys(&top, &TOP_KEYS);
    let k = reader.number(&top, "k", 1..=K_MAX);
    let mut regimes = reader.regimes(&top);
    let countries = reader.countries(&top, &regimes);
    let default = regimes.remove(DEFAULT_REGIME).flatten();
    if default.is_none() && reader.faults.is_empty() {
        let reason = "is missing: it holds for countries that are missing or not listed".to_owned();
        reader.fault(&(0..0), "regimes.gdpr", reason, "add [regimes.gdpr]");
    }
    let others: Vec<Regime> = regimes.into_values().flatten().collect();
    let place = |name: &String| others.iter().position(|regime| regime.name == *name);
    let countries = countries.iter().filter_map(|(code, name)| Some((code_of(code)?, place(name)?))).collect();
    reader.faults.sort_by_key(|fault| fault.line);
    match default {
        Some(default) if reader.faults.is_empty() => Ok(Policy { k, default, others, countries }),
        _ => Err(PolicyError { faults: reader.faults }),
    }
}

impl Reader<'_> {
    fn fault(&mut self, span: &Range<usize>, key: &str, reason: impl Into<String>, remedy: impl Into<String>) {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        self.faults.push(PolicyFault { line, key: key.to_owned(), reason: reason.into(), remedy: remedy.into() });
    }

    fn unknown_keys(&mut self, section: &Section<'_>, known: &[&'static str]) {
        for (key, _) in section.table.iter() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let remedy = match (name, nearest(name, known)) {
                ("retention", _) if section.path.is_empty() => {
                    "days stand in a regime (retention_days), `retention.enforce` in ameles.toml".to_owned()
                }
                (_, Some(known)) => format!("did you mean `{known}`"),
                (_, None) => format!("known are {}", known.join(", ")),
            };
            self.fault(&key.span(), &section.key(name), "unknown key", remedy);
        }
    }

    fn regimes(&mut self, top: &Section<'_>) -> BTreeMap<String, Option<Regime>> {
        let mut regimes = BTreeMap::new();
        let Some(section) = self.section(top, "regimes") else { return regimes };
        for (name, value) in section.table.iter() {
            let key = section.key(name.get_ref());
            let regime = match value.get_ref().as_table() {
                Some(table) => self.regime(name.get_ref(), &Section { path: key, span: name.span(), table }),
                None => {
                    self.fault(&value.span(), &key, "is not a table", format!("write [{key}]"));
                    None
                }
            };
            regimes.insert(name.get_ref().to_string(), regime);
        }
        regimes
    }

    /// A regime; `None` where a fault has been told.
    fn regime(&mut self, name: &str, section: &Section<'_>) -> Option<Regime> {
        let faults_before = self.faults.len();
        self.unknown_keys(section, &REGIME_KEYS);
        let collection = self.choice(section, "collection", &[("opt_in", Collection::OptIn), ("opt_out", Collection::OptOut)]);
        let on_withdrawal = self.choice(section, "on_withdrawal", &[("stop", OnWithdrawal::Stop), ("erase", OnWithdrawal::Erase)]);
        let legal_basis = self.text(section, "legal_basis");
        if legal_basis.is_none() && !section.table.contains_key("legal_basis") {
            self.fault(&section.span, &section.key("legal_basis"), "is missing", "say on what basis, in words");
        }
        let erasure_months = self.number(section, "erasure_months", 1..=MONTHS_MAX);
        if erasure_months.is_none() && !section.table.contains_key("erasure_months") {
            self.fault(&section.span, &section.key("erasure_months"), "is missing", "write months, such as 1");
        }
        let regime = Regime {
            name: name.to_owned(),
            collection: collection.unwrap_or(Collection::OptIn),
            legal_basis: legal_basis.unwrap_or_default(),
            min_policy: self.text(section, "min_policy"),
            purposes: self.texts(section, "purposes"),
            retention_days: self.number(section, "retention_days", 1..=RETENTION_DAYS_MAX),
            erasure_months: erasure_months.unwrap_or(1),
            extension_months: self.number(section, "extension_months", 0..=MONTHS_MAX).unwrap_or(0),
            on_withdrawal: on_withdrawal.unwrap_or(OnWithdrawal::Stop),
            k: self.number(section, "k", 1..=K_MAX),
        };
        (self.faults.len() == faults_before).then_some(regime)
    }

    fn countries(&mut self, top: &Section<'_>, regimes: &BTreeMap<String, Option<Regime>>) -> BTreeMap<String, String> {
        let mut countries = BTreeMap::new();
        if !top.table.contains_key("countries") {
            return countries;
        }
        let Some(section) = self.section(top, "countries") else { return countries };
        for (code, value) in section.table.iter() {
            let name: &str = code.get_ref();
            let key = section.key(name);
            if name.len() != 2 || !name.bytes().all(|byte| byte.is_ascii_uppercase()) {
                let remedy = "write ISO 3166-1 alpha-2 in capitals, such as DE";
                self.fault(&code.span(), &key, "is no country code", remedy);
            }
            match value.get_ref().as_str() {
                Some(regime) if regimes.contains_key(regime) => {
                    countries.insert(name.to_owned(), regime.to_owned());
                }
                Some(regime) => {
                    let known: Vec<&str> = regimes.keys().map(String::as_str).collect();
                    let remedy = match nearest(regime, &known) {
                        Some(known) => format!("did you mean `{known}`"),
                        None => format!("known are {}", known.join(", ")),
                    };
                    self.fault(&value.span(), &key, format!("`{regime}` is no regime of this file"), remedy);
                }
                None => self.fault(&value.span(), &key, "is not a string", "write the name of a regime"),
            }
        }
        countries
    }

    fn section<'t>(&mut self, within: &Section<'t>, name: &str) -> Option<Section<'t>> {
        let path = within.key(name);
        let Some(value) = within.table.get(name) else {
            self.fault(&within.span, &path, "is missing", format!("add [{path}]"));
            return None;
        };
        match value.get_ref().as_table() {
            Some(table) => Some(Section { path, span: value.span(), table }),
            None => {
                self.fault(&value.span(), &path, "is not a table", format!("write [{path}]"));
                None
            }
        }
    }

    fn choice<T: Copy>(&mut self, section: &Section<'_>, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let remedy = format!("write one of {}", names.join(", "));
        let Some(value) = section.table.get(name) else {
            self.fault(&section.span, &section.key(name), "is missing", remedy);
            return None;
        };
        let chosen = value.get_ref().as_str();
        let found = choices.iter().find(|(name, _)| chosen == Some(*name)).map(|(_, choice)| *choice);
        if found.is_none() {
            self.fault(&value.span(), &section.key(name), format!("is {}", shown(value)), remedy);
        }
        found
    }

    fn number(&mut self, section: &Section<'_>, name: &str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let value = section.table.get(name)?;
        let number = match value.get_ref() {
            DeValue::Integer(integer) => u32::from_str_radix(integer.as_str(), integer.radix()).ok(),
            _ => None,
        };
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let remedy = format!("write a whole number from {} to {}", range.start(), range.end());
            self.fault(&value.span(), &section.key(name), format!("is {}", shown(value)), remedy);
        }
        number
    }

    fn text(&mut self, section: &Section<'_>, name: &str) -> Option<String> {
        let value = section.table.get(name)?;
        match value.get_ref().as_str().filter(|text| !text.trim().is_empty()) {
            Some(text) => Some(text.to_owned()),
            None => {
                let remedy = "write a string in quotes that is not empty";
                self.fault(&value.span(), &section.key(name), format!("is {}", shown(value)), remedy);
                None
            }
        }
    }

    fn texts(&mut self, section: &Section<'_>, name: &str) -> Vec<String> {
        let Some(value) = section.table.get(name) else { return Vec::new() };
        let elements = value
            .get_ref()
            .as_array()
            .map(|array| array.iter().map(|element| element.get_ref().as_str().map(str::to_owned)).collect::<Option<Vec<_>>>());
        match elements {
            Some(Some(texts)) => texts,
            _ => {
                let remedy = "write a list of strings, such as [\"analytics\"]";
                self.fault(&value.span(), &section.key(name), format!("is {}", shown(value)), remedy);
                Vec::new()
            }
        }
    }
}

impl Section<'_> {
    fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// The value that was wrong, or its type where it is long.
fn shown(value: &Spanned<DeValue<'_>>) -> String {
    match value.get_ref() {
        DeValue::String(text) if text.chars().count() <= 40 => format!("`{text}`"),
        DeValue::Integer(integer) => format!("`{}`", integer.as_str()),
        DeValue::Boolean(boolean) => format!("`{boolean}`"),
        other => format!("of type {}", other.type_str()),
    }
}
