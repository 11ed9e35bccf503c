//! Backups: of a store that nobody has open, and of one that a running server has.

use std::path::Path;
use std::sync::Arc;

use hull_store::transfer::{self, BackupSocket, Progress, TransferError, Transferred};
use hull_store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

use super::StoreAddress;
use crate::server::Tasks;

/// Writes every key of the store into a new file. An embedded store that a server has open is
/// asked for at that server's socket.
pub async fn back_up(
    address: &StoreAddress,
    file: &Path,
    mut progress: impl FnMut(Progress) + Send + 'static,
) -> anyhow::Result<Transferred> {
    let error = match address.open_existing().await {
        Ok(store) => return Ok(transfer::back_up(store.as_ref(), file, &mut progress).await?),
        Err(error) => error,
    };
    let in_use = matches!(error.downcast_ref(), Some(StoreError::Locked { .. }));
    let StoreAddress::Embedded(path) = address else {
        return Err(error);
    };
    if !in_use {
        return Err(error);
    }
    let (socket, file) = (transfer::socket_of(path), file.to_owned());
    let fetch = move || transfer::fetch_backup(&socket, &file, &mut progress);
    match tokio::task::spawn_blocking(fetch).await? {
        Err(why @ TransferError::NoSocket { .. }) => {
            Err(anyhow::Error::new(why).context(format!("{error:#}")))
        }
        fetched => Ok(fetched?),
    }
}

/// Answers [`back_up`] of other processes until `shutdown`, for a store in a file. A server
/// without backups is better than none: what keeps the socket from being made is logged.
pub fn offer_backups(
    address: &StoreAddress,
    store: Arc<dyn Store>,
    tasks: &mut Tasks,
    shutdown: &CancellationToken,
) {
    let StoreAddress::Embedded(file) = address else {
        return;
    };
    let path = transfer::socket_of(file);
    let socket = match BackupSocket::bind(&path) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no backups while the server runs");
            return;
        }
    };
    let stop = shutdown.clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(socket.serve(store)).await;
        Ok(())
    });
}
