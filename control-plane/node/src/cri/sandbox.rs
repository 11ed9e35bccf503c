//! A Pod as CRI's PodSandboxConfig.

use std::collections::HashMap;

use hull_cri_api::v1 as cri;
use k8s_openapi::api::core::v1::{Pod, PodSpec, SecurityContext};

use super::labels;
use crate::config::NodeConfig;
use crate::pod::identity::PodIdentity;
use crate::pod::qos;
use crate::quantity;

/// Search domains and servers that pods may have at most (kubelet's limits).
const MAX_DNS_SERVERS: usize = 3;
const MAX_DNS_SEARCHES: usize = 32;
/// A name with fewer dots is tried below the search domains first: `_port._proto.svc.ns.svc` has 4.
const CLUSTER_NDOTS: &str = "ndots:5";
/// The longest name Linux takes as a host name.
const MAX_HOSTNAME: usize = 63;

/// The sandbox configuration of a pod's `attempt`-th sandbox.
pub fn sandbox_config(
    config: &NodeConfig,
    identity: &PodIdentity,
    pod: &Pod,
    attempt: u32,
) -> cri::PodSandboxConfig {
    let spec = pod.spec.clone().unwrap_or_default();
    let mut labels_map: HashMap<String, String> = pod
        .metadata
        .labels
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect();
    labels_map.insert(labels::POD_NAME.into(), identity.name.clone());
    labels_map.insert(labels::POD_NAMESPACE.into(), identity.namespace.clone());
    labels_map.insert(labels::POD_UID.into(), identity.uid.clone());
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: identity.name.clone(),
            uid: identity.uid.clone(),
            namespace: identity.namespace.clone(),
            attempt,
        }),
        hostname: if spec.host_network.unwrap_or(false) {
            String::new()
        } else {
            hostname(&identity.name, &spec)
        },
        log_directory: config
            .pod_log_dir(&identity.namespace, &identity.name, &identity.uid)
            .to_string_lossy()
            .into_owned(),
        dns_config: Some(dns_config(config, &identity.namespace, &spec)),
        port_mappings: port_mappings(&spec),
        labels: labels_map,
        annotations: annotations(pod, &spec),
        linux: Some(linux(config, identity, pod, &spec)),
        windows: None,
    }
}

/// The host name a pod's processes see: `spec.hostname`, else the pod's name cut to 63.
pub fn hostname(pod_name: &str, spec: &PodSpec) -> String {
    let wanted = spec
        .hostname_override
        .as_deref()
        .or(spec.hostname.as_deref());
    let name = wanted.filter(|name| !name.is_empty()).unwrap_or(pod_name);
    name.chars()
        .take(MAX_HOSTNAME)
        .collect::<String>()
        .trim_end_matches(['-', '.'])
        .to_owned()
}

fn annotations(pod: &Pod, spec: &PodSpec) -> HashMap<String, String> {
    let mut annotations: HashMap<String, String> = pod
        .metadata
        .annotations
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect();
    let grace = match spec.termination_grace_period_seconds.unwrap_or(30) {
        ..0 => 1,
        seconds => seconds,
    };
    annotations.insert(labels::GRACE_PERIOD.into(), grace.to_string());
    for volume in spec.volumes.iter().flatten() {
        let Some(empty_dir) = &volume.empty_dir else {
            continue;
        };
        if empty_dir.medium.as_deref() == Some("Memory") {
            annotations.insert(
                format!("{}{}", labels::EMPTY_DIR_MEDIUM_PREFIX, volume.name),
                "Memory".into(),
            );
        }
        if let Some(bytes) = empty_dir.size_limit.as_ref().and_then(quantity::value) {
            annotations.insert(
                format!("{}{}", labels::EMPTY_DIR_SIZE_LIMIT_PREFIX, volume.name),
                bytes.to_string(),
            );
        }
    }
    annotations
}

