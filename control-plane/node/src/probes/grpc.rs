//! The gRPC health checking protocol (`grpc.health.v1.Health/Check`), asked once.

use axum::http::uri::PathAndQuery;
use tonic::client::Grpc;

use tonic::transport::Endpoint;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

/// What the application sees as the caller.
const USER_AGENT: &str = "kube-probe/1.36";
const CHECK: &str = "/grpc.health.v1.Health/Check";
/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks whether `service` (empty: the whole server) serves.
pub(super) async fn check(host: &str, port: u16, service: &str) -> Result<(), String> {
    let authority = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let unreachable = |error: &dyn std::fmt::Display| {
        format!("error: failed to connect service {authority:?}: {error}")
    };
    let channel = Endpoint::from_shared(format!("http://{authority}"))
        .and_then(|endpoint| endpoint.user_agent(USER_AGENT))
        .map_err(|error| unreachable(&error))?
        .connect()
        .await
        .map_err(|error| unreachable(&error))?;
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| unreachable(&error))?;
    let request = Request::new(HealthCheckRequest {
        service: service.to_owned(),
    });
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let answer = client
        .unary(request, PathAndQuery::from_static(CHECK), codec)
        .await;
    match answer {
        Ok(answer) if answer.get_ref().status == SERVING => Ok(()),
        Ok(answer) => Err(format!(
            "service unhealthy (responded with {:?})",
            status_name(answer.get_ref().status)
        )),
        Err(status) if status.code() == Code::Unimplemented => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            status.message()
        )),
        Err(status) => Err(format!(
            "error: health rpc probe failed: {:?}: {}",
            status.code(),
            status.message()
        )),
    }
}

fn status_name(status: i32) -> &'static str {
    match status {
        SERVING => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Response;
    use futures::stream;
    use http_body_util::StreamBody;
    use hyper::body::{Bytes, Frame};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    /// A gRPC answer by hand: one framed message, then the trailers.
    fn answer(status: u8) -> Response<Body> {
        let message = [0, 0, 0, 0, 2, 0x08, status];
        let mut trailers = axum::http::HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = [
            Ok::<_, std::convert::Infallible>(Frame::data(Bytes::copy_from_slice(&message))),
            Ok(Frame::trailers(trailers)),
        ];
        Response::builder()
            .header("content-type", "application/grpc")
            .body(Body::new(StreamBody::new(stream::iter(frames))))
            .unwrap()
    }

    async fn serve() -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut next = 1;
            while let Ok((stream, _)) = listener.accept().await {
                let status = next;
                next += 1;
                let router = axum::Router::new().route(
                    CHECK,
                    axum::routing::post(move || async move { answer(status) }),
                );
                let service = hyper_util::service::TowerToHyperService::new(router);
                tokio::spawn(async move {
                    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        port
    }

    #[tokio::test]
    async fn only_a_serving_service_passes() {
        let port = serve().await;
        assert_eq!(check("127.0.0.1", port, "").await, Ok(()));
        assert_eq!(
            check("127.0.0.1", port, "db").await.unwrap_err(),
            "service unhealthy (responded with \"NOT_SERVING\")"
        );
        let refused = check("127.0.0.1", 1, "").await.unwrap_err();
        assert!(
            refused.contains("failed to connect service \"127.0.0.1:1\""),
            "{refused}"
        );
    }
}
