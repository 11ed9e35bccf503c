//! The bridge family's table: what pods may say, and where their frames go.

use std::net::IpAddr;

use super::attachment::{Attachment, InterfaceName, Mac};
use crate::nft::{BaseChain, Family, Fragment, SetDeclaration, Table};
use crate::services::ruleset::{TABLE, VOUCHED};

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

const SETS: [SetDeclaration; 6] = [
    set("ports", "set", "type ifname;"),
    set("macs", "set", "type ifname . ether_addr;"),
    set("addresses4", "set", "type ifname . ipv4_addr;"),
    set("addresses6", "set", "type ifname . ipv6_addr;"),
    // The MAC by which a port reaches the node.
    set("node_macs", "map", "type ifname : ether_addr;"),
    set("advertised", "map", "type ifname : verdict;"),
];

/// The table without pods.
pub fn table() -> Table {
    let chain = |name, hook, rules: &[&str]| BaseChain {
        name,
        hook,
        rules: rules.iter().map(ToString::to_string).collect(),
    };
    let frame = vec![
        chain(
            "prerouting",
            // Before br_netfilter (0), which would show bridged frames to the IP hooks.
            Some("type filter hook prerouting priority -300;"),
            &["iifname @ports goto from_pod"],
        ),
        chain(
            "forward",
            Some("type filter hook forward priority -200;"),
            // A pod whose attachment is not known yet, or not any more.
            &["oifname @ports iifname != @ports drop"],
        ),
        chain(
            "from_pod",
            None,
            &[
                "iifname . ether saddr != @macs drop",
                "ether type ip goto from_pod_ip4",
                "ether type ip6 goto from_pod_ip6",
                "ether type arp goto from_pod_arp",
                "drop",
            ],
        ),
        chain(
            "from_pod_arp",
            None,
            &[
                "arp htype 1 arp ptype ip iifname . arp saddr ether @macs iifname . arp saddr ip @addresses4 accept",
                "drop",
            ],
        ),
        chain(
            "from_pod_ip4",
            None,
            &["iifname . ip saddr @addresses4 goto steer", "drop"],
        ),
        chain(
            "from_pod_ip6",
            None,
            &[
                "icmpv6 type { nd-router-advert, nd-redirect } drop",
                "icmpv6 type nd-neighbor-advert iifname . ip6 saddr @addresses6 iifname vmap @advertised",
                "icmpv6 type nd-neighbor-advert drop",
                // Duplicate address detection has no source yet.
                "icmpv6 type nd-neighbor-solicit ip6 saddr :: goto pass",
                "iifname . ip6 saddr != @addresses6 drop",
                "icmpv6 type { nd-neighbor-solicit, nd-router-solicit } goto pass",
                "goto steer",
            ],
        ),
        chain(
            "steer",
            None,
            &[
                "meta pkttype { broadcast, multicast } goto pass",
                "ether daddr set iifname map @node_macs meta pkttype set host goto pass",
                "goto pass",
            ],
        ),
        BaseChain {
            name: "pass",
            hook: None,
            rules: vec![
                format!("meta mark set meta mark | {VOUCHED}"),
                "accept".into(),
            ],
        },
    ];
    Table::new(Family::Bridge, TABLE, SETS.to_vec(), frame)
}

/// What a pod's attachment to a bridge adds. `node_mac` is the bridge's own MAC.
pub fn port(attachment: &Attachment, node_mac: Mac) -> Fragment {
    let mut fragment = Fragment::default();
    let port = quoted(&attachment.port);
    fragment.member("ports", port.clone());
    fragment.member("macs", format!("{port} . {}", attachment.mac));
    fragment.entry("node_macs", port.clone(), node_mac.to_string());
    let link_local = attachment.mac.link_local();
    let mut targets = Vec::new();
    for address in attachment
        .addresses
        .iter()
        .copied()
        .chain([link_local.into()])
    {
        match address {
            IpAddr::V4(ip) => fragment.member("addresses4", format!("{port} . {ip}")),
            IpAddr::V6(ip) => {
                fragment.member("addresses6", format!("{port} . {ip}"));
                // nft of Debian 12 has no word for the target field.
                targets.push(format!("@th,64,128 0x{:032x} goto pass", u128::from(ip)));
            }
        }
    }
    let chain = format!("nd-{}", attachment.port.as_str().replace('.', "_"));
    targets.push("drop".into());
    fragment.entry("advertised", port, format!("goto {chain}"));
    fragment.chain(chain, targets);
    fragment
}

fn quoted(name: &InterfaceName) -> String {
    format!("\"{}\"", name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_say_its_own_addresses_and_nothing_else() {
        let attachment = Attachment {
            sandbox: "abc".into(),
            namespace: "a".into(),
            name: "b".into(),
            port: InterfaceName::parse("veth1").unwrap(),
            bridge: InterfaceName::parse("hull0"),
            mac: Mac([2, 0, 0, 0, 0, 3]),
            addresses: vec!["10.42.0.5".parse().unwrap(), "fd42::5".parse().unwrap()],
        };
        let found = port(&attachment, Mac([2, 0, 0, 0, 0, 1]));
        let keys = |set: &str| -> Vec<String> {
            found
                .elements_of(set)
                .map(|(key, _)| key.to_string())
                .collect()
        };
        assert_eq!(keys("addresses4"), ["\"veth1\" . 10.42.0.5"]);
        assert_eq!(
            keys("addresses6"),
            ["\"veth1\" . fd42::5", "\"veth1\" . fe80::ff:fe00:3"]
        );
        assert_eq!(found.chains["nd-veth1"].rules.len(), 3);
        assert_eq!(found.chains["nd-veth1"].rules.last().unwrap(), "drop");
    }
}
