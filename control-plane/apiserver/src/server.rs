//! Start, accept, stop.

use std::{future::Future, net::SocketAddr, sync::Arc};

use hull_store::Store;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    ApiServerConfig, LocalService, ServerError, UserInfo,
    admission::{dynamic::Dynamic, resource_quota::QuotaTurns},
    aggregation::{self, Aggregation},
    audit::Source,
    auth::tokens::{SigningKey, Tokens},
    authorization::{self, Authorizer},
    bootstrap,
    custom_resources::{self, Conversions, ServedKinds},
    flow_control::{self, FlowControl},
    handlers::{Backend, sweep_events},
    limits,
    metrics::Metrics,
    pki::ClusterPki,
    service::{self, Shared},
    service_network,
    storage::Storage,
    tls::{self, Identities},
    watch_cache::{self, WatchCache},
};

/// A running API server: its cache follows the store for as long as it lives.
pub struct ApiServer {
    shared: Arc<Shared>,
    tls: Arc<ServerConfig>,
    identities: Identities,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    advertise: Option<SocketAddr>,
}

impl ApiServer {
    /// Loads the store, creates the namespaces that every cluster has, and starts to follow
    /// the store. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the store cannot be read or the certificates do not fit together.
    pub async fn new(
        config: ApiServerConfig,
        store: Arc<dyn Store>,
    ) -> Result<Arc<Self>, ServerError> {
        let identities = Identities::new(&config.pki)?;
        let tls = Arc::new(tls::server_config(&config.pki, &identities)?);
        let node_tls = Arc::new(tls::node_client_config(&config.pki, &identities)?);
        let storage = Storage::new(store.clone());
        bootstrap::create_namespaces(&storage)
            .await
            .map_err(ServerError::Bootstrap)?;
        bootstrap::create_priority_classes(&storage)
            .await
            .map_err(ServerError::Bootstrap)?;
        authorization::reconcile(&storage)
            .await
            .map_err(ServerError::Bootstrap)?;
        flow_control::create_configuration(&storage)
            .await
            .map_err(ServerError::Bootstrap)?;
        aggregation::publish_authentication(&storage, &config.pki)
            .await
            .map_err(ServerError::Bootstrap)?;
        let cache = Arc::new(WatchCache::new());
        let loaded = watch_cache::load(&cache, store.as_ref()).await?;
        let kinds = Arc::new(ServedKinds::new());
        custom_resources::serve(&cache, &kinds);
        let key = SigningKey::from_pem(config.pki.service_account_key())?;
        let tokens = Tokens::new(key, cache.clone(), storage.clone());
        let mut registry = config.registry;
        let backend = Arc::new(Backend {
            storage,
            cache: cache.clone(),
            kinds,
            service_network: config.service_network,
            authorizer: Authorizer::new(cache.clone()),
            tokens,
            issuers: config.issuers,
            quota_turns: QuotaTurns::default(),
            flow_control: FlowControl::new(&mut registry),
            metrics: Metrics::new(registry),
            aggregation: Aggregation::new(identities.front_proxy.clone()),
            conversions: Conversions::default(),
            dynamic: Dynamic::default(),
            bookmark_interval: config.bookmark_interval,
            extension_timeout: config.extension_timeout,
            request_timeout: config.request_timeout,
            service_account_admission: config.service_account_admission,
        });
        let feed = tokio::spawn(watch_cache::run(cache, store, loaded));
        let definitions = tokio::spawn(custom_resources::run(backend.clone()));
        let extensions = tokio::spawn(aggregation::run(backend.clone()));
        let sweeper = tokio::spawn(sweep(backend.clone(), config.event_ttl));
        Ok(Arc::new(ApiServer {
            shared: Arc::new(Shared {
                backend,
                node_tls,
                resource_metrics: crate::resource_metrics::ResourceMetrics::default(),
                audit: config.audit,
            }),
            tls,
            identities,
            tasks: vec![feed, sweeper, definitions, extensions],
            advertise: config.advertise,
        }))
    }

    /// Takes certificates that were issued anew, of the same CA: connections are made with them
    /// from now on, those that are open stay.
    ///
    /// # Errors
    /// When a key is not its certificate's.
    pub fn use_certificates(&self, pki: &ClusterPki) -> Result<(), ServerError> {
        self.identities.replace(pki)
    }

    /// The server as a service in this process, for `user`: no socket, same rules.
    pub fn local_service(&self, user: UserInfo) -> LocalService {
        LocalService::new(self.shared.clone(), user)
    }

    /// Serves TLS connections (HTTP/1.1 and HTTP/2) until `shutdown` resolves, then lets
    /// requests finish for a moment.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServerError> {
        let backend = &self.shared.backend;
        let at = match self.advertise {
            Some(at) => at,
            None => listener.local_addr().map_err(ServerError::Listen)?,
        };
        service_network::publish(&backend.storage, &backend.service_network, at)
            .await
            .map_err(ServerError::Bootstrap)?;
        let acceptor = TlsAcceptor::from(self.tls.clone());
        let permits = Arc::new(Semaphore::new(limits::MAX_CONNECTIONS));
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accept = async {
                let permit = permits.clone().acquire_owned().await.ok();
                (listener.accept().await, permit)
            };
            let (accepted, permit) = tokio::select! {
                () = &mut shutdown => break,
                accepted = accept => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let connection = Connection {
                        shared: self.shared.clone(),
                        acceptor: acceptor.clone(),
                        stopped: stopped.clone(),
                        peer,
                        _permit: permit,
                    };
                    tokio::spawn(async move {
                        if let Err(error) = connection.serve(stream).await {
                            tracing::debug!(%peer, %error, "connection ended");
                        }
                    });
                }
                // Out of descriptors, or a client that left: the next one may do better.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
        stop.send_replace(true);
        // Every connection holds a permit until it ends.
        let all = u32::try_from(limits::MAX_CONNECTIONS).unwrap_or(u32::MAX);
        if tokio::time::timeout(limits::DRAIN_TIMEOUT, permits.acquire_many(all))
            .await
            .is_err()
        {
            tracing::info!("connections were still open at shutdown");
        }
        Ok(())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn sweep(backend: Arc<Backend>, ttl: std::time::Duration) {
    let mut ticks = tokio::time::interval(limits::EVENT_SWEEP_INTERVAL.min(ttl));
    loop {
        ticks.tick().await;
        match sweep_events(&backend, ttl, jiff::Timestamp::now()).await {
            Ok(0) => {}
            Ok(removed) => tracing::debug!(removed, "expired events removed"),
            Err(error) => tracing::warn!(%error, "cannot remove expired events"),
        }
    }
}

struct Connection {
    shared: Arc<Shared>,
    acceptor: TlsAcceptor,
    stopped: tokio::sync::watch::Receiver<bool>,
    peer: SocketAddr,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    async fn serve(
        mut self,
        stream: TcpStream,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        // Small answers must not wait for more data.
        stream.set_nodelay(true)?;
        let stream =
            tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await??;
        let user = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|certs| certs.first())
            .and_then(tls::user_of)
            .unwrap_or_else(UserInfo::anonymous);
        let user = Arc::new(user);
        let shared = self.shared.clone();
        let source = Source(self.peer.ip());
        let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(source);
            let (shared, user) = (shared.clone(), user.clone());
            async move {
                Ok::<_, std::convert::Infallible>(service::serve(&shared, &user, request).await)
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits::HEADER_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(limits::PING_INTERVAL));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => return result,
            _ = self.stopped.wait_for(|stopped| *stopped) => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }
}
