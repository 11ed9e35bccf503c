//! Who a pod is: what ties its API object, its CRI objects and its directories together.

use k8s_openapi::api::core::v1::{ObjectReference, Pod};

/// Namespace, name and UID of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodIdentity {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The UID: two pods of one name in succession differ by it.
    pub uid: String,
}

impl PodIdentity {
    /// The identity of an API object; `None` when it lacks a name, namespace or UID, or carries
    /// one that could not be a path component.
    pub fn of(pod: &Pod) -> Option<Self> {
        let identity = PodIdentity {
            namespace: pod.metadata.namespace.clone()?,
            name: pod.metadata.name.clone()?,
            uid: pod.metadata.uid.clone()?,
        };
        let safe = |text: &str| {
            !text.is_empty()
                && !text.contains('/')
                && text != "."
                && text != ".."
                && !text.contains('\0')
        };
        (safe(&identity.namespace) && safe(&identity.name) && safe(&identity.uid))
            .then_some(identity)
    }

    /// The reference events carry; `field_path` names a container: `spec.containers{web}`.
    pub fn reference(&self, field_path: Option<String>) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            field_path,
            ..Default::default()
        }
    }
}

impl std::fmt::Display for PodIdentity {
    /// `NAME_NAMESPACE(UID)`, as kubelet writes pods in messages.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}_{}({})", self.name, self.namespace, self.uid)
    }
}
