//! The shapes of Kubernetes' scheduler_perf: nodes of 4 CPU, 32 GiB and 110 pods; pods of 100m and
//! 500 Mi.

use clap::ValueEnum;
use serde_json::{Value, json};

/// Zones that nodes are spread over.
const ZONES: usize = 3;
/// Of the first pods that no node can take, one for so many others.
const UNSCHEDULABLE_SHARE: usize = 20;

/// What the pods ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Resources only.
    Basic,
    /// Spread over zones, at most 5 apart.
    SpreadingRequired,
    /// Spread over zones if possible.
    SpreadingPreferred,
    /// To a zone where one like it is.
    Affinity,
    /// Never two on a node.
    AntiAffinity,
    /// Only two of the zones.
    NodeAffinity,
    /// Nodes full of less important pods.
    Preemption,
    /// Others that fit nowhere are waiting.
    Unschedulable,
    /// One for each node, by its name.
    DaemonSet,
}

/// A node.
pub fn node(number: usize) -> Value {
    let name = node_name(number);
    let zone = format!("zone-{}", number % ZONES);
    let resources =
        json!({"cpu": "4", "memory": "32Gi", "ephemeral-storage": "500Gi", "pods": "110"});
    json!({
        "metadata": {"name": name, "uid": name, "labels": {
            "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone
        }},
        "spec": {},
        "status": {"capacity": resources, "allocatable": resources},
    })
}

/// A node's name.
pub fn node_name(number: usize) -> String {
    format!("hull-bench-node-{number:05}")
}

fn pod_of(name: String, cpu: &str, memory: &str, more: Value) -> Value {
    let mut spec = json!({"containers": [{
        "name": "none", "image": "none",
        "resources": {"requests": {"cpu": cpu, "memory": memory}}
    }]});
    if let Value::Object(more) = more {
        for (key, value) in more {
            spec[key] = value;
        }
    }
    json!({
        "metadata": {
            "name": name, "namespace": "default", "uid": name, "labels": {"app": "bench"},
            "creationTimestamp": "2026-01-01T00:00:00Z"
        },
        "spec": spec,
    })
}

fn own(zone_or_host: &str) -> Value {
    json!({
        "labelSelector": {"matchLabels": {"app": "bench"}}, "topologyKey": zone_or_host
    })
}

fn spreading(when: &str) -> Value {
    let mut constraint = own("topology.kubernetes.io/zone");
    constraint["maxSkew"] = 5.into();
    constraint["whenUnsatisfiable"] = when.into();
    json!({"topologySpreadConstraints": [constraint]})
}

fn node_terms(term: Value) -> Value {
    json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [term]
    }}}})
}

impl Workload {
    /// A measured pod.
    pub fn pod(self, number: usize) -> Value {
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        let more = match self {
            Workload::Basic | Workload::Unschedulable => json!({}),
            Workload::SpreadingRequired => spreading("DoNotSchedule"),
            Workload::SpreadingPreferred => spreading("ScheduleAnyway"),
            Workload::Affinity => json!({"affinity": {"podAffinity": {
                required: [own("topology.kubernetes.io/zone")]
            }}}),
            Workload::AntiAffinity => json!({"affinity": {"podAntiAffinity": {
                required: [own("kubernetes.io/hostname")]
            }}}),
            Workload::NodeAffinity => node_terms(json!({"matchExpressions": [{
                "key": "topology.kubernetes.io/zone", "operator": "In",
                "values": ["zone-0", "zone-1"]
            }]})),
            Workload::Preemption => json!({"priority": 100}),
            Workload::DaemonSet => node_terms(json!({"matchFields": [{
                "key": "metadata.name", "operator": "In", "values": [node_name(number)]
            }]})),
        };
        let cpu = match self {
            Workload::Preemption => "3",
            _ => "100m",
        };
        pod_of(format!("pod-{number:06}"), cpu, "500Mi", more)
    }

    /// How many of the `asked` pods make sense on so many nodes.
    pub fn pods(self, nodes: usize, asked: usize) -> usize {
        match self {
            Workload::AntiAffinity | Workload::Preemption | Workload::DaemonSet => asked.min(nodes),
            _ => asked.min(nodes * 40),
        }
    }

    /// Pods that are there, bound, before the measured ones come.
    pub fn placed(self, nodes: usize) -> Vec<Value> {
        let Workload::Preemption = self else {
            return Vec::new();
        };
        let numbers = 0..nodes * 4;
        let placed = numbers.map(|number| {
            let node = json!({"nodeName": node_name(number / 4), "priority": 0});
            pod_of(format!("low-{number:06}"), "900m", "500Mi", node)
        });
        placed.collect()
    }

    /// Pods that wait, and will wait, before the measured ones come.
    pub fn waiting(self, measured: usize) -> Vec<Value> {
        let Workload::Unschedulable = self else {
            return Vec::new();
        };
        let numbers = 0..measured.div_ceil(UNSCHEDULABLE_SHARE);
        let waiting =
            numbers.map(|number| pod_of(format!("big-{number:06}"), "9", "500Mi", json!({})));
        waiting.collect()
    }
}
