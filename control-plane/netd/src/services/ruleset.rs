//! A Service as nftables.
//!
//! ```text
//!  prerouting, output ─► services ─┬─ (address, protocol, port) ─► services4 / services6
//!                                  └─ local address, port ───────► node_services4 / 6
//!   verdicts:  c5  choose among 5 by number from endpoints4, keyed (address, protocol, port, n)
//!              m5  the same, marked for masquerading          p5  node ports, marked
//!              a-… client affinity    x-… external traffic, policy Local    f-… source ranges
//!              refuse, drop
//! ```
//! Endpoints are elements of one map, not chains or anonymous maps of their own: an added or
//! removed endpoint is an element or two, however many services there are. The chains that choose
//! are shared by all services with as many endpoints. Only what an element cannot say (affinity,
//! two policies on one address, ranges) has chains of its own.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::endpoints::{Chosen, Place, choose};
use super::model::{Endpoint, ServiceModel, ServicePort};
use crate::nft::{BaseChain, Family, Fragment, SetDeclaration, Table};
use crate::nodes;
use crate::ports::attachment::InterfaceName;

/// The table's name, in every family.
pub const TABLE: &str = "hull";
/// The bit of the packet mark that asks for masquerading; the bit that kube-proxy uses.
const MASQUERADE: &str = "0x4000";
const NOT_MASQUERADE: &str = "0xffffbfff";
/// The bit by which the bridge's table vouches for a packet of a pod; it lives from there to the
/// first hook of IP.
pub const VOUCHED: &str = "0x2000";
const NOT_VOUCHED: &str = "0xffffdfff";
/// Clients remembered for one endpoint with session affinity.
const AFFINITY_CLIENTS: u32 = 65_536;

const SETS: [SetDeclaration; 13] = [
    // Bridges of pods: what comes in by them must be vouched for.
    set("bridges", "set", "type ifname;"),
    set("cluster_ips4", "set", "type ipv4_addr;"),
    set("cluster_ips6", "set", "type ipv6_addr;"),
    set("pod_networks4", "set", "type ipv4_addr; flags interval;"),
    set("pod_networks6", "set", "type ipv6_addr; flags interval;"),
    set("hairpin4", "set", "type ipv4_addr . ipv4_addr;"),
    set("hairpin6", "set", "type ipv6_addr . ipv6_addr;"),
    set(
        "services4",
        "map",
        "type ipv4_addr . inet_proto . inet_service : verdict;",
    ),
    set(
        "services6",
        "map",
        "type ipv6_addr . inet_proto . inet_service : verdict;",
    ),
    set(
        "node_services4",
        "map",
        "type inet_proto . inet_service : verdict;",
    ),
    set(
        "node_services6",
        "map",
        "type inet_proto . inet_service : verdict;",
    ),
    set(
        "endpoints4",
        "map",
        "typeof ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . ct original proto-dst;",
    ),
    set(
        "endpoints6",
        "map",
        "typeof ip6 daddr . meta l4proto . th dport . numgen random mod 2 : ip6 daddr . ct original proto-dst;",
    ),
];
/// Endpoints of node ports, keyed (protocol, port, n).
const NODE_ENDPOINTS: [SetDeclaration; 2] = [
    set(
        "node_endpoints4",
        "map",
        "typeof meta l4proto . th dport . numgen random mod 2 : ip daddr . ct original proto-dst;",
    ),
    set(
        "node_endpoints6",
        "map",
        "typeof meta l4proto . th dport . numgen random mod 2 : ip6 daddr . ct original proto-dst;",
    ),
];

const fn set(
    name: &'static str,
    kind: &'static str,
    specification: &'static str,
) -> SetDeclaration {
    SetDeclaration {
        name,
        kind,
        specification,
    }
}

/// The words of one IP version.
struct Version {
    ipv6: bool,
    /// The header's name in nft.
    ip: &'static str,
    address_type: &'static str,
    cluster_ips: &'static str,
    pod_networks: &'static str,
    hairpin: &'static str,
    services: &'static str,
    endpoints: &'static str,
    node_services: &'static str,
    node_endpoints: &'static str,
}

