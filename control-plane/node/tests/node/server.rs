//! The node's HTTPS server: who may ask, logs, and exec through to the runtime's streaming server.

use std::time::Duration;

use crate::support::{Cluster, connect, get};
use futures::{SinkExt, StreamExt};
use hyper::body::Bytes;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

#[tokio::test(flavor = "multi_thread")]
async fn clients_without_a_cluster_certificate_are_refused() {
    let cluster = Cluster::start().await;
    assert_eq!(get(&cluster, "/healthz").await, (200, "ok".into()));
    let mut refused = match connect(&cluster, None).await {
        // With TLS 1.3 the refusal arrives with the first read.
        Ok(stream) => stream,
        Err(_) => return,
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let _ = refused
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    let mut answer = Vec::new();
    assert!(refused.read_to_end(&mut answer).await.is_err() && answer.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_read_with_their_options() {
    let cluster = Cluster::start().await;
    cluster
        .create_pod("p", json!({"containers": [{"name": "c", "image": "i:1"}]}))
        .await;
    cluster.wait_running("p").await;
    let base = "/containerLogs/default/p/c";
    assert_eq!(get(&cluster, base).await, (200, "hello from c\n".into()));
    let (code, text) = get(&cluster, &format!("{base}?timestamps=true&tailLines=1")).await;
    assert_eq!(code, 200);
    assert!(
        text.starts_with("20") && text.ends_with(" hello from c\n"),
        "{text}"
    );
    let (code, text) = get(&cluster, &format!("{base}?previous=true")).await;
    assert_eq!(code, 400);
    assert!(
        text.contains("previous terminated container \"c\" in pod \"p\" not found"),
        "{text}"
    );
    assert_eq!(get(&cluster, "/containerLogs/default/p/zz").await.0, 400);
    assert_eq!(get(&cluster, "/containerLogs/default/none/c").await.0, 404);
    assert_eq!(get(&cluster, &format!("{base}?tailLines=x")).await.0, 400);
    let (code, text) = get(&cluster, "/pods").await;
    assert!(code == 200 && text.contains("\"name\":\"p\""));
    let (code, text) = get(&cluster, "/metrics").await;
    assert!(code == 200 && text.contains("hull_node_pods 1"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn followed_log_ends_with_the_container() {
    let cluster = Cluster::start().await;
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]});
    cluster.create_pod("p", spec).await;
    cluster.wait_running("p").await;
    let answer = get(&cluster, "/containerLogs/default/p/c?follow=true");
    let mut answer = std::pin::pin!(answer);
    // It is still followed while the container runs.
    assert!(
        tokio::time::timeout(Duration::from_millis(300), &mut answer)
            .await
            .is_err()
    );
    cluster.cri.exit("c", 0);
    let (code, text) = tokio::time::timeout(Duration::from_secs(10), answer)
        .await
        .unwrap();
    assert_eq!((code, text.as_str()), (200, "hello from c\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_reach_the_api_server() {
    let cluster = Cluster::start().await;
    cluster
        .create_pod("p", json!({"containers": [{"name": "c", "image": "i:1"}]}))
        .await;
    cluster.wait_running("p").await;
    let text = cluster.pods().logs("p", &Default::default()).await.unwrap();
    assert_eq!(text, "hello from c\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_is_passed_through_with_its_protocol() {
    let cluster = Cluster::start().await;
    cluster.cri.serve_streaming().await;
    cluster
        .create_pod("p", json!({"containers": [{"name": "c", "image": "i:1"}]}))
        .await;
    cluster.wait_running("p").await;
    let stream = connect(&cluster, Some(cluster.pki.kubelet_client()))
        .await
        .unwrap();
    let mut request =
        "wss://127.0.0.1/exec/default/p/c?command=echo&command=a%20b&stdout=true&stdin=true"
            .into_client_request()
            .unwrap();
    let protocol = "v5.channel.k8s.io";
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocol.parse().unwrap());
    let (mut socket, answer) = tokio_tungstenite::client_async(request, stream)
        .await
        .unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], protocol);
    socket
        .send(Message::Binary(Bytes::from_static(b"\x00ping")))
        .await
        .unwrap();
    let echoed = socket.next().await.unwrap().unwrap();
    assert_eq!(echoed.into_data(), Bytes::from_static(b"\x00ping"));
    assert_eq!(cluster.cri.called("Exec echo a b"), 1);
    let (code, text) = get(&cluster, "/exec/default/p/c").await;
    assert_eq!(
        (code, text.as_str()),
        (400, "you must specify at least 1 command")
    );
    let (code, text) = get(&cluster, "/portForward/default/p?ports=80").await;
    assert_eq!(code, 501);
    assert!(text.contains("unimplemented: port-forward"), "{text}");
}
