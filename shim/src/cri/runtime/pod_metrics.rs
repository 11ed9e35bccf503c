//! ListMetricDescriptors, ListPodSandboxMetrics: what a node without cadvisor exposes,
//! under cadvisor's names.

use super::stats;
use crate::container::object::Container;
use crate::error::Error;
use crate::sandbox::object::Sandbox;
use crate::shim::{Shim, now_ns};
use hull_agent_protocol::v1 as agent;
use hull_cri_api::v1::*;

/// Labels of every metric.
const LABELS: [&str; 6] = ["id", "name", "image", "container", "pod", "namespace"];
/// And of those of one interface.
const INTERFACE_LABEL: &str = "interface";
/// And of those that come in kinds.
const FAILURE_LABELS: [&str; 2] = ["failure_type", "scope"];
/// Name of the "container" that stands for the whole pod.
const POD_NAME: &str = "POD";

/// A metric with one value per container.
struct ContainerMetric {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    /// Values of [`FAILURE_LABELS`], for the metrics that have them.
    failure: Option<[&'static str; 2]>,
    value: fn(&Measured) -> u64,
}

/// A container's counters and what its pod says.
struct Measured {
    counted: agent::ContainerStatsResponse,
    detail: agent::CgroupDetail,
    resources: LinuxContainerResources,
    started_at_ns: i64,
}

const SECOND_NS: u64 = 1_000_000_000;

const fn metric(
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    value: fn(&Measured) -> u64,
) -> ContainerMetric {
    ContainerMetric {
        name,
        help,
        kind,
        failure: None,
        value,
    }
}

const fn faults(labels: [&'static str; 2], value: fn(&Measured) -> u64) -> ContainerMetric {
    ContainerMetric {
        name: "container_memory_failures_total",
        help: "Page faults",
        kind: MetricType::Counter,
        failure: Some(labels),
        value,
    }
}

use MetricType::{Counter, Gauge};

/// Values are whole numbers in CRI, so times in seconds lose their fractions.
const CONTAINER_METRICS: &[ContainerMetric] = &[
    metric(
        "container_cpu_usage_seconds_total",
        "CPU time used",
        Counter,
        |m| m.counted.cpu_usage_ns / SECOND_NS,
    ),
    metric(
        "container_cpu_user_seconds_total",
        "CPU time used in user mode",
        Counter,
        |m| m.detail.cpu_user_ns / SECOND_NS,
    ),
    metric(
        "container_cpu_system_seconds_total",
        "CPU time used in the kernel",
        Counter,
        |m| m.detail.cpu_system_ns / SECOND_NS,
    ),
    metric(
        "container_cpu_cfs_periods_total",
        "Scheduling periods with a quota",
        Counter,
        |m| m.detail.cpu_periods,
    ),
    metric(
        "container_cpu_cfs_throttled_periods_total",
        "Throttled periods",
        Counter,
        |m| m.detail.cpu_throttled_periods,
    ),
    metric(
        "container_cpu_cfs_throttled_seconds_total",
        "Throttled time",
        Counter,
        |m| m.detail.cpu_throttled_ns / SECOND_NS,
    ),
    metric(
        "container_memory_usage_bytes",
        "Memory with page cache",
        Gauge,
        |m| m.counted.memory_usage_bytes,
    ),
    metric(
        "container_memory_working_set_bytes",
        "Memory that cannot be dropped",
        Gauge,
        |m| m.counted.memory_working_set_bytes,
    ),
    metric(
        "container_memory_rss",
        "Anonymous memory, bytes",
        Gauge,
        |m| m.detail.memory_rss_bytes,
    ),
    metric("container_memory_cache", "Page cache, bytes", Gauge, |m| {
        m.detail.memory_cache_bytes
    }),
    metric(
        "container_memory_mapped_file",
        "Mapped files, bytes",
        Gauge,
        |m| m.detail.memory_mapped_file_bytes,
    ),
    metric(
        "container_memory_kernel_usage",
        "Memory of the kernel, bytes",
        Gauge,
        |m| m.detail.memory_kernel_bytes,
    ),
    metric(
        "container_memory_max_usage_bytes",
        "Most memory ever used",
        Gauge,
        |m| m.detail.memory_peak_bytes,
    ),
    metric("container_memory_swap", "Swap, bytes", Gauge, |m| {
        m.detail.swap_bytes
    }),
    faults(["pgfault", "container"], |m| m.detail.page_faults),
    faults(["pgmajfault", "container"], |m| m.detail.major_page_faults),
    metric(
        "container_oom_events_total",
        "Processes killed for lack of memory",
        Counter,
        |m| m.detail.oom_kills,
    ),
    metric("container_fs_usage_bytes", "Writable layer", Gauge, |m| {
        m.counted.writable_layer_bytes
    }),
    metric(
        "container_fs_inodes_total",
        "Inodes of the writable layer",
        Gauge,
        |m| m.counted.writable_layer_inodes,
    ),
    metric(
        "container_fs_reads_bytes_total",
        "Bytes read from disks",
        Counter,
        |m| m.detail.io_read_bytes,
    ),
    metric(
        "container_fs_writes_bytes_total",
        "Bytes written to disks",
        Counter,
        |m| m.detail.io_written_bytes,
    ),
    metric(
        "container_fs_reads_total",
        "Reads from disks",
        Counter,
        |m| m.detail.io_reads,
    ),
    metric(
        "container_fs_writes_total",
        "Writes to disks",
        Counter,
        |m| m.detail.io_writes,
    ),
    metric("container_processes", "Processes", Gauge, |m| {
        m.detail.processes
    }),
    metric("container_threads", "Processes and threads", Gauge, |m| {
        m.counted.pids
    }),
    metric(
        "container_threads_max",
        "Most threads; 0: no limit",
        Gauge,
        |m| m.detail.pids_limit,
    ),
    metric(
        "container_last_seen",
        "When these were measured, unix time",
        Gauge,
        |_| u64::try_from(now_ns()).unwrap_or(0) / SECOND_NS,
    ),
    metric(
        "container_start_time_seconds",
        "Start, unix time",
        Gauge,
        |m| u64::try_from(m.started_at_ns).unwrap_or(0) / SECOND_NS,
    ),
    metric(
        "container_spec_memory_limit_bytes",
        "Memory limit; 0: none",
        Gauge,
        |m| u64::try_from(m.resources.memory_limit_in_bytes).unwrap_or(0),
    ),
    metric("container_spec_cpu_shares", "CPU shares", Gauge, |m| {
        u64::try_from(m.resources.cpu_shares).unwrap_or(0)
    }),
    metric(
        "container_spec_cpu_quota",
        "CPU quota of a period, microseconds",
        Gauge,
        |m| u64::try_from(m.resources.cpu_quota).unwrap_or(0),
    ),
    metric(
        "container_spec_cpu_period",
        "CPU period, microseconds",
        Gauge,
        |m| u64::try_from(m.resources.cpu_period).unwrap_or(0),
    ),
];

/// A metric with one value per interface of a pod.
type InterfaceMetric = (
    &'static str,
    &'static str,
    fn(&agent::InterfaceStats) -> u64,
);

const INTERFACE_METRICS: &[InterfaceMetric] = &[
    (
        "container_network_receive_bytes_total",
        "Bytes received",
        |i| i.rx_bytes,
    ),
    (
        "container_network_receive_packets_total",
        "Packets received",
        |i| i.rx_packets,
    ),
    (
        "container_network_receive_errors_total",
        "Errors while receiving",
        |i| i.rx_errors,
    ),
    (
        "container_network_receive_packets_dropped_total",
        "Packets dropped while receiving",
        |i| i.rx_dropped,
    ),
    (
        "container_network_transmit_bytes_total",
        "Bytes sent",
        |i| i.tx_bytes,
    ),
    (
        "container_network_transmit_packets_total",
        "Packets sent",
        |i| i.tx_packets,
    ),
    (
        "container_network_transmit_errors_total",
        "Errors while sending",
        |i| i.tx_errors,
    ),
    (
        "container_network_transmit_packets_dropped_total",
        "Packets dropped while sending",
        |i| i.tx_dropped,
    ),
];

pub fn descriptors() -> ListMetricDescriptorsResponse {
    let describe = |name: &str, help: &str, extra: &[&str]| MetricDescriptor {
        name: name.to_string(),
        help: help.to_string(),
        label_keys: LABELS
            .iter()
            .chain(extra)
            .map(|label| label.to_string())
            .collect(),
    };
    let mut descriptors: Vec<MetricDescriptor> = Vec::new();
    for metric in CONTAINER_METRICS {
        let extra: &[&str] = match metric.failure {
            Some(_) => &FAILURE_LABELS,
            None => &[],
        };
        if !descriptors.iter().any(|known| known.name == metric.name) {
            descriptors.push(describe(metric.name, metric.help, extra));
        }
    }
    for (name, help, _) in INTERFACE_METRICS {
        descriptors.push(describe(name, help, &[INTERFACE_LABEL]));
    }
    ListMetricDescriptorsResponse { descriptors }
}

pub async fn list(shim: &Shim) -> Vec<PodSandboxMetrics> {
    let mut all = Vec::new();
    for sandbox in stats::ready_sandboxes(shim) {
        match of_sandbox(shim, &sandbox).await {
            Ok(metrics) => all.push(metrics),
            Err(error) => tracing::debug!(sandbox_id = sandbox.id, %error, "measuring a sandbox"),
        }
    }
    all
}

async fn of_sandbox(shim: &Shim, sandbox: &Sandbox) -> Result<PodSandboxMetrics, Error> {
    let live = sandbox.require_live()?;
    let request = agent::SandboxStatsRequest {};
    let counted = live.guest.sandbox_stats(request).await?;
    let timestamp = now_ns();
    let labels = labels(sandbox, None);
    let mut metrics = Vec::new();
    for interface in &counted.interfaces {
        for (name, _, value) in INTERFACE_METRICS {
            let label_values = [labels.clone(), vec![interface.name.clone()]].concat();
            metrics.push(sample(
                name,
                timestamp,
                Counter,
                label_values,
                value(interface),
            ));
        }
    }
    let container_metrics = stats::measured_containers(shim, sandbox)
        .await
        .into_iter()
        .map(|(container, counted)| ContainerMetrics {
            container_id: container.id.clone(),
            metrics: of_container(sandbox, &container, counted),
        })
        .collect();
    Ok(PodSandboxMetrics {
        pod_sandbox_id: sandbox.id.clone(),
        metrics,
        container_metrics,
    })
}

fn of_container(
    sandbox: &Sandbox,
    container: &Container,
    counted: agent::ContainerStatsResponse,
) -> Vec<Metric> {
    let record = container.record();
    let labels = labels(sandbox, Some(container));
    let measured = Measured {
        detail: counted.detail.unwrap_or_default(),
        counted,
        resources: record
            .config
            .linux
            .and_then(|linux| linux.resources)
            .unwrap_or_default(),
        started_at_ns: record.started_at_ns,
    };
    let timestamp = now_ns();
    CONTAINER_METRICS
        .iter()
        .map(|metric| {
            let extra = metric.failure.iter().flatten().map(|text| text.to_string());
            let label_values = labels.iter().cloned().chain(extra).collect();
            let value = (metric.value)(&measured);
            sample(metric.name, timestamp, metric.kind, label_values, value)
        })
        .collect()
}

/// Values of [`LABELS`].
fn labels(sandbox: &Sandbox, container: Option<&Container>) -> Vec<String> {
    let pod = sandbox.record().config.metadata.unwrap_or_default();
    let (id, name, image) = match container.map(Container::record) {
        Some(record) => (
            record.id,
            record.config.metadata.unwrap_or_default().name,
            record.config.image.unwrap_or_default().image,
        ),
        None => (sandbox.id.clone(), POD_NAME.to_string(), String::new()),
    };
    vec![id.clone(), id, image, name, pod.name, pod.namespace]
}

fn sample(
    name: &str,
    timestamp: i64,
    kind: MetricType,
    label_values: Vec<String>,
    value: u64,
) -> Metric {
    Metric {
        name: name.to_string(),
        timestamp,
        metric_type: kind as i32,
        label_values,
        value: Some(UInt64Value { value }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_metric_is_described_once() {
        let described = descriptors().descriptors;
        let names: HashSet<&str> = described.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names.len(), described.len());
        for metric in CONTAINER_METRICS {
            let one = described
                .iter()
                .find(|one| one.name == metric.name)
                .unwrap();
            let extra = metric.failure.map_or(0, |labels| labels.len());
            assert_eq!(
                one.label_keys.len(),
                LABELS.len() + extra,
                "{}",
                metric.name
            );
            assert!(!one.help.is_empty());
        }
        for (name, ..) in INTERFACE_METRICS {
            assert!(names.contains(name));
        }
    }
}
