//! The bridge that pods are joined to, made fit for steering.

use std::path::Path;

use rtnetlink::LinkUnspec;

use super::attachment::{InterfaceName, Mac};
use crate::service_link::LinkError;
use crate::sysctl;

/// `addr_assign_type` of a MAC that somebody chose (linux/netdevice.h, NET_ADDR_SET).
const CHOSEN: &str = "3";

/// Lets a port get back what its own pod sent. With br_netfilter the kernel bridges a translated
/// frame instead of routing it, and a pod that calls itself through a Service is such a case.
pub fn allow_hairpin(port: &InterfaceName) {
    let path = Path::new("/sys/class/net").join(port.as_str());
    let path = path.join("brport/hairpin_mode");
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == "1") {
        return;
    }
    // A port that is gone is met by the next record.
    if let Err(error) = std::fs::write(&path, "1") {
        tracing::debug!(port = port.as_str(), %error, "hairpin mode");
    }
}

/// The bridge's own MAC; `None` when there is no such bridge. A MAC that follows the ports' (the
/// kernel takes the smallest) is pinned to what it is now: pods know it as their gateway's.
///
/// # Errors
/// [`LinkError`] when the kernel refuses to pin it.
pub async fn prepare(bridge: &InterfaceName) -> Result<Option<Mac>, LinkError> {
    let name = bridge.as_str();
    let directory = Path::new("/sys/class/net").join(name);
    if !directory.join("bridge").exists() {
        return Ok(None);
    }
    let read = |file: &str| std::fs::read_to_string(directory.join(file)).unwrap_or_default();
    let Some(mac) = Mac::parse(&read("address")) else {
        return Ok(None);
    };
    // Steered frames leave by the interface they came in by; that is meant.
    sysctl::set(
        &format!("net/ipv4/conf/{}/send_redirects", name.replace('.', "/")),
        "0",
        "pods must not go around the node",
    );
    if read("addr_assign_type").trim() != CHOSEN {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Socket)?;
        let connection = tokio::spawn(connection);
        let link = LinkUnspec::new_with_name(name)
            .address(mac.0.to_vec())
            .build();
        let set = handle.link().set(link).execute().await;
        connection.abort();
        set.map_err(|source| LinkError::Netlink {
            action: format!("pin the MAC of {name}"),
            source,
        })?;
        tracing::info!(bridge = name, %mac, "bridge's MAC pinned");
    }
    Ok(Some(mac))
}