impl Version {
    /// One of `count` endpoints of the address and port.
    fn choice(&self, count: usize) -> String {
        format!(
            "meta l4proto {{ tcp, udp, sctp }} dnat {ip} to {ip} daddr . meta l4proto . th dport . numgen random mod {count} map @{}",
            self.endpoints,
            ip = self.ip
        )
    }

    /// One of `count` endpoints of the node port.
    fn node_choice(&self, count: usize) -> String {
        format!(
            "meta l4proto {{ tcp, udp, sctp }} dnat {} to meta l4proto . th dport . numgen random mod {count} map @{}",
            self.ip, self.node_endpoints
        )
    }
}

const V4: Version = Version {
    ipv6: false,
    ip: "ip",
    address_type: "ipv4_addr",
    cluster_ips: "cluster_ips4",
    pod_networks: "pod_networks4",
    hairpin: "hairpin4",
    services: "services4",
    endpoints: "endpoints4",
    node_services: "node_services4",
    node_endpoints: "node_endpoints4",
};
const V6: Version = Version {
    ipv6: true,
    ip: "ip6",
    address_type: "ipv6_addr",
    cluster_ips: "cluster_ips6",
    pod_networks: "pod_networks6",
    hairpin: "hairpin6",
    services: "services6",
    endpoints: "endpoints6",
    node_services: "node_services6",
    node_endpoints: "node_endpoints6",
};

/// The table without services.
pub fn table() -> Table {
    let services = [&V4, &V6].into_iter().flat_map(entry_rules).collect();
    let masquerade = [&V4, &V6].into_iter().map(|v| {
        format!(
            "ct status dnat {ip} saddr . {ip} daddr @{} masquerade fully-random",
            v.hairpin,
            ip = v.ip
        )
    });
    let mut postrouting = vec![format!(
        "meta mark & {MASQUERADE} != 0 meta mark set meta mark & {NOT_MASQUERADE} masquerade fully-random"
    )];
    postrouting.extend(masquerade);
    postrouting.extend(nodes::ruleset::postrouting());
    let mut guard = vec![
        format!("iifname @bridges meta mark & {VOUCHED} == 0 drop"),
        format!("meta mark & {VOUCHED} != 0 meta mark set meta mark & {NOT_VOUCHED}"),
    ];
    guard.extend(nodes::ruleset::guard());
    let chain = |name, hook, rules| BaseChain { name, hook, rules };
    let mut frame = vec![
        chain(
            "refuse",
            None,
            vec![
                "meta l4proto tcp reject with tcp reset".into(),
                "reject".into(),
            ],
        ),
        chain("services", None, services),
        chain(
            "guard",
            Some("type filter hook prerouting priority -300;"),
            guard,
        ),
        chain(
            "prerouting",
            Some("type nat hook prerouting priority -100;"),
            vec!["jump services".into()],
        ),
        chain(
            "output",
            Some("type nat hook output priority -100;"),
            vec!["jump services".into()],
        ),
        chain(
            "postrouting",
            Some("type nat hook postrouting priority 100;"),
            postrouting,
        ),
    ];
    frame.extend(nodes::ruleset::chains());
    let sets = SETS.iter().chain(&NODE_ENDPOINTS);
    let sets = sets.chain(&nodes::ruleset::SETS).copied().collect();
    let mut table = Table::new(Family::Inet, TABLE, sets, frame);
    for v in [&V4, &V6] {
        table.type_by_rule(v.endpoints, v.choice(1));
        table.type_by_rule(v.node_endpoints, v.node_choice(1));
    }
    table
}

