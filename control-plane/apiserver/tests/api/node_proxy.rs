//! Logs and streams reach the node agent, with both sides' certificates checked.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hull_apiserver::pki::CertPair;
use hyper::{service::service_fn, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{PATIENCE, PODS, TestServer, bind, pod, tls_config};

/// A node agent that answers every GET with its path and echoes upgraded streams.
async fn start_agent(pair: &CertPair, ca_pem: &str) -> SocketAddr {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        provider.clone(),
    )
    .build()
    .unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![
                CertificateDer::from_pem_slice(pair.cert_pem.as_bytes())
                    .unwrap()
                    .into_owned(),
            ],
            PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = service_fn(agent_answer);
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await;
            });
        }
    });
    address
}

async fn agent_answer(
    mut request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let target = request.uri().path_and_query().unwrap().to_string();
    if !request.headers().contains_key("upgrade") {
        if target.contains("/broken/") {
            let mut response = Response::new(Full::new(Bytes::from("no such container")));
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            return Ok(response);
        }
        return Ok(Response::new(Full::new(Bytes::from(target))));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        stream.write_all(target.as_bytes()).await.unwrap();
        let (mut read, mut write) = tokio::io::split(stream);
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    response
        .headers_mut()
        .insert("connection", "Upgrade".parse().unwrap());
    response
        .headers_mut()
        .insert("upgrade", "websocket".parse().unwrap());
    response.headers_mut().insert(
        "sec-websocket-protocol",
        "v5.channel.k8s.io".parse().unwrap(),
    );
    Ok(response)
}

async fn register(server: &TestServer, agent: SocketAddr) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {
        "addresses": [{"type": "InternalIP", "address": agent.ip().to_string()}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": agent.port()}}}});
    server.admin.post("/api/v1/nodes", &node).await.ok();
    for name in ["p", "broken"] {
        server.admin.post(PODS, &pod(name)).await.ok();
        bind(&server.admin, name, "n").await.ok();
    }
}

/// An upgraded connection, with the headers of the answer.
pub async fn upgraded(server: &TestServer, path: &str) -> (HeaderMap, TokioIo<Upgraded>) {
    let mut config = tls_config(&server.pki, Some(&server.pki.admin().unwrap()));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let address = server.url.strip_prefix("https://").unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(async move { connection.with_upgrades().await });
    let request = Request::get(path)
        .header("host", address)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .body(Full::<Bytes>::default())
        .unwrap();
    let mut response = sender.send_request(request).await.unwrap();
    if response.status() != 101 {
        let status = response.status();
        panic!(
            "{status}: {:?}",
            response.into_body().collect().await.unwrap().to_bytes()
        );
    }
    let stream = hyper::upgrade::on(&mut response).await.unwrap();
    (response.headers().clone(), TokioIo::new(stream))
}

#[tokio::test]
async fn logs_come_from_the_node() {
    let server = TestServer::start().await;
    let pair = server
        .pki
        .kubelet_serving("n", &["127.0.0.1".to_string()])
        .unwrap();
    let agent = start_agent(&pair, server.pki.ca_pem()).await;
    register(&server, agent).await;
    let answer = server.admin.get(&format!("{PODS}/p/log?tailLines=5")).await;
    assert_eq!(answer.text, "/containerLogs/default/p/web?tailLines=5");
    let (code, reason, message) = server
        .admin
        .get(&format!("{PODS}/broken/log"))
        .await
        .refused();
    assert_eq!(
        (code, reason.as_str(), message.as_str()),
        (404, "NotFound", "no such container")
    );
    let wrong = server.admin.get(&format!("{PODS}/p/log?container=x")).await;
    assert_eq!(wrong.refused().2, "container x is not valid for pod p");
    server.admin.post(PODS, &pod("unbound")).await.ok();
    assert_eq!(
        server.admin.get(&format!("{PODS}/unbound/log")).await.text,
        ""
    );
}

#[tokio::test]
async fn a_nodes_agent_is_reached_through_the_nodes_proxy() {
    let server = TestServer::start().await;
    let pair = server
        .pki
        .kubelet_serving("n", &["127.0.0.1".to_string()])
        .unwrap();
    let agent = start_agent(&pair, server.pki.ca_pem()).await;
    register(&server, agent).await;
    for id in ["n".to_string(), format!("https:n:{}", agent.port())] {
        let path = format!("/api/v1/nodes/{id}/proxy/stats/summary?x=y");
        assert_eq!(server.admin.get(&path).await.text, "/stats/summary?x=y");
    }
    // What else listens there is not the agent's, and the loopback is nobody's.
    let (code, _, message) = server.admin.get("/api/v1/nodes/n:1/proxy/").await.refused();
    assert_eq!((code, message.as_str()), (400, "address not allowed"));
}

#[tokio::test]
async fn an_agent_with_a_foreign_certificate_is_not_spoken_to() {
    let server = TestServer::start().await;
    // Right CA, wrong address.
    let pair = server
        .pki
        .kubelet_serving("n", &["10.9.9.9".to_string()])
        .unwrap();
    let agent = start_agent(&pair, server.pki.ca_pem()).await;
    register(&server, agent).await;
    let (code, _, message) = server.admin.get(&format!("{PODS}/p/log")).await.refused();
    assert_eq!(code, 503);
    assert!(
        message.contains("cannot reach the agent of node \"n\""),
        "{message}"
    );
}

#[tokio::test]
async fn upgraded_streams_are_spliced() {
    let server = TestServer::start().await;
    let pair = server
        .pki
        .kubelet_serving("n", &["127.0.0.1".to_string()])
        .unwrap();
    let agent = start_agent(&pair, server.pki.ca_pem()).await;
    register(&server, agent).await;
    let plain = server
        .admin
        .post(&format!("{PODS}/p/exec?command=sh"), &json!({}))
        .await;
    assert_eq!(plain.refused().2, "Upgrade request required");

    let path = format!("{PODS}/p/exec?command=echo&command=hi&stdout=true");
    let (headers, mut stream) = upgraded(&server, &path).await;
    assert_eq!(headers["sec-websocket-protocol"], "v5.channel.k8s.io");
    stream.write_all(b"ping").await.unwrap();
    let expected = b"/exec/default/p/web?command=echo&command=hi&stdout=trueping";
    let mut got = vec![0; expected.len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut got))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&got),
        String::from_utf8_lossy(expected)
    );
}
