//! A Container as CRI's ContainerConfig.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use hull_cri_api::v1 as cri;
use k8s_openapi::api::core::v1::{Container, PodSpec, VolumeMount};

use super::{labels, sandbox};
use crate::env::expand::expand;
use crate::env::fields::PodFacts;
use crate::env::{ConfigError, environment};
use crate::objects::ObjectSnapshot;
use crate::pod::qos;
use crate::volumes;

/// Where a container writes its termination message unless it says otherwise.
pub const DEFAULT_TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

/// Paths that a container without `procMount: Unmasked` cannot see.
const MASKED_PATHS: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// Paths that such a container cannot write.
const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What a container's configuration is made from.
pub struct ContainerInput<'a> {
    /// The pod and what is known of it.
    pub facts: &'a PodFacts<'a>,
    /// The container.
    pub container: &'a Container,
    /// How often it was restarted.
    pub attempt: u32,
    /// The image reference that the pull resolved.
    pub image_ref: &'a str,
    /// The pod's directory on the node.
    pub pod_dir: &'a Path,
    /// The file that takes the termination message.
    pub termination_message_file: &'a Path,
    /// ConfigMaps and Secrets.
    pub objects: &'a ObjectSnapshot,
    /// Service environment variables.
    pub services: &'a [(String, String)],
}

/// Builds the configuration.
pub fn container_config(input: &ContainerInput<'_>) -> Result<cri::ContainerConfig, ConfigError> {
    let container = input.container;
    let spec = input.facts.pod.spec.clone().unwrap_or_default();
    let env = environment(container, input.facts, input.objects, input.services)?;
    let lookup = |name: &str| {
        env.iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    };
    let words = |words: &Option<Vec<String>>| -> Vec<String> {
        words
            .iter()
            .flatten()
            .map(|word| expand(word, lookup))
            .collect()
    };
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: container.name.clone(),
            attempt: input.attempt,
        }),
        image: Some(cri::ImageSpec {
            image: input.image_ref.into(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: words(&container.command),
        args: words(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts: mounts(input, &spec, lookup)?,
        labels: labels_of(input),
        annotations: annotations(input),
        log_path: log_path(&container.name, input.attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(qos::container_resources(container)),
            security_context: Some(security(container, &spec)?),
        }),
        envs: env
            .into_iter()
            .map(|(key, value)| cri::KeyValue { key, value })
            .collect(),
        ..Default::default()
    })
}

/// The log's path below the sandbox's log directory.
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

fn labels_of(input: &ContainerInput<'_>) -> HashMap<String, String> {
    let identity = &input.facts.identity;
    HashMap::from([
        (labels::POD_NAME.to_owned(), identity.name.clone()),
        (labels::POD_NAMESPACE.to_owned(), identity.namespace.clone()),
        (labels::POD_UID.to_owned(), identity.uid.clone()),
        (
            labels::CONTAINER_NAME.to_owned(),
            input.container.name.clone(),
        ),
    ])
}

fn annotations(input: &ContainerInput<'_>) -> HashMap<String, String> {
    let container = input.container;
    HashMap::from([
        (labels::RESTART_COUNT.to_owned(), input.attempt.to_string()),
        (
            labels::TERMINATION_MESSAGE_PATH.to_owned(),
            termination_message_path(container),
        ),
        (
            labels::TERMINATION_MESSAGE_POLICY.to_owned(),
            container
                .termination_message_policy
                .clone()
                .unwrap_or_else(|| "File".into()),
        ),
    ])
}

fn termination_message_path(container: &Container) -> String {
    container
        .termination_message_path
        .clone()
        .filter(|path| !path.is_empty())
        .unwrap_or_else(|| DEFAULT_TERMINATION_MESSAGE_PATH.into())
}

fn mounts(
    input: &ContainerInput<'_>,
    spec: &PodSpec,
    lookup: impl Fn(&str) -> Option<String> + Copy,
) -> Result<Vec<cri::Mount>, ConfigError> {
    let mut mounts = Vec::new();
    for mount in input.container.volume_mounts.iter().flatten() {
        let volume = spec
            .volumes
            .iter()
            .flatten()
            .find(|volume| volume.name == mount.name)
            .ok_or_else(|| {
                ConfigError::Invalid(format!(
                    "cannot find volume \"{}\" to mount into container \"{}\"",
                    mount.name, input.container.name
                ))
            })?;
        let directory = volumes::path(input.pod_dir, volume)
            .ok_or_else(|| ConfigError::Unimplemented(format!("type of volume {}", volume.name)))?;
        // Files that the API server owns are never written by a container.
        let readonly = mount.read_only.unwrap_or(false) || volume.empty_dir.is_none();
        mounts.push(cri::Mount {
            container_path: absolute(&mount.mount_path),
            host_path: sub_path(directory, mount, lookup)?
                .to_string_lossy()
                .into_owned(),
            readonly,
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
                Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
                _ => cri::MountPropagation::PropagationPrivate,
            } as i32,
            ..Default::default()
        });
    }
    mounts.push(cri::Mount {
        container_path: termination_message_path(input.container),
        host_path: input
            .termination_message_file
            .to_string_lossy()
            .into_owned(),
        ..Default::default()
    });
    Ok(mounts)
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

