//! The policies of one pod as chains.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use kube::core::SelectorExt;
use sha2::{Digest, Sha256};

use super::model::{Labels, PeerModel, PodModel, PolicyModel, PortModel, RuleModel};
use crate::nft::{BaseChain, Family, Fragment, SetDeclaration, Table};
use crate::services::model::Protocol;

/// The table's name.
pub const TABLE: &str = "hull_policy";

const fn map(name: &'static str, specification: &'static str) -> SetDeclaration {
    SetDeclaration {
        name,
        kind: "map",
        specification,
    }
}

/// The table without policies.
pub fn table() -> Table {
    let sets = vec![
        map("ingress4", "type ipv4_addr : verdict;"),
        map("ingress6", "type ipv6_addr : verdict;"),
        map("egress4", "type ipv4_addr : verdict;"),
        map("egress6", "type ipv6_addr : verdict;"),
    ];
    let chain = |name, hook, side: &str, map: &str| BaseChain {
        name,
        hook: Some(hook),
        rules: vec![
            // Answers, and errors about packets that were let through.
            "ct direction reply accept".to_string(),
            "ct state related accept".to_string(),
            format!("ip {side} vmap @{map}4"),
            format!("ip6 {side} vmap @{map}6"),
        ],
    };
    // Two hooks: what one side accepts, the other side still judges.
    let frame = vec![
        chain(
            "egress",
            "type filter hook forward priority 0;",
            "saddr",
            "egress",
        ),
        chain(
            "ingress",
            "type filter hook forward priority 1;",
            "daddr",
            "ingress",
        ),
    ];
    Table::new(Family::Inet, TABLE, sets, frame)
}

/// Everything that selectors choose from.
pub struct Cluster<'a> {
    /// Pods with addresses.
    pub pods: Vec<&'a PodModel>,
    /// Labels by namespace.
    pub namespaces: &'a BTreeMap<String, Labels>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    /// The header field that holds the peer.
    fn peer_field(self) -> &'static str {
        match self {
            Direction::Ingress => "saddr",
            Direction::Egress => "daddr",
        }
    }

    fn map(self, ipv6: bool) -> &'static str {
        match (self, ipv6) {
            (Direction::Ingress, false) => "ingress4",
            (Direction::Ingress, true) => "ingress6",
            (Direction::Egress, false) => "egress4",
            (Direction::Egress, true) => "egress6",
        }
    }
}

/// What a pod of this node adds to the table. Without policies about it, nothing: it is open.
pub fn fragment<'a>(
    id: &str,
    pod: &PodModel,
    policies: impl Iterator<Item = &'a PolicyModel> + Clone,
    cluster: &Cluster<'_>,
) -> Fragment {
    let mut out = Fragment::default();
    let about: Vec<&PolicyModel> = policies.filter(|policy| policy.selects(pod)).collect();
    for direction in [Direction::Ingress, Direction::Egress] {
        let rules: Vec<(&PolicyModel, &[RuleModel])> = about
            .iter()
            .filter_map(|policy| match direction {
                Direction::Ingress => Some((*policy, policy.ingress.as_deref()?)),
                Direction::Egress => Some((*policy, policy.egress.as_deref()?)),
            })
            .collect();
        if rules.is_empty() {
            continue;
        }
        for ipv6 in [false, true] {
            let own: Vec<IpAddr> = pod
                .addresses
                .iter()
                .copied()
                .filter(|ip| ip.is_ipv6() == ipv6)
                .collect();
            if own.is_empty() {
                continue;
            }
            let writer = Writer {
                direction,
                ipv6,
                pod,
                cluster,
            };
            let name = chain_name(id, direction.map(ipv6));
            for address in &own {
                out.entry(
                    direction.map(ipv6),
                    address.to_string(),
                    format!("goto {name}"),
                );
            }
            out.chain(name, writer.chain(&own, &rules));
        }
    }
    out
}

fn chain_name(id: &str, what: &str) -> String {
    let digest = Sha256::digest(format!("{id}\0{what}").as_bytes());
    let hex: String = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{what}-{hex}")
}

struct Writer<'a> {
    direction: Direction,
    ipv6: bool,
    pod: &'a PodModel,
    cluster: &'a Cluster<'a>,
}

