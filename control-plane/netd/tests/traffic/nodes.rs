//! Pods of different nodes, over a shared link and through the tunnel.
//!
//! ```text
//!  pod a 10.42.1.2 ── hull0 (node a) 192.0.2.1 ──┐           ┌── 192.0.2.2 or 198.51.100.2 (node b) hull0 ── pod b 10.42.2.2
//!                     stranger       192.0.2.9 ──┴ the wire ─┘
//! ```
//! The wire is a bridge; between the networks of a routed world it is a router.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hull_netd::metrics::Metrics;
use hull_netd::nft::Nft;
use hull_netd::nodes::model::NodeIndex;
use hull_netd::nodes::plan::Plan;
use hull_netd::nodes::{Here, NodeLinks, connect, ruleset};
use hull_netd::services::endpoints::Place;
use hull_netd::services::index::ServiceIndex;
use hull_netd::services::model::SERVICE_NAME_LABEL;
use hull_netd::services::ruleset as services;
use hull_netd::sync::Synced;
use ipnet::IpNet;
use serde_json::json;

use super::world::{PATIENCE, ask, enter, ip, serve_tcp};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Time for a network to come up.
const EARLY: Duration = Duration::from_secs(10);

/// One node of the world.
struct Node {
    name: &'static str,
    address: &'static str,
    number: u8,
    table: Synced,
}

struct Nodes {
    prefix: String,
    index: NodeIndex,
    nodes: Vec<Node>,
    stop: Arc<AtomicBool>,
    metrics: Metrics,
}

const ALL: [&str; 6] = ["wire", "a", "b", "s", "pa", "pb"];

fn networks() -> Vec<IpNet> {
    ["10.42.0.0/16", "fd42::/48"]
        .map(|text| text.parse().unwrap())
        .to_vec()
}

