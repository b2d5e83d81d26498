//! A JSON scanner (RFC 8259) over one line: it checks the whole grammar and
//! allocates nothing. Values are handed out as spans; what nobody asked for is
//! checked and skipped.

use super::lanes::{LANES, special};
use super::literal::Literal;

/// The line is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Containers may lie this deep, as in `serde_json`.
pub(crate) const DEPTH_MAX: u32 = 127;

/// A string's bytes between its quotes, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Holds an escape: has to be unescaped before use.
    pub(crate) escaped: bool,
}

/// A scalar, or the start of a container.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Token {
    Null,
    Bool(bool),
    Text(Span),
    Integer(i64),
    /// A number with fraction or exponent, or beyond 64 bits.
    Float(f64),
    Object,
    Array,
}

/// Where the scanner stands in a line.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    /// The same, and maybe what comes behind it.
    ahead: &'a [u8],
    at: usize,
}

/// So many digits fit 64 bits whatever they are.
const EXACT_DIGITS: usize = 18;
/// What of the 16 bytes from `at` is no plain text; nothing where the whole text is shorter.
#[inline(always)]
fn specials(bytes: &[u8], at: usize) -> u32 {
    if let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        return special(chunk);
    }
    // Near the end of the text: its last bytes, without those passed already.
    let passed = (at + LANES - bytes.len()).min(LANES) as u32;
    bytes.last_chunk().map_or(0, |chunk| special(chunk).checked_shr(passed).unwrap_or_default())
}

