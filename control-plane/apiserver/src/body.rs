//! Bodies of requests and responses.

use std::convert::Infallible;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body::{Body, Frame};
use http_body_util::{
    BodyExt, Full, LengthLimitError, Limited, StreamBody, combinators::UnsyncBoxBody,
};
use hull_api::{ApiError, status::Reason};

use crate::limits::{BODY_TIMEOUT, MAX_BODY_BYTES};

/// A response's body: bytes, or a stream that lasts (watch, logs).
pub type ApiBody = UnsyncBoxBody<Bytes, std::io::Error>;

fn never(error: Infallible) -> std::io::Error {
    match error {}
}

/// A body of known bytes.
pub(crate) fn full(bytes: impl Into<Bytes>) -> ApiBody {
    Full::new(bytes.into()).map_err(never).boxed_unsync()
}

/// A body that comes in pieces.
pub(crate) fn stream<S>(pieces: S) -> ApiBody
where
    S: Stream<Item = Bytes> + Send + 'static,
{
    StreamBody::new(pieces.map(|bytes| Ok(Frame::data(bytes)))).boxed_unsync()
}

/// Reads a whole request body, within the limits.
pub(crate) async fn collect<B>(body: B) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let limited = Limited::new(body, MAX_BODY_BYTES);
    match tokio::time::timeout(BODY_TIMEOUT, limited.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::new(
            Reason::RequestEntityTooLarge,
            format!("Request entity too large: limit is {MAX_BODY_BYTES}"),
        )),
        Ok(Err(error)) => Err(ApiError::bad_request(format!(
            "cannot read the request body: {error}"
        ))),
        Err(_) => Err(ApiError::new(
            Reason::Timeout,
            "the request body did not arrive in time",
        )),
    }
}
