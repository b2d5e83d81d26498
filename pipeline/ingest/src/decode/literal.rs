//! Short texts compared sixteen bytes at a time.

/// Bytes compared at once.
const WORD_BYTES: usize = 16;

/// How something between values is most often written, as `,"key":`, to be compared as a whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Literal {
    words: [u128; 2],
    masks: [u128; 2],
    /// None where it is too long, or has to be escaped.
    len: usize,
}

impl Literal {
    /// What is never there.
    pub(crate) const NONE: Self = Self { words: [0; 2], masks: [0; 2], len: 0 };

    /// A key, with what comes before its first quote and after its last one.
    pub(crate) fn of_key(before: &str, key: &str, after: &str) -> Self {
        let written = format!("{before}\"{key}\"{after}");
        let plain = !key.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
        if !plain || written.len() > 2 * WORD_BYTES {
            return Self::NONE;
        }
        let mut bytes = [0; 2 * WORD_BYTES];
        bytes[..written.len()].copy_from_slice(written.as_bytes());
        let words = [0, WORD_BYTES].map(|at| word(&bytes, at).unwrap_or_default());
        let masks = words.map(|word| word.to_le_bytes().map(|byte| if byte == 0 { 0 } else { u8::MAX })).map(u128::from_le_bytes);
        Self { words, masks, len: written.len() }
    }

    /// Its length where it stands at `at`, else 0.
    #[inline(always)]
    pub(crate) fn len_at(&self, bytes: &[u8], at: usize) -> usize {
        let found = self.len > 0 && self.word_at(0, bytes, at) && (self.len <= WORD_BYTES || self.word_at(1, bytes, at + WORD_BYTES));
        if found { self.len } else { 0 }
    }

    #[inline(always)]
    fn word_at(&self, part: usize, bytes: &[u8], at: usize) -> bool {
        word(bytes, at).is_some_and(|found| (found ^ self.words[part]) & self.masks[part] == 0)
    }
}

/// The 16 bytes at `at`, where there are as many.
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> Option<u128> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map(|chunk| u128::from_le_bytes(*chunk))
}

/// All bits of so many bytes, from one on.
const MASKS: [u128; WORD_BYTES] = {
    let mut masks = [u128::MAX; WORD_BYTES];
    let mut len = 1;
    while len < WORD_BYTES {
        masks[len - 1] = u128::MAX >> ((WORD_BYTES - len) * 8);
        len += 1;
    }
    masks
};

/// The text of 1 to 16 bytes that `head` begins with as a number; what comes after it is zero.
#[inline(always)]
pub(crate) fn short_start(head: &[u8; WORD_BYTES], len: usize) -> Option<u128> {
    MASKS.get(len.wrapping_sub(1)).map(|mask| u128::from_le_bytes(*head) & mask)
}

/// The same of the text `bytes[start..end]`.
#[inline]
pub(crate) fn short_text(bytes: &[u8], start: usize, end: usize) -> Option<u128> {
    let mask = MASKS.get(end.wrapping_sub(start).wrapping_sub(1))?;
    let whole = match word(bytes, start) {
        Some(word) => word,
        // Too near the end of the line: the bytes before it are shifted out.
        None => {
            let at = bytes.len().checked_sub(WORD_BYTES)?;
            word(bytes, at)? >> ((start - at) * 8)
        }
    };
    Some(whole & mask)
}
