//! QoS classes and the Linux resources that requests and limits become.

use std::collections::BTreeMap;

use hull_cri_api::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity;

/// The CFS period of CPU limits, microseconds.
const CPU_PERIOD_US: i64 = 100_000;
/// The least CPU quota the kernel takes, microseconds.
const MIN_CPU_QUOTA_US: i64 = 1000;
/// The least CPU weight (cgroup v1 shares).
const MIN_CPU_SHARES: i64 = 2;

type Resources = BTreeMap<String, Quantity>;

fn requests(container: &Container) -> Resources {
    let resources = container.resources.clone().unwrap_or_default();
    let mut requests = resources.requests.unwrap_or_default();
    // A limit without a request is also the request.
    for (name, limit) in resources.limits.unwrap_or_default() {
        requests.entry(name).or_insert(limit);
    }
    requests
}

fn limits(container: &Container) -> Resources {
    container
        .resources
        .clone()
        .unwrap_or_default()
        .limits
        .unwrap_or_default()
}

/// `Guaranteed`, `Burstable` or `BestEffort` by Kubernetes' rules on cpu and memory.
pub fn qos_class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else {
        return "BestEffort";
    };
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let mut guaranteed = true;
    let mut any = false;
    for container in containers {
        let (requests, limits) = (requests(container), limits(container));
        for resource in ["cpu", "memory"] {
            let positive =
                |q: Option<&Quantity>| q.and_then(quantity::milli).filter(|milli| *milli > 0);
            let request = positive(requests.get(resource));
            let limit = positive(limits.get(resource));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Linux resources of one container.
pub fn container_resources(container: &Container) -> cri::LinuxContainerResources {
    let (requests, limits) = (requests(container), limits(container));
    linux_resources(requests.get("cpu"), limits.get("cpu"), limits.get("memory"))
}

/// The sum over a pod's containers: what its VM is sized by. A limit counts only when every
/// container has one; init containers run alone, so the largest of them counts.
pub fn pod_resources(pod: &Pod) -> cri::LinuxContainerResources {
    let Some(spec) = &pod.spec else {
        return cri::LinuxContainerResources::default();
    };
    let sum = |pick: &dyn Fn(&Container) -> Option<i128>| -> Option<i128> {
        let running = spec.containers.iter().map(pick).sum::<Option<i128>>()?;
        let init = spec
            .init_containers
            .iter()
            .flatten()
            .map(pick)
            .collect::<Option<Vec<_>>>()?;
        Some(running.max(init.into_iter().max().unwrap_or(0)))
    };
    let as_quantity = |milli: Option<i128>| milli.map(|milli| Quantity(format!("{milli}m")));
    let milli_of = |map: &Resources, name: &str| map.get(name).and_then(quantity::milli);
    let cpu_request = sum(&|c| Some(milli_of(&requests(c), "cpu").unwrap_or(0)));
    let cpu_limit = sum(&|c| milli_of(&limits(c), "cpu"));
    let memory_limit = sum(&|c| milli_of(&limits(c), "memory"));
    linux_resources(
        as_quantity(cpu_request).as_ref(),
        as_quantity(cpu_limit).as_ref(),
        as_quantity(memory_limit).as_ref(),
    )
}

/// Shares from the CPU request, quota from the CPU limit, bytes from the memory limit.
pub fn linux_resources(
    cpu_request: Option<&Quantity>,
    cpu_limit: Option<&Quantity>,
    memory_limit: Option<&Quantity>,
) -> cri::LinuxContainerResources {
    let milli = |q: Option<&Quantity>| {
        q.and_then(quantity::milli)
            .and_then(|milli| i64::try_from(milli).ok())
    };
    let shares = milli(cpu_request).map_or(MIN_CPU_SHARES, |milli| {
        (milli.saturating_mul(1024) / 1000).max(MIN_CPU_SHARES)
    });
    let quota = milli(cpu_limit)
        .filter(|milli| *milli > 0)
        .map_or(0, |milli| {
            (milli.saturating_mul(CPU_PERIOD_US) / 1000).max(MIN_CPU_QUOTA_US)
        });
    cri::LinuxContainerResources {
        cpu_period: CPU_PERIOD_US,
        cpu_quota: quota,
        cpu_shares: shares,
        memory_limit_in_bytes: memory_limit.and_then(quantity::value).unwrap_or(0),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(containers: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "spec": {"containers": containers}})).unwrap()
    }

    #[test]
    fn qos_classes_follow_requests_and_limits() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let table = [
            (json!([{"name": "a"}]), "BestEffort"),
            (json!([{"name": "a", "resources": full}]), "Guaranteed"),
            (
                json!([{"name": "a", "resources": full}, {"name": "b"}]),
                "Burstable",
            ),
            (
                json!([{"name": "a", "resources": {"requests": {"cpu": "1m"}}}]),
                "Burstable",
            ),
            (
                json!([{"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"},
                    "limits": {"cpu": "0.5", "memory": "1024Mi"}}}]),
                "Guaranteed",
            ),
        ];
        for (containers, expected) in table {
            assert_eq!(
                qos_class(&pod(containers.clone())),
                expected,
                "{containers}"
            );
        }
    }

    #[test]
    fn pod_limits_add_up_only_when_every_container_has_one() {
        let both = pod(json!([
            {"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}},
            {"name": "b", "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}}]));
        let resources = pod_resources(&both);
        assert_eq!(resources.cpu_quota, 150_000);
        assert_eq!(resources.memory_limit_in_bytes, 128 << 20);
        let one =
            pod(json!([{"name": "a", "resources": {"limits": {"memory": "64Mi"}}}, {"name": "b"}]));
        assert_eq!(pod_resources(&one).memory_limit_in_bytes, 0);
    }
}
