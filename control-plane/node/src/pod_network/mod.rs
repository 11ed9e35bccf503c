//! The pods' network on this node: from the Node's `spec.podCIDRs` to a CNI configuration.
//!
//! ```text
//! Node.spec.podCIDRs ─┬─► CRI UpdateRuntimeConfig
//!                     └─► conflist: 10-hull.conflist (bridge, host-local)
//! another CNI configuration in the directory ─► it is used, ours is taken away
//! ```
//! A node without a network of its own is not ready, and has no configuration that could give
//! addresses away: the network it had may be another node's by now.

mod conflist;
mod mtu;

use std::path::{Path, PathBuf};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

use crate::config::NodeConfig;
use crate::cri::Cri;
use conflist::Conflist;

pub use conflist::{BRIDGE, FILE_NAME, others};

/// What the configuration is written with. Without it the runtime's network is somebody else's.
#[derive(Debug, Clone)]
pub struct PodNetworkConfig {
    /// Where the runtime looks for network configurations.
    pub directory: PathBuf,
    /// The bridge plugin masquerades what leaves the node's pods (by iptables); otherwise
    /// somebody who knows the cluster's networks does.
    pub masquerade: bool,
    /// Host ports work.
    pub host_ports: bool,
    /// Bytes that a tunnel between nodes takes of each packet; 0 where none is sure.
    pub tunnel_overhead: u32,
}

