//! What a node's agent may do: its own objects, and what the pods bound to it refer to.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use hull_api::{ObjectExt, kinds::PODS};
use parking_lot::RwLock;
use serde_json::Value;

use super::{
    Attributes, Decision,
    follow::{Follower, Step},
};
use crate::{
    UserInfo,
    watch_cache::{CachedObject, WatchCache},
};

/// The group of every node's agent.
pub(crate) const NODES_GROUP: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The node whose agent this is.
pub(crate) fn node_name(user: &UserInfo) -> Option<&str> {
    user.name
        .strip_prefix(NODE_PREFIX)
        .filter(|name| !name.is_empty() && user.in_group(NODES_GROUP))
}

/// Something that a pod refers to: resource, namespace, name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct PodReference {
    resource: &'static str,
    namespace: String,
    name: String,
}

/// Fields in a volume, environment entry or list that name an object.
const SECRETS: &str = "secrets";
const CONFIG_MAPS: &str = "configmaps";
const CLAIMS: &str = "persistentvolumeclaims";
const ACCOUNTS: &str = "serviceaccounts";

/// Everything that a pod refers to.
fn references(pod: &Value) -> BTreeSet<PodReference> {
    let namespace = pod.namespace();
    let mut found = BTreeSet::new();
    let mut add = |resource: &'static str, name: &str| {
        if !name.is_empty() {
            found.insert(PodReference {
                resource,
                namespace: namespace.to_string(),
                name: name.to_string(),
            });
        }
    };
    add(ACCOUNTS, pod.str_at("/spec/serviceAccountName"));
    for secret in pod.list_at("/spec/imagePullSecrets") {
        add(SECRETS, secret.str_at("/name"));
    }
    for containers in [
        "/spec/initContainers",
        "/spec/containers",
        "/spec/ephemeralContainers",
    ] {
        for container in pod.list_at(containers) {
            for variable in container.list_at("/env") {
                add(SECRETS, variable.str_at("/valueFrom/secretKeyRef/name"));
                add(
                    CONFIG_MAPS,
                    variable.str_at("/valueFrom/configMapKeyRef/name"),
                );
            }
            for source in container.list_at("/envFrom") {
                add(SECRETS, source.str_at("/secretRef/name"));
                add(CONFIG_MAPS, source.str_at("/configMapRef/name"));
            }
        }
    }
    for volume in pod.list_at("/spec/volumes") {
        add(SECRETS, volume.str_at("/secret/secretName"));
        add(CONFIG_MAPS, volume.str_at("/configMap/name"));
        add(CLAIMS, volume.str_at("/persistentVolumeClaim/claimName"));
        if volume.get("ephemeral").is_some() {
            let claim = format!("{}-{}", pod.name(), volume.str_at("/name"));
            add(CLAIMS, &claim);
        }
        add(SECRETS, volume.str_at("/csi/nodePublishSecretRef/name"));
        for source in volume.list_at("/projected/sources") {
            add(SECRETS, source.str_at("/secret/name"));
            add(CONFIG_MAPS, source.str_at("/configMap/name"));
        }
    }
    found
}

fn node_of(pod: &CachedObject) -> Cow<'_, str> {
    pod.field(&PODS, "spec.nodeName").unwrap_or_default()
}

/// For each node, what its pods refer to and how many of them do.
#[derive(Default)]
struct Graph {
    by_node: HashMap<String, HashMap<PodReference, usize>>,
    /// What each bound pod added, by its key.
    pods: HashMap<String, (String, BTreeSet<PodReference>)>,
}

impl Graph {
    fn take(&mut self, step: &Step<'_>) {
        let bound = step.after.filter(|pod| !node_of(pod).is_empty());
        // A pod's references never change once it is bound, except for ephemeral containers.
        let unchanged = |pod: &CachedObject| {
            step.before
                .is_some_and(|old| old.raw("spec") == pod.raw("spec"))
        };
        if let Some(pod) = bound
            && unchanged(pod)
            && self.pods.contains_key(step.key)
        {
            return;
        }
        self.forget(step.key);
        let Some(pod) = bound else { return };
        let node = node_of(pod).into_owned();
        let references = references(&pod.parts(&["metadata", "spec"]));
        let counts = self.by_node.entry(node.clone()).or_default();
        for reference in &references {
            *counts.entry(reference.clone()).or_default() += 1;
        }
        self.pods.insert(step.key.to_string(), (node, references));
    }