impl Writer<'_> {
    fn ip(&self) -> &'static str {
        if self.ipv6 { "ip6" } else { "ip" }
    }

    fn field(&self) -> String {
        format!("{} {}", self.ip(), self.direction.peer_field())
    }

    fn chain(&self, own: &[IpAddr], policies: &[(&PolicyModel, &[RuleModel])]) -> Vec<String> {
        // No policy keeps a pod from itself.
        let mut out = vec![format!("{} {} accept", self.field(), one_of(own))];
        for (policy, rules) in policies {
            for rule in *rules {
                self.rule(policy, rule, &mut out);
            }
        }
        out.push("drop".into());
        out
    }

    fn rule(&self, policy: &PolicyModel, rule: &RuleModel, out: &mut Vec<String>) {
        let named = |port: &PortModel| matches!(port, PortModel::Named(..));
        let numbered = rule.ports.as_ref().map(|ports| {
            let ports = ports.iter().filter(|port| !named(port)).cloned();
            ports.collect::<Vec<_>>()
        });
        let peers = match &rule.peers {
            None => vec![String::new()],
            Some(peers) => self.peers(policy, peers),
        };
        let mut numbers = match &numbered {
            None => vec![String::new()],
            Some(ports) => port_matches(ports),
        };
        let names = rule.ports.iter().flatten().filter_map(|port| match port {
            PortModel::Named(protocol, name) => Some((*protocol, name.as_str())),
            _ => None,
        });
        if self.direction == Direction::Ingress {
            // The receiver is this pod: its own names count.
            numbers.extend(names.filter_map(|(protocol, name)| {
                let number = self.pod.port(name, protocol)?;
                Some(format!("{} dport {number}", protocol.as_str()))
            }));
        } else {
            for (protocol, name) in names {
                self.named_egress(policy, rule, protocol, name, out);
            }
        }
        for peer in &peers {
            out.extend(numbers.iter().map(|port| accept(peer, port)));
        }
    }

    /// Each receiver has a number of its own for a name.
    fn named_egress(
        &self,
        policy: &PolicyModel,
        rule: &RuleModel,
        protocol: Protocol,
        name: &str,
        out: &mut Vec<String>,
    ) {
        let mut by_number: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
        for pod in &self.cluster.pods {
            let chosen = rule
                .peers
                .as_ref()
                .is_none_or(|peers| peers.iter().any(|peer| self.is_peer(policy, peer, pod)));
            if let Some(number) = pod.port(name, protocol).filter(|_| chosen) {
                let addresses = pod.addresses.iter().filter(|ip| ip.is_ipv6() == self.ipv6);
                by_number.entry(number).or_default().extend(addresses);
            }
        }
        for (number, addresses) in by_number {
            if !addresses.is_empty() {
                let peer = format!("{} {}", self.field(), one_of(&addresses));
                out.push(accept(
                    &peer,
                    &format!("{} dport {number}", protocol.as_str()),
                ));
            }
        }
    }

    fn is_peer(&self, policy: &PolicyModel, peer: &PeerModel, pod: &PodModel) -> bool {
        match peer {
            PeerModel::Block(network, excepts) => pod.addresses.iter().any(|ip| {
                network.contains(ip) && !excepts.iter().any(|except| except.contains(ip))
            }),
            PeerModel::Pods { namespaces, pods } => {
                let namespace = match namespaces {
                    None => pod.namespace == policy.namespace,
                    Some(selector) => self
                        .cluster
                        .namespaces
                        .get(&pod.namespace)
                        .is_some_and(|labels| selector.matches(labels)),
                };
                namespace && pods.matches(&pod.labels)
            }
        }
    }

    /// Matches of the peers; none when nobody of this IP version is meant.
    fn peers(&self, policy: &PolicyModel, peers: &[PeerModel]) -> Vec<String> {
        let mut out = Vec::new();
        let mut addresses: Vec<IpAddr> = Vec::new();
        for peer in peers {
            match peer {
                PeerModel::Block(network, excepts) => {
                    if network.addr().is_ipv6() == self.ipv6 {
                        out.push(self.block(*network, excepts));
                    }
                }
                PeerModel::Pods { .. } => {
                    let pods = self.cluster.pods.iter();
                    let chosen = pods.filter(|pod| self.is_peer(policy, peer, pod));
                    let ips = chosen.flat_map(|pod| &pod.addresses);
                    addresses.extend(ips.filter(|ip| ip.is_ipv6() == self.ipv6));
                }
            }
        }
        if !addresses.is_empty() {
            out.push(format!("{} {}", self.field(), one_of(&addresses)));
        }
        out
    }

    fn block(&self, network: IpNet, excepts: &[IpNet]) -> String {
        let field = self.field();
        let excepts: Vec<IpNet> = excepts
            .iter()
            .copied()
            .filter(|except| except.addr().is_ipv6() == self.ipv6)
            .collect();
        let excepts: Vec<String> = IpNet::aggregate(&excepts)
            .iter()
            .map(ToString::to_string)
            .collect();
        if excepts.is_empty() {
            format!("{field} {network}")
        } else {
            format!("{field} {network} {field} != {{ {} }}", excepts.join(", "))
        }
    }
}

fn one_of(addresses: &[IpAddr]) -> String {
    let mut sorted = addresses.to_vec();
    sorted.sort();
    sorted.dedup();
    let texts: Vec<String> = sorted.iter().map(ToString::to_string).collect();
    format!("{{ {} }}", texts.join(", "))
}

fn port_matches(ports: &[PortModel]) -> Vec<String> {
    ports
        .iter()
        .filter_map(|port| match port {
            PortModel::All(protocol) => Some(format!("meta l4proto {}", protocol.as_str())),
            PortModel::Range(protocol, first, last) if first == last => {
                Some(format!("{} dport {first}", protocol.as_str()))
            }
            PortModel::Range(protocol, first, last) => {
                Some(format!("{} dport {first}-{last}", protocol.as_str()))
            }
            PortModel::Named(..) => None,
        })
        .collect()
}

fn accept(peer: &str, port: &str) -> String {
    let words = [peer, port, "accept"];
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
