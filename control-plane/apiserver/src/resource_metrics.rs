//! `metrics.k8s.io/v1beta1`: what nodes and pods use now, asked of the node agents. Nothing of it
//! is stored. `kubectl top` and autoscalers read it.
//!
//! ```text
//!   /apis/metrics.k8s.io/v1beta1/nodes[/NAME]
//!   /apis/metrics.k8s.io/v1beta1/[namespaces/NAMESPACE/]pods[/NAME]
//!         └──► each node concerned: GET /stats/summary, kept for a few seconds
//! ```

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use http::{Response, StatusCode};
use hull_api::selector::LabelSelector;
use hull_api::{ApiError, Kind, ObjectExt, kinds};
use hull_store::prefix_range;
use hull_timeouts::scaled;
use parking_lot::Mutex;
use rustls::ClientConfig;
use serde_json::{Value, json};

use crate::authorization::Attributes;
use crate::handlers::Backend;
use crate::http::{Query, json_response};
use crate::watch_cache::CachedObject;
use crate::{ApiBody, node_proxy};

/// The group.
pub(crate) const GROUP: &str = "metrics.k8s.io";
/// Its version.
pub(crate) const VERSION: &str = "v1beta1";
const PREFIX: &str = "/apis/metrics.k8s.io/v1beta1/";
/// Verbs of both resources.
const VERBS: [&str; 2] = ["get", "list"];
/// A node's answer is used again for so long.
const FRESH: Duration = Duration::from_secs(5);
/// A node that does not answer in this time (scaled) is left out.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);
/// The span that rates are over, as the node agents make them.
const WINDOW: &str = "10s";

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted<'p> {
    resource: &'static str,
    namespace: &'p str,
    name: &'p str,
}

impl<'p> Wanted<'p> {
    /// `None`: the path is of something else.
    pub(crate) fn parse(path: &'p str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix(PREFIX)?.split('/').collect();
        let (resource, namespace, name) = match parts.as_slice() {
            ["nodes"] => ("nodes", "", ""),
            ["nodes", name] => ("nodes", "", *name),
            ["pods"] => ("pods", "", ""),
            ["namespaces", namespace, "pods"] => ("pods", *namespace, ""),
            ["namespaces", namespace, "pods", name] => ("pods", *namespace, *name),
            _ => return None,
        };
        Some(Wanted {
            resource,
            namespace,
            name,
        })
    }

    /// What has to be allowed.
    pub(crate) fn attributes(self) -> Attributes<'p> {
        Attributes {
            verb: if self.name.is_empty() { "list" } else { "get" },
            group: GROUP,
            resource: self.resource,
            namespace: self.namespace,
            name: self.name,
            ..Attributes::default()
        }
    }

    fn kind(self) -> &'static Kind {
        match self.resource {
            "nodes" => &kinds::NODES,
            _ => &kinds::PODS,
        }
    }

    fn not_found(self) -> ApiError {
        let resource = hull_api::status::ResourceName {
            group: GROUP,
            ..self.kind().resource()
        };
        ApiError::not_found(resource, self.name)
    }
}

struct Asked {
    at: Instant,
    summary: Arc<Value>,
}

/// What the nodes answered last.
#[derive(Default)]
pub(crate) struct ResourceMetrics {
    answers: Mutex<HashMap<String, Asked>>,
}

impl ResourceMetrics {
    /// Answers a request that was allowed.
    pub(crate) async fn respond(
        &self,
        backend: &Backend,
        tls: &Arc<ClientConfig>,
        wanted: Wanted<'_>,
        query: &Query,
    ) -> Result<Response<ApiBody>, ApiError> {
        let objects = select(backend, wanted, query)?;
        let summaries = self.summaries(backend, tls, wanted.kind(), &objects).await;
        let mut items: Vec<Value> = objects
            .iter()
            .filter_map(|object| match wanted.resource {
                "nodes" => node_metrics(&object.parsed(), &summaries),
                _ => pod_metrics(&object.parsed(), &summaries),
            })
            .collect();
        let value = if wanted.name.is_empty() {
            let kind = format!("{}List", item_kind(wanted.resource));
            json!({"kind": kind, "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {},
                "items": items})
        } else {
            items.pop().ok_or_else(|| wanted.not_found())?
        };
        Ok(json_response(StatusCode::OK, value.to_string()))
    }

