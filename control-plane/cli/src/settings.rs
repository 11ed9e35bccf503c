//! Every setting, once: as a flag, as a variable of the environment, and as a key of the settings
//! file. A flag wins over the environment, the environment over the file, the file over the
//! default. Unknown keys are refused.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use hull_apiserver::audit::AuditFile;
use hull_controllers::load_balancer::AddressRange;
use hull_netd::config::DEFAULT_SERVICE_NETWORK;
use hull_node::Threshold;
use ipnet::IpNet;
use serde::Deserialize;

use crate::cluster_network::{ClusterNetwork, networks};
use crate::name_servers;
use crate::store::StoreAddress;

/// netd's port for metrics and health; kube-proxy's.
const NETD_PORT: u16 = 10249;
/// Read when no --config is given, if it is there.
const DEFAULT_FILE: &str = "/etc/hull/hull.toml";

/// Settings as written; what is absent is decided by [`Settings::resolve`].
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the store, certificates, images and pod state live [default: /var/lib/hull]
    #[arg(long, env = "HULL_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where sockets live [default: /run/hull]
    #[arg(long, env = "HULL_RUN_DIR", value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// The administrator's kubeconfig: written by up and server, read by node
    /// [default: ~/.hull/kubeconfig]
    #[arg(long, env = "HULL_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Where the API server listens [default: 127.0.0.1:6443]
    #[arg(long, env = "HULL_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Further names and addresses in the API server's certificate (repeatable)
    #[arg(long, env = "HULL_TLS_SAN", value_name = "NAME", value_delimiter = ',')]
    pub tls_san: Vec<String>,
    /// Where the node agent serves logs and exec [default: 0.0.0.0:10250]
    #[arg(long, env = "HULL_NODE_LISTEN", value_name = "ADDRESS:PORT")]
    pub node_listen: Option<SocketAddr>,
    /// The node's name [default: the host name]
    #[arg(long, env = "HULL_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// The node's address [default: that of the default route, else 127.0.0.1]
    #[arg(long, env = "HULL_NODE_IP", value_name = "ADDRESS")]
    pub node_ip: Option<IpAddr>,
    /// Labels of the node, KEY=VALUE (repeatable)
    #[arg(
        long,
        env = "HULL_NODE_LABEL",
        value_name = "KEY=VALUE",
        value_delimiter = ','
    )]
    pub node_label: Vec<String>,
    /// Pods that the node takes at most [default: 110]
    #[arg(long, env = "HULL_MAX_PODS", value_name = "N")]
    pub max_pods: Option<u32>,
    /// A directory of pod manifests that the node runs by itself (static pods)
    #[arg(long, env = "HULL_STATIC_POD_DIR", value_name = "DIR")]
    pub static_pod_dir: Option<PathBuf>,
    /// Seconds between restarts of a crashing container at most, 1 to 300 [default: 300]
    #[arg(long, env = "HULL_MAX_RESTART_BACKOFF", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=300))]
    pub max_restart_backoff: Option<u64>,
    /// When the node evicts pods, SIGNAL<AMOUNT or SIGNAL<PERCENT%, with :SECONDS behind for a soft
    /// threshold (repeatable); none: never
    /// [default: kubelet's: memory.available<100Mi and shares of disks, inodes and process ids]
    #[arg(
        long,
        env = "HULL_EVICTION",
        value_name = "THRESHOLD",
        value_delimiter = ','
    )]
    pub eviction: Vec<String>,
    /// Where container logs are written [default: /var/log/pods]
    #[arg(long, env = "HULL_POD_LOG_DIR", value_name = "DIR")]
    pub pod_log_dir: Option<PathBuf>,
    /// node: the certificate, PEM, that the node agent serves logs and exec with
    #[arg(long, env = "HULL_NODE_CERT", value_name = "FILE")]
    pub node_cert: Option<PathBuf>,
    /// node: its private key, PEM
    #[arg(long, env = "HULL_NODE_KEY", value_name = "FILE")]
    pub node_key: Option<PathBuf>,
    /// node: the CA, PEM, of clients that may read logs and exec
    #[arg(long, env = "HULL_NODE_CLIENT_CA", value_name = "FILE")]
    pub node_client_ca: Option<PathBuf>,
    /// Another CRI runtime's socket, unix:///PATH; hull-shim is then not started
    #[arg(long, env = "HULL_CRI_ENDPOINT", value_name = "ENDPOINT")]
    pub cri_endpoint: Option<String>,
    /// The hull-shim program [default: beside this program, else in PATH]
    #[arg(long, env = "HULL_SHIM", value_name = "FILE")]
    pub shim: Option<PathBuf>,
    /// A settings file for hull-shim instead of the generated one
    #[arg(long, env = "HULL_SHIM_CONFIG", value_name = "FILE")]
    pub shim_config: Option<PathBuf>,
    /// The guest kernel, an uncompressed ELF
    #[arg(long, env = "HULL_GUEST_KERNEL", value_name = "FILE")]
    pub guest_kernel: Option<PathBuf>,
    /// The guest initramfs
    #[arg(long, env = "HULL_GUEST_INITRAMFS", value_name = "FILE")]
    pub guest_initramfs: Option<PathBuf>,
    /// Seconds that a guest may take until its agent answers [default: 15]
    #[arg(long, env = "HULL_GUEST_BOOT_TIMEOUT", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub guest_boot_timeout: Option<u64>,
    /// Where network configurations are; a default one is written into an empty directory
    /// [default: /etc/cni/net.d]
    #[arg(long, env = "HULL_CNI_CONF_DIR", value_name = "DIR")]
    pub cni_conf_dir: Option<PathBuf>,
    /// Where CNI plugins are (repeatable) [default: /opt/cni/bin, /usr/lib/cni]
    #[arg(
        long,
        env = "HULL_CNI_BIN_DIR",
        value_name = "DIR",
        value_delimiter = ','
    )]
    pub cni_bin_dir: Vec<PathBuf>,
    /// The cluster's networks for pods, one per IP version (repeatable); the same for all of its
    /// machines [default: 10.42.0.0/16]
    #[arg(
        long,
        env = "HULL_CLUSTER_CIDR",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub cluster_cidr: Vec<String>,
    /// up, server: give each node its share of the cluster's networks, true or false
    /// [default: true]
    #[arg(long, env = "HULL_ALLOCATE_NODE_CIDRS", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allocate_node_cidrs: Option<bool>,
    /// Prefix length of a node's share of the IPv4 network [default: 24]
    #[arg(long, env = "HULL_NODE_CIDR_MASK_SIZE", value_name = "LENGTH")]
    pub node_cidr_mask_size: Option<u8>,
    /// Prefix length of a node's share of the IPv6 network [default: 64]
    #[arg(long, env = "HULL_NODE_CIDR_MASK_SIZE_IPV6", value_name = "LENGTH")]
    pub node_cidr_mask_size_ipv6: Option<u8>,
    /// This node's networks for pods, one per IP version (repeatable), instead of those that the
    /// cluster gives it
    #[arg(
        long,
        env = "HULL_POD_CIDR",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub pod_cidr: Vec<String>,
    /// How pods of different nodes reach each other: auto, routes, vxlan or none [default: auto:
    /// routes where nodes share a link, VXLAN elsewhere, nothing with another CNI configuration]
    #[arg(long, env = "HULL_POD_NETWORK", value_name = "WAY")]
    pub pod_network: Option<String>,
    /// The Services' networks, one per IP version (repeatable) [default: 10.43.0.0/16]
    #[arg(
        long,
        env = "HULL_SERVICE_CIDR",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub service_cidr: Vec<String>,
    /// Where netd serves metrics and health; none: nowhere [default: 127.0.0.1:10249]
    #[arg(long, env = "HULL_NETD_LISTEN", value_name = "ADDRESS:PORT|none")]
    pub netd_listen: Option<String>,
    /// up: run the service network (services, network policy, DNS), true or false [default: true]
    #[arg(long, env = "HULL_NETD", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub netd: Option<bool>,
    /// DNS servers for names outside of the cluster (repeatable) [default: those of the node's
    /// resolv.conf]
    #[arg(
        long,
        env = "HULL_DNS_UPSTREAM",
        value_name = "ADDRESS[:PORT]",
        value_delimiter = ','
    )]
    pub dns_upstream: Vec<String>,
    /// DNS servers for the names below a domain (repeatable; several of one domain are asked in
    /// order)
    #[arg(
        long,
        env = "HULL_STUB_DOMAIN",
        value_name = "DOMAIN=ADDRESS[:PORT]",
        value_delimiter = ','
    )]
    pub stub_domain: Vec<String>,
    /// Pull images of a registry from elsewhere, REGISTRY=URL (repeatable); http:// means without
    /// TLS
    #[arg(
        long,
        env = "HULL_REGISTRY_MIRROR",
        value_name = "REGISTRY=URL",
        value_delimiter = ','
    )]
    pub registry_mirror: Vec<String>,
    /// The cluster's store: embedded, embedded:FILE, etcd://HOST:PORT,... or etcds://... (TLS)
    /// [default: embedded, a file in the data directory]
    #[arg(long, env = "HULL_STORE", value_name = "ADDRESS")]
    pub store: Option<String>,
    /// Who signed etcd's certificates, PEM
    #[arg(long, env = "HULL_STORE_CA", value_name = "FILE")]
    pub store_ca: Option<PathBuf>,
    /// Our certificate for etcd, PEM
    #[arg(long, env = "HULL_STORE_CERT", value_name = "FILE")]
    pub store_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, env = "HULL_STORE_KEY", value_name = "FILE")]
    pub store_key: Option<PathBuf>,
    /// What is encrypted at rest, and with which keys: an EncryptionConfiguration; read again when
    /// it changes
    #[arg(long, env = "HULL_ENCRYPTION_CONFIG", value_name = "FILE")]
    pub encryption_config: Option<PathBuf>,
    /// Issuers of JSON web tokens (OpenID Connect) that are believed, and what users their claims
    /// are: an AuthenticationConfiguration of apiserver.config.k8s.io/v1
    #[arg(long, env = "HULL_AUTHENTICATION_CONFIG", value_name = "FILE")]
    pub authentication_config: Option<PathBuf>,
    /// Seconds that an Event is kept after it was last written [default: 3600]
    #[arg(long, env = "HULL_EVENT_TTL", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub event_ttl: Option<u64>,
    /// Which requests are audited: a Policy of audit.k8s.io/v1; needs --audit-log or
    /// --audit-webhook-config
    #[arg(long, env = "HULL_AUDIT_POLICY", value_name = "FILE")]
    pub audit_policy: Option<PathBuf>,
    /// Where audit events are written, one a line
    #[arg(long, env = "HULL_AUDIT_LOG", value_name = "FILE")]
    pub audit_log: Option<PathBuf>,
    /// Where audit events are sent: a kubeconfig
    #[arg(long, env = "HULL_AUDIT_WEBHOOK_CONFIG", value_name = "FILE")]
    pub audit_webhook_config: Option<PathBuf>,
    /// Size in MiB at which the audit log is rotated [default: 100]
    #[arg(long, env = "HULL_AUDIT_LOG_MAX_SIZE", value_name = "MIB")]
    pub audit_log_max_size: Option<u64>,
    /// Older audit logs that are kept [default: 10]
    #[arg(long, env = "HULL_AUDIT_LOG_MAX_BACKUPS", value_name = "N")]
    pub audit_log_max_backups: Option<usize>,
    /// Addresses for services of type LoadBalancer: NETWORK/LENGTH, ADDRESS-ADDRESS or ADDRESS
    #[arg(
        long,
        env = "HULL_LOAD_BALANCER_POOL",
        value_name = "RANGE",
        value_delimiter = ','
    )]
    pub load_balancer_pool: Vec<String>,
    /// Of several control planes on one store only the leader schedules and controls, true or
    /// false [default: true with etcd, else false]
    #[arg(long, env = "HULL_LEADER_ELECT", value_name = "BOOL")]
    pub leader_elect: Option<bool>,
    /// Which log lines: error, warn, info, debug, trace, or tracing directives [default: info]
    #[arg(long, env = "HULL_LOG", value_name = "LEVEL")]
    pub log: Option<String>,
    /// How log lines look: text or json [default: text]
    #[arg(long, env = "HULL_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// What is audited, and where it goes.
