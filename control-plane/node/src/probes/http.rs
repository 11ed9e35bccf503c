//! One HTTP GET as kubelet makes it: for httpGet probes and lifecycle hooks. Certificates are not
//! checked, headers are the pod's, and a redirect is followed while it stays on the host.

use std::sync::Arc;

use http_body_util::Empty;
use hyper::Uri;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{HTTPGetAction, HTTPHeader};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Redirects that are followed at most.
const MAX_REDIRECTS: usize = 10;
/// What the application sees in its log.
const USER_AGENT: &str = "kube-probe/1.36";

/// What the application answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A status code.
    Status(u16),
    /// A redirect to another host, which is not followed.
    Elsewhere(String),
}

impl Answer {
    /// Kubernetes' rule: 200 to 399 is success, and so is a redirect to another host.
    pub(crate) fn is_success(&self) -> bool {
        match self {
            Answer::Status(code) => (200..400).contains(code),
            Answer::Elsewhere(_) => true,
        }
    }
}

/// Asks `host`:`port` as `action` says; the error is the dial's or the protocol's.
pub(crate) async fn get(action: &HTTPGetAction, host: &str, port: u16) -> Result<Answer, String> {
    let path = action.path.as_deref().unwrap_or_default();
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut place = Place {
        tls: action.scheme.as_deref() == Some("HTTPS"),
        host: host.to_owned(),
        port,
        path: format!("{slash}{path}"),
    };
    let headers = action.http_headers.as_deref().unwrap_or_default();
    for _ in 0..=MAX_REDIRECTS {
        let (code, location) = ask(&place, headers).await?;
        let Some(location) = location.filter(|_| matches!(code, 301 | 302 | 303 | 307 | 308))
        else {
            return Ok(Answer::Status(code));
        };
        match place.moved(&location)? {
            Some(next) => place = next,
            None => return Ok(Answer::Elsewhere(location)),
        }
    }
    Err(format!(
        "Get \"{}\": stopped after {MAX_REDIRECTS} redirects",
        place.url()
    ))
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl Place {
    fn authority(&self) -> String {
        if self.host.contains(':') {
            return format!("[{}]:{}", self.host, self.port);
        }
        format!("{}:{}", self.host, self.port)
    }

    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }

    /// Where a redirect leads; `None` when to another host.
    fn moved(&self, location: &str) -> Result<Option<Place>, String> {
        let uri: Uri = location
            .parse()
            .map_err(|error| format!("redirect to {location:?}: {error}"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let Some(host) = uri.host() else {
            let path = path.to_owned();
            return Ok(Some(Place {
                path,
                ..self.clone()
            }));
        };
        let host = host.trim_matches(['[', ']']);
        if host != self.host {
            return Ok(None);
        }
        let tls = uri.scheme_str() == Some("https");
        Ok(Some(Place {
            tls,
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: path.to_owned(),
        }))
    }
}

/// One request; the status and where it redirects to.
async fn ask(place: &Place, headers: &[HTTPHeader]) -> Result<(u16, Option<String>), String> {
    let failed = |error: &dyn std::fmt::Display| format!("Get \"{}\": {error}", place.url());
    let stream = TcpStream::connect((place.host.as_str(), place.port))
        .await
        .map_err(|error| failed(&format!("dial tcp {}: {error}", place.authority())))?;
    if !place.tls {
        return exchange(stream, place, headers)
            .await
            .map_err(|error| failed(&error));
    }
    let name = ServerName::try_from(place.host.clone()).map_err(|error| failed(&error))?;
    // A probe asks whether the application answers, not who it is.
    let config = hull_tls::any_certificate().map_err(|error| failed(&error))?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|error| failed(&error))?;
    exchange(stream, place, headers)
        .await
        .map_err(|error| failed(&error))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: &Place,
    headers: &[HTTPHeader],
) -> Result<(u16, Option<String>), String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let mut request = hyper::Request::get(&place.path);
    let named = |name: &str| headers.iter().any(|h| h.name.eq_ignore_ascii_case(name));
    for (name, value) in [
        ("host", place.authority()),
        ("user-agent", USER_AGENT.to_owned()),
        ("accept", "*/*".to_owned()),
    ] {
        if !named(name) {
            request = request.header(name, value);
        }
    }
    for header in headers {
        request = request.header(&header.name, &header.value);
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await;
    driver.abort();
    let answer = answer.map_err(|error| error.to_string())?;
    let location = answer.headers().get("location");
    let location = location.and_then(|value| value.to_str().ok());
    Ok((answer.status().as_u16(), location.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderMap, StatusCode};
    use axum::response::Redirect;
    use axum::routing::get as route;
    use rustls::pki_types::CertificateDer;
    use serde_json::json;
    use tokio_rustls::TlsAcceptor;

    fn action(scheme: &str, path: &str) -> HTTPGetAction {
        serde_json::from_value(json!({"port": 1, "scheme": scheme, "path": path,
            "httpHeaders": [{"name": "Host", "value": "site.example"}]}))
        .unwrap()
    }

    fn router() -> axum::Router {
        axum::Router::new()
            .route("/bad", route(|| async { StatusCode::SERVICE_UNAVAILABLE }))
            .route("/near", route(|| async { Redirect::temporary("/bad") }))
            .route(
                "/far",
                route(|| async { Redirect::temporary("http://192.0.2.7/") }),
            )
            .route("/loop", route(|| async { Redirect::temporary("/loop") }))
            .route(
                "/host",
                route(|headers: HeaderMap| async move {
                    let agent = headers["user-agent"]
                        .to_str()
                        .unwrap()
                        .starts_with("kube-probe/");
                    let host = headers["host"] == "site.example";
                    if agent && host {
                        StatusCode::OK
                    } else {
                        StatusCode::BAD_REQUEST
                    }
                }),
            )
    }

    #[tokio::test]
    async fn redirects_are_followed_on_the_same_host_only() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router()).await.unwrap() });
        let ask = async |path: &str| get(&action("HTTP", path), "127.0.0.1", port).await;
        assert_eq!(ask("host").await, Ok(Answer::Status(200)));
        assert_eq!(ask("/near").await, Ok(Answer::Status(503)));
        let far = ask("/far").await.unwrap();
        assert_eq!(far, Answer::Elsewhere("http://192.0.2.7/".into()));
        assert!(far.is_success());
        assert!(
            ask("/loop")
                .await
                .unwrap_err()
                .contains("stopped after 10 redirects")
        );
    }

    #[tokio::test]
    async fn https_takes_any_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let pki =
            hull_apiserver::pki::ClusterPki::load_or_create(directory.path().join("pki"), &[])
                .unwrap();
        let pair = pki.kubelet_serving("other.example", &[]).unwrap();
        use rustls::pki_types::pem::PemObject;
        let chain = CertificateDer::pem_slice_iter(pair.cert_pem.as_bytes())
            .map(|certificate| certificate.unwrap())
            .collect();
        let key =
            rustls::pki_types::PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.unwrap();
            let service = hyper_util::service::TowerToHyperService::new(router());
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        let answer = get(&action("HTTPS", "/host"), "127.0.0.1", port).await;
        assert_eq!(answer, Ok(Answer::Status(200)));
        let refused = get(&action("HTTP", "/host"), "127.0.0.1", 1).await;
        assert!(refused.unwrap_err().contains("dial tcp 127.0.0.1:1: "));
    }
}