fn port_mappings(spec: &PodSpec) -> Vec<cri::PortMapping> {
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .map(|port| cri::PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => cri::Protocol::Udp,
                Some("SCTP") => cri::Protocol::Sctp,
                _ => cri::Protocol::Tcp,
            } as i32,
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

fn linux(
    config: &NodeConfig,
    identity: &PodIdentity,
    pod: &Pod,
    spec: &PodSpec,
) -> cri::LinuxPodSandboxConfig {
    let security = spec.security_context.clone().unwrap_or_default();
    let sysctls = security
        .sysctls
        .iter()
        .flatten()
        .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
        .collect();
    let requests = qos::pod_resources(pod);
    cri::LinuxPodSandboxConfig {
        cgroup_parent: format!(
            "{}/pod{}",
            config.cgroup_root.trim_end_matches('/'),
            identity.uid
        ),
        security_context: Some(cri::LinuxSandboxSecurityContext {
            namespace_options: Some(namespace_options(spec)),
            run_as_user: security.run_as_user.map(|value| cri::Int64Value { value }),
            run_as_group: security.run_as_group.map(|value| cri::Int64Value { value }),
            supplemental_groups: supplemental_groups(spec),
            privileged: any_privileged(spec),
            ..Default::default()
        }),
        sysctls,
        overhead: Some(overhead(spec)),
        resources: Some(requests),
    }
}

/// Groups that every process of the pod gets: supplementalGroups and fsGroup.
pub fn supplemental_groups(spec: &PodSpec) -> Vec<i64> {
    let Some(security) = &spec.security_context else {
        return Vec::new();
    };
    let mut groups = security.supplemental_groups.clone().unwrap_or_default();
    groups.extend(security.fs_group);
    groups
}

/// The namespaces a pod asks to share with the node or between its containers.
pub fn namespace_options(spec: &PodSpec) -> cri::NamespaceOption {
    let node = |wanted: Option<bool>| {
        if wanted.unwrap_or(false) {
            cri::NamespaceMode::Node
        } else {
            cri::NamespaceMode::Pod
        }
    };
    let pid = if spec.host_pid.unwrap_or(false) {
        cri::NamespaceMode::Node
    } else if spec.share_process_namespace.unwrap_or(false) {
        cri::NamespaceMode::Pod
    } else {
        cri::NamespaceMode::Container
    };
    cri::NamespaceOption {
        network: node(spec.host_network) as i32,
        pid: pid as i32,
        ipc: node(spec.host_ipc) as i32,
        target_id: String::new(),
        userns_options: None,
    }
}

fn any_privileged(spec: &PodSpec) -> bool {
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    containers
        .filter_map(|container| container.security_context.as_ref())
        .any(|security: &SecurityContext| security.privileged.unwrap_or(false))
}

fn overhead(spec: &PodSpec) -> cri::LinuxContainerResources {
    let find = |name: &str| {
        spec.overhead
            .as_ref()
            .and_then(|overhead| overhead.get(name))
    };
    qos::linux_resources(find("cpu"), find("cpu"), find("memory"))
}

/// The pod's resolver configuration by its dnsPolicy. Where the cluster has no DNS service,
/// `ClusterFirst` resolves as `Default` does: by the node's own resolv.conf.
fn dns_config(config: &NodeConfig, namespace: &str, spec: &PodSpec) -> cri::DnsConfig {
    let of_node = || {
        std::fs::read_to_string(&config.resolv_conf)
            .map(|text| parse_resolv_conf(&text))
            .unwrap_or_default()
    };
    let cluster_first = match spec.dns_policy.as_deref() {
        Some("ClusterFirstWithHostNet") => true,
        None | Some("ClusterFirst") => spec.host_network != Some(true),
        Some(_) => false,
    };
    let mut dns = match spec.dns_policy.as_deref() {
        Some("None") => cri::DnsConfig::default(),
        _ if cluster_first && !config.cluster_dns.is_empty() => {
            let domain = &config.cluster_domain;
            let mut searches = vec![
                format!("{namespace}.svc.{domain}"),
                format!("svc.{domain}"),
                domain.clone(),
            ];
            searches.extend(of_node().searches);
            cri::DnsConfig {
                servers: config.cluster_dns.iter().map(ToString::to_string).collect(),
                searches,
                options: vec![CLUSTER_NDOTS.to_owned()],
            }
        }
        _ => of_node(),
    };
    if let Some(extra) = &spec.dns_config {
        dns.servers
            .extend(extra.nameservers.clone().unwrap_or_default());
        dns.searches
            .extend(extra.searches.clone().unwrap_or_default());
        for option in extra.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            dns.options
                .retain(|existing| existing.split(':').next() != Some(name));
            dns.options.push(match &option.value {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.clone(),
            });
        }
    }
    dns.servers.truncate(MAX_DNS_SERVERS);
    dns.searches.truncate(MAX_DNS_SEARCHES);
    dns
}