fn sub_path(
    directory: PathBuf,
    mount: &VolumeMount,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<PathBuf, ConfigError> {
    let expanded = mount
        .sub_path_expr
        .as_deref()
        .map(|text| expand(text, lookup));
    let sub_path = expanded
        .or_else(|| mount.sub_path.clone())
        .unwrap_or_default();
    if sub_path.is_empty() {
        return Ok(directory);
    }
    let inside = Path::new(&sub_path)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside {
        return Err(ConfigError::Invalid(format!(
            "subPath {sub_path:?} of volume mount {:?} must be relative and without '..'",
            mount.name
        )));
    }
    Ok(directory.join(sub_path))
}

fn security(
    container: &Container,
    spec: &PodSpec,
) -> Result<cri::LinuxContainerSecurityContext, ConfigError> {
    let own = container.security_context.clone().unwrap_or_default();
    let pod = spec.security_context.clone().unwrap_or_default();
    let privileged = own.privileged.unwrap_or(false);
    let user = own.run_as_user.or(pod.run_as_user);
    if own.run_as_non_root.or(pod.run_as_non_root).unwrap_or(false) && user == Some(0) {
        return Err(ConfigError::Invalid(
            "container's runAsUser breaks non-root policy".into(),
        ));
    }
    let capabilities = own.capabilities.unwrap_or_default();
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |paths: &[&str]| -> Vec<String> {
        if unmasked {
            Vec::new()
        } else {
            paths.iter().map(|path| (*path).to_owned()).collect()
        }
    };
    let seccomp = own
        .seccomp_profile
        .or(pod.seccomp_profile)
        .map(|profile| cri::SecurityProfile {
            profile_type: match profile.type_.as_str() {
                "RuntimeDefault" => cri::security_profile::ProfileType::RuntimeDefault,
                "Localhost" => cri::security_profile::ProfileType::Localhost,
                _ => cri::security_profile::ProfileType::Unconfined,
            } as i32,
            localhost_ref: profile.localhost_profile.unwrap_or_default(),
        });
    Ok(cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: capabilities.add.unwrap_or_default(),
            drop_capabilities: capabilities.drop.unwrap_or_default(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged,
        namespace_options: Some(sandbox::namespace_options(spec)),
        run_as_user: user.map(|value| cri::Int64Value { value }),
        run_as_group: own
            .run_as_group
            .or(pod.run_as_group)
            .map(|value| cri::Int64Value { value }),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: sandbox::supplemental_groups(spec),
        no_new_privs: !own.allow_privilege_escalation.unwrap_or(true),
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        seccomp,
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::fields::testing::facts;
    use crate::objects::ObjectKind;
    use crate::objects::testing::snapshot;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    fn build(container: serde_json::Value) -> Result<cri::ContainerConfig, ConfigError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {"containers": [container], "volumes": [
                {"name": "cm", "configMap": {"name": "c"}}, {"name": "tmp", "emptyDir": {}},
                {"name": "remote", "nfs": {"server": "s", "path": "/"}}]}
        }))
        .unwrap();
        let facts = facts(&pod);
        let objects = snapshot(&[(ObjectKind::ConfigMap, "c", &[("a", "1")])]);
        container_config(&ContainerInput {
            facts: &facts,
            container: &pod.spec.as_ref().unwrap().containers[0],
            attempt: 2,
            image_ref: "sha256:abc",
            pod_dir: Path::new("/r/pods/u"),
            termination_message_file: Path::new("/r/pods/u/containers/c/1"),
            objects: &objects,
            services: &[],
        })
    }

    #[test]
    fn command_mounts_and_identity() {
        let config = build(
            json!({"name": "c", "image": "busybox", "command": ["echo", "$(A)"],
            "env": [{"name": "A", "value": "x"}],
            "securityContext": {"runAsUser": 7, "allowPrivilegeEscalation": false},
            "volumeMounts": [{"name": "cm", "mountPath": "/etc/c"},
                {"name": "tmp", "mountPath": "/t", "subPathExpr": "d/$(A)"}]}),
        )
        .unwrap();
        assert_eq!(config.command, ["echo", "x"]);
        assert_eq!(config.log_path, "c/2.log");
        assert_eq!(config.labels["io.kubernetes.container.name"], "c");
        let mounts: Vec<(&str, &str, bool)> = config
            .mounts
            .iter()
            .map(|m| (m.container_path.as_str(), m.host_path.as_str(), m.readonly))
            .collect();
        assert_eq!(
            mounts,
            [
                (
                    "/etc/c",
                    "/r/pods/u/volumes/kubernetes.io~configmap/cm",
                    true
                ),
                (
                    "/t",
                    "/r/pods/u/volumes/kubernetes.io~empty-dir/tmp/d/x",
                    false
                ),
                ("/dev/termination-log", "/r/pods/u/containers/c/1", false),
            ]
        );
        let security = config.linux.unwrap().security_context.unwrap();
        assert_eq!(security.run_as_user.unwrap().value, 7);
        assert!(security.no_new_privs);
        let image = config.image.unwrap();
        assert_eq!(
            (image.image.as_str(), image.user_specified_image.as_str()),
            ("sha256:abc", "busybox")
        );
    }

    #[test]
    fn bad_mounts_are_configuration_errors() {
        for (mount, message) in [
            (
                json!({"name": "no", "mountPath": "/a"}),
                "cannot find volume \"no\" to mount into container \"c\"",
            ),
            (
                json!({"name": "remote", "mountPath": "/a"}),
                "unimplemented: type of volume remote",
            ),
            (
                json!({"name": "tmp", "mountPath": "/a", "subPath": "../x"}),
                "subPath \"../x\" of volume mount \"tmp\" must be relative and without '..'",
            ),
        ] {
            let error = build(json!({"name": "c", "volumeMounts": [mount]})).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
}
