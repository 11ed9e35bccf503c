//! What exec and attach have in common: one WebSocket, up to three byte streams.

use super::protocol::{self, ClientMessage, TerminalSize};
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// Terminal sizes that wait to be applied.
const RESIZE_BACKLOG: usize = 8;

/// The sending half.
pub type Sink = SplitSink<WebSocket, Message>;

/// Sends bytes on a channel; false once the client is gone.
pub async fn send(sink: &mut Sink, channel: u8, bytes: &[u8]) -> bool {
    sink.send(Message::Binary(protocol::frame(channel, bytes).into()))
        .await
        .is_ok()
}

/// Sends the status and closes.
pub async fn finish(sink: &mut Sink, status: &Value) {
    if send(sink, protocol::ERROR, status.to_string().as_bytes()).await {
        let _ = sink.send(normal_closure()).await;
        let _ = sink.close().await;
    }
}

/// RFC 6455 §7.4.1, 1000: what clients take for the end of the streams; any other code, or none,
/// is an error to them.
pub fn normal_closure() -> Message {
    Message::Close(Some(CloseFrame {
        code: close_code::NORMAL,
        reason: "".into(),
    }))
}

/// Moves what the client sends until it is gone: standard input to `stdin`, sizes to
/// the returned channel.
pub fn read_client(
    source: SplitStream<WebSocket>,
    stdin: Option<UnixStream>,
) -> (
    impl Future<Output = ()> + Send,
    mpsc::Receiver<TerminalSize>,
) {
    let (sizes, receiver) = mpsc::channel(RESIZE_BACKLOG);
    (pump_client(source, stdin, sizes), receiver)
}

async fn pump_client(
    mut source: SplitStream<WebSocket>,
    mut stdin: Option<UnixStream>,
    sizes: mpsc::Sender<TerminalSize>,
) {
    while let Some(Ok(message)) = source.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => return,
            _ => continue,
        };
        match protocol::parse(&bytes) {
            ClientMessage::Stdin(bytes) => {
                if let Some(stream) = &mut stdin
                    && stream.write_all(bytes).await.is_err()
                {
                    // The process closed its input; the client may still read.
                    stdin = None;
                }
            }
            ClientMessage::CloseStdin => {
                if let Some(mut stream) = stdin.take() {
                    let _ = stream.shutdown().await;
                }
            }
            ClientMessage::Resize(size) => {
                let _ = sizes.try_send(size);
            }
            ClientMessage::Ignored => {}
        }
    }
}
