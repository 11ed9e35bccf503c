//! The task that moves a container's output.

use super::resume;
use super::writer::{LineSplitter, LogWriter, OutputStream};
use crate::container::object::Container;
use crate::guest::{Guest, GuestError};
use crate::journal::{Journal, LogCheckpoint};
use crate::metrics::Metrics;
use crate::sandbox::object::Live;
use crate::shim::Shim;
use bytes::Bytes;
use hull_agent_protocol::client::ConnectError;
use hull_agent_protocol::stream::Header;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::{broadcast, watch};

const READ_BYTES: usize = 32 * 1024;
/// Chunks that a slow attached client may lag behind before it loses some.
const ATTACH_BACKLOG: usize = 256;
/// Output between checkpoints, bytes: what a restarted shim has to count at most.
const CHECKPOINT_BYTES: u64 = 1 << 20;
/// Pause before a stream that broke is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// Output as attached clients get it.
#[derive(Debug, Clone)]
pub struct OutputChunk {
    /// Which output.
    pub stream: OutputStream,
    /// The bytes.
    pub bytes: Bytes,
}

/// Moves a container's output into its log and to attached clients.
pub struct LogPump {
    sandbox_id: String,
    container_id: String,
    guest: Guest,
    writer: Mutex<LogWriter>,
    saved: Mutex<LogCheckpoint>,
    journal: Journal,
    metrics: Arc<Metrics>,
    chunks: broadcast::Sender<OutputChunk>,
    running: watch::Sender<u8>,
}

impl LogPump {
    /// Starts the pump of a container where its log ends. It stops with its VM.
    pub fn begin(shim: &Shim, live: &Live, container: &Arc<Container>) {
        let record = container.record();
        let checkpoint = shim.journal.load_log(&container.sandbox_id, &container.id);
        let opened = match &record.log_path {
            Some(path) => resume::position(path, checkpoint)
                .and_then(|position| LogWriter::open(Some(path.clone()), position)),
            None => LogWriter::open(None, checkpoint),
        };
        // A container whose log cannot be written still runs: its output is only counted.
        let writer = opened.or_else(|error| {
            tracing::error!(container_id = container.id, %error, "opening the log");
            LogWriter::open(None, checkpoint)
        });
        let Ok(writer) = writer else {
            return;
        };
        let streams = if record.config.tty {
            vec![OutputStream::Stdout]
        } else {
            vec![OutputStream::Stdout, OutputStream::Stderr]
        };
        let pump = Arc::new(LogPump {
            sandbox_id: container.sandbox_id.clone(),
            container_id: container.id.clone(),
            guest: live.guest.clone(),
            saved: Mutex::new(checkpoint),
            writer: Mutex::new(writer),
            journal: shim.journal.clone(),
            metrics: shim.metrics.clone(),
            chunks: broadcast::channel(ATTACH_BACKLOG).0,
            running: watch::channel(streams.len() as u8).0,
        });
        container.set_pump(Some(pump.clone()));
        for stream in streams {
            let (pump, cancelled) = (pump.clone(), live.tasks.clone());
            tokio::spawn(async move {
                tokio::select! {
                    // The VM is gone: there is nothing to resume.
                    () = cancelled.cancelled() => {}
                    () = pump.follow(stream) => pump.checkpoint(true),
                }
                pump.running.send_modify(|running| *running -= 1);
            });
        }
    }

    /// Output from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<OutputChunk> {
        self.chunks.subscribe()
    }

    /// Returns when all output has been moved.
    pub async fn finished(&self) {
        let mut running = self.running.subscribe();
        // The sender lives as long as self: waiting cannot fail.
        let _ = running.wait_for(|running| *running == 0).await;
    }

    /// Opens the log file again, after it was moved away.
    pub fn reopen(&self) -> std::io::Result<()> {
        self.writer.lock().reopen()?;
        self.checkpoint(true);
        Ok(())
    }

    async fn follow(&self, stream: OutputStream) {
        let mut splitter = LineSplitter::default();
        let position = self.writer.lock().position();
        let mut offset = match stream {
            OutputStream::Stdout => position.stdout,
            OutputStream::Stderr => position.stderr,
        };
        loop {
            let header = Header::Output {
                container: self.container_id.clone(),
                exec: None,
                stderr: stream == OutputStream::Stderr,
                offset,
            };
            match self.guest.open_stream(&header).await {
                Ok((mut connection, first)) => {
                    if first > offset {
                        tracing::warn!(
                            sandbox_id = self.sandbox_id,
                            container_id = self.container_id,
                            stream = stream.name(),
                            bytes = first - offset,
                            "output was lost: the agent no longer had it"
                        );
                        offset = first;
                    }
                    if self
                        .copy(stream, &mut connection, &mut splitter, &mut offset)
                        .await
                    {
                        break;
                    }
                }
                // The container or its output is gone.
                Err(GuestError::Connect(ConnectError::Stream { message, .. })) => {
                    tracing::debug!(
                        container_id = self.container_id,
                        message,
                        "no output stream"
                    );
                    break;
                }
                Err(error) => {
                    tracing::debug!(container_id = self.container_id, %error, "opening an output stream");
                }
            }
            tokio::time::sleep(REOPEN_PAUSE).await;
        }
        self.emit(stream, |writer| {
            splitter.finish(|whole, content| writer.write(stream, whole, content))
        });
    }

    /// Copies until the end; false if the connection broke before it.
    async fn copy(
        &self,
        stream: OutputStream,
        connection: &mut tokio::net::UnixStream,
        splitter: &mut LineSplitter,
        offset: &mut u64,
    ) -> bool {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let bytes = match connection.read(&mut buffer).await {
                Ok(0) => return true,
                Ok(count) => &buffer[..count],
                Err(_) => return false,
            };
            *offset += bytes.len() as u64;
            self.metrics.log_bytes.inc_by(bytes.len() as u64);
            self.emit(stream, |writer| {
                splitter.push(bytes, |whole, content| writer.write(stream, whole, content))
            });
            // Nobody attached: that is no error.
            let _ = self.chunks.send(OutputChunk {
                stream,
                bytes: Bytes::copy_from_slice(bytes),
            });
            self.checkpoint(false);
        }
    }

    fn emit(
        &self,
        stream: OutputStream,
        write: impl FnOnce(&mut LogWriter) -> std::io::Result<()>,
    ) {
        if let Err(error) = write(&mut self.writer.lock()) {
            tracing::error!(
                sandbox_id = self.sandbox_id,
                container_id = self.container_id,
                stream = stream.name(),
                %error,
                "writing the log"
            );
        }
    }

    fn checkpoint(&self, always: bool) {
        let now = self.writer.lock().position();
        let mut saved = self.saved.lock();
        let written = (now.stdout + now.stderr).saturating_sub(saved.stdout + saved.stderr);
        if !always && written < CHECKPOINT_BYTES {
            return;
        }
        match self
            .journal
            .save_log(&self.sandbox_id, &self.container_id, &now)
        {
            Ok(()) => *saved = now,
            Err(error) => {
                tracing::error!(container_id = self.container_id, %error, "noting the end of the log");
            }
        }
    }
}
