//! Where a probe or hook of a container connects to.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Host and port: the host named, else the pod's address; a named port is the container's.
pub(crate) fn of(
    host: Option<&str>,
    port: &IntOrString,
    pod_ip: Option<IpAddr>,
    container: &Container,
) -> Result<(String, u16), String> {
    let host = match host.filter(|host| !host.is_empty()) {
        Some(host) => host.to_owned(),
        None => pod_ip.ok_or("the pod has no address")?.to_string(),
    };
    Ok((host, port_number(port, container)?))
}

fn port_number(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container
                .ports
                .iter()
                .flatten()
                .find(|p| p.name.as_ref() == Some(name));
            match named {
                Some(port) => port.container_port,
                None => name
                    .parse()
                    .map_err(|_| format!("couldn't find port: {name}"))?,
            }
        }
    };
    u16::try_from(number).map_err(|_| format!("invalid port {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_by_name() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "c", "ports": [{"name": "web", "containerPort": 80}]}))
        .unwrap();
        assert_eq!(
            port_number(&IntOrString::String("web".into()), &container),
            Ok(80)
        );
        assert_eq!(
            port_number(&IntOrString::String("81".into()), &container),
            Ok(81)
        );
        assert!(port_number(&IntOrString::String("no".into()), &container).is_err());
        assert!(port_number(&IntOrString::Int(70000), &container).is_err());
    }
}