impl<'a> Scanner<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self { text, ahead: text.as_bytes(), at: 0 }
    }

    /// Of a line that `ahead` begins with: if there is more, a line end comes first.
    pub(crate) const fn of_line(line: &'a str, ahead: &'a str) -> Self {
        Self { text: line, ahead: ahead.as_bytes(), at: 0 }
    }

    /// The line, and maybe what comes behind it.
    #[inline]
    pub(crate) const fn ahead(&self) -> &'a [u8] {
        self.ahead
    }

    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    #[inline(always)]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    pub(crate) fn blank(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Only blanks are left.
    pub(crate) fn end(&mut self) -> Result<(), Malformed> {
        self.blank();
        if self.at == self.text.len() { Ok(()) } else { Err(Malformed) }
    }

    /// Takes `byte` after blanks, if it comes next.
    #[inline]
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        self.blank();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.take(byte) { Ok(()) } else { Err(Malformed) }
    }

    /// The next key of an object just entered (`first`) or after a value; `None` at its end.
    #[inline]
    pub(crate) fn key(&mut self, first: bool) -> Result<Option<Span>, Malformed> {
        if self.take(b'}') {
            return Ok(None);
        }
        if !first {
            self.expect(b',')?;
        }
        self.expect(b'"')?;
        let span = self.string()?;
        self.expect(b':')?;
        Ok(Some(span))
    }

    /// Takes what stands right here if it is this.
    #[inline(always)]
    pub(crate) fn literal(&mut self, literal: &Literal) -> bool {
        let len = literal.len_at(self.text.as_bytes(), self.at);
        self.at += len;
        len > 0
    }

    /// Whether an array just entered (`first`) or after a value has one more element.
    #[inline]
    pub(crate) fn element(&mut self, first: bool) -> Result<bool, Malformed> {
        if self.take(b']') {
            return Ok(false);
        }
        if !first {
            self.expect(b',')?;
        }
        Ok(true)
    }

    /// The next value: a scalar whole, a container just entered.
    #[inline]
    pub(crate) fn value(&mut self) -> Result<Token, Malformed> {
        loop {
            match self.peek().ok_or(Malformed)? {
                b'"' => {
                    self.at += 1;
                    return self.string().map(Token::Text);
                }
                b'{' => {
                    self.at += 1;
                    return Ok(Token::Object);
                }
                b'[' => {
                    self.at += 1;
                    return Ok(Token::Array);
                }
                b'-' | b'0'..=b'9' => return self.number(),
                b't' => return self.word("true", Token::Bool(true)),
                b'f' => return self.word("false", Token::Bool(false)),
                b'n' => return self.word("null", Token::Null),
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                _ => return Err(Malformed),
            }
        }
    }

    fn word(&mut self, word: &str, token: Token) -> Result<Token, Malformed> {
        let end = self.at + word.len();
        if self.text.as_bytes().get(self.at..end) != Some(word.as_bytes()) {
            return Err(Malformed);
        }
        self.at = end;
        Ok(token)
    }

    /// Passes one byte that was peeked at.
    #[inline(always)]
    pub(crate) const fn step(&mut self) {
        self.at += 1;
    }

    /// To a place that is known to be right: where it stood before, or behind what has been looked at.
    pub(crate) const fn go_to(&mut self, at: usize) {
        self.at = at;
    }

    /// Takes `byte` if it stands right here.
    #[inline(always)]
    pub(crate) fn here(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Behind an opening quote: a string without escapes, to behind its closing quote. Takes nothing where it is none.
    #[inline(always)]
    pub(crate) fn plain_text(&mut self) -> Option<(usize, usize)> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut at = start;
        let end = loop {
            let hits = specials(bytes, at);
            if hits != 0 {
                break at + hits.trailing_zeros() as usize;
            }
            at += LANES;
            if at >= bytes.len() {
                return None;
            }
        };
        if bytes.get(end) != Some(&b'"') {
            return None;
        }
        self.at = end + 1;
        Some((start, end))
    }

    /// Behind an opening quote, to behind the closing one.
    fn string(&mut self) -> Result<Span, Malformed> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut escaped = false;
        loop {
            while let Some(chunk) = bytes.get(self.at..).and_then(<[u8]>::first_chunk::<LANES>) {
                let hits = special(chunk);
                if hits != 0 {
                    self.at += hits.trailing_zeros() as usize;
                    break;
                }
                self.at += LANES;
            }
            match bytes.get(self.at) {
                None => return Err(Malformed),
                Some(b'"') => {
                    let end = self.at;
                    self.at += 1;
                    return Ok(Span { start, end, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0..0x20) => return Err(Malformed),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        let (_, len) = unescape_one(&self.text.as_bytes()[self.at..]).ok_or(Malformed)?;
        self.at += len;
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(Malformed) }
    }

    fn number(&mut self) -> Result<Token, Malformed> {
        let start = self.at;
        let mut whole = true;
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let first = self.at;
        let mut value = 0_i64;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
            self.at += 1;
        }
        let digits = self.at - first;
        if digits == 0 || (digits > 1 && self.text.as_bytes()[first] == b'0') {
            return Err(Malformed);
        }
        if self.peek() == Some(b'.') {
            whole = false;
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            whole = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        if whole && digits <= EXACT_DIGITS {
            return Ok(Token::Integer(if negative { -value } else { value }));
        }
        let text = &self.text[start..self.at];
        if whole && let Ok(integer) = text.parse() {
            return Ok(Token::Integer(integer));
        }
        text.parse().map(Token::Float).map_err(|_| Malformed)
    }

    /// Checks and skips the rest of a value whose token was just read; `depth`
    /// counts the containers around it.
    pub(crate) fn skip(&mut self, token: Token, depth: u32) -> Result<(), Malformed> {
        match token {
            Token::Object => {
                let depth = deeper(depth)?;
                let mut first = true;
                while self.key(first)?.is_some() {
                    first = false;
                    let value = self.value()?;
                    self.skip(value, depth)?;
                }
            }
            Token::Array => {
                let depth = deeper(depth)?;
                let mut first = true;
                while self.element(first)? {
                    first = false;
                    let value = self.value()?;
                    self.skip(value, depth)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// One container more around.
pub(crate) const fn deeper(depth: u32) -> Result<u32, Malformed> {
    if depth < DEPTH_MAX { Ok(depth + 1) } else { Err(Malformed) }
}

/// The character that an escape at the start of `bytes` stands for, and the
/// escape's length. A surrogate without its other half is none.
fn unescape_one(bytes: &[u8]) -> Option<(char, usize)> {
    let plain = |character| Some((character, 2));
    match *bytes.get(1)? {
        b'"' => plain('"'),
        b'\\' => plain('\\'),
        b'/' => plain('/'),
        b'b' => plain('\u{8}'),
        b'f' => plain('\u{c}'),
        b'n' => plain('\n'),
        b'r' => plain('\r'),
        b't' => plain('\t'),
        b'u' => {
            let high = hex4(bytes.get(2..6)?)?;
            if !(0xd800..0xdc00).contains(&high) {
                return char::from_u32(high).map(|character| (character, 6));
            }
            if bytes.get(6..8)? != b"\\u" {
                return None;
            }
            let low = hex4(bytes.get(8..12)?)?;
            if !(0xdc00..0xe000).contains(&low) {
                return None;
            }
            char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)).map(|character| (character, 12))
        }
        _ => None,
    }
}

fn hex4(bytes: &[u8]) -> Option<u32> {
    bytes.iter().try_fold(0, |value, byte| Some(value << 4 | char::from(*byte).to_digit(16)?))
}

/// Appends the text that an escaped span of a checked line stands for.
pub(crate) fn unescape(raw: &str, into: &mut String) {
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        into.push_str(&rest[..at]);
        // The scanner has checked every escape.
        let (character, len) = unescape_one(&rest.as_bytes()[at..]).unwrap_or((char::REPLACEMENT_CHARACTER, 1));
        into.push(character);
        rest = &rest[at + len..];
    }
    into.push_str(rest);
}
