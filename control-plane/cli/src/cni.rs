//! What of CNI is on this machine.

use std::path::PathBuf;

use hull_netd::NodeLinks;
use hull_node::PodNetworkConfig;

use crate::settings::Resolved;

/// A program in a list of directories.
pub fn find(name: &str, directories: &[PathBuf]) -> Option<PathBuf> {
    directories
        .iter()
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// A program in PATH or where administrators' programs are.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    directories.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    find(name, &directories)
}

/// Bytes that VXLAN takes of each packet over IPv4, and 20 more over IPv6.
const VXLAN_OVERHEAD: u32 = 50;
const VXLAN_OVERHEAD_IPV6: u32 = 70;

/// How the node agent writes the default network configuration. Host ports need iptables, and so
/// does masquerading where netd does not see to it.
pub fn pod_network(settings: &Resolved) -> PodNetworkConfig {
    let iptables = find_program("iptables").is_some();
    let links = settings.cluster_network.links;
    PodNetworkConfig {
        directory: settings.cni_conf_dir.clone(),
        masquerade: iptables && !(settings.netd && links != NodeLinks::None),
        host_ports: iptables && find("portmap", &settings.cni_bin_dirs).is_some(),
        tunnel_overhead: match links {
            NodeLinks::Vxlan if settings.node_ip.is_ipv6() => VXLAN_OVERHEAD_IPV6,
            NodeLinks::Vxlan => VXLAN_OVERHEAD,
            _ => 0,
        },
    }
}