    /// The summaries of the nodes that objects are or run on, by node.
    async fn summaries(
        &self,
        backend: &Backend,
        tls: &Arc<ClientConfig>,
        kind: &Kind,
        objects: &[Arc<CachedObject>],
    ) -> BTreeMap<String, Arc<Value>> {
        let mut names: Vec<Cow<'_, str>> = objects
            .iter()
            .map(|object| node_of(kind, object))
            .filter(|name| !name.is_empty())
            .collect();
        names.sort_unstable();
        names.dedup();
        let asked = names.into_iter().map(|name| async move {
            let summary = self.summary(backend, tls, &name).await?;
            Some((name.into_owned(), summary))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    async fn summary(
        &self,
        backend: &Backend,
        tls: &Arc<ClientConfig>,
        name: &str,
    ) -> Option<Arc<Value>> {
        if let Some(asked) = self.answers.lock().get(name)
            && asked.at.elapsed() < FRESH
        {
            return Some(asked.summary.clone());
        }
        let node = backend
            .cache
            .get(kinds::NODES.storage, &kinds::NODES.key("", name))?;
        let node = node.parsed();
        let answer = node_proxy::get_json(tls, &node, "/stats/summary");
        let summary = match tokio::time::timeout(scaled(NODE_TIMEOUT), answer).await {
            Ok(Ok(summary)) => Arc::new(summary),
            Ok(Err(error)) => {
                tracing::warn!(node = name, error = error.message, "node not measured");
                return None;
            }
            Err(_) => {
                tracing::warn!(node = name, "node did not say in time what it uses");
                return None;
            }
        };
        let mut answers = self.answers.lock();
        answers.retain(|_, asked| asked.at.elapsed() < FRESH);
        let asked = Asked {
            at: Instant::now(),
            summary: summary.clone(),
        };
        answers.insert(name.to_owned(), asked);
        Some(summary)
    }
}

/// The nodes or pods that a request is about.
fn select(
    backend: &Backend,
    wanted: Wanted<'_>,
    query: &Query,
) -> Result<Vec<Arc<CachedObject>>, ApiError> {
    let kind = wanted.kind();
    if !wanted.name.is_empty() {
        let key = kind.key(wanted.namespace, wanted.name);
        let found = backend.cache.get(kind.storage, &key);
        return Ok(vec![found.ok_or_else(|| wanted.not_found())?]);
    }
    let labels = LabelSelector::parse(query.get("labelSelector"))
        .map_err(|error| ApiError::bad_request(error.0))?;
    let range = prefix_range(&kind.prefix(wanted.namespace));
    let mut objects = backend.cache.snapshot(kind.storage, range).objects;
    objects.retain(|object| object.has_labels(&labels));
    Ok(objects)
}

/// The node that an object of the kind is or runs on.
fn node_of<'a>(kind: &Kind, object: &'a CachedObject) -> Cow<'a, str> {
    if kind.storage == kinds::PODS.storage {
        object.field(kind, "spec.nodeName").unwrap_or_default()
    } else {
        Cow::from(object.name())
    }
}

fn item_kind(resource: &str) -> &'static str {
    match resource {
        "nodes" => "NodeMetrics",
        _ => "PodMetrics",
    }
}

/// `cpu` in nanocores and `memory` in kibibytes; `None` until there is a rate.
fn usage(measured: &Value) -> Option<Value> {
    let cpu = measured.pointer("/cpu/usageNanoCores")?.as_u64()?;
    let memory = measured.pointer("/memory/workingSetBytes")?.as_u64()?;
    Some(json!({"cpu": format!("{cpu}n"), "memory": format!("{}Ki", memory / 1024)}))
}

fn metrics(kind: &str, object: &Value, measured: &Value) -> Value {
    let mut metadata = json!({"name": object.name(), "creationTimestamp": hull_api::time::to_seconds(jiff::Timestamp::now())});
    if !object.namespace().is_empty() {
        metadata["namespace"] = json!(object.namespace());
    }
    if let Some(labels) = object.labels() {
        metadata["labels"] = json!(labels);
    }
    let at: Option<jiff::Timestamp> = measured.str_at("/cpu/time").parse().ok();
    let at = at.unwrap_or_else(jiff::Timestamp::now);
    json!({
        "kind": kind, "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": metadata,
        "timestamp": hull_api::time::to_seconds(at), "window": WINDOW,
    })
}

