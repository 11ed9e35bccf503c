//! What of CNI is on this machine.

use std::path::PathBuf;

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

/// How the node agent writes the default network configuration. Masquerading and host ports need
/// iptables; without it pods reach the node and each other.
pub fn pod_network(settings: &Resolved) -> PodNetworkConfig {
    let iptables = find_program("iptables").is_some();
    PodNetworkConfig {
        directory: settings.cni_conf_dir.clone(),
        masquerade: iptables,
        host_ports: iptables && find("portmap", &settings.cni_bin_dirs).is_some(),
        tunnel_overhead: 0,
    }
}
