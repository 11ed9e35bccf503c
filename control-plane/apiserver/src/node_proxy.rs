//! Logs, exec, attach and port-forward: passed on to the node agent where the pod runs.
//!
//! The agent's certificate must be signed by the cluster's CA and be for the node's address.
//! An upgraded connection (WebSocket or SPDY) is spliced: bytes go through untouched.

use std::sync::Arc;

use futures::StreamExt;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hull_api::{ApiError, Kind, ObjectExt, kinds, registry::Subresource, status::Reason};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::{
    ApiBody, body, dial,
    handlers::Backend,
    http::{Query, text_response},
};

/// Most bytes of a node agent's error message that are passed on.
const MAX_ERROR_BYTES: usize = 4096;
/// Most bytes of a document of a node agent: a summary of a full node stays far below.
const MAX_DOCUMENT_BYTES: usize = 16 << 20;

/// A request to be passed on.
pub(crate) struct Proxied<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub subresource: Subresource,
    pub method: http::Method,
    pub query: &'a Query,
    pub raw_query: &'a str,
    pub headers: &'a HeaderMap,
    pub upgrade: Option<OnUpgrade>,
}

/// Finds the node and passes the request on.
pub(crate) async fn proxy(
    backend: &Backend,
    tls: &Arc<ClientConfig>,
    request: Proxied<'_>,
) -> Result<Response<ApiBody>, ApiError> {
    let kind: &Kind = &kinds::PODS;
    let pod = backend
        .storage
        .must_get(kind, request.namespace, request.name)
        .await?
        .object;
    let container = match request.subresource {
        Subresource::PortForward => String::new(),
        _ => container_of(&pod, request.query.get("container"))?,
    };
    let node_name = pod.str_at("/spec/nodeName");
    if node_name.is_empty() {
        return match request.subresource {
            // Nothing was logged yet.
            Subresource::Log => Ok(text_response(StatusCode::OK, "")),
            _ => Err(ApiError::bad_request(format!(
                "pod {} does not have a host assigned",
                request.name
            ))),
        };
    }
    let node = backend
        .storage
        .must_get(&kinds::NODES, "", node_name)
        .await?
        .object;
    let path = target_path(&request, &container);
    let uri = if request.raw_query.is_empty() {
        path
    } else {
        format!("{path}?{}", request.raw_query)
    };
    if request.subresource == Subresource::Log {
        return log(tls, &node, &uri).await;
    }
    splice(tls, &node, &uri, request).await
}

fn target_path(request: &Proxied<'_>, container: &str) -> String {
    let place = format!("{}/{}", request.namespace, request.name);
    match request.subresource {
        Subresource::Exec => format!("/exec/{place}/{container}"),
        Subresource::Attach => format!("/attach/{place}/{container}"),
        Subresource::PortForward => format!("/portForward/{place}"),
        _ => format!("/containerLogs/{place}/{container}"),
    }
}

/// The asked container, or the only one.
fn container_of(pod: &Value, asked: &str) -> Result<String, ApiError> {
    let names = |list: &str| -> Vec<&str> {
        pod.list_at(list)
            .iter()
            .map(|c| c.str_at("/name"))
            .collect()
    };
    let containers = names("/spec/containers");
    let init = names("/spec/initContainers");
    if !asked.is_empty() {
        let ephemeral = names("/spec/ephemeralContainers");
        if [&containers, &init, &ephemeral]
            .iter()
            .any(|names| names.contains(&asked))
        {
            return Ok(asked.to_string());
        }
        return Err(ApiError::bad_request(format!(
            "container {asked} is not valid for pod {}",
            pod.name()
        )));
    }
    match containers.as_slice() {
        [only] => Ok((*only).to_string()),
        many => {
            let mut message = format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                pod.name(),
                many.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(
                    " or one of the init containers: [{}]",
                    init.join(" ")
                ));
            }
            Err(ApiError::bad_request(message))
        }
    }
}

/// Where a node's agent listens.
pub(crate) fn node_address(node: &Value) -> Result<(String, u16), ApiError> {
    let address = node
        .list_at("/status/addresses")
        .iter()
        .find(|address| address.str_at("/type") == "InternalIP")
        .map(|address| address.str_at("/address").to_string());
    let port = node
        .int_at("/status/daemonEndpoints/kubeletEndpoint/Port")
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0);
    match (address, port) {
        (Some(address), Some(port)) => Ok((address, port)),
        _ => Err(ApiError::internal(format!(
            "node {:?} has no InternalIP or no kubelet endpoint",
            node.name()
        ))),
    }
}

