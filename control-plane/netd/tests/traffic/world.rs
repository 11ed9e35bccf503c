//! A node with pods on a bridge and a client outside, each in a network namespace.
//!
//! ```text
//!   pod 10.42.0.11 ── veth1 ┐                        ┌ 192.0.2.1 ── 192.0.2.2 client
//!   pod 10.42.0.12 ── veth2 ┴ hull0 10.42.0.1 (node) ┘
//! ```

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use hull_netd::metrics::Metrics;
use hull_netd::nft::{Nft, Table};
use hull_netd::ports;
use hull_netd::ports::attachment::{Attachment, InterfaceName, Mac};
use hull_netd::sync::Synced;
use nix::sched::{CloneFlags, setns};

/// A refused connection answers at once; a dropped one never.
pub const PATIENCE: Duration = Duration::from_millis(700);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The namespaces; they go with the value.
pub struct World {
    prefix: String,
    namespaces: Vec<String>,
    stop: Arc<AtomicBool>,
    pub services: Synced,
    pub ports: Synced,
    pub policies: Synced,
    nft: Nft,
    metrics: Metrics,
}

/// Runs `ip`.
pub fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {text}");
}

impl World {
    /// A world with pods 10.42.0.11 and 10.42.0.12; `bridge_netfilter` as br_netfilter would be.
    pub fn new(bridge_netfilter: bool) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("hn{}x{number}", std::process::id());
        let node = format!("{prefix}n");
        let mut world = World {
            namespaces: Vec::new(),
            stop: Arc::default(),
            services: Synced::new(hull_netd::services::ruleset::table(), "inet", "services"),
            ports: Synced::new(ports::ruleset::table(), "bridge", "prerouting"),
            policies: Synced::new(hull_netd::policy::rules::table(), "inet", "ingress"),
            nft: Nft::in_namespace(&node),
            metrics: Metrics::default(),
            prefix,
        };
        world.add("n");
        world.add("c");
        ip(&format!(
            "-n {node} link add hull0 address 02:00:00:00:00:01 type bridge"
        ));
        ip(&format!("-n {node} addr add 10.42.0.1/24 dev hull0"));
        ip(&format!("-n {node} link set hull0 up"));
        let client = format!("{}c", world.prefix);
        ip(&format!(
            "-n {node} link add out type veth peer name eth0 netns {client}"
        ));
        ip(&format!("-n {node} addr add 192.0.2.1/24 dev out"));
        ip(&format!("-n {node} link set out up"));
        ip(&format!("-n {client} addr add 192.0.2.2/24 dev eth0"));
        ip(&format!("-n {client} link set eth0 up"));
        ip(&format!("-n {client} route add default via 192.0.2.1"));
        ip(&format!(
            "-n {node} route add 10.43.0.0/16 dev out src 192.0.2.1"
        ));
        world.inside("n", move || {
            let set = |name: &str, value: &str| {
                std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap();
            };
            set("ipv4/ip_forward", "1");
            set("ipv4/conf/all/send_redirects", "0");
            set("ipv4/conf/hull0/send_redirects", "0");
            // Not there where br_netfilter is a module that is not loaded.
            let _ = std::fs::write(
                "/proc/sys/net/bridge/bridge-nf-call-iptables",
                if bridge_netfilter { "1" } else { "0" },
            );
        });
        for pod in [1, 2] {
            world.add_pod(pod);
        }
        let networks = ["10.42.0.0/24".parse().unwrap()];
        let pods = hull_netd::services::ruleset::pod_networks(&networks);
        world.services.table.set_fragment("pods", Some(pods));
        let bridge = InterfaceName::parse("hull0").unwrap();
        let guard = hull_netd::services::ruleset::guarded_bridge(&bridge);
        world.services.table.set_fragment("bridge", Some(guard));
        world
    }

    fn add(&mut self, suffix: &str) {
        let name = format!("{}{suffix}", self.prefix);
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        self.namespaces.push(name);
    }

    fn add_pod(&mut self, pod: u8) {
        self.add(&format!("p{pod}"));
        let (node, inside) = (
            format!("{}n", self.prefix),
            format!("{}p{pod}", self.prefix),
        );
        ip(&format!(
            "-n {node} link add veth{pod} type veth peer name eth0 netns {inside}"
        ));
        ip(&format!("-n {node} link set veth{pod} master hull0 up"));
        ip(&format!(
            "-n {node} link set veth{pod} type bridge_slave hairpin on"
        ));
        ip(&format!(
            "-n {inside} link set eth0 address 02:00:00:00:01:{pod:02x}"
        ));
        ip(&format!("-n {inside} addr add 10.42.0.1{pod}/24 dev eth0"));
        ip(&format!("-n {inside} link set eth0 up"));
        ip(&format!("-n {inside} route add default via 10.42.0.1"));
        let attachment = attachment(pod);
        let fragment = ports::ruleset::port(&attachment, Mac([2, 0, 0, 0, 0, 1]));
        self.ports
            .table
            .set_fragment(&format!("port {pod}"), Some(fragment));
    }

    /// Puts the tables into the node's kernel.
    pub async fn sync(&mut self) {
        self.services.sync(&self.nft, &self.metrics).await.unwrap();
        self.ports.sync(&self.nft, &self.metrics).await.unwrap();
        self.policies.sync(&self.nft, &self.metrics).await.unwrap();
    }

    /// Tells the node's kernel what changed in the services' table: a change that is refused would
    /// be made up for by the whole table, at a price.
    pub async fn change_services(&mut self) {
        if let Some(change) = self.services.table.transaction() {
            self.nft.apply(&change).await.unwrap();
            self.services.table.commit();
        }
    }

    pub fn table(&mut self) -> &mut Table {
        &mut self.services.table
    }

    pub fn node(&self) -> String {
        format!("{}n", self.prefix)
    }

    /// Runs `work` on a thread in a namespace: `n` the node, `c` the client, `p1`, `p2` pods.
    pub fn inside<T: Send + 'static>(
        &self,
        suffix: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        enter(format!("{}{suffix}", self.prefix), work)
            .join()
            .unwrap()
    }

    /// Runs `work` on a thread in a namespace, beside the test.
    pub fn spawn(
        &self,
        suffix: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> std::thread::JoinHandle<()> {
        enter(format!("{}{suffix}", self.prefix), work)
    }

    /// A TCP server that says its name and who called, until the world ends.
    pub fn serve_tcp(&self, suffix: &'static str, port: u16) {
        serve_tcp(
            format!("{}{suffix}", self.prefix),
            suffix,
            port,
            self.stop.clone(),
        );
    }

    /// A UDP server that answers with its name.
    pub fn serve_udp(&self, suffix: &'static str, port: u16) {
        let stop = self.stop.clone();
        let (ready, wait) = std::sync::mpsc::channel();
        enter(format!("{}{suffix}", self.prefix), move || {
            let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            ready.send(()).unwrap();
            let mut buffer = [0; 64];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(suffix.as_bytes(), peer);
                }
            }
        });
        wait.recv().unwrap();
    }

    /// What a TCP server says to a client in a namespace: its name and the caller's address.
    pub fn ask(&self, from: &str, to: &str) -> Result<String, String> {
        let to: SocketAddr = to.parse().unwrap();
        self.inside(from, move || ask(to))
    }
}

