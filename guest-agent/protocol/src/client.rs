//! How a host program reaches an agent: the gRPC client and byte streams, over the
//! unix socket of a VMM's vsock device or over the unix sockets of an agent that
//! runs on the host (`hull-agent --listen-dir`).
//!
//! ```text
//! Address::Vsock(socket)   connect, "CONNECT <port>\n", "OK <host port>\n", bytes
//! Address::Native(dir)     connect dir/control.sock or dir/stream.sock, bytes
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use hull_timeouts::scaled;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::stream::{Answer, Header, MAX_LINE};
use crate::v1::agent_client::AgentClient;
use crate::{CONTROL_PORT, CONTROL_SOCKET, MAX_MESSAGE_BYTES, STREAM_PORT, STREAM_SOCKET};

/// How long connecting to a port may take, before [`scaled`].
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an agent could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The unix socket is not there or refuses connections: the VMM or agent is gone.
    #[error("cannot connect to {path}: {source}")]
    Socket {
        /// The unix socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The VMM closed the connection: nothing listens on the guest's port (yet).
    #[error("nothing listens on guest port {port} behind {path}")]
    Refused {
        /// The vsock port.
        port: u32,
        /// The unix socket.
        path: PathBuf,
    },
    /// The other side does not speak the protocol.
    #[error("unexpected answer {answer:?} from {path}")]
    Answer {
        /// What it said.
        answer: String,
        /// The unix socket.
        path: PathBuf,
    },
    /// The agent refused the stream.
    #[error("the agent refused stream {header:?}: {message}")]
    Stream {
        /// What was asked for.
        header: String,
        /// The agent's reason.
        message: String,
    },
    /// No answer in time.
    #[error("no answer from {path} within {after:?}")]
    TimedOut {
        /// The unix socket.
        path: PathBuf,
        /// The time-out.
        after: Duration,
    },
    /// gRPC could not be set up.
    #[error("cannot speak gRPC over {path}: {source}")]
    Grpc {
        /// The unix socket.
        path: PathBuf,
        /// Why.
        source: tonic::transport::Error,
    },
}

/// Where an agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// In a guest, behind the unix socket of its VMM's vsock device.
    Vsock(PathBuf),
    /// On the host, in its `--listen-dir`.
    Native(PathBuf),
}

impl Address {
    /// A raw connection to the agent's gRPC port.
    ///
    /// # Errors
    /// Any [`ConnectError`] but `Stream` and `Grpc`.
    pub async fn connect_control(&self) -> Result<UnixStream, ConnectError> {
        match self {
            Address::Vsock(path) => connect_vsock(path, CONTROL_PORT).await,
            Address::Native(dir) => connect_unix(&dir.join(CONTROL_SOCKET)).await,
        }
    }

    /// The gRPC client. Its channel connects again by itself after a broken connection.
    ///
    /// # Errors
    /// [`ConnectError::Grpc`] when the first connection fails.
    pub async fn client(&self) -> Result<AgentClient<Channel>, ConnectError> {
        let connector = connector(self.clone());
        let channel = endpoint()
            .connect_timeout(scaled(CONNECT_TIMEOUT))
            .connect_with_connector(connector)
            .await
            .map_err(|source| ConnectError::Grpc {
                path: self.path().to_owned(),
                source,
            })?;
        Ok(limits(AgentClient::new(channel)))
    }

    /// The gRPC client, connecting at the first call.
    pub fn client_lazy(&self) -> AgentClient<Channel> {
        limits(AgentClient::new(
            endpoint()
                .connect_timeout(scaled(CONNECT_TIMEOUT))
                .connect_with_connector_lazy(connector(self.clone())),
        ))
    }

    /// Opens a byte stream. Returns the connection, positioned after the agent's answer,
    /// and the offset of the first output byte that follows (0 for stdin and connect).
    ///
    /// # Errors
    /// Any [`ConnectError`]; `Stream` when the agent refuses.
    pub async fn open_stream(&self, header: &Header) -> Result<(UnixStream, u64), ConnectError> {
        let mut stream = match self {
            Address::Vsock(path) => connect_vsock(path, STREAM_PORT).await?,
            Address::Native(dir) => connect_unix(&dir.join(STREAM_SOCKET)).await?,
        };
        let path = self.path();
        let line = within(path, exchange(&mut stream, path, &format!("{header}\n"))).await?;
        match line.parse() {
            Ok(Answer::Ok(offset)) => Ok((stream, offset)),
            Ok(Answer::Error(message)) => Err(ConnectError::Stream {
                header: header.to_string(),
                message,
            }),
            Err(_) => Err(ConnectError::Answer {
                answer: line,
                path: path.to_owned(),
            }),
        }
    }

    /// The unix socket, or the directory of sockets.
    pub fn path(&self) -> &Path {
        match self {
            Address::Vsock(path) | Address::Native(path) => path,
        }
    }
}

