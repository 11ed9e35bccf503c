//! `/stats/summary`: the node and its pods in the JSON of kubelet's stats API (v1alpha1).

use hull_cri_api::v1 as cri;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::node_usage::{CpuUsage, Filesystem, Memory, boot_time, process_ids};
use super::{container_name, containers, number, pod_of};

/// What a summary is made from.
pub struct Sources<'a> {
    /// The node's name.
    pub node_name: &'a str,
    /// The node's processors.
    pub cpu: Option<CpuUsage>,
    /// The node's memory.
    pub memory: Option<Memory>,
    /// The filesystem of the agent's directory.
    pub node_fs: Option<Filesystem>,
    /// The filesystem of images.
    pub image_fs: Option<Filesystem>,
    /// What the images use, bytes.
    pub image_bytes: Option<u64>,
    /// What the runtime reports of its sandboxes.
    pub pods: &'a [cri::PodSandboxStats],
    /// Now.
    pub now: Timestamp,
}

/// Makes the summary.
pub fn summary(sources: &Sources<'_>) -> Value {
    json!({
        "node": node(sources),
        "pods": sources.pods.iter().filter_map(pod).collect::<Vec<_>>(),
    })
}

fn node(sources: &Sources<'_>) -> Value {
    let now = sources.now;
    let mut node = Map::new();
    node.insert("nodeName".into(), json!(sources.node_name));
    if let Some(at) = boot_time() {
        node.insert("startTime".into(), json!(at));
    }
    if let Some(cpu) = sources.cpu {
        let value = json!({"time": now, "usageCoreNanoSeconds": cpu.used_ns,
            "usageNanoCores": cpu.nano_cores});
        node.insert("cpu".into(), value);
    }
    if let Some(memory) = sources.memory {
        let value = json!({"time": now, "availableBytes": memory.available,
            "usageBytes": memory.used, "workingSetBytes": memory.working_set});
        node.insert("memory".into(), value);
    }
    if let Some(found) = sources.node_fs {
        node.insert("fs".into(), filesystem(found, None, now));
    }
    if let Some(found) = sources.image_fs {
        let value = filesystem(found, sources.image_bytes, now);
        node.insert("runtime".into(), json!({"imageFs": value}));
    }
    if let Some((max, present)) = process_ids() {
        let value = json!({"time": now, "maxpid": max, "curproc": present});
        node.insert("rlimit".into(), value);
    }
    Value::Object(node)
}

fn filesystem(found: Filesystem, used: Option<u64>, now: Timestamp) -> Value {
    let used = used.unwrap_or(found.capacity_bytes.saturating_sub(found.available_bytes));
    json!({
        "time": now,
        "capacityBytes": found.capacity_bytes, "availableBytes": found.available_bytes,
        "usedBytes": used, "inodes": found.inodes, "inodesFree": found.inodes_free,
        "inodesUsed": found.inodes.saturating_sub(found.inodes_free),
    })
}

fn pod(stats: &cri::PodSandboxStats) -> Option<Value> {
    let (namespace, name, uid) = pod_of(stats)?;
    let linux = stats.linux.clone().unwrap_or_default();
    let containers: Vec<Value> = containers(stats).iter().filter_map(container).collect();
    let mut pod = json!({
        "podRef": {"name": name, "namespace": namespace, "uid": uid},
        "containers": containers,
    });
    set(&mut pod, "cpu", linux.cpu.as_ref().map(cpu));
    set(&mut pod, "memory", linux.memory.as_ref().map(memory));
    set(&mut pod, "network", linux.network.as_ref().map(network));
    let processes = linux.process.as_ref();
    let count = processes.and_then(|found| number(found.process_count.as_ref()));
    let value = count.map(|count| json!({"process_count": count}));
    set(&mut pod, "process_stats", value);
    Some(pod)
}

fn container(stats: &cri::ContainerStats) -> Option<Value> {
    let mut container = json!({"name": container_name(stats)?});
    set(&mut container, "cpu", stats.cpu.as_ref().map(cpu));
    set(&mut container, "memory", stats.memory.as_ref().map(memory));
    let layer = stats.writable_layer.as_ref().map(|layer| {
        json!({"time": time(layer.timestamp), "usedBytes": number(layer.used_bytes.as_ref()),
            "inodesUsed": number(layer.inodes_used.as_ref())})
    });
    set(&mut container, "rootfs", layer);
    let swap = stats.swap.as_ref().map(|swap| {
        json!({"time": time(swap.timestamp),
            "swapUsageBytes": number(swap.swap_usage_bytes.as_ref())})
    });
    set(&mut container, "swap", swap);
    Some(container)
}

fn set(object: &mut Value, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        object[key] = value;
    }
}

fn time(nanoseconds: i64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()
}

fn cpu(usage: &cri::CpuUsage) -> Value {
    json!({
        "time": time(usage.timestamp),
        "usageNanoCores": number(usage.usage_nano_cores.as_ref()),
        "usageCoreNanoSeconds": number(usage.usage_core_nano_seconds.as_ref()),
    })
}

fn memory(usage: &cri::MemoryUsage) -> Value {
    json!({
        "time": time(usage.timestamp),
        "availableBytes": number(usage.available_bytes.as_ref()),
        "usageBytes": number(usage.usage_bytes.as_ref()),
        "workingSetBytes": number(usage.working_set_bytes.as_ref()),
        "rssBytes": number(usage.rss_bytes.as_ref()),
        "pageFaults": number(usage.page_faults.as_ref()),
        "majorPageFaults": number(usage.major_page_faults.as_ref()),
    })
}

fn network(usage: &cri::NetworkUsage) -> Value {
    let mut value = usage
        .default_interface
        .as_ref()
        .map_or_else(|| json!({}), interface);
    value["time"] = json!(time(usage.timestamp));
    let all = usage.default_interface.iter().chain(&usage.interfaces);
    value["interfaces"] = all.map(interface).collect();
    value
}

fn interface(usage: &cri::NetworkInterfaceUsage) -> Value {
    json!({
        "name": usage.name,
        "rxBytes": number(usage.rx_bytes.as_ref()), "rxErrors": number(usage.rx_errors.as_ref()),
        "txBytes": number(usage.tx_bytes.as_ref()), "txErrors": number(usage.tx_errors.as_ref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::pod_stats;

    #[test]
    fn pods_and_their_containers_are_summed_up() {
        let cpu = CpuUsage {
            used_ns: 9,
            nano_cores: Some(4),
        };
        let summary = summary(&Sources {
            node_name: "n1",
            cpu: Some(cpu),
            memory: None,
            node_fs: None,
            image_fs: None,
            image_bytes: None,
            pods: &[pod_stats()],
            now: Timestamp::UNIX_EPOCH,
        });
        assert_eq!(summary["node"]["nodeName"], "n1");
        assert_eq!(summary["node"]["cpu"]["usageNanoCores"], 4);
        let pod = &summary["pods"][0];
        assert_eq!(
            pod["podRef"],
            json!({"name": "p", "namespace": "d", "uid": "u"})
        );
        assert_eq!(pod["cpu"]["usageNanoCores"], 300);
        let container = &pod["containers"][0];
        assert_eq!(container["name"], "c");
        assert_eq!(container["memory"]["workingSetBytes"], 1000);
        assert_eq!(container["cpu"]["time"], "1970-01-01T00:00:07Z");
        assert!(container.get("rootfs").is_none());
    }
}