/// `HOST:PORT`.
pub(crate) fn host(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// Connects to the node agent; `Host` is the second value.
pub(crate) async fn connect(
    tls: &Arc<ClientConfig>,
    node: &Value,
) -> Result<(TlsStream<TcpStream>, String), ApiError> {
    let (address, port) = node_address(node)?;
    let host = host(&address, port);
    let unreachable = |why: String| {
        ApiError::new(
            Reason::ServiceUnavailable,
            format!(
                "cannot reach the agent of node {:?} at {host}: {why}",
                node.name()
            ),
        )
    };
    let name =
        ServerName::try_from(address.clone()).map_err(|error| unreachable(error.to_string()))?;
    let stream = dial::connect_tls(&host, tls.clone(), name)
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    Ok((stream, host))
}

async fn send(
    tls: &Arc<ClientConfig>,
    node: &Value,
    uri: &str,
    method: http::Method,
    headers: HeaderMap,
) -> Result<Response<hyper::body::Incoming>, ApiError> {
    let (stream, host) = connect(tls, node).await?;
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .body(Empty::<bytes::Bytes>::new())
        .map_err(ApiError::internal)?;
    *request.headers_mut() = headers;
    let host = header::HeaderValue::from_str(&host).map_err(ApiError::internal)?;
    request.headers_mut().insert(header::HOST, host);
    dial::exchange(stream, request).await.map_err(|error| {
        ApiError::new(
            Reason::ServiceUnavailable,
            format!(
                "the agent of node {:?} did not answer: {error}",
                node.name()
            ),
        )
    })
}

/// A JSON document of a node agent.
pub(crate) async fn get_json(
    tls: &Arc<ClientConfig>,
    node: &Value,
    uri: &str,
) -> Result<Value, ApiError> {
    let response = send(tls, node, uri, http::Method::GET, HeaderMap::new()).await?;
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    let body = http_body_util::Limited::new(response.into_body(), MAX_DOCUMENT_BYTES)
        .collect()
        .await
        .map_err(ApiError::internal)?;
    serde_json::from_slice(&body.to_bytes()).map_err(ApiError::internal)
}

/// What a node agent says when it refuses.
async fn refusal(response: Response<hyper::body::Incoming>) -> ApiError {
    let status = response.status();
    let text = http_body_util::Limited::new(response.into_body(), MAX_ERROR_BYTES)
        .collect()
        .await
        .map(|collected| {
            String::from_utf8_lossy(&collected.to_bytes())
                .trim()
                .to_string()
        })
        .unwrap_or_default();
    let message = if text.is_empty() {
        status.to_string()
    } else {
        text
    };
    match status.as_u16() {
        400 => ApiError::bad_request(message),
        404 => ApiError::new(Reason::NotFound, message),
        403 => ApiError::new(Reason::Forbidden, message),
        503 => ApiError::new(Reason::ServiceUnavailable, message),
        501 => ApiError::new(Reason::NotImplemented, message),
        _ => ApiError::internal(message),
    }
}

async fn log(
    tls: &Arc<ClientConfig>,
    node: &Value,
    uri: &str,
) -> Result<Response<ApiBody>, ApiError> {
    let response = send(tls, node, uri, http::Method::GET, HeaderMap::new()).await?;
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    let pieces = response
        .into_body()
        .into_data_stream()
        .take_while(|piece| {
            if let Err(error) = piece {
                tracing::debug!(%error, "log stream of a node agent broke");
            }
            std::future::ready(piece.is_ok())
        })
        .filter_map(|piece| std::future::ready(piece.ok()));
    let mut out = Response::new(body::stream(pieces));
    out.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain"),
    );
    Ok(out)
}

/// Headers that belong to the client's own connection or identity.
fn forwarded_headers(headers: &HeaderMap) -> HeaderMap {
    let mut forwarded = HeaderMap::new();
    for (name, value) in headers {
        let own = [
            header::HOST,
            header::AUTHORIZATION,
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
        ]
        .contains(name);
        if !own {
            forwarded.append(name.clone(), value.clone());
        }
    }
    forwarded
}

async fn splice(
    tls: &Arc<ClientConfig>,
    node: &Value,
    uri: &str,
    request: Proxied<'_>,
) -> Result<Response<ApiBody>, ApiError> {
    let wants_upgrade = request.headers.contains_key(header::UPGRADE);
    let Some(client) = request.upgrade.filter(|_| wants_upgrade) else {
        return Err(ApiError::bad_request("Upgrade request required"));
    };
    let headers = forwarded_headers(request.headers);
    let response = send(tls, node, uri, request.method, headers).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(response).await);
    }
    Ok(join(client, response))
}

/// Joins a client's connection with the one that answered its upgrade; bytes go through untouched.
pub(crate) fn join(
    client: OnUpgrade,
    mut response: Response<hyper::body::Incoming>,
) -> Response<ApiBody> {
    let upstream = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        let (client, upstream) = match tokio::try_join!(client, upstream) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "upgrade of a stream failed");
                return;
            }
        };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut upstream).await {
            tracing::debug!(%error, "stream ended");
        }
    });
    let mut out = Response::new(body::full(bytes::Bytes::new()));
    *out.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *out.headers_mut() = response.headers().clone();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_only_container_is_the_default() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        let debugged = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}],
            "ephemeralContainers": [{"name": "debug"}]}});
        assert_eq!(container_of(&debugged, "debug").unwrap(), "debug");
        assert_eq!(container_of(&debugged, "").unwrap(), "a");
        let two = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(container_of(&one, "").unwrap(), "a");
        assert_eq!(container_of(&two, "b").unwrap(), "b");
        assert_eq!(
            container_of(&two, "").unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [a b]"
        );
        assert_eq!(
            container_of(&two, "c").unwrap_err().message,
            "container c is not valid for pod p"
        );
    }
}
