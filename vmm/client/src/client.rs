//! Calls over the control socket, blocking and for tokio. One connection per call, a time
//! limit on each.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_timeouts::scaled;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::{AsyncReadExt, Interest};

use crate::control::{Answer, FsState, Request};
use crate::rate::RateLimits;

/// How long a call may take, before `HULL_TIMEOUT_SCALE`.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer: the console's ring buffer in JSON escapes.
const ANSWER_MAX_BYTES: usize = 1 << 20;

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens: the VMM is gone or not there yet.
    #[error("Failed to connect to the control socket {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("Failed to {doing} over the control socket {path}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("No answer from the control socket {path} within {limit:?}")]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// The time limit.
        limit: Duration,
    },
    /// An answer that cannot be understood.
    #[error("The control socket {path} gave an answer that cannot be understood")]
    Answer {
        /// The socket.
        path: PathBuf,
        /// Cause.
        #[source]
        source: serde_json::Error,
    },
    /// An answer that does not belong to the request.
    #[error("The control socket {path} gave an answer of another kind")]
    Unexpected {
        /// The socket.
        path: PathBuf,
    },
    /// The VMM refused.
    #[error("refused: {0}")]
    Refused(String),
}

/// State of a VM, from [`Request::State`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmState {
    /// The id of the configuration.
    pub id: String,
    /// Process id.
    pub pid: u32,
    /// Milliseconds since the vCPUs started.
    pub uptime_ms: u64,
    /// Whether the vCPUs run.
    pub running: bool,
    /// Serial numbers of the disks that have a backing.
    pub attached_disks: Vec<String>,
    /// The virtio-fs device, when there is one.
    pub fs: Option<FsState>,
}

/// The control socket of one VMM.
#[derive(Debug, Clone)]
pub struct ControlClient {
    path: PathBuf,
    limit: Duration,
}

