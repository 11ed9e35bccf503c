//! Kernel settings that services need.

use std::path::PathBuf;

/// Setting, value, why.
const SETTINGS: [(&str, &str, &str); 3] = [
    ("net/ipv4/ip_forward", "1", "pods and services are routed"),
    (
        "net/ipv6/conf/all/forwarding",
        "1",
        "pods and services are routed",
    ),
    // Frames between pods go through this node's routing, back out of the bridge they came from.
    (
        "net/ipv4/conf/all/send_redirects",
        "0",
        "pods must not go around the node",
    ),
];

/// Writes the settings. One that cannot be written is logged: IPv6 may be missing.
pub fn apply() {
    for (name, value, why) in SETTINGS {
        set(name, value, why);
    }
}

/// Writes one setting unless it has the value.
pub fn set(name: &str, value: &str, why: &str) {
    let path = PathBuf::from("/proc/sys").join(name);
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return;
    }
    match std::fs::write(&path, value) {
        Ok(()) => tracing::info!(setting = name, value, why, "kernel setting changed"),
        Err(error) => tracing::warn!(setting = name, value, why, %error, "kernel setting"),
    }
}
