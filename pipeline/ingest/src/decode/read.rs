//! A line's values into their slots, by the contract's tree of keys.
//!
//! Most lines are written as the line before: the same keys in the same order,
//! no blanks, no escapes. So each key is compared as a whole, with what stands
//! around it, with the one that came after the same key before; what is written
//! in another way is read the general way, from that place on.

use ameles_schemas::FieldKind;

use super::plain::{PlainField, plain_fields};
use super::plan::{Child, END, Node};
use super::scan::{Malformed, Scanner, Span, Token, deeper, unescape};
use super::validate::{Quick, TextRule};
use super::{Decoder, Known, NAME_BYTES_MAX, Scratch, Slot, Text, UNDECLARED_NOTED_MAX, bit, parse_time, plan};

impl Decoder {
    pub(super) fn read(&self, scratch: &mut Scratch, line: &str, ahead: &str) -> Result<(), Malformed> {
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
        let mut scanner = Scanner::of_line(line, ahead);
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
            let mut expected = scratch.order[before];
            #[cfg(test)]
            if scratch.general {
                expected = END - 1;
            }
            if node.plain.get(usize::from(expected)).is_some_and(PlainField::is_some) {
                plain_fields(scratch, line, scanner, node, &mut before, &mut first);
                expected = scratch.order[before];
            }
            if let Some(child) = node.children.get(usize::from(expected)) {
                if scanner.literal(&child.key_literals[usize::from(first)]) {
                    first = false;
                    before = node.order_at + 1 + usize::from(expected);
                    self.value(scratch, line, scanner, child, depth)?;
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
                scanner.go_to(scanner.at() - 1);
            }
            Some(b'{') => {
                if let Some(below) = child.node_of_object() {
                    scanner.step();
                    return self.declared_object(scratch, line, scanner, child, below, depth);
                }
            }
            Some(b'[') if child.kind == FieldKind::Array && child.node.is_none() && plain_list(scratch, scanner, child) => {
                return Ok(());
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
        let is_stamp = child.is_stamp;
        #[cfg(test)]
        let is_stamp = is_stamp && !scratch.general;
        // The brace has been passed.
        let start = scanner.at() - 1;
        if is_stamp && let Some(length) = scratch.same_stamp(line, start) {
            scanner.go_to(start + length);
        } else {
            let before = scratch.before_stamp(start);
            self.object(scratch, line, scanner, below, deeper(depth)?)?;
            if is_stamp {
                scratch.remember_stamp(line, &before, scanner.at(), &self.plan.nodes[below].below);
            }
        }
        scratch.put(child, Slot::Object, true);
        Ok(())
    }

    /// The value before, of the same key, counts no more.
    fn forget_below(&self, scratch: &mut Scratch, child: &Child) {
        if let Some(below) = child.node {
            scratch.stamp.here &= !child.holds_stamp;
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
#[inline]
fn put_text(scratch: &mut Scratch, line: &str, start: usize, end: usize, child: &Child) {
    let text = Text { start: start as u32, end: end as u32, unescaped: false };
    let (slot, valid) = match child.quick.text {
        TextRule::Memo => match scratch.memo.find(child.quick.field, line, start, end) {
            Some(id) => (Slot::Known(Known { start: text.start, end: text.end, id }), true),
            None => (Slot::Text(text), false),
        },
        TextRule::Time => match parse_time(&line[start..end]) {
            Some(time) => (Slot::Time(time), true),
            None => (Slot::Text(text), false),
        },
        TextRule::Bytes { least, most } => (Slot::Text(text), (least..=most).contains(&(end - start))),
        TextRule::Look => (Slot::Text(text), false),
    };
    scratch.put(child, slot, valid);
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
                scanner.go_to(begin);
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
