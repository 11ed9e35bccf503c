//! One request to a backend, and its answer on the way back.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures::TryStreamExt;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use http_body::Frame;
use http_body_util::{BodyDataStream, BodyExt, StreamBody};
use hull_api::{ApiError, status::Reason};
use hyper::body::Incoming;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::{Proxied, html::Scanner, links::Root, place::Place};
use crate::{ApiBody, aggregation, body, dial, node_proxy};

/// What a backend allows other sites does not hold for this server's.
const CROSS_ORIGIN: [HeaderName; 4] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
];
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// A token in the list of a WebSocket's protocols.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Passes the request on to `place`. What comes after `prefix` in its path is the backend's, and
/// links of the answer lead below it again.
pub(super) async fn exchange(
    node_tls: &Arc<ClientConfig>,
    place: &Place,
    request: Proxied<'_>,
    prefix: String,
) -> Result<Response<ApiBody>, ApiError> {
    let Proxied {
        method,
        uri,
        headers,
        body,
        upgrade,
        ..
    } = request;
    let backend_host = host_of(place)?;
    let client_host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let client_host = client_host.or(uri.authority().map(|authority| authority.as_str()));
    let host = client_host.unwrap_or(&backend_host).to_string();
    let mut onward = onward_headers(headers);
    let value = |text: &str| HeaderValue::from_str(text).map_err(ApiError::internal);
    onward.insert(header::HOST, value(&host)?);
    onward.insert(FORWARDED_URI, value(uri.path())?);
    let protocol = headers.get(header::UPGRADE).cloned();
    if let Some(protocol) = protocol.clone() {
        onward.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        onward.insert(header::UPGRADE, protocol);
    }
    let head = method == Method::HEAD;
    let mut message = Request::builder()
        .method(method)
        .uri(target(uri, &prefix))
        .body(body)
        .map_err(ApiError::internal)?;
    *message.headers_mut() = onward;
    let response = send(node_tls, place, message).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return match upgrade.filter(|_| protocol.is_some()) {
            Some(client) => Ok(node_proxy::join(client, response)),
            None => Err(ApiError::bad_request("Upgrade request required")),
        };
    }
    let hosts = vec![backend_host, host];
    Ok(answer(response, Root { prefix, hosts }, head))
}

/// Path and query as the backend gets them.
fn target(uri: &http::Uri, prefix: &str) -> String {
    let path = uri.path().strip_prefix(prefix).unwrap_or("");
    let path = if path.is_empty() { "/" } else { path };
    match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_string(),
    }
}

/// The client's headers without what is about its connection or says who it is. The answer is
/// asked for as it is: links in a compressed one could not be led.
fn onward_headers(headers: &HeaderMap) -> HeaderMap {
    let mut onward = aggregation::anonymous_headers(headers);
    onward.remove(header::ACCEPT_ENCODING);
    let protocols: Vec<String> = onward
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|protocol| protocol.trim().to_string())
        .filter(|protocol| !protocol.starts_with(TOKEN_PROTOCOL))
        .collect();
    onward.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if !protocols.is_empty()
        && let Ok(value) = HeaderValue::from_str(&protocols.join(", "))
    {
        onward.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    onward
}

fn unreachable(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(
        Reason::ServiceUnavailable,
        format!("error trying to reach service: {error}"),
    )
}

fn host_of(place: &Place) -> Result<String, ApiError> {
    match place {
        Place::Address { at, .. } => Ok(at.to_string()),
        Place::Agent { node } => {
            let (address, port) = node_proxy::node_address(node)?;
            Ok(node_proxy::host(&address, port))
        }
    }
}

async fn send(
    node_tls: &Arc<ClientConfig>,
    place: &Place,
    message: Request<ApiBody>,
) -> Result<Response<Incoming>, ApiError> {
    let (at, secure) = match place {
        Place::Agent { node } => {
            let (stream, _) = node_proxy::connect(node_tls, node).await?;
            return dial::exchange(stream, message).await.map_err(unreachable);
        }
        Place::Address { at, secure } => (*at, *secure),
    };
    let address = at.to_string();
    let answered = if secure {
        // Certificates are not for addresses of pods, which come and go.
        let config = hull_tls::any_certificate().map_err(ApiError::internal)?;
        let name = ServerName::from(at.ip());
        let stream = dial::connect_tls(&address, Arc::new(config), name).await;
        dial::exchange(stream.map_err(unreachable)?, message).await
    } else {
        let stream = dial::connect_plain(&address).await;
        dial::exchange(stream.map_err(unreachable)?, message).await
    };
    answered.map_err(unreachable)
}

/// The answer as the client gets it.
fn answer(response: Response<Incoming>, root: Root, head: bool) -> Response<ApiBody> {
    let (mut parts, inner) = response.into_parts();
    // That of a backend which knows 1.0 only would end the client's connection.
    parts.version = Version::HTTP_11;
    let headers = &mut parts.headers;
    aggregation::remove_connection_headers(headers);
    for name in CROSS_ORIGIN {
        headers.remove(name);
    }
    let location = headers
        .get(header::LOCATION)
        .and_then(|value| value.to_str().ok());
    let led = location
        .and_then(|location| root.lead(location))
        .and_then(|led| HeaderValue::from_str(&led).ok());
    if let Some(led) = led {
        headers.insert(header::LOCATION, led);
        return Response::from_parts(parts, body::relay(inner, None));
    }
    if head || !is_page(headers) {
        return Response::from_parts(parts, body::relay(inner, None));
    }
    headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, led_page(inner, root))
}

/// Something whose links can be read.
fn is_page(headers: &HeaderMap) -> bool {
    let media = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .unwrap_or("");
    let plain = headers
        .get(header::CONTENT_ENCODING)
        .is_none_or(|value| value == "identity");
    plain && media.trim().eq_ignore_ascii_case("text/html")
}

fn led_page(inner: Incoming, root: Root) -> ApiBody {
    let pieces = BodyDataStream::new(inner).map_err(io::Error::other);
    let scanner = Scanner::new(move |tag: &[u8]| root.lead_tag(tag));
    let led = futures::stream::try_unfold((pieces, Some(scanner)), |(mut pieces, scanner)| async {
        let Some(mut scanner) = scanner else {
            return Ok::<_, io::Error>(None);
        };
        Ok(Some(match pieces.try_next().await? {
            Some(piece) => {
                let passed = scanner.push(&piece);
                (Frame::data(Bytes::from(passed)), (pieces, Some(scanner)))
            }
            None => (Frame::data(Bytes::from(scanner.finish())), (pieces, None)),
        }))
    });
    StreamBody::new(led).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_the_client_is_stays_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("impersonate-user", "root"),
            ("x-remote-user", "root"),
            ("cookie", "a=b"),
            ("accept-encoding", "gzip"),
            (
                "sec-websocket-protocol",
                "v4, base64url.bearer.authorization.k8s.io.eA, v5",
            ),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let onward = onward_headers(&headers);
        assert_eq!(onward.len(), 2, "{onward:?}");
        assert_eq!(onward["cookie"], "a=b");
        assert_eq!(onward["sec-websocket-protocol"], "v4, v5");
    }
}
