//! Amounts of resources, and what a pod asks for.

use std::collections::BTreeMap;

use hull_api::quantity::Quantity;
use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::api::resource::Quantity as QuantityText,
};

/// CPU that a container without a request counts as when nodes are compared (not when they are
/// filtered), in thousandths.
const DEFAULT_MILLI_CPU: i64 = 100;
/// Memory likewise, in bytes.
const DEFAULT_MEMORY: i64 = 200 << 20;

/// Resources of huge pages begin so.
const HUGE_PAGES: &str = "hugepages-";

/// Amounts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Pods (only of nodes).
    pub pods: i64,
    /// Extended resources and huge pages.
    pub extended: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads a resource list. An amount that does not parse (the API server lets none through)
    /// counts as 0.
    pub fn from_list(list: Option<&BTreeMap<String, QuantityText>>) -> Self {
        let mut resources = Resources::default();
        for (name, text) in list.into_iter().flatten() {
            let Ok(quantity) = text.0.parse::<Quantity>() else {
                tracing::warn!(resource = name, quantity = text.0, "not a quantity");
                continue;
            };
            match name.as_str() {
                "cpu" => resources.milli_cpu = quantity.milli_value(),
                "memory" => resources.memory = quantity.value(),
                "ephemeral-storage" => resources.ephemeral_storage = quantity.value(),
                "pods" => resources.pods = quantity.value(),
                _ => {
                    resources.extended.insert(name.clone(), quantity.value());
                }
            }
        }
        resources
    }

    fn merge(&mut self, other: &Resources, combine: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = combine(self.milli_cpu, other.milli_cpu);
        self.memory = combine(self.memory, other.memory);
        self.ephemeral_storage = combine(self.ephemeral_storage, other.ephemeral_storage);
        self.pods = combine(self.pods, other.pods);
        for (name, amount) in &other.extended {
            match self.extended.get_mut(name) {
                Some(own) => *own = combine(*own, *amount),
                None => {
                    self.extended.insert(name.clone(), combine(0, *amount));
                }
            }
        }
    }

    /// Adds each amount.
    pub fn add(&mut self, other: &Resources) {
        self.merge(other, i64::saturating_add);
    }

    /// Adds each amount, but of extended resources only those that are there.
    fn add_to_named(&mut self, other: &Resources) {
        for (name, own) in &mut self.extended {
            *own = own.saturating_add(other.extended.get(name).copied().unwrap_or(0));
        }
        self.milli_cpu = self.milli_cpu.saturating_add(other.milli_cpu);
        self.memory = self.memory.saturating_add(other.memory);
        self.ephemeral_storage = self
            .ephemeral_storage
            .saturating_add(other.ephemeral_storage);
    }

    /// Takes each amount off.
    pub fn subtract(&mut self, other: &Resources) {
        self.merge(other, i64::saturating_sub);
        self.extended.retain(|_, amount| *amount != 0);
    }

    /// Raises each amount to at least the other's.
    pub fn raise_to(&mut self, other: &Resources) {
        self.merge(other, i64::max);
    }
}

fn of_container(container: &Container, with_defaults: bool) -> Resources {
    let requests = container
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref());
    let mut amounts = Resources::from_list(requests);
    if with_defaults {
        let names = |name: &str| requests.is_some_and(|requests| requests.contains_key(name));
        if !names("cpu") {
            amounts.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if !names("memory") {
            amounts.memory = DEFAULT_MEMORY;
        }
    }
    amounts
}

