//! Listens and answers, over UDP and TCP.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cache::{Cache, Key};
use super::forward::Forwarder;
use super::metrics::DnsMetrics;
use super::reply::{Query, Refusal, refuse};
use super::wire;
use super::zone::{Answer, Data, Zone};

/// The largest query that is read, in bytes.
const QUERY_LIMIT: usize = 4096;
/// TCP connections at a time; further ones wait.
const CONNECTIONS: usize = 256;
/// A TCP connection that says nothing is closed after this long.
const IDLE: Duration = Duration::from_secs(10);
/// How often an address that cannot be listened on is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Aliases of the cluster that are followed for one query.
const ALIASES: usize = 8;
/// How many ports are tried where any will do.
const FREE_PORTS: u32 = 16;

/// What answers: the zone, the cache, others.
pub struct Resolver {
    zone: Arc<RwLock<Zone>>,
    forwarder: Forwarder,
    cache: Mutex<Cache>,
    metrics: DnsMetrics,
}

impl Resolver {
    /// A resolver over a zone that somebody else keeps.
    pub fn new(zone: Arc<RwLock<Zone>>, forwarder: Forwarder, metrics: DnsMetrics) -> Self {
        Resolver {
            zone,
            forwarder,
            cache: Mutex::default(),
            metrics,
        }
    }

    /// The answer to a message, if it deserves one; over UDP cut to what the client takes.
    pub async fn resolve(&self, message: &[u8], udp: bool) -> Option<Vec<u8>> {
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(Refusal::Silence) => return None,
            Err(Refusal::Code(code)) => {
                self.metrics.count("none", code as u8);
                return refuse(message, code);
            }
        };
        let (source, response) = self.answer(&query).await?;
        self.metrics.count(source, wire::response_code(&response));
        if udp && response.len() > query.datagram_limit() {
            return Some(wire::truncate(&response));
        }
        Some(response)
    }

    async fn answer(&self, query: &Query<'_>) -> Option<(&'static str, Vec<u8>)> {
        let labels = query.labels();
        let (answer, domain, known) = {
            let zone = self.zone.read();
            let answer = zone.answer(&labels, query.want());
            let known = zone.knows(&answer);
            (answer, zone.domain(), known)
        };
        match &answer {
            _ if !known => Some(("none", query.code(simple_dns::RCODE::ServerFailure)?)),
            Answer::NotOurs => {
                let asked = query.onward()?;
                Some(self.elsewhere(&labels, &asked, query).await)
            }
            Answer::Records(records) => {
                let alias = match records.as_slice() {
                    [Data::Cname(name)] => self.follow(name, query).await,
                    _ => None,
                };
                Some(("zone", query.answer(&answer, &domain, alias.as_deref())?))
            }
            Answer::NoName => Some(("zone", query.answer(&answer, &domain, None)?)),
        }
    }

    /// The answer to what an alias stands for, which may be an alias of the cluster again.
    async fn follow(&self, name: &str, query: &Query<'_>) -> Option<Vec<u8>> {
        let mut name = name.to_string();
        for _ in 0..ALIASES {
            let labels: Vec<String> = name.split('.').map(str::to_string).collect();
            let asked = query.onward_for(&name)?;
            let (answer, domain) = {
                let zone = self.zone.read();
                (zone.answer(&labels, query.want()), zone.domain())
            };
            match &answer {
                Answer::NotOurs => return Some(self.elsewhere(&labels, &asked, query).await.1),
                Answer::Records(records) => match records.as_slice() {
                    [Data::Cname(next)] => name.clone_from(next),
                    _ => return Query::parse(&asked).ok()?.answer(&answer, &domain, None),
                },
                Answer::NoName => {
                    return Query::parse(&asked).ok()?.answer(&answer, &domain, None);
                }
            }
        }
        query.code(simple_dns::RCODE::ServerFailure)
    }

    async fn elsewhere(
        &self,
        labels: &[String],
        asked: &[u8],
        query: &Query<'_>,
    ) -> (&'static str, Vec<u8>) {
        let key = Key::of(asked, query.edns());
        let now = Instant::now();
        let kept = key
            .as_ref()
            .and_then(|key| self.cache.lock().get(key, asked, now));
        if let Some(kept) = kept {
            return ("cache", kept);
        }
        let outcome = self.forwarder.ask(labels, asked).await;
        let seconds = now.elapsed().as_secs_f64();
        self.metrics.upstream_seconds.observe(seconds);
        match outcome {
            Ok(response) => {
                if let Some(key) = key {
                    self.cache.lock().put(key, &response, Instant::now());
                }
                ("upstream", response)
            }
            Err(error) => {
                tracing::debug!(name = labels.join("."), %error, "no answer from upstream");
                let code = simple_dns::RCODE::ServerFailure;
                ("none", query.code(code).unwrap_or_default())
            }
        }
    }
}