#[derive(Debug, Clone)]
pub struct AuditSettings {
    /// The policy's file.
    pub policy: PathBuf,
    /// The log's file.
    pub log: Option<AuditFile>,
    /// The kubeconfig of the server that events are sent to.
    pub webhook_config: Option<PathBuf>,
}

/// Settings with every default filled in, and checked.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    pub kubeconfig: PathBuf,
    pub listen: SocketAddr,
    pub tls_san: Vec<String>,
    pub node_listen: SocketAddr,
    pub node_name: String,
    pub node_ip: IpAddr,
    pub node_labels: BTreeMap<String, String>,
    pub max_pods: u32,
    pub static_pod_dir: Option<PathBuf>,
    pub max_restart_backoff: Option<u64>,
    pub eviction: Option<Vec<Threshold>>,
    pub pod_log_dir: PathBuf,
    pub node_cert: Option<PathBuf>,
    pub node_key: Option<PathBuf>,
    pub node_client_ca: Option<PathBuf>,
    pub cri_endpoint: Option<String>,
    pub shim: Option<PathBuf>,
    pub shim_config: Option<PathBuf>,
    pub guest_kernel: Option<PathBuf>,
    pub guest_initramfs: Option<PathBuf>,
    pub guest_boot_timeout: Option<u64>,
    pub cni_conf_dir: PathBuf,
    pub cni_bin_dirs: Vec<PathBuf>,
    pub cluster_network: ClusterNetwork,
    pub service_networks: Vec<IpNet>,
    pub netd_listen: Option<SocketAddr>,
    pub netd: bool,
    pub dns_upstreams: Vec<SocketAddr>,
    pub stub_domains: Vec<(String, Vec<SocketAddr>)>,
    pub registry_mirrors: BTreeMap<String, Vec<String>>,
    pub store: StoreAddress,
    pub encryption_config: Option<PathBuf>,
    pub authentication_config: Option<PathBuf>,
    pub event_ttl: Option<u64>,
    pub audit: Option<AuditSettings>,
    pub leader_elect: bool,
    pub load_balancer_pool: Vec<AddressRange>,
    pub log: String,
    pub json_logs: bool,
}

