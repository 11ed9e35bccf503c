//! A manifest file as the pod that the node runs.

use std::fmt::Write;

use k8s_openapi::api::core::v1::{Pod, Toleration};
use sha2::{Digest, Sha256};

use super::{FILE, HASH, SOURCE};
use crate::objects::references;

/// Hexadecimal digits of a hash: as many as a kubelet's.
const HASH_DIGITS: usize = 32;

/// A manifest that cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not a pod in YAML or JSON.
    #[error("not a Pod: {0}")]
    Parse(String),
    /// It lacks what every pod has.
    #[error("has no {0}")]
    Missing(&'static str),
    /// What only the API server could give it.
    #[error("static pods may not reference {0}")]
    Reference(&'static str),
}

/// Parses a manifest for a node.
pub fn parse(text: &str, node_name: &str) -> Result<Pod, ManifestError> {
    let value: serde_json::Value =
        serde_saphyr::from_str(text).map_err(|error| ManifestError::Parse(error.to_string()))?;
    if value["kind"] != "Pod" || value["apiVersion"] != "v1" {
        return Err(ManifestError::Parse("kind is not v1 Pod".into()));
    }
    let mut pod: Pod =
        serde_json::from_value(value).map_err(|error| ManifestError::Parse(error.to_string()))?;
    let name = pod.metadata.name.take().filter(|name| !name.is_empty());
    let name = name.ok_or(ManifestError::Missing("name"))?;
    check_references(&pod)?;
    let hash = hash(text, node_name);
    let metadata = &mut pod.metadata;
    metadata.name = Some(format!("{name}-{}", node_name.to_lowercase()));
    metadata.namespace.get_or_insert_with(|| "default".into());
    metadata.uid = Some(hash.clone());
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(SOURCE.into(), FILE.into());
    annotations.insert(HASH.into(), hash);
    pod.status = None;
    let spec = pod.spec.as_mut().ok_or(ManifestError::Missing("spec"))?;
    if spec.containers.is_empty() {
        return Err(ManifestError::Missing("container"));
    }
    spec.node_name = Some(node_name.to_owned());
    // It stays whatever becomes of the node.
    spec.tolerations.get_or_insert_default().push(Toleration {
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        ..Default::default()
    });
    Ok(pod)
}

fn check_references(pod: &Pod) -> Result<(), ManifestError> {
    if !references(pod).is_empty() {
        return Err(ManifestError::Reference("configmaps or secrets"));
    }
    let spec = pod.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.as_deref());
    if account.is_some_and(|name| !name.is_empty()) {
        return Err(ManifestError::Reference("serviceaccounts"));
    }
    let mut volumes = spec.into_iter().flat_map(|s| s.volumes.iter().flatten());
    if volumes.any(|volume| volume.persistent_volume_claim.is_some()) {
        return Err(ManifestError::Reference("persistentvolumeclaims"));
    }
    Ok(())
}

/// Differs where the manifest or the node does.
fn hash(text: &str, node_name: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(node_name.as_bytes());
    hasher.update([0]);
    hasher.update(text.as_bytes());
    let mut digits = String::new();
    for byte in hasher.finalize() {
        let _ = write!(digits, "{byte:02x}");
    }
    digits.truncate(HASH_DIGITS);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - {name: c, image: i}\n";

    #[test]
    fn manifest_becomes_a_pod_of_the_node() {
        let pod = parse(WEB, "N1").unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("web-n1"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(pod.metadata.uid.as_ref().unwrap().len(), HASH_DIGITS);
        assert!(super::super::is_static(&pod));
        let other = parse(&WEB.replace("image: i", "image: j"), "N1").unwrap();
        assert_ne!(other.metadata.uid, pod.metadata.uid);
        assert_eq!(parse(WEB, "N1").unwrap().metadata.uid, pod.metadata.uid);
    }

    #[test]
    fn what_needs_the_api_server_is_refused() {
        let with = |line: &str| format!("{WEB}  {line}\n");
        for (text, message) in [
            (
                with("volumes: [{name: v, secret: {secretName: s}}]"),
                "static pods may not reference configmaps or secrets",
            ),
            (
                with("serviceAccountName: robot"),
                "static pods may not reference serviceaccounts",
            ),
            (WEB.replace("name: web", "x: y"), "has no name"),
            (
                WEB.replace("kind: Pod", "kind: Job"),
                "not a Pod: kind is not v1 Pod",
            ),
        ] {
            assert_eq!(parse(&text, "n").unwrap_err().to_string(), message);
        }
    }
}