    fn forget(&mut self, key: &str) {
        let Some((node, references)) = self.pods.remove(key) else {
            return;
        };
        let Some(counts) = self.by_node.get_mut(&node) else {
            return;
        };
        for reference in references {
            if let Some(count) = counts.get_mut(&reference) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&reference);
                }
            }
        }
        if counts.is_empty() {
            self.by_node.remove(&node);
        }
    }
}

struct State {
    graph: Graph,
    pods: Follower,
}

/// The node authorizer.
pub(super) struct NodeAuthorizer {
    cache: Arc<WatchCache>,
    state: RwLock<State>,
}

/// Verbs and `resource` or `resource/subresource` that need no look at the object: the
/// NodeRestriction admission looks at it when it is written.
const RULES: &[(&[&str], &[&str])] = &[
    (
        &["create", "update", "patch"],
        &["nodes", "nodes/status", "csinodes"],
    ),
    (&["get"], &["csinodes"]),
    (&["create", "delete"], &["pods"]),
    (&["update", "patch", "get"], &["pods/status"]),
    (&["create"], &["pods/eviction"]),
    (&["create", "update", "patch"], &["events"]),
    (
        &["get", "list", "watch"],
        &["runtimeclasses", "csidrivers", "services", "namespaces"],
    ),
    (
        &["create"],
        &[
            "tokenreviews",
            "subjectaccessreviews",
            "localsubjectaccessreviews",
        ],
    ),
    (
        &["create", "get", "list", "watch"],
        &["certificatesigningrequests"],
    ),
    (
        &["get", "list", "watch"],
        &["persistentvolumes", "volumeattachments"],
    ),
];

impl NodeAuthorizer {
    pub(super) fn new(cache: Arc<WatchCache>) -> Self {
        NodeAuthorizer {
            cache,
            state: RwLock::new(State {
                graph: Graph::default(),
                pods: Follower::new(PODS.storage),
            }),
        }
    }

    fn with<T>(&self, read: impl FnOnce(&Graph) -> T) -> T {
        {
            let state = self.state.read();
            if !state.pods.is_behind(&self.cache) {
                return read(&state.graph);
            }
        }
        let mut state = self.state.write();
        let State { graph, pods } = &mut *state;
        if pods.catch_up(&self.cache, &mut |step| graph.take(&step)) {
            *graph = Graph::default();
            pods.load(&self.cache, &mut |step| graph.take(&step));
        }
        read(graph)
    }

    fn reaches(&self, node: &str, reference: &PodReference) -> bool {
        self.with(|graph| {
            graph
                .by_node
                .get(node)
                .is_some_and(|counts| counts.contains_key(reference))
        })
    }

    pub(super) fn authorize(&self, node: &str, wanted: &Attributes<'_>) -> Decision {
        match self.refuse(node, wanted) {
            None => Decision {
                allowed: true,
                reason: String::new(),
            },
            Some(reason) => Decision {
                allowed: false,
                reason,
            },
        }
    }

    /// Why not; an empty text says nothing in particular.
    fn refuse(&self, node: &str, wanted: &Attributes<'_>) -> Option<String> {
        if wanted.path.is_some() {
            return Some(String::new());
        }
        let resource = wanted.full_resource();
        let reads = matches!(wanted.verb, "get" | "list" | "watch");
        let name = match wanted.name {
            "" => wanted.selected_name,
            name => name,
        };
        let of_pods = match resource.as_str() {
            "secrets" if reads => Some(SECRETS),
            "configmaps" if reads => Some(CONFIG_MAPS),
            "persistentvolumeclaims" if wanted.verb == "get" => Some(CLAIMS),
            "serviceaccounts" if wanted.verb == "get" => Some(ACCOUNTS),
            "serviceaccounts/token" if wanted.verb == "create" => Some(ACCOUNTS),
            _ => None,
        };
        if let Some(kind) = of_pods {
            return self.refuse_reference(node, wanted, kind, name);
        }
        match resource.as_str() {
            "nodes" if reads => match name {
                "" => Some(
                    "can only list/watch nodes with a field selector for their own name".into(),
                ),
                name if name == node => None,
                _ => Some("node 'get' is restricted to its own Node object".into()),
            },
            "pods" if wanted.verb == "get" => self.refuse_pod(node, wanted),
            "pods" if reads && wanted.selected_node == node => None,
            "pods" if reads => {
                Some("can only list/watch pods with spec.nodeName field selector".into())
            }
            "leases" => self.refuse_lease(node, wanted),
            resource => {
                let allowed = RULES.iter().any(|(verbs, resources)| {
                    verbs.contains(&wanted.verb) && resources.contains(&resource)
                });
                (!allowed).then(String::new)
            }
        }
    }

