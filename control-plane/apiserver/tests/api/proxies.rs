//! HTTP to pods and services through the API server. Addresses of the loopback are refused, so
//! the tests have a network of their own with an address that is not.

use std::{convert::Infallible, future::Future, net::SocketAddr, process::Command};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    harness::{ApiClient, PATIENCE, PODS, TestServer, pod},
    node_proxy::upgraded,
    rbac::{RBAC, binding, eventually, user},
};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
/// For benchmarks of networks (RFC 2544): nobody's.
const ADDRESS: &str = "198.18.0.1";
const PAGE: &str =
    "<html><body background='/b.png'><a href=\"/next?x\">n</a> <a href=x>x</a></body></html>";
/// More than other requests may have.
const LARGE_BYTES: usize = 5 << 20;

/// Runs a test in a network that holds [`ADDRESS`].
fn on_own_network<T: Future<Output = ()>>(test: impl FnOnce() -> T + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let address = format!("{ADDRESS}/32");
        for command in [
            &["link", "set", "lo", "up"][..],
            &["address", "add", &address, "dev", "lo"],
        ] {
            assert!(Command::new("ip").args(command).status().unwrap().success());
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
    });
    thread.join().unwrap();
}

/// What runs in the pod: it says what it was asked.
async fn application(
    mut request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let upgrades = request.headers().contains_key("upgrade");
    let target = request.uri().path_and_query().unwrap().to_string();
    let answer = |text: String| Response::new(Full::new(Bytes::from(text)));
    if upgrades {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            stream.write_all(target.as_bytes()).await.unwrap();
            let (mut read, mut write) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let mut response = answer(String::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        for (name, value) in [("connection", "Upgrade"), ("upgrade", "websocket")] {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        return Ok(response);
    }
    let mut response = match target.as_str() {
        "/page" => {
            let mut response = answer(PAGE.to_string());
            let headers = response.headers_mut();
            headers.insert("content-type", "text/html; charset=utf-8".parse().unwrap());
            headers.insert("access-control-allow-origin", "*".parse().unwrap());
            response
        }
        "/moved" => {
            let mut response = answer(String::new());
            *response.status_mut() = StatusCode::FOUND;
            let location = "/elsewhere".parse().unwrap();
            response.headers_mut().insert("location", location);
            response
        }
        _ => {
            let headers: serde_json::Map<String, Value> = request
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
                .collect();
            let method = request.method().to_string();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            answer(
                json!({"method": method, "target": target, "headers": headers, "bytes": body.len()})
                    .to_string(),
            )
        }
    };
    response
        .headers_mut()
        .insert("x-application", "yes".parse().unwrap());
    Ok(response)
}

async fn start_application() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((ADDRESS, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(application))
                    .with_upgrades(),
            );
        }
    });
    address
}

/// A pod that says that it listens there.
async fn listening(client: &ApiClient, name: &str, address: &str, port: u16) {
    let mut object = pod(name);
    object["spec"]["containers"][0]["ports"] = json!([{"containerPort": port}]);
    client.post(PODS, &object).await.ok();
    let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
    let path = format!("{PODS}/{name}/status");
    client.patch(&path, "merge-patch", &status).await.ok();
}

#[test]
fn a_request_reaches_the_pod_without_its_clients_identity() {
    on_own_network(async || {
        let server = TestServer::start().await;
        let client = &server.admin;
        let at = start_application().await;
        listening(client, "p", ADDRESS, at.port()).await;
        let headers = [
            ("authorization", "Bearer x"),
            ("x-own", "1"),
            ("cookie", "a=b"),
        ];
        let path = format!("{PODS}/p/proxy/a%2Fb//c/?d=e&watch=true");
        for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let answer = client.send(method.clone(), &path, &headers, "body").await;
            assert_eq!(answer.headers["x-application"], "yes");
            let seen = answer.ok();
            assert_eq!(seen["method"], method.as_str());
            assert_eq!(seen["target"], "/a%2Fb//c/?d=e&watch=true");
            assert_eq!(seen["bytes"], 4);
            assert_eq!(seen["headers"]["x-own"], "1");
            assert_eq!(seen["headers"]["cookie"], "a=b");
            assert_eq!(seen["headers"].get("authorization"), None);
            let forwarded = path.split('?').next().unwrap();
            assert_eq!(seen["headers"]["x-forwarded-uri"], forwarded);
        }
        let large = vec![b'x'; LARGE_BYTES];
        let named = format!("{PODS}/http:p:{}/proxy/", at.port());
        let seen = client.send(Method::POST, &named, &[], large).await.ok();
        assert_eq!(
            (&seen["target"], &seen["bytes"]),
            (&json!("/"), &json!(LARGE_BYTES))
        );
        let head = client.send(Method::HEAD, &named, &[], "").await;
        assert_eq!((head.code, head.bytes.len()), (200, 0));
    });
}

