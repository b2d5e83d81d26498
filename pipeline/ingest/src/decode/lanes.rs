//! Where a run of plain string text ends, 16 bytes at a time.

use wide::u8x16;

/// Bytes looked at together.
pub(super) const LANES: usize = 16;
/// Bytes below need an escape in a string.
const CONTROL_END: u8 = 0x20;

/// Bit `i` is set where byte `i` is a quote, a backslash or a control character.
#[inline(always)]
pub(super) fn special(bytes: &[u8; LANES]) -> u32 {
    let text = u8x16::new(*bytes);
    let ends = text.simd_eq(u8x16::splat(b'"')) | text.simd_eq(u8x16::splat(b'\\'));
    (ends | text.min(u8x16::splat(CONTROL_END - 1)).simd_eq(text)).to_bitmask()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_the_same_as_looking_at_each(bytes: [u8; LANES], at in 0..LANES, hard in prop::sample::select(b"\"\\\x00\x1f\x20\x21\xa2\xdc\x7f".to_vec())) {
            let mut bytes = bytes;
            bytes[at] = hard;
            let plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0..CONTROL_END);
            let expected = bytes.iter().zip(0..).fold(0_u32, |mask, (byte, bit)| mask | u32::from(!plain(byte)) << bit);
            prop_assert_eq!(special(&bytes), expected);
        }
    }
}
