//! Attach: a container's first process.

use super::protocol::{self, failure_status};
use super::session;
use crate::container::exec::running;
use crate::container::object::Container;
use crate::error::Error;
use crate::logs::writer::OutputStream;
use crate::logs::{LogPump, OutputChunk};
use crate::sandbox::object::Live;
use crate::shim::Shim;
use axum::extract::ws::WebSocket;
use futures::StreamExt;
use hull_agent_protocol::stream::Header;
use hull_agent_protocol::v1::ResizeTtyRequest;
use std::sync::Arc;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Serves one attached client.
pub async fn serve(shim: Arc<Shim>, socket: WebSocket, container_id: String, streams: [bool; 3]) {
    let (mut sink, source) = socket.split();
    let (live, container, pump) = match begin(&shim, &container_id) {
        Ok(parts) => parts,
        Err(error) => {
            return session::finish(&mut sink, &failure_status(&error.to_string())).await;
        }
    };
    let output = pump.subscribe();
    let stdin = match streams[0] && container.record().config.stdin {
        true => {
            let header = Header::Stdin {
                container: container.id.clone(),
                exec: None,
            };
            live.guest
                .open_stream(&header)
                .await
                .ok()
                .map(|(stream, _)| stream)
        }
        false => None,
    };
    let (client, mut sizes) = session::read_client(source, stdin);
    let resizing = async {
        while let Some(size) = sizes.recv().await {
            let request = ResizeTtyRequest {
                container_id: container.id.clone(),
                exec_id: String::new(),
                rows: u32::from(size.height),
                columns: u32::from(size.width),
            };
            let _ = live.guest.resize_tty(request).await;
        }
        std::future::pending::<()>().await
    };
    let ended = {
        let copying = copy(output, &pump, &mut sink, streams);
        tokio::select! {
            () = copying => true,
            () = client => false,
            () = resizing => false,
        }
    };
    if ended {
        let success = protocol::exit_status(0);
        session::finish(&mut sink, &success).await;
    }
}

fn begin(shim: &Shim, id: &str) -> Result<(Live, Arc<Container>, Arc<LogPump>), Error> {
    let container = shim.registry.container(id)?;
    let live = running(shim, &container)?;
    let pump = container.pump().ok_or_else(|| {
        Error::FailedPrecondition(format!("the output of container {id} is not available"))
    })?;
    Ok((live, container, pump))
}

async fn copy(
    mut output: broadcast::Receiver<OutputChunk>,
    pump: &LogPump,
    sink: &mut session::Sink,
    streams: [bool; 3],
) {
    loop {
        let chunk = tokio::select! {
            biased;
            chunk = output.recv() => chunk,
            () = pump.finished() => return,
        };
        let chunk = match chunk {
            Ok(chunk) => chunk,
            // A client that is too slow misses output; the log has it.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let channel = match chunk.stream {
            OutputStream::Stdout => protocol::STDOUT,
            OutputStream::Stderr => protocol::STDERR,
        };
        if streams[usize::from(channel)] && !session::send(sink, channel, &chunk.bytes).await {
            return;
        }
    }
}
