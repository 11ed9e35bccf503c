//! What the node and its pods use.
//!
//! ```text
//!   /proc, statvfs ── node_usage.rs ─┐
//!                                    ├─► summary.rs    /stats/summary   (JSON)
//!   CRI ListPodSandboxStats ─────────┤
//!                                    └─► resource.rs   /metrics/resource (text)
//!   CRI ListPodSandboxMetrics ───────── cadvisor.rs    /metrics/cadvisor (text)
//! ```

pub mod cadvisor;
mod exposition;
pub mod node_usage;
pub mod resource;
pub mod summary;

use hull_cri_api::v1 as cri;

use crate::cri::labels;

/// What a value of CRI says, if it says anything.
pub(crate) fn number(value: Option<&cri::UInt64Value>) -> Option<u64> {
    value.map(|value| value.value)
}

/// Namespace, name and UID of a sandbox's pod.
pub(crate) fn pod_of(stats: &cri::PodSandboxStats) -> Option<(&str, &str, &str)> {
    let metadata = stats.attributes.as_ref()?.metadata.as_ref()?;
    Some((&metadata.namespace, &metadata.name, &metadata.uid))
}

/// The container's name in its pod.
pub(crate) fn container_name(stats: &cri::ContainerStats) -> Option<&str> {
    let attributes = stats.attributes.as_ref()?;
    match attributes.labels.get(labels::CONTAINER_NAME) {
        Some(name) => Some(name),
        None => attributes.metadata.as_ref().map(|m| m.name.as_str()),
    }
}

/// The stats of a pod's containers.
pub(crate) fn containers(stats: &cri::PodSandboxStats) -> &[cri::ContainerStats] {
    stats
        .linux
        .as_ref()
        .map_or(&[], |linux| linux.containers.as_slice())
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    fn value(value: u64) -> Option<cri::UInt64Value> {
        Some(cri::UInt64Value { value })
    }

    fn cpu(used_ns: u64, rate: u64) -> Option<cri::CpuUsage> {
        Some(cri::CpuUsage {
            timestamp: 7_000_000_000,
            usage_core_nano_seconds: value(used_ns),
            usage_nano_cores: value(rate),
            ..Default::default()
        })
    }

    fn memory(working_set: u64) -> Option<cri::MemoryUsage> {
        Some(cri::MemoryUsage {
            timestamp: 7_000_000_000,
            working_set_bytes: value(working_set),
            usage_bytes: value(working_set + 1),
            ..Default::default()
        })
    }

    /// A pod `d/p` of one container `c`.
    pub(crate) fn pod_stats() -> cri::PodSandboxStats {
        let container = cri::ContainerStats {
            attributes: Some(cri::ContainerAttributes {
                metadata: Some(cri::ContainerMetadata {
                    name: "c".into(),
                    attempt: 1,
                }),
                ..Default::default()
            }),
            cpu: cpu(1_500_000_000, 250),
            memory: memory(1000),
            ..Default::default()
        };
        cri::PodSandboxStats {
            attributes: Some(cri::PodSandboxAttributes {
                metadata: Some(cri::PodSandboxMetadata {
                    name: "p".into(),
                    namespace: "d".into(),
                    uid: "u".into(),
                    attempt: 0,
                }),
                ..Default::default()
            }),
            linux: Some(cri::LinuxPodSandboxStats {
                cpu: cpu(2_000_000_000, 300),
                memory: memory(2000),
                containers: vec![container],
                ..Default::default()
            }),
            windows: None,
        }
    }
}
