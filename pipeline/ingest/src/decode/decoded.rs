//! A decoded event: the declared fields' values, borrowed from the line.

use std::borrow::Cow;

use ameles_core::Timestamp;

use super::{Decoder, Known, Scratch, Slot, Text};

/// A validated event, still raw. Not `Debug`: it holds identifiers.
#[derive(Clone, Copy)]
pub struct Decoded<'a> {
    pub(super) line: &'a str,
    pub(super) scratch: &'a Scratch,
    pub(super) decoder: &'a Decoder,
}

impl<'a> Decoded<'a> {
    fn slot(&self, field: usize) -> Slot {
        self.scratch.slots.get(field).copied().unwrap_or(Slot::Missing)
    }
    fn resolve(&self, text: Text) -> &'a str {
        let from = if text.unescaped { &self.scratch.text } else { self.line };
        from.get(text.start as usize..text.end as usize).unwrap_or_default()
    }
    /// A field's text.
    #[inline]
    pub fn text(&self, field: usize) -> Option<&'a str> {
        match self.slot(field) {
            Slot::Known(known) => self.line.get(known.start as usize..known.end as usize),
            Slot::Text(text) => Some(self.resolve(text)),
            _ => None,
        }
    }
    /// The number of a kept field's text, from 0 per field, the same whenever one
    /// scratch meets the same text; only some valid texts have one, see [`Scratch::memo_text`].
    #[inline]
    pub fn memo_id(&self, field: usize) -> Option<u32> {
        match self.slot(field) {
            Slot::Known(known) => Some(known.id),
            _ => None,
        }
    }
    /// A number of the event's consent stamp: whenever one scratch gives the same number, the stamps are the same. Only some have one.
    #[inline]
    pub(crate) fn stamp_number(&self) -> Option<u64> {
        self.scratch.stamp.number()
    }
    /// A field's identifier, as sent: text, or a whole number's digits.
    pub fn identifier(&self, field: usize) -> Option<Cow<'a, str>> {
        match self.slot(field) {
            Slot::Text(_) | Slot::Known(_) => self.text(field).map(Cow::Borrowed),
            Slot::Integer(value) => Some(Cow::Owned(value.to_string())),
            _ => None,
        }
    }
    /// Whether the event has nothing for a field, or null.
    #[inline]
    pub(crate) fn is_absent(&self, field: usize) -> bool {
        matches!(self.scratch.slots.get(field), None | Some(Slot::Missing | Slot::Null))
    }
    /// The bytes of a field's text where they stand in the line as they are; others may have one too, see [`Self::text`].
    #[inline]
    pub(crate) fn plain_bytes(&self, field: usize) -> Option<&'a [u8]> {
        let (start, end) = match self.scratch.slots.get(field)? {
            Slot::Text(Text { start, end, unescaped: false }) | Slot::Known(Known { start, end, .. }) => (*start, *end),
            _ => return None,
        };
        self.line.as_bytes().get(start as usize..end as usize)
    }
    /// Whether a field has a text.
    #[inline]
    pub(crate) fn is_text(&self, field: usize) -> bool {
        matches!(self.scratch.slots.get(field), Some(Slot::Text(_) | Slot::Known(_)))
    }
    /// A field's whole number.
    pub fn integer(&self, field: usize) -> Option<i64> {
        match self.slot(field) {
            Slot::Integer(value) => Some(value),
            _ => None,
        }
    }
    /// A field's number.
    pub fn number(&self, field: usize) -> Option<f64> {
        match self.slot(field) {
            Slot::Integer(value) => Some(value as f64),
            Slot::Float(value) => Some(value),
            _ => None,
        }
    }
    /// A field's truth value.
    pub fn boolean(&self, field: usize) -> Option<bool> {
        match self.slot(field) {
            Slot::Bool(value) => Some(value),
            _ => None,
        }
    }
    /// A field's time.
    pub fn time(&self, field: usize) -> Option<Timestamp> {
        match self.slot(field) {
            Slot::Time(time) => Some(time),
            _ => None,
        }
    }
    /// Whether a declared object is there.
    pub fn is_object(&self, field: usize) -> bool {
        self.slot(field) == Slot::Object
    }
    /// A field's texts.
    pub fn list(&self, field: usize) -> impl Iterator<Item = &'a str> + use<'a> {
        let items = match self.slot(field) {
            Slot::List(start, end) => self.scratch.items.get(start as usize..end as usize).unwrap_or_default(),
            _ => &[],
        };
        let this = *self;
        items.iter().map(move |item| this.resolve(*item))
    }
    /// How many undeclared values the event held.
    pub fn undeclared_count(&self) -> u64 {
        self.scratch.undeclared_count
    }
    /// Undeclared keys that look like a field's name: what stands before (`props.`), and the key.
    pub fn undeclared(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let this = *self;
        this.scratch.undeclared.iter().map(move |(node, start, end)| {
            (this.decoder.plan.nodes[*node].prefix.as_str(), this.scratch.names.get(*start..*end).unwrap_or_default())
        })
    }
}
