//! `/metrics/resource`: processor and memory of the node, its pods and its containers.

use hull_cri_api::v1 as cri;

use super::exposition::Exposition;
use super::node_usage::{CpuUsage, Memory};
use super::{container_name, containers, number, pod_of};

/// Nanoseconds of a second.
const NANOSECONDS: f64 = 1e9;

/// The text; `complete` is false when the runtime could not be asked.
pub fn metrics(
    cpu: Option<CpuUsage>,
    memory: Option<Memory>,
    pods: &[cri::PodSandboxStats],
    complete: bool,
) -> String {
    let mut text = Exposition::default();
    if let Some(cpu) = cpu {
        let name = "node_cpu_usage_seconds_total";
        let help = "Cumulative cpu time consumed by the node in core-seconds";
        text.metric(name, "counter", help);
        text.sample(name, &[], seconds(cpu.used_ns), 0);
    }
    if let Some(memory) = memory {
        let name = "node_memory_working_set_bytes";
        text.metric(name, "gauge", "Current working set of the node in bytes");
        text.sample(name, &[], memory.working_set, 0);
    }
    of_pods(&mut text, pods);
    of_containers(&mut text, pods);
    let name = "resource_scrape_error";
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    text.metric(name, "gauge", help);
    text.sample(name, &[], u8::from(!complete), 0);
    text.finish()
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / NANOSECONDS
}

fn cpu_sample(usage: Option<&cri::CpuUsage>) -> Option<(f64, i64)> {
    let usage = usage?;
    let used = number(usage.usage_core_nano_seconds.as_ref())?;
    Some((seconds(used), usage.timestamp))
}

fn memory_sample(usage: Option<&cri::MemoryUsage>) -> Option<(u64, i64)> {
    let usage = usage?;
    Some((number(usage.working_set_bytes.as_ref())?, usage.timestamp))
}

fn of_pods(text: &mut Exposition, pods: &[cri::PodSandboxStats]) {
    let name = "pod_cpu_usage_seconds_total";
    let help = "Cumulative cpu time consumed by the pod in core-seconds";
    text.metric(name, "counter", help);
    for pod in pods {
        let linux = pod.linux.as_ref();
        if let Some((namespace, pod_name, _)) = pod_of(pod)
            && let Some((value, at)) = cpu_sample(linux.and_then(|linux| linux.cpu.as_ref()))
        {
            text.sample(
                name,
                &[("namespace", namespace), ("pod", pod_name)],
                value,
                at,
            );
        }
    }
    let name = "pod_memory_working_set_bytes";
    text.metric(name, "gauge", "Current working set of the pod in bytes");
    for pod in pods {
        let linux = pod.linux.as_ref();
        if let Some((namespace, pod_name, _)) = pod_of(pod)
            && let Some((value, at)) = memory_sample(linux.and_then(|linux| linux.memory.as_ref()))
        {
            text.sample(
                name,
                &[("namespace", namespace), ("pod", pod_name)],
                value,
                at,
            );
        }
    }
}

fn of_containers(text: &mut Exposition, pods: &[cri::PodSandboxStats]) {
    let all = || {
        pods.iter().flat_map(|pod| {
            containers(pod).iter().filter_map(move |container| {
                let (namespace, pod_name, _) = pod_of(pod)?;
                let labels = [
                    ("container", container_name(container)?),
                    ("namespace", namespace),
                    ("pod", pod_name),
                ];
                Some((labels, container))
            })
        })
    };
    let name = "container_cpu_usage_seconds_total";
    let help = "Cumulative cpu time consumed by the container in core-seconds";
    text.metric(name, "counter", help);
    for (labels, container) in all() {
        if let Some((value, at)) = cpu_sample(container.cpu.as_ref()) {
            text.sample(name, &labels, value, at);
        }
    }
    let name = "container_memory_working_set_bytes";
    let help = "Current working set of the container in bytes";
    text.metric(name, "gauge", help);
    for (labels, container) in all() {
        if let Some((value, at)) = memory_sample(container.memory.as_ref()) {
            text.sample(name, &labels, value, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::pod_stats;

    #[test]
    fn pods_and_containers_have_their_labels() {
        let text = metrics(None, None, &[pod_stats()], true);
        for line in [
            "pod_cpu_usage_seconds_total{namespace=\"d\",pod=\"p\"} 2 7000",
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"d\",pod=\"p\"} 1.5 7000",
            "container_memory_working_set_bytes{container=\"c\",namespace=\"d\",pod=\"p\"} 1000 7000",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(!text.contains("node_cpu"));
    }
}
