//! A JSON scanner (RFC 8259) over one line: it checks the whole grammar and
//! allocates nothing. Values are handed out as spans; what nobody asked for is
//! checked and skipped.

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
    at: usize,
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;
/// Bytes below need an escape in a string.
const CONTROL_END: u64 = 0x20;

/// High bits set at bytes that end a run of plain string text: the lowest set
/// bit is exact, those above it need not be ("Bit Twiddling Hacks", haszero and hasless).
const fn special(word: u64) -> u64 {
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let zero_quote = quote.wrapping_sub(ONES) & !quote;
    let zero_backslash = backslash.wrapping_sub(ONES) & !backslash;
    let control = word.wrapping_sub(ONES * CONTROL_END) & !word;
    (zero_quote | zero_backslash | control) & HIGH
}

impl<'a> Scanner<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
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
        self.blank();
        let byte = self.peek().ok_or(Malformed)?;
        match byte {
            b'"' => {
                self.at += 1;
                self.string().map(Token::Text)
            }
            b'{' => {
                self.at += 1;
                Ok(Token::Object)
            }
            b'[' => {
                self.at += 1;
                Ok(Token::Array)
            }
            b't' => self.word("true", Token::Bool(true)),
            b'f' => self.word("false", Token::Bool(false)),
            b'n' => self.word("null", Token::Null),
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(Malformed),
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

    /// Behind an opening quote, to behind the closing one.
    #[inline]
    fn string(&mut self) -> Result<Span, Malformed> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut escaped = false;
        loop {
            while let Some(chunk) = bytes.get(self.at..self.at + 8) {
                let word = chunk.try_into().map(u64::from_le_bytes).map_err(|_| Malformed)?;
                let hits = special(word);
                if hits == 0 {
                    self.at += 8;
                } else {
                    self.at += hits.trailing_zeros() as usize / 8;
                    break;
                }
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
        self.at += usize::from(self.peek() == Some(b'-'));
        let first = self.at;
        self.digits()?;
        if self.text.as_bytes()[first] == b'0' && self.at > first + 1 {
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
