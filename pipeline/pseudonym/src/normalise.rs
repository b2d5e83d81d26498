//! One spelling for each identifier, whoever typed it.

use std::borrow::Cow;

use caseless::Caseless;
use unicode_normalization::UnicodeNormalization;
use wide::u8x16;

/// The spelling that is hashed: Unicode NFC, trimmed of Unicode white space and,
/// where the contract says `fold_case`, case-folded as in Unicode's canonical
/// caseless matching (definition D145, section 3.13), composed again afterwards
/// because folding takes characters apart. Idempotent.
///
/// Plain ASCII, which nearly all identifiers are, is borrowed unless it has
/// capitals to fold. An owned result is the caller's to wipe.
#[inline]
pub fn normalise(raw: &str, fold_case: bool) -> Cow<'_, str> {
    if is_plainly_normal(raw.as_bytes(), fold_case) { Cow::Borrowed(raw) } else { spelt_anew(raw, fold_case) }
}

/// Bytes looked at together.
const TOGETHER: usize = 16;

/// Whether it can be told at a glance that [`normalise`] changes nothing: all is ASCII, without blanks, control characters and
/// capitals to fold. `false` says nothing.
#[inline]
pub fn is_plainly_normal(bytes: &[u8], fold_case: bool) -> bool {
    let Some(last) = bytes.last_chunk::<TOGETHER>() else { return is_normal_short(bytes, fold_case) };
    // The last bytes may have been looked at before: that does no harm.
    let whole = bytes.as_chunks::<TOGETHER>().0;
    whole.iter().fold(foul(*last, fold_case), |found, bytes| found | foul(*bytes, fold_case)).to_bitmask() == 0
}

#[inline]
fn is_normal_short(bytes: &[u8], fold_case: bool) -> bool {
    const HALF: usize = TOGETHER / 2;
    // What is short is filled up with what is never foul.
    let mut filled = [b'_'; TOGETHER];
    match (bytes.first_chunk::<HALF>(), bytes.last_chunk::<HALF>()) {
        (Some(first), Some(last)) => {
            filled[..HALF].copy_from_slice(first);
            filled[HALF..].copy_from_slice(last);
        }
        _ => filled.iter_mut().zip(bytes).for_each(|(into, byte)| *into = *byte),
    }
    foul(filled, fold_case).to_bitmask() == 0
}

/// The high bit of each byte that is not plainly normal: no ASCII, a blank, a control character, or a capital to fold.
#[inline(always)]
fn foul(bytes: [u8; TOGETHER], fold_case: bool) -> u8x16 {
    let bytes = u8x16::new(bytes);
    let found = bytes | bytes.min(u8x16::splat(b' ')).simd_eq(bytes);
    if !fold_case {
        return found;
    }
    // Smaller bytes wrap around to large ones.
    let letter = bytes - u8x16::splat(b'A');
    found | letter.min(u8x16::splat(b'Z' - b'A')).simd_eq(letter)
}

fn spelt_anew(raw: &str, fold_case: bool) -> Cow<'_, str> {
    if !raw.is_ascii() {
        return Cow::Owned(normalise_any(raw, fold_case));
    }
    let trimmed = raw.trim();
    if fold_case && trimmed.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(trimmed.to_ascii_lowercase())
    } else {
        Cow::Borrowed(trimmed)
    }
}

fn normalise_any(raw: &str, fold_case: bool) -> String {
    let trimmed = raw.trim();
    if fold_case {
        // Decomposed first: U+0345 and what contains it would fold differently otherwise.
        trimmed.nfd().default_case_fold().nfc().collect()
    } else {
        trimmed.nfc().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn meets_the_same_identifier_in_another_spelling() {
        for (typed, sent) in [
            (" U0900399398\r\n", "u0900399398"),
            ("\u{a0}38:A7:51:11:30:0E\u{2003}", "38:a7:51:11:30:0e"),
            ("STRASSE", "straße"),
            ("JOSE\u{301}", "josé"),
            ("\u{212a}elvin", "kelvin"),
            ("\u{391}\u{345}", "\u{1fb3}"),
            ("ΌΣΟΣ", "όσος"),
        ] {
            assert_eq!(normalise(typed, true), normalise(sent, true), "{sent:?}");
        }
        assert_eq!(normalise(" Jose\u{301} ", false), "José");
        assert_ne!(normalise("A", false), normalise("a", false));
    }

    #[test]
    fn one_byte_anywhere_makes_a_text_abnormal() {
        for len in 1..40 {
            for at in 0..len {
                for byte in 0_u8..=255 {
                    let mut text = vec![b'a'; len];
                    text[at] = byte;
                    let normal = byte.is_ascii() && byte > b' ';
                    assert_eq!(is_plainly_normal(&text, false), normal, "{byte} at {at} of {len}");
                    assert_eq!(is_plainly_normal(&text, true), normal && !byte.is_ascii_uppercase(), "{byte} at {at} of {len}");
                }
            }
        }
        assert!(is_plainly_normal(b"", true));
    }

    #[test]
    fn blank_in_any_script_is_empty() {
        for blank in ["", " ", "\t\u{b}\u{c}\r\n", "\u{2003}\u{a0}\u{3000}", "\u{85}"] {
            assert_eq!(normalise(blank, true), "");
            assert_eq!(normalise(blank, false), "");
        }
    }

    #[test]
    fn ascii_without_capitals_is_not_copied() {
        assert!(matches!(normalise(" 800000002492 ", true), Cow::Borrowed("800000002492")));
        assert!(matches!(normalise("ABC", false), Cow::Borrowed("ABC")));
    }

    #[test]
    fn every_character_alone_and_doubled_is_stable() {
        for character in '\0'..=char::MAX {
            for text in [character.to_string(), format!("a{character}{character}\u{345}\u{301}")] {
                for fold_case in [false, true] {
                    let once = normalise(&text, fold_case).into_owned();
                    assert_eq!(normalise(&once, fold_case), once, "U+{:04X}", u32::from(character));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn is_idempotent(text in "\\PC{0,24}|[\\s\u{300}-\u{36f}\u{370}-\u{3ff}\u{1f00}-\u{1fff}\u{130}\u{df}a-zA-Z]{0,12}", fold_case: bool) {
            let once = normalise(&text, fold_case).into_owned();
            prop_assert_eq!(normalise(&once, fold_case), once.as_str());
        }

        #[test]
        fn the_fast_paths_agree_with_the_slow_one(text in "[\\x00-\\x7f]{0,24}|[!-~]{0,40}|[a-z0-9-]{0,40}[\\PC]?", fold_case: bool) {
            prop_assert_eq!(normalise(&text, fold_case), normalise_any(&text, fold_case));
        }

        #[test]
        fn composed_and_decomposed_meet(text in "[\u{c0}-\u{17f}\u{370}-\u{3ff}\u{1f00}-\u{1fff}\u{ac00}-\u{ac20}a-z]{0,12}", fold_case: bool) {
            let decomposed: String = text.nfd().collect();
            prop_assert_eq!(normalise(&decomposed, fold_case), normalise(&text, fold_case));
        }

        #[test]
        fn case_does_not_matter_where_it_is_folded(text in "[a-zA-Z0-9é-þ]{0,16}") {
            let (upper, lower) = (text.to_uppercase(), text.to_lowercase());
            prop_assert_eq!(normalise(&upper, true), normalise(&lower, true));
        }
    }
}
