//! What is written down.

use crate::container::state::ContainerState;
use crate::network::link::InterfaceState;
use crate::sandbox::state::SandboxState;
use crate::vmm::VmmRecord;
use hull_cri_api::v1::{ContainerConfig, PodSandboxConfig};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

/// One sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// Its id.
    pub id: String,
    /// The client's configuration, as it came.
    pub config: PodSandboxConfig,
    /// The client's runtime handler, as it came.
    pub handler: String,
    /// Unix time, nanoseconds.
    pub created_at_ns: i64,
    /// Where in its life it is.
    pub state: SandboxState,
    /// Addresses that CNI gave.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// What the guest took over.
    #[serde(default)]
    pub interface: Option<InterfaceState>,
    /// User id of the jailed VMM; no other sandbox has it.
    pub jail_uid: u32,
    /// The VMM, once it was started.
    #[serde(default)]
    pub vmm: Option<VmmRecord>,
    /// Seconds per start phase.
    #[serde(default)]
    pub phases: BTreeMap<String, f64>,
    /// How the VM ended.
    #[serde(default)]
    pub exit: Option<ExitRecord>,
    /// Disk slots in use, by serial.
    #[serde(default)]
    pub slots: BTreeMap<String, SlotRecord>,
    /// Volumes in the guest, by name.
    #[serde(default)]
    pub volumes: BTreeMap<String, VolumeRecord>,
    /// `uname -r` of the guest.
    #[serde(default)]
    pub guest_kernel: String,
}

/// How a VM ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExitRecord {
    /// One CamelCase word, as in container statuses.
    pub reason: String,
    /// A sentence, with the last console lines.
    pub message: String,
    /// Exit code reported for its containers.
    pub container_exit_code: i32,
    /// Unix time, nanoseconds.
    pub at_ns: i64,
}

/// An image on a disk slot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SlotRecord {
    /// The image.
    pub image_id: String,
    /// Containers whose root it is.
    pub containers: BTreeSet<String>,
}

/// A volume in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Which kind.
    pub kind: VolumeKind,
    /// Where it comes from on the host.
    pub host_path: PathBuf,
}

/// Kinds of volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeKind {
    /// A directory whose files are copied in, and again when they change.
    Files,
    /// A single file that is copied in, under its own name.
    File,
    /// An empty directory on the scratch disk.
    EmptyDir,
    /// An empty directory in the guest's memory.
    EmptyDirMemory,
    /// A directory or file of the host, by virtio-fs. It belongs to one container and is not
    /// in the sandbox's record.
    Share,
}

/// One container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its id.
    pub id: String,
    /// Its sandbox.
    pub sandbox_id: String,
    /// The client's configuration, as it came.
    pub config: ContainerConfig,
    /// Image id.
    pub image_id: String,
    /// A digest reference of the image, or its id.
    pub image_ref: String,
    /// Signal that asks it to stop.
    pub stop_signal: u32,
    /// Serial of the disk that is its root.
    pub slot: String,
    /// OCI runtime-spec config.json.
    pub spec: serde_json::Value,
    /// Absolute path of its log, if it has one.
    pub log_path: Option<PathBuf>,
    /// Where in its life it is.
    pub state: ContainerState,
    /// Unix time, nanoseconds; the following ones too, 0 for "not yet".
    pub created_at_ns: i64,
    /// When it started.
    #[serde(default)]
    pub started_at_ns: i64,
    /// When it exited.
    #[serde(default)]
    pub finished_at_ns: i64,
    /// Meaningful once it exited.
    #[serde(default)]
    pub exit_code: i32,
    /// One CamelCase word.
    #[serde(default)]
    pub reason: String,
    /// A sentence.
    #[serde(default)]
    pub message: String,
}

/// How far a container's output is in its log file: at file size `log_size`, this many
/// bytes of each stream had been written. Lines after `log_size` are counted again
/// when the log is resumed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCheckpoint {
    /// Bytes.
    pub log_size: u64,
    /// Bytes of standard output.
    pub stdout: u64,
    /// Bytes of standard error.
    pub stderr: u64,
}
