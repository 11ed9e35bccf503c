//! Streaming, over WebSocket.

use crate::specs;
use crate::suite::Suite;
use crate::support::patience;
use futures::{SinkExt, StreamExt};
use hull_cri_api::v1::*;
use std::collections::BTreeMap;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

specs! {
    "Streaming: runtime should support exec with tty=false and stdin=false" => exec,
    "Streaming: runtime should support exec with tty=true and stdin=true" => exec_tty,
    "Streaming: runtime should support attach" => attach,
    "Streaming: runtime should support portforward" => port_forward,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(url: &str, protocol: &str) -> Socket {
    let mut request = url.replacen("http", "ws", 1).into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    tokio_tungstenite::connect_async(request).await.unwrap().0
}

fn frame(channel: u8, bytes: &[u8]) -> Message {
    Message::Binary([&[channel], bytes].concat().into())
}

/// What arrives by channel, until it satisfies the condition or the stream ends.
async fn read_until(
    socket: &mut Socket,
    enough: impl Fn(&BTreeMap<u8, String>) -> bool,
) -> BTreeMap<u8, String> {
    let mut channels: BTreeMap<u8, String> = BTreeMap::new();
    let reading = async {
        while !enough(&channels) {
            let Some(Ok(message)) = socket.next().await else {
                return;
            };
            if let Message::Binary(bytes) = message {
                let text = String::from_utf8_lossy(&bytes[1..]).into_owned();
                channels.entry(bytes[0]).or_default().push_str(&text);
            }
        }
    };
    tokio::time::timeout(patience(), reading)
        .await
        .expect("the stream ends");
    channels
}

const V5: &str = "v5.channel.k8s.io";

async fn exec(suite: &mut Suite) {
    let id = suite.running(crate::suite::FOREVER, |_| {}).await;
    let request = ExecRequest {
        container_id: id.clone(),
        cmd: ["sh", "-c", "echo hello; echo error >&2"]
            .map(String::from)
            .to_vec(),
        stdout: true,
        stderr: true,
        ..Default::default()
    };
    let url = suite
        .node
        .runtime
        .exec(request)
        .await
        .unwrap()
        .into_inner()
        .url;
    let channels = read_until(&mut connect(&url, V5).await, |_| false).await;
    assert_eq!(
        (channels[&1].as_str(), channels[&2].as_str()),
        ("hello\n", "error\n")
    );
    assert!(channels[&3].contains("Success"), "{channels:?}");
    suite.remove(&[&id]).await;
}

async fn exec_tty(suite: &mut Suite) {
    let id = suite.running(crate::suite::FOREVER, |_| {}).await;
    let request = ExecRequest {
        container_id: id.clone(),
        cmd: vec!["sh".into()],
        tty: true,
        stdin: true,
        stdout: true,
        ..Default::default()
    };
    let url = suite
        .node
        .runtime
        .exec(request)
        .await
        .unwrap()
        .into_inner()
        .url;
    let mut socket = connect(&url, V5).await;
    socket
        .send(frame(0, b"echo he''llo; tty; exit\n"))
        .await
        .unwrap();
    let channels = read_until(&mut socket, |_| false).await;
    assert!(channels[&1].contains("hello\r\n"), "{channels:?}");
    assert!(channels[&1].contains("/dev/pts/"), "{channels:?}");
    suite.remove(&[&id]).await;
}

async fn attach(suite: &mut Suite) {
    let id = suite
        .running(&["sh"], |config| {
            config.stdin = true;
            config.stdin_once = true;
        })
        .await;
    let request = AttachRequest {
        container_id: id.clone(),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let url = suite
        .node
        .runtime
        .attach(request)
        .await
        .unwrap()
        .into_inner()
        .url;
    let mut socket = connect(&url, V5).await;
    socket.send(frame(0, b"echo hello\n")).await.unwrap();
    let hello =
        |channels: &BTreeMap<u8, String>| channels.get(&1).is_some_and(|text| text == "hello\n");
    let channels = read_until(&mut socket, hello).await;
    assert!(hello(&channels), "{channels:?}");
    suite.remove(&[&id]).await;
}

async fn port_forward(suite: &mut Suite) {
    let pod = suite.pod().await;
    let script = "while true; do echo forwarded | nc -l -p 7070; done";
    let id = suite.running(&["sh", "-c", script], |_| {}).await;
    let listens = "cat /proc/net/tcp /proc/net/tcp6 | grep -q :1B9E";
    Suite::until("the server listens", async || {
        let answer = suite.node.exec(&id, &["sh", "-c", listens]).await;
        answer.unwrap().exit_code == 0
    })
    .await;
    let request = PortForwardRequest {
        pod_sandbox_id: pod,
        port: vec![7070],
    };
    let url = suite
        .node
        .runtime
        .port_forward(request)
        .await
        .unwrap()
        .into_inner()
        .url;
    let mut socket = connect(&url, "v4.channel.k8s.io").await;
    let arrived = |channels: &BTreeMap<u8, String>| {
        channels
            .get(&0)
            .is_some_and(|text| text.ends_with("forwarded\n"))
    };
    let channels = read_until(&mut socket, arrived).await;
    assert!(arrived(&channels), "{channels:?}");
    suite.remove(&[&id]).await;
}
