//! Many certificates as few bytes: those of one run tell of the same files, so that
//! each is little more than its own request beside what all of them share.
//!
//! What comes out is the text that went in, byte for byte: each packed text is
//! unpacked and compared before it is kept.

use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::EncoderDictionary;

use crate::LedgerError;

const ZSTD_LEVEL: i32 = 3;
/// Texts that are tried, evenly spread, for what they add to the base.
const SAMPLES: usize = 256;
/// What the samples that make a base are cut at.
const BASE_BYTES_MAX: usize = 256 << 10;
/// A text that packs to more than this part of itself has something that the base does not.
const WORTH_ADDING: usize = 20;
/// Texts that are worth a thread.
const PER_THREAD_MIN: usize = 64;
/// No text that is kept is longer.
const TEXT_BYTES_MAX: usize = 16 << 20;

const UNPACKABLE: LedgerError = LedgerError::Damaged("a certificate cannot be compressed");
const DAMAGED: LedgerError = LedgerError::Damaged("a certificate that was kept compressed cannot be read");

/// Packed texts, in their order, and what they were packed with.
#[derive(Debug)]
pub(crate) struct Packed {
    pub base: Vec<u8>,
    pub texts: Vec<Vec<u8>>,
}

/// Packs texts in a few threads.
pub(crate) fn pack(texts: &[&str]) -> Result<Packed, LedgerError> {
    let base = base_of(texts)?;
    let dictionary = EncoderDictionary::copy(&base, ZSTD_LEVEL);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = texts.len().div_ceil(cores).max(PER_THREAD_MIN);
    let work = |part: &[&str]| -> Result<Vec<Vec<u8>>, LedgerError> {
        let mut packer = Compressor::with_prepared_dictionary(&dictionary).map_err(|_| UNPACKABLE)?;
        let mut unpacker = Decompressor::with_dictionary(&base).map_err(|_| UNPACKABLE)?;
        let pack = |text: &&str| {
            let packed = packer.compress(text.as_bytes()).map_err(|_| UNPACKABLE)?;
            let same = unpacker.decompress(&packed, text.len()).is_ok_and(|unpacked| unpacked == text.as_bytes());
            if same { Ok(packed) } else { Err(UNPACKABLE) }
        };
        part.iter().map(pack).collect()
    };
    let work = &work;
    let parts: Vec<Result<Vec<Vec<u8>>, LedgerError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = texts.chunks(share).map(|part| scope.spawn(move || work(part))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err(UNPACKABLE))).collect()
    });
    let mut packed = Vec::with_capacity(texts.len());
    for part in parts {
        packed.extend(part?);
    }
    Ok(Packed { base, texts: packed })
}

/// The text that was packed with `base`.
pub(crate) fn unpack(base: &[u8], packed: &[u8]) -> Result<String, LedgerError> {
    let length = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten().and_then(|length| usize::try_from(length).ok());
    let length = length.filter(|length| *length <= TEXT_BYTES_MAX).ok_or(DAMAGED)?;
    let mut unpacker = Decompressor::with_dictionary(base).map_err(|_| DAMAGED)?;
    String::from_utf8(unpacker.decompress(packed, length).map_err(|_| DAMAGED)?).map_err(|_| DAMAGED)
}

/// Those of some texts, one after the other, that say what those before do not.
fn base_of(texts: &[&str]) -> Result<Vec<u8>, LedgerError> {
    let mut base: Vec<u8> = Vec::new();
    if texts.len() < 2 {
        return Ok(base);
    }
    let mut packer = Compressor::new(ZSTD_LEVEL).map_err(|_| UNPACKABLE)?;
    for text in texts.iter().step_by(texts.len().div_ceil(SAMPLES)) {
        let length = packer.compress(text.as_bytes()).map_err(|_| UNPACKABLE)?.len();
        if length > text.len() / WORTH_ADDING && base.len() + text.len() <= BASE_BYTES_MAX {
            base.extend_from_slice(text.as_bytes());
            packer = Compressor::with_dictionary(ZSTD_LEVEL, &base).map_err(|_| UNPACKABLE)?;
        }
    }
    Ok(base)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn texts(count: usize) -> Vec<String> {
        let noise = |seed: usize| hex::encode(ring::digest::digest(&ring::digest::SHA256, &seed.to_le_bytes()));
        let files = |of: usize| (0..6).map(|file| noise(of % 25 * 6 + file)).collect::<Vec<_>>().join("\",\"");
        (0..count)
            .map(|at| format!("{{\"files\":[\"{}\"],\"id\":\"{}\",\"note\":\"{}\"}}", files(at), noise(1 << 20 | at), "é x ".repeat(400)))
            .collect()
    }

    #[test]
    fn texts_come_back_as_they_were() {
        for count in [0, 1, 2, 700] {
            let texts = texts(count);
            let packed = pack(&texts.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
            assert_eq!(packed.texts.len(), count);
            for (text, packed_text) in texts.iter().zip(&packed.texts) {
                assert_eq!(&unpack(&packed.base, packed_text).unwrap(), text);
            }
        }
    }

    #[test]
    fn what_many_share_is_kept_once() {
        let texts = texts(2_000);
        let packed = pack(&texts.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        let bytes: usize = packed.texts.iter().map(Vec::len).sum();
        let plain: usize = texts.iter().map(String::len).sum();
        assert!(bytes + packed.base.len() < plain / 10, "{bytes} and {} of {plain}", packed.base.len());
        assert!(packed.base.len() <= BASE_BYTES_MAX);
    }

    #[test]
    fn another_base_or_cut_bytes_are_an_error_or_another_text_but_no_panic() {
        let texts = texts(100);
        let packed = pack(&texts.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        let one = &packed.texts[7];
        assert!(unpack(&packed.base, &one[..one.len() / 2]).is_err());
        assert!(unpack(&packed.base, b"").is_err());
        assert_ne!(unpack(b"another", one).ok().as_deref(), Some(texts[7].as_str()));
    }
}
