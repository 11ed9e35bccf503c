//! A pod's volumes on the node.
//!
//! ```text
//!  Pod + ObjectSnapshot ──content.rs──► Payload ──atomic.rs──► ROOT/pods/UID/volumes/KIND/NAME
//!                                                                     │ CRI Mount.host_path
//!                                                                     ▼
//!                                               the runtime copies the files into the guest
//! ```
//! configMap, secret, projected and downwardAPI volumes are directories that change atomically.
//! An emptyDir is an empty directory that names the volume to the runtime; its content lives in
//! the guest. Any other type is refused by name.

pub mod atomic;
mod content;
mod ownership;
pub mod tokens;

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::env::ConfigError;
use crate::env::fields::PodFacts;
use crate::objects::ObjectSnapshot;
use ownership::Ownership;
use tokens::PodTokens;

/// A volume that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Its content cannot be put together yet.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    Content {
        /// The volume's name.
        volume: String,
        /// What is missing.
        source: ConfigError,
    },
    /// It cannot be written.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    Write {
        /// The volume's name.
        volume: String,
        /// Why.
        source: atomic::AtomicWriteError,
    },
    /// A type that the node agent does not have.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : unimplemented volume type {kind}")]
    Unimplemented {
        /// The volume's name.
        volume: String,
        /// The type's field name.
        kind: String,
    },
}

/// The directory name of a volume's type in the kubelet layout.
fn plugin(volume: &Volume) -> Option<&'static str> {
    if volume.config_map.is_some() {
        Some("kubernetes.io~configmap")
    } else if volume.secret.is_some() {
        Some("kubernetes.io~secret")
    } else if volume.projected.is_some() {
        Some("kubernetes.io~projected")
    } else if volume.downward_api.is_some() {
        Some("kubernetes.io~downward-api")
    } else if volume.empty_dir.is_some() {
        Some("kubernetes.io~empty-dir")
    } else {
        None
    }
}

/// Where a volume lives on the node; `None` for a type that is not implemented.
pub fn path(pod_dir: &Path, volume: &Volume) -> Option<PathBuf> {
    Some(
        pod_dir
            .join("volumes")
            .join(plugin(volume)?)
            .join(&volume.name),
    )
}

/// Sets up or refreshes every volume of the pod; true when any content changed.
pub fn set_up(
    pod_dir: &Path,
    pod: &Pod,
    facts: &PodFacts<'_>,
    objects: &ObjectSnapshot,
    tokens: &PodTokens,
) -> Result<bool, VolumeError> {
    let ownership = Ownership::of(pod);
    let volumes = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.volumes.as_deref())
        .unwrap_or_default();
    let mut changed = false;
    for volume in volumes {
        let Some(directory) = path(pod_dir, volume) else {
            return Err(VolumeError::Unimplemented {
                volume: volume.name.clone(),
                kind: kind_name(volume),
            });
        };
        let payload = match content::payload(volume, facts, objects, tokens) {
            Ok(payload) => payload,
            Err(source) => {
                return Err(VolumeError::Content {
                    volume: volume.name.clone(),
                    source,
                });
            }
        };
        // An emptyDir's directory stays empty; writing no payload just makes it.
        let write = match payload {
            Some(mut payload) => {
                ownership.give_files(&mut payload);
                atomic::write(&directory, &payload)
            }
            None => std::fs::create_dir_all(&directory)
                .and_then(|()| ownership.give_directory(&directory))
                .map(|()| false)
                .map_err(|source| atomic::AtomicWriteError::Io {
                    action: "make",
                    path: directory.clone(),
                    source,
                }),
        };
        changed |= write.map_err(|source| VolumeError::Write {
            volume: volume.name.clone(),
            source,
        })?;
    }
    Ok(changed)
}

/// Removes everything the pod has on the node.
pub fn tear_down(pod_dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(pod_dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The field name of a volume's source, as in the API.
fn kind_name(volume: &Volume) -> String {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(volume) else {
        return "unknown".into();
    };
    fields
        .into_iter()
        .map(|(name, _)| name)
        .find(|name| name != "name")
        .unwrap_or_else(|| "none".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::fields::testing::facts;
    use crate::objects::ObjectKind;
    use crate::objects::testing::snapshot;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt;

    fn pod(volumes: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u", "labels": {"app": "web"}},
            "spec": {"containers": [], "volumes": volumes}
        }))
        .unwrap()
    }

    #[test]
    fn items_modes_and_projections() {
        let root = tempfile::tempdir().unwrap();
        let pod = pod(json!([
            {"name": "cm", "configMap": {"name": "c", "defaultMode": 256,
                "items": [{"key": "a", "path": "deep/a.txt"}, {"key": "b", "path": "b", "mode": 511}]}},
            {"name": "s", "secret": {"secretName": "s"}},
            {"name": "all", "projected": {"sources": [
                {"configMap": {"name": "c", "items": [{"key": "a", "path": "a"}]}},
                {"secret": {"name": "gone", "optional": true}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
            {"name": "tmp", "emptyDir": {}}
        ]));
        let objects = snapshot(&[
            (ObjectKind::ConfigMap, "c", &[("a", "1"), ("b", "2")]),
            (ObjectKind::Secret, "s", &[("k", "v")]),
        ]);
        let tokens = PodTokens::default();
        assert!(set_up(root.path(), &pod, &facts(&pod), &objects, &tokens).unwrap());
        let volume = |kind: &str, name: &str| root.path().join("volumes").join(kind).join(name);
        let cm = volume("kubernetes.io~configmap", "cm");
        assert_eq!(std::fs::read_to_string(cm.join("deep/a.txt")).unwrap(), "1");
        let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(cm.join("deep/a.txt")), 0o400);
        assert_eq!(mode(cm.join("b")), 0o777);
        assert_eq!(mode(volume("kubernetes.io~secret", "s").join("k")), 0o644);
        let all = volume("kubernetes.io~projected", "all");
        assert_eq!(
            std::fs::read_to_string(all.join("labels")).unwrap(),
            "app=\"web\""
        );
        assert_eq!(std::fs::read_to_string(all.join("a")).unwrap(), "1");
        assert!(volume("kubernetes.io~empty-dir", "tmp").is_dir());
        tear_down(root.path()).unwrap();
        assert!(!root.path().exists());
        tear_down(root.path()).unwrap();
    }

    #[test]
    fn what_is_missing_or_unimplemented_names_itself() {
        let root = tempfile::tempdir().unwrap();
        for (volumes, message) in [
            (
                json!([{"name": "v", "configMap": {"name": "gone"}}]),
                "MountVolume.SetUp failed for volume \"v\" : configmap \"gone\" not found",
            ),
            (
                json!([{"name": "v", "secret": {"secretName": "s", "items": [{"key": "zz", "path": "z"}]}}]),
                "MountVolume.SetUp failed for volume \"v\" : references non-existent secret key: zz",
            ),
            (
                json!([{"name": "v", "nfs": {"server": "a", "path": "/"}}]),
                "MountVolume.SetUp failed for volume \"v\" : unimplemented volume type nfs",
            ),
            (
                json!([{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]),
                "MountVolume.SetUp failed for volume \"v\" : failed to fetch token: not asked for",
            ),
        ] {
            let pod = pod(volumes);
            let objects = snapshot(&[(ObjectKind::Secret, "s", &[("k", "v")])]);
            let error = set_up(
                root.path(),
                &pod,
                &facts(&pod),
                &objects,
                &PodTokens::default(),
            )
            .unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
}
