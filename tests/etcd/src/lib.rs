//! etcd servers for tests: on loopback, with their data in a temporary folder.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a server that does not start is a failed test"
)]

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Longest start of a server, on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Where the servers listen.
const PORTS: std::ops::Range<u16> = 12_000..30_000;
/// How often it is looked for meanwhile.
const START_POLL: Duration = Duration::from_millis(20);

/// Certificates of a server that wants certificates of its clients.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// PEM: who signs clients' certificates.
    pub ca: PathBuf,
    /// PEM.
    pub cert: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// How a server is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `None`: plain.
    pub tls: Option<ServerTls>,
    /// Further arguments.
    pub arguments: Vec<String>,
}

/// Ports that nothing listens on, below those that the system gives to outgoing connections:
/// between here and etcd's start nobody takes one by accident.
fn free_ports(count: usize) -> Vec<u16> {
    let mut ports = Vec::new();
    while ports.len() < count {
        let random = RandomState::new().build_hasher().finish();
        let port = PORTS.start + (random % u64::from(PORTS.end - PORTS.start)) as u16;
        if !ports.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            ports.push(port);
        }
    }
    ports
}

struct Member {
    name: String,
    client_port: u16,
    peer_port: u16,
    child: Option<Child>,
}

/// Members of one etcd cluster. They are killed when this is dropped.
pub struct EtcdProcess {
    folder: tempfile::TempDir,
    members: Vec<Member>,
    options: Options,
}

impl EtcdProcess {
    /// One member, without TLS.
    pub async fn single() -> Self {
        Self::start(1, Options::default()).await
    }

    /// So many members, and waits until each answers.
    pub async fn start(members: usize, options: Options) -> Self {
        let ports = free_ports(members * 2);
        let members = ports
            .chunks(2)
            .enumerate()
            .map(|(number, ports)| Member {
                name: format!("m{number}"),
                client_port: ports[0],
                peer_port: ports[1],
                child: None,
            })
            .collect();
        let mut cluster = EtcdProcess {
            folder: tempfile::tempdir().unwrap(),
            members,
            options,
        };
        for number in 0..cluster.members.len() {
            cluster.spawn(number);
        }
        for number in 0..cluster.members.len() {
            cluster.wait_until_it_answers(number).await;
        }
        cluster
    }

    /// The members' addresses, as Hull's `--store` takes them.
    pub fn address(&self) -> String {
        let scheme = if self.options.tls.is_some() {
            "etcds"
        } else {
            "etcd"
        };
        let members: Vec<_> = (0..self.members.len())
            .map(|number| self.endpoint(number))
            .collect();
        format!("{scheme}://{}", members.join(","))
    }

    /// One member's address.
    pub fn endpoint(&self, member: usize) -> String {
        format!("127.0.0.1:{}", self.members[member].client_port)
    }

    /// kill -9.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts a killed member again, with its data, and waits until it answers.
    pub async fn restart(&mut self, member: usize) {
        self.spawn(member);
        self.wait_until_it_answers(member).await;
    }

    fn spawn(&mut self, number: usize) {
        let scheme = if self.options.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let cluster: Vec<_> = self
            .members
            .iter()
            .map(|member| format!("{}=http://127.0.0.1:{}", member.name, member.peer_port))
            .collect();
        let member = &self.members[number];
        let client = format!("{scheme}://127.0.0.1:{}", member.client_port);
        let peer = format!("http://127.0.0.1:{}", member.peer_port);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join(format!("{}.log", member.name)))
            .unwrap();
        let mut command = Command::new("etcd");
        command
            .args(["--name", &member.name, "--logger", "zap"])
            .arg("--data-dir")
            .arg(self.folder.path().join(&member.name))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &cluster.join(",")])
            .args(&self.options.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(tls) = &self.options.tls {
            command
                .arg("--client-cert-auth")
                .arg("--trusted-ca-file")
                .arg(&tls.ca)
                .arg("--cert-file")
                .arg(&tls.cert)
                .arg("--key-file")
                .arg(&tls.key);
        }
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| panic!("etcd (Debian: etcd-server): {error}"));
        self.members[number].child = Some(child);
    }

    /// The member's log tells when it serves: this needs no certificates.
    async fn wait_until_it_answers(&mut self, number: usize) {
        let deadline = Instant::now() + START_TIMEOUT;
        let port = self.members[number].client_port;
        let log = self
            .folder
            .path()
            .join(format!("{}.log", self.members[number].name));
        let served = format!("127.0.0.1:{port}\"");
        loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let start = text.rfind("etcd-version").unwrap_or(0);
            let ready = text[start..]
                .lines()
                .any(|line| line.contains("serving client traffic") && line.contains(&served));
            if ready {
                return;
            }
            let child = self.members[number].child.as_mut().unwrap();
            if let Some(status) = child.try_wait().unwrap() {
                panic!("etcd ended with {status}:\n{text}");
            }
            assert!(Instant::now() < deadline, "etcd does not start:\n{text}");
            tokio::time::sleep(START_POLL).await;
        }
    }
}

impl Drop for EtcdProcess {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(child) = &mut member.child {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}
