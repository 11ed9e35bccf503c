//! Health check ports: a load balancer in front of the cluster asks each node whether it has
//! endpoints of a Service whose external traffic policy is Local.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use parking_lot::RwLock;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::model::ServiceKey;

/// What one port answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Of which Service.
    pub service: ServiceKey,
    /// Its endpoints on this node.
    pub local_endpoints: usize,
}

struct Server {
    health: Arc<RwLock<Health>>,
    stop: CancellationToken,
}

/// The servers, by port.
#[derive(Default)]
pub struct HealthServers {
    servers: BTreeMap<u16, Server>,
    tasks: JoinSet<()>,
}

impl HealthServers {
    /// Starts, changes and stops servers until there is one per entry. A port that is taken is
    /// logged and tried again at the next change.
    pub async fn set(&mut self, wanted: &BTreeMap<u16, Health>) {
        self.servers.retain(|port, server| {
            let keep = wanted.contains_key(port);
            if !keep {
                server.stop.cancel();
            }
            keep
        });
        while self.tasks.try_join_next().is_some() {}
        for (port, health) in wanted {
            if let Some(server) = self.servers.get(port) {
                *server.health.write() = health.clone();
                continue;
            }
            match listen(*port).await {
                Ok(listener) => {
                    let server = Server {
                        health: Arc::new(RwLock::new(health.clone())),
                        stop: CancellationToken::new(),
                    };
                    self.tasks
                        .spawn(serve(listener, server.health.clone(), server.stop.clone()));
                    self.servers.insert(*port, server);
                }
                Err(error) => {
                    let service = health.service.to_string();
                    tracing::warn!(port, service, %error, "health check port cannot be served");
                }
            }
        }
    }
}

/// On both IP versions; on IPv4 where the kernel has no IPv6.
async fn listen(port: u16) -> std::io::Result<TcpListener> {
    let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
    match TcpListener::bind(any).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port)).await,
    }
}

async fn serve(listener: TcpListener, health: Arc<RwLock<Health>>, stop: CancellationToken) {
    let router = axum::Router::new().fallback(get(answer)).with_state(health);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::warn!(%error, "health check server ended");
    }
}

async fn answer(State(health): State<Arc<RwLock<Health>>>) -> Response {
    let health = health.read().clone();
    let code = if health.local_endpoints == 0 {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    let body = json!({
        "service": {"namespace": health.service.namespace, "name": health.service.name},
        "localEndpoints": health.local_endpoints,
        "serviceProxyHealthy": true,
    });
    (code, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn ask(port: u16) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    #[tokio::test]
    async fn port_says_whether_endpoints_are_here_and_goes_with_the_service() {
        let port = {
            let probe = TcpListener::bind("127.0.0.1:0").await.unwrap();
            probe.local_addr().unwrap().port()
        };
        let health = |local_endpoints| Health {
            service: ServiceKey {
                namespace: "a".into(),
                name: "web".into(),
            },
            local_endpoints,
        };
        let mut servers = HealthServers::default();
        servers.set(&[(port, health(2))].into()).await;
        let text = ask(port).await.unwrap();
        assert!(
            text.starts_with("HTTP/1.1 200") && text.contains("\"localEndpoints\":2"),
            "{text}"
        );
        servers.set(&[(port, health(0))].into()).await;
        assert!(ask(port).await.unwrap().starts_with("HTTP/1.1 503"));
        servers.set(&BTreeMap::new()).await;
        servers.tasks.join_next().await;
        assert!(ask(port).await.is_err());
    }
}
