//! How long things may take.
//!
//! * [`timeout_scale`]: what every time-out that assumes a machine's speed is multiplied by.
//! * [`with_deadlines`]: a client whose requests end. A watch must begin in time and may then last.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use kube::{Client, client::Body};
use tokio::time::{Instant, Sleep};
use tower::Service;

pub use hull_api::timeouts::{TIMEOUT_SCALE_VARIABLE, timeout_scale};

/// Longest time for a request to be answered, body included; a watch's head must come in this
/// time. Before scaling.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a request was given up.
#[derive(Debug, thiserror::Error)]
pub enum DeadlineError {
    /// It took too long.
    #[error("the API server did not answer within {0:?}")]
    Elapsed(Duration),
    /// The client failed.
    #[error("send the request: {0}")]
    Client(#[source] kube::Error),
    /// The answer broke off.
    #[error("read the answer: {0}")]
    Body(#[source] kube::Error),
}

/// The same client, with [`REQUEST_TIMEOUT`] (scaled) on every request.
pub fn with_deadlines(client: Client) -> Client {
    with_deadline(client, REQUEST_TIMEOUT.mul_f64(timeout_scale()))
}

/// The same client, with this time for every request.
pub fn with_deadline(client: Client, limit: Duration) -> Client {
    let namespace = client.default_namespace().to_owned();
    Client::new(Deadline { client, limit }, namespace)
}

struct Deadline {
    client: Client,
    limit: Duration,
}

fn is_watch(request: &Request<Body>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query
        .split('&')
        .any(|pair| matches!(pair, "watch=true" | "watch=1" | "follow=true"))
}

impl Service<Request<Body>> for Deadline {
    type Response = Response<LimitedBody>;
    type Error = DeadlineError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (limit, lasts) = (self.limit, is_watch(&request));
        let deadline = Instant::now() + limit;
        let client = self.client.clone();
        async move {
            let answer = tokio::time::timeout_at(deadline, client.send(request))
                .await
                .map_err(|_| DeadlineError::Elapsed(limit))?
                .map_err(DeadlineError::Client)?;
            Ok(answer.map(|body| LimitedBody {
                body,
                limit,
                sleep: (!lasts).then(|| Box::pin(tokio::time::sleep_until(deadline))),
            }))
        }
        .boxed()
    }
}

/// A body that must be complete in time.
pub struct LimitedBody {
    body: Body,
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for LimitedBody {
    type Data = Bytes;
    type Error = DeadlineError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DeadlineError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_ready() {
            return frame.map(|frame| frame.map(|frame| frame.map_err(DeadlineError::Body)));
        }
        let Some(sleep) = &mut self.sleep else {
            return Poll::Pending;
        };
        ready!(sleep.as_mut().poll(context));
        Poll::Ready(Some(Err(DeadlineError::Elapsed(self.limit))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use kube::Api;

    /// A server that answers heads at once if `heads`, and never a body.
    fn silent(heads: bool) -> Client {
        struct Never;
        impl http_body::Body for Never {
            type Data = Bytes;
            type Error = std::convert::Infallible;
            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
                Poll::Pending
            }
        }
        let service = tower::service_fn(move |_: Request<Body>| async move {
            if !heads {
                std::future::pending::<()>().await;
            }
            Ok::<_, std::convert::Infallible>(Response::new(Never))
        });
        with_deadline(Client::new(service, "default"), Duration::from_millis(50))
    }

    #[tokio::test]
    async fn a_request_that_is_never_answered_ends() {
        for heads in [false, true] {
            let pods = Api::<Pod>::default_namespaced(silent(heads));
            let answer = tokio::time::timeout(Duration::from_secs(60), pods.get("web")).await;
            let error = answer.unwrap().unwrap_err();
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            assert!(text.contains("did not answer within"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_watch_that_has_begun_may_last() {
        use futures::StreamExt;
        let pods = Api::<Pod>::default_namespaced(silent(true));
        let watch = pods.watch(&Default::default(), "0").await.unwrap();
        let mut watch = std::pin::pin!(watch);
        let event = tokio::time::timeout(Duration::from_millis(200), watch.next()).await;
        assert!(event.is_err(), "the watch goes on: {event:?}");
    }
}
