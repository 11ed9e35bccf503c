//! The hull-shim program: its configuration, its endpoints, its end.

// Helpers of tests panic as tests do; the exemption covers only test functions themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

fn patience() -> Duration {
    hull_shim::timeouts::scaled(PATIENCE)
}

fn until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience();
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} never");
        std::thread::sleep(Duration::from_millis(10));
    }
}

struct Shim(Child);

impl Shim {
    fn start(directory: &Path, metrics: Option<u16>) -> Shim {
        let mut config = format!(
            "state_dir = \"{0}/state\"\nrun_dir = \"{0}/run\"\nsocket = \"{0}/shim.sock\"\n",
            directory.display()
        );
        if let Some(port) = metrics {
            config.push_str(&format!("metrics_address = \"127.0.0.1:{port}\"\n"));
        }
        let file = directory.join("shim.toml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_hull-shim"))
            .arg("--config")
            .arg(file)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let shim = Shim(child);
        let socket = directory.join("shim.sock");
        until("the socket answers", || UnixStream::connect(&socket).ok());
        shim
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        until("the shim ends", || self.0.try_wait().unwrap())
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(port: u16, path: &str) -> String {
    let mut stream = until("the port answers", || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn sigterm_ends_it_also_while_a_client_waits_for_events() {
    let directory = tempfile::tempdir().unwrap();
    let mut shim = Shim::start(directory.path(), None);
    // A client that never goes away by itself.
    let _client = UnixStream::connect(directory.path().join("shim.sock")).unwrap();
    shim.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(shim.ended().success());
    // The next one takes its place.
    let mut next = Shim::start(directory.path(), None);
    next.signal(nix::sys::signal::Signal::SIGINT);
    assert!(next.ended().success());
}

#[test]
fn metrics_and_health_are_served_over_http() {
    let directory = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let _shim = Shim::start(directory.path(), Some(port));
    let metrics = get(port, "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    assert!(metrics.contains("hull_shim_sandboxes_ready 0"), "{metrics}");
    assert!(get(port, "/healthz").ends_with("ok\n"));
    assert!(get(port, "/else").starts_with("HTTP/1.1 404"));
}

#[test]
fn a_wrong_configuration_is_refused_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shim.toml");
    for (text, expected) in [
        ("[vmm]\nvcpus = 0\n", "shim.toml:2: vmm.vcpus"),
        ("\n[cni]\nplugin_dir = []\n", "line 3"),
        ("state_dir = 7\n", "line 1"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_hull-shim"))
            .arg("--check-config")
            .arg("--config")
            .arg(&file)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && error.contains(expected),
            "{error}"
        );
    }
}