impl ControlClient {
    /// The socket at `path`; nothing is connected yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            limit: scaled(CALL_TIMEOUT),
        }
    }

    /// With another time limit per call.
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its state.
    pub async fn state(&self) -> Result<VmState, ControlError> {
        self.state_of(self.call(&Request::State, None).await?)
    }

    /// Ends the VM at once.
    pub async fn stop(&self) -> Result<(), ControlError> {
        self.done(self.call(&Request::Stop, None).await?)
    }

    /// Stops the vCPUs.
    pub async fn pause(&self) -> Result<(), ControlError> {
        self.done(self.call(&Request::Pause, None).await?)
    }

    /// Lets the vCPUs go on.
    pub async fn resume(&self) -> Result<(), ControlError> {
        self.done(self.call(&Request::Resume, None).await?)
    }

    /// Its metrics as Prometheus text.
    pub async fn metrics(&self) -> Result<String, ControlError> {
        match self.call(&Request::Metrics, None).await? {
            Answer::Metrics { text } => Ok(text),
            _ => Err(self.unexpected()),
        }
    }

    /// Where the vCPUs stand, a sentence each, for people. Empty when they cannot be made to
    /// leave the guest in time.
    pub async fn vcpus(&self) -> Result<Vec<String>, ControlError> {
        match self.call(&Request::Dump, None).await? {
            Answer::Dump { vcpus, .. } => Ok(vcpus),
            _ => Err(self.unexpected()),
        }
    }

    /// The newest console output.
    pub async fn console(&self, max_bytes: usize) -> Result<String, ControlError> {
        let request = Request::Console {
            max_bytes,
            after: 0,
        };
        match self.call(&request, None).await? {
            Answer::Console { text, .. } => Ok(text),
            _ => Err(self.unexpected()),
        }
    }

    /// Gives an empty disk its backing.
    pub async fn attach_disk(
        &self,
        serial: &str,
        file: BorrowedFd<'_>,
    ) -> Result<(), ControlError> {
        let request = Request::AttachDisk {
            serial: serial.to_owned(),
        };
        self.done(self.call(&request, Some(file)).await?)
    }

    /// Takes a disk's backing away.
    pub async fn detach_disk(&self, serial: &str) -> Result<(), ControlError> {
        let request = Request::DetachDisk {
            serial: serial.to_owned(),
        };
        self.done(self.call(&request, None).await?)
    }

    /// Gives a network without a tap one.
    pub async fn attach_net(&self, id: &str, tap: BorrowedFd<'_>) -> Result<(), ControlError> {
        let request = Request::AttachNet { id: id.to_owned() };
        self.done(self.call(&request, Some(tap)).await?)
    }

    /// Takes a network's tap away.
    pub async fn detach_net(&self, id: &str) -> Result<(), ControlError> {
        let request = Request::DetachNet { id: id.to_owned() };
        self.done(self.call(&request, None).await?)
    }

    /// Changes how much of a disk the guest may use.
    pub async fn limit_disk(&self, serial: &str, limits: RateLimits) -> Result<(), ControlError> {
        let request = Request::LimitDisk {
            serial: serial.to_owned(),
            limits,
        };
        self.done(self.call(&request, None).await?)
    }

    /// Changes how much of a network the guest may receive and send.
    pub async fn limit_net(
        &self,
        id: &str,
        receive: RateLimits,
        send: RateLimits,
    ) -> Result<(), ControlError> {
        let request = Request::LimitNet {
            id: id.to_owned(),
            receive,
            send,
        };
        self.done(self.call(&request, None).await?)
    }

    /// Gives the virtio-fs device its back end: a socket that is connected to hull-fsd.
    pub async fn attach_fs(&self, socket: BorrowedFd<'_>) -> Result<(), ControlError> {
        self.done(self.call(&Request::AttachFs, Some(socket)).await?)
    }

    /// Asks the guest to give `mib` MiB of its RAM back.
    pub async fn resize_balloon(&self, mib: u32) -> Result<(), ControlError> {
        self.done(self.call(&Request::ResizeBalloon { mib }, None).await?)
    }

    /// Any request; an [`Answer::Error`] becomes [`ControlError::Refused`].
    pub async fn call(
        &self,
        request: &Request,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<Answer, ControlError> {
        tokio::time::timeout(self.limit, self.exchange(request, file))
            .await
            .unwrap_or_else(|_| Err(self.timeout()))
    }

    async fn exchange(
        &self,
        request: &Request,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<Answer, ControlError> {
        let mut stream = tokio::net::UnixStream::connect(&self.path)
            .await
            .map_err(|source| ControlError::Connect {
                path: self.path.clone(),
                source,
            })?;
        let line = self.line(request)?;
        let mut file = file.map(|file| file.as_raw_fd());
        let mut rest = &line[..];
        while !rest.is_empty() {
            let fd = stream.as_raw_fd();
            let sent = stream
                .async_io(Interest::WRITABLE, || send(fd, rest, file))
                .await
                .map_err(|source| self.io("send a request", source))?;
            file = None;
            rest = &rest[sent..];
        }
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n") && answer.len() < ANSWER_MAX_BYTES {
            let count = stream
                .read_buf(&mut answer)
                .await
                .map_err(|source| self.io("read an answer", source))?;
            if count == 0 {
                break;
            }
        }
        self.parse(&answer)
    }

    /// [`ControlClient::call`] for code without tokio.
    pub fn call_blocking(
        &self,
        request: &Request,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<Answer, ControlError> {
        let deadline = Instant::now() + self.limit;
        let mut stream =
            UnixStream::connect(&self.path).map_err(|source| ControlError::Connect {
                path: self.path.clone(),
                source,
            })?;
        let line = self.line(request)?;
        let mut file = file.map(|file| file.as_raw_fd());
        let mut rest = &line[..];
        stream
            .set_write_timeout(Some(self.limit))
            .map_err(|source| self.io("set a time limit", source))?;
        while !rest.is_empty() {
            let sent = send(stream.as_raw_fd(), rest, file)
                .map_err(|source| self.io("send a request", source))?;
            file = None;
            rest = &rest[sent..];
        }
        stream
            .flush()
            .map_err(|source| self.io("send a request", source))?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.ends_with(b"\n") && answer.len() < ANSWER_MAX_BYTES {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.timeout());
            }
            stream
                .set_read_timeout(Some(left))
                .map_err(|source| self.io("set a time limit", source))?;
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => answer.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(self.timeout());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.io("read an answer", source)),
            }
        }
        self.parse(&answer)
    }

    /// [`ControlClient::state`] for code without tokio.
    pub fn state_blocking(&self) -> Result<VmState, ControlError> {
        self.state_of(self.call_blocking(&Request::State, None)?)
    }

    /// [`ControlClient::stop`] for code without tokio.
    pub fn stop_blocking(&self) -> Result<(), ControlError> {
        self.done(self.call_blocking(&Request::Stop, None)?)
    }

    fn line(&self, request: &Request) -> Result<Vec<u8>, ControlError> {
        let mut line = serde_json::to_vec(request).map_err(|source| self.bad_answer(source))?;
        line.push(b'\n');
        Ok(line)
    }

    fn parse(&self, answer: &[u8]) -> Result<Answer, ControlError> {
        match serde_json::from_slice(answer).map_err(|source| self.bad_answer(source))? {
            Answer::Error { message } => Err(ControlError::Refused(message)),
            answer => Ok(answer),
        }
    }

    fn state_of(&self, answer: Answer) -> Result<VmState, ControlError> {
        match answer {
            Answer::State {
                id,
                pid,
                uptime_ms,
                running,
                attached_disks,
                fs,
            } => Ok(VmState {
                id,
                pid,
                uptime_ms,
                running,
                attached_disks,
                fs,
            }),
            _ => Err(self.unexpected()),
        }
    }

    pub(crate) fn done(&self, answer: Answer) -> Result<(), ControlError> {
        if answer == Answer::Ok {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    pub(crate) fn unexpected(&self) -> ControlError {
        ControlError::Unexpected {
            path: self.path.clone(),
        }
    }

    fn timeout(&self) -> ControlError {
        ControlError::Timeout {
            path: self.path.clone(),
            limit: self.limit,
        }
    }

    fn bad_answer(&self, source: serde_json::Error) -> ControlError {
        ControlError::Answer {
            path: self.path.clone(),
            source,
        }
    }

    fn io(&self, doing: &'static str, source: io::Error) -> ControlError {
        ControlError::Io {
            path: self.path.clone(),
            doing,
            source,
        }
    }
}

/// Sends bytes, the descriptor with the first of them.
fn send(fd: RawFd, bytes: &[u8], file: Option<RawFd>) -> io::Result<usize> {
    let files: Vec<RawFd> = file.into_iter().collect();
    let rights = [ControlMessage::ScmRights(&files)];
    let control = if files.is_empty() {
        &[][..]
    } else {
        &rights[..]
    };
    let vector = [IoSlice::new(bytes)];
    sendmsg::<()>(fd, &vector, control, MsgFlags::MSG_NOSIGNAL, None).map_err(io::Error::from)
}

#[cfg(test)]
mod tests;
