//! A node's agent writes its own Node, its own lease, and the pods that are bound to it.

use hull_api::{ApiError, ObjectExt, kinds, status::ResourceName};
use serde_json::Value;

use crate::{authorization::node_name, handlers::Context};

const MIRROR: &str = "kubernetes.io/config.mirror";
const RESTRICTED_PREFIX: &str = "node-restriction.kubernetes.io/";
/// Labels under kubernetes.io and k8s.io that a node may give itself.
const OWN_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const OWN_LABEL_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];

struct Request<'a> {
    node: &'a str,
    resource: ResourceName<'static>,
}

impl Request<'_> {
    fn refuse(&self, name: &str, why: &str) -> ApiError {
        ApiError::forbidden(self.resource, name, why)
    }

    fn own_name(&self, object: &Value, what: &str) -> Result<(), ApiError> {
        if object.name() == self.node {
            return Ok(());
        }
        Err(self.refuse(
            object.name(),
            &format!(
                "node {:?} is not allowed to modify {what} {:?}",
                self.node,
                object.name()
            ),
        ))
    }

    fn bound(&self, pod: &Value, verb: &str) -> Result<(), ApiError> {
        if pod.str_at("/spec/nodeName") == self.node {
            return Ok(());
        }
        Err(self.refuse(
            pod.name(),
            &format!(
                "node {:?} can only {verb} pods with spec.nodeName set to itself",
                self.node
            ),
        ))
    }
}

fn request<'a>(context: &Context<'a>) -> Option<Request<'a>> {
    node_name(context.user).map(|node| Request {
        node,
        resource: context.kind.resource(),
    })
}

pub(super) fn check_create(context: &Context<'_>, object: &Value) -> Result<(), ApiError> {
    let Some(request) = request(context) else {
        return Ok(());
    };
    match context.kind.schema {
        schema if schema == kinds::PODS.schema => check_mirror_pod(&request, object),
        schema if schema == kinds::NODES.schema => {
            request.own_name(object, "node")?;
            check_labels(&request, object, None)
        }
        schema if schema == kinds::LEASES.schema => check_lease(&request, object),
        "storage.CSINode" => request.own_name(object, "CSINode"),
        _ => Ok(()),
    }
}

pub(super) fn check_update(
    context: &Context<'_>,
    new: &Value,
    old: &Value,
) -> Result<(), ApiError> {
    let Some(request) = request(context) else {
        return Ok(());
    };
    match context.kind.schema {
        schema if schema == kinds::PODS.schema => request.bound(old, "update"),
        schema if schema == kinds::NODES.schema => {
            request.own_name(old, "node")?;
            if new.pointer("/spec/taints") != old.pointer("/spec/taints") {
                return Err(request.refuse(
                    old.name(),
                    &format!("node {:?} is not allowed to modify taints", request.node),
                ));
            }
            check_labels(&request, new, Some(old))
        }
        schema if schema == kinds::LEASES.schema => check_lease(&request, old),
        "storage.CSINode" => request.own_name(old, "CSINode"),
        _ => Ok(()),
    }
}

pub(super) fn check_delete(context: &Context<'_>, object: &Value) -> Result<(), ApiError> {
    let Some(request) = request(context) else {
        return Ok(());
    };
    match context.kind.schema {
        schema if schema == kinds::PODS.schema => {
            let verb = match context.through {
                "eviction" => "evict",
                _ => "delete",
            };
            request.bound(object, verb)
        }
        schema if schema == kinds::NODES.schema => Err(request.refuse(
            object.name(),
            &format!("node {:?} is not allowed to delete nodes", request.node),
        )),
        schema if schema == kinds::LEASES.schema => check_lease(&request, object),
        _ => Ok(()),
    }
}

fn check_lease(request: &Request<'_>, lease: &Value) -> Result<(), ApiError> {
    if lease.name() == request.node {
        return Ok(());
    }
    Err(request.refuse(
        lease.name(),
        "can only access node lease with the same name as the requesting node",
    ))
}

/// A node makes pods only as images of those in its own files.
fn check_mirror_pod(request: &Request<'_>, pod: &Value) -> Result<(), ApiError> {
    let is_mirror = pod
        .map_at("/metadata/annotations")
        .is_some_and(|annotations| annotations.contains_key(MIRROR));
    if !is_mirror {
        return Err(request.refuse(
            pod.name(),
            &format!(
                "pod does not have {MIRROR:?} annotation, node {:?} can only create mirror pods",
                request.node
            ),
        ));
    }
    request.bound(pod, "create")?;
    let reads_objects = pod.list_at("/spec/volumes").iter().any(|volume| {
        ["secret", "configMap", "persistentVolumeClaim", "projected"]
            .iter()
            .any(|source| volume.get(*source).is_some())
    });
    if reads_objects {
        return Err(request.refuse(
            pod.name(),
            &format!(
                "node {:?} can not create pods that reference secrets, configmaps or persistentvolumeclaims",
                request.node
            ),
        ));
    }
    Ok(())
}

fn is_restricted(label: &str) -> bool {
    if label.starts_with(RESTRICTED_PREFIX) {
        return true;
    }
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within = |parent: &str| {
        domain == parent
            || domain
                .strip_suffix(parent)
                .is_some_and(|rest| rest.ends_with('.'))
    };
    (within("kubernetes.io") || within("k8s.io"))
        && !OWN_LABELS.contains(&label)
        && !OWN_LABEL_DOMAINS.iter().any(|allowed| within(allowed))
}

fn check_labels(request: &Request<'_>, new: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let before = |label: &String| old.and_then(|old| old.labels()?.get(label));
    let mut changed: Vec<&str> = new
        .labels()
        .into_iter()
        .flatten()
        .filter(|(label, value)| before(label) != Some(*value))
        .map(|(label, _)| label.as_str())
        .collect();
    let gone = old.and_then(|old| old.labels()).into_iter().flatten();
    changed.extend(gone.map(|(label, _)| label.as_str()).filter(|label| {
        new.labels()
            .is_none_or(|labels| !labels.contains_key(*label))
    }));
    changed.retain(|label| is_restricted(label));
    if changed.is_empty() {
        return Ok(());
    }
    Err(request.refuse(
        new.name(),
        &format!("is not allowed to modify labels: {}", changed.join(", ")),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_labels_itself_only_where_it_may() {
        for label in [
            "kubernetes.io/hostname",
            "node.kubernetes.io/anything",
            "example.com/x",
            "plain",
            "topology.kubernetes.io/zone",
        ] {
            assert!(!is_restricted(label), "{label}");
        }
        for label in [
            "node-restriction.kubernetes.io/x",
            "node-role.kubernetes.io/control-plane",
            "kubernetes.io/x",
            "a.k8s.io/x",
        ] {
            assert!(is_restricted(label), "{label}");
        }
        assert!(!is_restricted("evilkubernetes.io/x"));
    }
}