/// Serves on an address until `shutdown`; one that cannot be listened on is tried again.
pub async fn run(address: SocketAddr, resolver: Arc<Resolver>, shutdown: CancellationToken) {
    let mut told = false;
    while !shutdown.is_cancelled() {
        match listen(address).await {
            Ok((udp, tcp)) => {
                tracing::info!(%address, "cluster DNS listens");
                tokio::select! {
                    () = serve_udp(udp, resolver.clone()) => {}
                    () = serve_tcp(tcp, resolver.clone()) => {}
                    () = shutdown.cancelled() => return,
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%address, %error, "cluster DNS cannot listen; trying again");
                }
            }
        }
        let sleep = tokio::time::sleep(RETRY);
        let _ = shutdown.run_until_cancelled(sleep).await;
    }
}

/// Both sockets of an address; with port 0 both have the same free port.
///
/// # Errors
/// One of them cannot be had.
pub async fn listen(address: SocketAddr) -> std::io::Result<(UdpSocket, TcpListener)> {
    let mut left = if address.port() == 0 { FREE_PORTS } else { 1 };
    loop {
        let udp = UdpSocket::bind(address).await?;
        left -= 1;
        match TcpListener::bind(udp.local_addr()?).await {
            // What is free for datagrams may be taken by a connection.
            Err(error) if error.kind() == ErrorKind::AddrInUse && left > 0 => {}
            tcp => return Ok((udp, tcp?)),
        }
    }
}

/// Answers datagrams, each in a task of its own: one that waits for upstream holds up no other.
pub async fn serve_udp(socket: UdpSocket, resolver: Arc<Resolver>) {
    let socket = Arc::new(socket);
    let tasks = TaskTracker::new();
    let mut buffer = vec![0; QUERY_LIMIT];
    loop {
        // An error is an ICMP message about an earlier answer.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let (message, socket, resolver) =
            (buffer[..length].to_vec(), socket.clone(), resolver.clone());
        tasks.spawn(async move {
            if let Some(response) = resolver.resolve(&message, true).await {
                let _ = socket.send_to(&response, client).await;
            }
        });
    }
}

/// Answers on connections.
pub async fn serve_tcp(listener: TcpListener, resolver: Arc<Resolver>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let resolver = resolver.clone();
        tokio::spawn(async move {
            let _slot = slot;
            // A client that hangs up is none of our errors.
            let _ = connection(stream, &resolver).await;
        });
    }
}

async fn connection(mut stream: TcpStream, resolver: &Resolver) -> std::io::Result<()> {
    loop {
        let length = tokio::time::timeout(IDLE, stream.read_u16()).await??;
        if usize::from(length) > QUERY_LIMIT {
            return Ok(());
        }
        let mut message = vec![0; length.into()];
        tokio::time::timeout(IDLE, stream.read_exact(&mut message)).await??;
        let Some(response) = resolver.resolve(&message, false).await else {
            return Ok(());
        };
        let Ok(length) = u16::try_from(response.len()) else {
            return Ok(());
        };
        let framed = [&length.to_be_bytes()[..], &response].concat();
        tokio::time::timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
