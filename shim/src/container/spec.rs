//! The OCI runtime configuration (runtime-spec, config.md) of a container in a guest.

use super::capabilities::{self, CapabilitySets};
use super::mounts::PlannedMount;
use super::seccomp;
use super::user::ResolvedUser;
use crate::error::Error;
use crate::journal::VolumeKind;
use hull_cri_api::v1::{
    ContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, NamespaceMode,
};
use hull_image::ImageConfig;
use serde_json::{Value, json};

/// PATH of containers whose image and pod say nothing.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// OOM score adjustment bounds of the kernel.
const OOM_SCORE_ADJ: std::ops::RangeInclusive<i64> = -1000..=1000;

/// What a configuration is made from.
pub struct SpecInput<'a> {
    /// Container id.
    pub id: &'a str,
    /// The client's configuration.
    pub config: &'a ContainerConfig,
    /// How the image wants to be run.
    pub image: &'a ImageConfig,
    /// Who it runs as.
    pub user: &'a ResolvedUser,
    /// Volumes.
    pub mounts: &'a [PlannedMount],
    /// The pod's hostname, for HOSTNAME.
    pub hostname: &'a str,
    /// The container whose PID namespace it shares, with NamespaceMode TARGET.
    pub pid_target: Option<&'a str>,
}

