//! Debian's docker-registry on a free loopback port, with its own storage.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

/// How long the registry may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(20);
pub const USER: &str = "hull";
pub const PASSWORD: &str = "open sesame";
/// `PASSWORD` of `USER` for htpasswd, with bcrypt.
const HTPASSWD: &str = "hull:$2y$04$95XqXmQsT3QnP07KuKvrFOpPFpum3QEL6ONlOvFHAG9pHPiv4GMsG\n";

#[derive(Default)]
pub struct Options {
    /// Certificate and key in PEM: serve HTTPS.
    pub tls: Option<(String, String)>,
    /// Ask for `USER` and `PASSWORD`.
    pub password: bool,
}

pub struct Registry {
    process: Child,
    directory: tempfile::TempDir,
    port: u16,
    scheme: &'static str,
    client: reqwest::Client,
    password: bool,
}

impl Registry {
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    pub fn start_with(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let root = directory.path().display();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {root}/storage}}}}\n"
        );
        if options.password {
            fs::write(directory.path().join("htpasswd"), HTPASSWD).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: test, path: {root}/htpasswd}}}}\n");
        }
        config += &format!("http:\n  addr: 127.0.0.1:{port}\n");
        if let Some((certificate, key)) = &options.tls {
            fs::write(directory.path().join("tls.crt"), certificate).unwrap();
            fs::write(directory.path().join("tls.key"), key).unwrap();
            config += &format!("  tls: {{certificate: {root}/tls.crt, key: {root}/tls.key}}\n");
        }
        let path = directory.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let process = Command::new("/usr/bin/docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .tls_danger_accept_invalid_certs(true)
            .no_proxy()
            .build()
            .unwrap();
        let scheme = if options.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let password = options.password;
        let registry = Self {
            process,
            directory,
            port,
            scheme,
            client,
            password,
        };
        registry.wait();
        registry
    }

    fn wait(&self) {
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "the registry does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Base URL.
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// Uploads a blob and returns its digest.
    pub async fn push_blob(&self, repository: &str, content: &[u8]) -> String {
        let digest = digest(content);
        let url = format!("{}/v2/{repository}/blobs/uploads/", self.url());
        let begun = self.authorize(self.client.post(url)).send().await.unwrap();
        let location = begun.headers()["location"].to_str().unwrap().to_owned();
        let separator = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{separator}digest={digest}");
        let request = self.authorize(self.client.put(url)).body(content.to_vec());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 201, "{:?}", answer.text().await);
        digest
    }

    /// Uploads a manifest under a tag or digest and returns its digest.
    pub async fn push_manifest(
        &self,
        repository: &str,
        version: &str,
        media_type: &str,
        content: &str,
    ) -> String {
        let url = format!("{}/v2/{repository}/manifests/{version}", self.url());
        let request = self.authorize(self.client.put(url));
        let request = request
            .header("content-type", media_type)
            .body(content.to_owned());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 201, "{:?}", answer.text().await);
        digest(content.as_bytes())
    }

    fn authorize(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        if self.password {
            request.basic_auth(USER, Some(PASSWORD))
        } else {
            request
        }
    }

    /// The file in which the registry keeps a blob, for a test to spoil.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let blobs = "storage/docker/registry/v2/blobs/sha256";
        self.directory
            .path()
            .join(blobs)
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

pub fn digest(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}