/// resolv.conf(5); nameservers on the node's loopback are left out, since a pod cannot reach them.
fn parse_resolv_conf(text: &str) -> cri::DnsConfig {
    let mut dns = cri::DnsConfig::default();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(
                words
                    .next()
                    .filter(|server| !server.starts_with("127.") && *server != "::1")
                    .map(str::to_owned),
            ),
            Some("search") => dns.searches = words.map(str::to_owned).collect(),
            Some("options") => dns.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_without_loopback_servers() {
        let dns = parse_resolv_conf(
            "# a\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch a.example b.example\noptions ndots:2 edns0\n",
        );
        assert_eq!(dns.servers, ["10.0.0.2"]);
        assert_eq!(dns.searches, ["a.example", "b.example"]);
        assert_eq!(dns.options, ["ndots:2", "edns0"]);
    }

    #[test]
    fn cluster_first_asks_the_cluster_and_searches_its_domains() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "nameserver 192.0.2.1\nsearch corp\noptions edns0\n",
        )
        .unwrap();
        let mut config = NodeConfig::new("n", "192.0.2.7".parse().unwrap());
        config.resolv_conf = file.path().to_owned();
        let dns = |config: &NodeConfig, policy: &str, host_network: bool| {
            let spec = PodSpec {
                dns_policy: Some(policy.into()),
                host_network: Some(host_network),
                ..Default::default()
            };
            dns_config(config, "shop", &spec)
        };
        assert_eq!(
            dns(&config, "ClusterFirst", false).servers,
            ["192.0.2.1"],
            "no cluster DNS"
        );
        config.cluster_dns = vec!["10.43.0.10".parse().unwrap()];
        for (policy, host_network) in [("ClusterFirst", false), ("ClusterFirstWithHostNet", true)] {
            let found = dns(&config, policy, host_network);
            assert_eq!(found.servers, ["10.43.0.10"]);
            let searches = [
                "shop.svc.cluster.local",
                "svc.cluster.local",
                "cluster.local",
                "corp",
            ];
            assert_eq!(found.searches, searches);
            assert_eq!(found.options, ["ndots:5"]);
        }
        for (policy, host_network) in [("ClusterFirst", true), ("Default", false)] {
            assert_eq!(
                dns(&config, policy, host_network).servers,
                ["192.0.2.1"],
                "{policy}"
            );
        }
        assert_eq!(dns(&config, "None", false), cri::DnsConfig::default());
    }

    #[test]
    fn hostname_is_cut_to_what_linux_takes() {
        let long = format!("{}-x", "a".repeat(62));
        assert_eq!(hostname(&long, &PodSpec::default()), "a".repeat(62));
        let spec = PodSpec {
            hostname: Some("web".into()),
            ..Default::default()
        };
        assert_eq!(hostname("pod", &spec), "web");
    }

    #[test]
    fn memory_empty_dir_is_marked_on_the_sandbox() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {"containers": [], "volumes": [
                {"name": "fast", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "disk", "emptyDir": {}}]}
        }))
        .unwrap();
        let config = NodeConfig::new("n", "127.0.0.1".parse().unwrap());
        let identity = PodIdentity::of(&pod).unwrap();
        let sandbox = sandbox_config(&config, &identity, &pod, 0);
        assert_eq!(
            sandbox.annotations["hull.dev/empty-dir-medium.fast"],
            "Memory"
        );
        assert_eq!(
            sandbox.annotations["hull.dev/empty-dir-size-limit.fast"],
            "1048576"
        );
        assert!(
            !sandbox
                .annotations
                .contains_key("hull.dev/empty-dir-medium.disk")
        );
    }
}