/// Device nodes that every container may use, by number: null, zero, full, random,
/// urandom, tty, console, ptmx; pseudo-terminals. It may make any node, and open no other.
const DEVICES: [(i64, Option<i64>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// Builds the configuration.
pub fn build(input: &SpecInput<'_>) -> Result<Value, Error> {
    let default_security = LinuxContainerSecurityContext::default();
    let linux = input.config.linux.as_ref();
    let security = linux
        .and_then(|linux| linux.security_context.as_ref())
        .unwrap_or(&default_security);
    let capabilities = capabilities::sets(security.capabilities.as_ref(), security.privileged)?;
    let mut spec = json!({
        "ociVersion": "1.1.0",
        "process": process(input, security, &capabilities)?,
        "root": {"path": "rootfs", "readonly": security.readonly_rootfs},
        "mounts": mounts(input, security),
        "linux": {
            "namespaces": namespaces(security, input.pid_target)?,
            "resources": {},
            "cgroupsPath": format!("/hull/{}", input.id),
            "maskedPaths": if security.privileged { Vec::new() } else { security.masked_paths.clone() },
            "readonlyPaths": if security.privileged { Vec::new() } else { security.readonly_paths.clone() },
        },
        "annotations": input.config.annotations,
    });
    if let Some(given) = linux.and_then(|linux| linux.resources.as_ref()) {
        spec["linux"]["resources"] = resources(given);
        if OOM_SCORE_ADJ.contains(&given.oom_score_adj) {
            spec["process"]["oomScoreAdj"] = json!(given.oom_score_adj);
        }
    }
    if !security.privileged {
        spec["linux"]["resources"]["devices"] = device_rules();
    }
    if let Some(profile) = seccomp::profile(security, &capabilities.granted)? {
        spec["linux"]["seccomp"] = profile;
    }
    Ok(spec)
}

/// Cgroup rules: without them, a container with CAP_MKNOD would reach the pod's disks.
fn device_rules() -> Value {
    let mut rules = vec![
        json!({"allow": false, "type": "a", "access": "rwm"}),
        json!({"allow": true, "type": "b", "access": "m"}),
        json!({"allow": true, "type": "c", "access": "m"}),
    ];
    for (major, minor) in DEVICES {
        let mut rule = json!({"allow": true, "type": "c", "major": major, "access": "rwm"});
        if let Some(minor) = minor {
            rule["minor"] = json!(minor);
        }
        rules.push(rule);
    }
    json!(rules)
}

/// Program and arguments: the pod's command replaces the image's entrypoint and its
/// command; the pod's args replace the image's command.
pub fn arguments(config: &ContainerConfig, image: &ImageConfig) -> Result<Vec<String>, Error> {
    let (entrypoint, cmd) = if config.command.is_empty() {
        let cmd = if config.args.is_empty() {
            &image.cmd
        } else {
            &config.args
        };
        (&image.entrypoint, cmd)
    } else {
        (&config.command, &config.args)
    };
    let all: Vec<String> = entrypoint.iter().chain(cmd).cloned().collect();
    if all.is_empty() {
        return Err(Error::InvalidArgument(
            "no command specified: neither the pod nor the image has one".to_string(),
        ));
    }
    Ok(all)
}

fn process(
    input: &SpecInput<'_>,
    security: &LinuxContainerSecurityContext,
    capabilities: &CapabilitySets,
) -> Result<Value, Error> {
    let cwd = [&input.config.working_dir, &input.image.working_dir]
        .into_iter()
        .find(|path| !path.is_empty())
        .cloned()
        .unwrap_or_else(|| "/".to_string());
    Ok(json!({
        "terminal": input.config.tty,
        "user": {
            "uid": input.user.uid,
            "gid": input.user.gid,
            "additionalGids": input.user.groups,
        },
        "args": arguments(input.config, input.image)?,
        "env": environment(input),
        "cwd": cwd,
        "capabilities": {
            "bounding": capabilities.granted,
            "effective": capabilities.granted,
            "permitted": capabilities.granted,
            "inheritable": capabilities.ambient,
            "ambient": capabilities.ambient,
        },
        "noNewPrivileges": security.no_new_privs,
        "rlimits": [],
    }))
}

/// The image's variables, then the pod's, of which the last of a name counts.
fn environment(input: &SpecInput<'_>) -> Vec<String> {
    let mut all: Vec<String> = vec![DEFAULT_PATH.to_string()];
    let mut set = |variable: String| {
        let name = variable.split('=').next().unwrap_or_default().to_string();
        let same = |other: &String| other.split('=').next() == Some(name.as_str());
        match all.iter_mut().find(|other| same(other)) {
            Some(other) => *other = variable,
            None => all.push(variable),
        }
    };
    set(format!("HOSTNAME={}", input.hostname));
    if input.config.tty {
        set("TERM=xterm".to_string());
    }
    if let Some(home) = &input.user.home {
        set(format!("HOME={home}"));
    }
    for variable in &input.image.env {
        set(variable.clone());
    }
    for variable in &input.config.envs {
        set(format!("{}={}", variable.key, variable.value));
    }
    all
}

fn mounts(input: &SpecInput<'_>, security: &LinuxContainerSecurityContext) -> Vec<Value> {
    let sys_access = if security.privileged { "rw" } else { "ro" };
    let mut all = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc",
               "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
               "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
               "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
               "options": ["nosuid", "noexec", "nodev"]}),
        // Shared in the pod, as the IPC namespace is.
        json!({"destination": "/dev/shm", "type": "hull-shm", "source": "shm",
               "options": ["bind", "rprivate", "rw"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
               "options": ["nosuid", "noexec", "nodev", sys_access]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
               "options": ["nosuid", "noexec", "nodev", "relatime", sys_access]}),
    ];
    // A mount of the pod at one of these places replaces it.
    all.retain(|mount| {
        !input
            .mounts
            .iter()
            .any(|planned| mount["destination"] == planned.container_path.as_str())
    });
    let mut planned: Vec<&PlannedMount> = input.mounts.iter().collect();
    // Parents before what is mounted inside them.
    planned.sort_by_key(|mount| {
        mount
            .container_path
            .split('/')
            .filter(|part| !part.is_empty())
            .count()
    });
    for mount in planned {
        let kind = match mount.record.kind {
            VolumeKind::Share => "hull-share",
            _ => "hull-volume",
        };
        let source = if mount.sub_path.is_empty() {
            mount.volume.clone()
        } else {
            format!("{}/{}", mount.volume, mount.sub_path)
        };
        let access = if mount.read_only { "ro" } else { "rw" };
        all.push(json!({"destination": mount.container_path, "type": kind,
                        "source": source, "options": ["rbind", "rprivate", access]}));
    }
    all
}

/// The guest is the pod: what CRI wants shared in the pod is the guest's own
/// namespace, for which the configuration names none.
fn namespaces(
    security: &LinuxContainerSecurityContext,
    pid_target: Option<&str>,
) -> Result<Vec<Value>, Error> {
    let options = security.namespace_options.clone().unwrap_or_default();
    let mut all = vec![json!({"type": "mount"}), json!({"type": "cgroup"})];
    match NamespaceMode::try_from(options.pid) {
        Ok(NamespaceMode::Pod) => {}
        Ok(NamespaceMode::Container) => all.push(json!({"type": "pid"})),
        Ok(NamespaceMode::Target) => {
            let target = pid_target.ok_or_else(|| {
                Error::InvalidArgument("PID namespace mode TARGET without target_id".to_string())
            })?;
            // The agent knows its process.
            all.push(json!({"type": "pid", "path": format!("container:{target}")}));
        }
        Ok(NamespaceMode::Node) | Err(_) => {
            return Err(Error::InvalidArgument(
                "the host's PID namespace needs a RuntimeClass with handler \"native\"".to_string(),
            ));
        }
    }
    Ok(all)
}