/// Why the configuration could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PodNetworkError {
    /// A file or directory.
    #[error("{action} {path}: {source}")]
    File {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// What was done already, so that it is done once.
#[derive(Debug, Default)]
pub(crate) struct PodNetwork {
    /// The networks that the runtime was told of.
    told: Vec<IpNet>,
    /// The configuration that is used instead of ours.
    other: Option<PathBuf>,
}

impl PodNetwork {
    /// Brings runtime and configuration up to what the Node says. Gives the reason why pods
    /// cannot have a network yet.
    pub(crate) async fn update(
        &mut self,
        node: &Node,
        config: &NodeConfig,
        cri: &Cri,
    ) -> Option<String> {
        let networks = networks_of(node);
        self.tell_runtime(&networks, cri).await;
        let settings = config.pod_network.as_ref()?;
        match self.configure(&networks, config, settings) {
            Ok(true) => conflict(&networks, config),
            Ok(false) => Some(format!(
                "node has no pod CIDR yet (spec.podCIDR), and there is no CNI configuration in {}",
                settings.directory.display()
            )),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Whether pods can have a network.
    fn configure(
        &mut self,
        networks: &[IpNet],
        config: &NodeConfig,
        settings: &PodNetworkConfig,
    ) -> Result<bool, PodNetworkError> {
        let own = settings.directory.join(FILE_NAME);
        let other = others(&settings.directory).into_iter().next();
        if other != self.other {
            if let Some(other) = &other {
                tracing::info!(config = %other.display(), "using the machine's CNI configuration");
            }
            self.other.clone_from(&other);
        }
        if other.is_some() || networks.is_empty() {
            remove(&own)?;
            return Ok(other.is_some());
        }
        let text = Conflist {
            networks,
            masquerade: settings.masquerade,
            host_ports: settings.host_ports,
            mtu: mtu::of_pods(config.node_ip, settings.tunnel_overhead),
        }
        .to_string();
        if std::fs::read_to_string(&own).is_ok_and(|old| old == text) {
            return Ok(true);
        }
        write(&settings.directory, &own, &text)?;
        tracing::info!(config = %own.display(), ?networks, "CNI configuration written");
        Ok(true)
    }

    async fn tell_runtime(&mut self, networks: &[IpNet], cri: &Cri) {
        if networks.is_empty() || networks == self.told {
            return;
        }
        match cri.update_pod_cidr(networks).await {
            Ok(()) => {
                tracing::info!(?networks, "the runtime knows the node's pod CIDR");
                self.told = networks.to_vec();
            }
            // Told again with the next look at the node.
            Err(error) => tracing::debug!(%error, "pod CIDR not told to the runtime yet"),
        }
    }
}

/// The Node has other networks than the node was started with.
fn conflict(networks: &[IpNet], config: &NodeConfig) -> Option<String> {
    let wanted = &config.pod_cidrs;
    (!wanted.is_empty() && wanted != networks).then(|| {
        format!(
            "node has the pod CIDR {}, not {} as configured: it cannot be changed without \
             deleting the Node",
            texts(networks).join(","),
            texts(wanted).join(",")
        )
    })
}

pub(crate) fn texts(networks: &[IpNet]) -> Vec<String> {
    networks.iter().map(ToString::to_string).collect()
}

/// The Node's networks for pods, as far as they can be read.
pub(crate) fn networks_of(node: &Node) -> Vec<IpNet> {
    let spec = node.spec.as_ref();
    let several = spec.and_then(|spec| spec.pod_cidrs.as_deref());
    let one = spec.and_then(|spec| spec.pod_cidr.as_ref());
    let all = match several {
        Some(all) if !all.is_empty() => all,
        _ => one.map_or(&[][..], std::slice::from_ref),
    };
    let parsed = all.iter().filter_map(|text| text.parse::<IpNet>().ok());
    parsed.map(|network| network.trunc()).collect()
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PodNetworkError {
    let path = path.to_owned();
    move |source| PodNetworkError::File {
        action,
        path,
        source,
    }
}

fn remove(path: &Path) -> Result<(), PodNetworkError> {
    match std::fs::remove_file(path) {
        Ok(()) => {
            tracing::info!(config = %path.display(), "CNI configuration taken away");
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(file_error("remove", path)(error)),
    }
}

/// Readers see the old text or the new one.
fn write(directory: &Path, path: &Path, text: &str) -> Result<(), PodNetworkError> {
    std::fs::create_dir_all(directory).map_err(file_error("make", directory))?;
    // Not an ending that runtimes read.
    let staged = directory.join(format!(".{FILE_NAME}.tmp"));
    std::fs::write(&staged, text).map_err(file_error("write", &staged))?;
    std::fs::rename(&staged, path).map_err(file_error("write", path))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    struct Bench {
        directory: tempfile::TempDir,
        network: PodNetwork,
        config: NodeConfig,
    }

    fn bench() -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let mut config = NodeConfig::new("n1", "127.0.0.1".parse().unwrap());
        config.pod_network = Some(PodNetworkConfig {
            directory: directory.path().join("net.d"),
            masquerade: false,
            host_ports: false,
            tunnel_overhead: 0,
        });
        Bench {
            directory,
            network: PodNetwork::default(),
            config,
        }
    }

    impl Bench {
        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join("net.d").join(name)
        }

        fn configure(&mut self, networks: &[&str]) -> bool {
            let networks: Vec<IpNet> = networks.iter().map(|text| text.parse().unwrap()).collect();
            let settings = self.config.pod_network.clone().unwrap();
            let configured = self.network.configure(&networks, &self.config, &settings);
            configured.unwrap()
        }

        fn subnet(&self) -> Option<Value> {
            let text = std::fs::read_to_string(self.path(FILE_NAME)).ok()?;
            let list: Value = serde_json::from_str(&text).unwrap();
            Some(list["plugins"][0]["ipam"]["ranges"][0][0]["subnet"].clone())
        }
    }

    #[test]
    fn the_configuration_follows_the_node() {
        let mut bench = bench();
        assert!(!bench.configure(&[]), "no network, no configuration");
        assert_eq!(bench.subnet(), None);
        assert!(bench.configure(&["10.42.3.0/24"]));
        assert_eq!(bench.subnet(), Some(json!("10.42.3.0/24")));
        assert!(bench.configure(&["10.42.4.0/24"]), "another Node object");
        assert_eq!(bench.subnet(), Some(json!("10.42.4.0/24")));
        assert!(!bench.configure(&[]));
        assert_eq!(bench.subnet(), None, "its addresses may be another's now");
    }

    #[test]
    fn another_configuration_is_used_unchanged() {
        let mut bench = bench();
        bench.configure(&["10.42.3.0/24"]);
        std::fs::write(bench.path("20-calico.conflist"), "theirs").unwrap();
        assert!(bench.configure(&["10.42.3.0/24"]));
        assert_eq!(bench.subnet(), None, "ours would be read before theirs");
        assert!(bench.configure(&[]), "theirs needs no CIDR");
        let theirs = std::fs::read_to_string(bench.path("20-calico.conflist")).unwrap();
        assert_eq!(theirs, "theirs");
        std::fs::remove_file(bench.path("20-calico.conflist")).unwrap();
        assert!(bench.configure(&["10.42.3.0/24"]));
        assert_eq!(bench.subnet(), Some(json!("10.42.3.0/24")));
    }

    #[test]
    fn a_node_with_another_network_than_configured_says_so() {
        let mut bench = bench();
        let network = |text: &str| vec![text.parse::<IpNet>().unwrap()];
        assert_eq!(conflict(&network("10.42.0.0/24"), &bench.config), None);
        bench.config.pod_cidrs = network("10.50.0.0/24");
        assert_eq!(conflict(&network("10.50.0.0/24"), &bench.config), None);
        let problem = conflict(&network("10.42.0.0/24"), &bench.config).unwrap();
        assert!(
            problem.contains("10.42.0.0/24, not 10.50.0.0/24"),
            "{problem}"
        );
    }
}
