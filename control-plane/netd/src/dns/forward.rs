//! Names that are not the cluster's: asked of a stub domain's servers or of the upstream ones, one
//! after the other, over UDP and, where an answer does not fit, TCP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::wire;

/// How long one server may take.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
/// Questions under way at a time; more are refused with a server failure.
const CONCURRENCY: usize = 1024;
/// The largest answer over UDP that is taken, in bytes.
const UDP_LIMIT: usize = 4096;
/// The port of DNS servers that name none.
pub const PORT: u16 = 53;

/// Why nobody answered.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// There is nobody to ask.
    #[error("no upstream server is configured")]
    NoServer,
    /// Too much is under way.
    #[error("{CONCURRENCY} questions are under way already")]
    Busy,
    /// The last server's failure.
    #[error("ask {server}: {source}")]
    Server {
        /// Which.
        server: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Whom to ask.
pub struct Forwarder {
    /// Servers by domain; the labels of a domain are in lower case.
    stubs: Vec<(Vec<String>, Vec<SocketAddr>)>,
    upstreams: Vec<SocketAddr>,
    timeout: Duration,
    slots: Semaphore,
}

/// The name servers of a resolv.conf, without `own`, on which this process would meet itself.
pub fn system_servers(resolv_conf: &Path, own: &[IpAddr]) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(resolv_conf).unwrap_or_default();
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        words.next()?.parse::<IpAddr>().ok()
    });
    servers
        .filter(|server| !own.contains(server))
        .map(|server| SocketAddr::new(server, PORT))
        .collect()
}

impl Forwarder {
    /// A forwarder to `upstreams`, and to others for the names below some domains.
    pub fn new(
        stubs: impl IntoIterator<Item = (String, Vec<SocketAddr>)>,
        upstreams: Vec<SocketAddr>,
        timeout_scale: f64,
    ) -> Self {
        let labels = |domain: &str| -> Vec<String> {
            let labels = domain.trim_matches('.').split('.');
            labels.map(str::to_lowercase).collect()
        };
        let mut stubs: Vec<_> = stubs
            .into_iter()
            .map(|(domain, servers)| (labels(&domain), servers))
            .collect();
        // The longest domain that fits is the first one found.
        stubs.sort_by_key(|(domain, _)| std::cmp::Reverse(domain.len()));
        Forwarder {
            stubs,
            upstreams,
            timeout: SERVER_TIMEOUT.mul_f64(timeout_scale.max(0.01)),
            slots: Semaphore::new(CONCURRENCY),
        }
    }

    fn servers(&self, labels: &[String]) -> &[SocketAddr] {
        let stub = self
            .stubs
            .iter()
            .find(|(domain, _)| labels.ends_with(domain));
        stub.map_or(&self.upstreams, |(_, servers)| servers)
    }

    /// The answer to a query, with the query's id. A server failure of one server is an answer
    /// only when no other server knows better.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn ask(&self, labels: &[String], query: &[u8]) -> Result<Vec<u8>, ForwardError> {
        let _slot = self.slots.try_acquire().map_err(|_| ForwardError::Busy)?;
        let mut outcome = Err(ForwardError::NoServer);
        for server in self.servers(labels) {
            match self.ask_one(*server, query).await {
                Ok(response) if matches!(wire::response_code(&response), 0 | 3) => {
                    return Ok(response);
                }
                Ok(response) => outcome = Ok(response),
                Err(source) if outcome.is_err() => {
                    let server = *server;
                    outcome = Err(ForwardError::Server { server, source });
                }
                Err(_) => {}
            }
        }
        outcome
    }

    async fn ask_one(&self, server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
        let response = self.within(over_udp(server, query)).await?;
        if wire::is_truncated(&response) {
            return self.within(over_tcp(server, query)).await;
        }
        Ok(response)
    }

    async fn within(
        &self,
        exchange: impl Future<Output = io::Result<Vec<u8>>>,
    ) -> io::Result<Vec<u8>> {
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// A copy of the query with an id of its own: the client's is the client's to guess.
fn with_fresh_id(query: &[u8]) -> Vec<u8> {
    let mut asked = query.to_vec();
    asked[..2].copy_from_slice(&rand::random::<u16>().to_be_bytes());
    asked
}

async fn over_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv6() {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    // A port of its own for each question, chosen by the kernel; only the server's datagrams come.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let asked = with_fresh_id(query);
    socket.send(&asked).await?;
    let mut buffer = vec![0; UDP_LIMIT];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if wire::answers(&asked, &buffer[..length]) {
            buffer.truncate(length);
            buffer[..2].copy_from_slice(&query[..2]);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let asked = with_fresh_id(query);
    let length = u16::try_from(asked.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream
        .write_all(&[&length.to_be_bytes()[..], &asked].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut response = vec![0; length.into()];
    stream.read_exact(&mut response).await?;
    if !wire::answers(&asked, &response) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    response[..2].copy_from_slice(&query[..2]);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_and_missing_servers_are_left_out() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "# x\nnameserver 10.43.0.10\nsearch a\nnameserver 192.0.2.1\nnameserver\n";
        std::fs::write(file.path(), text).unwrap();
        let found = system_servers(file.path(), &["10.43.0.10".parse().unwrap()]);
        assert_eq!(found, ["192.0.2.1:53".parse().unwrap()]);
    }

    #[test]
    fn the_longest_stub_domain_is_asked() {
        let server = |n: u8| vec![SocketAddr::from(([192, 0, 2, n], 53))];
        let stubs = [
            ("corp.".to_string(), server(1)),
            ("eu.corp".to_string(), server(2)),
        ];
        let forwarder = Forwarder::new(stubs, server(9), 1.0);
        let servers = |name: &str| {
            let labels: Vec<String> = name.split('.').map(str::to_string).collect();
            forwarder.servers(&labels).to_vec()
        };
        assert_eq!(servers("x.eu.corp"), server(2));
        assert_eq!(servers("corp"), server(1));
        assert_eq!(servers("xcorp"), server(9));
    }
}
