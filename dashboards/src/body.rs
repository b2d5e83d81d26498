//! Bodies, bounded before and after decompression.

use std::io::Read;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;

use crate::ApiError;

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > limit as u64) {
        return Err(ApiError::TooLarge { limit });
    }
    axum::body::to_bytes(body, limit).await.map_err(|error| {
        // axum tells a body over the limit from a broken one only by its cause.
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(inner) = cause {
            if inner.to_string().contains("length limit exceeded") {
                return ApiError::TooLarge { limit };
            }
            cause = inner.source();
        }
        ApiError::BadRequest("the body ended early".to_owned())
    })
}

/// A body without its `Content-Encoding`, of at most `limit` bytes as it goes in and as it comes out.
pub(crate) async fn read_decoded(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let encoding =
        match headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("").trim().to_ascii_lowercase()).as_deref() {
            None | Some("" | "identity") => None,
            Some("gzip" | "x-gzip") => Some(Encoding::Gzip),
            Some("zstd") => Some(Encoding::Zstd),
            Some(_) => return Err(ApiError::UnsupportedMedia("unknown Content-Encoding; use gzip, zstd or none".to_owned())),
        };
    let bytes = read(headers, body, limit).await?;
    match encoding {
        None => Ok(bytes),
        Some(encoding) => tokio::task::spawn_blocking(move || decompress(&bytes, encoding, limit)).await.map_err(ApiError::internal)?,
    }
}

#[derive(Clone, Copy)]
enum Encoding {
    Gzip,
    Zstd,
}

/// The largest window a zstd frame may ask for (8 MiB): memory is the sender's to choose otherwise.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

fn decompress(bytes: &[u8], encoding: Encoding, limit: usize) -> Result<Bytes, ApiError> {
    let broken = |_| ApiError::BadRequest("the compressed body is damaged or cut short".to_owned());
    let mut plain = Vec::new();
    let most = limit as u64 + 1;
    match encoding {
        Encoding::Gzip => flate2::read::MultiGzDecoder::new(bytes).take(most).read_to_end(&mut plain).map_err(broken)?,
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(broken)?;
            decoder.take(most).read_to_end(&mut plain).map_err(broken)?
        }
    };
    if plain.len() > limit { Err(ApiError::TooLarge { limit }) } else { Ok(plain.into()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use axum::http::HeaderValue;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    async fn decoded(encoding: &'static str, body: Vec<u8>, limit: usize) -> Result<Bytes, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        read_decoded(&headers, Body::from(body), limit).await
    }

    #[tokio::test]
    async fn bodies_come_out_as_they_were() {
        let plain = b"{\"a\":1}\n".repeat(1_000);
        assert_eq!(decoded("gzip", gzip(&plain), 1 << 20).await.unwrap(), plain);
        assert_eq!(decoded("zstd", zstd::encode_all(&plain[..], 3).unwrap(), 1 << 20).await.unwrap(), plain);
        assert_eq!(decoded("identity", plain.clone(), 1 << 20).await.unwrap(), plain);
    }

    #[tokio::test]
    async fn a_bomb_and_a_long_body_are_too_large_a_cut_one_is_bad() {
        let bomb = vec![b' '; 4 << 20];
        assert!(matches!(decoded("gzip", gzip(&bomb), 1 << 20).await, Err(ApiError::TooLarge { .. })));
        assert!(matches!(decoded("zstd", zstd::encode_all(&bomb[..], 3).unwrap(), 1 << 20).await, Err(ApiError::TooLarge { .. })));
        assert!(matches!(decoded("", vec![0; 2_000], 1_000).await, Err(ApiError::TooLarge { .. })));
        let mut cut = gzip(b"some text that is longer than nothing");
        cut.truncate(cut.len() / 2);
        assert!(matches!(decoded("gzip", cut, 1_000).await, Err(ApiError::BadRequest(_))));
        assert!(matches!(decoded("br", vec![1], 1_000).await, Err(ApiError::UnsupportedMedia(_))));
    }
}
