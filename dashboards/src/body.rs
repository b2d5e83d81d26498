//! Bodies, bounded before and after decompression.

use std::io::Read;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures::StreamExt;

use crate::ApiError;

/// What a body takes of a bound on all bodies together, as it comes in.
pub(crate) trait Hold: Send + 'static {
    /// Makes it so many bytes in all.
    fn hold(&mut self, bytes: usize) -> Result<(), ApiError>;
}

/// For bodies that are small by their own limit.
impl Hold for () {
    fn hold(&mut self, _: usize) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, ApiError> {
    read_held(headers, body, limit, &mut ()).await
}

async fn read_held(headers: &HeaderMap, body: Body, limit: usize, room: &mut impl Hold) -> Result<Bytes, ApiError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > limit as u64) {
        return Err(ApiError::TooLarge { limit });
    }
    // Copied, so that a waiting body does not hold its connection's buffer; room is made for what has come, not for what is announced.
    let mut bytes = Vec::new();
    let mut frames = body.into_data_stream();
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|_| ApiError::BadRequest("the body ended early".to_owned()))?;
        if bytes.len() + frame.len() > limit {
            return Err(ApiError::TooLarge { limit });
        }
        room.hold(bytes.len() + frame.len())?;
        bytes.extend_from_slice(&frame);
    }
    Ok(bytes.into())
}

/// A body without its `Content-Encoding`, of at most `limit` bytes as it goes in and as it comes out; and what it holds of `room`.
pub(crate) async fn read_decoded<H: Hold>(headers: &HeaderMap, body: Body, limit: usize, mut room: H) -> Result<(Bytes, H), ApiError> {
    let encoding =
        match headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("").trim().to_ascii_lowercase()).as_deref() {
            None | Some("" | "identity") => None,
            Some("gzip" | "x-gzip") => Some(Encoding::Gzip),
            Some("zstd") => Some(Encoding::Zstd),
            Some(_) => return Err(ApiError::UnsupportedMedia("unknown Content-Encoding; use gzip, zstd or none".to_owned())),
        };
    let bytes = read_held(headers, body, limit, &mut room).await?;
    let Some(encoding) = encoding else { return Ok((bytes, room)) };
    let decompressed = tokio::task::spawn_blocking(move || decompress(&bytes, encoding, limit, &mut room).map(|plain| (plain, room)));
    decompressed.await.map_err(ApiError::internal)?
}

#[derive(Clone, Copy)]
enum Encoding {
    Gzip,
    Zstd,
}

/// The largest window a zstd frame may ask for (8 MiB): memory is the sender's to choose otherwise.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Bytes that are decompressed at once.
const STEP_BYTES: u64 = 256 << 10;

fn decompress(bytes: &[u8], encoding: Encoding, limit: usize, room: &mut impl Hold) -> Result<Bytes, ApiError> {
    let broken = |_| ApiError::BadRequest("the compressed body is damaged or cut short".to_owned());
    let mut decoder: Box<dyn Read + '_> = match encoding {
        Encoding::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(broken)?;
            Box::new(decoder)
        }
    };
    let mut plain = Vec::new();
    while decoder.by_ref().take(STEP_BYTES).read_to_end(&mut plain).map_err(broken)? > 0 {
        if plain.len() > limit {
            return Err(ApiError::TooLarge { limit });
        }
        room.hold(bytes.len() + plain.len())?;
    }
    Ok(plain.into())
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
        read_decoded(&headers, Body::from(body), limit, ()).await.map(|(bytes, ())| bytes)
    }

    #[tokio::test]
    async fn bodies_come_out_as_they_were() {
        let plain = b"{\"a\":1}\n".repeat(1_000);
        assert_eq!(decoded("gzip", gzip(&plain), 1 << 20).await.unwrap(), plain);
        assert_eq!(decoded("zstd", zstd::encode_all(&plain[..], 3).unwrap(), 1 << 20).await.unwrap(), plain);
        assert_eq!(decoded("identity", plain.clone(), 1 << 20).await.unwrap(), plain);
    }

    /// Room for 100,000 bytes.
    struct Little(usize);

    impl Hold for Little {
        fn hold(&mut self, bytes: usize) -> Result<(), ApiError> {
            self.0 = self.0.max(bytes);
            if bytes > 100_000 { Err(ApiError::Busy(String::new())) } else { Ok(()) }
        }
    }

    #[tokio::test]
    async fn a_body_holds_room_for_what_has_come_of_it() {
        let read = async |encoding: &'static str, body: Vec<u8>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
            read_decoded(&headers, Body::from(body), 1 << 20, Little(0)).await.map(|(_, room)| room.0)
        };
        assert_eq!(read("identity", vec![b' '; 90_000]).await.unwrap(), 90_000);
        assert!(matches!(read("identity", vec![b' '; 110_000]).await, Err(ApiError::Busy(_))));
        let packed = gzip(&vec![b' '; 90_000]);
        assert_eq!(read("gzip", packed.clone()).await.unwrap(), 90_000 + packed.len());
        assert!(matches!(read("gzip", gzip(&vec![b' '; 500_000])).await, Err(ApiError::Busy(_))));
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
