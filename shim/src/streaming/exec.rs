//! Exec.

use super::protocol::{self, exit_status, failure_status};
use super::session::{self, Sink};
use crate::container::exec::{ExecOptions, ExecSession, running};
use crate::error::Error;
use crate::shim::Shim;
use crate::timeouts::scaled;
use axum::extract::ws::WebSocket;
use futures::StreamExt;
use hull_agent_protocol::v1::Exit;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

const READ_BYTES: usize = 32 * 1024;
/// How long output may take to arrive after the process ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// What was asked for.
pub struct Options {
    /// Container id.
    pub container_id: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// With a terminal.
    pub tty: bool,
    /// Standard input, output, error.
    pub streams: [bool; 3],
}

/// Serves one exec over `socket`.
pub async fn serve(shim: Arc<Shim>, socket: WebSocket, options: Options) {
    let (mut sink, source) = socket.split();
    let session = match begin(&shim, &options).await {
        Ok(session) => session,
        Err(error) => {
            return session::finish(&mut sink, &failure_status(&error.to_string())).await;
        }
    };
    let stdin = match options.streams[0] {
        true => session.input().await.ok(),
        false => None,
    };
    let (client, mut sizes) = session::read_client(source, stdin);
    let outcome = {
        let output = move_output(&session, &mut sink, options.streams);
        let resizing = async {
            while let Some(size) = sizes.recv().await {
                let resized = session
                    .resize(u32::from(size.height), u32::from(size.width))
                    .await;
                if let Err(error) = resized {
                    tracing::debug!(container_id = session.container_id, %error, "resizing a terminal");
                }
            }
            std::future::pending::<()>().await
        };
        tokio::select! {
            exit = output => Some(exit),
            () = client => None,
            () = resizing => None,
        }
    };
    match &outcome {
        Some(Ok(exit)) => session::finish(&mut sink, &exit_status(exit.code)).await,
        Some(Err(error)) => {
            session::finish(&mut sink, &failure_status(&error.to_string())).await;
        }
        None => {}
    }
    // A client that went away takes its process with it.
    session.end(outcome.is_none()).await;
}

async fn begin(shim: &Shim, options: &Options) -> Result<ExecSession, Error> {
    let container = shim.registry.container(&options.container_id)?;
    let live = running(shim, &container)?;
    let exec = ExecOptions {
        command: options.command.clone(),
        tty: options.tty,
        stdin: options.streams[0],
    };
    ExecSession::begin(&live, &container, exec).await
}

async fn move_output(
    session: &ExecSession,
    sink: &mut Sink,
    streams: [bool; 3],
) -> Result<Exit, Error> {
    let stdout = session.output(false).await?;
    let stderr = if session.tty {
        None
    } else {
        Some(session.output(true).await?)
    };
    let copying = copy(stdout, stderr, sink, streams);
    tokio::pin!(copying);
    tokio::select! {
        biased;
        () = &mut copying => Ok(session.wait().await?),
        exit = session.wait() => {
            // A process that went to the background may keep the pipes open.
            let _ = tokio::time::timeout(scaled(DRAIN_TIMEOUT), &mut copying).await;
            Ok(exit?)
        }
    }
}

/// Both outputs until both ended. What the client does not want is read and dropped:
/// the process must not be stopped by a full pipe.
async fn copy(
    mut stdout: UnixStream,
    mut stderr: Option<UnixStream>,
    sink: &mut Sink,
    streams: [bool; 3],
) {
    let (mut out, mut err) = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
    let mut stdout_open = true;
    while stdout_open || stderr.is_some() {
        let (channel, bytes) = tokio::select! {
            read = stdout.read(&mut out), if stdout_open => match read {
                Ok(count @ 1..) => (protocol::STDOUT, &out[..count]),
                _ => {
                    stdout_open = false;
                    continue;
                }
            },
            read = read_some(&mut stderr, &mut err), if stderr.is_some() => match read {
                Some(count) => (protocol::STDERR, &err[..count]),
                None => {
                    stderr = None;
                    continue;
                }
            },
        };
        if streams[usize::from(channel)] && !session::send(sink, channel, bytes).await {
            return;
        }
    }
}

async fn read_some(stream: &mut Option<UnixStream>, buffer: &mut [u8]) -> Option<usize> {
    match stream.as_mut()?.read(buffer).await {
        Ok(count @ 1..) => Some(count),
        _ => None,
    }
}
