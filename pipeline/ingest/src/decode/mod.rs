//! One line of bytes to a validated event, by contract.
//!
//! The whole line is checked to be JSON, but only what the contract declares is
//! kept; values stay borrowed from the line. Keys that come twice: the last one
//! counts, as in `serde_json`; a declared object that comes twice counts whole.

mod decoded;
mod lanes;
mod literal;
mod memo;
mod plain;
mod plan;
mod read;
mod scan;
mod stamp;
#[cfg(test)]
mod tests;
mod text;
mod time;
mod validate;

use std::sync::Arc;

use ameles_core::{Reason, Timestamp};
use ameles_schemas::Contract;

use zeroize::Zeroize;

pub use decoded::Decoded;
pub(crate) use memo::MEMO_IDS;
use memo::Memo;
use plan::{Child, Plan};
use stamp::Stamp;
pub(crate) use text::{Elements, is_json, without_mark};
pub use time::parse_time;
use validate::{QUICK_FIELDS, Quick, TextRule};

/// Undeclared names noted for one event; all of them are counted.
const UNDECLARED_NOTED_MAX: usize = 32;
/// What a field's name looks like: `[A-Za-z_][A-Za-z0-9_]{0,39}`.
const NAME_BYTES_MAX: usize = 40;

/// Why an event is not accepted, and the declared field at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// Why.
    pub reason: Reason,
    /// Index into the contract's fields.
    pub field: Option<usize>,
}

impl Rejection {
    /// A rejection of the whole event.
    pub const fn whole(reason: Reason) -> Self {
        Self { reason, field: None }
    }
    /// A rejection for one field.
    pub const fn of(reason: Reason, field: usize) -> Self {
        Self { reason, field: Some(field) }
    }
}

/// Text of a line: as it stands there, or unescaped into the scratch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Text {
    start: u32,
    end: u32,
    unescaped: bool,
}

/// Text of a line that the scratch has met before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    start: u32,
    end: u32,
    /// Its number in the memo.
    id: u32,
}

/// What a declared field holds in the present line.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Slot {
    Missing,
    Null,
    Text(Text),
    /// A valid one.
    Known(Known),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Time(Timestamp),
    Object,
    /// A range of `Scratch::items`.
    List(u32, u32),
    /// A container or element of another kind than declared.
    Mistyped,
}

/// A contract made ready for decoding. Shared by all threads.
#[derive(Debug)]
pub struct Decoder {
    contract: Arc<Contract>,
    plan: Plan,
    /// The first fields' bits, but of those that may hold anything.
    to_check: u64,
    /// By field: whether its valid texts are remembered.
    memoised: Vec<bool>,
    line_bytes_max: usize,
}

/// Buffers of one thread, reused from line to line.
#[derive(Debug, Default)]
pub struct Scratch {
    slots: Vec<Slot>,
    /// The first fields' bits: what the line holds of them was found valid while it was read.
    valid: u64,
    /// Which key came after which, see `Plan::order`.
    order: Vec<u16>,
    /// Texts that held escapes.
    text: String,
    key: String,
    items: Vec<Text>,
    /// Field-like undeclared names as (node, range of `names`).
    undeclared: Vec<(usize, usize, usize)>,
    names: String,
    undeclared_count: u64,
    /// The present line was JSON: its slots may be read.
    read: bool,
    memo: Memo,
    stamp: Stamp,
    /// Only the general ways, for comparison.
    #[cfg(test)]
    general: bool,
}

/// The buffers held identifiers.
impl Drop for Scratch {
    fn drop(&mut self) {
        self.text.zeroize();
        self.key.zeroize();
        self.names.zeroize();
    }
}

impl Decoder {
    /// Prepares a contract.
    pub fn new(contract: Arc<Contract>, line_bytes_max: usize) -> Self {
        let plan = Plan::new(&contract);
        let to_check = validate::to_check(&contract);
        let memoised = contract.fields().iter().map(|field| Quick::new(0, field).text == TextRule::Memo).collect();
        Self { contract, plan, to_check, memoised, line_bytes_max }
    }

    /// The contract.
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// Decodes one line that is not blank.
    ///
    /// # Errors
    /// The first fault: of the line as a whole, else of the first declared
    /// field at fault in the contract's order.
    pub fn decode<'a>(&'a self, scratch: &'a mut Scratch, line: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        scratch.forget();
        if line.len() > self.line_bytes_max {
            return Err(Rejection::whole(Reason::TooLarge));
        }
        let line = std::str::from_utf8(line).map_err(|_| Rejection::whole(Reason::MalformedJson))?;
        self.decode_text(scratch, line, line)
    }

    /// Decodes one line that is known to be text. `ahead` begins with the line and may go on with its end and others, so that
    /// the last of it can be looked at as the rest is, many bytes at once.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub(crate) fn decode_text<'a>(&'a self, scratch: &'a mut Scratch, line: &'a str, ahead: &str) -> Result<Decoded<'a>, Rejection> {
        scratch.forget();
        if line.len() > self.line_bytes_max {
            return Err(Rejection::whole(Reason::TooLarge));
        }
        if self.read(scratch, line, ahead).is_err() {
            scratch.undeclared_count = 0;
            return Err(Rejection::whole(Reason::MalformedJson));
        }
        scratch.read = true;
        self.validate(scratch, line)?;
        Ok(Decoded { line, scratch, decoder: self })
    }

    /// After a rejection: what can be said of the event all the same. `None`
    /// where the line was no JSON object.
    pub fn salvage<'a>(&'a self, scratch: &'a mut Scratch, line: &'a [u8]) -> Option<Decoded<'a>> {
        let line = std::str::from_utf8(line).ok().filter(|_| scratch.read)?;
        Some(Decoded { line, scratch, decoder: self })
    }
}

impl Scratch {
    /// The line before is over.
    fn forget(&mut self) {
        self.read = false;
        self.undeclared_count = 0;
        self.stamp.here = false;
    }

    #[inline(always)]
    fn put(&mut self, child: &Child, slot: Slot, valid: bool) {
        if let Some(place) = self.slots.get_mut(child.field.unwrap_or(usize::MAX)) {
            *place = slot;
        }
        if valid {
            self.valid |= child.bit;
        } else {
            self.valid &= !child.bit;
        }
    }

    /// The text of a number from [`Decoded::memo_id`].
    pub fn memo_text(&self, field: usize, id: u32) -> Option<&str> {
        self.memo.text(field, id)
    }
}

/// A field's bit among the first ones.
#[inline]
const fn bit(field: usize) -> u64 {
    if field < QUICK_FIELDS { 1 << field } else { 0 }
}