fn node_metrics(node: &Value, summaries: &BTreeMap<String, Arc<Value>>) -> Option<Value> {
    let measured = summaries.get(node.name())?.get("node")?;
    let mut found = metrics("NodeMetrics", node, measured);
    found["usage"] = usage(measured)?;
    Some(found)
}

/// A pod's metrics; `None` while one of its containers is not measured.
fn pod_metrics(pod: &Value, summaries: &BTreeMap<String, Arc<Value>>) -> Option<Value> {
    let summary = summaries.get(pod.str_at("/spec/nodeName"))?;
    let uid = |measured: &&Value| {
        let mirrored = pod.str_at("/metadata/annotations/kubernetes.io~1config.mirror");
        let found = measured.str_at("/podRef/uid");
        found == pod.uid() || (!mirrored.is_empty() && found == mirrored)
    };
    let measured = summary.list_at("/pods").iter().find(uid)?;
    let containers: Option<Vec<Value>> = measured
        .list_at("/containers")
        .iter()
        .map(|container| {
            Some(json!({"name": container.str_at("/name"), "usage": usage(container)?}))
        })
        .collect();
    let containers = containers.filter(|containers| !containers.is_empty())?;
    let mut found = metrics("PodMetrics", pod, measured);
    found["containers"] = json!(containers);
    Some(found)
}

/// The group's resources, for discovery.
pub(crate) fn resource_list() -> Value {
    let entry = |resource: &str, namespaced: bool| {
        json!({"name": resource, "singularName": "", "namespaced": namespaced,
            "kind": item_kind(resource), "verbs": VERBS})
    };
    json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [entry("nodes", false), entry("pods", true)],
    })
}

/// The group in aggregated discovery.
pub(crate) fn aggregated_group() -> Value {
    let entry = |resource: &str, scope: &str| {
        json!({"resource": resource, "singularResource": "", "scope": scope, "verbs": VERBS,
            "responseKind": {"group": GROUP, "version": VERSION, "kind": item_kind(resource)}})
    };
    json!({
        "metadata": {"name": GROUP, "creationTimestamp": null},
        "versions": [{"version": VERSION, "freshness": "Current",
            "resources": [entry("nodes", "Cluster"), entry("pods", "Namespaced")]}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_what_is_wanted_and_what_must_be_allowed() {
        let path = "/apis/metrics.k8s.io/v1beta1/namespaces/d/pods/p";
        let attributes = Wanted::parse(path).unwrap().attributes();
        assert_eq!(
            (attributes.verb, attributes.group, attributes.resource),
            ("get", GROUP, "pods")
        );
        assert_eq!((attributes.namespace, attributes.name), ("d", "p"));
        let all = Wanted::parse("/apis/metrics.k8s.io/v1beta1/nodes").unwrap();
        assert_eq!(all.attributes().verb, "list");
        assert_eq!(Wanted::parse("/apis/metrics.k8s.io/v1beta1"), None);
        assert_eq!(Wanted::parse("/apis/metrics.k8s.io/v1beta1/x"), None);
    }

    #[test]
    fn containers_of_a_pod_are_found_in_its_nodes_summary() {
        let used = json!({"cpu": {"usageNanoCores": 250, "time": "2026-11-22T05:00:00Z"},
            "memory": {"workingSetBytes": 2048}});
        let mut container = used.clone();
        container["name"] = json!("c");
        let mut measured = used;
        measured["podRef"] = json!({"uid": "u"});
        measured["containers"] = json!([container]);
        let summaries = BTreeMap::from([("n".to_owned(), Arc::new(json!({"pods": [measured]})))]);
        let mut pod = json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {"nodeName": "n"}});
        let found = pod_metrics(&pod, &summaries).unwrap();
        assert_eq!(
            found["containers"],
            json!([{"name": "c", "usage": {"cpu": "250n", "memory": "2Ki"}}])
        );
        assert_eq!(found["timestamp"], "2026-11-22T05:00:00Z");
        // The mirror of a static pod shows what that pod uses.
        pod["metadata"]["uid"] = json!("other");
        assert!(pod_metrics(&pod, &summaries).is_none());
        pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "u"});
        assert!(pod_metrics(&pod, &summaries).is_some());
    }
}