    fn refuse_reference(
        &self,
        node: &str,
        wanted: &Attributes<'_>,
        resource: &'static str,
        name: &str,
    ) -> Option<String> {
        if name.is_empty() || wanted.namespace.is_empty() {
            return Some(format!(
                "can only read resources of this type by name: node {node:?}"
            ));
        }
        let reference = PodReference {
            resource,
            namespace: wanted.namespace.to_string(),
            name: name.to_string(),
        };
        (!self.reaches(node, &reference))
            .then(|| format!("no relationship found between node {node:?} and this object"))
    }

    fn refuse_pod(&self, node: &str, wanted: &Attributes<'_>) -> Option<String> {
        let key = PODS.key(wanted.namespace, wanted.name);
        let bound = self.with(|graph| graph.pods.get(&key).is_some_and(|(owner, _)| owner == node));
        // One that is gone may be asked for: the answer is only that it is gone.
        let gone = || self.cache.get(PODS.storage, &key).is_none();
        (!bound && !gone())
            .then(|| format!("no relationship found between node {node:?} and this object"))
    }

    fn refuse_lease(&self, node: &str, wanted: &Attributes<'_>) -> Option<String> {
        let verbs = ["get", "create", "update", "patch", "delete"];
        if wanted.namespace != LEASE_NAMESPACE || !verbs.contains(&wanted.verb) {
            return Some(format!(
                "can only access leases in the {LEASE_NAMESPACE:?} system namespace"
            ));
        }
        // The name of a new one is checked by NodeRestriction.
        let own = wanted.name == node || (wanted.verb == "create" && wanted.name.is_empty());
        (!own)
            .then(|| "can only access node lease with the same name as the requesting node".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(node: &str, secret: &str) -> CachedObject {
        let value = json!({"metadata": {"name": "p", "namespace": "ns"},
            "spec": {"nodeName": node, "serviceAccountName": "bot", "containers": [
                {"name": "c", "envFrom": [{"secretRef": {"name": secret}}],
                 "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}]}],
            "volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "root"}}]}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "disk"}}]}});
        CachedObject::of_value(PODS.key("ns", "p").into(), 1, &value).unwrap()
    }

    fn reaches(graph: &Graph, node: &str, resource: &'static str, name: &str) -> bool {
        let reference = PodReference {
            resource,
            namespace: "ns".into(),
            name: name.into(),
        };
        graph
            .by_node
            .get(node)
            .is_some_and(|all| all.contains_key(&reference))
    }

    #[test]
    fn a_node_reaches_what_its_pods_name_and_no_longer_when_they_are_gone() {
        let mut graph = Graph::default();
        let (unbound, bound) = (pod("", "s"), pod("n", "s"));
        let mut take = |key: &str, before: Option<&CachedObject>, after: Option<&CachedObject>| {
            graph.take(&Step { key, before, after });
        };
        take("p", None, Some(&unbound));
        take("p", Some(&unbound), Some(&bound));
        take("q", None, Some(&bound));
        for (resource, name) in [
            (SECRETS, "s"),
            (CONFIG_MAPS, "m"),
            (CONFIG_MAPS, "root"),
            (CLAIMS, "disk"),
            (ACCOUNTS, "bot"),
        ] {
            assert!(reaches(&graph, "n", resource, name), "{resource} {name}");
            assert!(!reaches(&graph, "other", resource, name));
        }
        graph.take(&Step {
            key: "p",
            before: Some(&bound),
            after: None,
        });
        assert!(
            reaches(&graph, "n", SECRETS, "s"),
            "the other pod still names it"
        );
        graph.take(&Step {
            key: "q",
            before: Some(&bound),
            after: None,
        });
        assert!(graph.by_node.is_empty());
    }
}