impl Nodes {
    /// Two nodes on one link, or with a router between them.
    fn new(routed: bool) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let b = if routed { "198.51.100.2" } else { "192.0.2.2" };
        let node = |name, address, number| Node {
            name,
            address,
            number,
            table: Synced::new(services::table(), "inet", "services"),
        };
        let world = Nodes {
            prefix: format!("hm{}x{number}", std::process::id()),
            index: NodeIndex::default(),
            nodes: vec![node("a", "192.0.2.1", 1), node("b", b, 2)],
            stop: Arc::default(),
            metrics: Metrics::default(),
        };
        for name in ALL {
            ip(&format!("netns add {}", world.space(name)));
            ip(&format!("-n {} link set lo up", world.space(name)));
        }
        let wire = world.space("wire");
        for bridge in ["left", "right"] {
            ip(&format!("-n {wire} link add {bridge} type bridge"));
            ip(&format!("-n {wire} link set {bridge} up"));
        }
        ip(&format!("-n {wire} addr add 192.0.2.254/24 dev left"));
        ip(&format!("-n {wire} addr add 198.51.100.254/24 dev right"));
        world.forward("wire");
        world.plug("a", "left", "192.0.2.1");
        world.plug("b", if routed { "right" } else { "left" }, b);
        world.plug("s", "left", "192.0.2.9");
        world.add_pods();
        let mut world = world;
        for at in 0..2 {
            let (name, number) = (world.nodes[at].name, world.nodes[at].number);
            world.register(name, world.nodes[at].address, number);
        }
        world
    }

    fn space(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn forward(&self, name: &str) {
        enter(self.space(name), || {
            for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{setting}"), "1").unwrap();
            }
        })
        .join()
        .unwrap();
    }

    fn plug(&self, name: &str, bridge: &str, address: &str) {
        let (space, wire) = (self.space(name), self.space("wire"));
        ip(&format!(
            "-n {wire} link add to{name} type veth peer name eth0 netns {space}"
        ));
        ip(&format!("-n {wire} link set to{name} master {bridge} up"));
        ip(&format!("-n {space} addr add {address}/24 dev eth0"));
        ip(&format!("-n {space} link set eth0 up"));
        let (network, _) = address.rsplit_once('.').unwrap();
        ip(&format!("-n {space} route add default via {network}.254"));
    }

    fn add_pods(&self) {
        for node in &self.nodes {
            self.forward(node.name);
            let (space, pod) = (
                self.space(node.name),
                self.space(&format!("p{}", node.name)),
            );
            let n = node.number;
            ip(&format!("-n {space} link add hull0 type bridge"));
            ip(&format!("-n {space} addr add 10.42.{n}.1/24 dev hull0"));
            ip(&format!(
                "-n {space} addr add fd42:0:0:{n}::1/64 dev hull0 nodad"
            ));
            ip(&format!("-n {space} link set hull0 up"));
            ip(&format!(
                "-n {space} link add veth1 type veth peer name eth0 netns {pod}"
            ));
            ip(&format!("-n {space} link set veth1 master hull0 up"));
            ip(&format!("-n {pod} addr add 10.42.{n}.2/24 dev eth0"));
            ip(&format!(
                "-n {pod} addr add fd42:0:0:{n}::2/64 dev eth0 nodad"
            ));
            ip(&format!("-n {pod} link set eth0 up"));
            ip(&format!("-n {pod} route add default via 10.42.{n}.1"));
            ip(&format!("-n {pod} route add default via fd42:0:0:{n}::1"));
        }
    }

    fn register(&mut self, name: &str, address: &str, number: u8) {
        let networks = [
            format!("10.42.{number}.0/24"),
            format!("fd42:0:0:{number}::/64"),
        ];
        let node = json!({
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:0{number}Z")},
            "spec": {"podCIDR": networks[0], "podCIDRs": networks},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        });
        self.index.set(&serde_json::from_value(node).unwrap());
    }

    /// What netd does on a node when Nodes change.
    fn connect(&self, at: usize, links: NodeLinks) -> Plan {
        let (name, address) = (self.nodes[at].name, self.nodes[at].address);
        let index = self.index.clone();
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let here = Here {
                    name,
                    addresses: &[address.parse().unwrap()],
                    pod_networks: &networks(),
                    links,
                };
                let (plan, outcome) = connect(&here, &index).await.unwrap();
                outcome.unwrap();
                plan
            })
        };
        enter(self.space(name), work).join().unwrap()
    }

    /// The same with the tables, on both nodes.
    async fn sync(&mut self, links: NodeLinks) -> Vec<Plan> {
        let mut plans = Vec::new();
        for at in 0..self.nodes.len() {
            let plan = self.connect(at, links);
            let nft = Nft::in_namespace(&self.space(self.nodes[at].name));
            let synced = &mut self.nodes[at].table;
            let table = &mut synced.table;
            table.set_fragment("pods", Some(services::pod_networks(&networks())));
            table.set_fragment("peers", Some(ruleset::peers(&plan)));
            table.set_fragment("masquerade", Some(ruleset::masqueraded(&networks())));
            synced.sync(&nft, &self.metrics).await.unwrap();
            plans.push(plan);
        }
        plans
    }

    fn serve(&self, name: &'static str) {
        serve_tcp(self.space(name), name, 8080, self.stop.clone());
    }

    fn ask(&self, from: &str, to: &str) -> Result<String, String> {
        let to: SocketAddr = to.parse().unwrap();
        enter(self.space(from), move || ask(to)).join().unwrap()
    }

    /// The first answer: IPv6 begins when the kernel has found that its addresses are nobody
    /// else's.
    fn ask_early(&self, from: &str, to: &str) -> String {
        let begun = Instant::now();
        loop {
            match self.ask(from, to) {
                Ok(answer) => return answer,
                Err(error) => assert!(begun.elapsed() < EARLY, "{from} to {to}: {error}"),
            }
        }
    }

    /// Whether a datagram of this many bytes arrives whole.
    fn datagram(&self, from: &str, to: &'static str, bytes: usize) -> bool {
        let receiver = enter(self.space(to), || UdpSocket::bind("0.0.0.0:9000").unwrap());
        let receiver = receiver.join().unwrap();
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = if to == "pa" { "10.42.1.2" } else { "10.42.2.2" };
        let sent = enter(self.space(from), move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(&vec![7; bytes], (address, 9000)).is_ok()
        });
        let mut buffer = vec![0; 65536];
        sent.join().unwrap()
            && receiver
                .recv(&mut buffer)
                .is_ok_and(|length| length == bytes)
    }

    fn shows(&self, name: &str, arguments: &str) -> String {
        let space = self.space(name);
        let output = Command::new("ip")
            .args(["-n", &space])
            .args(arguments.split(' '))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for name in ALL {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.space(name)])
                .output();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_nodes_on_one_link_meet_over_routes() {
    let mut world = Nodes::new(false);
    for pod in ["pa", "pb", "s"] {
        world.serve(pod);
    }
    let unreached = world.ask("pa", "10.42.2.2:8080");
    assert!(unreached.is_err(), "before netd: {unreached:?}");
    let plans = world.sync(NodeLinks::Auto).await;
    assert_eq!(plans[0].counts(), (1, 1), "IPv4 by the link");
    // Everybody sees the pod's own address, in both directions.
    assert_eq!(world.ask("pa", "10.42.2.2:8080").unwrap(), "pb 10.42.1.2");
    assert_eq!(world.ask("pb", "10.42.1.2:8080").unwrap(), "pa 10.42.2.2");
    // The other node reaches pods with its own address.
    assert_eq!(world.ask("a", "10.42.2.2:8080").unwrap(), "pb 192.0.2.1");
    // What leaves the cluster has the node's.
    assert_eq!(world.ask("pa", "192.0.2.9:8080").unwrap(), "s 192.0.2.1");
    assert!(
        world.datagram("pa", "pb", 1472),
        "as large as the link takes"
    );
    // IPv6 has no shared link here, so it goes through the tunnel.
    assert_eq!(
        world.ask_early("pa", "[fd42:0:0:2::2]:8080"),
        "pb fd42:0:0:1::2"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_nodes_behind_a_router_meet_through_the_tunnel() {
    let mut world = Nodes::new(true);
    for pod in ["pa", "pb", "s"] {
        world.serve(pod);
    }
    let plans = world.sync(NodeLinks::Routes).await;
    assert_eq!(plans[0].counts(), (0, 0), "no link is shared");
    assert!(world.ask("pa", "10.42.2.2:8080").is_err());
    let plans = world.sync(NodeLinks::Auto).await;
    assert_eq!(plans[0].counts(), (0, 2));
    assert_eq!(world.ask("pa", "10.42.2.2:8080").unwrap(), "pb 10.42.1.2");
    assert_eq!(
        world.ask_early("pb", "[fd42:0:0:1::2]:8080"),
        "pa fd42:0:0:2::2"
    );
    // A node speaks with its address in the tunnel.
    assert_eq!(world.ask("a", "10.42.2.2:8080").unwrap(), "pb 10.42.1.0");
    assert_eq!(world.ask("pa", "192.0.2.9:8080").unwrap(), "s 192.0.2.1");
    // The link's 1500 bytes without the tunnel's headers.
    assert!(
        world
            .shows("a", "link show hull-vxlan")
            .contains("mtu 1450")
    );
    assert!(
        world.datagram("pa", "pb", 1422),
        "as large as the tunnel takes"
    );
    // A pod with a larger MTU is told at its first such packet, and learns.
    assert!(!world.datagram("pa", "pb", 1472));
    assert!(world.datagram("pa", "pb", 1472));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_see_their_link_differently_meet() {
    let mut world = Nodes::new(true);
    for pod in ["pa", "pb"] {
        world.serve(pod);
    }
    // Node a thinks that b is on its link (and the router answers for it), b does not.
    let (a, wire) = (world.space("a"), world.space("wire"));
    ip(&format!("-n {a} route add 198.51.100.2/32 dev eth0"));
    ip(&format!(
        "-n {wire} route add 10.42.2.0/24 via 198.51.100.2"
    ));
    enter(wire, || {
        std::fs::write("/proc/sys/net/ipv4/conf/left/proxy_arp", "1").unwrap();
    })
    .join()
    .unwrap();
    let plans = world.sync(NodeLinks::Auto).await;
    assert_eq!((plans[0].counts(), plans[1].counts()), ((1, 1), (0, 2)));
    assert_eq!(world.ask_early("pa", "10.42.2.2:8080"), "pb 10.42.1.2");
    assert_eq!(world.ask_early("pb", "10.42.1.2:8080"), "pa 10.42.2.2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_through_the_tunnel_outlives_a_restart_of_netd() {
    let mut world = Nodes::new(true);
    let before = world.sync(NodeLinks::Vxlan).await;
    let listener = enter(world.space("pb"), || {
        TcpListener::bind("0.0.0.0:7000").unwrap()
    });
    let listener = listener.join().unwrap();
    let client = enter(world.space("pa"), || {
        let to = "10.42.2.2:7000".parse().unwrap();
        TcpStream::connect_timeout(&to, PATIENCE).unwrap()
    });
    let mut client = client.join().unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut exchange = |text: &[u8; 4]| {
        client.write_all(text).unwrap();
        let mut heard = [0; 4];
        server.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, text);
    };
    exchange(b"one ");
    let device = world.shows("a", "-o link show hull-vxlan");
    let routes = world.shows("a", "route show proto 168");
    // Another netd knows nothing and writes its tables as a whole.
    for node in &mut world.nodes {
        node.table = Synced::new(services::table(), "inet", "services");
    }
    assert_eq!(world.sync(NodeLinks::Vxlan).await, before);
    exchange(b"two ");
    assert_eq!(
        world.shows("a", "-o link show hull-vxlan"),
        device,
        "untouched"
    );
    assert_eq!(world.shows("a", "route show proto 168"), routes);
    assert!(
        routes.contains("10.42.2.0/24 via 10.42.2.0 dev hull-vxlan"),
        "{routes}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_vanished_nodes_goes_and_nothing_else() {
    let mut world = Nodes::new(true);
    let space = world.space("a");
    // The operator's, to another network and to one of a node; and what an older netd left.
    let operators = [
        "10.42.77.0/24 via 192.0.2.254",
        "10.42.3.0/24 via 192.0.2.254",
    ];
    for route in operators {
        ip(&format!("-n {space} route add {route}"));
    }
    ip(&format!(
        "-n {space} route add 10.42.2.0/24 via 192.0.2.254 proto 168"
    ));
    world.register("c", "198.51.100.3", 3);
    world.sync(NodeLinks::Auto).await;
    let routes = world.shows("a", "route show proto 168");
    assert_eq!(routes.lines().count(), 2, "{routes}");
    let entries = world.shows("a", "neigh show dev hull-vxlan nud permanent");
    assert!(
        entries.contains("10.42.3.0 lladdr 02:68:0a:2a:03:00"),
        "{entries}"
    );

    // Another address of a node: its entry follows.
    world.register("b", "198.51.100.22", 2);
    world.index.remove("c");
    world.sync(NodeLinks::Auto).await;
    let routes = world.shows("a", "route show proto 168");
    assert_eq!(routes.lines().count(), 1, "{routes}");
    let entries = world.shows("a", "neigh show dev hull-vxlan nud permanent");
    assert!(!entries.contains("10.42.3.0"), "{entries}");
    let forwarding = Command::new("ip")
        .args([
            "netns",
            "exec",
            &space,
            "bridge",
            "fdb",
            "show",
            "dev",
            "hull-vxlan",
        ])
        .output()
        .unwrap();
    let forwarding = String::from_utf8_lossy(&forwarding.stdout).into_owned();
    assert!(
        forwarding.contains("02:68:0a:2a:02:00 dst 198.51.100.22"),
        "{forwarding}"
    );
    assert_eq!(forwarding.lines().count(), 1, "{forwarding}");

    world.sync(NodeLinks::None).await;
    assert_eq!(world.shows("a", "route show proto 168"), "");
    assert_eq!(world.shows("a", "link show hull-vxlan"), "");
    let chain = world.shows("a", "route show dev eth0");
    assert!(chain.contains("default"), "{chain}");
    for route in operators {
        let theirs = world.shows("a", &format!("route show {route}"));
        assert!(theirs.contains("dev eth0"), "{route}: {theirs}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_cannot_send_into_the_tunnel() {
    let mut world = Nodes::new(true);
    for at in 0..2 {
        world.connect(at, NodeLinks::Vxlan);
    }
    let stranger = world.space("s");
    ip(&format!(
        "-n {stranger} link add x type vxlan id 6845804 dstport 4789 local 192.0.2.9 remote 192.0.2.1"
    ));
    ip(&format!("-n {stranger} addr add 10.42.9.0/32 dev x"));
    ip(&format!("-n {stranger} link set x up"));
    ip(&format!(
        "-n {stranger} neigh add 10.42.1.0 lladdr 02:68:0a:2a:01:00 dev x"
    ));
    ip(&format!(
        "-n {stranger} route add 10.42.1.0/24 via 10.42.1.0 dev x onlink"
    ));
    assert!(
        world.datagram("s", "pa", 100),
        "the kernel alone lets it in"
    );
    world.sync(NodeLinks::Vxlan).await;
    assert!(!world.datagram("s", "pa", 100));
    assert!(world.datagram("pb", "pa", 100), "the other node may");
}

/// A node port and a cluster address that lead to the tunnel's port of node b.
fn trap(table: &mut Synced) {
    let place = Place {
        node: "a".into(),
        zone: None,
    };
    let mut index = ServiceIndex::new(place, Vec::new());
    let service = json!({"metadata": {"namespace": "x", "name": "trap"}, "spec": {
        "type": "NodePort", "clusterIP": "10.43.0.6", "clusterIPs": ["10.43.0.6"],
        "ports": [{"port": 4789, "nodePort": 30789, "protocol": "UDP"}]}});
    index.apply_service(Arc::new(serde_json::from_value(service).unwrap()));
    let slice = json!({
        "metadata": {"namespace": "x", "name": "trap-1", "labels": {SERVICE_NAME_LABEL: "trap"}},
        "addressType": "IPv4", "ports": [{"port": 4789, "protocol": "UDP"}],
        "endpoints": [{"addresses": ["198.51.100.2"]}]});
    index.apply_slice(Arc::new(serde_json::from_value(slice).unwrap()));
    index.update(&mut table.table);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_forwarded_gets_into_the_tunnel() {
    let mut world = Nodes::new(true);
    trap(&mut world.nodes[0].table);
    world.sync(NodeLinks::Vxlan).await;
    // From where, with which address, to what.
    let ways = [
        ("pa", "10.42.1.2", "198.51.100.2 dstport 4789"),
        ("pa", "10.42.1.2", "10.43.0.6 dstport 4789"),
        ("s", "192.0.2.9", "192.0.2.1 dstport 30789"),
    ];
    let forge = |(from, local, to): (&str, &str, &str)| {
        let space = world.space(from);
        for command in [
            // The kernel would make a wrong checksum of a translated and unfinished one.
            &*format!("link add x type vxlan id 6845804 local {local} remote {to} noudpcsum"),
            "addr add 10.42.1.77/32 dev x",
            "link set x up",
            "neigh add 10.42.2.0 lladdr 02:68:0a:2a:02:00 dev x",
            "route add 10.42.2.0/24 via 10.42.2.0 dev x onlink",
        ] {
            ip(&format!("-n {space} {command}"));
        }
        let arrived = world.datagram(from, "pb", 100);
        ip(&format!("-n {space} link del x"));
        arrived
    };
    for way in ways {
        assert!(!forge(way), "{way:?}");
    }
    assert!(world.datagram("pa", "pb", 100), "the node's own frames do");
    // Each way leads there but for the chain.
    let flushed = Command::new("ip")
        .args(["netns", "exec", &world.space("a")])
        .args(["nft", "flush", "chain", "inet", "hull", "tunnel_forward"])
        .status();
    assert!(flushed.unwrap().success());
    for way in ways {
        assert!(forge(way), "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_lead_to_pods_of_other_nodes() {
    let mut world = Nodes::new(true);
    world.serve("pb");
    let place = Place {
        node: "a".into(),
        zone: None,
    };
    let mut index = ServiceIndex::new(place, Vec::new());
    let service = json!({"metadata": {"namespace": "x", "name": "web"}, "spec": {
        "clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"],
        "ports": [{"port": 80, "protocol": "TCP"}]}});
    index.apply_service(Arc::new(serde_json::from_value(service).unwrap()));
    let slice = json!({
        "metadata": {"namespace": "x", "name": "web-1", "labels": {SERVICE_NAME_LABEL: "web"}},
        "addressType": "IPv4", "ports": [{"port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.42.2.2"], "nodeName": "b"}]});
    index.apply_slice(Arc::new(serde_json::from_value(slice).unwrap()));
    index.update(&mut world.nodes[0].table.table);
    world.sync(NodeLinks::Auto).await;
    assert_eq!(world.ask("pa", "10.43.0.5:80").unwrap(), "pb 10.42.1.2");
    let node: IpAddr = "10.42.1.0".parse().unwrap();
    assert_eq!(
        world.ask("a", "10.43.0.5:80").unwrap(),
        format!("pb {node}")
    );
}
