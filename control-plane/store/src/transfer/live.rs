//! A store that a running process has open, over a unix socket: its backup, and how it is.
//!
//! ```text
//!  asking process                     process that has the store
//!   "backup" or "status", \n ───────►  by SO_PEERCRED: the superuser, or its own user?
//!   ◄─── the backup, as a file has it  every key at one revision; others go on writing
//!   checks it, writes the file
//!   ◄─── or the status, as JSON
//! ```
//!
//! Whoever may connect could read the store's file as well: the socket gives nothing away that
//! its owner did not have, and nothing to anybody over the network.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{io::AsyncReadExt, net::UnixListener, runtime::Handle, sync::Mutex};

use super::{
    Progress, Step, TransferError, Transferred, backup::write_all, file_error, format::Input,
    format::Output, staged::Staged,
};
use crate::{Store, StoreStatus};

/// Who else may not connect need not see the socket either.
const SOCKET_MODE: u32 = 0o600;
/// A side that moves no byte for so long has left.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long whoever connects may take to say what for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// More than any request has.
const REQUEST_MAX_BYTES: u64 = 16;
/// More than any status has.
const STATUS_MAX_BYTES: u64 = 1 << 20;
const BACKUP_REQUEST: &[u8] = b"backup\n";
const STATUS_REQUEST: &[u8] = b"status\n";
const REFUSAL: &str = "only the user of the server and the superuser may have it";
/// Pause after a connection that could not be accepted.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// The superuser's id.
const ROOT: u32 = 0;

/// The socket beside a store's file.
pub fn socket_of(store_file: &Path) -> PathBuf {
    let mut path = store_file.as_os_str().to_owned();
    path.push(".sock");
    path.into()
}

/// Where a store that is open is asked for; removed when dropped.
#[derive(Debug)]
pub struct StoreSocket {
    listener: UnixListener,
    path: PathBuf,
    /// This process' user.
    owner: u32,
    /// Held by the backup that is sent.
    backup: Mutex<()>,
}

impl StoreSocket {
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
        let socket = StoreSocket {
            listener,
            path: path.to_owned(),
            owner: std::fs::symlink_metadata(path)?.uid(),
            backup: Mutex::new(()),
        };
        std::fs::set_permissions(path, PermissionsExt::from_mode(SOCKET_MODE))?;
        Ok(socket)
    }

    /// Answers for as long as it is polled; of backups one after the other. Dropped, it breaks
    /// the backup off that it is at.
    pub async fn serve(&self, store: Arc<dyn Store>) {
        let mut answers = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => answers.push(self.answer(stream, store.clone())),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection for the store");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                },
                Some(answered) = answers.next() => if let Err(error) = answered {
                    tracing::warn!(%error, "an answer about the store was broken off");
                },
            }
        }
    }

    async fn answer(
        &self,
        mut stream: tokio::net::UnixStream,
        store: Arc<dyn Store>,
    ) -> Result<(), TransferError> {
        let failed = |source| file_error(&self.path, "answering at it", source);
        let request = tokio::time::timeout(REQUEST_TIMEOUT, read_request(&mut stream));
        let request = request
            .await
            .map_err(|late| failed(late.into()))?
            .map_err(failed)?;
        let peer = stream.peer_cred().map_err(failed)?.uid();
        let allowed = may_ask(peer, self.owner);
        if !allowed {
            tracing::warn!(user = peer, "a question about the store was refused");
        }
        let stream = stream.into_std().map_err(failed)?;
        stream.set_nonblocking(false).map_err(failed)?;
        stream
            .set_write_timeout(Some(STALL_TIMEOUT))
            .map_err(failed)?;
        match request.as_slice() {
            BACKUP_REQUEST if allowed => self.send_backup(stream, peer, store).await,
            BACKUP_REQUEST => {
                let out = Output::begin(&stream, 0).map_err(failed)?;
                out.give_up(REFUSAL).map_err(failed)
            }
            STATUS_REQUEST => {
                let status = match allowed {
                    true => store.status().await.map_err(|error| error.to_string()),
                    false => Err(REFUSAL.to_owned()),
                };
                // It fits into what a socket holds: nobody is waited for.
                serde_json::to_writer(&stream, &status).map_err(|error| failed(error.into()))
            }
            _ => Err(failed(io::ErrorKind::InvalidData.into())),
        }
    }

    async fn send_backup(
        &self,
        stream: UnixStream,
        peer: u32,
        store: Arc<dyn Store>,
    ) -> Result<(), TransferError> {
        let failed = |source| file_error(&self.path, "sending it", source);
        let _turn = self.backup.lock().await;
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

/// A line, with its end.
async fn read_request(stream: &mut tokio::net::UnixStream) -> io::Result<Vec<u8>> {
    let mut limited = stream.take(REQUEST_MAX_BYTES);
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(limited.read_u8().await?);
    }
    Ok(line)
}

/// The superuser, and whose process has the store.
pub(super) fn may_ask(peer: u32, owner: u32) -> bool {
    peer == ROOT || peer == owner
}

impl Drop for StoreSocket {
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

/// Asks the process that has a store how the store is. Blocks.
///
/// # Errors
/// When nobody answers at `socket`, or says why not.
pub fn fetch_status(socket: &Path) -> io::Result<StoreStatus> {
    let mut answer = Vec::new();
    let stream = ask(socket, STATUS_REQUEST)?;
    stream.take(STATUS_MAX_BYTES).read_to_end(&mut answer)?;
    let status: Result<StoreStatus, String> = serde_json::from_slice(&answer)?;
    status.map_err(io::Error::other)
}

fn ask(socket: &Path, request: &[u8]) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(STALL_TIMEOUT))?;
    stream.write_all(request)?;
    Ok(stream)
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
    let stream = ask(socket, BACKUP_REQUEST).map_err(unreachable)?;
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
