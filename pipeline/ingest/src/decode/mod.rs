//! One line of bytes to a validated event, by contract.
//!
//! The whole line is checked to be JSON, but only what the contract declares is
//! kept; values stay borrowed from the line. Keys that come twice: the last one
//! counts, as in `serde_json`; a declared object that comes twice counts whole.

mod decoded;
mod lanes;
mod memo;
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
use memo::Memo;
use plan::{Child, END, Node, Plan};
use scan::{Malformed, Scanner, Span, Token, deeper, short_text, unescape};
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
        self.decode_text(scratch, line)
    }

    /// Decodes one line that is known to be text.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_text<'a>(&'a self, scratch: &'a mut Scratch, line: &'a str) -> Result<Decoded<'a>, Rejection> {
        scratch.forget();
        if line.len() > self.line_bytes_max {
            return Err(Rejection::whole(Reason::TooLarge));
        }
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
        scratch.slots.resize(self.contract.fields().len(), Slot::Missing);
        scratch.slots.fill(Slot::Missing);
        scratch.valid = 0;
        scratch.text.clear();
        scratch.items.clear();
        scratch.undeclared.clear();
        scratch.names.clear();
        if scratch.order.len() != self.plan.order.len() {
            scratch.order.clone_from(&self.plan.order);
        }
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
        let mut before = node.order_at;
        let mut first = true;
        loop {
            // Most lines have the keys of the line before, in its order, and nothing between.
            let expected = scratch.order[before];
            #[cfg(test)]
            let expected = if scratch.general { END - 1 } else { expected };
            if let Some(child) = node.children.get(usize::from(expected)) {
                let lead = usize::from(first);
                let text = scanner.literal(&child.text_literals[lead]);
                if text || scanner.literal(&child.key_literals[lead]) {
                    first = false;
                    before = node.order_at + 1 + usize::from(expected);
                    if !text {
                        self.value(scratch, line, scanner, child, depth)?;
                    } else if let Some((start, end)) = scanner.plain_text() {
                        put_text(scratch, line, start, end, child);
                    } else {
                        scanner.back(scanner.at() - 1);
                        self.any_value(scratch, line, scanner, child, depth)?;
                    }
                    continue;
                }
            } else if scanner.here(b'}') {
                return Ok(());
            }
            match next(scratch, line, scanner, node, expected, first)? {
                Next::End => {
                    scratch.order[before] = END;
                    return Ok(());
                }
                Next::Undeclared(key) => {
                    let token = scanner.value()?;
                    scratch.undeclared_count += 1;
                    note_undeclared(scratch, node_at, line, key);
                    scanner.skip(token, depth)?;
                }
                Next::Child(child_at) => {
                    scratch.order[before] = child_at as u16;
                    before = node.order_at + 1 + child_at;
                    self.value(scratch, line, scanner, &node.children[child_at], depth)?;
                }
            }
            first = false;
        }
    }

    /// The value of a declared key: first as most are written, directly into its slot.
    #[inline]
    fn value(&self, scratch: &mut Scratch, line: &str, scanner: &mut Scanner<'_>, child: &Child, depth: u32) -> Result<(), Malformed> {
        #[cfg(test)]
        if scratch.general {
            return self.any_value(scratch, line, scanner, child, depth);
        }
        match scanner.peek() {
            // Where an object is declared, what an earlier one held has to be forgotten first.
            Some(b'"') if child.node.is_none() => {
                scanner.step();
                if let Some((start, end)) = scanner.plain_text() {
                    put_text(scratch, line, start, end, child);
                    return Ok(());
                }
                scanner.back(scanner.at() - 1);
            }
            Some(b'{') => {
                if let Some(below) = child.node_of_object() {
                    scanner.step();
                    return self.declared_object(scratch, line, scanner, child, below, depth);
                }
            }
            Some(b'0'..=b'9') if child.node.is_none() => {
                if let Some(value) = scanner.plain_integer() {
                    scratch.put(child, Slot::Integer(value), child.quick.number_ok(value));
                    return Ok(());
                }
            }
            Some(b'[') => {
                if child.kind == FieldKind::Array && child.node.is_none() && plain_list(scratch, scanner, child) {
                    return Ok(());
                }
            }
            Some(b'n') => {
                if scanner.null() {
                    self.forget_below(scratch, child);
                    scratch.put(child, Slot::Null, child.quick.nullable);
                    return Ok(());
                }
            }
            _ => {}
        }
        self.any_value(scratch, line, scanner, child, depth)
    }

    /// A declared object just entered, whose properties are declared.
    fn declared_object(
        &self,
        scratch: &mut Scratch,
        line: &str,
        scanner: &mut Scanner<'_>,
        child: &Child,
        below: usize,
        depth: u32,
    ) -> Result<(), Malformed> {
        self.forget_below(scratch, child);
        self.object(scratch, line, scanner, below, deeper(depth)?)?;
        scratch.put(child, Slot::Object, true);
        Ok(())
    }

    /// The value before, of the same key, counts no more.
    fn forget_below(&self, scratch: &mut Scratch, child: &Child) {
        if let Some(below) = child.node {
            for field in &self.plan.nodes[below].below {
                scratch.slots[*field] = Slot::Missing;
                scratch.valid &= !bit(*field);
            }
        }
    }

    /// The value of a declared key, however it is written.
    #[inline(never)]
    fn any_value(&self, scratch: &mut Scratch, line: &str, scanner: &mut Scanner<'_>, child: &Child, depth: u32) -> Result<(), Malformed> {
        let token = scanner.value()?;
        self.forget_below(scratch, child);
        let quick = &child.quick;
        let (slot, valid) = match (token, child.kind) {
            (Token::Text(span), _) if span.escaped => (Slot::Text(text(scratch, line, span)), false),
            (Token::Text(span), _) => {
                put_text(scratch, line, span.start, span.end, child);
                return Ok(());
            }
            (Token::Null, _) => (Slot::Null, quick.nullable),
            (Token::Integer(value), _) => (Slot::Integer(value), quick.number_ok(value)),
            (Token::Object, kind) => match child.node_of_object() {
                Some(below) => return self.declared_object(scratch, line, scanner, child, below, depth),
                None => {
                    scanner.skip(token, depth)?;
                    if kind == FieldKind::Object { (Slot::Object, true) } else { (Slot::Mistyped, false) }
                }
            },
            (Token::Array, FieldKind::Array) => list(scratch, line, scanner, quick, deeper(depth)?)?,
            (Token::Array, _) => {
                scanner.skip(token, depth)?;
                (Slot::Mistyped, false)
            }
            (Token::Bool(value), kind) => (Slot::Bool(value), kind == FieldKind::Boolean),
            (Token::Float(value), _) => (Slot::Float(value), false),
        };
        scratch.put(child, slot, valid);
        Ok(())
    }
}