/// A TCP server on both IP versions that says `name` and who called, until `stop`.
pub fn serve_tcp(namespace: String, name: &'static str, port: u16, stop: Arc<AtomicBool>) {
    let (ready, wait) = std::sync::mpsc::channel();
    enter(namespace, move || {
        let listener = TcpListener::bind(("::", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        ready.send(()).unwrap();
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((mut stream, peer)) => {
                    let _ = write!(stream, "{name} {}", peer.ip().to_canonical());
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    });
    wait.recv().unwrap();
}

/// What a TCP server says.
pub fn ask(to: SocketAddr) -> Result<String, String> {
    let mut stream =
        TcpStream::connect_timeout(&to, PATIENCE).map_err(|error| error.kind().to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .map_err(|error| error.kind().to_string())?;
    Ok(text)
}

/// Who answers a datagram; `Err` after [`PATIENCE`].
pub fn ask_udp(socket: &UdpSocket, to: &str) -> Result<String, String> {
    let mut buffer = [0; 64];
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
        .send_to(b"who", to)
        .map_err(|e| e.kind().to_string())?;
    let (length, _) = socket
        .recv_from(&mut buffer)
        .map_err(|error| error.kind().to_string())?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

pub fn attachment(pod: u8) -> Attachment {
    Attachment {
        sandbox: format!("sandbox{pod}"),
        namespace: "a".into(),
        name: format!("p{pod}"),
        port: InterfaceName::parse(&format!("veth{pod}")).unwrap(),
        bridge: InterfaceName::parse("hull0"),
        mac: Mac([2, 0, 0, 0, 1, pod]),
        addresses: vec![IpAddr::from([10, 42, 0, 10 + pod])],
    }
}

/// Runs `work` on a thread in a network namespace.
pub fn enter<T: Send + 'static>(
    namespace: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(move || {
        let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
        setns(file.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for namespace in &self.namespaces {
            let _ = Command::new("ip")
                .args(["netns", "del", namespace])
                .output();
        }
    }
}
