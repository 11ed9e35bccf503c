//! The default pod network: a bridge with addresses from one range, written when the machine has
//! no CNI configuration.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use crate::files::write_atomically;
use crate::settings::Resolved;

/// The file that is written.
pub const FILE_NAME: &str = "10-hull.conflist";
/// The bridge that pods are joined to.
pub const BRIDGE: &str = "hull0";

/// A CNI configuration in the directory, the first by name.
pub fn existing(directory: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory)
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries
        .filter(|path| {
            path.extension()
                .is_some_and(|e| e == "conf" || e == "conflist" || e == "json")
        })
        .collect();
    found.sort();
    found.into_iter().next()
}

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

/// The configuration. Masquerading and host ports need iptables; without it pods reach the node
/// and each other.
fn conflist(cidr: &str, iptables: bool, portmap: bool) -> Value {
    let mut plugins = vec![json!({
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": true,
        "ipMasq": iptables,
        "hairpinMode": true,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": cidr}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    })];
    if iptables && portmap {
        plugins.push(json!({"type": "portmap", "capabilities": {"portMappings": true}}));
    }
    json!({"cniVersion": "1.0.0", "name": "hull", "plugins": plugins})
}

/// Writes the default configuration unless there is one.
pub fn write_default(settings: &Resolved) -> anyhow::Result<()> {
    let directory = &settings.cni_conf_dir;
    let path = directory.join(FILE_NAME);
    if let Some(existing) = existing(directory)
        && existing != path
    {
        tracing::info!(config = %existing.display(), "using the machine's CNI configuration");
        return Ok(());
    }
    std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let iptables = find_program("iptables").is_some();
    let portmap = find("portmap", &settings.cni_bin_dirs).is_some();
    let text = serde_json::to_string_pretty(&conflist(&settings.pod_cidr, iptables, portmap))?;
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    write_atomically(&path, &text, 0o644)?;
    tracing::info!(config = %path.display(), iptables, "default CNI configuration written");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ports_need_iptables() {
        let plugins = |iptables| {
            let list = conflist("10.42.0.0/24", iptables, true);
            list["plugins"].as_array().unwrap().len()
        };
        assert_eq!((plugins(true), plugins(false)), (2, 1));
        assert_eq!(
            conflist("10.42.0.0/24", false, true)["plugins"][0]["ipMasq"],
            false
        );
    }
}
