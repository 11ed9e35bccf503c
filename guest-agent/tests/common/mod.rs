//! An agent on this machine (`--listen-dir`) with a busybox root, for tests.
#![allow(dead_code)] // Each test program uses a part of it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hull_agent_protocol::client::{Address, scaled};
use hull_agent_protocol::stream::Header;
use hull_agent_protocol::v1::agent_client::AgentClient;
use hull_agent_protocol::v1::*;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tonic::transport::Channel;

/// How long anything in a test may take, before scaling.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Numbers the agents of this test process.
static NUMBER: AtomicU32 = AtomicU32::new(0);

pub struct Node {
    pub client: AgentClient<Channel>,
    pub address: Address,
    pub root: PathBuf,
    pub cgroup_parent: String,
    agent: Child,
    _directory: tempfile::TempDir,
}

impl Node {
    /// An agent whose sandbox is set up with a tmpfs scratch.
    pub async fn start() -> Node {
        let mut node = Node::start_bare().await;
        let request = SetupSandboxRequest {
            sandbox_id: "s".into(),
            hostname: "testpod".into(),
            hosts: vec!["10.1.1.1 elsewhere".into()],
            ..Default::default()
        };
        node.client.setup_sandbox(request).await.unwrap();
        node
    }

    /// An agent that was told nothing yet.
    pub async fn start_bare() -> Node {
        Node::start_by(&[]).await
    }

    /// The same in a network namespace with nothing in it.
    pub async fn start_in_new_network() -> Node {
        Node::start_by(&["unshare", "--net"]).await
    }

    /// Starts the agent by a program that becomes it.
    async fn start_by(program: &[&str]) -> Node {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("busybox");
        make_root(&root);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cgroup_parent = format!("/hull-test-{}-{number}", std::process::id());
        let listen = directory.path().join("agent");
        let words = [program, &[env!("CARGO_BIN_EXE_hull-agent")]].concat();
        let agent = Command::new(words[0])
            .args(&words[1..])
            .arg("--listen-dir")
            .arg(&listen)
            .arg("--cgroup-parent")
            .arg(&cgroup_parent)
            .spawn()
            .unwrap();
        let address = Address::Native(listen.clone());
        wait_until("the agent listens", || listen.join("control.sock").exists()).await;
        Node {
            client: address.client().await.unwrap(),
            address,
            root,
            cgroup_parent,
            agent,
            _directory: directory,
        }
    }

    pub fn request(&self, id: &str, command: &[&str]) -> CreateContainerRequest {
        self.request_with(id, spec(command))
    }

    pub fn request_with(&self, id: &str, spec: Value) -> CreateContainerRequest {
        CreateContainerRequest {
            container_id: id.into(),
            oci_spec_json: serde_json::to_vec(&spec).unwrap(),
            rootfs: Some(RootFs {
                disk: self.root.display().to_string(),
                read_only: false,
            }),
            ..Default::default()
        }
    }

    /// Creates and starts.
    pub async fn run(&mut self, request: CreateContainerRequest) {
        let id = request.container_id.clone();
        self.client.create_container(request).await.unwrap();
        self.client
            .start_container(StartContainerRequest { container_id: id })
            .await
            .unwrap();
    }

    pub async fn run_command(&mut self, id: &str, command: &[&str]) {
        let request = self.request(id, command);
        self.run(request).await;
    }

    pub async fn wait(&mut self, container: &str, exec: &str) -> Exit {
        let request = WaitRequest {
            container_id: container.into(),
            exec_id: exec.into(),
        };
        let wait = self.client.wait(request);
        let answer = tokio::time::timeout(scaled(PATIENCE), wait).await;
        answer
            .expect("the process ends")
            .unwrap()
            .into_inner()
            .exit
            .unwrap()
    }

    pub async fn remove(&mut self, id: &str) {
        let request = RemoveContainerRequest {
            container_id: id.into(),
        };
        self.client.remove_container(request).await.unwrap();
    }

