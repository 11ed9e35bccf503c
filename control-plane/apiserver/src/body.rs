//! Bodies of requests and responses.

use std::{convert::Infallible, io};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use http_body::{Body, Frame};
use http_body_util::{
    BodyDataStream, BodyExt, Full, LengthLimitError, Limited, StreamBody,
    combinators::UnsyncBoxBody,
};
use hull_api::{ApiError, status::Reason};
use tokio::time::{Instant, timeout_at};

use crate::limits::{BODY_TIMEOUT, MAX_BODY_BYTES};

/// A response's body: bytes, or a stream that lasts (watch, logs).
pub type ApiBody = UnsyncBoxBody<Bytes, io::Error>;

fn never(error: Infallible) -> io::Error {
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

/// A body that another server sends, until `deadline` at most. When it breaks or is late, the
/// answer breaks too: a part of it must not look like the whole.
pub(crate) fn relay<B>(inner: B, deadline: Option<Instant>) -> ApiBody
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let pieces = BodyDataStream::new(inner);
    let pieces = futures::stream::try_unfold(pieces, move |mut pieces| async move {
        let piece = match deadline {
            None => pieces.next().await,
            Some(deadline) => timeout_at(deadline, pieces.next())
                .await
                .map_err(|late| io::Error::new(io::ErrorKind::TimedOut, late))?,
        };
        match piece {
            None => Ok(None),
            Some(Ok(bytes)) => Ok(Some((Frame::data(bytes), pieces))),
            Some(Err(error)) => Err(io::Error::other(error)),
        }
    });
    let logged = pieces.inspect_err(|error| {
        tracing::debug!(%error, "the answer of another server broke");
    });
    StreamBody::new(logged).boxed_unsync()
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
