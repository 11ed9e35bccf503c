//! What the sandboxes are said to use.

use hull_cri_api::v1::*;

use super::{State, now};

fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

fn cpu() -> Option<CpuUsage> {
    Some(CpuUsage {
        timestamp: now(),
        usage_core_nano_seconds: value(3_000_000_000),
        usage_nano_cores: value(250_000_000),
        ..Default::default()
    })
}

fn memory() -> Option<MemoryUsage> {
    Some(MemoryUsage {
        timestamp: now(),
        working_set_bytes: value(20 << 20),
        ..Default::default()
    })
}

impl State {
    /// Every ready sandbox uses a quarter of a processor and 20 MiB, and so does each container.
    pub fn pod_stats(&self) -> Vec<PodSandboxStats> {
        let ready = self.sandboxes.iter().filter(|(_, sandbox)| sandbox.ready);
        ready
            .map(|(id, sandbox)| PodSandboxStats {
                attributes: Some(PodSandboxAttributes {
                    id: id.clone(),
                    metadata: sandbox.config.metadata.clone(),
                    labels: sandbox.config.labels.clone(),
                    ..Default::default()
                }),
                linux: Some(LinuxPodSandboxStats {
                    cpu: cpu(),
                    memory: memory(),
                    containers: self.container_stats(id),
                    ..Default::default()
                }),
                windows: None,
            })
            .collect()
    }

    fn container_stats(&self, sandbox_id: &str) -> Vec<ContainerStats> {
        let running = self.containers.iter().filter(|(_, container)| {
            container.sandbox_id == sandbox_id
                && container.state == ContainerState::ContainerRunning
        });
        running
            .map(|(id, container)| ContainerStats {
                attributes: Some(ContainerAttributes {
                    id: id.clone(),
                    metadata: container.config.metadata.clone(),
                    labels: container.config.labels.clone(),
                    ..Default::default()
                }),
                cpu: cpu(),
                memory: memory(),
                ..Default::default()
            })
            .collect()
    }
}
