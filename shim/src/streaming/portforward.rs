//! Port-forward: for the i-th port, channel 2i carries the bytes and channel 2i+1 an
//! error text. The first message on each is the port's number, two bytes, little endian.

use super::protocol;
use crate::error::Error;
use crate::guest::Guest;
use crate::shim::Shim;
use axum::extract::ws::{Message, WebSocket};
use futures::{SinkExt, StreamExt};
use hull_agent_protocol::stream::Header;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

/// Most ports of one connection: their channels must fit in a byte.
pub const MAX_PORTS: usize = 127;
const READ_BYTES: usize = 32 * 1024;
/// Messages for the client that wait to be sent.
const SEND_BACKLOG: usize = 16;

/// Serves one client.
pub async fn serve(shim: Arc<Shim>, socket: WebSocket, sandbox_id: String, ports: Vec<u16>) {
    let guest = guest(&shim, &sandbox_id);
    let (mut sink, mut source) = socket.split();
    let (sender, mut outgoing) = mpsc::channel::<Vec<u8>>(SEND_BACKLOG);
    let sending = async move {
        while let Some(message) = outgoing.recv().await {
            if sink.send(Message::Binary(message.into())).await.is_err() {
                break;
            }
        }
        let _ = sink.send(super::session::normal_closure()).await;
        let _ = sink.close().await;
    };
    let serving = async move {
        let mut inputs = Vec::new();
        let mut readers = tokio::task::JoinSet::new();
        for (number, port) in ports.iter().enumerate() {
            inputs.push(open(&guest, number as u8, *port, &sender, &mut readers).await);
        }
        drop(sender);
        let client = async {
            while let Some(Ok(message)) = source.next().await {
                match message {
                    Message::Binary(bytes) => forward(&bytes, &mut inputs).await,
                    Message::Close(_) => return,
                    _ => {}
                }
            }
        };
        let connections = async { while readers.join_next().await.is_some() {} };
        tokio::select! {
            () = client => {}
            () = connections => {}
        }
    };
    tokio::join!(sending, serving);
}

fn guest(shim: &Shim, sandbox_id: &str) -> Result<Guest, Error> {
    Ok(shim.registry.sandbox(sandbox_id)?.require_live()?.guest)
}

/// Opens one port; what it sends is read by a task in `readers`.
async fn open(
    guest: &Result<Guest, Error>,
    number: u8,
    port: u16,
    sender: &mpsc::Sender<Vec<u8>>,
    readers: &mut tokio::task::JoinSet<()>,
) -> Option<OwnedWriteHalf> {
    let (data, error) = (number * 2, number * 2 + 1);
    for channel in [data, error] {
        let _ = sender
            .send(protocol::frame(channel, &port.to_le_bytes()))
            .await;
    }
    let connected = match guest {
        Ok(guest) => guest
            .open_stream(&Header::Connect { port })
            .await
            .map_err(|e| e.to_string()),
        Err(problem) => Err(problem.to_string()),
    };
    match connected {
        Ok((stream, _)) => {
            let (read, write) = stream.into_split();
            readers.spawn(read_port(read, data, sender.clone()));
            Some(write)
        }
        Err(problem) => {
            let text = format!("error forwarding port {port} to pod: {problem}");
            let _ = sender.send(protocol::frame(error, text.as_bytes())).await;
            None
        }
    }
}

async fn read_port(mut stream: OwnedReadHalf, channel: u8, sender: mpsc::Sender<Vec<u8>>) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if sender
            .send(protocol::frame(channel, &buffer[..count]))
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn forward(message: &[u8], inputs: &mut [Option<OwnedWriteHalf>]) {
    let Some((channel, bytes)) = message.split_first() else {
        return;
    };
    // Nothing is sent on error channels, which have odd numbers.
    if channel % 2 != 0 {
        return;
    }
    if let Some(slot) = inputs.get_mut(usize::from(channel / 2))
        && let Some(stream) = slot
        && stream.write_all(bytes).await.is_err()
    {
        *slot = None;
    }
}
