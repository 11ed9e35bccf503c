//! A server to test against, and a client for it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hull_apiserver::{
    ApiServer, ApiServerConfig,
    pki::{CertPair, ClusterPki},
};
use hull_store::{Store, embedded::EmbeddedStore};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};

/// Longest wait for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct TestServer {
    pub dir: tempfile::TempDir,
    pub url: String,
    pub pki: ClusterPki,
    pub server: Arc<ApiServer>,
    pub admin: ApiClient,
    pub store: Arc<dyn Store>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestServer {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts with other settings.
    pub async fn start_with(change: impl FnOnce(&mut ApiServerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = ClusterPki::load_or_create(dir.path().join("pki"), &[]).unwrap();
        let store = Arc::new(EmbeddedStore::open(dir.path().join("store.redb")).unwrap());
        Self::start_on(dir, pki, store, change).await
    }

    /// Another server of the same cluster, on the same store.
    pub async fn sibling(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_on(dir, self.pki.clone(), self.store.clone(), |_| {}).await
    }

    async fn start_on(
        dir: tempfile::TempDir,
        pki: ClusterPki,
        store: Arc<dyn Store>,
        change: impl FnOnce(&mut ApiServerConfig),
    ) -> Self {
        let mut config = ApiServerConfig::new(pki.clone());
        change(&mut config);
        let server = ApiServer::new(config, store.clone()).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let serving = server.clone();
        let task = tokio::spawn(async move {
            serving
                .serve(listener, std::future::pending())
                .await
                .unwrap();
        });
        let admin = ApiClient::new(&url, &pki, Some(&pki.admin().unwrap()));
        TestServer {
            dir,
            url,
            pki,
            server,
            admin,
            store,
            task,
        }
    }

    pub fn client(&self, pair: Option<&CertPair>) -> ApiClient {
        ApiClient::new(&self.url, &self.pki, pair)
    }

    /// Writes a kubeconfig and returns its path.
    pub fn kubeconfig(&self) -> std::path::PathBuf {
        let path = self.dir.path().join("kubeconfig");
        let text = self
            .pki
            .kubeconfig(&self.url, "admin", &self.pki.admin().unwrap());
        std::fs::write(&path, text).unwrap();
        path
    }
}

#[derive(Clone)]
pub struct ApiClient {
    url: String,
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub text: String,
    pub bytes: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The object of a request that must have succeeded.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!(
            (200..300).contains(&self.code),
            "{}: {}",
            self.code,
            self.text
        );
        self.json()
    }

    /// Code, reason and message of a request that must have failed.
    #[track_caller]
    pub fn refused(&self) -> (u16, String, String) {
        assert!(self.code >= 400, "{}: {}", self.code, self.text);
        let status = self.json();
        assert_eq!(status["kind"], "Status");
        assert_eq!(status["code"], self.code);
        (
            self.code,
            status["reason"].as_str().unwrap_or("").to_string(),
            status["message"].as_str().unwrap_or("").to_string(),
        )
    }
}

pub fn tls_config(pki: &ClusterPki, pair: Option<&CertPair>) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots);
    match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => builder
            .with_client_auth_cert(
                vec![
                    CertificateDer::from_pem_slice(pair.cert_pem.as_bytes())
                        .unwrap()
                        .into_owned(),
                ],
                PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap(),
            )
            .unwrap(),
    }
}

impl ApiClient {
    pub fn new(url: &str, pki: &ClusterPki, pair: Option<&CertPair>) -> Self {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(pki, pair))
            .https_only()
            .enable_all_versions()
            .build();
        ApiClient {
            url: url.to_string(),
            http: Client::builder(hyper_util::rt::TokioExecutor::new()).build(connector),
        }
    }

    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> http::Response<hyper::body::Incoming> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .body(Full::new(body.into()))
            .unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(
                http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        tokio::time::timeout(PATIENCE, self.http.request(request))
            .await
            .expect("an answer in time")
            .unwrap()
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let response = self.raw(method, path, headers, body).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
            bytes,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    pub async fn post(&self, path: &str, object: &Value) -> Answer {
        self.send(
            Method::POST,
            path,
            &[("content-type", "application/json")],
            object.to_string(),
        )
        .await
    }

    pub async fn put(&self, path: &str, object: &Value) -> Answer {
        self.send(
            Method::PUT,
            path,
            &[("content-type", "application/json")],
            object.to_string(),
        )
        .await
    }

    pub async fn patch(&self, path: &str, media: &str, patch: &Value) -> Answer {
        let media = format!("application/{media}+json");
        self.send(
            Method::PATCH,
            path,
            &[("content-type", &media)],
            patch.to_string(),
        )
        .await
    }

    pub async fn delete(&self, path: &str, options: &Value) -> Answer {
        self.send(
            Method::DELETE,
            path,
            &[("content-type", "application/json")],
            options.to_string(),
        )
        .await
    }

    /// Opens a watch.
    pub async fn watch(&self, path: &str) -> WatchLines {
        let response = self.raw(Method::GET, path, &[], "").await;
        assert_eq!(response.status(), 200);
        WatchLines {
            body: response.into_body(),
            buffer: Vec::new(),
        }
    }
}

/// The events of a watch.
pub struct WatchLines {
    body: hyper::body::Incoming,
    buffer: Vec<u8>,
}

impl WatchLines {
    /// The next event; `None` when the server ended the watch.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame())
                .await
                .expect("an event in time")?;
            if let Ok(data) = frame.unwrap().into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// Type and name of the next event.
    pub async fn next_name(&mut self) -> (String, String) {
        let event = self.next().await.expect("another event");
        (
            event["type"].as_str().unwrap().to_string(),
            event["object"]["metadata"]["name"]
                .as_str()
                .unwrap_or("")
                .to_string(),
        )
    }
}

pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const PODS: &str = "/api/v1/namespaces/default/pods";
pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

pub fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

pub fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "web", "image": "nginx", "ports": [{"containerPort": 80}]}]}})
}

pub fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "web", "image": "nginx"}]}}}})
}

/// Binds a pod, as the scheduler does.
pub async fn bind(client: &ApiClient, pod: &str, node: &str) -> Answer {
    client
        .post(
            &format!("{PODS}/{pod}/binding"),
            &json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": {"kind": "Node", "name": node}}),
        )
        .await
}