    pub async fn signal(&mut self, id: &str, exec: &str, signal: i32) {
        let request = SignalRequest {
            container_id: id.into(),
            exec_id: exec.into(),
            signal: signal as u32,
            all: false,
        };
        self.client.signal(request).await.unwrap();
    }

    pub async fn stdin(&self, container: &str, exec: Option<&str>) -> UnixStream {
        let header = Header::Stdin {
            container: container.into(),
            exec: exec.map(Into::into),
        };
        self.address.open_stream(&header).await.unwrap().0
    }

    pub async fn output(&self, container: &str, exec: Option<&str>, offset: u64) -> UnixStream {
        let header = Header::Output {
            container: container.into(),
            exec: exec.map(Into::into),
            stderr: false,
            offset,
        };
        self.address.open_stream(&header).await.unwrap().0
    }

    /// Everything that the process writes, until it closes its output.
    pub async fn read_output(&self, container: &str, exec: Option<&str>) -> String {
        let mut stream = self.output(container, exec, 0).await;
        let mut text = String::new();
        let read = stream.read_to_string(&mut text);
        tokio::time::timeout(scaled(PATIENCE), read)
            .await
            .expect("the output ends")
            .unwrap();
        text
    }

    /// Runs a command in a new container and returns what it printed and its exit.
    pub async fn run_to_end(
        &mut self,
        id: &str,
        request: CreateContainerRequest,
    ) -> (String, Exit) {
        self.run(request).await;
        let output = self.read_output(id, None).await;
        let exit = self.wait(id, "").await;
        (output, exit)
    }

    pub fn cgroup(&self, id: &str) -> PathBuf {
        Path::new("/sys/fs/cgroup")
            .join(self.cgroup_parent.trim_start_matches('/'))
            .join(id)
    }

    /// Mount points in the agent's namespace that contain `text`.
    pub fn mounts_with(&self, text: &str) -> Vec<String> {
        std::fs::read_to_string(format!("/proc/{}/mountinfo", self.agent.id()))
            .unwrap()
            .lines()
            .filter(|line| line.contains(text))
            .map(str::to_owned)
            .collect()
    }

    pub fn agent_pid(&self) -> u32 {
        self.agent.id()
    }

    pub fn agent_has_ended(&mut self) -> bool {
        self.agent.try_wait().unwrap().is_some()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let parent = self.cgroup("");
        for entry in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
            let _ = std::fs::write(entry.path().join("cgroup.kill"), "1");
        }
        self.agent.kill().unwrap();
        self.agent.wait().unwrap();
        for entry in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(entry.path());
        }
        let _ = std::fs::remove_dir(parent);
    }
}

pub async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(scaled(PATIENCE), wait)
        .await
        .unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}

/// A root directory with busybox.
pub fn make_root(root: &Path) {
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::copy(busybox(), root.join("bin/busybox")).expect("busybox-static is installed");
    let status = Command::new("chroot")
        .arg(root)
        .args(["/bin/busybox", "--install", "-s", "/bin"])
        .status()
        .unwrap();
    assert!(status.success());
    let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/tmp:/bin/sh\n";
    std::fs::write(root.join("etc/passwd"), passwd).unwrap();
    std::fs::write(
        root.join("etc/group"),
        "root:x:0:\nweb:x:33:\nlog:x:4:web\n",
    )
    .unwrap();
}

fn busybox() -> &'static str {
    let candidates = ["/bin/busybox", "/usr/bin/busybox"];
    candidates
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("/bin/busybox")
}

/// What a CRI runtime sends for an unprivileged container, in short.
pub fn spec(command: &[&str]) -> Value {
    let capabilities = json!([
        "CAP_CHOWN",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE"
    ]);
    json!({
        "ociVersion": "1.1.0",
        "process": {
            "args": command,
            "cwd": "/",
            "env": ["PATH=/bin", "FROM_SPEC=yes"],
            "user": {"uid": 0, "gid": 0},
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "noNewPrivileges": true,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
    })
}
