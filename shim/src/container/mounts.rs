//! CRI mounts, sorted by how they reach the guest: the pod's own volumes without a shared
//! filesystem, all other host paths by virtio-fs.
//!
//! The host paths are those that a node agent uses, below `<root>/pods/<pod uid>/`:
//! `volumes/kubernetes.io~<kind>/<name>[/<sub path>]`, `volume-subpaths/…`,
//! `etc-hosts`, `containers/<container>/<file>` (termination message).

use crate::error::Error;
use crate::journal::{VolumeKind, VolumeRecord};
use hash::short_hash;
use hull_cri_api::v1::{Mount, MountPropagation};
use hull_vmm_client::share::Propagation;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// Sandbox annotation: `hull.dev/empty-dir-medium.<volume> = Memory`.
const MEDIUM_ANNOTATION: &str = "hull.dev/empty-dir-medium.";
/// Sandbox annotation: `hull.dev/empty-dir-size-limit.<volume> = <bytes>`.
const SIZE_ANNOTATION: &str = "hull.dev/empty-dir-size-limit.";
/// Kinds of volumes whose files are copied.
const COPIED_KINDS: [&str; 4] = ["configmap", "secret", "projected", "downward-api"];
/// `statfs` f_type of tmpfs.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// A mount that the agent can make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedMount {
    /// Name of the volume in the guest.
    pub volume: String,
    /// Where it comes from.
    pub record: VolumeRecord,
    /// Path within the volume; empty: all of it.
    pub sub_path: String,
    /// Path in the container.
    pub container_path: String,
    /// No writing.
    pub read_only: bool,
    /// Nor in what is mounted inside.
    pub recursive_read_only: bool,
    /// What of the host's later mounts is seen; only host paths can see any.
    pub propagation: Propagation,
    /// For emptyDirs, bytes; 0: none.
    pub size_limit_bytes: u64,
}

/// Sorts one mount. `annotations` are the sandbox's.
pub fn plan(
    mount: &Mount,
    pod_uid: &str,
    annotations: &HashMap<String, String>,
) -> Result<PlannedMount, Error> {
    let invalid =
        |why: &str| Error::InvalidArgument(format!("mount at {:?}: {why}", mount.container_path));
    if !mount.container_path.starts_with('/') {
        return Err(invalid("the container path must be absolute"));
    }
    let private = mount.propagation == MountPropagation::PropagationPrivate as i32;
    let from_host = mount.propagation == MountPropagation::PropagationHostToContainer as i32;
    if mount.recursive_read_only && !mount.readonly {
        return Err(invalid("recursive_read_only needs readonly"));
    }
    if mount.recursive_read_only && !private {
        return Err(invalid("recursive_read_only needs private propagation"));
    }
    if !private && !from_host {
        return Err(Error::Unimplemented(format!(
            "mount propagation from a microVM to its host (mount at {}): it needs a \
             RuntimeClass with handler \"native\"",
            mount.container_path
        )));
    }
    if mount
        .image
        .as_ref()
        .is_some_and(|image| !image.image.is_empty())
    {
        return Err(Error::Unimplemented("image volumes".to_string()));
    }
    let host = Path::new(&mount.host_path);
    if !host.is_absolute() || host.components().any(|part| part == Component::ParentDir) {
        return Err(invalid("the host path must be absolute and without \"..\""));
    }
    let inside = below_pod(host, pod_uid).unwrap_or_default();
    let parts: Vec<&str> = inside.iter().map(String::as_str).collect();
    let share = PlannedMount {
        // Named by the container that it belongs to.
        volume: String::new(),
        record: VolumeRecord {
            kind: VolumeKind::Share,
            host_path: host.to_path_buf(),
        },
        sub_path: String::new(),
        container_path: mount.container_path.clone(),
        read_only: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
        propagation: if from_host {
            Propagation::FromHost
        } else {
            Propagation::Private
        },
        size_limit_bytes: 0,
    };
    let planned = of_pod(&parts, share.clone(), host, annotations).unwrap_or(share);
    if from_host && planned.record.kind != VolumeKind::Share {
        return Err(Error::Unimplemented(format!(
            "mount propagation to a volume in a microVM's own memory or disk (mount at {}): it \
             needs a RuntimeClass with handler \"native\"",
            mount.container_path
        )));
    }
    Ok(planned)
}