impl Settings {
    /// Reads a settings file.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("settings file {}", path.display()))
    }

    /// Joins flags and environment (this), the file and the defaults.
    pub fn resolve(self, file: Option<&Path>) -> anyhow::Result<Resolved> {
        let from_file = match file {
            Some(path) => Settings::load(path)?,
            None if Path::new(DEFAULT_FILE).exists() => Settings::load(Path::new(DEFAULT_FILE))?,
            None => Settings::default(),
        };
        self.over(from_file).complete()
    }

    /// This, with `below` where nothing is said.
    fn over(self, below: Settings) -> Settings {
        macro_rules! joined {
            ($($option:ident),*; $($list:ident),*) => {
                Settings {
                    $($option: self.$option.or(below.$option),)*
                    $($list: if self.$list.is_empty() { below.$list } else { self.$list },)*
                }
            };
        }
        joined!(
            data_dir, run_dir, kubeconfig, store, store_ca, store_cert, store_key,
            encryption_config, authentication_config, event_ttl, audit_policy, audit_log, audit_webhook_config,
            audit_log_max_size, audit_log_max_backups,
            leader_elect, listen, node_listen, node_name, node_ip,
            max_pods, static_pod_dir, max_restart_backoff,
            pod_log_dir, node_cert, node_key, node_client_ca, cri_endpoint, shim, shim_config,
            guest_kernel, guest_initramfs, guest_boot_timeout, cni_conf_dir, pod_network, netd_listen,
            allocate_node_cidrs, node_cidr_mask_size, node_cidr_mask_size_ipv6,
            netd, log, log_format;
            tls_san, node_label, eviction, cni_bin_dir, cluster_cidr, pod_cidr, service_cidr,
            registry_mirror, dns_upstream, stub_domain, load_balancer_pool
        )
    }

    fn complete(self) -> anyhow::Result<Resolved> {
        let json_logs = match self.log_format.as_deref() {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => bail!("log_format {other:?} is neither text nor json"),
        };
        let mut node_labels = BTreeMap::new();
        for label in &self.node_label {
            let (key, value) = pair(label, "node_label", "KEY=VALUE")?;
            node_labels.insert(key, value);
        }
        let mut registry_mirrors: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for mirror in &self.registry_mirror {
            let (registry, url) = pair(mirror, "registry_mirror", "REGISTRY=URL")?;
            if !url.starts_with("http://") && !url.starts_with("https://") {
                bail!("registry_mirror {mirror:?}: the URL must begin with http:// or https://");
            }
            registry_mirrors.entry(registry).or_default().push(url);
        }
        if let Some(endpoint) = &self.cri_endpoint
            && !endpoint.starts_with("unix:///")
        {
            bail!("cri_endpoint {endpoint:?} is not of the form unix:///path");
        }
        if let Some(seconds) = self.max_restart_backoff
            && !(1..=300).contains(&seconds)
        {
            bail!("max_restart_backoff {seconds} is not 1 to 300 seconds");
        }
        for (key, seconds) in [
            ("guest_boot_timeout", self.guest_boot_timeout),
            ("event_ttl", self.event_ttl),
        ] {
            if seconds == Some(0) {
                bail!("{key} 0 is no time at all");
            }
        }
        let service_networks = service_networks(&self.service_cidr)?;
        let cluster_network = ClusterNetwork::of(&self)?;
        let netd_listen = match self.netd_listen.as_deref() {
            None => Some((Ipv4Addr::LOCALHOST, NETD_PORT).into()),
            Some("none") => None,
            Some(address) => Some(
                address
                    .parse()
                    .with_context(|| format!("netd_listen {address:?}"))?,
            ),
        };
        let absolute = |path: PathBuf| std::path::absolute(path).context("current directory");
        let (max_size, max_backups) = (self.audit_log_max_size, self.audit_log_max_backups);
        let log = match self.audit_log {
            Some(log) => Some(AuditFile {
                path: absolute(log)?,
                max_bytes: max_size.unwrap_or(100) << 20,
                max_backups: max_backups.unwrap_or(10),
            }),
            None => None,
        };
        let webhook_config = self.audit_webhook_config.map(absolute).transpose()?;
        let audit = match (self.audit_policy, log.is_some() || webhook_config.is_some()) {
            (Some(policy), true) => Some(AuditSettings {
                policy: absolute(policy)?,
                log,
                webhook_config,
            }),
            (None, false) => None,
            _ => bail!(
                "audit_policy is given together with audit_log or audit_webhook_config, or none of them"
            ),
        };
        let bin_dirs = if self.cni_bin_dir.is_empty() {
            vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()]
        } else {
            self.cni_bin_dir
        };
        let optional = |path: Option<PathBuf>| path.map(absolute).transpose();
        let data_dir = absolute(self.data_dir.unwrap_or_else(|| "/var/lib/hull".into()))?;
        let store = StoreAddress::parse(
            self.store.as_deref().unwrap_or("embedded"),
            [self.store_ca, self.store_cert, self.store_key],
            &data_dir,
        )?;
        Ok(Resolved {
            data_dir,
            run_dir: absolute(self.run_dir.unwrap_or_else(|| "/run/hull".into()))?,
            kubeconfig: absolute(self.kubeconfig.unwrap_or_else(default_kubeconfig))?,
            listen: self
                .listen
                .unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 6443).into()),
            tls_san: self.tls_san,
            node_listen: self
                .node_listen
                .unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 10250).into()),
            node_name: self.node_name.map_or_else(host_name, Ok)?,
            node_ip: self.node_ip.unwrap_or_else(default_address),
            node_labels,
            max_pods: self.max_pods.unwrap_or(110),
            static_pod_dir: optional(self.static_pod_dir)?,
            max_restart_backoff: self.max_restart_backoff,
            eviction: thresholds(&self.eviction)?,
            pod_log_dir: absolute(self.pod_log_dir.unwrap_or_else(|| "/var/log/pods".into()))?,
            node_cert: optional(self.node_cert)?,
            node_key: optional(self.node_key)?,
            node_client_ca: optional(self.node_client_ca)?,
            cri_endpoint: self.cri_endpoint,
            shim: optional(self.shim)?,
            shim_config: optional(self.shim_config)?,
            guest_kernel: optional(self.guest_kernel)?,
            guest_initramfs: optional(self.guest_initramfs)?,
            guest_boot_timeout: self.guest_boot_timeout,
            cni_conf_dir: absolute(self.cni_conf_dir.unwrap_or_else(|| "/etc/cni/net.d".into()))?,
            cni_bin_dirs: bin_dirs,
            cluster_network,
            service_networks,
            netd_listen,
            netd: self.netd.unwrap_or(true),
            dns_upstreams: name_servers::upstreams(&self.dns_upstream)?,
            stub_domains: name_servers::stub_domains(&self.stub_domain)?,
            registry_mirrors,
            leader_elect: self.leader_elect.unwrap_or(store.is_shared()),
            load_balancer_pool: address_ranges(&self.load_balancer_pool)?,
            store,
            audit,
            encryption_config: optional(self.encryption_config)?,
            authentication_config: optional(self.authentication_config)?,
            event_ttl: self.event_ttl,
            log: self.log.unwrap_or_else(|| "info".into()),
            json_logs,
        })
    }
}

