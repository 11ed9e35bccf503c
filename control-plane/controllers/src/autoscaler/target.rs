//! What is scaled: anything with a scale subresource.

use std::time::{Duration, Instant};

use hull_api::selector::LabelSelector;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet, StatefulSet},
    autoscaling::v2::CrossVersionObjectReference,
    core::v1::{Pod, ReplicationController},
};
use kube::core::ApiResource;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::runtime::{Target, WriteError, Writer, writer::resource_of};

/// Time after which kinds are looked up anew: CustomResourceDefinitions come and go.
const KINDS_FRESH: Duration = Duration::from_secs(30);

/// Finds the resource of a kind.
#[derive(Default)]
pub(super) struct Kinds {
    served: Mutex<Option<(Instant, Vec<ApiResource>)>>,
}

fn is(resource: &ApiResource, group: &str, kind: &str) -> bool {
    resource.group == group && resource.kind == kind
}

impl Kinds {
    /// The resource of what the reference names.
    pub(super) async fn find(
        &self,
        writer: &dyn Writer,
        reference: &CrossVersionObjectReference,
    ) -> Result<ApiResource, String> {
        let version = reference.api_version.as_deref().unwrap_or("v1");
        let (group, _) = version.split_once('/').unwrap_or(("", version));
        let kind = reference.kind.as_str();
        let built_in = [
            resource_of::<Deployment>(),
            resource_of::<ReplicaSet>(),
            resource_of::<StatefulSet>(),
            resource_of::<ReplicationController>(),
        ];
        if let Some(found) = built_in.into_iter().find(|own| is(own, group, kind)) {
            return Ok(found);
        }
        let known = self.served.lock().clone();
        let fresh = known.filter(|(at, _)| at.elapsed() < KINDS_FRESH);
        let served = match fresh {
            Some((_, served)) => served,
            None => {
                let served = writer
                    .resources()
                    .await
                    .map_err(|error| error.to_string())?;
                let served: Vec<_> = served.into_iter().map(|served| served.resource).collect();
                *self.served.lock() = Some((Instant::now(), served.clone()));
                served
            }
        };
        served
            .into_iter()
            .find(|own| is(own, group, kind))
            .ok_or_else(|| format!("no matches for kind \"{kind}\" in group \"{group}\""))
    }
}

/// The scale of the target as it was read.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    pub resource: ApiResource,
    pub namespace: String,
    pub name: String,
    pub version: Value,
    /// `spec.replicas`.
    pub wanted: i32,
    /// `status.replicas`.
    pub current: i32,
    /// `status.selector`.
    pub selector: String,
}

fn number(value: &Value) -> i32 {
    value
        .as_i64()
        .and_then(|value| i32::try_from(value).ok())
        .unwrap_or(0)
}

impl Scale {
    /// Reads it.
    pub(super) async fn read(
        writer: &dyn Writer,
        resource: ApiResource,
        namespace: &str,
        name: &str,
    ) -> Result<Self, WriteError> {
        let target = Target {
            resource: &resource,
            namespace,
            name,
        };
        let scale = writer.get_part(target, "scale").await?;
        Ok(Scale {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            version: scale["metadata"]["resourceVersion"].clone(),
            wanted: number(&scale["spec"]["replicas"]),
            current: number(&scale["status"]["replicas"]),
            selector: scale["status"]["selector"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            resource,
        })
    }

    /// Sets the size, unless somebody else changed the object meanwhile.
    pub(super) async fn resize(
        &self,
        writer: &dyn Writer,
        replicas: i32,
    ) -> Result<(), WriteError> {
        let target = Target {
            resource: &self.resource,
            namespace: &self.namespace,
            name: &self.name,
        };
        let body = json!({
            "metadata": {"resourceVersion": self.version}, "spec": {"replicas": replicas}
        });
        writer.patch(target, Some("scale"), body).await.map(|_| ())
    }
}

/// Whether the selector of a scale chooses the pod.
pub(super) fn chooses(selector: &LabelSelector, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.iter().flatten();
    let labels: Map<String, Value> = labels
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
        .collect();
    selector.matches(Some(&labels))
}
