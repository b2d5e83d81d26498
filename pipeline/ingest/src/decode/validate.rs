//! Types and checks of the declared fields.

use ameles_core::Reason;
use ameles_schemas::{Checks, Contract, Field, FieldKind, Role, Transform};

use super::literal::short_text;
use super::{Decoder, Known, Rejection, Scratch, Slot, parse_time};

/// A whole number in an `f64` is exact below this.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

/// Fields whose validity is noted while the line is read.
pub(super) const QUICK_FIELDS: usize = u64::BITS as usize;

/// How a field's value is found valid while the line is read. A value not found
/// so is not wrong: [`Decoder::validate_field`] decides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quick {
    pub(super) field: usize,
    pub(super) nullable: bool,
    pub(super) text: TextRule,
    /// Numbers between, both included, are valid.
    numbers: Option<(f64, f64)>,
    /// So many elements are valid, if none is longer than so many bytes.
    items: Option<(usize, usize, usize)>,
}

/// How a text is found valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextRule {
    /// Only by looking at it.
    Look,
    /// By having met it before: of a kept field, whose values are few and no identifiers.
    Memo,
    /// By so many bytes, whatever they say.
    Bytes { least: usize, most: usize },
    /// By being a time.
    Time,
}

impl Quick {
    /// Finds nothing valid.
    pub(super) const NONE: Self = Self { field: 0, nullable: false, text: TextRule::Look, numbers: None, items: None };

    pub(super) fn new(at: usize, field: &Field) -> Self {
        let (checks, kind) = (&field.checks, field.kind);
        let numeric = matches!(kind, FieldKind::Integer | FieldKind::Number);
        let inclusive = checks.numbers.is_none() && checks.above.is_none() && checks.below.is_none();
        let range = (checks.minimum.unwrap_or(f64::NEG_INFINITY), checks.maximum.unwrap_or(f64::INFINITY));
        let kept = field.transform == Transform::Keep && matches!(field.role, None | Some(Role::Country | Role::Type));
        let of_items = checks.items.as_deref().map_or(Some((0, usize::MAX)), text_bytes).filter(|(least, _)| *least == 0);
        let items = of_items.map(|(_, most)| (checks.min_items.unwrap_or(0), checks.max_items.unwrap_or(usize::MAX), most));
        let text = match kind {
            FieldKind::String if kept => TextRule::Memo,
            FieldKind::String => text_bytes(checks).map_or(TextRule::Look, |(least, most)| TextRule::Bytes { least, most }),
            FieldKind::Timestamp => TextRule::Time,
            _ => TextRule::Look,
        };
        Self {
            field: at,
            nullable: field.nullable,
            text,
            numbers: (numeric && inclusive).then_some(range),
            items: items.filter(|_| kind == FieldKind::Array),
        }
    }

    #[inline(always)]
    pub(super) fn number_ok(&self, value: i64) -> bool {
        let value = value as f64;
        self.numbers.is_some_and(|(least, most)| value >= least && value <= most)
    }
    #[inline(always)]
    pub(super) fn items_ok(&self, items: usize, longest: usize) -> bool {
        self.items.is_some_and(|(least, most, bytes)| items >= least && items <= most && longest <= bytes)
    }
}

/// Lengths in bytes that need no look at the text: it has no more characters
/// than bytes, and at least a quarter as many.
fn text_bytes(checks: &Checks) -> Option<(usize, usize)> {
    let any = checks.pattern.is_none() && checks.choices.is_none();
    any.then(|| (checks.min_length.unwrap_or(0).saturating_mul(4), checks.max_length.unwrap_or(usize::MAX)))
}

/// The bits of the fields that have to be looked at unless found valid.
pub(super) fn to_check(contract: &Contract) -> u64 {
    let typed = |(at, field): (usize, &Field)| if field.kind == FieldKind::Any { 0 } else { 1_u64 << at };
    contract.fields().iter().take(QUICK_FIELDS).enumerate().map(typed).fold(0, |all, bit| all | bit)
}

impl Decoder {
    /// Checks every declared field in the contract's order, and turns times into UTC.
    pub(super) fn validate(&self, scratch: &mut Scratch, line: &str) -> Result<(), Rejection> {
        let mut left = self.to_check & !scratch.valid;
        while left != 0 {
            self.validate_field(scratch, line, left.trailing_zeros() as usize)?;
            left &= left - 1;
        }
        for at in QUICK_FIELDS..self.contract.fields().len() {
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
            (Slot::Known(_), FieldKind::String) => Ok(()),
            (Slot::Text(text), FieldKind::String) => {
                let value = if text.unescaped { scratch.text.as_str() } else { line };
                let value = value.get(text.start as usize..text.end as usize).unwrap_or_default();
                if field.checks.text_ok(value) {
                    if let (Some(memo), false) = (self.memoised[at].then_some(&mut scratch.memo), text.unescaped) {
                        let short = short_text(line.as_bytes(), text.start as usize, text.end as usize);
                        if let Some(id) = memo.insert(at, value, short) {
                            scratch.slots[at] = Slot::Known(Known { start: text.start, end: text.end, id });
                        }
                    }
                    return Ok(());
                }
                let listed = |choices: &Vec<String>| choices.iter().any(|choice| choice == value);
                let unknown_type = field.role == Some(Role::Type) && !field.checks.choices.as_ref().is_none_or(listed);
                check(false, if unknown_type { Reason::UnknownType } else { Reason::InvalidValue })
            }
            (Slot::Time(_), FieldKind::Timestamp) => Ok(()),
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