/// What the pod needs at its largest moment: the containers that run together with the
/// restartable init containers, or one init container with the restartable ones before it; plus
/// the overhead of its runtime class. Requests on the pod itself go before those of its containers.
pub fn pod_requests(spec: &PodSpec, with_defaults: bool) -> Resources {
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&of_container(container, with_defaults));
    }
    let mut restartable = Resources::default();
    let mut largest_init = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let amounts = of_container(container, with_defaults);
        // Of what it does not name, the restartable ones need no more than is in `total`: each
        // amount is looked at once, however many containers and resources a pod names.
        let mut peak = amounts.clone();
        peak.add_to_named(&restartable);
        largest_init.raise_to(&peak);
        if container.restart_policy.as_deref() == Some("Always") {
            restartable.add(&amounts);
            total.add(&amounts);
        }
    }
    total.raise_to(&largest_init);
    if let Some(requests) = spec
        .resources
        .as_ref()
        .and_then(|pod| pod.requests.as_ref())
    {
        let pod = Resources::from_list(Some(requests));
        if requests.contains_key("cpu") {
            total.milli_cpu = pod.milli_cpu;
        }
        if requests.contains_key("memory") {
            total.memory = pod.memory;
        }
        let huge = |(name, _): &(String, i64)| name.starts_with(HUGE_PAGES);
        total.extended.extend(pod.extended.into_iter().filter(huge));
    }
    total.add(&Resources::from_list(spec.overhead.as_ref()));
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(cpu: &str, memory: &str, always: bool) -> serde_json::Value {
        let mut container = serde_json::json!({
            "name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}
        });
        if always {
            container["restartPolicy"] = "Always".into();
        }
        container
    }

    fn spec(value: serde_json::Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn containers_add_up_and_the_overhead_comes_on_top() {
        let spec = spec(serde_json::json!({
            "containers": [container("250m", "1Gi", false), container("1", "1G", false)],
            "overhead": {"cpu": "100m", "memory": "64Mi"}
        }));
        let requests = pod_requests(&spec, false);
        assert_eq!(requests.milli_cpu, 1350);
        assert_eq!(requests.memory, (1 << 30) + 1_000_000_000 + (64 << 20));
    }

    #[test]
    fn the_largest_init_container_counts_with_the_restartable_ones_before_it() {
        let spec = spec(serde_json::json!({
            "containers": [container("1", "10", false)],
            "initContainers": [
                container("2", "1", false),
                container("500m", "100", true),
                container("3", "1", false),
            ]
        }));
        let requests = pod_requests(&spec, false);
        assert_eq!((requests.milli_cpu, requests.memory), (3500, 110));
    }

    #[test]
    fn extended_resources_count_at_the_largest_moment() {
        let container = |requests: serde_json::Value, policy: Option<&str>| {
            serde_json::json!({
                "name": "c", "restartPolicy": policy, "resources": {"requests": requests}
            })
        };
        let spec = spec(serde_json::json!({
            "containers": [container(serde_json::json!({"example.com/a": 2}), None)],
            "initContainers": [
                container(serde_json::json!({"example.com/a": 1, "example.com/c": 7}), Some("Always")),
                container(serde_json::json!({"example.com/a": 3, "example.com/b": 5}), None),
                container(serde_json::json!({"example.com/b": 4}), None),
            ],
            "resources": {"requests": {"hugepages-2Mi": "4Mi", "example.com/a": 9}}
        }));
        let expected = [
            ("example.com/a", 4),
            ("example.com/b", 5),
            ("example.com/c", 7),
            ("hugepages-2Mi", 4 << 20),
        ];
        let expected: BTreeMap<String, i64> = expected
            .map(|(name, amount)| (name.to_string(), amount))
            .into();
        assert_eq!(pod_requests(&spec, false).extended, expected);
    }

    #[test]
    fn many_init_containers_and_many_resources_are_added_up_in_a_moment() {
        let resources: serde_json::Map<_, _> = (0..20_000)
            .map(|number| (format!("example.com/r{number}"), 1.into()))
            .collect();
        let sidecar = serde_json::json!({
            "name": "s", "restartPolicy": "Always", "resources": {"requests": resources}
        });
        let mut init = vec![sidecar];
        init.extend((0..20_000).map(|_| container("1", "1", false)));
        let spec = spec(serde_json::json!({"containers": [], "initContainers": init}));
        // 400 million copies otherwise.
        assert_eq!(pod_requests(&spec, false).extended.len(), 20_000);
    }

    #[test]
    fn missing_requests_count_only_for_comparison() {
        let spec = spec(serde_json::json!({"containers": [{"name": "c"}]}));
        assert_eq!(pod_requests(&spec, false), Resources::default());
        assert_eq!(pod_requests(&spec, true).milli_cpu, DEFAULT_MILLI_CPU);
    }
}
