//! What pods use now, from `metrics.k8s.io`.

use std::{collections::HashMap, time::Duration};

use hull_api::quantity::Quantity;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::core::ApiResource;
use serde_json::Value;

use crate::runtime::{Target, WriteError, Writer};

/// Window of a measurement that does not name it.
const DEFAULT_WINDOW: Duration = Duration::from_secs(30);

/// One resource of one pod.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    /// Thousandths.
    pub milli: i64,
    pub at: Timestamp,
    pub window: Duration,
}

/// By the pod's name.
pub(super) type Usage = HashMap<String, Measured>;

/// Which amount of a pod is meant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// `cpu`, `memory`.
    pub resource: &'a str,
    /// Only this container.
    pub container: Option<&'a str>,
}

/// What pod metrics are as a resource.
pub(super) fn pod_metrics() -> ApiResource {
    ApiResource {
        group: "metrics.k8s.io".into(),
        version: "v1beta1".into(),
        api_version: "metrics.k8s.io/v1beta1".into(),
        kind: "PodMetrics".into(),
        plural: "pods".into(),
    }
}

fn window(text: Option<&str>) -> Duration {
    let parsed = text.and_then(|text| text.parse::<k8s_openapi::jiff::SignedDuration>().ok());
    parsed
        .and_then(|window| Duration::try_from(window).ok())
        .unwrap_or(DEFAULT_WINDOW)
}

/// The sum over the containers that are meant; `None` while one of them is not measured.
fn sum(metrics: &Value, wanted: Wanted<'_>) -> Option<i64> {
    let containers = metrics.get("containers")?.as_array()?;
    let mut found = containers
        .iter()
        .filter(|container| {
            wanted
                .container
                .is_none_or(|name| container["name"] == name)
        })
        .peekable();
    found.peek()?;
    found
        .map(|container| {
            let amount = container["usage"][wanted.resource].as_str()?;
            Some(amount.parse::<Quantity>().ok()?.milli_value())
        })
        .try_fold(0, |total: i64, one: Option<i64>| {
            Some(total.saturating_add(one?))
        })
}

/// What all pods of the namespace use that are measured.
pub(super) async fn read(
    writer: &dyn Writer,
    namespace: &str,
    wanted: Wanted<'_>,
) -> Result<Usage, WriteError> {
    let resource = pod_metrics();
    let target = Target {
        resource: &resource,
        namespace,
        name: "",
    };
    let mut usage = Usage::new();
    for metrics in writer.list(target).await? {
        let Some(name) = metrics.metadata.name.clone() else {
            continue;
        };
        if let Some(milli) = sum(&metrics.data, wanted) {
            let at = metrics.data["timestamp"]
                .as_str()
                .and_then(|text| text.parse().ok());
            let measured = Measured {
                milli,
                at: at.unwrap_or_else(Timestamp::now),
                window: window(metrics.data["window"].as_str()),
            };
            usage.insert(name, measured);
        }
    }
    Ok(usage)
}

/// What the pod asks for of it, in thousandths.
pub(super) fn requested(pod: &Pod, wanted: Wanted<'_>) -> Result<i64, String> {
    let spec = pod.spec.as_ref();
    let amount = |requests: Option<&std::collections::BTreeMap<String, _>>| -> Option<i64> {
        let text: &k8s_openapi::apimachinery::pkg::api::resource::Quantity =
            requests?.get(wanted.resource)?;
        Some(text.0.parse::<Quantity>().ok()?.milli_value())
    };
    if wanted.container.is_none()
        && let Some(whole) = spec.and_then(|spec| spec.resources.as_ref())
        && let Some(milli) = amount(whole.requests.as_ref())
    {
        return Ok(milli);
    }
    let sidecars = spec.and_then(|spec| spec.init_containers.as_ref());
    let sidecars = sidecars.into_iter().flatten();
    let sidecars = sidecars.filter(|init| init.restart_policy.as_deref() == Some("Always"));
    let containers = spec
        .into_iter()
        .flat_map(|spec| &spec.containers)
        .chain(sidecars);
    let mut total: i64 = 0;
    for container in containers {
        if wanted.container.is_some_and(|name| name != container.name) {
            continue;
        }
        let requests = container
            .resources
            .as_ref()
            .and_then(|own| own.requests.as_ref());
        let asked = amount(requests).ok_or_else(|| {
            format!(
                "missing request for {} in container {} of Pod {}",
                wanted.resource,
                container.name,
                pod.metadata.name.as_deref().unwrap_or_default()
            )
        })?;
        total = total.saturating_add(asked);
    }
    Ok(total)
}
