//! Ports of a pod's containers that are the same, or nearly.

use serde_json::Value;

use super::Warnings;
use crate::{ObjectExt, field::Path};

struct Port<'a> {
    path: Path,
    number: i64,
    protocol: &'a str,
    host_ip: &'a str,
    host_port: i64,
}

impl Port<'_> {
    /// What one of two ports of the same number and protocol is to the other.
    fn overlap(&self, other: &Port<'_>) -> Option<&'static str> {
        let same_port = self.host_port == other.host_port;
        if same_port && self.host_ip == other.host_ip {
            Some("duplicate")
        } else if self.host_port == 0 || other.host_port == 0 {
            Some("overlapping")
        } else if same_port && self.host_ip.is_empty() != other.host_ip.is_empty() {
            Some("dangerously ambiguous")
        } else {
            None
        }
    }
}

/// `containers` with their paths.
pub(super) fn of_containers(containers: &[(Path, &Value)], out: &mut Warnings) {
    let mut before: Vec<Port<'_>> = Vec::new();
    for (path, container) in containers {
        for (index, given) in container.list_at("/ports").iter().enumerate() {
            let port = Port {
                path: path.child("ports").index(index),
                number: given.int_at("/containerPort").unwrap_or(0),
                protocol: given.str_at("/protocol"),
                host_ip: given.str_at("/hostIP"),
                host_port: given.int_at("/hostPort").unwrap_or(0),
            };
            if !port.host_ip.is_empty() && port.host_port == 0 {
                let (name, number, protocol) = (given.str_at("/name"), port.number, port.protocol);
                let shown = format!(
                    "{{Name:{name} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{}}}",
                    port.host_ip
                );
                out.at(&port.path, format!("hostIP set without hostPort: {shown}"));
            }
            let same =
                |other: &&Port<'_>| (other.number, other.protocol) == (port.number, port.protocol);
            for other in before.iter().filter(same) {
                if let Some(how) = port.overlap(other) {
                    out.at(
                        &port.path,
                        format!("{how} port definition with {}", other.path),
                    );
                }
            }
            before.push(port);
        }
    }
}
