//! Connections to other servers: node agents, webhooks, servers that extend the API, and what is
//! reached through proxies.
//!
//! A machine that loses its power or its network closes no connection: without being asked, a
//! connection to it would stay as it is for ever, and so would a watch or a stream that is passed
//! on through it. So the kernel asks a peer that is silent, and gives up one that acknowledges
//! nothing.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use hull_timeouts::scaled;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::limits;

/// When a silent peer counts as gone.
#[derive(Debug, Clone, Copy)]
struct Vigilance {
    /// Silence before the first question (keepalive probe), in whole seconds.
    idle: Duration,
    /// Between two questions, in whole seconds.
    interval: Duration,
    /// Questions without an answer.
    probes: u32,
}

const PEERS: Vigilance = Vigilance {
    idle: limits::PEER_IDLE,
    interval: limits::PEER_PROBE_INTERVAL,
    probes: limits::PEER_PROBES,
};

impl Vigilance {
    fn watch_over(self, stream: &TcpStream) -> io::Result<()> {
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let limit = self.idle + self.interval * self.probes;
        let limit = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        setsockopt(stream, sockopt::KeepAlive, &true)?;
        setsockopt(stream, sockopt::TcpKeepIdle, &seconds(self.idle))?;
        setsockopt(stream, sockopt::TcpKeepInterval, &seconds(self.interval))?;
        setsockopt(stream, sockopt::TcpKeepCount, &self.probes)?;
        // The same for what was sent and is not acknowledged: no questions are asked then.
        setsockopt(stream, sockopt::TcpUserTimeout, &limit)?;
        Ok(())
    }
}

/// Connects to `HOST:PORT` with TLS, within [`limits::CONNECT_TIMEOUT`] (scaled).
pub(crate) async fn connect_tls(
    address: &str,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> io::Result<TlsStream<TcpStream>> {
    let dial = async {
        let stream = connect(address).await?;
        TlsConnector::from(config).connect(name, stream).await
    };
    in_time(dial).await
}

/// Connects to `HOST:PORT` without TLS, within [`limits::CONNECT_TIMEOUT`] (scaled).
pub(crate) async fn connect_plain(address: &str) -> io::Result<TcpStream> {
    in_time(connect(address)).await
}

async fn in_time<T>(dial: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let limit = scaled(limits::CONNECT_TIMEOUT);
    match tokio::time::timeout(limit, dial).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "timed out")),
    }
}

/// Sends a request on a connection of its own (HTTP/1.1), which ends with the answer's body or
/// lives on as what it was upgraded to.
pub(crate) async fn exchange<S, B>(
    stream: S,
    request: Request<B>,
) -> Result<Response<Incoming>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to another server ended");
        }
    });
    // The connection lives in its own task; keeping the sender until here is enough.
    sender.send_request(request).await
}

/// Connects to `HOST:PORT`.
async fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Interactive streams are small writes.
    stream.set_nodelay(true)?;
    PEERS.watch_over(&stream)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Instant};

    use nix::sched::{CloneFlags, unshare};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    const QUICK: Vigilance = Vigilance {
        idle: Duration::from_secs(1),
        interval: Duration::from_secs(1),
        probes: 1,
    };

    fn loopback(state: &str) {
        let set = ["link", "set", "lo", state];
        assert!(Command::new("ip").args(set).status().unwrap().success());
    }

    /// A connection whose packets are dropped without a word; `sent`: with a message under way.
    async fn silenced(vigilance: Vigilance, sent: bool) -> io::Error {
        loopback("up");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (ours, theirs) = tokio::join!(connect(&address), listener.accept());
        let (mut ours, (mut theirs, _)) = (ours.unwrap(), theirs.unwrap());
        vigilance.watch_over(&ours).unwrap();
        ours.write_all(b"?").await.unwrap();
        assert_eq!(theirs.read_u8().await.unwrap(), b'?');
        loopback("down");
        if sent {
            ours.write_all(b"?").await.unwrap();
        }
        let read = tokio::time::timeout(Duration::from_secs(20), ours.read_u8());
        read.await.expect("an end in time").unwrap_err()
    }

    #[test]
    fn a_peer_that_vanished_is_noticed() {
        // A network of its own, which can be switched off.
        let test = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            for sent in [false, true] {
                let began = Instant::now();
                let error = runtime.block_on(silenced(QUICK, sent));
                println!("sent: {sent}, after {:?}: {error}", began.elapsed());
            }
        });
        test.join().unwrap();
    }

    #[tokio::test]
    async fn every_connection_is_watched_over() {
        use nix::sys::socket::getsockopt;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stream = connect(&address).await.unwrap();
        assert!(getsockopt(&stream, sockopt::KeepAlive).unwrap());
        let limit = getsockopt(&stream, sockopt::TcpUserTimeout).unwrap();
        assert_eq!(Duration::from_millis(limit.into()), limits::PEER_TIMEOUT);
    }
}
