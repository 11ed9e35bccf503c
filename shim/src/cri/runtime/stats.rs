//! ContainerStats, ListContainerStats, PodSandboxStats, ListPodSandboxStats.

use crate::container::object::Container;
use crate::container::state::ContainerState;
use crate::cri::convert;
use crate::error::Error;
use crate::sandbox::object::Sandbox;
use crate::sandbox::state::SandboxState;
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
        stats: Some(of_container(shim, &container).await?),
    })
}

pub async fn list_containers(
    shim: &Shim,
    filter: Option<ContainerStatsFilter>,
) -> Vec<ContainerStats> {
    let filter = filter.unwrap_or_default();
    let mut stats = Vec::new();
    for container in shim.registry.containers() {
        let record = container.record();
        let state = convert::container_state(record.state) as i32;
        let facts = (record.id.as_str(), state, &record.config.labels);
        let wanted = record.sandbox_id.starts_with(&filter.pod_sandbox_id)
            && convert::selected(facts, &filter.id, None, &filter.label_selector);
        if wanted {
            stats.extend(unless_gone(
                &container,
                of_container(shim, &container).await,
            ));
        }
    }
    stats
}

/// One that has ended or just ends must not hide the others.
fn unless_gone<T>(container: &Container, measured: Result<T, Error>) -> Option<T> {
    measured
        .inspect_err(|error| {
            tracing::debug!(container_id = container.id, %error, "measuring a container");
        })
        .ok()
}

pub async fn sandbox(
    shim: &Shim,
    request: PodSandboxStatsRequest,
) -> Result<PodSandboxStatsResponse, Error> {
    let sandbox = shim.registry.sandbox(&request.pod_sandbox_id)?;
    Ok(PodSandboxStatsResponse {
        stats: Some(of_sandbox(shim, &sandbox).await?),
    })
}

pub async fn list_sandboxes(
    shim: &Shim,
    filter: Option<PodSandboxStatsFilter>,
) -> Vec<PodSandboxStats> {
    let filter = filter.unwrap_or_default();
    let mut stats = Vec::new();
    for sandbox in ready_sandboxes(shim) {
        let record = sandbox.record();
        let facts = (record.id.as_str(), 0, &record.config.labels);
        if !convert::selected(facts, &filter.id, None, &filter.label_selector) {
            continue;
        }
        match of_sandbox(shim, &sandbox).await {
            Ok(measured) => stats.push(measured),
            Err(error) => tracing::debug!(sandbox_id = sandbox.id, %error, "measuring a sandbox"),
        }
    }
    stats
}

/// The sandboxes that can be measured.
pub fn ready_sandboxes(shim: &Shim) -> impl Iterator<Item = Arc<Sandbox>> {
    let all = shim.registry.sandboxes().into_iter();
    all.filter(|sandbox| sandbox.state() == SandboxState::Ready)
}

/// The containers of a sandbox that run, with what their agent counted.
pub async fn measured_containers(
    shim: &Shim,
    sandbox: &Sandbox,
) -> Vec<(Arc<Container>, agent::ContainerStatsResponse)> {
    let mut all = Vec::new();
    for container in shim.registry.containers_of(&sandbox.id) {
        if container.state() == ContainerState::Running
            && let Some(counted) = unless_gone(&container, counters(shim, &container).await)
        {
            all.push((container, counted));
        }
    }
    all
}

async fn counters(
    shim: &Shim,
    container: &Container,
) -> Result<agent::ContainerStatsResponse, Error> {
    let live = shim.sandbox_of(&container.sandbox_id)?.require_live()?;
    let request = agent::ContainerStatsRequest {
        container_id: container.id.clone(),
    };
    Ok(live.guest.container_stats(request).await?)
}

async fn of_container(shim: &Shim, container: &Container) -> Result<ContainerStats, Error> {
    match container.state() {
        ContainerState::Running => {
            let counted = counters(shim, container).await?;
            Ok(container_stats(shim, container, counted))
        }
        // It uses nothing yet.
        ContainerState::Created => {
            shim.sandbox_of(&container.sandbox_id)?.require_live()?;
            Ok(container_stats(shim, container, Default::default()))
        }
        state => Err(Error::FailedPrecondition(format!(
            "container {} is in state {state:?}: it uses nothing",
            container.id
        ))),
    }
}

fn container_stats(
    shim: &Shim,
    container: &Container,
    counted: agent::ContainerStatsResponse,
) -> ContainerStats {
    let record = container.record();
    let timestamp = now_ns();
    let detail = counted.detail.unwrap_or_default();
    ContainerStats {
        attributes: Some(ContainerAttributes {
            id: record.id.clone(),
            metadata: record.config.metadata,
            labels: record.config.labels,
            annotations: record.config.annotations,
        }),
        cpu: Some(cpu(
            shim,
            &record.id,
            timestamp,
            counted.cpu_usage_ns,
            &detail,
        )),
        memory: Some(memory(
            timestamp,
            counted.memory_usage_bytes,
            counted.memory_working_set_bytes,
            &detail,
        )),
        writable_layer: Some(FilesystemUsage {
            timestamp,
            fs_id: Some(FilesystemIdentifier {
                mountpoint: shim.images.root().display().to_string(),
            }),
            used_bytes: value(counted.writable_layer_bytes),
            inodes_used: value(counted.writable_layer_inodes),
        }),
        swap: Some(SwapUsage {
            timestamp,
            swap_available_bytes: value(detail.swap_limit_bytes.saturating_sub(detail.swap_bytes)),
            swap_usage_bytes: value(detail.swap_bytes),
        }),
        io: Some(io(timestamp, &detail)),
    }
}

