//! A body that tells when it is over, however it ends.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::ApiBody;

pub(super) struct Ending<F: FnOnce() + Unpin> {
    inner: ApiBody,
    over: Option<F>,
}

impl<F: FnOnce() + Unpin> Ending<F> {
    /// `over` runs when the body has been sent, or nobody reads it any more.
    pub(super) fn new(inner: ApiBody, over: F) -> Self {
        Ending {
            inner,
            over: Some(over),
        }
    }
}

impl<F: FnOnce() + Unpin> Drop for Ending<F> {
    fn drop(&mut self) {
        if let Some(over) = self.over.take() {
            over();
        }
    }
}

impl<F: FnOnce() + Unpin> Body for Ending<F> {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
