//! The `/etc/hosts` of a pod's containers: itself, and its hostAliases.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::env::fields::PodFacts;

/// Where containers have it.
pub const CONTAINER_PATH: &str = "/etc/hosts";
/// The node's own, which pods of the node's network get.
const NODE_PATH: &str = "/etc/hosts";

const LOOPBACK: &str = "# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
";

/// The file of a pod on the node.
pub fn path(pod_dir: &Path) -> PathBuf {
    pod_dir.join("etc-hosts")
}

/// Whether a container gets the file: not when it mounts one itself.
pub fn wanted(container: &Container) -> bool {
    let mut mounts = container.volume_mounts.iter().flatten();
    !mounts.any(|mount| mount.mount_path.trim_end_matches('/') == CONTAINER_PATH)
}

/// Writes the file of a pod whose sandbox has its addresses.
pub fn write(pod_dir: &Path, facts: &PodFacts<'_>, cluster_domain: &str) -> std::io::Result<()> {
    let node = std::fs::read_to_string(NODE_PATH).unwrap_or_default();
    let text = content(facts, cluster_domain, &node);
    let path = path(pod_dir);
    // The guest has its own copy: an unchanged file is not copied again.
    if std::fs::read_to_string(&path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    std::fs::create_dir_all(pod_dir)?;
    std::fs::write(path, text)
}

fn content(facts: &PodFacts<'_>, cluster_domain: &str, node: &str) -> String {
    let spec = facts.pod.spec.clone().unwrap_or_default();
    let mut text = if spec.host_network.unwrap_or(false) {
        format!("# Kubernetes-managed hosts file (host network).\n{node}")
    } else {
        let mut text = LOOPBACK.to_owned();
        let names = names(facts, &spec, cluster_domain);
        for ip in &facts.pod_ips {
            let _ = writeln!(text, "{ip}\t{names}");
        }
        text
    };
    let aliases = spec.host_aliases.unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let names = alias.hostnames.unwrap_or_default().join("\t");
        let _ = writeln!(text, "{}\t{names}", alias.ip);
    }
    text
}

/// The host name, with the full one before it where the pod has a subdomain.
fn names(facts: &PodFacts<'_>, spec: &PodSpec, cluster_domain: &str) -> String {
    let hostname = &facts.hostname;
    match spec.subdomain.as_deref().filter(|name| !name.is_empty()) {
        Some(subdomain) => {
            let namespace = &facts.identity.namespace;
            format!("{hostname}.{subdomain}.{namespace}.svc.{cluster_domain}\t{hostname}")
        }
        None => hostname.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::fields::testing::facts;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    fn lines(spec: Value) -> Vec<String> {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": spec}),
        )
        .unwrap();
        let text = content(&facts(&pod), "cluster.local", "192.0.2.1\tnode\n");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn pod_is_named_with_its_subdomain_and_aliases_follow() {
        let lines = lines(json!({"containers": [], "subdomain": "sub",
            "hostAliases": [{"ip": "198.51.100.7", "hostnames": ["foo.remote", "bar.remote"]}]}));
        assert_eq!(
            lines[lines.len() - 4..],
            [
                "10.42.0.7\tp.sub.d.svc.cluster.local\tp",
                "",
                "# Entries added by HostAliases.",
                "198.51.100.7\tfoo.remote\tbar.remote"
            ]
        );
        assert_eq!(lines[1], "127.0.0.1\tlocalhost");
    }

    #[test]
    fn pod_of_the_nodes_network_gets_the_nodes_file() {
        let lines = lines(json!({"containers": [], "hostNetwork": true}));
        assert_eq!(
            lines,
            [
                "# Kubernetes-managed hosts file (host network).",
                "192.0.2.1\tnode"
            ]
        );
    }

    #[test]
    fn container_with_a_mount_of_its_own_keeps_it() {
        let own = json!({"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/etc/hosts"}]});
        assert!(!wanted(&serde_json::from_value(own).unwrap()));
        assert!(wanted(&Container::default()));
    }
}
