//! Plain values of an object, one after the other: most of a line is nothing else.
//!
//! While the keys come in the order in which they came before, nothing stands
//! between them, and texts need no unescaping, all is found by comparing sixteen
//! bytes at a time. What comes in another way is left where it is, for the
//! general way to read.

use ameles_schemas::FieldKind;
use wide::u8x16;

use super::lanes::{LANES, special};
use super::literal::short_start;
use super::plan::{Child, Node};
use super::scan::Scanner;
use super::time::usual_time;
use super::validate::{Quick, TextRule};
use super::{Known, Scratch, Slot, Text};

/// A time as most devices write it, with milliseconds and without.
const TIME_BYTES: [usize; 2] = [24, 20];
/// With the quote behind it.
const TIME_WINDOW: usize = TIME_BYTES[0] + 1;

/// A key whose value is a text or a number, with what stands around it as most often written: `"key":`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlainField {
    words: [[u8; LANES]; 2],
    /// All bits are set where anything may stand.
    any: [[u8; LANES]; 2],
    /// None where its value is something else, it is too long, or has to be escaped.
    len: usize,
    field: usize,
    bit: u64,
    is_text: bool,
    quick: Quick,
}

impl PlainField {
    pub(super) fn new(child: &Child) -> Self {
        let written = format!("\"{}\":", child.key);
        let plain = !child.key.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) && written.len() <= 2 * LANES;
        let is_text = matches!(child.kind, FieldKind::String | FieldKind::Timestamp);
        let is_number = matches!(child.kind, FieldKind::Integer | FieldKind::Number);
        let Some(field) = child.field.filter(|_| plain && child.node.is_none() && (is_text || is_number)) else { return Self::NONE };
        let (mut words, mut any) = (Self::NONE.words, Self::NONE.any);
        for (at, byte) in written.bytes().enumerate() {
            (words[at / LANES][at % LANES], any[at / LANES][at % LANES]) = (byte, 0);
        }
        Self { words, any, len: written.len(), field, bit: child.bit, is_text, quick: child.quick }
    }

    const NONE: Self =
        Self { words: [[0; LANES]; 2], any: [[u8::MAX; LANES]; 2], len: 0, field: 0, bit: 0, is_text: false, quick: Quick::NONE };

    /// Whether there is a way for it here at all.
    #[inline(always)]
    pub(super) const fn is_some(&self) -> bool {
        self.len > 0
    }

    #[inline(always)]
    fn has(&self, word: usize, bytes: &[u8; LANES]) -> bool {
        let same = u8x16::new(*bytes).simd_eq(u8x16::new(self.words[word]));
        (same | u8x16::new(self.any[word])).to_bitmask() == (1 << LANES) - 1
    }
}

/// So many bytes from `at` on.
#[inline(always)]
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..).and_then(<[u8]>::first_chunk)
}

/// Where the string ends that begins with `head` at `start` and has no escapes.
#[inline(always)]
fn end_of(ahead: &[u8], start: usize, head: &[u8; LANES]) -> Option<usize> {
    let (mut hits, mut at) = (special(head), start);
    while hits == 0 {
        at += LANES;
        hits = special(bytes_at(ahead, at)?);
    }
    let end = at + hits.trailing_zeros() as usize;
    // Neither another special character, nor the end of the line.
    (ahead.get(end) == Some(&b'"')).then_some(end)
}

/// The whole number of at most seven digits, without sign, at `start`, and where it ends.
#[inline(always)]
fn whole_number_at(ahead: &[u8], start: usize) -> Option<(i64, usize)> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let digits = u64::from_le_bytes(*bytes_at(ahead, start)?) ^ (b'0' as u64 * ONES);
    // What is above 9 reaches the high bit; what it carries over reaches bytes behind it only.
    let others = (digits | digits.wrapping_add((0x80 - 10) * ONES)) & (0x80 * ONES);
    let len = others.trailing_zeros() as usize / 8;
    if !(1..8).contains(&len) || (len > 1 && digits & 0xff == 0) {
        return None;
    }
    // Zeros before them; then pairs of digits, and pairs of pairs.
    let digits = digits << (64 - 8 * len);
    let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0xffff_0000_ffff;
    let value = (fours & 0xffff) * 10_000 + (fours >> 32);
    let end = start + len;
    matches!(ahead.get(end), Some(b',' | b'}')).then_some((value as i64, end))
}

