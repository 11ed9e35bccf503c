//! gzip for large answers to clients that ask for it.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Body;
use http_body_util::BodyExt;
use hull_api::ApiError;

use super::error_response;
use crate::{ApiBody, body, limits::COMPRESS_ABOVE_BYTES};

/// The client can read gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .any(|coding| {
            coding
                .split(';')
                .next()
                .is_some_and(|name| name.trim() == "gzip")
        })
}

/// Compresses an answer of known, large size; others pass as they are.
pub(crate) async fn compress(response: Response<ApiBody>) -> Response<ApiBody> {
    let large = response
        .body()
        .size_hint()
        .exact()
        .is_some_and(|size| size > COMPRESS_ABOVE_BYTES);
    if !large || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, whole) = response.into_parts();
    let bytes = match whole.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) => return error_response(&ApiError::internal(error)),
    };
    let packed = tokio::task::spawn_blocking(move || {
        // Lists are repetitive: the fastest level already finds most of it.
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&bytes)?;
        encoder.finish()
    })
    .await;
    match packed {
        Ok(Ok(packed)) => {
            parts
                .headers
                .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            parts
                .headers
                .append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            parts.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(parts, body::full(packed))
        }
        Ok(Err(error)) => error_response(&ApiError::internal(error)),
        Err(error) => error_response(&ApiError::internal(error)),
    }
}
