//! Which pod network is reached how. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::model::{NodeIndex, NodeModel};
use super::{Here, NodeLinks};
use crate::ports::attachment::Mac;

/// How the kernel gets to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It is on a link of ours: the interface's index.
    Link(u32),
    /// It is behind a router, or nowhere.
    Routed,
}

/// The next stop of a pod network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// The node that has it, on a link of ours.
    Link {
        /// Its address.
        gateway: IpAddr,
        /// Our interface's index.
        link: u32,
    },
    /// The node that has it, through the tunnel.
    Tunnel {
        /// Its address in the tunnel.
        inner: IpAddr,
    },
}

/// The other end of the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelPeer {
    /// The node's address.
    pub outer: IpAddr,
    /// Its addresses in the tunnel.
    pub inner: Vec<IpAddr>,
}

/// The tunnel's device and what it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// This node's address.
    pub local: IpAddr,
    /// The device's MAC.
    pub mac: Mac,
    /// The device's addresses.
    pub addresses: Vec<IpAddr>,
    /// Nodes that are reached through it, by the MAC of their device.
    pub peers: BTreeMap<Mac, TunnelPeer>,
    /// Nodes that may send into it: all. One that is on a link of ours may see it otherwise.
    pub senders: BTreeSet<IpAddr>,
    /// Somebody is reached through it, or its MTU counts.
    pub needed: bool,
}

/// Everything that the kernel is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Pod networks of other nodes.
    pub routes: BTreeMap<IpNet, Hop>,
    /// The tunnel, where it is needed.
    pub tunnel: Option<Tunnel>,
    /// Networks of nodes that cannot be reached, or may not have them: the node, and why.
    pub refused: BTreeMap<IpNet, (String, &'static str)>,
}

impl Plan {
    /// Routes over links, and through the tunnel.
    pub fn counts(&self) -> (usize, usize) {
        let link = |hop: &&Hop| matches!(hop, Hop::Link { .. });
        let links = self.routes.values().filter(link).count();
        (links, self.routes.len() - links)
    }
}

/// Decides. `reach` knows the addresses of the other nodes.
pub fn plan(here: &Here<'_>, nodes: &NodeIndex, reach: &BTreeMap<IpAddr, Reach>) -> Plan {
    let mut plan = Plan::default();
    if here.links == NodeLinks::None {
        return plan;
    }
    let own = nodes.get(here.name).map(|node| node.networks.clone());
    let own = own.unwrap_or_default();
    let local = here.addresses.iter().copied();
    let local = local.into_iter().find(|address| !address.is_loopback());
    let mut tunnel = local
        .filter(|_| here.links != NodeLinks::Routes)
        .and_then(|local| {
            Some(Tunnel {
                local,
                mac: mac_of(own.first()?),
                addresses: own.iter().map(IpNet::network).collect(),
                peers: BTreeMap::new(),
                senders: BTreeSet::new(),
                needed: false,
            })
        });
    // A node that has not told its addresses yet is on its way.
    let others = nodes.others(here.name);
    for node in others.filter(|node| !node.addresses.is_empty()) {
        // The node is known in the tunnel by its first network, if that is its own.
        let mut mac = None;
        for (at, network) in node.networks.iter().enumerate() {
            let outside = !here.pod_networks.iter().any(|all| all.contains(network));
            let taken = || own.iter().chain(plan.routes.keys());
            let found = if outside {
                Err("it is not one of the cluster's")
            } else if taken().any(|other| overlap(other, network)) {
                Err("another node has it")
            } else {
                if at == 0 {
                    mac = Some(mac_of(network));
                }
                hop(here, node, *network, reach, mac, tunnel.as_mut())
            };
            match found {
                Ok(hop) => {
                    plan.routes.insert(*network, hop);
                }
                Err(why) => {
                    plan.refused.insert(*network, (node.name.clone(), why));
                }
            }
        }
    }
    if let Some(tunnel) = &mut tunnel {
        let others = nodes
            .others(here.name)
            .filter(|node| !node.networks.is_empty());
        let senders = others.flat_map(|node| node.addresses.iter().copied());
        tunnel.senders = senders
            .filter(|address| address.is_ipv6() == tunnel.local.is_ipv6())
            .collect();
        tunnel.needed = here.links == NodeLinks::Vxlan || !tunnel.peers.is_empty();
    }
    plan.tunnel = tunnel.filter(|tunnel| tunnel.needed || !tunnel.senders.is_empty());
    plan
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn hop(
    here: &Here<'_>,
    node: &NodeModel,
    network: IpNet,
    reach: &BTreeMap<IpAddr, Reach>,
    mac: Option<Mac>,
    tunnel: Option<&mut Tunnel>,
) -> Result<Hop, &'static str> {
    if here.links != NodeLinks::Vxlan {
        let on_link = node
            .addresses
            .iter()
            .find_map(|address| match reach.get(address) {
                Some(Reach::Link(link)) if address.is_ipv6() == network.addr().is_ipv6() => {
                    Some(Hop::Link {
                        gateway: *address,
                        link: *link,
                    })
                }
                _ => None,
            });
        if let Some(hop) = on_link {
            return Ok(hop);
        }
    }
    let unreached = "no link is shared with the node";
    let tunnel = tunnel.ok_or(unreached)?;
    let mut addresses = node.addresses.iter();
    let outer = addresses.find(|address| address.is_ipv6() == tunnel.local.is_ipv6());
    let outer = outer.ok_or(unreached)?;
    let mac = mac.ok_or("the node's first network, which names it in the tunnel, is refused")?;
    let inner = network.network();
    let known = tunnel.peers.get(&mac);
    if mac == tunnel.mac || known.is_some_and(|peer| peer.outer != *outer) {
        return Err("another node has its MAC in the tunnel");
    }
    let peer = tunnel.peers.entry(mac).or_insert_with(|| TunnelPeer {
        outer: *outer,
        inner: Vec::new(),
    });
    peer.inner.push(inner);
    Ok(Hop::Tunnel { inner })
}

