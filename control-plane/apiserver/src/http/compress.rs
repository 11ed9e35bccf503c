//! gzip for large answers to clients that ask for it.

use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Body, Frame};
use http_body_util::{BodyDataStream, BodyExt, StreamBody};
use hull_api::ApiError;

use super::{Streamed, error_response};
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

/// Compresses an answer of known, large size at once, and one that is [`Streamed`] as it goes;
/// others pass as they are.
pub(crate) async fn compress(response: Response<ApiBody>) -> Response<ApiBody> {
    if response.extensions().get::<Streamed>().is_some() {
        let (mut parts, pieces) = response.into_parts();
        announce(&mut parts.headers);
        return Response::from_parts(parts, packed_pieces(pieces));
    }
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
            announce(&mut parts.headers);
            Response::from_parts(parts, body::full(packed))
        }
        Ok(Err(error)) => error_response(&ApiError::internal(error)),
        Err(error) => error_response(&ApiError::internal(error)),
    }
}

fn announce(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.remove(header::CONTENT_LENGTH);
}

/// One gzip member, in pieces as the encoder lets go of them. A body that breaks breaks here too.
fn packed_pieces(pieces: ApiBody) -> ApiBody {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let state = (BodyDataStream::new(pieces), Some(encoder));
    let packed = futures::stream::try_unfold(state, |(mut pieces, encoder)| async move {
        let Some(mut encoder) = encoder else {
            return Ok(None);
        };
        while let Some(piece) = pieces.next().await {
            encoder.write_all(&piece?)?;
            let ready = std::mem::take(encoder.get_mut());
            if !ready.is_empty() {
                return Ok(Some((Frame::data(ready.into()), (pieces, Some(encoder)))));
            }
        }
        let last = encoder.finish()?;
        Ok::<_, io::Error>(Some((Frame::data(last.into()), (pieces, None))))
    });
    StreamBody::new(packed).boxed_unsync()
}