/// A volume of the pod itself that needs no shared filesystem; `parts` are its path below the
/// pod's directory.
fn of_pod(
    parts: &[&str],
    base: PlannedMount,
    host: &Path,
    annotations: &HashMap<String, String>,
) -> Option<PlannedMount> {
    match parts {
        ["volumes", kind, name, sub @ ..] => {
            let kind = kind.strip_prefix("kubernetes.io~")?;
            let root = ancestor(host, sub.len());
            if kind == "empty-dir" {
                return Some(empty_dir(base, name, root, sub, annotations));
            }
            COPIED_KINDS.contains(&kind).then(|| PlannedMount {
                volume: volume_name(kind, name, &root),
                record: VolumeRecord {
                    kind: VolumeKind::Files,
                    host_path: root,
                },
                sub_path: sub.join("/"),
                ..base
            })
        }
        ["etc-hosts"] | ["containers", ..] => {
            let file = (*parts.last()?).to_owned();
            Some(PlannedMount {
                volume: volume_name("file", &file, host),
                record: VolumeRecord {
                    kind: VolumeKind::File,
                    host_path: host.to_path_buf(),
                },
                sub_path: file,
                ..base
            })
        }
        _ => None,
    }
}

fn empty_dir(
    base: PlannedMount,
    name: &str,
    root: PathBuf,
    sub: &[&str],
    annotations: &HashMap<String, String>,
) -> PlannedMount {
    let annotation = |prefix: &str| annotations.get(&format!("{prefix}{name}"));
    let memory = match annotation(MEDIUM_ANNOTATION) {
        Some(medium) => medium == "Memory",
        None => is_tmpfs_mount(&root),
    };
    PlannedMount {
        volume: volume_name("empty-dir", name, &root),
        record: VolumeRecord {
            kind: if memory {
                VolumeKind::EmptyDirMemory
            } else {
                VolumeKind::EmptyDir
            },
            host_path: root,
        },
        sub_path: sub.join("/"),
        size_limit_bytes: annotation(SIZE_ANNOTATION)
            .and_then(|bytes| bytes.parse().ok())
            .unwrap_or(0),
        ..base
    }
}

/// The components after `…/pods/<uid>/`, if the path is there.
fn below_pod(path: &Path, pod_uid: &str) -> Option<Vec<String>> {
    let parts: Vec<String> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect();
    let at = parts
        .windows(2)
        .position(|pair| pair[0] == "pods" && pair[1] == pod_uid)?;
    Some(parts[at + 2..].to_vec())
}

fn ancestor(path: &Path, levels: usize) -> PathBuf {
    path.ancestors().nth(levels).unwrap_or(path).to_path_buf()
}

/// A tmpfs that is mounted at this very path, not one that the path merely lies on.
fn is_tmpfs_mount(path: &Path) -> bool {
    let (Ok(own), Some(Ok(parent))) = (rustix::fs::stat(path), path.parent().map(rustix::fs::stat))
    else {
        return false;
    };
    own.st_dev != parent.st_dev
        && rustix::fs::statfs(path).is_ok_and(|filesystem| filesystem.f_type == TMPFS_MAGIC)
}

/// One path component of at most 128 bytes, the same for the same host path.
fn volume_name(kind: &str, name: &str, path: &Path) -> String {
    const NAME_CHARS: usize = 63;
    let name: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .take(NAME_CHARS)
        .collect();
    format!("{kind}-{name}-{}", short_hash(path))
}

mod hash {
    use std::hash::{DefaultHasher, Hash, Hasher};
    use std::path::Path;

