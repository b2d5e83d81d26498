//! Text cut into lines.

use wide::u8x16;

/// Bytes looked at together.
const STEP: usize = 64;
/// Bytes checked to be text together, which a processor's nearest cache holds.
const BLOCK_BYTES: usize = 16 << 10;

/// Where the first `\n` stands.
#[inline]
fn line_end(bytes: &[u8]) -> Option<usize> {
    let (chunks, rest) = bytes.as_chunks::<STEP>();
    let mut at = 0;
    for chunk in chunks {
        let (vectors, _) = chunk.as_chunks::<16>();
        // Written out: a closure is a call where the compiler does not look across its units.
        let end = u8x16::splat(b'\n');
        let one = u8x16::new(vectors[0]).simd_eq(end);
        let two = u8x16::new(vectors[1]).simd_eq(end);
        let three = u8x16::new(vectors[2]).simd_eq(end);
        let four = u8x16::new(vectors[3]).simd_eq(end);
        if ((one | two) | (three | four)).to_bitmask() != 0 {
            let low = u64::from(one.to_bitmask()) | u64::from(two.to_bitmask()) << 16;
            let high = u64::from(three.to_bitmask()) | u64::from(four.to_bitmask()) << 16;
            return Some(at + (low | high << 32).trailing_zeros() as usize);
        }
        at += STEP;
    }
    rest.iter().position(|byte| *byte == b'\n').map(|end| at + end)
}

/// Lines without their ends; the last need not have one.
pub(crate) struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let end = line_end(self.0).unwrap_or(self.0.len());
        let line = &self.0[..end];
        self.0 = self.0.get(end + 1..).unwrap_or_default();
        Some(line)
    }
}

/// A line, and whether it is known to be text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// UTF-8, and the text that begins with it: behind the line comes its end, if anything.
    Text(&'a str, &'a str),
    /// Not looked at, or no UTF-8.
    Bytes(&'a [u8]),
}

impl<'a> Line<'a> {
    pub(crate) const fn bytes(self) -> &'a [u8] {
        match self {
            Self::Text(line, _) => line.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Lines as [`Lines`] cuts them, checked to be text many at a time: it costs a
/// fraction of checking each. Those of a block that is no text come as bytes.
pub(crate) struct TextLines<'a> {
    rest: &'a [u8],
    /// Whole lines with their ends, but maybe the last.
    block: &'a str,
    /// Of a block that is no text.
    bytes: Lines<'a>,
}

impl<'a> TextLines<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, block: "", bytes: Lines::new(&[]) }
    }

    /// Takes some whole lines, or one where it is longer.
    fn next_block(&mut self) {
        let within = self.rest.get(..BLOCK_BYTES).and_then(|head| memchr::memrchr(b'\n', head));
        let end = match within {
            Some(end) => end + 1,
            None if self.rest.len() <= BLOCK_BYTES => self.rest.len(),
            None => line_end(self.rest).map_or(self.rest.len(), |end| end + 1),
        };
        let (block, rest) = self.rest.split_at(end);
        self.rest = rest;
        match simdutf8::basic::from_utf8(block) {
            Ok(text) => self.block = text,
            Err(_) => self.bytes = Lines::new(block),
        }
    }
}

impl<'a> Iterator for TextLines<'a> {
    type Item = Line<'a>;

    #[inline]
    fn next(&mut self) -> Option<Line<'a>> {
        loop {
            if !self.block.is_empty() {
                let end = line_end(self.block.as_bytes()).unwrap_or(self.block.len());
                // An end of line is a character of its own: nothing is cut through.
                let (line, ahead) = (self.block.get(..end).unwrap_or_default(), self.block);
                self.block = self.block.get(end + 1..).unwrap_or_default();
                return Some(Line::Text(line, ahead));
            }
            if let Some(line) = self.bytes.next() {
                return Some(Line::Bytes(line));
            }
            if self.rest.is_empty() {
                return None;
            }
            self.next_block();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn by_split(bytes: &[u8]) -> Vec<&[u8]> {
        let mut expected: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        if expected.last().is_some_and(|last| last.is_empty()) {
            expected.pop();
        }
        expected
    }

    #[test]
    fn blocks_end_with_lines_whatever_their_length() {
        for len in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES] {
            for (before, after) in [("", ""), ("a\n", "\n"), ("é\n\n", "b\nc"), ("", "\n\n")] {
                let text = format!("{before}{}{after}", "é".repeat(len / 2) + &"x".repeat(len % 2));
                let lines: Vec<Line<'_>> = TextLines::new(text.as_bytes()).collect();
                assert_eq!(lines.iter().map(|line| line.bytes()).collect::<Vec<_>>(), by_split(text.as_bytes()), "{len} {before:?}");
                assert!(lines.iter().all(|line| matches!(line, Line::Text(..))));
            }
        }
    }

    #[test]
    fn one_bad_byte_spoils_its_own_block_only() {
        let mut bytes = "0123456789abcde\n".repeat(BLOCK_BYTES / 4).into_bytes();
        bytes[BLOCK_BYTES + 5] = 0xff;
        let lines: Vec<Line<'_>> = TextLines::new(&bytes).collect();
        assert_eq!(lines.iter().map(|line| line.bytes()).collect::<Vec<_>>(), by_split(&bytes));
        let of_block = BLOCK_BYTES / 16;
        let texts: Vec<bool> = lines.iter().map(|line| matches!(line, Line::Text(..))).collect();
        assert_eq!(texts.iter().filter(|text| !**text).count(), of_block);
        assert!(texts[..of_block].iter().all(|text| *text) && !texts[of_block] && texts[2 * of_block]);
    }

    proptest! {
        #[test]
        fn cuts_as_split_does(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200)) {
            prop_assert_eq!(Lines::new(&bytes).collect::<Vec<_>>(), by_split(&bytes));
            prop_assert_eq!(TextLines::new(&bytes).map(Line::bytes).collect::<Vec<_>>(), by_split(&bytes));
        }

        #[test]
        fn what_is_said_to_be_text_is(texts in prop::collection::vec("\\PC{0,300}", 0..200), bad in prop::option::of(any::<usize>())) {
            let mut bytes = texts.join("\n").into_bytes();
            if let (Some(at), 1..) = (bad, bytes.len()) {
                let at = at % bytes.len();
                bytes[at] = 0xc3;
            }
            prop_assert_eq!(TextLines::new(&bytes).map(Line::bytes).collect::<Vec<_>>(), by_split(&bytes));
        }
    }
}
