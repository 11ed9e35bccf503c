//! The `hull` program as a user runs it, with no container runtime: what it writes, refuses and
//! survives.

// Helpers of tests: a failed step is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "up/client_libraries.rs"]
mod client_libraries;
#[path = "up/conformance.rs"]
mod conformance;
#[path = "up/controller.rs"]
mod controller;
#[path = "up/helm.rs"]
mod helm;
#[path = "up/join.rs"]
mod join;
#[path = "up/kubectl.rs"]
mod kubectl;
#[path = "up/store.rs"]
mod store;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Far beyond what anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn hull() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hull"));
    for (name, _) in std::env::vars() {
        if name.starts_with("HULL_") {
            command.env_remove(name);
        }
    }
    command
}

/// A cluster's settings in a directory of its own.
struct Setup {
    directory: tempfile::TempDir,
    port: u16,
    node_port: u16,
}

impl Setup {
    fn new() -> Self {
        Setup {
            directory: tempfile::tempdir().unwrap(),
            port: free_port(),
            node_port: free_port(),
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn up(&self) -> Command {
        let mut command = hull();
        command
            .arg("up")
            .arg("--data-dir")
            .arg(self.path("data"))
            .arg("--run-dir")
            .arg(self.path("run"))
            .arg("--kubeconfig")
            .arg(self.path("home/kubeconfig"))
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.port))
            .arg("--node-listen")
            .arg(format!("127.0.0.1:{}", self.node_port))
            .arg("--pod-log-dir")
            .arg(self.path("logs"))
            .args(["--node-name", "n1", "--node-ip", "127.0.0.1"])
            // This machine's own network is no place for a test's tables.
            .arg("--netd=false")
            .arg("--cri-endpoint")
            .arg(format!("unix://{}", self.path("none.sock").display()))
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(self.path("log")).unwrap());
        command
    }

    fn start(&self) -> Running {
        Running(self.up().spawn().unwrap())
    }

    /// A client by the kubeconfig that hull wrote, once the API server is ready.
    async fn client(&self) -> kube::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let begun = Instant::now();
        loop {
            if let Some(client) = self.try_client().await {
                let request = http_get("/readyz");
                if client.request_text(request).await.is_ok() {
                    return client;
                }
            }
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(begun.elapsed() < DEADLINE, "API server not ready:\n{log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn try_client(&self) -> Option<kube::Client> {
        let kubeconfig = Kubeconfig::read_from(self.path("home/kubeconfig")).ok()?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .ok()?;
        kube::Client::try_from(config).ok()
    }
}

fn http_get(path: &str) -> http::Request<Vec<u8>> {
    http::Request::get(path).body(Vec::new()).unwrap()
}

/// Killed when a test fails.
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    fn wait(mut self) -> std::process::ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < DEADLINE, "hull does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn node_exists(client: &kube::Client) {
    let begun = Instant::now();
    while client
        .request_text(http_get("/api/v1/nodes/n1"))
        .await
        .is_err()
    {
        assert!(begun.elapsed() < DEADLINE, "node not registered");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until `/metrics` has lines that begin so: families show what has happened.
async fn is_measured(client: &kube::Client, metric: &str) {
    let begun = Instant::now();
    loop {
        let metrics = client.request_text(http_get("/metrics")).await.unwrap();
        if metrics.lines().any(|line| line.starts_with(metric)) {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "no {metric} in {metrics}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn up_serves_registers_refuses_a_second_and_ends_cleanly() {
    let setup = Setup::new();
    let running = setup.start();
    let client = setup.client().await;
    node_exists(&client).await;
    assert_eq!(mode(&setup.path("home/kubeconfig")), 0o600);
    let kubeconfig = std::fs::read_to_string(setup.path("home/kubeconfig")).unwrap();
    assert!(kubeconfig.contains(&format!("https://127.0.0.1:{}", setup.port)));
    for metric in [
        "apiserver_request_total{",
        "scheduler_scheduling_algorithm_duration_seconds_count",
        "controller_reconcile_total{",
        "controller_workqueue_depth{",
    ] {
        is_measured(&client, metric).await;
    }

    let mut second = setup.up();
    let second = second.stderr(Stdio::piped()).output().unwrap();
    assert!(!second.status.success());
    assert!(
        text(&second).contains("another hull (process"),
        "{}",
        text(&second)
    );

    running.signal(Signal::SIGTERM);
    let status = running.wait();
    let log = std::fs::read_to_string(setup.path("log")).unwrap_or_default();
    assert!(status.success(), "{status}: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_survive_a_kill() {
    let setup = Setup::new();
    let running = setup.start();
    let client = setup.client().await;
    let body = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "kept"}, "data": {"a": "1"}});
    let request = http::Request::post("/api/v1/namespaces/default/configmaps")
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&body).unwrap())
        .unwrap();
    client.request_text(request).await.unwrap();
    running.signal(Signal::SIGKILL);
    running.wait();
    let again = setup.start();
    let client = setup.client().await;
    let path = "/api/v1/namespaces/default/configmaps/kept";
    let kept = client.request_text(http_get(path)).await.unwrap();
    assert!(kept.contains("\"a\":\"1\""), "{kept}");
    again.signal(Signal::SIGINT);
    assert!(again.wait().success());
}

#[test]
fn settings_files_are_checked() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hull.toml");
    let check = |content: &str| {
        std::fs::write(&file, content).unwrap();
        hull()
            .args(["config", "check"])
            .arg(&file)
            .output()
            .unwrap()
    };
    assert!(check("listen = '127.0.0.1:1'").status.success());
    let bad = check("lisen = '127.0.0.1:1'");
    assert!(
        !bad.status.success() && text(&bad).contains("lisen"),
        "{}",
        text(&bad)
    );
}

#[test]
fn what_is_absent_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("kubeconfig");
    let output = hull()
        .args(["fake-nodes", "10", "--kubeconfig"])
        .arg(&absent)
        .output()
        .unwrap();
    assert!(!output.status.success() && text(&output).contains(&*absent.to_string_lossy()));
    let output = hull()
        .arg("kubeconfig")
        .arg("--data-dir")
        .arg(directory.path())
        .output()
        .unwrap();
    assert!(!output.status.success() && text(&output).contains("there is no cluster in"));
}

#[test]
fn completion_and_doctor_print() {
    let completion = hull().args(["completion", "bash"]).output().unwrap();
    assert!(completion.status.success() && text(&completion).contains("_hull"));
    let doctor = text(&hull().arg("doctor").output().unwrap());
    for check in [
        "kvm",
        "cni plugins",
        "guest kernel",
        "cgroup v2",
        "api port",
        "tun",
    ] {
        assert!(doctor.contains(check), "{doctor}");
    }
}