/// The MAC of a node's end of the tunnel. Every node can tell it from the node's first pod
/// network, which no other node has.
pub fn mac_of(network: &IpNet) -> Mac {
    match network.network() {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            Mac([0x02, 0x68, a, b, c, d])
        }
        IpAddr::V6(address) => {
            let digest = Sha256::digest(address.octets());
            Mac([0x06, digest[0], digest[1], digest[2], digest[3], digest[4]])
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn index(nodes: &[(&str, &str, &str)]) -> NodeIndex {
        let mut index = NodeIndex::default();
        for (at, (name, networks, address)) in nodes.iter().enumerate() {
            let networks: Vec<&str> = networks
                .split(',')
                .filter(|text| !text.is_empty())
                .collect();
            let node: Value = json!({
                "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:{at:02}Z")},
                "spec": {"podCIDR": networks.first(), "podCIDRs": networks},
                "status": {"addresses": [{"type": "InternalIP", "address": address}]},
            });
            index.set(&serde_json::from_value(node).unwrap());
        }
        index
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn plan_of(links: NodeLinks, nodes: &NodeIndex, on_link: &[&str]) -> Plan {
        let reach = on_link
            .iter()
            .map(|text| (ip(text), Reach::Link(7)))
            .collect();
        let here = Here {
            name: "a",
            addresses: &[ip("192.0.2.1")],
            pod_networks: &[net("10.42.0.0/16"), net("fd42::/48")],
            links,
        };
        plan(&here, nodes, &reach)
    }

    #[test]
    fn links_are_preferred_and_the_tunnel_leads_elsewhere() {
        let nodes = index(&[
            ("a", "10.42.0.0/24", "192.0.2.1"),
            ("b", "10.42.1.0/24", "192.0.2.2"),
            ("c", "10.42.2.0/24", "198.51.100.3"),
            ("new", "", "192.0.2.4"),
        ]);
        let auto = plan_of(NodeLinks::Auto, &nodes, &["192.0.2.2"]);
        assert_eq!(auto.counts(), (1, 1));
        let link = Hop::Link {
            gateway: ip("192.0.2.2"),
            link: 7,
        };
        assert_eq!(auto.routes[&net("10.42.1.0/24")], link);
        let tunnel = auto.tunnel.unwrap();
        assert_eq!(tunnel.addresses, [ip("10.42.0.0")]);
        let peer = &tunnel.peers[&Mac([2, 0x68, 10, 42, 2, 0])];
        assert_eq!(peer.outer, ip("198.51.100.3"));
        assert_eq!(peer.inner, [ip("10.42.2.0")]);

        let routes = plan_of(NodeLinks::Routes, &nodes, &["192.0.2.2"]);
        assert_eq!((routes.counts(), routes.tunnel), ((1, 0), None));
        assert_eq!(routes.refused[&net("10.42.2.0/24")].0, "c");

        let vxlan = plan_of(NodeLinks::Vxlan, &nodes, &["192.0.2.2"]);
        assert_eq!(vxlan.counts(), (0, 2));
        assert_eq!(plan_of(NodeLinks::None, &nodes, &[]), Plan::default());
    }

    #[test]
    fn a_node_on_the_link_may_send_through_the_tunnel_all_the_same() {
        let nodes = index(&[
            ("a", "10.42.0.0/24", "192.0.2.1"),
            ("b", "10.42.1.0/24", "192.0.2.2"),
        ]);
        let tunnel = plan_of(NodeLinks::Auto, &nodes, &["192.0.2.2"]).tunnel;
        let tunnel = tunnel.unwrap();
        assert!(tunnel.peers.is_empty() && !tunnel.needed);
        assert!(tunnel.senders.contains(&ip("192.0.2.2")));
        let alone = index(&[("a", "10.42.0.0/24", "192.0.2.1")]);
        assert_eq!(plan_of(NodeLinks::Auto, &alone, &[]).tunnel, None);
        let vxlan = plan_of(NodeLinks::Vxlan, &alone, &[]).tunnel;
        assert!(vxlan.unwrap().needed, "for its MTU");
    }

    #[test]
    fn a_node_gets_no_network_of_another_and_none_outside() {
        let nodes = index(&[
            ("b", "10.42.1.0/24", "192.0.2.2"),
            ("a", "10.42.0.0/24", "192.0.2.1"),
            ("thief", "10.42.1.0/25", "192.0.2.3"),
            ("mine", "10.42.0.128/25", "192.0.2.4"),
            ("world", "0.0.0.0/0", "192.0.2.5"),
        ]);
        let all = ["192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"];
        let plan = plan_of(NodeLinks::Auto, &nodes, &all);
        let routes: Vec<&IpNet> = plan.routes.keys().collect();
        assert_eq!(routes, [&net("10.42.1.0/24")]);
        assert_eq!(plan.refused.len(), 3);
    }

    #[test]
    fn a_refused_network_leads_no_traffic_of_its_owner_elsewhere() {
        // The thief's first network is b's, and so would its MAC be.
        let nodes = index(&[
            ("a", "10.42.0.0/24", "192.0.2.1"),
            ("b", "10.42.1.0/24", "198.51.100.2"),
            ("thief", "10.42.1.0/24,fd42:0:0:9::/64", "198.51.100.9"),
            ("outside", "192.168.0.0/24,10.42.8.0/24", "198.51.100.8"),
        ]);
        let plan = plan_of(NodeLinks::Vxlan, &nodes, &[]);
        let tunnel = plan.tunnel.unwrap();
        let peers: Vec<_> = tunnel.peers.values().collect();
        assert_eq!(peers.len(), 1, "{peers:?}");
        assert_eq!(peers[0].outer, ip("198.51.100.2"));
        assert_eq!(peers[0].inner, [ip("10.42.1.0")]);
        let why = "the node's first network, which names it in the tunnel, is refused";
        for network in ["fd42:0:0:9::/64", "10.42.8.0/24"] {
            assert_eq!(plan.refused[&net(network)].1, why);
        }
    }

    #[test]
    fn a_mac_in_the_tunnel_is_of_one_node() {
        let nodes = index(&[
            ("a", "10.42.0.0/24", "192.0.2.1"),
            ("b", "10.42.1.0/24", "198.51.100.2"),
        ]);
        let mut tunnel = plan_of(NodeLinks::Vxlan, &nodes, &[]).tunnel.unwrap();
        let other = NodeModel {
            addresses: vec![ip("198.51.100.3")],
            ..nodes.get("b").unwrap().clone()
        };
        let here = Here {
            name: "a",
            addresses: &[],
            pod_networks: &[],
            links: NodeLinks::Vxlan,
        };
        let reach = BTreeMap::new();
        let network = net("10.42.7.0/24");
        for mac in [tunnel.mac, mac_of(&net("10.42.1.0/24"))] {
            let found = hop(&here, &other, network, &reach, Some(mac), Some(&mut tunnel));
            assert_eq!(found, Err("another node has its MAC in the tunnel"));
        }
    }

    #[test]
    fn ipv6_goes_through_a_tunnel_over_ipv4() {
        let nodes = index(&[
            ("a", "10.42.0.0/24,fd42::/64", "192.0.2.1"),
            ("b", "10.42.1.0/24,fd42:0:0:1::/64", "192.0.2.2"),
        ]);
        let plan = plan_of(NodeLinks::Auto, &nodes, &["192.0.2.2"]);
        assert_eq!(plan.counts(), (1, 1));
        let tunnel = plan.tunnel.unwrap();
        let inner = &tunnel.peers.values().next().unwrap().inner;
        assert_eq!(inner[..], [ip("fd42:0:0:1::")]);
    }
}
