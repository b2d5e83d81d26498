//! The stored columns of a contract beyond the ones that every contract has.
//!
//! A row's values are a few words of 32 bits in one vector: a text is the number
//! that its dictionary gives it, other values stand as they are, a bit tells
//! those that are missing.

use std::sync::{Arc, PoisonError, RwLock};

use ameles_pseudonym::DomainHasher;
use ameles_schemas::{Contract, FieldKind, Generalization, Transform, truncate_ip};

use super::dictionary::{Dictionaries, Known};
use crate::admission::Identifier;
use crate::decode::Decoded;

/// How one stored column is filled.
pub(crate) struct ColumnPlan {
    field: usize,
    form: Form,
}

enum Form {
    Text,
    Address,
    Prefix(Generalization),
    Integer(Option<Generalization>),
    Number(Option<Generalization>),
    Boolean,
    Time,
    Pseudonym(Box<Identifier>),
}

impl ColumnPlan {
    /// One per field of `Contract::stored`, in the order of the table's columns behind the roles'.
    pub(crate) fn of_contract<E>(
        contract: &Contract,
        identifier_chars_max: usize,
        mut hasher: impl FnMut(&str) -> Result<DomainHasher, E>,
    ) -> Result<Vec<Self>, E> {
        let mut plans = Vec::new();
        for at in contract.stored() {
            let field = &contract.fields()[at];
            if field.stored_type().is_none() {
                continue;
            }
            let coarser = match &field.transform {
                Transform::Generalize(generalization) => Some(*generalization),
                _ => None,
            };
            let form = match (&field.transform, field.kind) {
                (Transform::Pseudonymize { domain }, _) => {
                    Form::Pseudonym(Box::new(Identifier::new(hasher(domain)?, field.fold_case, identifier_chars_max)))
                }
                (Transform::TruncateIp, _) => Form::Address,
                (_, FieldKind::Integer) => Form::Integer(coarser),
                (_, FieldKind::Number) => Form::Number(coarser),
                (_, FieldKind::Boolean) => Form::Boolean,
                (_, FieldKind::Timestamp) => Form::Time,
                (_, _) => coarser.map_or(Form::Text, Form::Prefix),
            };
            plans.push(Self { field: at, form });
        }
        Ok(plans)
    }

    /// The field that fills the column.
    pub(crate) const fn field(&self) -> usize {
        self.field
    }

    /// A value that the contract admits but the transform cannot take (no address, an empty identifier).
    pub(crate) fn refuses(&self, event: &Decoded<'_>) -> bool {
        match (&self.form, event.text(self.field)) {
            (Form::Address, Some(text)) => truncate_ip(text).is_none(),
            (Form::Pseudonym(..), Some(_)) => self.pseudonym(event).is_none(),
            _ => false,
        }
    }

    fn pseudonym(&self, event: &Decoded<'_>) -> Option<[u8; 16]> {
        match &self.form {
            Form::Pseudonym(identifier) => identifier.key(event, self.field).ok().flatten(),
            _ => None,
        }
    }

    /// Whether [`Self::refuses`] can ever say yes.
    pub(crate) const fn may_refuse(&self) -> bool {
        matches!(self.form, Form::Address | Form::Pseudonym(..))
    }
}

/// What a column's values are, and where they stand in a row's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    /// The number of a text in a dictionary.
    Text {
        word: usize,
        dictionary: usize,
    },
    /// 64 bits, low word first; present where the bit is set.
    Integer {
        word: usize,
        bit: usize,
    },
    Number {
        word: usize,
        bit: usize,
    },
    Time {
        word: usize,
        bit: usize,
    },
    /// 0, or 1 for false and 2 for true.
    Boolean {
        word: usize,
    },
    /// 16 bytes.
    Pseudonym {
        word: usize,
        bit: usize,
    },
}

/// Bits of a word.
const WORD_BITS: usize = u32::BITS as usize;

/// The stored columns beyond the roles': the event's type first, then those of the plans.
pub(crate) struct ColumnSet {
    plans: Vec<ColumnPlan>,
    cells: Vec<Cell>,
    /// Texts that are stored as they are: word, dictionary, and field.
    texts: Vec<(usize, usize, usize)>,
    /// Places of the plans of all others.
    others: Vec<usize>,
    /// Words of a row.
    words: usize,
    dictionaries: usize,
    current: RwLock<Arc<Dictionaries>>,
}

