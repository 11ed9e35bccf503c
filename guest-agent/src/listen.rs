//! Where the host connects: vsock ports in a guest, unix sockets on a host.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};
use tonic::transport::server::Connected;

/// Pause after accept(2) failed, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An address to listen on.
#[derive(Debug)]
pub enum Listener {
    /// A vsock port.
    Vsock(VsockListener),
    /// A unix socket.
    Unix(UnixListener),
}

/// A connection from the host.
#[derive(Debug)]
pub enum Connection {
    /// Over vsock.
    Vsock(VsockStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

impl Listener {
    /// Listens on a vsock port.
    ///
    /// # Errors
    /// When there is no vsock device.
    pub fn vsock(port: u32) -> io::Result<Listener> {
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))?;
        Ok(Listener::Vsock(listener))
    }

    /// Listens on a unix socket, for root only. A socket that a former agent left is replaced.
    ///
    /// # Errors
    /// From bind(2).
    pub fn unix(path: &Path) -> io::Result<Listener> {
        // Under another name first: whoever finds the socket under its own can connect.
        let unready = path.with_extension("new");
        match std::fs::remove_file(&unready) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&unready)?;
        std::fs::set_permissions(&unready, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&unready, path)?;
        Ok(Listener::Unix(listener))
    }

    /// The next connection from the host. Containers can reach a guest's own vsock
    /// ports too: connections that do not come from the host are closed.
    pub async fn accept(&self) -> Connection {
        loop {
            let accepted = match self {
                Listener::Vsock(listener) => accept_vsock(listener).await,
                Listener::Unix(listener) => listener
                    .accept()
                    .await
                    .map(|(stream, _)| Some(Connection::Unix(stream))),
            };
            match accepted {
                Ok(Some(connection)) => return connection,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn accept_vsock(listener: &VsockListener) -> io::Result<Option<Connection>> {
    let (stream, peer) = std::future::poll_fn(|context| listener.poll_accept(context)).await?;
    if peer.cid() != VMADDR_CID_HOST {
        tracing::warn!(
            cid = peer.cid(),
            "refused a connection that is not from the host"
        );
        return Ok(None);
    }
    Ok(Some(Connection::Vsock(stream)))
}

/// The unix sockets of an agent on a host.
pub fn socket_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(name)
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Vsock(stream) => Pin::new(stream).poll_read(context, buffer),
            Connection::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Vsock(stream) => Pin::new(stream).poll_write(context, bytes),
            Connection::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Vsock(stream) => Pin::new(stream).poll_flush(context),
            Connection::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Vsock(stream) => Pin::new(stream).poll_shutdown(context),
            Connection::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