/// Reads values as long as each is of the key expected, and plain. `before` is where the key is expected in the scratch's
/// order, `first` whether the object has just been entered.
#[inline(never)]
pub(super) fn plain_fields(
    scratch: &mut Scratch,
    line: &str,
    scanner: &mut Scanner<'_>,
    node: &Node,
    before: &mut usize,
    first: &mut bool,
) {
    let Scratch { order, slots, valid, memo, .. } = scratch;
    let ahead = scanner.ahead();
    // An object's brace has been passed, a comma has not.
    let mut at = scanner.at() - usize::from(*first);
    let mut lead = if *first { b'{' } else { b',' };
    let mut from = *before;
    while let Some(expected) = order.get(from)
        && let Some(plain) = node.plain.get(usize::from(*expected))
        && let Some([before_key, key @ ..]) = bytes_at::<{ LANES + 1 }>(ahead, at)
        && *before_key == lead
        && plain.is_some()
        && plain.has(0, key)
        && (plain.len <= LANES || bytes_at(ahead, at + 1 + LANES).is_some_and(|rest| plain.has(1, rest)))
        && let Some(slot) = slots.get_mut(plain.field)
    {
        let next = node.order_at + 1 + usize::from(*expected);
        let value = at + 1 + plain.len;
        let text = |start: usize, end: usize| Text { start: start as u32, end: end as u32, unescaped: false };
        let Some(begin) = bytes_at::<4>(ahead, value) else { break };
        match begin {
            [b'"', ..] if plain.is_text => {
                let start = value + 1;
                if plain.quick.text == TextRule::Time {
                    let Some(window) = bytes_at::<TIME_WINDOW>(ahead, start) else { break };
                    let Some(len) = TIME_BYTES.into_iter().find(|len| window[*len] == b'"') else { break };
                    let Some(time) = usual_time(&window[..len]) else { break };
                    *slot = Slot::Time(time);
                    *valid |= plain.bit;
                    at = start + len + 1;
                } else {
                    let Some(head) = bytes_at(ahead, start) else { break };
                    let Some(end) = end_of(ahead, start, head) else { break };
                    let length = end - start;
                    at = end + 1;
                    match plain.quick.text {
                        TextRule::Bytes { least, most } if least <= length && length <= most => {
                            *slot = Slot::Text(text(start, end));
                            *valid |= plain.bit;
                        }
                        TextRule::Memo => {
                            let id = match short_start(head, length) {
                                Some(short) => memo.short(plain.field, short),
                                None => memo.longer(plain.field, line.get(start..end).unwrap_or_default()),
                            };
                            if let Some(id) = id {
                                *slot = Slot::Known(Known { start: start as u32, end: end as u32, id });
                                *valid |= plain.bit;
                            } else {
                                *slot = Slot::Text(text(start, end));
                                *valid &= !plain.bit;
                            }
                        }
                        _ => {
                            *slot = Slot::Text(text(start, end));
                            *valid &= !plain.bit;
                        }
                    }
                }
            }
            b"null" => {
                *slot = Slot::Null;
                *valid = if plain.quick.nullable { *valid | plain.bit } else { *valid & !plain.bit };
                at = value + 4;
            }
            [b'0'..=b'9', ..] if !plain.is_text => {
                let Some((number, end)) = whole_number_at(ahead, value) else { break };
                *slot = Slot::Integer(number);
                *valid = if plain.quick.number_ok(number) { *valid | plain.bit } else { *valid & !plain.bit };
                at = end;
            }
            _ => break,
        }
        (from, lead) = (next, b',');
    }
    (*before, *first) = (from, lead == b'{');
    scanner.go_to(at + usize::from(*first));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_whole_number_is_what_its_digits_say(number in 0_i64..100_000_000, zeros in "0{0,2}", behind in "[,} e.\\]0]") {
            let text = format!("{zeros}{number}{behind}        ");
            let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or_default();
            let plain = digits < 8 && (digits == 1 || !text.starts_with('0')) && matches!(text.as_bytes()[digits], b',' | b'}');
            let expected = plain.then(|| text[..digits].parse().map(|number: i64| (number, digits)).ok()).flatten();
            prop_assert_eq!(whole_number_at(text.as_bytes(), 0), expected);
        }
    }
}