impl ColumnSet {
    pub(crate) fn new(event_type: usize, plans: Vec<ColumnPlan>) -> Self {
        let wide = plans.iter().filter(|plan| !matches!(plan.form, Form::Text | Form::Address | Form::Prefix(_) | Form::Boolean)).count();
        // The bits of what is present come first.
        let (mut word, mut bit, mut dictionaries) = (wide.div_ceil(WORD_BITS), 0, 0);
        let mut take = |words: usize| {
            word += words;
            word - words
        };
        let mut text = |word: usize| {
            dictionaries += 1;
            Cell::Text { word, dictionary: dictionaries - 1 }
        };
        let mut next_bit = || {
            bit += 1;
            bit - 1
        };
        let mut cells = vec![text(take(1))];
        for plan in &plans {
            cells.push(match plan.form {
                Form::Text | Form::Address | Form::Prefix(_) => text(take(1)),
                Form::Integer(_) => Cell::Integer { word: take(2), bit: next_bit() },
                Form::Number(_) => Cell::Number { word: take(2), bit: next_bit() },
                Form::Time => Cell::Time { word: take(2), bit: next_bit() },
                Form::Boolean => Cell::Boolean { word: take(1) },
                Form::Pseudonym(..) => Cell::Pseudonym { word: take(4), bit: next_bit() },
            });
        }
        let is_text = |plan: &ColumnPlan| matches!(plan.form, Form::Text);
        let fields = std::iter::once(Some(event_type)).chain(plans.iter().map(|plan| is_text(plan).then_some(plan.field)));
        let texts = cells.iter().zip(fields).filter_map(|(cell, field)| match (cell, field) {
            (Cell::Text { word, dictionary }, Some(field)) => Some((*word, *dictionary, field)),
            _ => None,
        });
        let (texts, others) = (texts.collect(), (0..plans.len()).filter(|at| !is_text(&plans[*at])).collect());
        Self { plans, cells, texts, others, words: word, dictionaries, current: RwLock::new(Arc::new(Dictionaries::new(dictionaries))) }
    }

    /// Words of a row.
    pub(crate) const fn words(&self) -> usize {
        self.words
    }

    /// The columns in the order of the table, the event's type first.
    pub(crate) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    pub(crate) fn plans(&self) -> &[ColumnPlan] {
        &self.plans
    }

    /// The column that a field fills.
    pub(crate) fn column_of(&self, field: usize) -> Option<usize> {
        self.plans.iter().position(|plan| plan.field == field).map(|at| at + 1)
    }

    /// The generation of dictionaries that new parts use.
    pub(crate) fn dictionaries(&self) -> Arc<Dictionaries> {
        let current = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        if !current.is_large() {
            return current;
        }
        let mut newer = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&newer, &current) {
            *newer = Arc::new(Dictionaries::new(self.dictionaries));
        }
        Arc::clone(&newer)
    }

    /// Appends an event's words; `known` belongs to the scratch that the event was decoded with.
    pub(crate) fn push(&self, words: &mut Vec<u32>, dictionaries: &Arc<Dictionaries>, known: &mut Known, event: &Decoded<'_>) {
        let start = words.len();
        words.resize(start + self.words, 0);
        let row = &mut words[start..];
        known.follow(dictionaries);
        for (word, dictionary, field) in &self.texts {
            row[*word] = known.number_of(*dictionary, event, *field);
        }
        for at in &self.others {
            // The first cell is the event's type.
            let (cell, plan) = (&self.cells[at + 1], &self.plans[*at]);
            let field = plan.field;
            match (*cell, &plan.form) {
                (Cell::Text { word, dictionary }, Form::Address) => {
                    row[word] = known.number(dictionary, event.text(field).and_then(truncate_ip).as_deref());
                }
                (Cell::Text { word, dictionary }, Form::Prefix(coarser)) => {
                    row[word] = known.number(dictionary, event.text(field).map(|text| coarser.text(text)));
                }
                (Cell::Integer { word, bit }, Form::Integer(coarser)) => {
                    let value = event.integer(field).map(|value| coarser.map_or(value, |coarser| coarser.integer(value)));
                    set(row, word, bit, value.map(|value| halves(value as u64)));
                }
                (Cell::Number { word, bit }, Form::Number(coarser)) => {
                    let value = event.number(field).map(|value| coarser.map_or(value, |coarser| coarser.number(value)));
                    set(row, word, bit, value.map(|value| halves(value.to_bits())));
                }
                (Cell::Time { word, bit }, _) => set(row, word, bit, event.time(field).map(|time| halves(time.micros() as u64))),
                (Cell::Boolean { word }, _) => row[word] = event.boolean(field).map_or(0, |value| 1 + u32::from(value)),
                (Cell::Pseudonym { word, bit }, _) => {
                    set(row, word, bit, plan.pseudonym(event).map(|key| quarters(u128::from_be_bytes(key))));
                }
                // `new` pairs cells and forms.
                _ => {}
            }
        }
    }
}

const fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

const fn quarters(value: u128) -> [u32; 4] {
    [value as u32, (value >> 32) as u32, (value >> 64) as u32, (value >> 96) as u32]
}

fn set<const N: usize>(row: &mut [u32], word: usize, bit: usize, value: Option<[u32; N]>) {
    if let Some(value) = value {
        row[bit / WORD_BITS] |= 1 << (bit % WORD_BITS);
        row[word..word + N].copy_from_slice(&value);
    }
}

/// The 64 bits at a word, where they are present.
#[inline]
pub(crate) fn wide(row: &[u32], word: usize, bit: usize) -> Option<u64> {
    is_present(row, bit).then(|| u64::from(row[word]) | u64::from(row[word + 1]) << 32)
}

/// The 128 bits at a word, where they are present.
#[inline]
pub(crate) fn widest(row: &[u32], word: usize, bit: usize) -> Option<u128> {
    let part = |at: usize| u128::from(row[word + at]) << (WORD_BITS * at);
    is_present(row, bit).then(|| part(0) | part(1) | part(2) | part(3))
}

#[inline]
fn is_present(row: &[u32], bit: usize) -> bool {
    row[bit / WORD_BITS] >> (bit % WORD_BITS) & 1 == 1
}
