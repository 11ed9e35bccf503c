//! `pods/NAME/proxy`, `services/NAME/proxy` and `nodes/NAME/proxy`: HTTP to what runs in the
//! cluster, for clients that reach the API server only.
//!
//! ```text
//!   …/pods/[SCHEME:]NAME[:PORT]/proxy/PATH ──► place: where that is, if it may be reached
//!                                         ──► exchange: the request without the client's
//!                                              identity, on a connection of its own
//!   answer ◄── links: Location and the links of HTML pages lead through the proxy again
//! ```
//!
//! Nothing of what a backend answers is followed here: redirects go to the client. Connections
//! that a backend upgrades (WebSocket) are joined with the client's, bytes go through untouched.

mod exchange;
mod html;
mod links;
mod place;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use hull_api::{ApiError, registry::Subresource};
use hyper::upgrade::OnUpgrade;

use crate::{ApiBody, body, service::Shared};

/// A request to be passed on.
pub(crate) struct Proxied<'a> {
    pub part: Subresource,
    pub namespace: &'a str,
    /// `[SCHEME:]NAME[:PORT]`.
    pub id: &'a str,
    pub method: Method,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    pub body: ApiBody,
    pub upgrade: Option<OnUpgrade>,
}

/// The path up to and with `/proxy`, and what comes after it, as the client wrote them.
pub(crate) fn split_path(path: &str, namespaced: bool) -> (&str, &str) {
    // /api/v1/namespaces/NS/pods/NAME/proxy, /api/v1/nodes/NAME/proxy
    let segments = if namespaced { 7 } else { 5 };
    let end = path
        .match_indices('/')
        .nth(segments)
        .map_or(path.len(), |(at, _)| at);
    path.split_at(end)
}

/// Passes a request on that was authorised and admitted.
pub(crate) async fn serve(
    shared: &Shared,
    request: Proxied<'_>,
) -> Result<Response<ApiBody>, ApiError> {
    let namespaced = request.part != Subresource::NodeProxy;
    let (prefix, path) = split_path(request.uri.path(), namespaced);
    let place = place::find(&shared.backend, request.part, request.namespace, request.id).await?;
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    if path.is_empty() && reads && !request.headers.contains_key(header::UPGRADE) {
        // Relative links of the page would lead beside it.
        return moved(prefix, request.uri.query());
    }
    let prefix = prefix.to_string();
    exchange::exchange(&shared.node_tls, &place, request, prefix).await
}

fn moved(prefix: &str, query: Option<&str>) -> Result<Response<ApiBody>, ApiError> {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{prefix}/{query}"));
    let mut response = Response::new(body::full(""));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location.map_err(ApiError::internal)?);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_after_the_proxy_is_taken_as_it_is() {
        for (path, namespaced, prefix, rest) in [
            (
                "/api/v1/namespaces/a/pods/b:80/proxy/x%2Fy//z/",
                true,
                "/api/v1/namespaces/a/pods/b:80/proxy",
                "/x%2Fy//z/",
            ),
            (
                "/api/v1/namespaces/a/services/b/proxy",
                true,
                "/api/v1/namespaces/a/services/b/proxy",
                "",
            ),
            (
                "/api/v1/nodes/n/proxy/",
                false,
                "/api/v1/nodes/n/proxy",
                "/",
            ),
        ] {
            assert_eq!(split_path(path, namespaced), (prefix, rest));
        }
    }
}