    /// Tells volumes of the same name apart. Not secret and not persistent across
    /// versions of the program: the name is kept in the journal.
    pub fn short_hash(path: &Path) -> String {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        format!("{:012x}", hasher.finish() & 0xffff_ffff_ffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "6a0e";

    fn planned(host: &str) -> Result<PlannedMount, Error> {
        let mount = Mount {
            container_path: "/x".into(),
            host_path: host.into(),
            ..Default::default()
        };
        let annotations = HashMap::from([
            (
                "hull.dev/empty-dir-medium.mem".to_string(),
                "Memory".to_string(),
            ),
            (
                "hull.dev/empty-dir-size-limit.mem".to_string(),
                "4096".to_string(),
            ),
        ]);
        plan(&mount, UID, &annotations)
    }

    #[test]
    fn volumes_of_the_pod_are_recognised_by_their_paths() {
        let root = "/var/lib/kubelet/pods/6a0e";
        let config = planned(&format!("{root}/volumes/kubernetes.io~configmap/c/key")).unwrap();
        assert_eq!(config.record.kind, VolumeKind::Files);
        assert_eq!(config.sub_path, "key");
        assert!(
            config
                .record
                .host_path
                .ends_with("kubernetes.io~configmap/c")
        );
        let cache = planned(&format!("{root}/volumes/kubernetes.io~empty-dir/cache")).unwrap();
        assert_eq!(cache.record.kind, VolumeKind::EmptyDir);
        let memory = planned(&format!("{root}/volumes/kubernetes.io~empty-dir/mem/a/b")).unwrap();
        assert_eq!(memory.record.kind, VolumeKind::EmptyDirMemory);
        assert_eq!(
            (memory.sub_path.as_str(), memory.size_limit_bytes),
            ("a/b", 4096)
        );
        let hosts = planned(&format!("{root}/etc-hosts")).unwrap();
        assert_eq!(
            (hosts.record.kind, hosts.sub_path.as_str()),
            (VolumeKind::File, "etc-hosts")
        );
    }

    #[test]
    fn other_host_paths_are_shared_and_those_that_climb_are_refused() {
        for host in [
            "/etc",
            "/var/lib/kubelet/pods/other/etc-hosts",
            "/var/lib/kubelet/pods/6a0e/plugins/x",
            "/var/lib/kubelet/pods/6a0e/volumes/kubernetes.io~csi/x/mount",
            "/var/lib/kubelet/pods/6a0e/volume-subpaths/c/main/0",
        ] {
            let record = planned(host).unwrap().record;
            assert_eq!(record.kind, VolumeKind::Share);
            assert_eq!(record.host_path, Path::new(host));
        }
        for host in ["relative", "/var/lib/kubelet/pods/6a0e/volumes/../../x"] {
            assert!(matches!(planned(host), Err(Error::InvalidArgument(_))));
        }
    }

    #[test]
    fn recursive_read_only_and_propagation_are_checked() {
        let empty_dir = "/k/pods/6a0e/volumes/kubernetes.io~empty-dir/d";
        let refused_at = |host: &str, readonly, recursive_read_only, propagation| {
            let propagation: MountPropagation = propagation;
            let mount = Mount {
                container_path: "/x".into(),
                host_path: host.into(),
                readonly,
                recursive_read_only,
                propagation: propagation as i32,
                ..Default::default()
            };
            plan(&mount, UID, &HashMap::new())
                .err()
                .map(|error| error.to_string())
        };
        let refused = |readonly, recursive, propagation| {
            refused_at(empty_dir, readonly, recursive, propagation)
        };
        use MountPropagation::{
            PropagationBidirectional, PropagationHostToContainer, PropagationPrivate,
        };
        assert_eq!(refused(true, true, PropagationPrivate), None);
        assert!(
            refused(false, true, PropagationPrivate)
                .unwrap()
                .contains("readonly")
        );
        for shared in [PropagationBidirectional, PropagationHostToContainer] {
            assert!(refused(true, true, shared).unwrap().contains("private"));
            assert!(refused(false, false, shared).unwrap().contains("native"));
        }
        let at_host = |propagation| refused_at("/mnt", false, false, propagation);
        assert_eq!(at_host(PropagationHostToContainer), None);
        assert!(
            at_host(PropagationBidirectional)
                .unwrap()
                .contains("native")
        );
    }

    #[test]
    fn the_same_volume_has_the_same_name_in_every_container() {
        let path = "/k/pods/6a0e/volumes/kubernetes.io~empty-dir/d";
        let (whole, part) = (
            planned(path).unwrap(),
            planned(&format!("{path}/sub")).unwrap(),
        );
        assert_eq!(whole.volume, part.volume);
    }
}
