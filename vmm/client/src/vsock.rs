//! Connects to a port of the guest through the VMM's unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Longest answer: "OK 4294967295\n".
const ANSWER_MAX_BYTES: usize = 32;

/// The guest could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// Nobody listens on the unix socket: the VMM is gone.
    #[error("Failed to connect to the vsock socket {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Nobody in the guest listens on the port, or the guest is not that far.
    #[error("The guest refused a connection to port {port} through {path}")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// The guest's port.
        port: u32,
    },
    /// No answer in time.
    #[error("The guest did not answer on port {port} through {path} within {limit:?}")]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// The guest's port.
        port: u32,
        /// The time limit.
        limit: Duration,
    },
}

/// Connects to `port` of the guest behind the unix socket `path`.
pub async fn connect(path: &Path, port: u32, limit: Duration) -> Result<UnixStream, VsockError> {
    tokio::time::timeout(limit, handshake(path, port))
        .await
        .unwrap_or_else(|_| {
            Err(VsockError::Timeout {
                path: path.to_owned(),
                port,
                limit,
            })
        })
}

async fn handshake(path: &Path, port: u32) -> Result<UnixStream, VsockError> {
    let mut stream = UnixStream::connect(path)
        .await
        .map_err(|source| VsockError::Connect {
            path: path.to_owned(),
            source,
        })?;
    let refused = || VsockError::Refused {
        path: path.to_owned(),
        port,
    };
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .await
        .map_err(|_| refused())?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the line belongs to the caller.
    while answer.last() != Some(&b'\n') && answer.len() < ANSWER_MAX_BYTES {
        answer.push(stream.read_u8().await.map_err(|_| refused())?);
    }
    if answer.starts_with(b"OK ") && answer.ends_with(b"\n") {
        Ok(stream)
    } else {
        Err(refused())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    fn listener(name: &str) -> (PathBuf, UnixListener) {
        let path = std::env::temp_dir().join(format!("hull-vsock-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        (path, listener)
    }

    #[tokio::test]
    async fn the_greeting_is_taken_and_the_data_left() {
        let (path, listener) = listener("ok");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut line = [0; 13];
            stream.read_exact(&mut line).await.unwrap();
            stream.write_all(b"OK 1073741824\nhello").await.unwrap();
            line
        });
        let mut stream = connect(&path, 1024, Duration::from_secs(5)).await.unwrap();
        let mut data = String::new();
        assert_eq!(&server.await.unwrap(), b"CONNECT 1024\n");
        stream.read_to_string(&mut data).await.unwrap();
        assert_eq!(data, "hello");
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn refusal_silence_and_absence_are_told_apart() {
        let (path, listener) = listener("no");
        let server = tokio::spawn(async move {
            drop(listener.accept().await.unwrap());
            listener
        });
        let outcome = connect(&path, 5, Duration::from_secs(5)).await;
        assert!(
            matches!(outcome, Err(VsockError::Refused { port: 5, .. })),
            "{outcome:?}"
        );
        let _listener = server.await.unwrap();
        let outcome = connect(&path, 5, Duration::from_millis(30)).await;
        assert!(
            matches!(outcome, Err(VsockError::Timeout { .. })),
            "{outcome:?}"
        );
        std::fs::remove_file(&path).unwrap();
        let outcome = connect(&path, 5, Duration::from_secs(5)).await;
        assert!(
            matches!(outcome, Err(VsockError::Connect { .. })),
            "{outcome:?}"
        );
    }
}
