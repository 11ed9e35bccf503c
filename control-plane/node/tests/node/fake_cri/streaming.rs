//! A streaming server that answers each WebSocket message with its own text.

use std::net::SocketAddr;

use futures::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

pub async fn serve() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                #[allow(clippy::result_large_err, reason = "the library's callback type")]
                let callback = |request: &Request, mut response: Response| {
                    assert_eq!(request.uri().path(), "/exec/token");
                    let offered = request.headers()["sec-websocket-protocol"].clone();
                    response
                        .headers_mut()
                        .insert("sec-websocket-protocol", offered);
                    Ok(response)
                };
                let mut socket = tokio_tungstenite::accept_hdr_async(stream, callback)
                    .await
                    .unwrap();
                while let Some(Ok(Message::Binary(data))) = socket.next().await {
                    socket.send(Message::Binary(data)).await.unwrap();
                }
            });
        }
    });
    address
}
