//! Texts around events: byte order marks, JSON arrays of events, lines that break off.

use ameles_core::Reason;

use super::Rejection;
use super::scan::{Malformed, Scanner, Token};

/// What some editors put at the beginning of a text.
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// A text's first line without the mark that may stand before it.
pub(crate) fn without_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(&BYTE_ORDER_MARK).unwrap_or(line)
}

/// Whether a line is one whole JSON value.
pub(crate) fn is_json(line: &[u8]) -> bool {
    std::str::from_utf8(line).is_ok_and(|text| {
        let mut scanner = Scanner::new(text);
        let whole = |scanner: &mut Scanner<'_>| {
            let token = scanner.value()?;
            scanner.skip(token, 0)?;
            scanner.end()
        };
        whole(&mut scanner).is_ok()
    })
}

/// The elements of a JSON array as they stand in a text; after a fault `Err` once, and nothing more.
pub(crate) struct Elements<'a> {
    text: &'a str,
    scanner: Scanner<'a>,
    first: bool,
    done: bool,
}

impl<'a> Elements<'a> {
    /// Nothing but an array: `Err` comes first otherwise.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let text = std::str::from_utf8(bytes);
        Self { text: text.unwrap_or_default(), scanner: Scanner::new(text.unwrap_or_default()), first: true, done: false }
    }

    fn step(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        if self.first && self.scanner.value()? != Token::Array {
            return Err(Malformed);
        }
        if !self.scanner.element(std::mem::take(&mut self.first))? {
            return self.scanner.end().map(|()| None);
        }
        self.scanner.blank();
        let start = self.scanner.at();
        let token = self.scanner.value()?;
        self.scanner.skip(token, 1)?;
        Ok(Some(&self.text.as_bytes()[start..self.scanner.at()]))
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<&'a [u8], Rejection>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step();
        self.done = !matches!(step, Ok(Some(_)));
        step.map_err(|Malformed| Rejection::whole(Reason::MalformedJson)).transpose()
    }
}