impl Resolved {
    /// The CRI endpoint of the node agent.
    pub fn cri_endpoint(&self) -> String {
        match &self.cri_endpoint {
            Some(endpoint) => endpoint.clone(),
            None => format!("unix://{}", self.shim_socket().display()),
        }
    }

    /// hull-shim's socket.
    pub fn shim_socket(&self) -> PathBuf {
        self.run_dir.join("shim.sock")
    }
}

fn pair(text: &str, key: &str, form: &str) -> anyhow::Result<(String, String)> {
    match text.split_once('=') {
        Some((left, right)) if !left.is_empty() => Ok((left.into(), right.into())),
        _ => bail!("{key} {text:?} is not of the form {form}"),
    }
}

pub(crate) fn default_kubeconfig() -> PathBuf {
    std::env::home_dir()
        .unwrap_or_else(|| "/root".into())
        .join(".hull/kubeconfig")
}

/// The host's name as a Kubernetes name: lower case.
fn host_name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("host name")?;
    Ok(name.to_string_lossy().to_lowercase())
}

/// `None` leaves the node agent's defaults in force.
fn thresholds(texts: &[String]) -> anyhow::Result<Option<Vec<Threshold>>> {
    match texts {
        [] => return Ok(None),
        [only] if only == "none" => return Ok(Some(Vec::new())),
        _ => {}
    }
    let parsed: Result<Vec<_>, _> = texts.iter().map(|text| Threshold::parse(text)).collect();
    Ok(Some(parsed?))
}

