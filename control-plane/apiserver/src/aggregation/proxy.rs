//! Requests that are passed on.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hull_api::{ApiError, status::Reason};
use hyper::upgrade::OnUpgrade;
use tokio::time::{Instant, timeout_at};

use super::Extension;
use crate::{
    ApiBody, UserInfo, body, http::text_response, node_proxy, watch_cache::WatchCache,
    webhook_client::CallError,
};

/// Kubernetes' words.
const REDIRECTED: &str = "the backend attempted to redirect this request, which is not permitted\n";

/// A request to be passed on.
pub(crate) struct Forwarded<'a> {
    pub user: &'a UserInfo,
    pub method: http::Method,
    pub uri: &'a http::Uri,
    pub headers: &'a HeaderMap,
    pub body: Bytes,
    pub upgrade: Option<OnUpgrade>,
    /// It lasts: a watch, or a stream.
    pub long: bool,
    /// Longest time until the whole answer is there; of one that lasts, until it begins.
    pub limit: Duration,
}

/// Passes a request on to the extension.
pub(crate) async fn forward(
    cache: &WatchCache,
    extension: &Extension,
    request: Forwarded<'_>,
) -> Result<Response<ApiBody>, ApiError> {
    // Kubernetes' words, in plain text.
    let unavailable = || text_response(StatusCode::SERVICE_UNAVAILABLE, "service unavailable\n");
    let Ok(client) = &extension.client else {
        return Ok(unavailable());
    };
    if !extension.known().available {
        return Ok(unavailable());
    }
    let target = request
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let mut onward = Request::builder()
        .method(request.method)
        .uri(target)
        .body(Full::new(request.body))
        .map_err(ApiError::internal)?;
    let upgrade = request.headers.get(header::UPGRADE).is_some();
    *onward.headers_mut() = onward_headers(request.headers, request.user)?;
    if upgrade && let Some(protocol) = request.headers.get(header::UPGRADE) {
        let headers = onward.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
    let deadline = Instant::now() + request.limit;
    let answered = timeout_at(deadline, client.exchange(cache, onward)).await;
    let response = answered
        .unwrap_or(Err(CallError::Timeout))
        .map_err(|error| {
            tracing::warn!(apiservice = extension.name, %error, "extension does not answer");
            ApiError::new(
                Reason::ServiceUnavailable,
                format!("error trying to reach service: {error}"),
            )
        })?;
    // Whoever follows would show its own credentials elsewhere.
    if response.status().is_redirection() && response.headers().contains_key(header::LOCATION) {
        tracing::warn!(apiservice = extension.name, "extension redirects: refused");
        return Ok(text_response(StatusCode::BAD_GATEWAY, REDIRECTED));
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return match request.upgrade.filter(|_| upgrade) {
            Some(client) => Ok(node_proxy::join(client, response)),
            None => Err(ApiError::bad_request("Upgrade request required")),
        };
    }
    let (mut parts, inner) = response.into_parts();
    remove_connection_headers(&mut parts.headers);
    // The length would no longer fit an answer that is compressed.
    parts.headers.remove(header::CONTENT_LENGTH);
    let deadline = (!request.long).then_some(deadline);
    Ok(Response::from_parts(parts, body::relay(inner, deadline)))
}

/// A header that says who somebody is, or on whose behalf: the client's own do not count.
fn is_identity(name: &HeaderName) -> bool {
    let name = name.as_str();
    name == "authorization" || name.starts_with("x-remote-") || name.starts_with("impersonate-")
}

/// Headers that are about one connection (RFC 9110 §7.6.1), besides those that `Connection` names.
const CONNECTION_HEADERS: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Takes out what is about the connection that an answer came on.
pub(crate) fn remove_connection_headers(headers: &mut HeaderMap) {
    for name in CONNECTION_HEADERS {
        headers.remove(name);
    }
}

/// A client's headers without those of its connection, and without who it is.
pub(crate) fn anonymous_headers(headers: &HeaderMap) -> HeaderMap {
    let mut onward = HeaderMap::new();
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for (name, value) in headers {
        let own = [header::HOST, header::CONTENT_LENGTH].contains(name)
            || CONNECTION_HEADERS.contains(&name.as_str())
            || named.iter().any(|one| one == name.as_str());
        if !own && !is_identity(name) {
            onward.append(name.clone(), value.clone());
        }
    }
    onward
}

fn onward_headers(headers: &HeaderMap, user: &UserInfo) -> Result<HeaderMap, ApiError> {
    let mut onward = anonymous_headers(headers);
    let mut add = |name: String, text: &str| -> Result<(), ApiError> {
        let name = HeaderName::try_from(name).map_err(ApiError::internal)?;
        let value = HeaderValue::from_bytes(text.as_bytes()).map_err(ApiError::internal)?;
        onward.append(name, value);
        Ok(())
    };
    add("x-remote-user".into(), &user.name)?;
    if !user.uid.is_empty() {
        add("x-remote-uid".into(), &user.uid)?;
    }
    for group in &user.groups {
        add("x-remote-group".into(), group)?;
    }
    for (key, values) in &user.extra {
        for value in values {
            add(format!("x-remote-extra-{}", escape(key)), value)?;
        }
    }
    Ok(onward)
}

/// A key of `extra` as part of a header's name: other bytes as `%XX`.
fn escape(key: &str) -> String {
    let mut out = String::new();
    for byte in key.to_ascii_lowercase().bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!#$&'*+^`|~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_say_who_it_is() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "root"),
            ("x-remote-group", "system:masters"),
            ("x-remote-extra-a", "b"),
            ("authorization", "Bearer x"),
            ("impersonate-user", "root"),
            ("accept", "application/json"),
            ("connection", "X-Remote-Group, x-hop, keep-alive"),
            ("x-hop", "1"),
            ("te", "trailers"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let mut user = UserInfo::new("jane", vec!["dev".to_string()]);
        user.extra
            .insert("example.com/Team".into(), vec!["a".into()]);
        let onward = onward_headers(&headers, &user).unwrap();
        let all = |name: &str| -> Vec<&str> {
            let values = onward.get_all(name).iter();
            values.map(|value| value.to_str().unwrap()).collect()
        };
        assert_eq!(all("x-remote-user"), ["jane"]);
        assert_eq!(all("x-remote-group"), ["dev", "system:authenticated"]);
        assert_eq!(all("x-remote-extra-example.com%2Fteam"), ["a"]);
        assert_eq!(all("accept"), ["application/json"]);
        for gone in [
            "x-remote-extra-a",
            "authorization",
            "impersonate-user",
            "connection",
            "x-hop",
            "te",
        ] {
            assert!(all(gone).is_empty(), "{gone}");
        }
    }
}