fn entry_rules(v: &Version) -> [String; 4] {
    let ip = v.ip;
    let loopback = if v.ipv6 { "::1" } else { "127.0.0.0/8" };
    [
        // A client outside of the cluster that was routed here: the answer must come back by here.
        format!(
            "{ip} daddr @{} {ip} saddr != @{} fib saddr type != local meta mark set meta mark | {MASQUERADE}",
            v.cluster_ips, v.pod_networks
        ),
        format!("{ip} daddr . meta l4proto . th dport vmap @{}", v.services),
        format!(
            "fib daddr type local {ip} daddr != {loopback} meta l4proto . th dport vmap @{}",
            v.node_services
        ),
        // A port that the service does not have.
        format!(
            "fib daddr type != local {ip} daddr @{} goto refuse",
            v.cluster_ips
        ),
    ]
}

/// The pods' networks, as a unit of the table.
pub fn pod_networks(networks: &[IpNet]) -> Fragment {
    let mut fragment = Fragment::default();
    for network in IpNet::aggregate(&networks.to_vec()) {
        let v = if network.addr().is_ipv6() { &V6 } else { &V4 };
        fragment.member(v.pod_networks, network.to_string());
    }
    fragment
}

/// A bridge of pods, on which only known ports may speak; a unit of the table.
pub fn guarded_bridge(name: &InterfaceName) -> Fragment {
    let mut fragment = Fragment::default();
    fragment.member("bridges", format!("\"{}\"", name.as_str()));
    fragment
}

/// What a Service adds to the table. `endpoints` gives those of a port. `own_address` is answered
/// by this process and is left alone.
pub fn fragment(
    table: &mut Table,
    service: &ServiceModel,
    endpoints: impl Fn(&ServicePort) -> Vec<Endpoint>,
    place: &Place,
    own_addresses: &[IpAddr],
) -> Fragment {
    let mut out = Fragment::default();
    for ip in &service.cluster_ips {
        out.member(version_of(*ip).cluster_ips, ip.to_string());
    }
    for port in &service.ports {
        let all = endpoints(port);
        for v in [&V4, &V6] {
            if !service.serves(v.ipv6) {
                continue;
            }
            let chosen = choose(&all, v.ipv6, place);
            Port {
                table,
                service,
                port,
                v,
                chosen,
                out: &mut out,
                own_addresses,
            }
            .add();
        }
    }
    out
}

fn version_of(ip: IpAddr) -> &'static Version {
    if ip.is_ipv6() { &V6 } else { &V4 }
}

/// How clients outside reach a port: the verdict depends on the key only through the map that
/// holds the endpoints.
enum External {
    /// Nobody serves.
    Reject,
    /// A chain of this port's own.
    Own(String),
    /// The shared chains, over endpoints entered under the client's key.
    Shared(Vec<SocketAddr>),
}

/// One port in one IP version on its way into a fragment.
struct Port<'a> {
    table: &'a mut Table,
    service: &'a ServiceModel,
    port: &'a ServicePort,
    v: &'static Version,
    chosen: Chosen,
    out: &'a mut Fragment,
    own_addresses: &'a [IpAddr],
}

