//! Configuration of the node agent. Every limit and time-out is a key here or a named constant
//! beside the code that uses it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use crate::eviction::thresholds::EvictionConfig;
pub use crate::image_gc::ImageGcConfig;
use hull_client::timeouts::timeout_scale;
use hull_tls::RenewableCertificate;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Taint;

use crate::pod_network::PodNetworkConfig;

/// The Kubernetes version that the agent reports as `kubeletVersion`.
pub const KUBELET_VERSION: &str = concat!("v1.36.0-hull.", env!("CARGO_PKG_VERSION"));

/// Everything the node agent needs to know to run.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The Node object's name; usually the host's name in lower case.
    pub node_name: String,
    /// The address reported as InternalIP and as `hostIP` of the node's pods.
    pub node_ip: IpAddr,
    /// The CRI endpoint, `unix:///path`.
    pub cri_endpoint: String,
    /// Per-pod directories (volumes, termination messages): `pods/UID/...`.
    pub root_dir: PathBuf,
    /// Container logs: `NAMESPACE_NAME_UID/CONTAINER/N.log`.
    pub pod_log_dir: PathBuf,
    /// Where the HTTPS server (logs, exec, attach, metrics) listens.
    pub listen: SocketAddr,
    /// The server's certificate, key and the CA that client certificates must come from. Without
    /// it the server is not started and logs and exec are unavailable.
    pub server_tls: Option<ServerTls>,
    /// Labels that the Node object carries besides the standard ones.
    pub labels: BTreeMap<String, String>,
    /// Taints given to the Node when it is first registered.
    pub taints: Vec<Taint>,
    /// The `pods` capacity.
    pub max_pods: u32,
    /// The host file that pods' DNS configuration derives from.
    pub resolv_conf: PathBuf,
    /// Cluster DNS; empty where the cluster has none.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// A container's log is set aside when it is larger, bytes.
    pub log_max_bytes: u64,
    /// Files of one container's log at most, the present one among them.
    pub log_max_files: usize,
    /// When unused images are removed.
    pub image_gc: ImageGcConfig,
    /// When pods are evicted.
    pub eviction: EvictionConfig,
    /// A directory of pod manifests that run whatever the API server says.
    pub static_pod_dir: Option<PathBuf>,
    /// The node's networks for pods, one per IP version, where it has them by configuration and
    /// not from the cluster.
    pub pod_cidrs: Vec<IpNet>,
    /// How the network configuration of pods is written; `None`: the runtime's network is
    /// somebody else's.
    pub pod_network: Option<PodNetworkConfig>,
    /// The parent cgroup of pods on the node.
    pub cgroup_root: String,
    /// Intervals, back-offs and time-outs.
    pub timings: Timings,
}

/// What the HTTPS server shows, and whom it serves.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// The serving certificate.
    pub certificate: RenewableCertificate,
    /// The CA, PEM, whose client certificates are accepted.
    pub client_ca_pem: Vec<u8>,
}

/// Intervals, back-offs and time-outs of the node agent.
#[derive(Debug, Clone)]
pub struct Timings {
    /// How often the CRI's sandboxes and containers are listed for changes.
    pub relist_interval: Duration,
    /// How often the node's Lease is renewed.
    pub lease_renew_interval: Duration,
    /// The Lease's `leaseDurationSeconds`.
    pub lease_duration: Duration,
    /// How often the node's status is computed; it is written when it changed.
    pub node_status_interval: Duration,
    /// How often the node's status is written although nothing changed.
    pub node_status_report_interval: Duration,
    /// The first delay before a crashed container or a failed pull is tried again; doubles.
    pub backoff_initial: Duration,
    /// The ceiling of the doubling delay of pulls.
    pub backoff_max: Duration,
    /// The ceiling of the doubling delay of restarts.
    pub restart_backoff_max: Duration,
    /// The delay before a pod whose sandbox or volumes failed is tried again.
    pub sync_retry: Duration,
    /// How often container logs are looked at for rotation.
    pub log_rotation_interval: Duration,
    /// How often unused images are looked for.
    pub image_gc_interval: Duration,
    /// How often the node's memory, disks and process ids are looked at.
    pub eviction_interval: Duration,
    /// How often the directory of static pods is looked at.
    pub static_pod_interval: Duration,
    /// How often a pod is synchronised although nothing happened.
    pub resync_interval: Duration,
    /// Time-out of RunPodSandbox: network, VMM start, guest boot.
    pub sandbox_timeout: Duration,
    /// Time-out of the other runtime calls.
    pub runtime_timeout: Duration,
    /// Time-out of PullImage.
    pub pull_timeout: Duration,
    /// How long a pod waits for a configMap or secret it needs before saying so.
    pub object_timeout: Duration,
}

impl Timings {
    /// The defaults, with time-outs multiplied by `scale` (see [`timeout_scale`]).
    pub fn scaled(scale: f64) -> Self {
        let seconds = |value: u64| Duration::from_secs(value).mul_f64(scale);
        Timings {
            relist_interval: Duration::from_secs(1),
            lease_renew_interval: Duration::from_secs(10),
            lease_duration: Duration::from_secs(40),
            node_status_interval: Duration::from_secs(10),
            node_status_report_interval: Duration::from_secs(300),
            backoff_initial: Duration::from_secs(10),
            backoff_max: Duration::from_secs(300),
            restart_backoff_max: Duration::from_secs(300),
            sync_retry: Duration::from_secs(5),
            log_rotation_interval: Duration::from_secs(10),
            image_gc_interval: Duration::from_secs(300),
            eviction_interval: Duration::from_secs(10),
            static_pod_interval: Duration::from_secs(2),
            resync_interval: Duration::from_secs(60),
            sandbox_timeout: seconds(240),
            runtime_timeout: seconds(120),
            pull_timeout: seconds(900),
            object_timeout: Duration::from_secs(5),
        }
    }
}

impl Default for Timings {
    fn default() -> Self {
        Timings::scaled(timeout_scale())
    }
}

impl NodeConfig {
    /// The defaults for a node of this name and address.
    pub fn new(node_name: impl Into<String>, node_ip: IpAddr) -> Self {
        NodeConfig {
            node_name: node_name.into(),
            node_ip,
            cri_endpoint: "unix:///run/hull/shim.sock".into(),
            root_dir: "/var/lib/hull/node".into(),
            pod_log_dir: "/var/log/pods".into(),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 10250),
            server_tls: None,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            max_pods: 110,
            resolv_conf: "/etc/resolv.conf".into(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            log_max_bytes: 10 << 20,
            log_max_files: 5,
            image_gc: ImageGcConfig::default(),
            eviction: EvictionConfig::default(),
            static_pod_dir: None,
            pod_cidrs: Vec::new(),
            pod_network: None,
            cgroup_root: "/hull".into(),
            timings: Timings::default(),
        }
    }

    /// The directory of one pod's volumes and termination messages.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    /// The directory of one pod's container logs.
    pub fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.pod_log_dir.join(format!("{namespace}_{name}_{uid}"))
    }
}
