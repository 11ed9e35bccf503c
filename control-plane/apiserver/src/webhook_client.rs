//! Calls of webhooks (admission, conversion): HTTPS to a URL or to a service of the cluster.
//!
//! A service is reached at one of its ready endpoints, or else at its cluster address: the API
//! server need not be on a machine whose kernel knows services. The certificate must be for
//! `NAME.NAMESPACE.svc` (or the URL's host) and signed by the configuration's `caBundle`.

use std::{io, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hull_api::{Kind, ObjectExt, kinds};
use hull_store::prefix_range;
use hull_tls::{AnyCertificate, RenewableCertificate};
use hyper::body::Incoming;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::Value;

use crate::{dial, limits, watch_cache::WatchCache};

/// Why a webhook gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(String),
    /// No connection.
    #[error("dial tcp {address}: {source}")]
    Connect { address: String, source: io::Error },
    /// The connection broke.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The request cannot be written.
    #[error("{0}")]
    Request(#[from] http::Error),
    /// An answer that is none.
    #[error("{0}")]
    Answer(String),
    /// Too slow.
    #[error("context deadline exceeded")]
    Timeout,
}

/// Where a webhook is.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    place: Place,
    path: String,
    tls: Arc<ClientConfig>,
    /// Longest answer that [`Client::post`] reads, in bytes.
    answer_limit: usize,
}

#[derive(Debug, Clone)]
enum Place {
    Url {
        host: String,
        port: u16,
    },
    Service {
        namespace: String,
        name: String,
        port: i64,
    },
}

fn config(why: impl Into<String>) -> CallError {
    CallError::Config(why.into())
}

impl Client {
    /// Reads a `clientConfig`.
    pub(crate) fn read(client: &Value) -> Result<Self, CallError> {
        Self::read_as(client, None)
    }

    /// Like [`Client::read`]; the server is shown a certificate. `insecureSkipTLSVerify` may
    /// take the place of authorities.
    pub(crate) fn read_as(
        client: &Value,
        identity: Option<&RenewableCertificate>,
    ) -> Result<Self, CallError> {
        let (place, path) = match client.get("service") {
            Some(service) => {
                let path = service.str_at("/path").trim_start_matches('/');
                let place = Place::Service {
                    namespace: service.str_at("/namespace").to_string(),
                    name: service.str_at("/name").to_string(),
                    port: service.int_at("/port").unwrap_or(443),
                };
                (place, format!("/{path}"))
            }
            None => {
                let uri: http::Uri = client
                    .str_at("/url")
                    .parse()
                    .map_err(|error| config(format!("url: {error}")))?;
                let host = uri.host().ok_or_else(|| config("url: it has no host"))?;
                let place = Place::Url {
                    host: host.trim_matches(['[', ']']).to_string(),
                    port: uri.port_u16().unwrap_or(443),
                };
                let path = uri.path_and_query();
                (
                    place,
                    path.map_or_else(|| "/".to_string(), ToString::to_string),
                )
            }
        };
        Ok(Client {
            place,
            path,
            tls: Arc::new(tls(client, identity)?),
            answer_limit: limits::MAX_BODY_BYTES,
        })
    }

    /// The same with another limit of the answers of [`Client::post`], in bytes.
    pub(crate) fn with_answer_limit(self, answer_limit: usize) -> Self {
        Client {
            answer_limit,
            ..self
        }
    }

    fn server_name(&self) -> String {
        match &self.place {
            Place::Url { host, .. } => host.clone(),
            Place::Service {
                namespace, name, ..
            } => format!("{name}.{namespace}.svc"),
        }
    }

    fn url_address(&self) -> Option<String> {
        match &self.place {
            Place::Url { host, port } if host.contains(':') => Some(format!("[{host}]:{port}")),
            Place::Url { host, port } => Some(format!("{host}:{port}")),
            Place::Service { .. } => None,
        }
    }

    fn address(&self, cache: &WatchCache) -> Result<String, CallError> {
        match (&self.place, self.url_address()) {
            (_, Some(address)) => Ok(address),
            (Place::Url { .. }, None) => Err(config("not a URL")),
            (
                Place::Service {
                    namespace,
                    name,
                    port,
                },
                None,
            ) => service_address(cache, namespace, name, *port),
        }
    }

    /// Sends JSON and returns the JSON of the answer, within `timeout`.
    pub(crate) async fn post(
        &self,
        cache: &WatchCache,
        body: &Value,
        timeout: Duration,
    ) -> Result<Value, CallError> {
        match tokio::time::timeout(timeout, self.send(cache, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Timeout),
        }
    }

