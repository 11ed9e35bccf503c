//! The containers of a pod in one list, whatever list of the spec they stand in.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};

/// Which list of the spec a container stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `spec.initContainers`, sidecars among them.
    Init,
    /// `spec.containers`.
    App,
    /// `spec.ephemeralContainers`.
    Ephemeral,
}

impl Role {
    /// The list's name in the spec, as events name it.
    pub fn list(self) -> &'static str {
        match self {
            Role::Init => "initContainers",
            Role::App => "containers",
            Role::Ephemeral => "ephemeralContainers",
        }
    }
}

/// Every container of the pod with its role.
pub fn all(pod: &Pod) -> impl Iterator<Item = (Role, Cow<'_, Container>)> {
    let spec = pod.spec.as_ref();
    let inits = spec
        .into_iter()
        .flat_map(|s| s.init_containers.iter().flatten());
    let apps = spec.into_iter().flat_map(|s| s.containers.iter());
    let ephemerals = spec
        .into_iter()
        .flat_map(|s| s.ephemeral_containers.iter().flatten());
    inits
        .map(|container| (Role::Init, Cow::Borrowed(container)))
        .chain(apps.map(|container| (Role::App, Cow::Borrowed(container))))
        .chain(ephemerals.map(|found| (Role::Ephemeral, Cow::Owned(of_ephemeral(found)))))
}

/// A container of the pod by name.
pub fn find<'p>(pod: &'p Pod, name: &str) -> Option<(Role, Cow<'p, Container>)> {
    all(pod).find(|(_, container)| container.name == name)
}

/// The container whose processes an ephemeral container shares, by name.
pub fn target_of<'p>(pod: &'p Pod, name: &str) -> Option<&'p str> {
    let ephemerals = pod.spec.as_ref()?.ephemeral_containers.as_ref()?;
    let found = ephemerals.iter().find(|container| container.name == name)?;
    let target = found.target_container_name.as_deref();
    target.filter(|target| !target.is_empty())
}

/// An ephemeral container has the fields of every other; those that the API refuses in it
/// (probes, hooks, ports, resources) are left out.
fn of_ephemeral(container: &EphemeralContainer) -> Container {
    let container = container.clone();
    Container {
        name: container.name,
        image: container.image,
        command: container.command,
        args: container.args,
        working_dir: container.working_dir,
        env: container.env,
        env_from: container.env_from,
        volume_mounts: container.volume_mounts,
        termination_message_path: container.termination_message_path,
        termination_message_policy: container.termination_message_policy,
        image_pull_policy: container.image_pull_policy,
        security_context: container.security_context,
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        tty: container.tty,
        ..Default::default()
    }
}
