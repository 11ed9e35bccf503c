//! The default CNI configuration: a bridge with addresses from the node's networks.

use std::fmt;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde_json::json;

/// The file that is written.
pub const FILE_NAME: &str = "10-hull.conflist";
/// The bridge that pods are joined to.
pub const BRIDGE: &str = "hull0";
/// Endings of network configurations (libcni).
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

/// What the configuration says; shown as its text.
pub(super) struct Conflist<'a> {
    pub(super) networks: &'a [IpNet],
    pub(super) masquerade: bool,
    pub(super) host_ports: bool,
    pub(super) mtu: Option<u32>,
}

impl fmt::Display for Conflist<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<_> = self
            .networks
            .iter()
            .map(|network| json!([{"subnet": network.to_string()}]))
            .collect();
        let routes: Vec<_> = self
            .networks
            .iter()
            .map(|network| match network {
                IpNet::V4(_) => json!({"dst": "0.0.0.0/0"}),
                IpNet::V6(_) => json!({"dst": "::/0"}),
            })
            .collect();
        let mut bridge = json!({
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": true,
            // A node that was given another network has another gateway address.
            "forceAddress": true,
            "ipMasq": self.masquerade,
            "hairpinMode": true,
            "ipam": {"type": "host-local", "ranges": ranges, "routes": routes},
        });
        if let Some(mtu) = self.mtu {
            bridge["mtu"] = mtu.into();
        }
        let mut plugins = vec![bridge];
        if self.host_ports {
            plugins.push(json!({"type": "portmap", "capabilities": {"portMappings": true}}));
        }
        let list = json!({"cniVersion": "1.0.0", "name": "hull", "plugins": plugins});
        write!(formatter, "{list:#}")
    }
}

/// The network configurations in the directory that are not ours, by name.
pub fn others(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            ending.is_some_and(|ending| ENDINGS.contains(&ending))
                && path.file_name().is_some_and(|name| name != FILE_NAME)
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn list(networks: &[&str], host_ports: bool, mtu: Option<u32>) -> Value {
        let networks: Vec<IpNet> = networks.iter().map(|text| text.parse().unwrap()).collect();
        let conflist = Conflist {
            networks: &networks,
            masquerade: false,
            host_ports,
            mtu,
        };
        serde_json::from_str(&conflist.to_string()).unwrap()
    }

    #[test]
    fn each_ip_version_has_a_range_and_a_default_route() {
        let list = list(&["10.42.1.0/24", "fd42:0:0:1::/64"], false, None);
        let ipam = &list["plugins"][0]["ipam"];
        assert_eq!(ipam["ranges"][1][0]["subnet"], "fd42:0:0:1::/64");
        assert_eq!(ipam["routes"][0]["dst"], "0.0.0.0/0");
        assert_eq!(ipam["routes"][1]["dst"], "::/0");
        assert_eq!(list["plugins"][0].get("mtu"), None);
    }

    #[test]
    fn host_ports_are_a_plugin_of_their_own() {
        let plugins = |host_ports| {
            let list = list(&["10.42.1.0/24"], host_ports, Some(1450));
            assert_eq!(list["plugins"][0]["mtu"], 1450);
            list["plugins"].as_array().unwrap().len()
        };
        assert_eq!((plugins(true), plugins(false)), (2, 1));
    }
}
