//! Clients that mean harm, or make mistakes: an error for them, nothing for the others.

use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{CONFIG_MAPS, PATIENCE, PODS, TestServer, config_map, pod, tls_config};

#[tokio::test]
async fn bad_bodies_are_the_clients_fault() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let deep = format!("{{\"data\":{}1{}}}", "[".repeat(50_000), "]".repeat(50_000));
    let yaml_bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n";
    for (media, body, code) in [
        ("application/json", b"".to_vec(), 400),
        ("application/json", b"{".to_vec(), 400),
        ("application/json", b"[]".to_vec(), 400),
        ("application/json", b"null".to_vec(), 422),
        ("application/json", b"\"x\"".to_vec(), 400),
        ("application/json", b"{\"metadata\":5}".to_vec(), 400),
        (
            "application/json",
            b"{\"metadata\":{\"name\":\"\xff\xfe\"}}".to_vec(),
            400,
        ),
        ("application/json", deep.into_bytes(), 400),
        ("application/yaml", b"a: [".to_vec(), 400),
        ("application/yaml", yaml_bomb.as_bytes().to_vec(), 400),
        (
            "application/vnd.kubernetes.protobuf",
            b"k8s\0\x0a\xff".to_vec(),
            400,
        ),
        ("application/vnd.kubernetes.protobuf", b"{}".to_vec(), 400),
        (
            "application/vnd.kubernetes.protobuf",
            b"k8s\0\x12\x03\x0a\xff\x01".to_vec(),
            400,
        ),
        ("text/html", b"<p>".to_vec(), 415),
        ("application/json", vec![b' '; 3 * 1024 * 1024 + 1], 413),
    ] {
        let answer = client
            .send(
                Method::POST,
                CONFIG_MAPS,
                &[("content-type", media)],
                body.clone(),
            )
            .await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        assert_eq!(answer.refused().0, code, "{media} {shown}: {}", answer.text);
    }
    let malformed = client
        .send(Method::POST, CONFIG_MAPS, &[], "{\"a\": nope}")
        .await;
    let (_, reason, message) = malformed.refused();
    assert_eq!(reason, "BadRequest");
    assert!(
        message.starts_with("the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: "),
        "{message}"
    );
    assert!(message.ends_with("({\"a\": nope})"), "{message}");
    assert_eq!(client.get("/readyz").await.text, "ok");
}

#[tokio::test]
async fn wrong_methods_and_paths_are_refused() {
    let server = TestServer::start().await;
    let client = &server.admin;
    for (method, path, code) in [
        (Method::PUT, CONFIG_MAPS, 405),
        (Method::POST, "/api/v1/configmaps", 405),
        (Method::PATCH, "/api/v1/namespaces", 405),
        (Method::DELETE, "/api/v1/namespaces", 405),
        (Method::POST, "/version", 405),
        (Method::OPTIONS, "/api/v1/pods", 405),
        (Method::GET, "/api/v1/unknown", 404),
        (Method::GET, "/no/such/path", 404),
        (Method::GET, "/api/v1/namespaces/default/pods/a/b/c", 404),
        (
            Method::GET,
            "/api/v1/namespaces/default/configmaps/..%2f..%2fsecrets",
            404,
        ),
        (
            Method::GET,
            "/api/v1/namespaces/default/configmaps/%00",
            404,
        ),
    ] {
        let answer = client.send(method.clone(), path, &[], "").await;
        assert_eq!(answer.refused().0, code, "{method} {path}: {}", answer.text);
    }
}

#[tokio::test]
async fn keys_cannot_be_smuggled_through_names() {
    let server = TestServer::start().await;
    let client = &server.admin;
    for name in ["../x", "a/b", ".", "..", "a\u{0}b", "A", &"a".repeat(300)] {
        let answer = client.post(CONFIG_MAPS, &config_map(name)).await;
        assert_eq!(answer.refused().0, 422, "{name:?}");
    }
    // A pod's name in the path is not a key either.
    client.post(PODS, &pod("p")).await.ok();
    assert_eq!(
        client
            .get("/api/v1/namespaces/default%2fp/pods/p")
            .await
            .code,
        404
    );
    assert_eq!(
        client
            .get("/api/v1/namespaces/default/configmaps/..%2f..%2fpods%2fdefault%2fp")
            .await
            .code,
        404
    );
}

#[tokio::test]
async fn nested_values_do_not_overflow_the_stack() {
    let server = TestServer::start().await;
    let mut value = json!("x");
    for _ in 0..120 {
        value = json!({ "properties": value });
    }
    let answer = server
        .admin
        .post(
            CONFIG_MAPS,
            &json!({"metadata": {"name": "a"}, "data": value}),
        )
        .await;
    assert_eq!(answer.refused().0, 400);
    let patch = server
        .admin
        .send(
            Method::PATCH,
            &format!("{CONFIG_MAPS}/a"),
            &[("content-type", "application/merge-patch+json")],
            "[".repeat(10_000),
        )
        .await;
    assert_eq!(patch.refused().0, 400);
}

#[tokio::test]
async fn garbage_on_the_wire_harms_nobody() {
    let server = TestServer::start().await;
    let address = server.url.strip_prefix("https://").unwrap().to_string();
    // No TLS at all.
    let mut plain = tokio::net::TcpStream::connect(&address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut sink = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut sink))
        .await
        .unwrap();
    // TLS, then no HTTP.
    let mut config = tls_config(&server.pki, None);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let mut tls = connector.connect(name, stream).await.unwrap();
    tls.write_all(b"\x00\x01\x02 nonsense\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, tls.read_to_end(&mut answer))
        .await
        .unwrap();
    assert_eq!(server.admin.get("/livez").await.text, "ok");
}
