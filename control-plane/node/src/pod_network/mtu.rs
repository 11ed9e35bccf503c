//! How large the pods' packets may be.

use std::net::IpAddr;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// The tunnel of netd between nodes, where there is one.
const TUNNEL: &str = "hull-vxlan";

/// The MTU of pods: that of the link which has the node's address, or of the tunnel to other
/// nodes where that is smaller. `None`: the kernel's default.
pub(super) fn of_pods(node_ip: IpAddr, overhead: u32) -> Option<u32> {
    let link = link_of(node_ip)?;
    let link = mtu(&link)?.checked_sub(overhead)?;
    Some(mtu(TUNNEL).map_or(link, |tunnel| tunnel.min(link)))
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
    fn loopback_and_foreign_addresses_say_nothing() {
        assert_eq!(of_pods("127.0.0.1".parse().unwrap(), 0), None);
        assert_eq!(of_pods("192.0.2.255".parse().unwrap(), 0), None);
    }
}
