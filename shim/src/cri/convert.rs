//! Records as CRI messages.

use crate::container::state::ContainerState;
use crate::journal::{ContainerRecord, SandboxRecord};
use crate::sandbox::state::SandboxState;
use hull_cri_api::v1 as cri;
use std::collections::HashMap;

/// A sandbox's state as CRI knows it.
pub fn sandbox_state(state: SandboxState) -> cri::PodSandboxState {
    match state {
        SandboxState::Ready => cri::PodSandboxState::SandboxReady,
        _ => cri::PodSandboxState::SandboxNotready,
    }
}

/// A container's state as CRI knows it.
pub fn container_state(state: ContainerState) -> cri::ContainerState {
    match state {
        ContainerState::Creating | ContainerState::Created => cri::ContainerState::ContainerCreated,
        ContainerState::Running => cri::ContainerState::ContainerRunning,
        ContainerState::Exited | ContainerState::Removing => cri::ContainerState::ContainerExited,
    }
}

/// For ListPodSandbox.
pub fn sandbox(record: &SandboxRecord) -> cri::PodSandbox {
    cri::PodSandbox {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: sandbox_state(record.state) as i32,
        created_at: record.created_at_ns,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.handler.clone(),
    }
}

/// For PodSandboxStatus.
pub fn sandbox_status(record: &SandboxRecord) -> cri::PodSandboxStatus {
    let mut addresses = record.addresses.iter().map(ToString::to_string);
    let linux = record.config.linux.clone().unwrap_or_default();
    cri::PodSandboxStatus {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: sandbox_state(record.state) as i32,
        created_at: record.created_at_ns,
        network: Some(cri::PodSandboxNetworkStatus {
            ip: addresses.next().unwrap_or_default(),
            additional_ips: addresses.map(|ip| cri::PodIp { ip }).collect(),
        }),
        linux: Some(cri::LinuxPodSandboxStatus {
            namespaces: Some(cri::Namespace {
                options: linux
                    .security_context
                    .and_then(|security| security.namespace_options),
            }),
        }),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.handler.clone(),
    }
}

/// For ListContainers.
pub fn container(record: &ContainerRecord) -> cri::Container {
    cri::Container {
        id: record.id.clone(),
        pod_sandbox_id: record.sandbox_id.clone(),
        metadata: record.config.metadata.clone(),
        image: record.config.image.clone(),
        image_ref: record.image_ref.clone(),
        state: container_state(record.state) as i32,
        created_at: record.created_at_ns,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        image_id: record.image_id.clone(),
    }
}

/// For ContainerStatus.
pub fn container_status(record: &ContainerRecord) -> cri::ContainerStatus {
    let linux = record.config.linux.clone().unwrap_or_default();
    cri::ContainerStatus {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: container_state(record.state) as i32,
        created_at: record.created_at_ns,
        started_at: record.started_at_ns,
        finished_at: record.finished_at_ns,
        exit_code: record.exit_code,
        image: record.config.image.clone(),
        image_ref: record.image_ref.clone(),
        reason: record.reason.clone(),
        message: record.message.clone(),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        mounts: record.config.mounts.clone(),
        log_path: record
            .log_path
            .as_ref()
            .map(|path| path.display().to_string())
            .unwrap_or_default(),
        resources: Some(cri::ContainerResources {
            linux: linux.resources,
            windows: None,
        }),
        image_id: record.image_id.clone(),
        user: container_user(record),
        stop_signal: crate::container::signal::to_cri(record.stop_signal) as i32,
    }
}

fn container_user(record: &ContainerRecord) -> Option<cri::ContainerUser> {
    let user = &record.spec["process"]["user"];
    let groups = user["additionalGids"].as_array();
    Some(cri::ContainerUser {
        linux: Some(cri::LinuxContainerUser {
            uid: user["uid"].as_i64()?,
            gid: user["gid"].as_i64()?,
            supplemental_groups: groups
                .map(|groups| groups.iter().filter_map(|group| group.as_i64()).collect())
                .unwrap_or_default(),
        }),
    })
}

/// Whether an object (id, CRI state, labels) is one that a filter asks for: an id may be
/// shortened; labels must have everything that the selector names.
pub fn selected(
    (id, state, labels): (&str, i32, &HashMap<String, String>),
    id_prefix: &str,
    wanted_state: Option<i32>,
    selector: &HashMap<String, String>,
) -> bool {
    id.starts_with(id_prefix)
        && wanted_state.is_none_or(|wanted| wanted == state)
        && selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
}

/// The image name as CRI's images have it.
pub fn image(image: &hull_image::Image) -> cri::Image {
    let user = image.config.user.split(':').next().unwrap_or_default();
    let uid = user.parse::<i64>().ok();
    let is_name = uid.is_none() && !user.is_empty();
    cri::Image {
        id: image.id.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size_bytes,
        // An image without a user runs as root.
        uid: (!is_name).then(|| cri::Int64Value {
            value: uid.unwrap_or(0),
        }),
        username: if is_name {
            user.to_string()
        } else {
            String::new()
        },
        spec: None,
        pinned: false,
    }
}
