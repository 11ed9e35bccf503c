//! Connections: to whichever member answers, with TLS through rustls.
//!
//! One channel serves all calls. When its connection breaks, the next call makes a new one: to
//! the member that served last, then to the others in turn.

use std::{
    future::Future,
    io,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::config::{ConfigError, Endpoint, EtcdConfig, TlsFiles};

/// Longest time to connect to one member, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection without traffic is asked for a sign of life this often. etcd refuses clients
/// that ask more often than every 5 seconds.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A connection that gives none within this time is dead.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that all calls together may have on the way to us. The HTTP/2 library also ends a
/// connection with half so much overhead of unread small answers, so this bounds how many calls
/// can be answered at once.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Bytes that one call may have on the way to us.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// No member could be connected to: nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.describe())]
pub(super) struct NoMember {
    attempts: Vec<(String, io::Error)>,
}

impl NoMember {
    fn describe(&self) -> String {
        let attempts: Vec<_> = self
            .attempts
            .iter()
            .map(|(endpoint, error)| format!("{endpoint}: {error}"))
            .collect();
        format!("no member could be connected to ({})", attempts.join("; "))
    }
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

struct Members {
    endpoints: Vec<Endpoint>,
    /// Where to begin.
    preferred: AtomicUsize,
    tls: Option<TlsConnector>,
}

/// Makes connections for a channel.
#[derive(Clone)]
pub(super) struct Connector {
    members: Arc<Members>,
}

impl Connector {
    pub(super) fn new(config: &EtcdConfig) -> Result<Self, ConfigError> {
        let tls = config.tls.as_ref().map(tls_connector).transpose()?;
        Ok(Connector {
            members: Arc::new(Members {
                endpoints: config.endpoints.clone(),
                preferred: AtomicUsize::new(0),
                tls,
            }),
        })
    }

    /// The next connection goes to another member, if there is one.
    pub(super) fn rotate(&self) {
        self.members.preferred.fetch_add(1, Ordering::Relaxed);
    }

    /// A channel that connects when it is first used.
    pub(super) fn channel(&self) -> tonic::transport::Channel {
        // The name is never resolved: the connector knows the members.
        tonic::transport::Endpoint::from_static("http://etcd")
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .connect_with_connector_lazy(self.clone())
    }
}

impl Members {
    async fn connect(&self) -> Result<TokioIo<Box<dyn Stream>>, NoMember> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut attempts = Vec::new();
        for offset in 0..self.endpoints.len() {
            let position = first.wrapping_add(offset);
            let endpoint = &self.endpoints[position % self.endpoints.len()];
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.open(endpoint)).await;
            match connected.unwrap_or_else(|_| {
                let reason = format!("no connection within {CONNECT_TIMEOUT:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, reason))
            }) {
                Ok(stream) => {
                    self.preferred.store(position, Ordering::Relaxed);
                    tracing::debug!(%endpoint, "connected to etcd");
                    return Ok(TokioIo::new(stream));
                }
                Err(error) => attempts.push((endpoint.to_string(), error)),
            }
        }
        Err(NoMember { attempts })
    }

    async fn open(&self, endpoint: &Endpoint) -> io::Result<Box<dyn Stream>> {
        let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(tcp));
        };
        let name = ServerName::try_from(endpoint.host.clone())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(Box::new(tls.connect(name, tcp).await?))
    }
}

impl tower::Service<http::Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = NoMember;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let members = self.members.clone();
        Box::pin(async move { members.connect().await })
    }
}

fn tls_connector(files: &TlsFiles) -> Result<TlsConnector, ConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("CA file of etcd", &files.ca)? {
        roots
            .add(certificate)
            .map_err(|source| unusable("CA file of etcd", &files.ca, source))?;
    }
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|source| unusable("CA file of etcd", &files.ca, source))?
            .with_root_certificates(roots);
    let mut config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates("client certificate for etcd", cert)?;
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|source| unusable("client key for etcd", key, source))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|source| unusable("client key for etcd", key, source))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|source| unusable(what, path, source))?;
    if found.is_empty() {
        let source = io::Error::new(io::ErrorKind::InvalidData, "no certificate in it");
        return Err(unusable(what, path, source));
    }
    Ok(found)
}

fn unusable(
    what: &'static str,
    path: &Path,
    source: impl std::error::Error + Send + Sync + 'static,
) -> ConfigError {
    ConfigError::File {
        what,
        path: path.to_owned(),
        source: Box::new(source),
    }
}
