//! How large the pods' packets may be.

use std::net::IpAddr;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// The tunnel of netd between nodes, where there is one.
const TUNNEL: &str = "hull-vxlan";

/// The MTU of pods: that of the link which has the node's address, or of the tunnel to other
/// nodes where one of them is reached through it. `None`: the kernel's default.
pub(super) fn of_pods(node_ip: IpAddr, overhead: u32) -> Option<u32> {
    let link = link_of(node_ip)?;
    let link = mtu(&link)?.checked_sub(overhead)?;
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let used = leads_through_tunnel(&read("/proc/net/route"), &read("/proc/net/ipv6_route"));
    let tunnel = mtu(TUNNEL).filter(|_| used);
    Some(tunnel.map_or(link, |tunnel| tunnel.min(link)))
}

/// Whether a route leads through the tunnel, by the kernel's tables of IPv4 (the interface is the
/// first word) and of IPv6 (it is the last; the fifth is the gateway).
fn leads_through_tunnel(ipv4: &str, ipv6: &str) -> bool {
    let first = |line: &str| line.split_whitespace().next() == Some(TUNNEL);
    let with_gateway = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let gateway = words
            .get(4)
            .is_some_and(|word| word.bytes().any(|b| b != b'0'));
        gateway && words.last() == Some(&TUNNEL)
    };
    ipv4.lines().any(first) || ipv6.lines().any(with_gateway)
}

fn mtu(link: &str) -> Option<u32> {
    let path = Path::new("/sys/class/net").join(link).join("mtu");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The interface with an address; loopback is none that pods' packets leave by.
fn link_of(address: IpAddr) -> Option<String> {
    let mut all = getifaddrs().ok()?;
    let found = all.find(|found| {
        let ip = found.address.as_ref().and_then(|storage| {
            let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        });
        ip == Some(address) && !found.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    })?;
    Some(found.interface_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tunnel_counts_once_a_route_leads_through_it() {
        let eth0 = "Iface Destination\neth0 00000000 0102000A 0003 0 0 0 00000000 0 0 0\n";
        let own = "fd420000000000010000000000000000 80 00 00 00000000000000000000000000000000 100 1 0 1 hull-vxlan\n";
        assert!(!leads_through_tunnel(eth0, own));
        let route = format!("{eth0}hull-vxlan 00022A0A 00022A0A 0003 0 0 0 00FFFFFF 0 0 0\n");
        assert!(leads_through_tunnel(&route, own));
        let route = "fd420000000000020000000000000000 40 00 00 fd420000000000020000000000000000 400 1 0 3 hull-vxlan\n";
        assert!(leads_through_tunnel(eth0, &format!("{own}{route}")));
    }

    #[test]
    fn loopback_and_foreign_addresses_say_nothing() {
        assert_eq!(of_pods("127.0.0.1".parse().unwrap(), 0), None);
        assert_eq!(of_pods("192.0.2.255".parse().unwrap(), 0), None);
    }
}