async fn of_sandbox(shim: &Shim, sandbox: &Sandbox) -> Result<PodSandboxStats, Error> {
    let live = sandbox.require_live()?;
    let counted = live
        .guest
        .sandbox_stats(agent::SandboxStatsRequest {})
        .await?;
    let timestamp = now_ns();
    let record = sandbox.record();
    let detail = counted.detail.unwrap_or_default();
    let containers = measured_containers(shim, sandbox)
        .await
        .into_iter()
        .map(|(container, counted)| container_stats(shim, &container, counted))
        .collect();
    let linux = LinuxPodSandboxStats {
        cpu: Some(cpu(
            shim,
            &record.id,
            timestamp,
            counted.cpu_usage_ns,
            &detail,
        )),
        memory: Some(memory(
            timestamp,
            counted.memory_usage_bytes,
            counted.memory_working_set_bytes,
            &detail,
        )),
        network: Some(network(timestamp, &counted.interfaces)),
        process: Some(ProcessUsage {
            timestamp,
            process_count: value(detail.processes),
        }),
        containers,
        io: Some(io(timestamp, &detail)),
    };
    Ok(PodSandboxStats {
        attributes: Some(PodSandboxAttributes {
            id: record.id,
            metadata: record.config.metadata,
            labels: record.config.labels,
            annotations: record.config.annotations,
        }),
        linux: Some(linux),
        windows: None,
    })
}

fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

fn cpu(
    shim: &Shim,
    id: &str,
    timestamp: i64,
    usage_ns: u64,
    detail: &agent::CgroupDetail,
) -> CpuUsage {
    let rate = shim.rates.cpu(id, timestamp, usage_ns);
    CpuUsage {
        timestamp,
        usage_core_nano_seconds: value(usage_ns),
        usage_nano_cores: rate.and_then(value),
        psi: pressure(&detail.cpu_pressure),
    }
}

fn memory(
    timestamp: i64,
    usage_bytes: u64,
    working_set_bytes: u64,
    detail: &agent::CgroupDetail,
) -> MemoryUsage {
    let limit = detail.memory_limit_bytes;
    MemoryUsage {
        timestamp,
        working_set_bytes: value(working_set_bytes),
        // What is available without a limit is the node's business.
        available_bytes: (limit > 0)
            .then(|| limit.saturating_sub(working_set_bytes))
            .and_then(value),
        usage_bytes: value(usage_bytes),
        rss_bytes: value(detail.memory_rss_bytes),
        page_faults: value(detail.page_faults),
        major_page_faults: value(detail.major_page_faults),
        psi: pressure(&detail.memory_pressure),
    }
}

fn io(timestamp: i64, detail: &agent::CgroupDetail) -> IoUsage {
    IoUsage {
        timestamp,
        psi: pressure(&detail.io_pressure),
    }
}

fn pressure(measured: &Option<agent::Pressure>) -> Option<PsiStats> {
    let line = |line: &Option<agent::PressureLine>| {
        line.as_ref().map(|line| PsiData {
            // Microseconds in the kernel, nanoseconds in CRI.
            total: line.total_us.saturating_mul(1000),
            avg10: line.avg10,
            avg60: line.avg60,
            avg300: line.avg300,
        })
    };
    measured.as_ref().map(|measured| PsiStats {
        full: line(&measured.full),
        some: line(&measured.some),
    })
}

fn network(timestamp: i64, interfaces: &[agent::InterfaceStats]) -> NetworkUsage {
    let usage = |counted: &agent::InterfaceStats| NetworkInterfaceUsage {
        name: counted.name.clone(),
        rx_bytes: value(counted.rx_bytes),
        rx_errors: value(counted.rx_errors),
        tx_bytes: value(counted.tx_bytes),
        tx_errors: value(counted.tx_errors),
    };
    let is_default =
        |counted: &&agent::InterfaceStats| counted.name == crate::cni::exec::INTERFACE_NAME;
    let (default, others): (Vec<_>, Vec<_>) = interfaces.iter().partition(is_default);
    NetworkUsage {
        timestamp,
        default_interface: default.first().map(|counted| usage(counted)),
        interfaces: others.into_iter().map(usage).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pods_interface_is_told_from_others() {
        let interface = |name: &str| agent::InterfaceStats {
            name: name.into(),
            rx_bytes: 7,
            ..Default::default()
        };
        let usage = network(1, &[interface("eth1"), interface("eth0")]);
        assert_eq!(usage.default_interface.unwrap().name, "eth0");
        assert_eq!(usage.interfaces.len(), 1);
        assert_eq!(network(1, &[]).default_interface, None);
    }

    #[test]
    fn available_memory_needs_a_limit() {
        let mut detail = agent::CgroupDetail::default();
        assert_eq!(memory(1, 50, 40, &detail).available_bytes, None);
        detail.memory_limit_bytes = 100;
        assert_eq!(memory(1, 50, 40, &detail).available_bytes, value(60));
    }
}