impl Scratch {
    /// The line before is over.
    fn forget(&mut self) {
        self.read = false;
        self.undeclared_count = 0;
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

/// What comes next in an object.
enum Next {
    Child(usize),
    Undeclared(Span),
    End,
}

/// The next key, however it is written.
#[inline(never)]
fn next(scratch: &mut Scratch, line: &str, scanner: &mut Scanner<'_>, node: &Node, expected: u16, first: bool) -> Result<Next, Malformed> {
    let Some(key) = scanner.key(first)? else {
        return Ok(Next::End);
    };
    // The expected one did not come: maybe the one after it.
    let likely = usize::from(expected).saturating_add(1);
    let found = if key.escaped {
        scratch.key.clear();
        unescape(&line[key.start..key.end], &mut scratch.key);
        find(node, &scratch.key, likely)
    } else {
        find(node, &line[key.start..key.end], likely)
    };
    Ok(found.map_or(Next::Undeclared(key), Next::Child))
}

/// A text without escapes.
#[inline(always)]
fn put_text(scratch: &mut Scratch, line: &str, start: usize, end: usize, child: &Child) {
    let text = Text { start: start as u32, end: end as u32, unescaped: false };
    match child.quick.text {
        TextRule::Memo => {
            let id = match short_text(line.as_bytes(), start, end) {
                Some(short) => scratch.memo.short(child.quick.field, short),
                None => scratch.memo.longer(child.quick.field, &line[start..end]),
            };
            match id {
                Some(id) => scratch.put(child, Slot::Known(Known { start: text.start, end: text.end, id }), true),
                None => scratch.put(child, Slot::Text(text), false),
            }
        }
        TextRule::Time => match parse_time(&line[start..end]) {
            Some(time) => scratch.put(child, Slot::Time(time), true),
            None => scratch.put(child, Slot::Text(text), false),
        },
        TextRule::Bytes { least, most } => scratch.put(child, Slot::Text(text), (least..=most).contains(&(end - start))),
        TextRule::Look => scratch.put(child, Slot::Text(text), false),
    }
}

/// A list of texts without escapes or blanks; nothing is taken where it is no such list.
fn plain_list(scratch: &mut Scratch, scanner: &mut Scanner<'_>, child: &Child) -> bool {
    let (from, begin) = (scratch.items.len(), scanner.at());
    let mut longest = 0;
    loop {
        // The bracket, or a comma.
        scanner.step();
        let text = scanner.here(b'"').then(|| scanner.plain_text()).flatten();
        let more = scanner.peek();
        match (text, more) {
            (Some((start, end)), Some(b',' | b']')) => {
                longest = longest.max(end - start);
                scratch.items.push(Text { start: start as u32, end: end as u32, unescaped: false });
            }
            _ => {
                scratch.items.truncate(from);
                scanner.back(begin);
                return false;
            }
        }
        if more == Some(b']') {
            break;
        }
    }
    scanner.step();
    let to = scratch.items.len();
    scratch.put(child, Slot::List(from as u32, to as u32), child.quick.items_ok(to - from, longest));
    true
}

/// The child of that key.
#[inline]
fn find(node: &Node, key: &str, likely: usize) -> Option<usize> {
    let is = |child: &plan::Child| same(child.key.as_bytes(), key.as_bytes());
    if node.children.get(likely).is_some_and(is) {
        return Some(likely);
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

fn list(scratch: &mut Scratch, line: &str, scanner: &mut Scanner<'_>, quick: &Quick, depth: u32) -> Result<(Slot, bool), Malformed> {
    let start = scratch.items.len() as u32;
    let mut all_texts = true;
    let mut first = true;
    let mut longest = 0;
    while scanner.element(first)? {
        first = false;
        match scanner.value()? {
            Token::Text(span) => {
                let item = text(scratch, line, span);
                longest = longest.max((item.end - item.start) as usize);
                scratch.items.push(item);
            }
            other => {
                all_texts = false;
                scanner.skip(other, depth)?;
            }
        }
    }
    if !all_texts {
        return Ok((Slot::Mistyped, false));
    }
    let end = scratch.items.len() as u32;
    Ok((Slot::List(start, end), quick.items_ok((end - start) as usize, longest)))
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