/// `linux.resources` of the limits that CRI names. 0 means that nothing is said.
pub fn resources(given: &LinuxContainerResources) -> Value {
    let mut cpu = serde_json::Map::new();
    if given.cpu_shares > 0 {
        cpu.insert("shares".to_string(), json!(given.cpu_shares));
    }
    if given.cpu_period > 0 {
        cpu.insert("period".to_string(), json!(given.cpu_period));
    }
    if given.cpu_quota != 0 {
        cpu.insert("quota".to_string(), json!(given.cpu_quota));
    }
    // cpuset_cpus names processors of the host, which the guest does not have.
    let mut all = json!({"cpu": cpu});
    if given.memory_limit_in_bytes > 0 {
        all["memory"] = json!({"limit": given.memory_limit_in_bytes});
        if given.memory_swap_limit_in_bytes != 0 {
            all["memory"]["swap"] = json!(given.memory_swap_limit_in_bytes);
        }
    }
    if !given.unified.is_empty() {
        all["unified"] = json!(given.unified);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_cri_api::v1::{KeyValue, LinuxContainerConfig};

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["default".into()],
            env: vec!["PATH=/bin".into(), "A=image".into()],
            working_dir: "/work".into(),
            ..Default::default()
        }
    }

    fn built(config: &ContainerConfig) -> Value {
        let user = ResolvedUser {
            home: Some("/root".into()),
            groups: vec![0],
            ..Default::default()
        };
        let input = SpecInput {
            id: "c1",
            config,
            image: &image(),
            user: &user,
            mounts: &[],
            hostname: "pod",
            pid_target: None,
        };
        let spec = build(&input).unwrap();
        serde_json::from_value::<oci_spec::runtime::Spec>(spec.clone()).expect("a valid OCI spec");
        spec
    }

    #[test]
    fn commands_and_arguments_combine_as_kubernetes_says() {
        let list = |words: &[&str]| {
            words
                .iter()
                .map(|word| word.to_string())
                .collect::<Vec<_>>()
        };
        for (command, args, expected) in [
            (vec![], vec![], vec!["/entry", "default"]),
            (vec![], vec!["a"], vec!["/entry", "a"]),
            (vec!["/c"], vec![], vec!["/c"]),
            (vec!["/c"], vec!["a"], vec!["/c", "a"]),
        ] {
            let config = ContainerConfig {
                command: list(&command),
                args: list(&args),
                ..Default::default()
            };
            assert_eq!(arguments(&config, &image()).unwrap(), expected);
        }
        assert!(arguments(&ContainerConfig::default(), &ImageConfig::default()).is_err());
    }

    #[test]
    fn the_pods_variables_override_the_images() {
        let config = ContainerConfig {
            envs: vec![KeyValue {
                key: "A".into(),
                value: "pod".into(),
            }],
            ..Default::default()
        };
        let spec = built(&config);
        let env = spec["process"]["env"].as_array().unwrap();
        assert!(env.contains(&json!("A=pod")) && !env.contains(&json!("A=image")));
        assert!(env.contains(&json!("PATH=/bin")) && env.contains(&json!("HOME=/root")));
    }

    #[test]
    fn devices_are_closed_but_to_the_privileged() {
        let rules = |privileged| {
            let security_context = LinuxContainerSecurityContext {
                privileged,
                ..Default::default()
            };
            let linux = LinuxContainerConfig {
                security_context: Some(security_context),
                ..Default::default()
            };
            let config = ContainerConfig {
                linux: Some(linux),
                ..Default::default()
            };
            built(&config)["linux"]["resources"]["devices"].clone()
        };
        assert_eq!(rules(false)[0]["allow"], false);
        assert_eq!(rules(true), Value::Null);
    }

    #[test]
    fn resources_and_privileges_arrive() {
        let config = ContainerConfig {
            linux: Some(LinuxContainerConfig {
                resources: Some(LinuxContainerResources {
                    memory_limit_in_bytes: 1 << 20,
                    cpu_shares: 512,
                    ..Default::default()
                }),
                security_context: Some(LinuxContainerSecurityContext {
                    privileged: true,
                    readonly_rootfs: true,
                    masked_paths: vec!["/proc/kcore".into()],
                    ..Default::default()
                }),
            }),
            ..Default::default()
        };
        let spec = built(&config);
        assert_eq!(spec["linux"]["resources"]["memory"]["limit"], 1 << 20);
        assert_eq!(spec["root"]["readonly"], true);
        assert_eq!(spec["linux"]["maskedPaths"], json!([]));
        assert!(
            spec["process"]["capabilities"]["bounding"]
                .as_array()
                .unwrap()
                .len()
                > 40
        );
    }
}
