//! The way to the other nodes as nftables: parts of the services' table.

use std::net::IpAddr;

use ipnet::IpNet;

use super::plan::Plan;
use crate::nft::{BaseChain, Fragment, SetDeclaration};

/// The tunnel's device.
pub const DEVICE: &str = "hull-vxlan";
/// Its UDP port (IANA's).
pub(super) const PORT: u16 = 4789;
/// The tunnel's network identifier: "hul". A node may have other tunnels on the same port.
pub(super) const VNI: u32 = 0x0068_756c;

/// The table's sets.
pub(crate) const SETS: [SetDeclaration; 4] = [
    // Pods' networks whose traffic to elsewhere is masqueraded.
    set("masquerade4", "type ipv4_addr; flags interval;"),
    set("masquerade6", "type ipv6_addr; flags interval;"),
    // Nodes that may send into the tunnel.
    set("tunnel_peers4", "type ipv4_addr;"),
    set("tunnel_peers6", "type ipv6_addr;"),
];

const fn set(name: &'static str, specification: &'static str) -> SetDeclaration {
    SetDeclaration {
        name,
        kind: "set",
        specification,
    }
}

/// For the chain at the first IP hook: out of the tunnel come pods and nodes of the cluster only.
pub(crate) fn guard() -> [String; 2] {
    [
        format!("iifname \"{DEVICE}\" ip saddr != @pod_networks4 drop"),
        format!("iifname \"{DEVICE}\" ip6 saddr != @pod_networks6 drop"),
    ]
}

/// For the chain behind routing. What leaves the cluster's pod networks gets the node's address,
/// and so does what goes into the tunnel from elsewhere: its answer must come back through it.
pub(crate) fn postrouting() -> [String; 4] {
    let leaving = |ip: &str, version: u8, multicast: &str| {
        format!(
            "{ip} saddr @masquerade{version} {ip} daddr != @pod_networks{version} {ip} daddr != {multicast} masquerade fully-random"
        )
    };
    let entering = |ip: &str, version: u8| {
        format!("oifname \"{DEVICE}\" {ip} saddr != @pod_networks{version} masquerade fully-random")
    };
    [
        leaving("ip", 4, "224.0.0.0/4"),
        leaving("ip6", 6, "ff00::/8"),
        entering("ip", 4),
        entering("ip6", 6),
    ]
}

/// Chains of their own: who may send into the tunnel, and how large the segments in it are.
///
/// A node's own frames leave by `output`. What is forwarded to a tunnel comes from a pod, or by a
/// Service, and masquerading would give it the address of a node that may send.
pub(crate) fn chains() -> [BaseChain; 3] {
    // The identifier stands behind 8 bytes of UDP and 4 of VXLAN (RFC 7348, section 5).
    let ours = format!("udp dport {PORT} @th,96,24 {VNI:#x}");
    [
        BaseChain {
            name: "tunnel",
            hook: Some("type filter hook input priority 0;"),
            rules: vec![
                format!("{ours} ip saddr != @tunnel_peers4 drop"),
                format!("{ours} ip6 saddr != @tunnel_peers6 drop"),
            ],
        },
        BaseChain {
            name: "tunnel_forward",
            hook: Some("type filter hook forward priority -150;"),
            rules: vec![
                format!("{ours} ip saddr @pod_networks4 drop"),
                format!("{ours} ip6 saddr @pod_networks6 drop"),
                format!("{ours} ct status dnat drop"),
            ],
        },
        BaseChain {
            name: "tunnel_segments",
            hook: Some("type filter hook forward priority -150;"),
            rules: vec![format!(
                "oifname \"{DEVICE}\" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu"
            )],
        },
    ]
}

/// What is masqueraded, as a unit of the table.
pub fn masqueraded(networks: &[IpNet]) -> Fragment {
    let mut fragment = Fragment::default();
    for network in IpNet::aggregate(&networks.to_vec()) {
        let set = if network.addr().is_ipv6() {
            "masquerade6"
        } else {
            "masquerade4"
        };
        fragment.member(set, network.to_string());
    }
    fragment
}

/// Who may send into the tunnel, as a unit of the table.
pub fn peers(plan: &Plan) -> Fragment {
    let mut fragment = Fragment::default();
    let senders = plan.tunnel.iter().flat_map(|tunnel| &tunnel.senders);
    for sender in senders {
        let set = match sender {
            IpAddr::V4(_) => "tunnel_peers4",
            IpAddr::V6(_) => "tunnel_peers6",
        };
        fragment.member(set, sender.to_string());
    }
    fragment
}