    /// The JSON at the URL, within `timeout`.
    pub(crate) async fn get(&self, timeout: Duration) -> Result<Value, CallError> {
        let request = Request::get(&self.path)
            .header(header::ACCEPT, "application/json")
            .body(Full::default())?;
        let asked = async { self.json_of(self.exchange_at_url(request).await?).await };
        match tokio::time::timeout(timeout, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Timeout),
        }
    }

    async fn send(&self, cache: &WatchCache, body: &Value) -> Result<Value, CallError> {
        let request = Request::builder()
            .method(http::Method::POST)
            .uri(&self.path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))?;
        self.json_of(self.exchange(cache, request).await?).await
    }

    async fn json_of(&self, response: Response<Incoming>) -> Result<Value, CallError> {
        let status = response.status();
        let bytes = Limited::new(response.into_body(), self.answer_limit)
            .collect()
            .await
            .map_err(|error| CallError::Answer(error.to_string()))?
            .to_bytes();
        if !status.is_success() {
            return Err(CallError::Answer(format!(
                "the server answered with status {status}"
            )));
        }
        serde_json::from_slice(&bytes).map_err(|error| CallError::Answer(error.to_string()))
    }

    /// Sends a request on a connection of its own, which ends with the answer's body or lives on
    /// as what it was upgraded to.
    pub(crate) async fn exchange(
        &self,
        cache: &WatchCache,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, CallError> {
        let address = self.address(cache)?;
        self.exchange_at(address, request).await
    }

    /// Like [`Client::exchange`], for a URL.
    pub(crate) async fn exchange_at_url(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, CallError> {
        let address = self.url_address();
        let address = address.ok_or_else(|| config("not a URL"))?;
        self.exchange_at(address, request).await
    }

    /// The path of the URL or service.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    async fn exchange_at(
        &self,
        address: String,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, CallError> {
        let host = self.server_name();
        let name = ServerName::try_from(host.clone())
            .map_err(|error| config(format!("{host}: {error}")))?;
        let dialled = dial::connect_tls(&address, self.tls.clone(), name).await;
        let stream = dialled.map_err(|source| match source.kind() {
            io::ErrorKind::TimedOut => CallError::Timeout,
            _ => CallError::Connect { address, source },
        })?;
        let host = header::HeaderValue::from_str(&host).map_err(http::Error::from)?;
        request.headers_mut().insert(header::HOST, host);
        Ok(dial::exchange(stream, request).await?)
    }
}

/// The settings towards a server: its own authorities only.
fn tls(client: &Value, identity: Option<&RenewableCertificate>) -> Result<ClientConfig, CallError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| config(error.to_string()))?;
    let builder = if client.bool_at("/insecureSkipTLSVerify") {
        builder
            .dangerous()
            .with_custom_certificate_verifier(AnyCertificate::new(provider))
    } else {
        builder.with_root_certificates(authorities(client.str_at("/caBundle"))?)
    };
    Ok(match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_cert_resolver(Arc::new(identity.clone())),
    })
}

fn authorities(bundle: &str) -> Result<RootCertStore, CallError> {
    let mut roots = RootCertStore::empty();
    if bundle.is_empty() {
        return Err(config(
            "no caBundle: the authorities of the system are unimplemented for webhooks",
        ));
    }
    let pem = STANDARD
        .decode(bundle)
        .map_err(|error| config(format!("caBundle: {error}")))?;
    for cert in CertificateDer::pem_slice_iter(&pem) {
        let cert = cert.map_err(|error| config(format!("caBundle: {error}")))?;
        roots
            .add(cert)
            .map_err(|error| config(format!("caBundle: {error}")))?;
    }
    Ok(roots)
}

/// The label of an EndpointSlice that names its service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// One of the ready endpoints of a service, else its cluster address.
fn service_address(
    cache: &WatchCache,
    namespace: &str,
    name: &str,
    port: i64,
) -> Result<String, CallError> {
    let kind: &Kind = &kinds::SERVICES;
    let service = cache
        .get(kind.storage, &kind.key(namespace, name))
        .ok_or_else(|| config(format!("service {name:?} not found")))?;
    let service = service.kept();
    if service.str_at("/spec/type") == "ExternalName" {
        return Ok(format!("{}:{port}", service.str_at("/spec/externalName")));
    }
    let ports = service.list_at("/spec/ports");
    let wanted = ports
        .iter()
        .find(|one| one.int_at("/port") == Some(port))
        .ok_or_else(|| config(format!("no service port {port} found for service {name:?}")))?;
    let slices = &kinds::ENDPOINT_SLICES;
    let range = prefix_range(&slices.prefix(namespace));
    for slice in cache.snapshot(slices.storage, range).objects {
        if slice.label(SERVICE_NAME) != Some(name) {
            continue;
        }
        let slice = slice.kept();
        let target = slice
            .list_at("/ports")
            .iter()
            .find(|one| one.str_at("/name") == wanted.str_at("/name"))
            .and_then(|one| one.int_at("/port"));
        let is_ready = |one: &&Value| one.pointer("/conditions/ready") != Some(&Value::Bool(false));
        let endpoint = slice.list_at("/endpoints").iter().find(is_ready);
        if let (Some(target), Some(endpoint)) = (target, endpoint) {
            let address = endpoint.str_at("/addresses/0");
            return Ok(if address.contains(':') {
                format!("[{address}]:{target}")
            } else {
                format!("{address}:{target}")
            });
        }
    }
    match service.str_at("/spec/clusterIP") {
        "" | "None" => Err(config(format!(
            "no endpoints available for service {name:?}"
        ))),
        address => Ok(format!("{address}:{port}")),
    }
}