/// Connects to guest port `port` through the unix socket of a VMM's vsock device.
///
/// # Errors
/// [`ConnectError::Refused`] when nothing listens on the port; `Socket`, `Answer`, `TimedOut`.
pub async fn connect_vsock(path: &Path, port: u32) -> Result<UnixStream, ConnectError> {
    let mut stream = connect_unix(path).await?;
    let line = match within(
        path,
        exchange(&mut stream, path, &format!("CONNECT {port}\n")),
    )
    .await
    {
        Err(ConnectError::Socket { .. }) => String::new(),
        other => other?,
    };
    match line.strip_prefix("OK ") {
        Some(_) => Ok(stream),
        None if line.is_empty() => Err(ConnectError::Refused {
            port,
            path: path.to_owned(),
        }),
        None => Err(ConnectError::Answer {
            answer: line,
            path: path.to_owned(),
        }),
    }
}

/// The gRPC client of the agent in a guest; see [`Address::client`].
///
/// # Errors
/// See [`Address::client`].
pub async fn agent_client(path: &Path) -> Result<AgentClient<Channel>, ConnectError> {
    Address::Vsock(path.to_owned()).client().await
}

/// A byte stream of the agent in a guest; see [`Address::open_stream`].
///
/// # Errors
/// See [`Address::open_stream`].
pub async fn open_stream(path: &Path, header: &Header) -> Result<(UnixStream, u64), ConnectError> {
    Address::Vsock(path.to_owned()).open_stream(header).await
}

fn endpoint() -> Endpoint {
    Endpoint::from_static("http://agent.hull.internal")
}

fn limits(client: AgentClient<Channel>) -> AgentClient<Channel> {
    client
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

fn connector(
    address: Address,
) -> impl tower::Service<
    tonic::transport::Uri,
    Response = TokioIo<UnixStream>,
    Error = ConnectError,
    Future = impl Future<Output = Result<TokioIo<UnixStream>, ConnectError>> + Send,
> + Send
+ 'static {
    tower::service_fn(move |_| {
        let address = address.clone();
        async move { address.connect_control().await.map(TokioIo::new) }
    })
}

async fn connect_unix(path: &Path) -> Result<UnixStream, ConnectError> {
    UnixStream::connect(path)
        .await
        .map_err(|source| ConnectError::Socket {
            path: path.to_owned(),
            source,
        })
}

async fn within<T>(
    path: &Path,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    let after = scaled(CONNECT_TIMEOUT);
    tokio::time::timeout(after, work).await.unwrap_or_else(|_| {
        Err(ConnectError::TimedOut {
            path: path.to_owned(),
            after,
        })
    })
}

/// Writes one line and reads one, without its newline; empty at end of file. Reads
/// byte by byte: what follows the line belongs to the caller.
async fn exchange(
    stream: &mut UnixStream,
    path: &Path,
    line: &str,
) -> Result<String, ConnectError> {
    let failed = |source| ConnectError::Socket {
        path: path.to_owned(),
        source,
    };
    stream.write_all(line.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    while answer.len() < MAX_LINE {
        let mut byte = [0];
        if stream.read(&mut byte).await.map_err(failed)? == 0 || byte[0] == b'\n' {
            break;
        }
        answer.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncBufReadExt;
    use tokio::net::UnixListener;

    /// A VMM's vsock socket that serves one connection: answers each line that it
    /// reads with the next of `answers`, then sends `tail`.
    fn fake_vmm(dir: &Path, answers: Vec<&'static str>, tail: &'static [u8]) -> PathBuf {
        let path = dir.join("vsock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = tokio::io::BufReader::new(stream);
            for answer in answers {
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            stream.write_all(tail).await.unwrap();
        });
        path
    }

    fn output(offset: u64) -> Header {
        Header::Output {
            container: "c".into(),
            exec: None,
            stderr: false,
            offset,
        }
    }

    #[tokio::test]
    async fn stream_starts_right_after_the_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = fake_vmm(dir.path(), vec!["OK 5\n", "ok 40\n"], b"payload");
        let (mut stream, offset) = open_stream(&path, &output(40)).await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!((offset, rest.as_slice()), (40, b"payload".as_slice()));
    }

    #[tokio::test]
    async fn refusal_by_the_agent_carries_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = fake_vmm(dir.path(), vec!["OK 5\n", "error no such container\n"], b"");
        let error = open_stream(&path, &output(0)).await.unwrap_err();
        assert!(
            matches!(&error, ConnectError::Stream { message, .. } if message == "no such container"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn closed_connection_means_that_the_port_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = fake_vmm(dir.path(), vec![""], b"");
        let error = connect_vsock(&path, 7).await.unwrap_err();
        assert!(
            matches!(error, ConnectError::Refused { port: 7, .. }),
            "{error}"
        );
    }

    #[tokio::test]
    async fn missing_socket_is_named() {
        let error = connect_vsock(Path::new("/nonexistent/vsock"), 7)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("/nonexistent/vsock"), "{error}");
    }
}
