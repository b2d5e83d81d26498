//! Types and checks of the declared fields.

use ameles_core::Reason;
use ameles_schemas::{Contract, FieldKind, Role, Transform};
use hashbrown::HashSet;

use super::{Decoder, Rejection, Scratch, Slot, parse_time};

/// Texts remembered as valid, per field.
const MEMO_TEXTS_MAX: usize = 4096;
/// A whole number in an `f64` is exact below this.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

/// Which fields are worth remembering valid texts for.
#[derive(Debug)]
pub(super) struct Rules {
    /// Kept texts with checks that cost: their values are few and no identifiers.
    memoised: Vec<bool>,
    /// Has any check on its text at all.
    checked: Vec<bool>,
}

/// Texts found valid before, by field.
#[derive(Debug, Default)]
pub(super) struct Memo {
    valid: Vec<HashSet<Box<str>, foldhash::fast::RandomState>>,
}

impl Rules {
    pub(super) fn new(contract: &Contract) -> Self {
        let fields = contract.fields();
        let costly = |at: &usize| {
            let checks = &fields[*at].checks;
            checks.pattern.is_some() || checks.choices.as_ref().is_some_and(|choices| choices.len() > 8)
        };
        let kept =
            |at: &usize| fields[*at].transform == Transform::Keep && matches!(fields[*at].role, None | Some(Role::Country | Role::Type));
        let all = 0..fields.len();
        let checked = |at: usize| {
            let checks = &fields[at].checks;
            checks.pattern.is_some() || checks.choices.is_some() || checks.min_length.is_some() || checks.max_length.is_some()
        };
        Self { memoised: all.clone().map(|at| costly(&at) && kept(&at)).collect(), checked: all.map(checked).collect() }
    }
}

impl Decoder {
    /// Checks every declared field in the contract's order, and turns times into UTC.
    pub(super) fn validate(&self, scratch: &mut Scratch, line: &str) -> Result<(), Rejection> {
        for at in 0..self.contract.fields().len() {
            self.validate_field(scratch, line, at)?;
        }
        Ok(())
    }

    /// Checks one field.
    pub(super) fn validate_field(&self, scratch: &mut Scratch, line: &str, at: usize) -> Result<(), Rejection> {
        let field = &self.contract.fields()[at];
        if field.kind == FieldKind::Any {
            return Ok(());
        }
        let wrong_type = Err(Rejection::of(Reason::WrongType, at));
        let check = |ok: bool, reason| if ok { Ok(()) } else { Err(Rejection::of(reason, at)) };
        match (scratch.slots[at], field.kind) {
            (Slot::Missing, _) => {
                let around_is_there = self.plan.parents[at].is_none_or(|parent| scratch.slots[parent] == Slot::Object);
                check(!field.required || !around_is_there, Reason::MissingField)
            }
            (Slot::Null, _) if field.nullable => Ok(()),
            (Slot::Null, _) => check(false, if field.required { Reason::MissingField } else { Reason::WrongType }),
            (Slot::Text(text), FieldKind::String) => {
                if !self.rules.checked[at] {
                    return Ok(());
                }
                let value = if text.unescaped { scratch.text.as_str() } else { line };
                let value = value.get(text.start as usize..text.end as usize).unwrap_or_default();
                let ok = if self.rules.memoised[at] {
                    scratch.memo.text_ok(at, value, |value| field.checks.text_ok(value))
                } else {
                    field.checks.text_ok(value)
                };
                if ok {
                    return Ok(());
                }
                let listed = |choices: &Vec<String>| choices.iter().any(|choice| choice == value);
                let unknown_type = field.role == Some(Role::Type) && !field.checks.choices.as_ref().is_none_or(listed);
                check(false, if unknown_type { Reason::UnknownType } else { Reason::InvalidValue })
            }
            (Slot::Text(text), FieldKind::Timestamp) => {
                let value = if text.unescaped { scratch.text.as_str() } else { line };
                let time = parse_time(value.get(text.start as usize..text.end as usize).unwrap_or_default());
                let time = time.ok_or(Rejection::of(Reason::InvalidValue, at))?;
                scratch.slots[at] = Slot::Time(time);
                Ok(())
            }
            (Slot::Integer(value), FieldKind::Integer | FieldKind::Number) => {
                check(field.checks.number_ok(value as f64), Reason::InvalidValue)
            }
            (Slot::Float(value), FieldKind::Number) => check(value.is_finite() && field.checks.number_ok(value), Reason::InvalidValue),
            (Slot::Float(value), FieldKind::Integer) => {
                // JSON Schema: a number without fraction is an integer, as 1.0 or 1e2.
                if value.is_finite() && value.fract() != 0.0 {
                    return wrong_type;
                }
                check(value.abs() < EXACT_BELOW && field.checks.number_ok(value), Reason::InvalidValue)?;
                scratch.slots[at] = Slot::Integer(value as i64);
                Ok(())
            }
            (Slot::Bool(_), FieldKind::Boolean) | (Slot::Object, FieldKind::Object) => Ok(()),
            (Slot::List(start, end), FieldKind::Array) => {
                let items = &scratch.items[start as usize..end as usize];
                let item_ok = |item: &super::Text| {
                    let from = if item.unescaped { scratch.text.as_str() } else { line };
                    let value = from.get(item.start as usize..item.end as usize).unwrap_or_default();
                    field.checks.items.as_ref().is_none_or(|checks| checks.text_ok(value))
                };
                let ok = field.checks.items_ok(items.len()) && items.iter().all(item_ok);
                check(ok, Reason::InvalidValue)
            }
            _ => wrong_type,
        }
    }

    /// Whether one field of a rejected event is valid by itself.
    pub(crate) fn field_ok(&self, scratch: &mut Scratch, line: &[u8], at: usize) -> bool {
        let already = matches!(scratch.slots.get(at), Some(Slot::Time(_)));
        scratch.read && (already || std::str::from_utf8(line).is_ok_and(|line| self.validate_field(scratch, line, at).is_ok()))
    }
}

impl Memo {
    fn text_ok(&mut self, at: usize, value: &str, check: impl FnOnce(&str) -> bool) -> bool {
        if self.valid.len() <= at {
            self.valid.resize_with(at + 1, HashSet::default);
        }
        let valid = &mut self.valid[at];
        if valid.contains(value) {
            return true;
        }
        let ok = check(value);
        if ok && valid.len() < MEMO_TEXTS_MAX {
            valid.insert(value.into());
        }
        ok
    }
}
