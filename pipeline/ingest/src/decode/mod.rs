//! One line of bytes to a validated event, by contract.
//!
//! The whole line is checked to be JSON, but only what the contract declares is
//! kept; values stay borrowed from the line. Keys that come twice: the last one
//! counts, as in `serde_json`; a declared object that comes twice counts whole.

mod decoded;
mod plan;
mod scan;
#[cfg(test)]
mod tests;
mod text;
mod time;
mod validate;

use std::sync::Arc;

use ameles_core::{Reason, Timestamp};
use ameles_schemas::{Contract, FieldKind};

use zeroize::Zeroize;

pub use decoded::Decoded;
use plan::{Node, Plan};
use scan::{Malformed, Scanner, Span, Token, deeper, unescape};
pub(crate) use text::{Elements, is_json, without_mark};
pub use time::parse_time;
use validate::Rules;

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

/// What a declared field holds in the present line.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Slot {
    Missing,
    Null,
    Text(Text),
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
    rules: Rules,
    line_bytes_max: usize,
}

/// Buffers of one thread, reused from line to line.
#[derive(Debug, Default)]
pub struct Scratch {
    slots: Vec<Slot>,
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
    memo: validate::Memo,
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
        let rules = Rules::new(&contract);
        Self { contract, plan, rules, line_bytes_max }
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
        scratch.read = false;
        scratch.undeclared_count = 0;
        if line.len() > self.line_bytes_max {
            return Err(Rejection::whole(Reason::TooLarge));
        }
        let Ok(line) = std::str::from_utf8(line) else {
            return Err(Rejection::whole(Reason::MalformedJson));
        };
        if self.read(scratch, line).is_err() {
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

    fn read(&self, scratch: &mut Scratch, line: &str) -> Result<(), Malformed> {
        scratch.slots.clear();
        scratch.slots.resize(self.contract.fields().len(), Slot::Missing);
        scratch.text.clear();
        scratch.items.clear();
        scratch.undeclared.clear();
        scratch.names.clear();
        let mut scanner = Scanner::new(line);
        if scanner.value()? != Token::Object {
            return Err(Malformed);
        }
        self.object(scratch, line, &mut scanner, 0, 1)?;
        scanner.end()
    }

    /// An object just entered.
    fn object(&self, scratch: &mut Scratch, line: &str, scanner: &mut Scanner<'_>, node_at: usize, depth: u32) -> Result<(), Malformed> {
        let node = &self.plan.nodes[node_at];
        let mut expected = 0;
        let mut first = true;
        while let Some(key) = scanner.key(first)? {
            first = false;
            let found = if key.escaped {
                scratch.key.clear();
                unescape(&line[key.start..key.end], &mut scratch.key);
                find(node, &scratch.key, expected)
            } else {
                find(node, &line[key.start..key.end], expected)
            };
            let token = scanner.value()?;
            let Some(child_at) = found else {
                scratch.undeclared_count += 1;
                note_undeclared(scratch, node_at, line, key);
                scanner.skip(token, depth)?;
                continue;
            };
            expected = child_at + 1;
            let child = &node.children[child_at];
            if let Some(below) = child.node {
                for field in &self.plan.nodes[below].below {
                    scratch.slots[*field] = Slot::Missing;
                }
            }
            let slot = match (token, child.kind) {
                (Token::Object, FieldKind::Object) if child.node.is_some() => {
                    let below = child.node.unwrap_or_default();
                    self.object(scratch, line, scanner, below, deeper(depth)?)?;
                    Slot::Object
                }
                (Token::Object, kind) => {
                    scanner.skip(token, depth)?;
                    if kind == FieldKind::Object { Slot::Object } else { Slot::Mistyped }
                }
                (Token::Array, FieldKind::Array) => list(scratch, line, scanner, deeper(depth)?)?,
                (Token::Array, _) => {
                    scanner.skip(token, depth)?;
                    Slot::Mistyped
                }
                (Token::Null, _) => Slot::Null,
                (Token::Bool(value), _) => Slot::Bool(value),
                (Token::Integer(value), _) => Slot::Integer(value),
                (Token::Float(value), _) => Slot::Float(value),
                (Token::Text(span), _) => Slot::Text(text(scratch, line, span)),
            };
            if let Some(field) = child.field {
                scratch.slots[field] = slot;
            }
        }
        Ok(())
    }
}

/// The child of that key; most lines have their keys in the same order.
#[inline]
fn find(node: &Node, key: &str, expected: usize) -> Option<usize> {
    let is = |child: &plan::Child| same(child.key.as_bytes(), key.as_bytes());
    if node.children.get(expected).is_some_and(is) {
        return Some(expected);
    }
    node.children.iter().position(is)
}

/// Whether two short texts are the same, by their first and last words: keys
/// are compared a dozen times per event, and a call costs more than that.
#[inline]
fn same(left: &[u8], right: &[u8]) -> bool {
    fn ends<const N: usize>(text: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
        text.first_chunk().zip(text.last_chunk())
    }
    left.len() == right.len()
        && match left.len() {
            0..=3 => left.iter().zip(right).all(|(one, other)| one == other),
            4..=8 => ends::<4>(left) == ends::<4>(right),
            9..=16 => ends::<8>(left) == ends::<8>(right),
            _ => left == right,
        }
}

fn text(scratch: &mut Scratch, line: &str, span: Span) -> Text {
    if !span.escaped {
        return Text { start: span.start as u32, end: span.end as u32, unescaped: false };
    }
    let start = scratch.text.len() as u32;
    unescape(&line[span.start..span.end], &mut scratch.text);
    Text { start, end: scratch.text.len() as u32, unescaped: true }
}

fn list(scratch: &mut Scratch, line: &str, scanner: &mut Scanner<'_>, depth: u32) -> Result<Slot, Malformed> {
    let start = scratch.items.len() as u32;
    let mut all_texts = true;
    let mut first = true;
    while scanner.element(first)? {
        first = false;
        match scanner.value()? {
            Token::Text(span) => {
                let item = text(scratch, line, span);
                scratch.items.push(item);
            }
            other => {
                all_texts = false;
                scanner.skip(other, depth)?;
            }
        }
    }
    Ok(if all_texts { Slot::List(start, scratch.items.len() as u32) } else { Slot::Mistyped })
}

fn note_undeclared(scratch: &mut Scratch, node: usize, line: &str, key: Span) {
    let name = &line[key.start..key.end];
    if scratch.undeclared.len() < UNDECLARED_NOTED_MAX && looks_like_a_field(name) {
        let start = scratch.names.len();
        scratch.names.push_str(name);
        scratch.undeclared.push((node, start, scratch.names.len()));
    }
}

fn looks_like_a_field(name: &str) -> bool {
    let bytes = name.as_bytes();
    (1..=NAME_BYTES_MAX).contains(&bytes.len())
        && !bytes[0].is_ascii_digit()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}
