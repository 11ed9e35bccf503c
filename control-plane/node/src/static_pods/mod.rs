//! Static pods: manifests in a directory of the node, which run whatever the API server says.
//!
//! ```text
//!   directory ── source.rs (poll) ──► manifest.rs (parse, name, hash) ──► manager: a worker each
//!                                                                   └──► mirror.rs: a pod in the
//!                                                                        API that shows each
//! ```
//! A static pod's UID is the hash of its manifest: another manifest is another pod. Its mirror has
//! a UID of the API server's and the hash in an annotation.

pub mod manifest;
pub(crate) mod mirror;
pub(crate) mod source;

use k8s_openapi::api::core::v1::Pod;

/// Annotation: where a pod comes from.
pub const SOURCE: &str = "kubernetes.io/config.source";
/// The value of [`SOURCE`] of static pods.
pub const FILE: &str = "file";
/// Annotation: the hash of a static pod's manifest.
pub const HASH: &str = "kubernetes.io/config.hash";
/// Annotation on a mirror: the hash of what it mirrors.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

fn annotation<'p>(pod: &'p Pod, name: &str) -> Option<&'p str> {
    let annotations = pod.metadata.annotations.as_ref()?;
    annotations.get(name).map(String::as_str)
}

/// Whether this is a static pod itself (not its mirror).
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, SOURCE) == Some(FILE) && annotation(pod, MIRROR).is_none()
}

/// The hash of the static pod that this pod of the API mirrors.
pub fn mirrored(pod: &Pod) -> Option<&str> {
    annotation(pod, MIRROR)
}
