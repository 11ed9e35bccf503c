//! What CRI reports about one pod, reduced to what the agent decides by. Plain data, so that the
//! decisions can be tested by writing it down.

use std::collections::BTreeMap;

use hull_cri_api::v1 as cri;

use super::labels;

/// A container's state in CRI's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContainerPhase {
    /// Created, not started.
    Created,
    /// Its first process runs.
    Running,
    /// Its first process ended, or never could start.
    Exited,
    /// The runtime cannot tell.
    Unknown,
}

/// One sandbox of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedSandbox {
    /// CRI id.
    pub id: String,
    /// The attempt number given at creation.
    pub attempt: u32,
    /// SANDBOX_READY.
    pub ready: bool,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// The pod's addresses, the primary one first.
    pub ips: Vec<String>,
    /// Annotations set at creation.
    pub annotations: BTreeMap<String, String>,
}

/// One container of a pod, running or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedContainer {
    /// CRI id.
    pub id: String,
    /// The container's name in the pod.
    pub name: String,
    /// The sandbox it belongs to.
    pub sandbox_id: String,
    /// The attempt number given at creation: the pod's restartCount of this container.
    pub attempt: u32,
    /// Its state.
    pub phase: ContainerPhase,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Nanoseconds since the epoch; 0 when it never started.
    pub started_at: i64,
    /// Nanoseconds since the epoch; 0 when it has not ended.
    pub finished_at: i64,
    /// Of the first process.
    pub exit_code: i32,
    /// The runtime's word for why it ended (`Completed`, `Error`, `OOMKilled`, `VMMKilled` ...).
    pub reason: String,
    /// The runtime's explanation.
    pub message: String,
    /// The image as the user wrote it.
    pub image: String,
    /// The image's reference or digest as the runtime resolved it.
    pub image_ref: String,
    /// Annotations set at creation.
    pub annotations: BTreeMap<String, String>,
}

/// Everything CRI knows of one pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedPod {
    /// Newest first.
    pub sandboxes: Vec<ObservedSandbox>,
    /// Newest first.
    pub containers: Vec<ObservedContainer>,
}

impl ObservedPod {
    /// The newest sandbox.
    pub fn sandbox(&self) -> Option<&ObservedSandbox> {
        self.sandboxes.first()
    }

    /// The newest sandbox if it is ready.
    pub fn ready_sandbox(&self) -> Option<&ObservedSandbox> {
        self.sandbox().filter(|sandbox| sandbox.ready)
    }

    /// The newest attempt of a container.
    pub fn latest(&self, name: &str) -> Option<&ObservedContainer> {
        self.containers
            .iter()
            .find(|container| container.name == name)
    }

    /// The attempt before the newest one.
    pub fn previous(&self, name: &str) -> Option<&ObservedContainer> {
        self.containers
            .iter()
            .filter(|container| container.name == name)
            .nth(1)
    }

    /// The newest attempt of a container within one sandbox.
    pub fn latest_in(&self, name: &str, sandbox_id: &str) -> Option<&ObservedContainer> {
        self.containers
            .iter()
            .find(|container| container.name == name && container.sandbox_id == sandbox_id)
    }

    /// Restores the order that the accessors rely on.
    pub fn sort(&mut self) {
        self.sandboxes
            .sort_by_key(|s| std::cmp::Reverse((s.attempt, s.created_at)));
        self.containers
            .sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
    }
}

impl From<cri::PodSandboxStatus> for ObservedSandbox {
    fn from(status: cri::PodSandboxStatus) -> Self {
        let mut ips = Vec::new();
        if let Some(network) = &status.network {
            if !network.ip.is_empty() {
                ips.push(network.ip.clone());
            }
            ips.extend(network.additional_ips.iter().map(|ip| ip.ip.clone()));
        }
        ObservedSandbox {
            ready: status.state() == cri::PodSandboxState::SandboxReady,
            id: status.id,
            attempt: status.metadata.map_or(0, |metadata| metadata.attempt),
            created_at: status.created_at,
            ips,
            annotations: status.annotations.into_iter().collect(),
        }
    }
}

impl ObservedContainer {
    /// Joins a container's list entry (which has the sandbox id) and its status.
    pub fn from_status(sandbox_id: String, status: cri::ContainerStatus) -> Self {
        let phase = container_phase(status.state());
        let metadata = status.metadata.clone().unwrap_or_default();
        let name = status
            .labels
            .get(labels::CONTAINER_NAME)
            .cloned()
            .unwrap_or_else(|| metadata.name.clone());
        ObservedContainer {
            id: status.id,
            name,
            sandbox_id,
            attempt: metadata.attempt,
            phase,
            created_at: status.created_at,
            started_at: status.started_at,
            finished_at: status.finished_at,
            exit_code: status.exit_code,
            reason: status.reason,
            message: status.message,
            image: status
                .image
                .map(|image| match image.user_specified_image.is_empty() {
                    true => image.image,
                    false => image.user_specified_image,
                })
                .unwrap_or_default(),
            image_ref: status.image_ref,
            annotations: status.annotations.into_iter().collect(),
        }
    }
}

/// CRI's enumeration as ours.
pub fn container_phase(state: cri::ContainerState) -> ContainerPhase {
    match state {
        cri::ContainerState::ContainerCreated => ContainerPhase::Created,
        cri::ContainerState::ContainerRunning => ContainerPhase::Running,
        cri::ContainerState::ContainerExited => ContainerPhase::Exited,
        cri::ContainerState::ContainerUnknown => ContainerPhase::Unknown,
    }
}

/// A pod's fingerprint in a relist: changes whenever a sandbox or container appears, goes or
/// changes state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// `(id, state)` of every sandbox and container, sorted.
    pub entries: Vec<(String, i32)>,
}

/// What a relist finds of pods that the agent may not know: enough to remove them.
#[derive(Debug, Clone, Default)]
pub struct PodSummary {
    /// The fingerprint.
    pub fingerprint: Fingerprint,
    /// Namespace and name from the labels.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
}
