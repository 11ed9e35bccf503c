//! Exec, attach and port-forward over WebSocket, with the real VMM, kernel and agent.

// Helpers of tests panic as tests do; the exemption covers only test functions themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use futures::{SinkExt, StreamExt};
use hull_cri_api::v1::*;
use serde_json::Value;
use std::collections::BTreeMap;
use support::{Node, patience};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(url: &str, protocol: &str) -> Socket {
    let mut request = url
        .replacen("http://", "ws://", 1)
        .into_client_request()
        .unwrap();
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    let (socket, answer) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], protocol);
    socket
}

fn frame(channel: u8, bytes: &[u8]) -> Message {
    Message::Binary([&[channel], bytes].concat().into())
}

/// Everything that arrives until the end, by channel.
async fn drain(socket: &mut Socket) -> BTreeMap<u8, Vec<u8>> {
    let mut channels: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    let reading = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Binary(bytes) = message {
                channels
                    .entry(bytes[0])
                    .or_default()
                    .extend_from_slice(&bytes[1..]);
            }
        }
    };
    tokio::time::timeout(patience(), reading)
        .await
        .expect("the stream ends");
    channels
}

fn status(channels: &BTreeMap<u8, Vec<u8>>) -> Value {
    serde_json::from_slice(&channels[&3]).unwrap()
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_exec_streams_both_ways_and_tells_the_exit_code() {
    let mut node = Node::start().await;
    node.pull("busybox").await;
    let pod = node.ready_pod("p").await;
    let config = node.container("main", &["sleep", "3600"]);
    let id = node.running(&pod, config).await;
    let request = |command: &str, tty: bool| ExecRequest {
        container_id: id.clone(),
        cmd: vec!["sh".into(), "-c".into(), command.into()],
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
    };

    // v5 closes standard input by itself: cat ends.
    let url = node
        .runtime
        .exec(request("cat; echo err >&2; exit 4", false))
        .await
        .unwrap();
    let url = url.into_inner().url;
    let mut socket = connect(&url, "v5.channel.k8s.io").await;
    let much = vec![b'x'; 300_000];
    for part in much.chunks(10_000) {
        socket.send(frame(0, part)).await.unwrap();
    }
    socket
        .send(Message::Binary(vec![255, 0].into()))
        .await
        .unwrap();
    let channels = drain(&mut socket).await;
    assert_eq!(channels[&1].len(), much.len());
    assert_eq!(channels[&2], b"err\n");
    assert_eq!(status(&channels)["details"]["causes"][0]["message"], "4");
    // The token is used up.
    assert!(
        tokio_tungstenite::connect_async(url.replacen("http", "ws", 1))
            .await
            .is_err()
    );

    // v4 without a terminal. It has no way to close standard input: the command ends itself.
    let url = node
        .runtime
        .exec(request(
            "read line; echo got $line; echo err >&2; exit 5",
            false,
        ))
        .await
        .unwrap();
    let mut socket = connect(&url.into_inner().url, "v4.channel.k8s.io").await;
    socket.send(frame(0, b"words\n")).await.unwrap();
    let channels = drain(&mut socket).await;
    assert_eq!(channels[&1], b"got words\n");
    assert_eq!(channels[&2], b"err\n");
    assert_eq!(status(&channels)["reason"], "NonZeroExitCode");
    assert_eq!(status(&channels)["details"]["causes"][0]["message"], "5");

    // v4 with a terminal whose size is set, and set again: the command waits for each.
    let url = node
        .runtime
        .exec(request(
            "exec 2>/dev/null; until [ \"$(stty size)\" = '17 91' ]; do usleep 20000; done; echo first; \
             until [ \"$(stty size)\" = '40 132' ]; do usleep 20000; done; stty size; \
             read line; echo got $line",
            true,
        ))
        .await
        .unwrap();
    let mut socket = connect(&url.into_inner().url, "v4.channel.k8s.io").await;
    socket
        .send(frame(4, br#"{"Width":91,"Height":17}"#))
        .await
        .unwrap();
    let first = tokio::time::timeout(patience(), socket.next()).await;
    let Ok(Some(Ok(Message::Binary(first)))) = first else {
        panic!("the first size is not seen: {first:?}");
    };
    assert!(first[1..].starts_with(b"first"), "{first:?}");
    socket
        .send(frame(4, br#"{"Width":132,"Height":40}"#))
        .await
        .unwrap();
    socket.send(frame(0, b"words\n")).await.unwrap();
    let channels = drain(&mut socket).await;
    let text = String::from_utf8_lossy(&channels[&1]).into_owned();
    assert!(text.contains("40 132"), "{text}");
    assert!(text.contains("got words"), "{text}");
    assert_eq!(status(&channels)["status"], "Success");
    node.remove_pod(&pod).await;
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_attach_and_port_forward_reach_the_container() {
    let mut node = Node::start().await;
    node.pull("busybox").await;
    let pod = node.ready_pod("p").await;
    let mut config = node.container(
        "main",
        &["sh", "-c", "while read line; do echo said $line; done"],
    );
    config.stdin = true;
    config.stdin_once = true;
    let id = node.running(&pod, config).await;
    let request = AttachRequest {
        container_id: id.clone(),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let url = node.runtime.attach(request).await.unwrap().into_inner().url;
    let mut socket = connect(&url, "v5.channel.k8s.io").await;
    socket.send(frame(0, b"hello\n")).await.unwrap();
    socket
        .send(Message::Binary(vec![255, 0].into()))
        .await
        .unwrap();
    let channels = drain(&mut socket).await;
    assert_eq!(channels[&1], b"said hello\n");
    assert_eq!(node.exited(&id).await.exit_code, 0);

    let server = [
        "sh",
        "-c",
        "echo answer > /index.html; exec httpd -f -p 127.0.0.1:8080 -h /",
    ];
    let config = node.container("server", &server);
    let server = node.running(&pod, config).await;
    let deadline = std::time::Instant::now() + patience();
    while node
        .exec(
            &server,
            &["wget", "-q", "-O", "-", "http://127.0.0.1:8080/"],
        )
        .await
        .unwrap()
        .exit_code
        != 0
    {
        assert!(std::time::Instant::now() < deadline);
    }
    let request = PortForwardRequest {
        pod_sandbox_id: pod.clone(),
        port: vec![8080],
    };
    let url = node
        .runtime
        .port_forward(request)
        .await
        .unwrap()
        .into_inner()
        .url;
    let mut socket = connect(&url, "v4.channel.k8s.io").await;
    socket
        .send(frame(0, b"GET / HTTP/1.0\r\n\r\n"))
        .await
        .unwrap();
    let channels = drain(&mut socket).await;
    assert_eq!(channels[&1], 8080u16.to_le_bytes());
    let text = String::from_utf8_lossy(&channels[&0]).into_owned();
    assert!(text.contains("answer"), "{text}");
    node.remove_pod(&pod).await;
    assert_eq!(node.leftovers(), Vec::<String>::new());
}
