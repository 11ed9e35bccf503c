//! ContainerStats, ListContainerStats.

use crate::container::object::Container;
use crate::container::state::ContainerState;
use crate::cri::convert;
use crate::error::Error;
use crate::shim::{Shim, now_ns};
use hull_agent_protocol::v1 as agent;
use hull_cri_api::v1::*;
use std::sync::Arc;

pub async fn container(
    shim: &Shim,
    request: ContainerStatsRequest,
) -> Result<ContainerStatsResponse, Error> {
    let container = shim.registry.container(&request.container_id)?;
    Ok(ContainerStatsResponse {
        stats: Some(measure(shim, &container).await?),
    })
}

pub async fn list(shim: &Shim, filter: Option<ContainerStatsFilter>) -> Vec<ContainerStats> {
    let filter = filter.unwrap_or_default();
    let mut stats = Vec::new();
    for container in shim.registry.containers() {
        let record = container.record();
        let state = convert::container_state(record.state) as i32;
        let facts = (record.id.as_str(), state, &record.config.labels);
        let wanted = record.sandbox_id.starts_with(&filter.pod_sandbox_id)
            && convert::selected(facts, &filter.id, None, &filter.label_selector);
        if !wanted || record.state == ContainerState::Exited {
            continue;
        }
        match measure(shim, &container).await {
            Ok(measured) => stats.push(measured),
            // One that just ended must not hide the others.
            Err(error) => {
                tracing::debug!(container_id = container.id, %error, "measuring a container");
            }
        }
    }
    stats
}

async fn measure(shim: &Shim, container: &Arc<Container>) -> Result<ContainerStats, Error> {
    let record = container.record();
    let live = shim.sandbox_of(&container.sandbox_id)?.require_live()?;
    let measured = if record.state == ContainerState::Running {
        let request = agent::ContainerStatsRequest {
            container_id: container.id.clone(),
        };
        live.guest.container_stats(request).await?
    } else {
        agent::ContainerStatsResponse::default()
    };
    let timestamp = now_ns();
    let value = |value: u64| Some(UInt64Value { value });
    Ok(ContainerStats {
        attributes: Some(ContainerAttributes {
            id: record.id,
            metadata: record.config.metadata,
            labels: record.config.labels,
            annotations: record.config.annotations,
        }),
        cpu: Some(CpuUsage {
            timestamp,
            usage_core_nano_seconds: value(measured.cpu_usage_ns),
            ..Default::default()
        }),
        memory: Some(MemoryUsage {
            timestamp,
            working_set_bytes: value(measured.memory_working_set_bytes),
            usage_bytes: value(measured.memory_usage_bytes),
            ..Default::default()
        }),
        writable_layer: Some(FilesystemUsage {
            timestamp,
            fs_id: None,
            used_bytes: value(measured.writable_layer_bytes),
            inodes_used: None,
        }),
        ..Default::default()
    })
}
