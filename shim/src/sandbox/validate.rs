//! What a sandbox's configuration must and must not say.

use crate::cni::PortMapping;
use crate::error::Error;
use hull_cri_api::v1::security_profile::ProfileType;
use hull_cri_api::v1::{
    LinuxContainerSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, Protocol,
};
use std::collections::HashMap;

/// Handlers that mean a microVM.
const MICROVM_HANDLERS: [&str; 2] = ["", "microvm"];
const NATIVE_HANDLER: &str = "native";

/// Checks the handler's name.
pub fn handler(name: &str) -> Result<(), Error> {
    match name {
        name if MICROVM_HANDLERS.contains(&name) => Ok(()),
        NATIVE_HANDLER => Err(Error::Unimplemented(
            "runtime handler \"native\" (pods in host namespaces)".to_string(),
        )),
        other => Err(Error::InvalidArgument(format!(
            "no runtime for {other:?} is configured: the handlers are \"microvm\" (or \"\") and \"native\""
        ))),
    }
}

/// The metadata, complete.
pub fn metadata(config: &PodSandboxConfig) -> Result<&PodSandboxMetadata, Error> {
    let metadata = config.metadata.as_ref().ok_or_else(|| {
        Error::InvalidArgument("sandbox config must include metadata".to_string())
    })?;
    for (field, value) in [
        ("name", &metadata.name),
        ("namespace", &metadata.namespace),
        ("uid", &metadata.uid),
    ] {
        if value.is_empty() {
            return Err(Error::InvalidArgument(format!(
                "sandbox metadata has no {field}"
            )));
        }
    }
    Ok(metadata)
}

/// The name under which the sandbox is reserved: one per attempt.
pub fn reserved_name(metadata: &PodSandboxMetadata) -> String {
    format!(
        "{}_{}_{}_{}",
        metadata.name, metadata.namespace, metadata.uid, metadata.attempt
    )
}

/// Refuses what a VM of its own cannot have.
pub fn namespaces(config: &PodSandboxConfig) -> Result<(), Error> {
    let security = config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref());
    let Some(options) = security.and_then(|security| security.namespace_options.as_ref()) else {
        return Ok(());
    };
    user_namespace(options)?;
    for (what, mode) in [
        ("network", options.network),
        ("PID", options.pid),
        ("IPC", options.ipc),
    ] {
        if mode == NamespaceMode::Node as i32 {
            return Err(Error::InvalidArgument(format!(
                "the host's {what} namespace was asked for, which a microVM cannot share: \
                 use a RuntimeClass with handler \"native\""
            )));
        }
    }
    Ok(())
}

/// Refuses user namespaces: the guest's own user ids are no one's on the host.
fn user_namespace(options: &NamespaceOption) -> Result<(), Error> {
    let Some(userns) = &options.userns_options else {
        return Ok(());
    };
    match NamespaceMode::try_from(userns.mode) {
        Ok(NamespaceMode::Node) => Ok(()),
        Ok(NamespaceMode::Pod) => {
            let mappings = [&userns.uids, &userns.gids];
            if mappings.iter().any(|mapping| mapping.len() != 1) {
                return Err(Error::InvalidArgument(
                    "a user namespace needs one uid and one gid mapping".to_string(),
                ));
            }
            if mappings.iter().any(|mapping| mapping[0].container_id != 0) {
                return Err(Error::InvalidArgument(
                    "the mapping of a user namespace must begin at container id 0".to_string(),
                ));
            }
            Err(Error::Unimplemented(
                "user namespaces in a microVM".to_string(),
            ))
        }
        mode => Err(Error::InvalidArgument(format!(
            "unsupported user namespace mode {mode:?}"
        ))),
    }
}

/// Refuses what the guest's kernel cannot enforce. SELinux options and AppArmor's
/// default profile mean what they mean on a node without these: nothing.
pub fn container_security(security: &LinuxContainerSecurityContext) -> Result<(), Error> {
    user_namespace(&security.namespace_options.clone().unwrap_or_default())?;
    let profile = security.apparmor.as_ref();
    #[allow(deprecated)]
    let by_name = security.apparmor_profile.starts_with("localhost/");
    if by_name || profile.is_some_and(|p| p.profile_type == ProfileType::Localhost as i32) {
        return Err(Error::InvalidArgument(
            "AppArmor profiles are not available in a microVM".to_string(),
        ));
    }
    Ok(())
}

/// Host ports, as CNI wants them.
pub fn port_mappings(config: &PodSandboxConfig) -> Result<Vec<PortMapping>, Error> {
    let mut mappings = Vec::new();
    for mapping in config
        .port_mappings
        .iter()
        .filter(|mapping| mapping.host_port != 0)
    {
        let port = |number: i32| {
            u16::try_from(number)
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| {
                    Error::InvalidArgument(format!("port {number} is not between 1 and 65535"))
                })
        };
        let protocol = match Protocol::try_from(mapping.protocol) {
            Ok(Protocol::Tcp) => "tcp",
            Ok(Protocol::Udp) => "udp",
            Ok(Protocol::Sctp) => "sctp",
            Err(_) => {
                return Err(Error::InvalidArgument(format!(
                    "unknown protocol number {}",
                    mapping.protocol
                )));
            }
        };
        mappings.push(PortMapping {
            host_port: port(mapping.host_port)?,
            container_port: port(mapping.container_port)?,
            protocol: protocol.to_string(),
            host_ip: mapping.host_ip.clone(),
        });
    }
    Ok(mappings)
}

