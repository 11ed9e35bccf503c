//! A store that a running server may have open: its backup, and how it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use hull_store::transfer::{self, Progress, StoreSocket, TransferError, Transferred};
use hull_store::{Store, StoreError, StoreStatus};
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
    let (error, socket) = match open(address).await? {
        Opened::Here(store) => {
            return Ok(transfer::back_up(store.as_ref(), file, &mut progress).await?);
        }
        Opened::Elsewhere(error, socket) => (error, socket),
    };
    let file = file.to_owned();
    let fetch = move || transfer::fetch_backup(&socket, &file, &mut progress);
    match tokio::task::spawn_blocking(fetch).await? {
        Err(why @ TransferError::NoSocket { .. }) => {
            Err(anyhow::Error::new(why).context(format!("{error:#}")))
        }
        fetched => Ok(fetched?),
    }
}

/// How the store is. An embedded store that a server has open is asked for at that server's
/// socket.
pub async fn status(address: &StoreAddress) -> anyhow::Result<StoreStatus> {
    match open(address).await? {
        Opened::Here(store) => Ok(store.status().await?),
        Opened::Elsewhere(error, socket) => {
            let fetched = tokio::task::spawn_blocking(move || {
                transfer::fetch_status(&socket)
                    .with_context(|| format!("no answer at {}", socket.display()))
            });
            fetched.await?.with_context(|| format!("{error:#}"))
        }
    }
}

enum Opened {
    /// By this process.
    Here(Arc<dyn Store>),
    /// By another process: what opening it says, and where that one may be asked.
    Elsewhere(anyhow::Error, PathBuf),
}

async fn open(address: &StoreAddress) -> anyhow::Result<Opened> {
    let error = match address.open_existing().await {
        Ok(store) => return Ok(Opened::Here(store)),
        Err(error) => error,
    };
    match (address, error.downcast_ref()) {
        (StoreAddress::Embedded(path), Some(StoreError::Locked { .. })) => {
            Ok(Opened::Elsewhere(error, transfer::socket_of(path)))
        }
        _ => Err(error),
    }
}

/// Answers [`back_up`] and [`status`] of other processes until `shutdown`, for a store in a
/// file. A server without them is better than none: what keeps the socket from being made is
/// logged.
pub fn offer(
    address: &StoreAddress,
    store: Arc<dyn Store>,
    tasks: &mut Tasks,
    shutdown: &CancellationToken,
) {
    let StoreAddress::Embedded(file) = address else {
        return;
    };
    let path = transfer::socket_of(file);
    let socket = match StoreSocket::bind(&path) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no backups and no status while the server runs");
            return;
        }
    };
    let stop = shutdown.clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(socket.serve(store)).await;
        Ok(())
    });
}
