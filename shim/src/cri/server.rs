//! The gRPC server on its unix socket.

use super::image::Images;
use super::runtime::Runtime;
use crate::error::Error;
use crate::shim::Shim;
use hull_cri_api::v1::image_service_server::ImageServiceServer;
use hull_cri_api::v1::runtime_service_server::RuntimeServiceServer;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

/// Listens on the CRI socket; only root may connect. A socket that an earlier
/// process left is replaced.
pub fn listen(path: &Path) -> Result<UnixListener, Error> {
    let context = || format!("listening on {}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(Error::io(context()))?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io(context())(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(Error::io(context()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(Error::io(context()))?;
    Ok(listener)
}

/// Serves until `shutdown` completes.
pub async fn serve(
    shim: Arc<Shim>,
    listener: UnixListener,
    streaming_url: String,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let limit = shim.config.max_message_bytes;
    let runtime = RuntimeServiceServer::new(Runtime {
        shim: shim.clone(),
        streaming_url,
    })
    .max_decoding_message_size(limit)
    .max_encoding_message_size(limit);
    let images = ImageServiceServer::new(Images { shim })
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit);
    tonic::transport::Server::builder()
        .add_service(runtime)
        .add_service(images)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown)
        .await
}