/// Sandbox annotation: size of the pod's /dev/shm, bytes.
const SHM_ANNOTATION: &str = "hull.dev/shm-size";

/// Size of the pod's /dev/shm, bytes; 0: the agent's default.
pub fn shm_bytes(annotations: &HashMap<String, String>) -> Result<u64, Error> {
    let Some(text) = annotations.get(SHM_ANNOTATION) else {
        return Ok(0);
    };
    text.parse().map_err(|_| {
        Error::InvalidArgument(format!(
            "annotation {SHM_ANNOTATION}: {text:?} is no number of bytes"
        ))
    })
}

/// vCPUs and MiB of the VM: the base plus what the pod's limits say.
pub fn size(config: &PodSandboxConfig, base_vcpus: u8, base_memory_mib: u64) -> (u8, u64) {
    /// Most vCPUs of a VM.
    const MAX_VCPUS: i64 = 254;
    const MIB: i64 = 1 << 20;
    let linux = config.linux.as_ref();
    let resources = linux.and_then(|linux| linux.resources.as_ref());
    let Some(resources) = resources else {
        return (base_vcpus, base_memory_mib);
    };
    let cpus = if resources.cpu_quota > 0 && resources.cpu_period > 0 {
        // Rounded up: a limit of 1.5 needs two vCPUs.
        resources.cpu_quota.saturating_add(resources.cpu_period - 1) / resources.cpu_period
    } else {
        0
    };
    let vcpus = cpus.clamp(i64::from(base_vcpus), MAX_VCPUS) as u8;
    let memory = resources
        .memory_limit_in_bytes
        .max(0)
        .saturating_add(MIB - 1)
        / MIB;
    (vcpus, base_memory_mib.saturating_add(memory as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_cri_api::v1::{
        LinuxContainerResources, LinuxPodSandboxConfig, PortMapping as CriPort,
    };

    #[test]
    fn only_microvm_handlers_are_served() {
        assert!(handler("").is_ok() && handler("microvm").is_ok());
        assert!(matches!(handler("native"), Err(Error::Unimplemented(_))));
        assert!(matches!(handler("runc"), Err(Error::InvalidArgument(_))));
    }

    #[test]
    fn user_namespaces_are_refused_and_their_nonsense_named() {
        use hull_cri_api::v1::{IdMapping, UserNamespace};
        let refused = |mode: NamespaceMode, container_ids: &[u32]| {
            let mapping: Vec<IdMapping> = container_ids
                .iter()
                .map(|id| IdMapping {
                    host_id: 100_000,
                    container_id: *id,
                    length: 65536,
                })
                .collect();
            let options = NamespaceOption {
                userns_options: Some(UserNamespace {
                    mode: mode as i32,
                    uids: mapping.clone(),
                    gids: mapping,
                }),
                ..Default::default()
            };
            user_namespace(&options).map_err(|error| error.to_string())
        };
        assert!(refused(NamespaceMode::Node, &[]).is_ok());
        assert!(
            refused(NamespaceMode::Pod, &[0])
                .unwrap_err()
                .starts_with("unimplemented")
        );
        assert!(
            refused(NamespaceMode::Pod, &[0, 1])
                .unwrap_err()
                .contains("one uid")
        );
        assert!(
            refused(NamespaceMode::Pod, &[1])
                .unwrap_err()
                .contains("id 0")
        );
        for mode in [NamespaceMode::Container, NamespaceMode::Target] {
            assert!(refused(mode, &[0]).unwrap_err().contains("unsupported"));
        }
    }

    #[test]
    fn limits_size_the_machine() {
        let resources = LinuxContainerResources {
            cpu_quota: 150_000,
            cpu_period: 100_000,
            memory_limit_in_bytes: (100 << 20) + 1,
            ..Default::default()
        };
        let linux = LinuxPodSandboxConfig {
            resources: Some(resources),
            ..Default::default()
        };
        let config = PodSandboxConfig {
            linux: Some(linux),
            ..Default::default()
        };
        assert_eq!(size(&config, 1, 256), (2, 256 + 101));
        assert_eq!(size(&PodSandboxConfig::default(), 1, 256), (1, 256));
    }

    #[test]
    fn host_ports_out_of_range_are_refused() {
        let config = PodSandboxConfig {
            port_mappings: vec![CriPort {
                host_port: 70000,
                container_port: 80,
                ..Default::default()
            }],
            ..Default::default()
        };
        assert!(port_mappings(&config).is_err());
    }
}