#[test]
fn links_and_redirects_lead_through_the_proxy() {
    on_own_network(async || {
        let server = TestServer::start().await;
        let client = &server.admin;
        let at = start_application().await;
        listening(client, "p", ADDRESS, at.port()).await;
        let root = format!("{PODS}/p/proxy");
        let moved = client.get(&format!("{root}?a=b")).await;
        let location = moved.headers["location"].to_str().unwrap();
        assert_eq!((moved.code, location), (301, &format!("{root}/?a=b")[..]));
        let moved = client.get(&format!("{root}/moved")).await;
        let location = moved.headers["location"].to_str().unwrap();
        assert_eq!(
            (moved.code, location),
            (302, &format!("{root}/elsewhere")[..])
        );
        let page = client.get(&format!("{root}/page")).await;
        let expected = PAGE
            .replace("'/b.png'", &format!("'{root}/b.png'"))
            .replace("\"/next?x\"", &format!("\"{root}/next?x\""));
        assert_eq!(page.text, expected);
        assert!(!page.headers.contains_key("access-control-allow-origin"));
    });
}

#[test]
fn only_addresses_of_the_cluster_are_reached() {
    on_own_network(async || {
        let server = TestServer::start().await;
        let client = &server.admin;
        listening(client, "near", "127.0.0.1", 80).await;
        listening(client, "link", "169.254.169.254", 80).await;
        client.post(PODS, &pod("new")).await.ok();
        for name in ["near", "link", "new"] {
            let answer = client.get(&format!("{PODS}/{name}/proxy/")).await.refused();
            assert_eq!(
                (answer.0, &answer.2[..]),
                (400, "address not allowed"),
                "{name}"
            );
        }
        let (code, _, message) = client
            .get(&format!("{PODS}/ftp:new:1/proxy/"))
            .await
            .refused();
        assert_eq!(
            (code, &message[..]),
            (400, "invalid pod request \"ftp:new:1\"")
        );
        assert_eq!(
            client.get(&format!("{PODS}/x/proxy/")).await.refused().0,
            404
        );
        // Nobody listens there.
        listening(client, "silent", ADDRESS, 1).await;
        let (code, _, message) = client.get(&format!("{PODS}/silent/proxy/")).await.refused();
        assert_eq!(code, 503);
        assert!(
            message.starts_with("error trying to reach service: "),
            "{message}"
        );
    });
}

#[test]
fn a_service_leads_to_a_ready_pod_of_its_namespace() {
    on_own_network(async || {
        let server = TestServer::start().await;
        let client = &server.admin;
        let at = start_application().await;
        listening(client, "p", ADDRESS, at.port()).await;
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
            "spec": {"ports": [{"name": "web", "port": 80}, {"name": "other", "port": 81}]}});
        client.post(SERVICES, &service).await.ok();
        let pod_of = |name: &str| json!({"kind": "Pod", "namespace": "default", "name": name});
        let mut slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4", "ports": [{"name": "web", "port": at.port()}],
            "endpoints": [{"addresses": [ADDRESS], "targetRef": pod_of("p")}]});
        client.post(SLICES, &slice).await.ok();
        for id in ["s:80", "s:web", "http:s:web"] {
            eventually(client, &format!("{SERVICES}/{id}/proxy/x"), 200).await;
        }
        for (id, words) in [
            ("s", "no endpoints available for service \"s\""),
            ("s:81", "no endpoints available for service \"s:81\""),
            ("s:82", "no service port 82 found for service \"s\""),
        ] {
            let answer = client
                .get(&format!("{SERVICES}/{id}/proxy/"))
                .await
                .refused();
            assert_eq!((answer.0, &answer.2[..]), (503, words));
        }
        // Neither what is no pod, nor what the pod does not own, nor what is not ready.
        for (target, address, ready) in [
            (Value::Null, ADDRESS, true),
            (pod_of("p"), "198.18.0.2", true),
            (pod_of("p"), ADDRESS, false),
        ] {
            slice["endpoints"] = json!([{"addresses": [address], "targetRef": target,
                "conditions": {"ready": ready}}]);
            client.put(&format!("{SLICES}/s-1"), &slice).await.ok();
            eventually(client, &format!("{SERVICES}/s:web/proxy/x"), 503).await;
        }
    });
}

#[test]
fn upgrades_go_through_and_verbs_are_authorised_each() {
    on_own_network(async || {
        let server = TestServer::start().await;
        let client = &server.admin;
        let at = start_application().await;
        listening(client, "p", ADDRESS, at.port()).await;
        let path = format!("{PODS}/p/proxy/chat?room=1");
        let (_, mut stream) = upgraded(&server, &path).await;
        stream.write_all(b"ping").await.unwrap();
        let expected = b"/chat?room=1ping";
        let mut got = vec![0; expected.len()];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut got))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(got, expected);

        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "reader"},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods/proxy"]}]});
        client
            .post(&format!("{RBAC}/clusterroles"), &role)
            .await
            .ok();
        let bound = binding(
            "ClusterRoleBinding",
            "b",
            ("ClusterRole", "reader"),
            user("jane"),
        );
        let bindings = format!("{RBAC}/clusterrolebindings");
        client.post(&bindings, &bound).await.ok();
        let pair = server.pki.client("jane", "jane", &[]).unwrap();
        let jane = server.client(Some(&pair));
        let path = format!("{PODS}/p/proxy/x");
        eventually(&jane, &path, 200).await;
        let (code, _, message) = jane.post(&path, &json!({})).await.refused();
        assert_eq!(code, 403);
        assert!(
            message.contains("cannot create resource \"pods/proxy\""),
            "{message}"
        );
        let options = jane.send(Method::OPTIONS, &path, &[], "").await;
        assert_eq!(options.refused().0, 403);
    });
}
