//! How long requests may take.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hull_apiserver::pki::CertPair;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{CONFIG_MAPS, PATIENCE, TestServer, config_map, tls_config};

/// The server's own limit in these tests; far below [`PATIENCE`].
const LIMIT: Duration = Duration::from_millis(500);
const TIMED_OUT: &str = "Timeout: request did not complete within the allotted timeout";

async fn impatient() -> TestServer {
    TestServer::start_with(|config| config.request_timeout = LIMIT).await
}

/// Sends the head of a POST and one byte of its body, and no more: what comes back, up to the
/// end of the connection, and how long that took.
async fn post_slowly(server: &TestServer, pair: &CertPair, path: &str) -> (String, Duration) {
    let address = server.url.strip_prefix("https://").unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls_config(&server.pki, Some(pair))));
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let sent = Instant::now();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    // Without a farewell of TLS the end is an error, and an end all the same.
    let _ = read.expect("the server keeps the connection");
    (String::from_utf8(answer).unwrap(), sent.elapsed())
}

#[tokio::test]
async fn a_body_that_does_not_come_is_cut_off() {
    let server = impatient().await;
    let admin = server.pki.admin().unwrap();
    let (answer, elapsed) = post_slowly(&server, &admin, CONFIG_MAPS).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    let status: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(status["kind"], "Status");
    assert_eq!(status["reason"], "Timeout");
    assert_eq!(status["code"], 504);
    assert_eq!(status["message"], TIMED_OUT);
    assert!(elapsed >= LIMIT, "{elapsed:?}");
}

#[tokio::test]
async fn clients_may_ask_for_less_time_and_not_for_more() {
    let server = TestServer::start().await;
    let admin = server.pki.admin().unwrap();
    let asked = Duration::from_millis(100);
    let path = format!("{CONFIG_MAPS}?timeout=100ms");
    let (answer, elapsed) = post_slowly(&server, &admin, &path).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(elapsed >= asked, "{elapsed:?}");

    let server = impatient().await;
    let admin = server.pki.admin().unwrap();
    for generous in ["1h", "0s", "-1s"] {
        let path = format!("{CONFIG_MAPS}?timeout={generous}");
        let (answer, _) = post_slowly(&server, &admin, &path).await;
        assert!(answer.contains(TIMED_OUT), "{generous}: {answer}");
    }
}

#[tokio::test]
async fn a_time_that_cannot_be_read_is_refused() {
    let server = TestServer::start().await;
    for (text, why) in [
        ("soon", "invalid duration \"soon\""),
        ("10", "missing unit in duration \"10\""),
        ("1d", "unknown unit \"d\" in duration \"1d\""),
    ] {
        let path = format!("{CONFIG_MAPS}?timeout={text}");
        let (code, reason, message) = server.admin.get(&path).await.refused();
        assert_eq!((code, reason.as_str()), (400, "BadRequest"));
        assert_eq!(
            message,
            format!("invalid timeout specified in the request URL - time: {why}")
        );
    }
}

#[tokio::test]
async fn what_lasts_is_not_timed() {
    let server = impatient().await;
    let admin = server.pki.admin().unwrap();
    // Nor does such a request have a time-out of its own to be read.
    let path = format!("{CONFIG_MAPS}?watch=true&timeout=soon");
    let mut watch = server.admin.watch(&path).await;
    // Takes all the time that a request may.
    let (_, elapsed) = post_slowly(&server, &admin, CONFIG_MAPS).await;
    assert!(elapsed >= LIMIT);
    let made = config_map("after");
    server.admin.post(CONFIG_MAPS, &made).await.ok();
    let seen = watch.next_name().await;
    assert_eq!(seen, ("ADDED".to_owned(), "after".to_owned()));
}
