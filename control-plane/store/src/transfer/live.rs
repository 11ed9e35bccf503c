//! A backup of a store that a running process has open, over a unix socket.
//!
//! ```text
//!  asking process                     process that has the store
//!   connect ────────────────────────►  by SO_PEERCRED: the superuser, or its own user?
//!   ◄─── the backup, as a file has it  every key at one revision; others go on writing
//!   checks it, writes the file
//! ```
//!
//! Whoever may connect could read the store's file as well: the socket gives nothing away that
//! its owner did not have, and nothing to anybody over the network.

use std::{
    io,
    net::Shutdown,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{net::UnixListener, runtime::Handle};

use super::{
    Progress, Step, TransferError, Transferred, backup::write_all, file_error, format::Input,
    format::Output, staged::Staged,
};
use crate::Store;

/// Who else may not connect need not see the socket either.
const SOCKET_MODE: u32 = 0o600;
/// A side that moves no byte for so long has left.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a connection that could not be accepted.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// The superuser's id.
const ROOT: u32 = 0;

/// The socket beside a store's file.
pub fn socket_of(store_file: &Path) -> PathBuf {
    let mut path = store_file.as_os_str().to_owned();
    path.push(".backup.sock");
    path.into()
}

/// Where backups of a store are asked for; removed when dropped.
#[derive(Debug)]
pub struct BackupSocket {
    listener: UnixListener,
    path: PathBuf,
    /// This process' user.
    owner: u32,
}

impl BackupSocket {
    /// Listens on `path`, in place of a socket that a process left there which ended before.
    /// Only the process that has the store may call this. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        let socket = BackupSocket {
            listener,
            path: path.to_owned(),
            owner: std::fs::symlink_metadata(path)?.uid(),
        };
        std::fs::set_permissions(path, PermissionsExt::from_mode(SOCKET_MODE))?;
        Ok(socket)
    }

    /// Answers one after the other, for as long as it is polled. Dropped, it breaks the backup
    /// off that it is at.
    pub async fn serve(&self, store: Arc<dyn Store>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if let Err(error) = self.answer(stream, store.clone()).await {
                        tracing::warn!(%error, "a backup was broken off");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for a backup");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    async fn answer(
        &self,
        stream: tokio::net::UnixStream,
        store: Arc<dyn Store>,
    ) -> Result<(), TransferError> {
        let failed = |source| file_error(&self.path, "sending it", source);
        let peer = stream.peer_cred().map_err(failed)?.uid();
        let stream = stream.into_std().map_err(failed)?;
        stream.set_nonblocking(false).map_err(failed)?;
        stream
            .set_write_timeout(Some(STALL_TIMEOUT))
            .map_err(failed)?;
        if !may_ask(peer, self.owner) {
            tracing::warn!(user = peer, "a backup was refused");
            let out = Output::begin(&stream, 0).map_err(failed)?;
            let refusal = "only the user of the server and the superuser may have it";
            return out.give_up(refusal).map_err(failed);
        }
        let _broken_off = BreakOff(stream.try_clone().map_err(failed)?);
        let name = self.path.clone();
        let sent = tokio::task::spawn_blocking(move || {
            let failed = |source| file_error(&name, "sending it", source);
            Handle::current().block_on(write_all(store.as_ref(), &stream, &failed, &mut |_| {}))
        });
        let sent = sent
            .await
            .map_err(|error| failed(io::Error::other(error)))??;
        tracing::info!(
            user = peer,
            keys = sent.keys,
            bytes = sent.bytes,
            revision = sent.revision,
            "backup sent"
        );
        Ok(())
    }
}

/// The superuser, and whose process has the store.
pub(super) fn may_ask(peer: u32, owner: u32) -> bool {
    peer == ROOT || peer == owner
}

impl Drop for BackupSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Ends a connection: a thread that writes to it must not keep the process from ending.
struct BreakOff(UnixStream);

impl Drop for BreakOff {
    fn drop(&mut self) {
        // Fails where the connection is over.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Asks the process that has a store for a backup, and writes it into a new file, which appears
/// when it is checked, whole and on disk. Blocks.
///
/// # Errors
/// When nobody answers at `socket`, or it breaks off, or the file fails or exists.
pub fn fetch_backup(
    socket: &Path,
    path: &Path,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Transferred, TransferError> {
    let staged = Staged::create(path)?;
    let unreachable = |source| TransferError::NoSocket {
        path: socket.to_owned(),
        source,
    };
    let stream = UnixStream::connect(socket).map_err(unreachable)?;
    stream
        .set_read_timeout(Some(STALL_TIMEOUT))
        .map_err(unreachable)?;
    let failed = |source| file_error(path, "writing it", source);
    let mut input = Input::begin(stream, socket)?;
    let revision = input.revision;
    let mut out = Output::begin(staged.file(), revision).map_err(failed)?;
    while let Some((key, value)) = input.next()? {
        out.pair(&key, &value).map_err(failed)?;
    }
    let (keys, bytes) = (out.keys, out.bytes);
    input.check_end(keys)?;
    out.end().map_err(failed)?;
    staged.finish()?;
    progress(Progress {
        step: Step::Copy,
        done: keys,
        total: keys,
    });
    Ok(Transferred {
        keys,
        bytes,
        revision,
    })
}