impl Port<'_> {
    fn add(mut self) {
        for endpoint in &self.chosen.on_this_node {
            let ip = endpoint.ip();
            self.out.member(self.v.hairpin, format!("{ip} . {ip}"));
        }
        self.cluster_addresses();
        let external = self.external();
        for ip in &self.service.external_ips {
            self.external_address(*ip, &external, false);
        }
        for ip in &self.service.load_balancer_ips {
            self.external_address(*ip, &external, true);
        }
        self.node_port(&external);
    }

    fn key(&self, ip: IpAddr) -> String {
        let protocol = self.port.protocol.as_str();
        format!("{ip} . {protocol} . {}", self.port.port)
    }

    fn cluster_addresses(&mut self) {
        let service = self.service;
        let verdict = |port: &mut Self, key: &str| {
            let scope = if service.internal_local {
                port.chosen.local.clone()
            } else {
                port.chosen.cluster.clone()
            };
            if scope.is_empty() {
                let elsewhere = service.internal_local && !port.chosen.cluster.is_empty();
                return if elsewhere { "drop" } else { "goto refuse" }.to_string();
            }
            if service.affinity.is_some() {
                return format!("goto {}", port.own_choice("i", &scope));
            }
            port.enter(port.v.endpoints, key, &scope);
            format!("goto {}", port.shared_choice(scope.len()))
        };
        for ip in &service.cluster_ips {
            if ip.is_ipv6() == self.v.ipv6 && !self.own_addresses.contains(ip) {
                let key = self.key(*ip);
                let verdict = verdict(self, &key);
                self.out.entry(self.v.services, key, verdict);
            }
        }
    }

    /// Prepares what external addresses and the node port have in common.
    fn external(&mut self) -> External {
        let service = self.service;
        let reachable = !service.external_ips.is_empty()
            || !service.load_balancer_ips.is_empty()
            || self.port.node_port.is_some();
        if !reachable || (self.chosen.cluster.is_empty() && self.chosen.local.is_empty()) {
            return External::Reject;
        }
        let cluster = self.chosen.cluster.clone();
        if service.external_local {
            return External::Own(self.local_policy(&cluster));
        }
        if cluster.is_empty() {
            return External::Reject;
        }
        if service.affinity.is_some() {
            let choice = self.own_choice("e", &cluster);
            return External::Own(self.marked(&choice));
        }
        External::Shared(cluster)
    }

    /// Pods and the node itself reach every endpoint; others only those of this node, whose
    /// answers then need no masquerading.
    fn local_policy(&mut self, cluster: &[SocketAddr]) -> String {
        let (ip, pods) = (self.v.ip, self.v.pod_networks);
        let mut rules = Vec::new();
        if cluster.is_empty() {
            rules.push(format!("{ip} saddr @{pods} goto refuse"));
        } else {
            let choice = self.own_choice("e", cluster);
            let marked = self.marked(&choice);
            rules.push(format!("{ip} saddr @{pods} goto {choice}"));
            rules.push(format!("fib saddr type local goto {marked}"));
        }
        let local = self.chosen.local.clone();
        if local.is_empty() {
            rules.push("drop".into());
        } else {
            rules.push(format!("goto {}", self.own_choice("l", &local)));
        }
        let name = self.name("x", "");
        self.out.chain(name.clone(), rules);
        name
    }

    fn external_address(&mut self, ip: IpAddr, external: &External, balanced: bool) {
        if ip.is_ipv6() != self.v.ipv6 {
            return;
        }
        let key = self.key(ip);
        let mut verdict = match external {
            External::Reject => "goto refuse".to_string(),
            External::Own(chain) => format!("goto {chain}"),
            External::Shared(endpoints) => {
                self.enter(self.v.endpoints, &key, endpoints);
                format!("goto {}", self.shared_marked(endpoints.len()))
            }
        };
        if balanced && !self.service.source_ranges.is_empty() {
            verdict = format!("goto {}", self.ranged(&verdict));
        }
        self.out.entry(self.v.services, key, verdict);
    }

    fn node_port(&mut self, external: &External) {
        let Some(node_port) = self.port.node_port else {
            return;
        };
        let key = format!("{} . {node_port}", self.port.protocol.as_str());
        let verdict = match external {
            External::Reject => "goto refuse".to_string(),
            External::Own(chain) => format!("goto {chain}"),
            External::Shared(endpoints) => {
                self.enter(self.v.node_endpoints, &key, endpoints);
                format!("goto {}", self.shared_node(endpoints.len()))
            }
        };
        self.out.entry(self.v.node_services, key, verdict);
    }

    /// Only clients in the ranges go on. Ranges of the other IP version let nobody in.
    fn ranged(&mut self, verdict: &str) -> String {
        let ranges: Vec<IpNet> = self.service.source_ranges.clone();
        let ranges: Vec<String> = IpNet::aggregate(&ranges)
            .iter()
            .filter(|range| range.addr().is_ipv6() == self.v.ipv6)
            .map(ToString::to_string)
            .collect();
        let mut rules = Vec::new();
        if !ranges.is_empty() {
            rules.push(format!(
                "{} saddr {{ {} }} {verdict}",
                self.v.ip,
                ranges.join(", ")
            ));
        }
        rules.push("drop".into());
        let name = self.name("f", verdict);
        self.out.chain(name.clone(), rules);
        name
    }

    fn enter(&mut self, map: &'static str, key: &str, endpoints: &[SocketAddr]) {
        for (number, endpoint) in endpoints.iter().enumerate() {
            let value = format!("{} . {}", endpoint.ip(), endpoint.port());
            self.out.entry(map, format!("{key} . {number}"), value);
        }
    }

    fn shared_choice(&mut self, count: usize) -> String {
        let name = format!("c{count}");
        self.table
            .shared_chain(&name, || [&V4, &V6].map(|v| v.choice(count)).to_vec());
        name
    }

    fn shared_marked(&mut self, count: usize) -> String {
        let choice = self.shared_choice(count);
        let name = format!("m{count}");
        self.table.shared_chain(&name, || mark_and_go(&choice));
        name
    }

    fn shared_node(&mut self, count: usize) -> String {
        let name = format!("p{count}");
        self.table.shared_chain(&name, || {
            let mut rules = vec![format!("meta mark set meta mark | {MASQUERADE}")];
            rules.extend([&V4, &V6].map(|v| v.node_choice(count)));
            rules
        });
        name
    }

    fn marked(&mut self, choice: &str) -> String {
        let name = format!("k{choice}");
        self.out.chain(name.clone(), mark_and_go(choice));
        name
    }

    /// A choice that does not look at the address that the client used.
    fn own_choice(&mut self, scope: &str, endpoints: &[SocketAddr]) -> String {
        let name = self.name("a", scope);
        let targets: Vec<String> = endpoints
            .iter()
            .map(|endpoint| self.endpoint_chain(*endpoint))
            .collect();
        let mut rules = Vec::new();
        if self.service.affinity.is_some() {
            rules.extend(
                targets
                    .iter()
                    .map(|target| format!("{} saddr @s{target} goto {target}", self.v.ip)),
            );
        }
        let choices: Vec<String> = targets
            .iter()
            .enumerate()
            .map(|(number, target)| format!("{number} : goto {target}"))
            .collect();
        rules.push(format!(
            "numgen random mod {} vmap {{ {} }}",
            choices.len(),
            choices.join(", ")
        ));
        self.out.chain(name.clone(), rules);
        name
    }

    fn endpoint_chain(&mut self, endpoint: SocketAddr) -> String {
        let name = self.name("e", &endpoint.to_string());
        let mut rules = Vec::new();
        if let Some(timeout) = self.service.affinity {
            let set = format!("s{name}");
            self.out.sets.insert(
                // The time-out is part of the name: a set's cannot be changed.
                set.clone(),
                format!(
                    "type {}; size {AFFINITY_CLIENTS}; flags dynamic,timeout; timeout {}s;",
                    self.v.address_type,
                    timeout.as_secs()
                ),
            );
            rules.push(format!("update @{set} {{ {} saddr }}", self.v.ip));
        }
        rules.push(format!(
            "meta l4proto {} dnat {} to {endpoint}",
            self.port.protocol.as_str(),
            self.v.ip
        ));
        self.out.chain(name.clone(), rules);
        name
    }

    /// A name that no other service or port has. What tells them apart is digested: the names of
    /// API objects never get into a transaction.
    fn name(&self, prefix: &str, what: &str) -> String {
        let timeout = self.service.affinity.map_or(0, |t| t.as_secs());
        let text = format!(
            "{}\0{}\0{}\0{}\0{}\0{timeout}\0{what}",
            self.service.key,
            self.port.name,
            self.port.protocol.as_str(),
            self.port.port,
            self.v.ip,
        );
        let digest = Sha256::digest(text.as_bytes());
        let hex: String = digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{prefix}-{hex}")
    }
}

fn mark_and_go(choice: &str) -> Vec<String> {
    vec![
        format!("meta mark set meta mark | {MASQUERADE}"),
        format!("goto {choice}"),
    ]
}

#[cfg(test)]
#[path = "ruleset_tests.rs"]
mod tests;