/// At most one network per IP version, as Services have at most one address of each.
fn address_ranges(texts: &[String]) -> anyhow::Result<Vec<AddressRange>> {
    let parsed: Result<Vec<_>, _> = texts.iter().map(|text| text.parse()).collect();
    parsed.context("load_balancer_pool")
}

fn service_networks(texts: &[String]) -> anyhow::Result<Vec<IpNet>> {
    if texts.is_empty() {
        return Ok(vec![DEFAULT_SERVICE_NETWORK.parse()?]);
    }
    networks("service_cidr", texts)
}

/// The address that the default route would use. Connecting a datagram socket sends nothing.
fn default_address() -> IpAddr {
    let probe = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    probe().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file =
            parse("data_dir = '/file'\nlisten = '0.0.0.0:7000'\ncni_bin_dir = ['/a']").unwrap();
        let flags = Settings {
            data_dir: Some("/flag".into()),
            ..Default::default()
        };
        let resolved = flags.over(file).complete().unwrap();
        assert_eq!(resolved.data_dir, Path::new("/flag"));
        assert_eq!(resolved.listen.port(), 7000);
        assert_eq!(resolved.cni_bin_dirs, [Path::new("/a")]);
        assert_eq!(resolved.node_listen.port(), 10250);
        assert_eq!(resolved.cri_endpoint(), "unix:///run/hull/shim.sock");
    }

    #[test]
    fn every_key_is_documented() {
        let text = include_str!("../../../docs/cli.md");
        let rows = text.lines().filter(|line| line.starts_with("| `"));
        let keys: Vec<&str> = rows.filter_map(|row| row.split('|').nth(1)).collect();
        let command = Settings::augment_args(clap::Command::new("hull"));
        for argument in command.get_arguments() {
            let key = format!("`{}`", argument.get_id());
            assert!(keys.iter().any(|cell| cell.contains(&key)), "{key}");
        }
    }

    #[test]
    fn unknown_keys_and_bad_values_are_refused() {
        assert!(
            parse("data_dirr = '/x'")
                .unwrap_err()
                .to_string()
                .contains("data_dirr")
        );
        assert!(parse("listen = 'nowhere'").is_err());
        for (text, part) in [
            ("log_format = 'xml'", "xml"),
            ("node_label = ['novalue']", "KEY=VALUE"),
            ("registry_mirror = ['docker.io=127.0.0.1']", "http://"),
            ("cri_endpoint = '/run/x.sock'", "unix:///"),
            ("guest_boot_timeout = 0", "guest_boot_timeout"),
            ("event_ttl = 0", "event_ttl"),
            ("service_cidr = ['10.43.0.0']", "service_cidr"),
            (
                "service_cidr = ['10.43.0.0/16', '10.44.0.0/16']",
                "same IP version",
            ),
            ("pod_cidr = ['10.42.0.0']", "pod_cidr"),
            ("cluster_cidr = ['10.42.0.0/26']", "cluster_cidr"),
            ("pod_network = 'wireguard'", "none of auto"),
            ("netd_listen = 'off'", "netd_listen"),
            ("dns_upstream = ['dns.example']", "dns_upstream"),
            ("stub_domain = ['corp.example']", "DOMAIN=ADDRESS"),
            ("eviction = ['memory<1']", "no such signal"),
            ("max_restart_backoff = 0", "1 to 300"),
            ("audit_log = '/x'", "together"),
        ] {
            let error = format!("{:#}", parse(text).unwrap().complete().unwrap_err());
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn mirrors_collect_by_registry() {
        let settings =
            parse("registry_mirror = ['docker.io=http://a:1', 'docker.io=https://b']").unwrap();
        let mirrors = settings.complete().unwrap().registry_mirrors;
        assert_eq!(mirrors["docker.io"], ["http://a:1", "https://b"]);
    }
}
